//! The cluster port: connections between the nodes of a cluster, on core 0.
//!
//! ```text
//!   owner ── Send ──> outbox of (peer, lane) ── Link ── TLS ──>  peer's Link ── Peer ──> its owner
//!   shard ── Forward ──> outbox of (peer, calls) ── Link ──>     peer's Link ── Passed ──> one of its shards
//!         <── Forwarded ────────────── the same connection <─────────────────── Answer ──
//! ```
//! Each node dials each other member three times: for heartbeats and votes, for what may be long, and for calls; what
//! is dialled carries the dialler's messages, and on the last kind the answers come back. So heartbeats wait behind
//! nothing, and a connection that ends tells the fate of each call that was on it: never sent, or unknown.
//!
//! Driven by the owner (who belongs to the cluster, what is to be sent) and the cores. Never judges a message: who is a
//! member, and which certificate it shows, is the table's to say.

mod ask;
mod heard;
mod hello;
mod identity;
mod link;
mod repair;
mod rotation;
mod tls;

pub use ask::ask;
pub use heard::Boot;
pub use identity::{Identity, node_id};
pub use repair::{Home, come_home};

use crate::rt::channel::{Inlet, Sender};
use crate::rt::{self, Stream, TcpListener};
use crate::shard::{ToOwner, ToShard};
use crate::telemetry::{self, Level};
use heard::Heard;
use hello::{Hello, Refusal};
use link::{Frame, Link, Outbox};
use ringfence_node::{Forwarded, Lane, MemberRecord, Membership, PeerMessage, Returned, Returning, ShardIn, Ticket};
use rustls::{ClientConnection, Connection, ServerConfig, ServerConnection};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// All kinds of connections that are kept up.
const LANES: [Lane; 3] = [Lane::Control, Lane::Bulk, Lane::Calls];
/// Longest frame of heartbeats and votes, bytes.
const MAX_CONTROL_BYTES: usize = 1 << 20;
/// Longest other frame, bytes.
const MAX_FRAME_BYTES: usize = ringfence_node::peer::MAX_PEER_BYTES;
/// What may wait for a connection, bytes; beyond it messages are lost and calls are not taken.
const MAX_WAITING_BYTES: usize = 128 << 20;
/// A connection must stand within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts to connect: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Connections that have not yet said who they are.
const MAX_STRANGERS: usize = 32;
/// Connections of members.
const MAX_LINKS: usize = 256;
/// Calls of one peer under way here; further ones are not done.
const MAX_CALLS: usize = 8192;
/// Who is no member any more is spoken to for so long, to hear of it.
const PARTING: Duration = Duration::from_secs(3);
/// The same refusal is told again after so long, ns.
const QUIET_NS: u64 = 30_000_000_000;
/// The port is tried again after so long if it is taken.
const BIND_PAUSE: Duration = Duration::from_secs(2);

/// From the cores to the cluster port.
#[derive(Debug)]
pub enum ToPeers {
    /// Pass a call on: to whom, its number, the encoded message.
    Forward(u64, u64, Vec<u8>),
    /// The encoded answer to a call that came over this connection.
    Answer(u64, Vec<u8>),
    /// What came over this connection cannot be read.
    Broken(u64),
}

/// Names a call by the core that waits for it and its ticket there.
pub fn call_number(shard: u16, ticket: Ticket) -> u64 {
    (ticket.0 << 16) | u64::from(shard)
}

/// A connection that a member dialled.
struct Inbound {
    from: u64,
    boot: Option<Boot>,
    lane: Lane,
    outbox: Rc<Outbox>,
    calls: Cell<usize>,
}

/// What this node keeps up to a member.
struct Dialled {
    record: MemberRecord,
    outboxes: [Rc<Outbox>; 3],
}

