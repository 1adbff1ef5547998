//! Questions to name servers that resolve for others (RFC 1035): over UDP, over TCP if the answer does not fit. The
//! messages are the `simple-dns` crate's; here is who is asked, how often, and which packet is the answer.

use aws_lc_rs::rand;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Where name servers listen.
pub const PORT: u16 = 53;
/// Rounds over all servers.
const ROUNDS: u32 = 2;
/// Longest answer over UDP that is taken.
const MAX_UDP_BYTES: usize = 4096;
/// Records of an answer that are read at most.
const MAX_RECORDS: usize = 256;

/// The addresses of a host, both families.
pub fn addresses(host: &str, servers: &[SocketAddr], until: Instant) -> Result<Vec<IpAddr>, String> {
    let mut found = Vec::new();
    let mut failed = None;
    for kind in [TYPE::A, TYPE::AAAA] {
        match ask(host, kind, servers, until) {
            Ok(records) => found.extend(records.into_iter().filter_map(|r| match r {
                Record::Address(ip) => Some(ip),
                Record::Text(_) => None,
            })),
            Err(why) => failed = Some(why),
        }
    }
    match (found.is_empty(), failed) {
        (true, Some(why)) => Err(why),
        _ => Ok(found),
    }
}

/// The texts of a name's TXT records.
pub fn texts(name: &str, servers: &[SocketAddr], until: Instant) -> Result<Vec<String>, String> {
    let records = ask(name, TYPE::TXT, servers, until)?;
    let text = |r| match r {
        Record::Text(t) => Some(t),
        Record::Address(_) => None,
    };
    Ok(records.into_iter().filter_map(text).collect())
}

/// What an answer holds, of the kinds that are asked for.
#[derive(Debug, PartialEq)]
enum Record {
    Address(IpAddr),
    Text(String),
}

fn ask(name: &str, kind: TYPE, servers: &[SocketAddr], until: Instant) -> Result<Vec<Record>, String> {
    let failed = |why: String| format!("looking {name} up: {why}");
    let mut id = [0; 2];
    rand::fill(&mut id).map_err(|_| failed("no randomness".into()))?;
    let id = u16::from_be_bytes(id);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let qname = Name::new(name.trim_end_matches('.')).map_err(|e| failed(e.to_string()))?;
    packet.questions.push(Question::new(qname.clone(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    let question = packet.build_bytes_vec().map_err(|e| failed(e.to_string()))?;
    let asked = Asked { id, name: &qname, kind };
    let mut why = "no answer in time".to_owned();
    for round in 0..ROUNDS {
        for (n, server) in servers.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            let tries = (ROUNDS - round) * servers.len() as u32 - n as u32;
            if left.is_zero() {
                return Err(failed(why));
            }
            // what is left of the time is shared by the tries that are left
            match one(*server, &question, &asked, Instant::now() + left / tries) {
                Ok(records) => return Ok(records),
                Err(e) => why = format!("{server}: {e}"),
            }
        }
    }
    Err(failed(why))
}

/// What an answer must answer.
struct Asked<'n> {
    id: u16,
    name: &'n Name<'n>,
    kind: TYPE,
}

/// What a packet is.
enum Meaning {
    /// Not the answer to the question: somebody else's, or forged.
    Stray,
    /// The answer did not fit.
    Truncated,
    Answer(Result<Vec<Record>, String>),
}

impl Asked<'_> {
    fn read(&self, bytes: &[u8]) -> Meaning {
        let Ok(packet) = Packet::parse(bytes) else { return Meaning::Stray };
        let ours = |q: &Question<'_>| {
            q.qname.to_string().eq_ignore_ascii_case(&self.name.to_string()) && q.qtype == QTYPE::TYPE(self.kind)
        };
        if packet.id() != self.id
            || !packet.has_flags(PacketFlag::RESPONSE)
            || !matches!(&packet.questions[..], [q] if ours(q))
        {
            return Meaning::Stray;
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            return Meaning::Truncated;
        }
        Meaning::Answer(match packet.rcode() {
            // aliases stand among the answers, with what they lead to
            RCODE::NoError if packet.answers.len() > MAX_RECORDS => Err("more records than are read".into()),
            RCODE::NoError => Ok(packet.answers.into_iter().filter_map(|r| record(r.rdata)).collect()),
            RCODE::NameError => Ok(Vec::new()),
            code => Err(format!("the server says {code:?}")),
        })
    }
}

fn record(data: RData<'_>) -> Option<Record> {
    match data {
        RData::A(a) => Some(Record::Address(IpAddr::from(a.address.to_be_bytes()))),
        RData::AAAA(a) => Some(Record::Address(IpAddr::from(a.address.to_be_bytes()))),
        // a text that is no UTF-8 is not one that anybody here asks for
        RData::TXT(t) => String::try_from(t).ok().map(Record::Text),
        _ => None,
    }
}

/// One try at one server.
fn one(server: SocketAddr, question: &[u8], asked: &Asked<'_>, until: Instant) -> Result<Vec<Record>, String> {
    let text = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => e.to_string(),
    };
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // a port drawn by the kernel, and packets of this server only
    let socket = UdpSocket::bind((any, 0)).map_err(text)?;
    socket.connect(server).map_err(text)?;
    socket.send(question).map_err(text)?;
    let mut packet = vec![0; MAX_UDP_BYTES];
    loop {
        socket.set_read_timeout(Some(left(until)?)).map_err(text)?;
        let n = socket.recv(&mut packet).map_err(text)?;
        match asked.read(&packet[..n]) {
            Meaning::Stray => {}
            Meaning::Truncated => break,
            Meaning::Answer(answer) => return answer,
        }
    }
    let mut stream = TcpStream::connect_timeout(&server, left(until)?).map_err(text)?;
    let length = u16::try_from(question.len()).map_err(|_| "the question is too long")?;
    stream.set_write_timeout(Some(left(until)?)).map_err(text)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).map_err(text)?;
    let mut length = [0; 2];
    fill(&mut stream, &mut length, until)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    fill(&mut stream, &mut packet, until)?;
    match asked.read(&packet) {
        Meaning::Answer(answer) => answer,
        _ => Err("the answer over TCP is not whole".into()),
    }
}

