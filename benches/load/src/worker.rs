//! One thread of load: its connections, when requests are due, and what came of them. Driven by `run.rs`, which tells it
//! when each phase begins; it sends back one [`Tick`] an interval and its [`Totals`] at the end.
//!
//! Open loop: each request is due at a time that does not depend on the server. Where no connection is free it waits in
//! the backlog, and its latency counts from when it was *due*, so a stall is seen by all requests that it held up and not
//! by one a connection (coordinated omission). What is still without an answer at the end counts with its age.
//! Closed loop: a connection asks again when it was answered and has rested.

use crate::call::{Call, Take};
use crate::h1::H1;
use crate::h2::H2;
use crate::ops::{Op, Pools, Stage};
use crate::process;
use crate::settings::{Arrivals, Settings};
use crate::target::{Protocol, Target};
use crate::transport::Transport;
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Latencies are nanoseconds, kept to three digits; longer ones count as this.
pub const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// A histogram of latencies, nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are in order and three digits are allowed")
}

/// A broken connection is made anew after this.
const RECONNECT: Duration = Duration::from_millis(100);
/// What is still in flight at the end is waited for this long.
const DRAIN: Duration = Duration::from_secs(5);

/// When what happens.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The ramp begins.
    pub begin: Instant,
    /// Full load is reached.
    pub full: Instant,
    /// Counting begins.
    pub count: Instant,
    /// Counting and sending end.
    pub end: Instant,
}

impl Schedule {
    /// From a beginning.
    pub fn new(begin: Instant, s: &Settings) -> Schedule {
        let full = begin + s.ramp;
        let count = full + s.warm_up;
        Schedule { begin, full, count, end: count + s.span }
    }
}

/// What a worker saw in one interval.
pub struct Tick {
    /// Which one, from 0 at the beginning.
    pub interval: usize,
    /// Answers, by when they came.
    pub answers: u64,
    /// Of those, not what was asked for; and broken connections.
    pub errors: u64,
    /// Their latencies.
    pub latency: Histogram<u64>,
}

/// Of one operation in the time that counts.
#[derive(Clone)]
pub struct OpTotals {
    /// Good answers.
    pub ok: u64,
    /// Others.
    pub errors: u64,
    /// From when it was due; of good answers and bad ones alike.
    pub latency: Histogram<u64>,
    /// From when it was sent.
    pub service: Histogram<u64>,
}

/// What a worker saw in all.
pub struct Totals {
    /// By operation.
    pub ops: BTreeMap<Op, OpTotals>,
    /// Good answers that came in the time that counts, whenever they were due.
    pub answered: u64,
    /// Without an answer at the end; their ages are among the latencies.
    pub unanswered: u64,
    /// Kinds of errors: how often, and one of them.
    pub faults: BTreeMap<String, (u64, String)>,
    /// How late a request was sent though a connection was free: the generator's own doing.
    pub lateness: Histogram<u64>,
    /// CPU time of this thread in the time that counts.
    pub cpu: Duration,
    /// All answers in that time, good and bad.
    pub handled: u64,
}

struct Flight {
    op: Op,
    take: Take,
    due: Instant,
    sent: Instant,
}

enum Wire {
    H1(Box<H1<Flight>>),
    H2(Box<H2<Flight>>),
    /// Broken; made anew at this time.
    Down(Instant),
}

struct Connection {
    wire: Wire,
    /// Tells events of an earlier socket in this place from those of this one.
    generation: usize,
}

/// The timer's place among the tokens.
const TIMER: Token = Token(usize::MAX);

/// A worker of one run.
pub struct Worker<'s> {
    target: &'s Target,
    settings: &'s Settings,
    stage: &'s Stage,
    schedule: Schedule,
    /// Its share of the rate.
    rate: Option<f64>,
    mix: Vec<Op>,
    rng: fastrand::Rng,
    pools: Pools,
    poll: Poll,
    timer: rustix::fd::OwnedFd,
    armed: Option<Instant>,
    connections: Vec<Connection>,
    /// Connections with room, one entry a free stream; with the generation it was entered under.
    free: VecDeque<(usize, usize)>,
    /// Connections of a closed loop that rest, soonest first.
    resting: BinaryHeap<std::cmp::Reverse<(Instant, usize, usize)>>,
    /// When a request was due, and the turn in which that was seen.
    backlog: VecDeque<(Instant, Instant)>,
    next_due: Option<Instant>,
    call: Call,
    totals: Totals,
    tick: Tick,
    ticks: Sender<Tick>,
    cpu_begin: Option<Duration>,
}

