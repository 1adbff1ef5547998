//! The seam as its users see it, over every driver and executor that this machine allows.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};

use super::*;

/// Longer than anything here may take: reaching it means that something hangs.
const HANG: Duration = Duration::from_secs(60);

fn every_kind() -> Vec<Options> {
    let base = Options { root_panic: RootPanic::Join, ..Options::default() };
    let epoll = Options { driver: DriverWish::Epoll, ..base.clone() };
    match probe(DriverWish::IoUring) {
        Ok(_) => {
            let ring = Options { driver: DriverWish::IoUring, ..base };
            let glommio = Options { executor: ExecutorWish::Glommio, ..ring.clone() };
            vec![ring, epoll, glommio]
        }
        Err(e) => {
            println!("io_uring is not tested here: {e}");
            vec![epoll]
        }
    }
}

fn on_every_kind<F: Future<Output = ()> + 'static>(test: fn() -> F) {
    for options in every_kind() {
        println!("{:?} on {:?}", options.executor, options.driver);
        let core = spawn_core(options, "rt-test", move || async move {
            timeout(HANG, test()).await.expect("hangs");
        });
        core.unwrap().join().unwrap();
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}

fn serve(listener: TcpListener) -> Task<()> {
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(async move {
                let http = hyper::server::conn::http1::Builder::new()
                    .timer(Timer)
                    .header_read_timeout(Duration::from_secs(5))
                    .serve_connection(stream, hyper::service::service_fn(echo));
                let _ = http.await;
            });
        }
    })
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Sends `rounds` requests over one connection and checks each echo. Plain blocking code, for a thread of its own.
fn echo_client(addr: SocketAddr, rounds: usize, body_bytes: usize) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    for round in 0..rounds {
        let body: Vec<u8> = (0..body_bytes).map(|i| (i * 31 + round) as u8).collect();
        write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        let mut back = vec![0; body.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, body);
    }
}

/// Runs blocking code on a thread and waits for it without blocking the core.
async fn on_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    Pool::new("rt-test-client", 1).run(call).await
}

#[test]
fn http_keep_alive_echoes_small_and_large_bodies() {
    on_every_kind(|| async {
        let listener = TcpListener::bind(local(), false).unwrap();
        let addr = listener.local_addr();
        let server = serve(listener);
        on_thread(move || {
            let clients: Vec<_> = [(40, 0), (40, 100), (10, 5000), (3, 3_000_000)]
                .map(|(rounds, bytes)| thread::spawn(move || echo_client(addr, rounds, bytes)))
                .into_iter()
                .collect();
            clients.into_iter().for_each(|c| c.join().unwrap());
        })
        .await;
        server.stop();
        assert_eq!(server.await, Err(Lost::Stopped));
    });
}

/// More connections with unread data than there are buffers: a connection that nobody reads must not starve others.
#[test]
fn connections_nobody_reads_starve_no_other() {
    on_every_kind(|| async {
        let listener = TcpListener::bind(local(), false).unwrap();
        let addr = listener.local_addr();
        let hoarders = on_thread(move || {
            let fill = vec![1u8; 256 * 1024];
            (0..100)
                .map(|_| {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    stream.set_nonblocking(true).unwrap();
                    let _ = stream.write(&fill);
                    stream
                })
                .collect::<Vec<_>>()
        });
        let hold = Rc::new(RefCell::new(Vec::new()));
        let held = Rc::clone(&hold);
        let accept = spawn_local(async move {
            for _ in 0..100 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let held = Rc::clone(&held);
                // one byte is read, so that the receive is armed, then nothing more
                spawn_local(async move {
                    let _ = stream.read(&mut [0]).await;
                    held.borrow_mut().push(stream);
                });
            }
            serve(listener).await
        });
        let _streams = hoarders.await;
        while hold.borrow().len() < 100 {
            sleep(Duration::from_millis(1)).await;
        }
        on_thread(move || echo_client(addr, 5, 100_000)).await;
        accept.stop();
    });
}

/// A peer that does not read: the writer waits, nothing is lost or reordered once it reads.
#[test]
fn a_slow_reader_gets_every_byte_in_order() {
    on_every_kind(|| async {
        let listener = TcpListener::bind(local(), false).unwrap();
        let addr = listener.local_addr();
        let reader = spawn_local(on_thread(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            let mut all = Vec::new();
            thread::sleep(Duration::from_millis(50));
            stream.read_to_end(&mut all).unwrap();
            all
        }));
        let (mut stream, _) = listener.accept().await.unwrap();
        let sent: Vec<u8> = (0..8_000_000u32).map(|i| (i / 7) as u8).collect();
        for piece in sent.chunks(300_007) {
            stream.write_all(piece).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        assert!(reader.await.unwrap() == sent);
    });
}

