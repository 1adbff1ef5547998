//! Sinks as a core uses them, over real files and sockets.

use super::*;
use crate::rt::{DriverWish, Options, RootPanic};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Longer than anything here may take.
const HANG: Duration = Duration::from_secs(20);

/// A folder that is gone at the end.
pub(super) struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringfence-audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Scratch { path }
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

pub(super) fn device(kind: &str, options: &[(&str, &str)]) -> Device {
    Device {
        path: format!("{kind}/"),
        kind: kind.to_owned(),
        description: String::new(),
        options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        local: false,
        salt: "salt".to_owned(),
    }
}

fn file_device(path: &Path) -> Rc<Device> {
    Rc::new(device("file", &[("file_path", path.to_str().unwrap())]))
}

fn line(device: &Rc<Device>, text: &str) -> Line {
    Line { device: device.clone(), bytes: format!("{text}\n").into_bytes() }
}

/// Submits and waits for the answer.
async fn taken(sinks: &Sinks, lines: Vec<Line>) -> bool {
    submit(sinks, lines).await.unwrap()
}

fn submit(sinks: &Sinks, lines: Vec<Line>) -> channel::Question<bool> {
    let (answer, question) = channel::oneshot();
    sinks.submit(lines, move |taken| answer.send(taken).unwrap());
    question
}

fn on_a_core<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    let options = Options { driver: DriverWish::Auto, root_panic: RootPanic::Join, ..Options::default() };
    let root = move || async move { rt::timeout(HANG, test()).await.expect("hangs") };
    rt::spawn_core(options, "audit-test", root).unwrap().join().unwrap();
}

