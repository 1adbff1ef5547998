//! The process's signals as a stream: stop, reload, dump.
//!
//! A thread of its own waits for them and leaves them in a mailbox, so that no core needs a signal mask and both
//! backends are served alike.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals as Hook;

use super::channel::{self, Receiver};

/// A signal the server reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop.
    Terminate,
    /// SIGINT: stop, from a terminal.
    Interrupt,
    /// SIGHUP: read the configuration again, reopen audit files.
    Reload,
    /// SIGUSR2: write out the state of every task.
    Dump,
}

/// Signals from the moment [`signals`] was called. Dropping it gives them up, not their default action back.
pub struct Signals {
    receiver: Receiver<Signal>,
    handle: signal_hook::iterator::Handle,
}

/// Takes over SIGTERM, SIGINT, SIGHUP and SIGUSR2 and delivers them to this core.
pub fn signals() -> io::Result<Signals> {
    let mut hook = Hook::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
    let handle = hook.handle();
    // more than these waiting means nobody looks: dropping the rest loses nothing new
    let (sender, inlet) = channel::bounded(64);
    thread::Builder::new().name("rt-signals".into()).spawn(move || {
        for number in hook.forever() {
            let signal = match number {
                SIGTERM => Signal::Terminate,
                SIGINT => Signal::Interrupt,
                SIGHUP => Signal::Reload,
                _ => Signal::Dump,
            };
            let _ = sender.try_send(signal);
        }
    })?;
    Ok(Signals { receiver: inlet.open(), handle })
}

impl Signals {
    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        match self.receiver.recv().await {
            Some(signal) => signal,
            // the thread ends only with this value
            None => std::future::pending().await,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}