#[test]
fn connects_out_and_is_refused_where_nobody_listens() {
    on_every_kind(|| async {
        let listener = TcpListener::bind(local(), false).unwrap();
        let addr = listener.local_addr();
        let accepted = spawn_local(async move {
            let (mut stream, peer) = listener.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            peer
        });
        let mut stream = Stream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut buf = [0; 16];
        assert_eq!(stream.read(&mut buf).await.unwrap(), 5);
        assert_eq!(stream.read(&mut buf).await.unwrap(), 0);
        assert_eq!(accepted.await.unwrap(), stream.local_addr().unwrap());
        let refused = Stream::connect(addr).await.err().map(|e| e.kind());
        assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
    });
}

#[test]
fn unix_sockets_tell_who_is_there() {
    on_every_kind(|| async {
        let dir = TempDir::new();
        let path = dir.0.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Stream::connect_unix(&path).unwrap();
        let (mut server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.pid, std::process::id() as i32);
        client.write_all(b"ping").await.unwrap();
        let mut buf = [0; 4];
        assert_eq!(server.read(&mut buf).await.unwrap(), 4);
        drop(client);
        assert_eq!(server.read(&mut buf).await.unwrap(), 0);
    });
}

#[test]
fn wakes_from_another_thread_arrive_parked_or_not() {
    on_every_kind(|| async {
        let (sender, inlet) = channel::unbounded();
        let thread = thread::spawn(move || {
            for i in 0..20_000u32 {
                sender.try_send(i).unwrap();
                if i % 1000 == 0 {
                    // long enough for the core to park
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let mut receiver = inlet.open();
        let (mut all, mut drains) = (Vec::new(), 0);
        while receiver.drain(&mut all).await > 0 {
            drains += 1;
        }
        assert!(all.iter().copied().eq(0..20_000));
        assert!(drains <= 20_000);
        thread.join().unwrap();
    });
}

#[test]
fn a_full_mailbox_holds_senders_back_and_a_closed_one_says_so() {
    on_every_kind(|| async {
        let (sender, inlet) = channel::bounded(2);
        let mut receiver = inlet.open();
        let filler = spawn_local(async move {
            for i in 0..100 {
                sender.send(i).await.unwrap();
            }
            sender
        });
        for i in 0..100 {
            assert_eq!(receiver.recv().await, Some(i));
        }
        let sender = filler.await.unwrap();
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(channel::SendError::Full(3)));
        drop(receiver);
        assert_eq!(sender.send(4).await, Err(channel::SendError::Closed(4)));
    });
}

#[test]
fn answers_come_or_are_known_not_to() {
    on_every_kind(|| async {
        let (answer, question) = channel::oneshot();
        spawn_local(async move {
            yield_now().await;
            answer.send(7).unwrap();
        });
        assert_eq!(question.await, Ok(7));
        let (answer, question) = channel::oneshot::<u8>();
        spawn_local(async move { drop(answer) });
        assert_eq!(question.await, Err(channel::Abandoned));
        let (answer, question) = channel::oneshot();
        drop(question);
        assert_eq!(answer.send(1), Err(1));
        let (replier, reply) = channel::reply();
        thread::spawn(move || replier.send(9));
        assert_eq!(reply.await, Ok(9));
    });
}

#[test]
fn timers_fire_in_order_of_their_deadlines() {
    on_every_kind(|| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let started = Instant::now();
        let tasks: Vec<_> = [40u64, 10, 30, 20, 0]
            .map(|ms| {
                let order = Rc::clone(&order);
                spawn_local(async move {
                    sleep(Duration::from_millis(ms)).await;
                    assert!(started.elapsed() >= Duration::from_millis(ms));
                    order.borrow_mut().push(ms);
                })
            })
            .into_iter()
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [0, 10, 20, 30, 40]);
        assert_eq!(timeout(Duration::from_millis(5), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout(Duration::from_secs(5), async { 3 }).await, Ok(3));
    });
}

#[test]
fn a_busy_task_keeps_neither_timers_nor_sockets_from_others() {
    on_every_kind(|| async {
        let listener = TcpListener::bind(local(), false).unwrap();
        let addr = listener.local_addr();
        let server = serve(listener);
        let spinning = Rc::new(Cell::new(true));
        let spin = Rc::clone(&spinning);
        let busy = spawn_local(async move {
            while spin.get() {
                yield_now().await;
            }
        });
        sleep(Duration::from_millis(10)).await;
        on_thread(move || echo_client(addr, 20, 2000)).await;
        spinning.set(false);
        busy.await.unwrap();
        server.stop();
    });
}

#[test]
fn a_panic_ends_its_task_only() {
    on_every_kind(|| async {
        let lost = spawn_local(async { panic!("on purpose, in a test") });
        assert_eq!(lost.await, Err::<(), _>(Lost::Panicked));
        assert_eq!(spawn_local(async { 5 }).await, Ok(5));
        let stopped = spawn_local(std::future::pending::<()>());
        yield_now().await;
        stopped.stop();
        assert_eq!(stopped.await, Err(Lost::Stopped));
    });
}

/// A waker that outlives its core, used on another thread, does nothing.
#[test]
fn wakers_may_outlive_their_core() {
    for options in every_kind() {
        let slot: Arc<Mutex<Vec<Waker>>> = Arc::default();
        let keep = Arc::clone(&slot);
        let root = move || async move {
            spawn_local(std::future::poll_fn::<(), _>(move |cx| {
                keep.lock().unwrap().push(cx.waker().clone());
                std::task::Poll::Pending
            }));
            yield_now().await;
            yield_now().await;
        };
        spawn_core(options, "rt-test", root).unwrap().join().unwrap();
        let wakers = std::mem::take(&mut *slot.lock().unwrap());
        assert!(!wakers.is_empty());
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Starts and stops with everything in flight: connections, timers, cross-thread wakes. None may stall.
#[test]
fn a_thousand_starts_and_stops_under_load_never_stall() {
    let started = Instant::now();
    let done = Arc::new(AtomicUsize::new(0));
    for options in every_kind() {
        let rounds = if options.executor == ExecutorWish::Glommio { 100 } else { 500 };
        for round in 0..rounds {
            let done = Arc::clone(&done);
            let root = move || async move {
                let listener = TcpListener::bind(local(), false).unwrap();
                let addr = listener.local_addr();
                let server = serve(listener);
                spawn_local(sleep(Duration::from_secs(3600)));
                let clients: Vec<_> = (0..4).map(|_| spawn_local(small_client(addr, 3))).collect();
                let helper = unblock(move || round);
                for client in clients {
                    client.await.unwrap();
                }
                assert_eq!(helper.await, round);
                // left open on purpose: a client in the middle of its request, and the server
                spawn_local(small_client(addr, 1000));
                yield_now().await;
                drop(server);
                done.fetch_add(1, Ordering::Relaxed);
            };
            let core = spawn_core(options.clone(), "rt-test", root).unwrap();
            let deadline = Instant::now() + HANG;
            while !core.is_finished() {
                assert!(Instant::now() < deadline, "round {round} stalls under {options:?}");
                thread::sleep(Duration::from_micros(200));
            }
            core.join().unwrap();
        }
    }
    assert!(done.load(Ordering::Relaxed) >= 500);
    println!("{} starts in {:?}", done.load(Ordering::Relaxed), started.elapsed());
}

async fn small_client(addr: SocketAddr, rounds: usize) {
    let mut stream = Stream::connect(addr).await.unwrap();
    let mut answer = vec![0; 4096];
    for _ in 0..rounds {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let n = stream.read(&mut answer).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"));
    }
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    #[allow(unsafe_code)]
    unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// An idle core sleeps, whatever waits on it.
#[test]
fn an_idle_core_uses_no_cpu() {
    on_every_kind(|| async {
        let listener = TcpListener::bind(local(), false).unwrap();
        let addr = listener.local_addr();
        let _server = serve(listener);
        let _idle = Stream::connect(addr).await.unwrap();
        spawn_local(sleep(Duration::from_secs(3600)));
        sleep(Duration::from_millis(20)).await;
        let before = thread_cpu();
        sleep(Duration::from_millis(200)).await;
        let used = thread_cpu() - before;
        assert!(used < Duration::from_millis(20), "{used:?} of CPU while idle");
    });
}

/// What is queued by a task that was woken while the driver was parked leaves with that wake, not with the next event.
#[test]
fn a_submission_after_a_park_is_not_left_behind() {
    on_every_kind(|| async {
        let dir = TempDir::new();
        let file = Rc::new(File::open(dir.0.join("log"), OpenMode::CreateNew).await.unwrap());
        for i in 0..20u64 {
            let (sender, inlet) = channel::unbounded();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(2));
                sender.try_send(()).unwrap();
            });
            inlet.open().recv().await.unwrap();
            let written = file.write_at_durable(AlignedBuf::zeroed(4096), i * 4096);
            timeout(Duration::from_secs(5), written).await.expect("left behind").1.unwrap();
        }
    });
}

struct TempDir(std::path::PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ringfence-rt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn durable_writes_read_back_and_files_can_be_swapped() {
    on_every_kind(|| async {
        let dir = TempDir::new();
        let (a, b) = (dir.0.join("a"), dir.0.join("b"));
        let file = File::open(&a, OpenMode::CreateNew).await.unwrap();
        file.zero_fill(5 * 4096).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 5 * 4096);
        let mut buf = AlignedBuf::with_capacity(8192);
        buf.extend_from_slice(&[9; 5000]);
        buf.pad_to_block();
        let (buf, written) = file.write_at_durable(buf, 4096).await;
        written.unwrap();
        assert_eq!(buf.len(), 8192);
        drop(file);
        rename(&a, &b).await.unwrap();
        sync_dir(&dir.0).await.unwrap();
        assert!(File::open(&a, OpenMode::Read).await.is_err());
        let file = File::open(&b, OpenMode::Read).await.unwrap();
        // asks for more than there is
        let (back, read) = file.read_at(AlignedBuf::zeroed(8 * 4096), 0).await;
        assert_eq!(read.unwrap(), 5 * 4096);
        assert!(back[..4096].iter().all(|b| *b == 0));
        assert_eq!(back[4096..4096 + 5000], [9; 5000]);
        assert!(back[4096 + 5000..].iter().all(|b| *b == 0));
        let (_, refused) = file.write_at_durable(buf, 0).await;
        assert!(refused.is_err(), "opened for reading only");
        remove(&b).await.unwrap();
    });
}

/// An operation nobody waits for any more still runs, and its memory lives until it has.
#[test]
fn an_abandoned_write_is_harmless() {
    on_every_kind(|| async {
        let dir = TempDir::new();
        let file = Rc::new(File::open(dir.0.join("log"), OpenMode::CreateNew).await.unwrap());
        for i in 0..50u64 {
            let mut write = Box::pin(file.write_at_durable(AlignedBuf::zeroed(64 * 1024), i * 65536));
            std::future::poll_fn(|cx| {
                let _ = write.as_mut().poll(cx);
                std::task::Poll::Ready(())
            })
            .await;
            drop(write);
        }
        file.sync().await.unwrap();
    });
}

#[test]
fn a_full_disk_is_recognised() {
    let dir = TempDir::new();
    let target = std::ffi::CString::new(dir.0.to_str().unwrap()).unwrap();
    // SAFETY: all strings are terminated and live.
    #[allow(unsafe_code)]
    let mounted = unsafe {
        libc::mount(c"none".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=64k".as_ptr().cast()) == 0
    };
    if !mounted {
        println!("not tested: mounting a small file system needs root: {}", std::io::Error::last_os_error());
        return;
    }
    struct Unmount(std::ffi::CString);
    impl Drop for Unmount {
        fn drop(&mut self) {
            // SAFETY: the string is terminated and lives.
            #[allow(unsafe_code)]
            unsafe {
                libc::umount2(self.0.as_ptr(), libc::MNT_DETACH);
            }
        }
    }
    let _unmount = Unmount(target);
    for (i, options) in every_kind().into_iter().enumerate() {
        let path = dir.0.join(format!("log{i}"));
        let root = move || async move {
            let file = File::open(&path, OpenMode::CreateNew).await.unwrap();
            let (buf, result) = file.write_at_durable(AlignedBuf::zeroed(256 * 1024), 0).await;
            assert!(is_no_space(&result.unwrap_err()));
            assert_eq!(buf.len(), 256 * 1024);
            let filled = file.zero_fill(1 << 20).await;
            assert!(is_no_space(&filled.unwrap_err()));
            remove(&path).await.unwrap();
        };
        run(&options, root).unwrap();
    }
}

#[test]
fn signals_arrive() {
    let options = Options { root_panic: RootPanic::Join, ..Options::default() };
    let root = || async {
        let mut signals = signals().unwrap();
        // SAFETY: raises a signal that was just taken over.
        #[allow(unsafe_code)]
        unsafe {
            libc::kill(libc::getpid(), libc::SIGUSR2);
        }
        assert_eq!(timeout(HANG, signals.next()).await, Ok(Signal::Dump));
    };
    run(&options, root).unwrap();
}

#[test]
fn the_choice_is_told() {
    let choice = probe(DriverWish::Epoll).unwrap();
    assert_eq!(choice.kind, DriverKind::Epoll);
    assert!(!choice.reason.is_empty());
    let auto = probe(DriverWish::Auto).unwrap();
    assert_eq!(auto.kind == DriverKind::IoUring, probe(DriverWish::IoUring).is_ok());
}