#[test]
fn lines_of_a_turn_reach_the_file_in_order_before_their_calls_are_told() {
    on_a_core(|| async {
        let scratch = Scratch::new();
        let path = scratch.path.join("audit.log");
        let sinks = Sinks::sharing(Shared::new());
        let device = file_device(&path);
        let questions: Vec<_> = (0..50)
            .map(|n| submit(&sinks, vec![line(&device, &format!("q{n}")), line(&device, &format!("r{n}"))]))
            .collect();
        assert!(!path.exists(), "nothing is written or told before the turn ends");
        let mut expected = String::new();
        for (n, question) in questions.into_iter().enumerate() {
            assert!(question.await.unwrap());
            expected += &format!("q{n}\nr{n}\n");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(taken(&sinks, Vec::new()).await, "no device, nothing to refuse");
        assert!(sinks.inner.calls.borrow().is_empty());
    });
}

#[test]
fn one_device_that_takes_the_lines_is_enough_and_none_is_not() {
    on_a_core(|| async {
        let scratch = Scratch::new();
        let sinks = Sinks::sharing(Shared::new());
        let good = file_device(&scratch.path.join("good"));
        let bad = file_device(&scratch.path.join("no/such/dir"));
        let nowhere = Rc::new(device("file", &[("file_path", "discard")]));
        let unknown = Rc::new(device("pigeon", &[]));
        let prefixed = Rc::new(device("file", &[("file_path", "/tmp/x"), ("prefix", "#!")]));
        let all = |devices: &[&Rc<Device>]| devices.iter().map(|device| line(device, "x")).collect();
        assert!(taken(&sinks, all(&[&bad, &good])).await);
        assert!(taken(&sinks, all(&[&good, &bad])).await);
        assert!(taken(&sinks, all(&[&unknown, &nowhere])).await);
        assert!(!taken(&sinks, all(&[&bad])).await);
        assert!(!taken(&sinks, all(&[&bad, &unknown, &prefixed])).await);
        // what was missing is there later: the device works again
        std::fs::create_dir_all(scratch.path.join("no/such")).unwrap();
        assert!(taken(&sinks, all(&[&bad])).await);
        assert!(sinks.inner.calls.borrow().is_empty());
    });
}

/// Both lines of a call must be taken by the same device; a disk that is full refuses. /dev/full stands for it, but is
/// no plain file, so it is written to by a thread.
#[test]
fn a_full_disk_is_a_failure_that_is_told() {
    on_a_core(|| async {
        let sinks = Sinks::sharing(Shared::new());
        assert!(!taken(&sinks, vec![line(&file_device(Path::new("/dev/full")), "x")]).await);
    });
}

#[test]
fn answering_may_submit_again() {
    on_a_core(|| async {
        let scratch = Scratch::new();
        let path = scratch.path.join("log");
        let sinks = Rc::new(Sinks::sharing(Shared::new()));
        let device = file_device(&path);
        let (answer, question) = channel::oneshot();
        let (again, its_device) = (sinks.clone(), device.clone());
        sinks.submit(vec![line(&device, "request")], move |taken| {
            assert!(taken);
            let lines = vec![line(&its_device, "response")];
            again.submit(lines, move |taken| answer.send(taken).unwrap());
        });
        assert!(question.await.unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "request\nresponse\n");
    });
}

#[test]
fn reopening_follows_a_moved_file() {
    on_a_core(|| async {
        let scratch = Scratch::new();
        let (path, moved) = (scratch.path.join("log"), scratch.path.join("log.1"));
        let sinks = Sinks::sharing(Shared::new());
        let device = file_device(&path);
        assert!(taken(&sinks, vec![line(&device, "one")]).await);
        std::fs::rename(&path, &moved).unwrap();
        assert!(taken(&sinks, vec![line(&device, "two")]).await);
        sinks.reopen();
        assert!(path.exists());
        assert!(taken(&sinks, vec![line(&device, "three")]).await);
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    });
}

/// A socket that nobody reads: its calls are refused when its time is over, the core goes on serving others meanwhile,
/// and a file beside it makes the wait unnecessary.
#[test]
fn a_hanging_socket_holds_up_nobody_else() {
    on_a_core(|| async {
        let scratch = Scratch::new();
        let path = scratch.path.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let options = [("address", path.to_str().unwrap()), ("socket_type", "unix"), ("write_timeout", "300ms")];
        let socket = Rc::new(device("socket", &options));
        let file = file_device(&scratch.path.join("log"));
        let sinks = Sinks::sharing(Shared::new());
        let flood = Line { device: socket.clone(), bytes: [vec![b'x'; 16 << 20], vec![b'\n']].concat() };
        let began = Instant::now();
        let hanging = submit(&sinks, vec![flood]);
        for _ in 0..20 {
            assert!(taken(&sinks, vec![line(&socket, "x"), line(&file, "x")]).await);
        }
        assert!(sinks.inner.jobs.borrow().len() > 1, "all of that happened while the socket hung");
        assert!(!hanging.await.unwrap());
        assert!(began.elapsed() >= Duration::from_millis(300));
        drop(listener);
    });
}

/// A pipe that nobody reads holds its thread in the opening of it, where no time limit helps: the core counts the time
/// itself. The lines that wait behind are refused in their time as well.
#[test]
fn a_device_that_holds_its_thread_for_good_is_given_up() {
    on_a_core(|| async {
        let scratch = Scratch::new();
        let path = scratch.path.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let device = file_device(&path);
        let sinks = Sinks::sharing(Shared::new());
        let first = submit(&sinks, vec![line(&device, "x")]);
        rt::yield_now().await;
        let second = submit(&sinks, vec![line(&device, "y")]);
        assert!(!first.await.unwrap());
        assert!(!second.await.unwrap());
        // somebody reads: the device works again, and lines that were given up are not written late
        let reader = thread::spawn(move || BufReader::new(std::fs::File::open(&path).unwrap()).lines().next());
        while !taken(&sinks, vec![line(&device, "z")]).await {}
        assert_eq!(reader.join().unwrap().unwrap().unwrap(), "z");
    });
}

#[test]
fn cores_share_one_connection_and_every_line_arrives() {
    let scratch = Scratch::new();
    let path = scratch.path.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let shared = Shared::new();
    let reader = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines: Vec<String> = BufReader::new(stream).lines().map(Result::unwrap).collect();
        lines.sort();
        lines
    });
    let both = Arc::new(Barrier::new(2));
    let cores: Vec<_> = (0..2)
        .map(|core| {
            let (shared, path, both) = (shared.clone(), path.clone(), both.clone());
            thread::spawn(move || {
                on_a_core(move || async move {
                    let options = [("address", path.to_str().unwrap()), ("socket_type", "unix")];
                    let socket = Rc::new(device("socket", &options));
                    let sinks = Sinks::sharing(shared);
                    for n in 0..50 {
                        assert!(taken(&sinks, vec![line(&socket, &format!("{core} {n:02}"))]).await);
                    }
                    // neither core lets go of the device before the other has found it: there is one connection
                    both.wait();
                });
            })
        })
        .collect();
    cores.into_iter().for_each(|core| core.join().unwrap());
    let expected: Vec<String> = (0..2).flat_map(|core| (0..50).map(move |n| format!("{core} {n:02}"))).collect();
    assert_eq!(reader.join().unwrap(), expected);
}

