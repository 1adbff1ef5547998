//! Log time: the clock that batches carry and every expiry check uses. It moves with the owner's monotonic clock, is
//! slewed towards its wall clock by at most 5 %, and never goes back.
//!
//! Whoever takes the lead goes on from what the nodes told each other about log time, so that no wall clock is asked: one
//! that jumped neither ends a lease nor revives one. Only after an outage of all nodes, when no process is left that knows
//! log time, it steps forward once: to the clock of a node alone, or to the lower middle of the clocks of a majority.

use crate::cell::LogClock;
use ringfence_base::{Now, Wall};

/// One part in so many of the elapsed time may be added or taken to follow the wall clock.
const SLEW_PART: u64 = 20;

/// How far the wall clock may be behind log time before the node warns, ns: an hour.
pub const FAR_BACK_NS: u64 = 3600 * 1_000_000_000;

/// The owner's log clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogTime {
    reading: LogClock,
    started: bool,
}

impl LogTime {
    /// Begins at the log time of the image; steps forward to the wall clock if that is later.
    pub fn start(&mut self, image: Wall, now: Now) {
        self.reading = LogClock { log_time: image.max(now.wall), at: now.mono };
        self.started = true;
    }

    /// Goes on from a known log time, without a step.
    pub fn follow(&mut self, known: Wall, now: Now) {
        self.reading = LogClock { log_time: known, at: now.mono };
        self.started = true;
    }

    /// The current log time.
    pub fn tick(&mut self, now: Now) -> Wall {
        if !self.started {
            self.start(Wall(0), now);
        }
        let elapsed = now.mono.since(self.reading.at);
        let straight = self.reading.log_time.plus_ns(elapsed);
        let allowance = elapsed / SLEW_PART;
        let slewed = if now.wall >= straight {
            straight.plus_ns(now.wall.since(straight).min(allowance))
        } else {
            Wall(straight.0 - straight.since(now.wall).min(allowance))
        };
        self.reading = LogClock { log_time: slewed.max(self.reading.log_time), at: now.mono };
        self.reading.log_time
    }

    /// The last reading, for the cell.
    pub fn reading(&self) -> LogClock {
        self.reading
    }
}

/// The lower middle of some clocks: while fewer than half of them are ahead of the time, it is not.
pub fn lower_middle(clocks: &mut [Wall]) -> Option<Wall> {
    clocks.sort_unstable();
    clocks.get(clocks.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::Mono;

    #[test]
    fn a_minority_of_clocks_ahead_moves_nothing() {
        let middle = |seconds: &[u64]| {
            lower_middle(&mut seconds.iter().map(|s| Wall::from_seconds(*s)).collect::<Vec<_>>()).map(Wall::seconds)
        };
        assert_eq!(middle(&[]), None);
        assert_eq!(middle(&[7]), Some(7));
        assert_eq!(middle(&[9000, 7]), Some(7));
        assert_eq!(middle(&[9000, 7, 8]), Some(8));
        assert_eq!(middle(&[9000, 7, 8, 8000]), Some(8));
        assert_eq!(middle(&[1, 7, 8, 9, 8000]), Some(8));
    }

    #[test]
    fn who_follows_takes_no_step() {
        let mut t = LogTime::default();
        t.follow(Wall::from_seconds(100), at(0, 5000));
        assert_eq!(t.tick(at(100, 5000)).seconds(), 205);
    }

    fn at(mono_s: u64, wall_s: u64) -> Now {
        Now { mono: Mono(mono_s * 1_000_000_000), wall: Wall::from_seconds(wall_s) }
    }

    #[test]
    fn steps_forward_once_and_never_back() {
        let mut t = LogTime::default();
        t.start(Wall::from_seconds(100), at(0, 1000));
        assert_eq!(t.tick(at(0, 1000)).seconds(), 1000);
        let mut t = LogTime::default();
        t.start(Wall::from_seconds(5000), at(0, 1000));
        assert_eq!(t.tick(at(0, 1000)).seconds(), 5000);
    }

    #[test]
    fn a_jumping_wall_clock_moves_it_by_a_twentieth_at_most() {
        let mut t = LogTime::default();
        t.start(Wall(0), at(0, 1000));
        assert_eq!(t.tick(at(100, 1_000_000)).seconds(), 1105);
        let mut t = LogTime::default();
        t.start(Wall(0), at(0, 1000));
        assert_eq!(t.tick(at(100, 3)).seconds(), 1095);
        let before = t.tick(at(100, 3));
        assert!(t.tick(at(100, 0)) >= before);
    }
}