impl<'s> Worker<'s> {
    /// The `index`-th of all threads.
    pub fn new(
        target: &'s Target,
        settings: &'s Settings,
        stage: &'s Stage,
        schedule: Schedule,
        index: usize,
        ticks: Sender<Tick>,
    ) -> io::Result<Worker<'s>> {
        let poll = Poll::new()?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        poll.registry().register(&mut mio::unix::SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let count = share(settings.connections, settings.threads, index);
        let down = || Connection { wire: Wire::Down(schedule.begin), generation: 0 };
        Ok(Worker {
            target,
            settings,
            stage,
            schedule,
            rate: settings.rate.map(|r| r / settings.threads as f64),
            // a weight is so many places in a table that is drawn from
            mix: settings.mix.iter().flat_map(|(op, weight)| (0..*weight).map(|_| *op)).collect(),
            rng: fastrand::Rng::with_seed(settings.seed.wrapping_add(index as u64)),
            pools: Pools::default(),
            poll,
            timer,
            armed: None,
            connections: (0..count).map(|_| down()).collect(),
            free: VecDeque::new(),
            resting: BinaryHeap::new(),
            backlog: VecDeque::new(),
            next_due: None,
            call: Call::default(),
            totals: Totals {
                ops: BTreeMap::new(),
                answered: 0,
                unanswered: 0,
                faults: BTreeMap::new(),
                lateness: histogram(),
                cpu: Duration::ZERO,
                handled: 0,
            },
            tick: Tick { interval: 0, answers: 0, errors: 0, latency: histogram() },
            ticks,
            cpu_begin: None,
        })
    }

    /// Runs to the end.
    pub fn run(mut self) -> io::Result<Totals> {
        let mut events = Events::with_capacity(256);
        let mut now = self.wait_for(self.schedule.begin, &mut events)?;
        self.next_due = self.rate.map(|_| now);
        while now < self.schedule.end {
            self.turn(now, true)?;
            now = self.wait(&mut events)?;
        }
        self.totals.cpu = process::own_thread().saturating_sub(self.cpu_begin.unwrap_or_default());
        let patience = now + DRAIN.min(self.settings.timeout);
        while now < patience && self.is_busy() {
            self.turn(now, false)?;
            now = self.wait(&mut events)?;
        }
        self.leave_unanswered(now);
        // the receiver is gone only when the run is
        let _ = self.ticks.send(self.tick);
        Ok(self.totals)
    }

    fn is_busy(&self) -> bool {
        let flying = |c: &Connection| match &c.wire {
            Wire::H1(h) => h.in_flight().next().is_some(),
            Wire::H2(h) => h.in_flight().next().is_some(),
            Wire::Down(_) => false,
        };
        self.connections.iter().any(flying)
    }

    /// Does what the time asks for: intervals, connections, requests that are due.
    fn turn(&mut self, now: Instant, sends: bool) -> io::Result<()> {
        if self.cpu_begin.is_none() && now >= self.schedule.count {
            self.cpu_begin = Some(process::own_thread());
        }
        self.roll(now);
        if !sends {
            return Ok(());
        }
        for i in 0..self.connections.len() {
            if let Wire::Down(again) = self.connections[i].wire
                && now >= again.max(self.join_time(i))
            {
                self.open(i, now);
            }
        }
        self.fall_due(now);
        while let Some(std::cmp::Reverse((at, i, generation))) = self.resting.peek().copied()
            && at <= now
        {
            self.resting.pop();
            self.free.push_back((i, generation));
        }
        self.send_what_is_due(now);
        Ok(())
    }

    /// In a closed loop the connections of a ramp come one after another; in an open loop the rate grows instead.
    fn join_time(&self, i: usize) -> Instant {
        if self.rate.is_some() {
            return self.schedule.begin;
        }
        self.schedule.begin + self.settings.ramp.mul_f64(i as f64 / self.connections.len().max(1) as f64)
    }

    /// Moves the requests whose time has come into the backlog.
    fn fall_due(&mut self, now: Instant) {
        let Some(rate) = self.rate else { return };
        while let Some(due) = self.next_due.filter(|d| *d <= now && *d < self.schedule.end) {
            self.backlog.push_back((due, now));
            let elapsed = (due - self.schedule.begin).as_secs_f64();
            let ramp = self.settings.ramp.as_secs_f64();
            // the first request of a ramp would otherwise be due never
            let share = if elapsed < ramp { (elapsed / ramp).max(0.02) } else { 1.0 };
            let mean = 1.0 / (rate * share);
            let gap = match self.settings.arrivals {
                Arrivals::Even => mean,
                Arrivals::Poisson => -mean * (1.0 - self.rng.f64()).ln(),
            };
            self.next_due = Some(due + Duration::from_secs_f64(gap));
        }
    }