/// Two cores append to one file: every line is whole.
#[test]
fn cores_append_to_one_file_without_mixing_lines() {
    let scratch = Scratch::new();
    let path = scratch.path.join("log");
    let shared = Shared::new();
    let cores: Vec<_> = (0..2)
        .map(|core| {
            let (shared, path) = (shared.clone(), path.clone());
            thread::spawn(move || {
                on_a_core(move || async move {
                    let sinks = Sinks::sharing(shared);
                    let device = file_device(&path);
                    for round in 0..40 {
                        let questions: Vec<_> = (0..5)
                            .map(|n| {
                                submit(&sinks, vec![line(&device, &format!("{core} {round} {n} {}", "y".repeat(99)))])
                            })
                            .collect();
                        for question in questions {
                            assert!(question.await.unwrap());
                        }
                    }
                });
            })
        })
        .collect();
    cores.into_iter().for_each(|core| core.join().unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    let mut count = 0;
    for core in ["0 ", "1 "] {
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(core)).collect();
        let expected: Vec<String> =
            (0..40).flat_map(|r| (0..5).map(move |n| format!("{core}{r} {n} {}", "y".repeat(99)))).collect();
        assert_eq!(lines, expected);
        count += lines.len();
    }
    assert_eq!(count, text.lines().count());
}

#[test]
fn devices_that_the_machine_has_forgotten_are_closed() {
    on_a_core(|| async {
        let scratch = Scratch::new();
        let sinks = Sinks::sharing(Shared::new());
        let (kept, dropped) = (file_device(&scratch.path.join("kept")), file_device(&scratch.path.join("dropped")));
        assert!(taken(&sinks, vec![line(&kept, "x"), line(&dropped, "x")]).await);
        // the table changed: the same device in a new Rc is the same device
        let kept = Rc::new((*kept).clone());
        assert!(taken(&sinks, vec![line(&kept, "x")]).await);
        assert_eq!(sinks.inner.devices.borrow().len(), 2);
        drop(dropped);
        sinks.inner.forget(Instant::now());
        assert_eq!(sinks.inner.devices.borrow().len(), 2, "not at once");
        sinks.inner.forget(Instant::now() + FORGET * 2);
        assert_eq!(sinks.inner.devices.borrow().len(), 1);
        assert!(taken(&sinks, vec![line(&kept, "x")]).await);
    });
}

#[test]
fn a_device_is_tried_before_it_is_enabled() {
    let scratch = Scratch::new();
    let shared = Shared::new();
    let good = scratch.path.join("good");
    shared.self_test(&file_device(&good)).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&good).unwrap()).unwrap();
    assert_eq!((&entry["type"], &entry["request"]["path"]), (&"request".into(), &"sys/audit/test".into()));
    let refusal = |kind: &str, options: &[(&str, &str)]| shared.self_test(&device(kind, options)).unwrap_err();
    let missing = scratch.path.join("no/dir");
    let missing = missing.to_str().unwrap();
    assert_eq!(
        refusal("file", &[("file_path", missing)]),
        format!(
            "sanity check failed; unable to open {missing:?} for writing: open {missing}: no such file or directory"
        )
    );
    assert_eq!(refusal("file", &[]), "file_path is required");
    assert_eq!(refusal("carrier", &[]), "unknown backend type: \"carrier\"");
    let script = scratch.file("script", "");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(refusal("file", &[("file_path", script.to_str().unwrap())]).contains("is executable"));
    shared.protect_tree(&scratch.path);
    assert!(refusal("file", &[("file_path", good.to_str().unwrap())]).contains("the server's own"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = refusal("socket", &[("address", &closed)]);
    assert!(refused.starts_with("audit backend failed test message: connection refused"), "{refused}");
    on_a_core(|| async {
        let sinks = Sinks::sharing(Shared::new());
        let told = serde_json::json!({
            "path": "file/", "kind": "file", "description": "", "options": {"file_path": "discard"},
            "local": false, "salt": "s",
        });
        assert_eq!(sinks.self_test_json(&told).await, Ok(()));
    });
}