/// The cluster port.
pub struct Peers {
    identity: RefCell<Identity>,
    boot: Boot,
    heard: Arc<Mutex<Heard>>,
    server: RefCell<Arc<ServerConfig>>,
    own: RefCell<Membership>,
    dialled: RefCell<BTreeMap<u64, Dialled>>,
    inbound: RefCell<BTreeMap<u64, Inbound>>,
    strangers: Cell<usize>,
    /// Refusals that were told lately, and when.
    told: RefCell<BTreeMap<String, u64>>,
    next_link: Cell<u64>,
    next_shard: Cell<usize>,
    owner: Sender<ToOwner>,
    shards: Vec<Sender<ToShard>>,
}

fn lane_at(lane: Lane) -> usize {
    LANES.iter().position(|l| *l == lane).unwrap_or(0)
}

fn max_frame(lane: Lane) -> usize {
    if matches!(lane, Lane::Control | Lane::Return) { MAX_CONTROL_BYTES } else { MAX_FRAME_BYTES }
}

impl Peers {
    /// Connects to nobody before it knows a member.
    ///
    /// # Errors
    /// The identity is of no use.
    pub fn new(
        identity: Identity,
        boot: Boot,
        owner: Sender<ToOwner>,
        shards: Vec<Sender<ToShard>>,
    ) -> Result<Rc<Peers>, String> {
        let server = tls::server(&identity).map_err(|e| format!("the cluster port's certificate: {e}"))?;
        let heard = Arc::new(Mutex::new(Heard::open(identity.folder().to_owned())));
        Ok(Rc::new(Peers {
            identity: RefCell::new(identity),
            boot,
            heard,
            server: RefCell::new(server),
            own: RefCell::default(),
            dialled: RefCell::default(),
            inbound: RefCell::default(),
            strangers: Cell::new(0),
            told: RefCell::default(),
            next_link: Cell::new(1),
            next_shard: Cell::new(0),
            owner,
            shards,
        }))
    }

    /// Listens. An address that is taken is tried again for ever, unless it is `required` now.
    ///
    /// # Errors
    /// The address cannot be had and is required.
    pub fn listen(self: &Rc<Self>, address: SocketAddr, required: bool) -> Result<(), String> {
        match TcpListener::bind(address, false) {
            Ok(listener) => rt::spawn_local(self.clone().accept(listener)),
            Err(e) if required => {
                return Err(format!(
                    "Error initializing cluster listener: listen tcp {address}: {e}; if another process has the \
                     address, stop it or set another cluster_address in the listener stanza"
                ));
            }
            Err(e) => {
                telemetry::log(
                    Level::Warn,
                    &format!("the cluster port {address} cannot be had yet: {e}; no other node can reach this one"),
                );
                let this = self.clone();
                rt::spawn_local(async move {
                    loop {
                        rt::sleep(BIND_PAUSE).await;
                        if let Ok(listener) = TcpListener::bind(address, false) {
                            telemetry::log(Level::Info, &format!("the cluster port {address} is open now"));
                            return this.accept(listener).await;
                        }
                    }
                })
            }
        };
        Ok(())
    }

    /// The mailbox of the cluster port, emptied for ever.
    pub async fn serve(self: Rc<Self>, inlet: Inlet<ToPeers>) {
        let (mut mail, mut batch) = (inlet.open(), Vec::new());
        while mail.drain(&mut batch).await > 0 {
            for message in batch.drain(..) {
                match message {
                    ToPeers::Forward(to, number, bytes) => {
                        let taken = match self.dialled.borrow().get(&to) {
                            Some(d) => d.outboxes[lane_at(Lane::Calls)].push(Frame::Call(number, bytes)),
                            None => false,
                        };
                        if !taken {
                            self.tell_fate(number, Forwarded::NotSent);
                        }
                    }
                    ToPeers::Answer(link, bytes) => {
                        if let Some(i) = self.inbound.borrow().get(&link) {
                            i.calls.set(i.calls.get().saturating_sub(1));
                            // if it does not fit, the connection ends and the caller learns that nobody knows
                            if !i.outbox.push(Frame::Message(bytes)) {
                                i.outbox.end("its answers are not taken");
                            }
                        }
                    }
                    ToPeers::Broken(link) => {
                        if let Some(i) = self.inbound.borrow().get(&link) {
                            i.outbox.end("it sends what cannot be read");
                        }
                    }
                }
            }
        }
    }

