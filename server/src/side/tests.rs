//! Questions to small servers on loopback.

use super::*;
use ringfence_node::Reach;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// A server that answers each connection by a function of path and head; ends with the test process.
fn serve(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (served, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let count = served.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer, count) = (stream.unwrap(), answer.clone(), count.clone());
            std::thread::spawn(move || {
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    if line == "\r\n" {
                        break;
                    }
                    head.push_str(&line);
                }
                let length = head.lines().find_map(|l| {
                    l.to_lowercase().strip_prefix("content-length: ").map(|n| n.parse::<u64>().unwrap())
                });
                let mut body = String::new();
                reader.take(length.unwrap_or(0)).read_to_string(&mut body).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let _ = stream.write_all(answer(&path, &format!("{head}{body}")).as_bytes());
            });
        }
    });
    (address, served)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn guarded() -> Reach {
    Reach { public_addresses_only: true, ..Reach::default() }
}

/// Waits for a future that other threads finish.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

/// Asks through the queue, from a thread that may block.
fn ask(outside: &Arc<Outside>, ask: HttpAsk) -> mpsc::Receiver<SideResult> {
    let (tx, rx) = mpsc::channel();
    let outside = outside.clone();
    std::thread::spawn(move || {
        let result = wait_for(outside.ask(ask));
        let _ = tx.send(result);
    });
    rx
}

