//! What clients asked and were told, in order: the whole material of the checkers.
//!
//! A history is JSON lines, one event each. A client's call is two events: `invoke`, and one of
//! - `ok`: done, with its result;
//! - `fail`: certainly not done;
//! - `info`: nobody knows. It may have been done, may be done later, or never.
//!
//! Faults stand in the same file as events of the process `-1`, with `phase` `start` and `stop`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// The process number of faults.
pub const NEMESIS: i64 = -1;

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A call begins.
    Invoke,
    /// It was done.
    Ok,
    /// It was certainly not done.
    Fail,
    /// Nobody knows.
    Info,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the run began.
    pub time: u64,
    /// Number of the client, or [`NEMESIS`].
    pub process: i64,
    /// What it says.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Workload, or `nemesis`.
    pub workload: String,
    /// Name of the operation or fault.
    pub f: String,
    /// The thing it is about; checkers judge each key by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Input of an `invoke`, result of an `ok`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// The node that was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Why it failed, or why nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A call with its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Number of the client.
    pub process: i64,
    /// Workload.
    pub workload: String,
    /// Operation.
    pub f: String,
    /// Key.
    pub key: String,
    /// What was asked.
    pub input: Value,
    /// What was told.
    pub output: Value,
    /// When it began, nanoseconds.
    pub invoked: u64,
    /// When it ended, nanoseconds. Of a call that nobody knows the end of, `u64::MAX`: it may still happen.
    pub returned: u64,
    /// When the client stopped waiting, nanoseconds.
    pub left: u64,
    /// How it ended; never `Invoke`.
    pub end: Kind,
    /// The node.
    pub node: String,
    /// Why it did not end well.
    pub error: Option<String>,
}

/// A fault from its beginning to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Name of the fault.
    pub name: String,
    /// Nodes and places it was about.
    pub about: Value,
    /// Nanoseconds.
    pub from: u64,
    /// Nanoseconds; the end of the history for one that was not ended.
    pub to: u64,
}

/// A history read whole.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Calls in order of their beginning.
    pub calls: Vec<Call>,
    /// Faults in order of their beginning.
    pub faults: Vec<Span>,
    /// Time of the last event, nanoseconds.
    pub end: u64,
}

impl History {
    /// Pairs beginnings and ends. A call whose end is missing is one that nobody knows the end of.
    pub fn of(events: impl IntoIterator<Item = Event>) -> History {
        let mut h = History::default();
        let mut open: BTreeMap<i64, usize> = BTreeMap::new();
        let mut spans: BTreeMap<String, usize> = BTreeMap::new();
        for e in events {
            h.end = h.end.max(e.time);
            if e.process == NEMESIS {
                let key = format!("{} {}", e.f, e.value["on"]);
                if e.value["phase"] == "start" {
                    spans.insert(key, h.faults.len());
                    h.faults.push(Span { name: e.f, about: e.value, from: e.time, to: u64::MAX });
                } else if let Some(at) = spans.remove(&key) {
                    h.faults[at].to = e.time;
                    h.faults[at].about["ended"] = e.value["what"].clone();
                }
                continue;
            }
            if e.kind == Kind::Invoke {
                open.insert(e.process, h.calls.len());
                h.calls.push(Call {
                    process: e.process,
                    workload: e.workload,
                    f: e.f,
                    key: e.key,
                    input: e.value,
                    output: Value::Null,
                    invoked: e.time,
                    returned: u64::MAX,
                    left: u64::MAX,
                    end: Kind::Info,
                    node: e.node,
                    error: Some("the run ended first".into()),
                });
            } else if let Some(at) = open.remove(&e.process) {
                let c = &mut h.calls[at];
                (c.end, c.error, c.left) = (e.kind, e.error, e.time);
                if e.kind != Kind::Info {
                    c.returned = e.time;
                }
                c.output = e.value;
            }
        }
        let end = h.end;
        h.faults.iter_mut().filter(|f| f.to == u64::MAX).for_each(|f| f.to = end);
        h.calls.iter_mut().filter(|c| c.left == u64::MAX).for_each(|c| c.left = end);
        h
    }