    /// Sends a message of the owner; it may be lost.
    pub fn send(&self, to: u64, message: &PeerMessage) {
        if let Some(d) = self.dialled.borrow().get(&to) {
            d.outboxes[lane_at(message.lane())].push(Frame::Message(message.encode()));
        }
    }

    /// Takes the members as they are now: connects to new ones, leaves those that are gone.
    pub fn members(self: &Rc<Self>, membership: Membership) {
        let mut membership = membership;
        if membership.members.is_empty() {
            // it has got nothing of the cluster's data yet
            membership.members = self.identity.borrow().kept_members();
        } else if membership.members != self.own.borrow().members {
            let (folder, members) = (self.identity.borrow().folder().to_owned(), membership.members.clone());
            rt::spawn_local(async move {
                if let Err(e) = rt::unblock(move || Identity::keep_members(&folder, &members)).await {
                    telemetry::log(Level::Warn, &e);
                }
            });
        }
        *self.own.borrow_mut() = membership.clone();
        let others: BTreeMap<&u64, &MemberRecord> =
            membership.members.iter().filter(|(id, _)| **id != membership.raft_id).collect();
        // who proved itself when it connected stays, whatever certificate is the next to be shown
        let gone = |i: &Inbound| !others.contains_key(&i.from);
        if self.inbound.borrow().values().any(gone) || self.dialled.borrow().keys().any(|id| !others.contains_key(id))
        {
            self.clone().part_later();
        }
        let mut dialled = self.dialled.borrow_mut();
        dialled.retain(|id, d| {
            let same = |r: &&MemberRecord| r.cluster_addr == d.record.cluster_addr;
            let stays = others.get(id).is_none_or(same);
            if !stays {
                d.outboxes.iter().for_each(|o| o.end("it moved"));
            }
            stays
        });
        for (id, record) in others {
            if !dialled.contains_key(id) {
                let outboxes = LANES.map(|_| Outbox::new(MAX_WAITING_BYTES));
                for (lane, outbox) in LANES.iter().zip(&outboxes) {
                    rt::spawn_local(self.clone().keep_up(*id, record.clone(), *lane, outbox.clone()));
                }
                dialled.insert(*id, Dialled { record: record.clone(), outboxes });
            }
        }
    }

    /// Ends the connections with those that are no members any more, after they had time to hear of it.
    fn part_later(self: Rc<Self>) {
        rt::spawn_local(async move {
            rt::sleep(PARTING).await;
            let own = self.own.borrow();
            for i in self.inbound.borrow().values() {
                if !own.members.contains_key(&i.from) {
                    i.outbox.end("it is not a member any more");
                }
            }
            self.dialled.borrow_mut().retain(|id, d| {
                let stays = own.members.contains_key(id);
                if !stays {
                    d.outboxes.iter().for_each(|o| o.end("it is not a member any more"));
                }
                stays
            });
        });
    }

    /// Says why somebody was refused, each reason now and then only: whoever is refused comes again.
    fn tell_refusal(&self, from: SocketAddr, why: &str) {
        let (key, now) = (format!("{} {why}", from.ip()), rt::mono().0);
        let mut told = self.told.borrow_mut();
        told.retain(|_, at| now.saturating_sub(*at) < QUIET_NS);
        if told.len() < MAX_STRANGERS && !told.contains_key(&key) {
            told.insert(key, now);
            telemetry::log(Level::Warn, &format!("a connection from {from} is refused: {why}"));
        }
    }