fn answered(outside: &Arc<Outside>, question: HttpAsk) -> Result<(u16, String), String> {
    match ask(outside, question).recv().unwrap() {
        SideResult::Http(a) => Ok((a.status, String::from_utf8(a.body.clone()).unwrap())),
        SideResult::Failed(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn questions_are_asked_as_they_are() {
    let (url, _) = serve(|path, request| match path {
        "/gone" => "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno".into(),
        "/away" => "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
        _ => ok(request),
    });
    let o = Outside::new();
    let post =
        HttpAsk::post(format!("{url}/x"), "text/plain", b"the body".to_vec()).header("authorization", "Bearer t");
    let (status, seen) = answered(&o, post).unwrap();
    let seen = seen.to_lowercase();
    assert!(status == 200 && seen.starts_with("post /x http/1.1\r\n") && seen.ends_with("the body"), "{seen}");
    assert!(seen.contains("authorization: bearer t\r\n") && seen.contains("content-type: text/plain\r\n"), "{seen}");
    assert_eq!(answered(&o, HttpAsk::get(format!("{url}/gone"))), Ok((404, "no".into())));
    assert_eq!(answered(&o, HttpAsk::get(format!("{url}/away"))).unwrap().0, 302, "redirects only if asked");
    let following = HttpAsk { redirects: 1, ..HttpAsk::get(format!("{url}/away")) };
    assert_eq!(answered(&o, following).unwrap().0, 200);
}

#[test]
fn answers_are_bounded() {
    let (url, _) = serve(|_, _| ok(&"x".repeat(1000)));
    let o = Outside::new();
    let of = |n: usize| HttpAsk { max_answer_bytes: n, ..HttpAsk::get(&url) };
    assert!(answered(&o, of(1000)).is_ok());
    assert!(answered(&o, of(999)).unwrap_err().contains("longer than 999 bytes"));
    let private = HttpAsk { reach: guarded(), ..HttpAsk::get(&url) };
    assert!(answered(&o, private).unwrap_err().contains("is not to be connected to"));
    for bad in ["ftp://x/", "file:///etc/passwd", "nonsense", ""] {
        assert!(answered(&o, HttpAsk::get(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_silent_peer_costs_its_own_questions_only() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = format!("http://{}", silent.local_addr().unwrap());
    let (quick, _) = serve(|_, _| ok("here"));
    let o = Outside::new();
    let waiting: Vec<_> = (0..CONFIGURED.running_per_target + CONFIGURED.waiting_per_target)
        .map(|i| ask(&o, HttpAsk { timeout_ms: 2_000, ..HttpAsk::get(format!("{slow}/{i}")) }))
        .collect();
    let full = || o.lock().targets.get(&slow).is_some_and(|t| t.waiting.len() == CONFIGURED.waiting_per_target);
    let begun = Instant::now();
    while !full() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    assert_eq!(answered(&o, HttpAsk::get(&quick)), Ok((200, "here".into())));
    if full() {
        assert!(answered(&o, HttpAsk::get(&slow)).unwrap_err().starts_with("too many requests wait for"));
    }
    for w in waiting {
        assert!(matches!(w.recv().unwrap(), SideResult::Failed(_)));
    }
    assert!(o.lock().targets.is_empty(), "nothing is left of it");
    drop(silent);
}

#[test]
fn the_same_question_is_asked_once() {
    let (url, served) = serve(|_, _| {
        // long enough for all to come in while it is under way
        std::thread::sleep(Duration::from_millis(100));
        ok("keys")
    });
    let o = Outside::new();
    let question = HttpAsk { fresh_s: 60, ..HttpAsk::get(&url) };
    let all: Vec<_> = (0..20).map(|_| ask(&o, question.clone())).collect();
    assert!(all.into_iter().all(|r| matches!(r.recv().unwrap(), SideResult::Http(_))));
    assert!(answered(&o, question).is_ok());
    assert_eq!(served.load(Ordering::SeqCst), 1);
    assert!(answered(&o, HttpAsk::get(&url)).is_ok());
    assert_eq!(served.load(Ordering::SeqCst), 2, "who wants it fresh gets it fresh");
}

#[test]
fn memory_is_bounded() {
    let (url, _) = serve(|path, _| ok(path));
    let o = Outside::new();
    for i in 0..MAX_REMEMBERED + 20 {
        assert!(answered(&o, HttpAsk { fresh_s: 60, ..HttpAsk::get(format!("{url}/{i}")) }).is_ok());
    }
    let state = o.lock();
    assert!(state.remembered.len() <= MAX_REMEMBERED);
    assert_eq!(
        state.remembered_bytes,
        state.remembered.iter().map(|r| bytes_of(&r.answer.as_ref().unwrap().1)).sum::<usize>()
    );
}

#[test]
fn targets() {
    assert_eq!(target_of("HTTPS://User@Host:1/a?b"), "https://host:1");
    assert_eq!(target_of("http://h?x"), "http://h");
}

/// Challenges to hosts that never answer took every thread, and logins that ask an identity provider waited behind them.
#[test]
fn strangers_that_never_answer_hold_up_strangers_only() {
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (slow, begun) = serve(move |_, _| {
        let _ = held.lock().unwrap().recv();
        ok("late")
    });
    let (url, _) = serve(|_, _| ok("fine"));
    let strangers =
        Outside::of(Bounds { threads: 2, running_per_target: 2, waiting_per_target: 1, all: 3, ..STRANGERS });
    let configured = Outside::new();
    let patient = || HttpAsk { timeout_ms: 60_000, ..HttpAsk::get(&slow) };
    let waiting: Vec<_> = (0..3).map(|_| ask(&strangers, patient())).collect();
    while strangers.lock().all < 3 || begun.load(Ordering::SeqCst) < 1 {
        std::thread::yield_now();
    }
    // no room for one more, whatever its target
    assert!(answered(&strangers, HttpAsk::get(&url)).unwrap_err().contains("too many requests wait"));
    assert_eq!(answered(&configured, HttpAsk::get(&url)), Ok((200, "fine".into())));
    drop(hold);
    for w in waiting {
        assert!(matches!(w.recv().unwrap(), SideResult::Http(_)));
    }
    let left = {
        let state = strangers.lock();
        (state.all, state.targets.len())
    };
    assert_eq!(left, (0, 0));
    assert_eq!(answered(&strangers, HttpAsk::get(&url)), Ok((200, "fine".into())));
}