/// Reads exactly what fits, however slowly it comes, but not longer than allowed.
fn fill(stream: &mut TcpStream, mut rest: &mut [u8], until: Instant) -> Result<(), String> {
    while !rest.is_empty() {
        stream.set_read_timeout(Some(left(until)?)).map_err(|e| e.to_string())?;
        match stream.read(rest).map_err(|e| e.to_string())? {
            0 => return Err("the connection was closed".into()),
            n => rest = &mut rest[n..],
        }
    }
    Ok(())
}

fn left(until: Instant) -> Result<Duration, String> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err("no answer in time".into()),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, TXT};
    use std::net::TcpListener;

    /// A server that answers each packet by a function of the question, a packet or several.
    fn serve(answer: impl Fn(&Packet<'_>) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut packet) {
                for out in answer(&Packet::parse(&packet[..n]).unwrap()) {
                    socket.send_to(&out, from).unwrap();
                }
            }
        });
        at
    }

    fn reply(q: &Packet<'_>, data: Vec<RData<'static>>) -> Packet<'static> {
        let mut p = Packet::new_reply(q.id());
        p.questions = q.questions.iter().cloned().map(Question::into_owned).collect();
        let name = q.questions[0].qname.clone().into_owned();
        p.answers = data.into_iter().map(|d| ResourceRecord::new(name.clone(), CLASS::IN, 1, d)).collect();
        p
    }

    fn txt(text: &'static str) -> RData<'static> {
        RData::TXT(TXT::new().with_string(text).unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn texts_and_addresses() {
        let at = serve(|q| {
            let data = match q.questions[0].qtype {
                QTYPE::TYPE(TYPE::TXT) => vec![txt("one"), txt("two")],
                QTYPE::TYPE(TYPE::A) => vec![RData::A(A::from(std::net::Ipv4Addr::new(192, 0, 2, 1)))],
                _ => vec![],
            };
            vec![reply(q, data).build_bytes_vec().unwrap()]
        });
        assert_eq!(texts("a.example.com", &[at], soon()), Ok(vec!["one".into(), "two".into()]));
        assert_eq!(addresses("a.example.com.", &[at], soon()), Ok(vec!["192.0.2.1".parse().unwrap()]));
        assert!(texts(&"a".repeat(64), &[at], soon()).is_err(), "no name");
    }

    #[test]
    fn what_is_not_the_answer_is_not_taken() {
        let at = serve(|q| {
            let mut id = reply(q, vec![txt("forged")]);
            id.set_id(q.id().wrapping_add(1));
            let mut name = reply(q, vec![txt("forged")]);
            name.questions[0].qname = Name::new("b.example.com").unwrap();
            let mut asks = reply(q, vec![txt("forged")]);
            asks.remove_flags(PacketFlag::RESPONSE);
            let mut out: Vec<Vec<u8>> = [id, name, asks].iter().map(|p| p.build_bytes_vec().unwrap()).collect();
            out.push(b"junk".to_vec());
            out.push(reply(q, vec![txt("real")]).build_bytes_vec().unwrap());
            out
        });
        assert_eq!(texts("a.example.com", &[at], soon()), Ok(vec!["real".into()]));
    }

    #[test]
    fn codes_of_servers() {
        let code = |c: RCODE| {
            serve(move |q| {
                let mut p = reply(q, vec![]);
                *p.rcode_mut() = c;
                vec![p.build_bytes_vec().unwrap()]
            })
        };
        assert_eq!(texts("a.example.com", &[code(RCODE::NameError)], soon()), Ok(vec![]));
        assert!(texts("a.example.com", &[code(RCODE::ServerFailure)], soon()).unwrap_err().contains("ServerFailure"));
        // one that fails is followed by the next
        let good = serve(|q| vec![reply(q, vec![txt("here")]).build_bytes_vec().unwrap()]);
        assert_eq!(texts("a.example.com", &[code(RCODE::Refused), good], soon()), Ok(vec!["here".into()]));
    }

    #[test]
    fn a_long_answer_comes_over_tcp() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(at).unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            let (n, from) = udp.recv_from(&mut packet).unwrap();
            let mut short = reply(&Packet::parse(&packet[..n]).unwrap(), vec![]);
            short.set_flags(PacketFlag::TRUNCATION);
            udp.send_to(&short.build_bytes_vec().unwrap(), from).unwrap();
            let (mut stream, _) = tcp.accept().unwrap();
            let n = stream.read(&mut packet).unwrap();
            let many: Vec<RData<'_>> = (0..200).map(|_| txt("a text of some length")).collect();
            let bytes = reply(&Packet::parse(&packet[2..n]).unwrap(), many).build_bytes_vec().unwrap();
            stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
            for part in bytes.chunks(700) {
                stream.write_all(part).unwrap();
            }
        });
        assert_eq!(texts("a.example.com", &[at], soon()).map(|t| t.len()), Ok(200));
    }

    #[test]
    fn silence_ends() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let begun = Instant::now();
        let until = begun + Duration::from_millis(200);
        assert!(
            texts("a.example.com", &[silent.local_addr().unwrap()], until).unwrap_err().contains("no answer in time")
        );
        assert!(begun.elapsed() >= Duration::from_millis(190), "both tries had their time");
    }
}