    /// Keeps one connection up to a member until it is not wanted any more.
    async fn keep_up(self: Rc<Self>, id: u64, record: MemberRecord, lane: Lane, outbox: Rc<Outbox>) {
        let (mut pause, mut told, mut age) = (FIRST_PAUSE, String::new(), 0);
        let mut record = record;
        while outbox.ended().is_none() {
            // its certificates may have changed since
            if let Some(now) = self.own.borrow().members.get(&id) {
                record = now.clone();
            }
            let attempt = rt::timeout(CONNECT_TIMEOUT, self.connect(id, &record, lane, age)).await;
            match attempt.unwrap_or_else(|_| Err("no answer in time".to_owned().into())) {
                Ok(mut link) => {
                    (pause, told) = (FIRST_PAUSE, String::new());
                    outbox.open();
                    let why = link.run(&outbox, |frame| self.answered(&outbox, lane, &frame)).await;
                    let (unsent, unknown) = outbox.close();
                    unsent.into_iter().for_each(|n| self.tell_fate(n, Forwarded::NotSent));
                    unknown.into_iter().for_each(|n| self.tell_fate(n, Forwarded::Unknown));
                    let _ = self.owner.try_send(ToOwner::Unreachable(id));
                    telemetry::log(Level::Debug, &format!("connection to node {:?}: {why}", record.name));
                }
                Err(Refusal { why, refused, .. }) => {
                    // a node that was away may know an older certificate only
                    age = if refused { age + 1 } else { age };
                    let cycle = self.identity.borrow().newest_first().count();
                    if refused && !age.is_multiple_of(cycle) {
                        pause = FIRST_PAUSE;
                    }
                    // the same is not said again and again, nor three times
                    if why != told && lane == Lane::Control {
                        let (name, at) = (&record.name, &record.cluster_addr);
                        telemetry::log(Level::Warn, &format!("node {name:?} at {at} is not reached: {why}"));
                    }
                    told = why;
                    rt::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// `age` certificates before the one in use is shown, as far as there are.
    async fn connect(&self, id: u64, record: &MemberRecord, lane: Lane, age: usize) -> Result<Link, Refusal> {
        let address = resolve(&record.cluster_addr).await?;
        let stream = Stream::connect(address).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let config = {
            let identity = self.identity.borrow();
            let count = identity.newest_first().count();
            let shown = identity.newest_first().nth(age % count.max(1)).unwrap_or(identity.in_use());
            tls::client(shown, &record.pins).map_err(|e| e.to_string())?
        };
        let name = tls::name_of(record.pins.last())?;
        let tls = ClientConnection::new(config, name).map_err(|e| e.to_string())?;
        let mut link = Link::new(stream, Connection::Client(tls));
        link.shake().await?;
        let hello = {
            let own = self.own.borrow();
            Hello {
                version: hello::VERSION,
                cluster: own.cluster,
                from: own.raft_id,
                to: id,
                lane,
                minor: hello::MINOR,
                boot: Some(self.boot),
            }
        };
        link.send(&hello.encode()).await?;
        if let Err(refusal) = hello::read_verdict(&link.receive().await?) {
            if refusal.older {
                let _ = self.owner.try_send(ToOwner::Lost(refusal.why.clone()));
            }
            return Err(refusal);
        }
        link.allow(max_frame(lane));
        Ok(link)
    }

    /// What comes back on a connection that this node dialled: answers to calls, and nothing else.
    fn answered(&self, outbox: &Outbox, lane: Lane, frame: &[u8]) -> Result<(), String> {
        let (number, fate) = match PeerMessage::decode(frame) {
            Ok(PeerMessage::Forwarded(number, index, reply)) if lane == Lane::Calls => {
                (number, Forwarded::Answer(*reply, index))
            }
            Ok(PeerMessage::NotDone(number)) if lane == Lane::Calls => (number, Forwarded::NotSent),
            Ok(_) => return Err("it sends what was not asked for".into()),
            Err(e) => return Err(format!("it sends what cannot be read: {e}")),
        };
        if outbox.outstanding.borrow_mut().remove(&number) {
            self.tell_fate(number, fate);
        }
        Ok(())
    }

    fn tell_fate(&self, number: u64, fate: Forwarded) {
        let (shard, ticket) = ((number & 0xffff) as usize, Ticket(number >> 16));
        if let Some(to) = self.shards.get(shard) {
            // a core that has ended waits for nothing
            let _ = to.try_send(ToShard::Event(ShardIn::Forwarded(ticket, fate)));
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    if self.strangers.get() < MAX_STRANGERS && self.inbound.borrow().len() < MAX_LINKS {
                        self.strangers.set(self.strangers.get() + 1);
                        rt::spawn_local(self.clone().greet(stream, from));
                    }
                }
                Err(e) => telemetry::log(Level::Warn, &format!("the cluster port takes no connection: {e}")),
            }
        }
    }

    /// Finds out who is there, then serves the connection to its end.
    async fn greet(self: Rc<Self>, stream: Stream, from: SocketAddr) {
        let greeted = rt::timeout(CONNECT_TIMEOUT, self.judge(stream)).await;
        self.strangers.set(self.strangers.get().saturating_sub(1));
        match greeted.unwrap_or_else(|_| Err("it does not say who it is".into())) {
            Ok((mut link, hello)) => {
                link.allow(max_frame(hello.lane));
                self.attend(link, hello).await;
            }
            Err(why) => self.tell_refusal(from, &why),
        }
    }

    async fn judge(&self, stream: Stream) -> Result<(Link, Hello), String> {
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let tls = ServerConnection::new(self.server.borrow().clone()).map_err(|e| e.to_string())?;
        let mut link = Link::new(stream, Connection::Server(tls));
        link.shake().await?;
        let pin = identity::pin_of(&link.certificate().ok_or("it shows no certificate")?);
        let first = link.receive().await?;
        let hello = Hello::decode(&first).map_err(|e| format!("it does not speak as a node: {e}"))?;
        let mut judged = hello.judge(&self.own.borrow(), &pin).map_err(Refusal::from);
        if judged.is_ok() {
            judged = self.meet(&hello).await;
        }
        link.send(&hello::verdict(&judged)).await?;
        if judged.is_err() {
            link.finish().await;
        }
        judged.map(|()| (link, hello)).map_err(|refusal| refusal.why)
    }

    /// Whether the caller is the newest start of its directory, and the only one that is up.
    async fn meet(&self, hello: &Hello) -> Result<(), Refusal> {
        let Some(boot) = hello.boot else { return Ok(()) };
        let is_other = |i: &Inbound| i.from == hello.from && i.boot.is_some_and(|b| b != boot);
        if self.inbound.borrow().values().any(is_other) {
            let why = "another process with its data directory, or a copy of it, is up or was up a moment ago";
            return Err(why.to_owned().into());
        }
        match hello.lane {
            // it may be about to say that it has lost its directory
            Lane::Return => Ok(()),
            _ => self.note_start(hello.from, boot).await,
        }
    }

    /// Writes down that a member's directory was started once more.
    async fn note_start(&self, from: u64, boot: Boot) -> Result<(), Refusal> {
        let heard = self.heard.clone();
        let members: Vec<u64> = self.own.borrow().members.keys().copied().collect();
        rt::unblock(move || {
            // a writer that ended half way has changed nothing in memory
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.note(from, boot, |id| members.contains(&id))
        })
        .await
    }

    /// The owner's answer to a member that starts again.
    pub fn returned(&self, link: u64, said: &Returned) {
        if let Some(i) = self.inbound.borrow().get(&link) {
            i.outbox.push(Frame::Message(said.encode()));
        }
    }

    async fn attend(self: Rc<Self>, mut link: Link, hello: Hello) {
        let number = self.next_link.get();
        self.next_link.set(number + 1);
        let Hello { from, lane, .. } = hello;
        // a member that dials again has given the connection before up
        for i in self.inbound.borrow().values().filter(|i| i.from == from && i.lane == lane) {
            i.outbox.end("a newer connection takes its place");
        }
        let outbox = Outbox::new(MAX_WAITING_BYTES);
        outbox.open();
        let inbound = Inbound { from, boot: hello.boot, lane, outbox: outbox.clone(), calls: Cell::new(0) };
        self.inbound.borrow_mut().insert(number, inbound);
        let why = link.run(&outbox, |frame| self.arrived(number, from, lane, frame)).await;
        outbox.close();
        self.inbound.borrow_mut().remove(&number);
        telemetry::log(Level::Debug, &format!("connection of member {from:x}: {why}"));
    }

    /// A frame of a member.
    fn arrived(self: &Rc<Self>, link: u64, from: u64, lane: Lane, frame: Vec<u8>) -> Result<(), String> {
        if lane == Lane::Calls {
            if let Some(i) = self.inbound.borrow().get(&link) {
                if i.calls.get() >= MAX_CALLS {
                    let number = PeerMessage::call_number(&frame).ok_or("it sends what is no call")?;
                    i.outbox.push(Frame::Message(PeerMessage::NotDone(number).encode()));
                    return Ok(());
                }
                i.calls.set(i.calls.get() + 1);
            }
            let at = self.next_shard.get();
            self.next_shard.set((at + 1) % self.shards.len().max(1));
            if let Some(to) = self.shards.get(at) {
                // a core that has ended answers nothing; the connection ends with the process
                let _ = to.try_send(ToShard::Passed(link, frame));
            }
            return Ok(());
        }
        if lane == Lane::Return {
            let asks = Returning::decode(&frame).map_err(|e| format!("it sends what cannot be read: {e}"))?;
            let boot = self.inbound.borrow().get(&link).and_then(|i| i.boot);
            let this = self.clone();
            rt::spawn_local(async move {
                if asks.replace.is_none()
                    && let Some(boot) = boot
                    && let Err(refusal) = this.note_start(from, boot).await
                {
                    let said = if refusal.older { Returned::Older(refusal.why) } else { Returned::Later };
                    return this.returned(link, &said);
                }
                let _ = this.owner.try_send(ToOwner::Returning(link, from, asks));
            });
            return Ok(());
        }
        match PeerMessage::decode(&frame) {
            Ok(message) if message.lane() != Lane::Calls => {
                let _ = self.owner.try_send(ToOwner::Peer(from, message));
                Ok(())
            }
            Ok(_) => Err("a call on a connection that is not for calls".into()),
            Err(e) => Err(format!("it sends what cannot be read: {e}")),
        }
    }
}

/// The first address of a cluster address: a URL, or a host and port.
async fn resolve(url: &str) -> Result<SocketAddr, String> {
    let authority = authority(url);
    if let Ok(address) = authority.parse() {
        return Ok(address);
    }
    rt::unblock(move || {
        let mut found = authority.to_socket_addrs().map_err(|e| format!("{authority}: {e}"))?;
        found.next().ok_or_else(|| format!("{authority} has no address"))
    })
    .await
}

fn authority(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[host_end..].contains(':') {
        true => authority.to_owned(),
        false => format!("{authority}:8201"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_members() {
        assert_eq!(authority("https://n1:9000/"), "n1:9000");
        assert_eq!(authority("https://n1"), "n1:8201");
        assert_eq!(authority("[::1]:7"), "[::1]:7");
        assert_eq!(authority("https://[::1]"), "[::1]:8201");
    }

    #[test]
    fn calls_are_named_by_core_and_ticket() {
        let n = call_number(3, Ticket(77));
        assert_eq!((n & 0xffff, n >> 16), (3, 77));
    }
}