    fn send_what_is_due(&mut self, now: Instant) {
        loop {
            let (due, seen) = match self.rate {
                Some(_) => match self.backlog.front() {
                    Some(entry) => *entry,
                    None => return,
                },
                None => (now, now),
            };
            let Some((i, generation)) = self.free.pop_front() else { return };
            if self.connections[i].generation != generation {
                continue;
            }
            if self.rate.is_some() {
                self.backlog.pop_front();
            }
            self.send(i, due, seen == now);
        }
    }

    fn send(&mut self, i: usize, due: Instant, at_once: bool) {
        let op = self.mix[self.rng.usize(..self.mix.len())];
        let op = self.stage.make(op, &mut self.rng, &mut self.pools, &mut self.call);
        let sent = Instant::now();
        let due = if self.rate.is_some() { due } else { sent };
        if self.rate.is_some() && at_once && due >= self.schedule.count {
            self.totals.lateness.saturating_record(nanos(sent - due));
        }
        let flight = Flight { op, take: self.call.take, due, sent };
        let result = match &mut self.connections[i].wire {
            Wire::H1(h) => h.send(&self.call, flight),
            Wire::H2(h) => h.send(&self.call, flight),
            Wire::Down(_) => Ok(()),
        };
        if let Err(e) = result {
            self.broke(i, &e);
        }
    }

    fn open(&mut self, i: usize, now: Instant) {
        let c = &mut self.connections[i];
        c.generation += 1;
        let opened = Transport::connect(self.target).and_then(|mut t| {
            // the generation need not be in the token: a socket that is dropped is no longer watched
            self.poll.registry().register(t.socket(), Token(i), Interest::READABLE | Interest::WRITABLE)?;
            Ok(t)
        });
        let transport = match opened {
            Ok(t) => t,
            Err(e) => {
                c.wire = Wire::Down(now + RECONNECT);
                return self.fault("connection", &e.to_string());
            }
        };
        let authority = self.target.authority.clone();
        c.wire = match self.target.protocol {
            Protocol::Http1 => Wire::H1(Box::new(H1::new(transport, authority))),
            Protocol::Http2 => Wire::H2(Box::new(H2::new(transport, authority))),
        };
        let room = if self.target.protocol == Protocol::Http2 { self.settings.streams.max(1) } else { 1 };
        self.free.extend(std::iter::repeat_n((i, c.generation), room));
    }

    /// Sleeps until something is to be done, and takes what has come.
    fn wait(&mut self, events: &mut Events) -> io::Result<Instant> {
        self.arm()?;
        match self.poll.poll(events, Some(self.settings.interval.min(Duration::from_millis(100)))) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        for event in events.iter().filter(|e| e.token() != TIMER) {
            self.ready(event.token().0);
        }
        Ok(Instant::now())
    }