    /// Reads JSON lines.
    ///
    /// # Errors
    /// The file, or the line that is none of ours.
    pub fn read(path: &Path) -> Result<History, String> {
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let file = std::fs::File::open(path).map_err(|e| fail(&e))?;
        let mut events = Vec::new();
        for (n, line) in std::io::BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|e| fail(&e))?;
            if line.trim().is_empty() {
                continue;
            }
            events.push(serde_json::from_str::<Event>(&line).map_err(|e| fail(&format!("line {}: {e}", n + 1)))?);
        }
        Ok(History::of(events))
    }

    /// Calls of a workload that count: what was asked while the cluster was set back to a snapshot does not.
    pub fn calls_of<'a>(&'a self, workload: &'a str) -> impl Iterator<Item = &'a Call> + 'a {
        self.calls.iter().filter(move |c| c.workload == workload && !is_limbo(&c.key))
    }

    /// Whether a fault whose name passes was at work at some time between two moments.
    pub fn fault_between(&self, from: u64, to: u64, named: impl Fn(&str) -> bool) -> bool {
        self.faults.iter().any(|f| named(&f.name) && f.from < to && f.to > from)
    }
}

/// Keys end in `~era`. An odd era is one in which a snapshot was being restored: what happened in it may be undone.
pub fn is_limbo(key: &str) -> bool {
    key.rsplit_once('~').and_then(|(_, era)| era.parse::<u64>().ok()).is_some_and(|era| era % 2 == 1)
}

/// Writes events to a file as they happen; shared by all clients.
pub struct Recorder {
    begun: Instant,
    sender: Mutex<Option<Sender<Event>>>,
    writer: Mutex<Option<std::thread::JoinHandle<std::io::Result<()>>>>,
}

impl Recorder {
    /// Begins a file; time counts from now.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn begin(path: &Path) -> std::io::Result<Recorder> {
        let (sender, events): (Sender<Event>, Receiver<Event>) = channel();
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        let writer = std::thread::spawn(move || {
            for event in events {
                serde_json::to_writer(&mut file, &event)?;
                file.write_all(b"\n")?;
            }
            file.flush()
        });
        Ok(Recorder { begun: Instant::now(), sender: Mutex::new(Some(sender)), writer: Mutex::new(Some(writer)) })
    }

    /// Nanoseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes an event with the time of now. The time is taken under the lock, so the file is in order of time.
    pub fn note(&self, mut event: Event) {
        let sender = self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        event.time = self.now();
        if let Some(s) = &*sender {
            // the writer ends only when the file cannot be written, which `finish` tells
            let _ = s.send(event);
        }
    }

    /// Notes the beginning or end of a fault.
    pub fn fault(&self, name: &str, phase: &str, on: Value, what: Value) {
        self.note(Event {
            time: 0,
            process: NEMESIS,
            kind: Kind::Info,
            workload: "nemesis".into(),
            f: name.into(),
            key: String::new(),
            value: serde_json::json!({"phase": phase, "on": on, "what": what}),
            node: String::new(),
            error: None,
        });
    }

    /// Ends the file.
    ///
    /// # Errors
    /// It could not be written whole.
    pub fn finish(&self) -> std::io::Result<()> {
        drop(self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        match self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            Some(w) => w.join().unwrap_or_else(|_| Err(std::io::Error::other("the writer of the history died"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Event {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_call_without_an_end_may_still_happen() {
        let h = History::of([
            line(r#"{"time":1,"process":0,"type":"invoke","workload":"w","f":"write","key":"a~0","value":7}"#),
            line(r#"{"time":2,"process":1,"type":"invoke","workload":"w","f":"read","key":"a~0"}"#),
            line(
                r#"{"time":3,"process":-1,"type":"info","workload":"nemesis","f":"kill","value":{"phase":"start","on":"n1"}}"#,
            ),
            line(r#"{"time":5,"process":1,"type":"ok","workload":"w","f":"read","key":"a~0","value":7}"#),
            line(
                r#"{"time":9,"process":-1,"type":"info","workload":"nemesis","f":"kill","value":{"phase":"stop","on":"n1"}}"#,
            ),
        ]);
        assert_eq!((h.calls[0].end, h.calls[0].returned), (Kind::Info, u64::MAX));
        assert_eq!((h.calls[1].end, h.calls[1].returned, h.calls[1].output.as_u64()), (Kind::Ok, 5, Some(7)));
        assert_eq!((h.faults[0].from, h.faults[0].to), (3, 9));
        assert!(h.fault_between(8, 20, |n| n == "kill") && !h.fault_between(9, 20, |n| n == "kill"));
    }

    #[test]
    fn odd_eras_do_not_count() {
        assert!(is_limbo("a~1") && !is_limbo("a~2") && !is_limbo("a"));
    }
}
