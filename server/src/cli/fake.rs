//! For tests: an outside made of buffers, and a server that plays a script on a loopback socket.

use super::io::Io;
use super::{Command, run};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A file of one test, removed with its folder when dropped.
pub struct ScratchFile(PathBuf);

impl std::ops::Deref for ScratchFile {
    type Target = PathBuf;

    fn deref(&self) -> &PathBuf {
        &self.0
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        let _ = self.0.parent().map(std::fs::remove_dir_all);
    }
}

/// A file of one test with a text in it.
pub fn scratch_file(name: &str, text: &str) -> ScratchFile {
    let path = scratch_folder().join(name);
    std::fs::write(&path, text).unwrap();
    ScratchFile(path)
}

fn scratch_folder() -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ringfence-cli-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// An outside made of buffers.
pub struct Outside {
    stdin: Cursor<Vec<u8>>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    pub env: BTreeMap<String, String>,
    pub home: PathBuf,
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

impl Outside {
    pub fn with_stdin(text: &str) -> Self {
        Outside {
            stdin: Cursor::new(text.as_bytes().to_vec()),
            stdout: Vec::new(),
            stderr: Vec::new(),
            env: BTreeMap::new(),
            home: scratch_folder(),
        }
    }

    pub fn borrow<T>(&mut self, act: impl FnOnce(&mut Io<'_>) -> T) -> T {
        act(&mut Io {
            stdin: &mut self.stdin,
            stdout: &mut self.stdout,
            stderr: &mut self.stderr,
            env: self.env.clone(),
            home: Some(self.home.clone()),
            stdout_is_terminal: false,
            stdin_is_terminal: false,
        })
    }

    /// Runs a command line of blank-separated words.
    pub fn run(&mut self, line: &str) -> Ran {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.run_words(&words)
    }

    pub fn run_words(&mut self, words: &[String]) -> Ran {
        let command = self.borrow(|io| run(words, io));
        let code = match command {
            Command::Exit(code) => code,
            Command::Server(_) => -1,
        };
        let text = |bytes: &mut Vec<u8>| String::from_utf8(std::mem::take(bytes)).unwrap();
        Ran { code, stdout: text(&mut self.stdout), stderr: text(&mut self.stderr) }
    }
}

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Got {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What a connection is made of.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A server that answers `replies` in order and then ends.
pub struct Script {
    pub address: String,
    thread: Option<JoinHandle<Vec<Got>>>,
}

impl Script {
    /// Each reply is a status, further header lines and a body.
    pub fn play(replies: Vec<(u16, &'static str, Vec<u8>)>) -> Self {
        Self::play_over("http", replies, |stream| Box::new(stream))
    }

    /// The same with TLS.
    pub fn play_tls(replies: Vec<(u16, &'static str, Vec<u8>)>, config: Arc<rustls::ServerConfig>) -> Self {
        Self::play_over("https", replies, move |stream| {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            Box::new(rustls::StreamOwned::new(connection, stream))
        })
    }

    fn play_over(
        scheme: &str,
        replies: Vec<(u16, &'static str, Vec<u8>)>,
        dress: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            for (status, headers, body) in replies {
                let Some(stream) = accept(&listener) else { break };
                let mut stream = dress(stream);
                let Some(request) = read_request(&mut *stream) else { break };
                got.push(request);
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
            got
        });
        Script { address, thread: Some(thread) }
    }

    /// Waits for the end and answers what arrived.
    pub fn end(mut self) -> Vec<Got> {
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Waits for a connection, ten seconds at most, so that a test that sends too little ends.
fn accept(listener: &TcpListener) -> Option<TcpStream> {
    listener.set_nonblocking(true).unwrap();
    for _ in 0..2000 {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            return Some(stream);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn read_request(stream: &mut dyn Stream) -> Option<Got> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Got { line, headers, body: String::from_utf8(body).ok()? })
}