    fn wait_for(&mut self, until: Instant, events: &mut Events) -> io::Result<Instant> {
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(now);
            }
            self.poll.poll(events, Some(until - now))?;
        }
    }

    /// Sets the timer to the next request, where that is not set already.
    fn arm(&mut self) -> io::Result<()> {
        let due = self.next_due.filter(|_| self.rate.is_some());
        let rested = self.resting.peek().map(|r| r.0.0);
        let Some(next) = [due, rested].into_iter().flatten().min() else { return Ok(()) };
        if self.armed == Some(next) {
            return Ok(());
        }
        self.armed = Some(next);
        // a time of nothing would stop the timer
        let left = next.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn ready(&mut self, i: usize) {
        let c = &mut self.connections[i];
        let generation = c.generation;
        let (free, resting) = (&mut self.free, &mut self.resting);
        let (totals, tick, pools) = (&mut self.totals, &mut self.tick, &mut self.pools);
        let (schedule, settings, open) = (&self.schedule, self.settings, self.rate.is_some());
        let mut done = |flight: Flight, status: u16, body: &[u8]| {
            let now = Instant::now();
            record(totals, tick, schedule, open, &flight, now, status, body);
            if flight.take != Take::Nothing && flight.op.is_ok(status) {
                pools.keep(flight.take, body);
            }
            match settings.think.is_zero() || open {
                true => free.push_back((i, generation)),
                false => resting.push(std::cmp::Reverse((now + settings.think, i, generation))),
            }
        };
        let result = match &mut c.wire {
            Wire::H1(h) => h.ready(&mut done),
            Wire::H2(h) => h.ready(&mut done),
            Wire::Down(_) => Ok(()),
        };
        if let Err(e) = result {
            self.broke(i, &e);
        }
    }

    /// A connection is gone: what was in flight on it is an error each.
    fn broke(&mut self, i: usize, error: &io::Error) {
        let now = Instant::now();
        let wire = std::mem::replace(&mut self.connections[i].wire, Wire::Down(now + RECONNECT));
        self.connections[i].generation += 1;
        let lost: Vec<&Flight> = match &wire {
            Wire::H1(h) => h.in_flight().collect(),
            Wire::H2(h) => h.in_flight().collect(),
            Wire::Down(_) => Vec::new(),
        };
        if lost.is_empty() && error.kind() == io::ErrorKind::ConnectionAborted {
            // the server said that it would close after its answer: no error, and no reason to wait
            self.connections[i].wire = Wire::Down(now);
            return;
        }
        let open = self.rate.is_some();
        for flight in &lost {
            record(&mut self.totals, &mut self.tick, &self.schedule, open, flight, now, 0, b"");
        }
        let text = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotConnected => {
                "the server closed the connection".to_owned()
            }
            io::ErrorKind::TimedOut => "no answer within --timeout".to_owned(),
            _ => error.to_string(),
        };
        self.fault("connection", &text);
    }

    fn fault(&mut self, kind: &str, text: &str) {
        fault(&mut self.totals, kind, text);
    }

    /// Ends an interval when its time is over, and looks for answers that are overdue.
    fn roll(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.schedule.begin);
        let interval = (elapsed.as_nanos() / self.settings.interval.as_nanos().max(1)) as usize;
        if interval == self.tick.interval {
            return;
        }
        let next = Tick { interval, answers: 0, errors: 0, latency: histogram() };
        // the receiver is gone only when the run is
        let _ = self.ticks.send(std::mem::replace(&mut self.tick, next));
        let Some(oldest) = now.checked_sub(self.settings.timeout) else { return };
        let overdue: Vec<usize> = (0..self.connections.len())
            .filter(|i| match &self.connections[*i].wire {
                Wire::H1(h) => h.in_flight().any(|f| f.sent < oldest),
                Wire::H2(h) => h.in_flight().any(|f| f.sent < oldest),
                Wire::Down(_) => false,
            })
            .collect();
        for i in overdue {
            self.broke(i, &io::ErrorKind::TimedOut.into());
        }
    }

    /// What never got an answer was at least as slow as it is old.
    fn leave_unanswered(&mut self, now: Instant) {
        let mut left: Vec<(Op, Instant)> = Vec::new();
        for c in &self.connections {
            match &c.wire {
                Wire::H1(h) => left.extend(h.in_flight().map(|f| (f.op, f.due))),
                Wire::H2(h) => left.extend(h.in_flight().map(|f| (f.op, f.due))),
                Wire::Down(_) => {}
            }
        }
        // what was not even sent has no operation yet; it is drawn as it would have been
        for (due, _) in self.backlog.drain(..) {
            left.push((self.mix[self.rng.usize(..self.mix.len())], due));
        }
        for (op, due) in left.into_iter().filter(|(_, due)| *due >= self.schedule.count) {
            self.totals.unanswered += 1;
            let totals = of_op(&mut self.totals, op);
            totals.latency.saturating_record(nanos(now.saturating_duration_since(due)));
        }
    }
}

/// How many of `all` are the `index`-th part's.
pub fn share(all: usize, parts: usize, index: usize) -> usize {
    all / parts + usize::from(index < all % parts)
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX).clamp(1, LATENCY_NS_MAX)
}

fn of_op(totals: &mut Totals, op: Op) -> &mut OpTotals {
    let fresh = || OpTotals { ok: 0, errors: 0, latency: histogram(), service: histogram() };
    totals.ops.entry(op).or_insert_with(fresh)
}

fn fault(totals: &mut Totals, kind: &str, text: &str) {
    match totals.faults.get_mut(kind) {
        Some((count, _)) => *count += 1,
        None => {
            totals.faults.insert(kind.to_owned(), (1, text.chars().take(300).collect()));
        }
    }
}

/// Counts an answer; status 0 stands for a connection that broke.
#[allow(clippy::too_many_arguments)]
fn record(
    totals: &mut Totals,
    tick: &mut Tick,
    schedule: &Schedule,
    open: bool,
    flight: &Flight,
    now: Instant,
    status: u16,
    body: &[u8],
) {
    let ok = flight.op.is_ok(status);
    let latency = nanos(now - flight.due);
    tick.answers += 1;
    tick.errors += u64::from(!ok);
    tick.latency.saturating_record(latency);
    let in_span = now >= schedule.count && now < schedule.end;
    totals.answered += u64::from(in_span && ok);
    totals.handled += u64::from(in_span);
    if !ok && status != 0 {
        fault(totals, &format!("{} {status}", flight.op.name()), &String::from_utf8_lossy(body));
    }
    // an open loop counts what was due in the span, however late it came
    let counts = if open { flight.due >= schedule.count && flight.due < schedule.end } else { in_span };
    if !counts {
        return;
    }
    let op = of_op(totals, flight.op);
    *(if ok { &mut op.ok } else { &mut op.errors }) += 1;
    op.latency.saturating_record(latency);
    op.service.saturating_record(nanos(now - flight.sent));
}
