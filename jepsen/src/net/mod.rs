//! The network between the nodes, and what may be wrong with it.
//!
//! Two ways: network namespaces whose packets all go through a switch of ours ([`switch`]), or, where there is no
//! privilege, proxies on loopback ([`proxy`]). Both obey the same [`Rules`].

pub mod proxy;
pub mod switch;
mod tun;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Who stands at an end of a link: a node by its place, or the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The clients.
    Clients,
    /// A node.
    Node(usize),
}

/// What happens to packets under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Each waits so long.
    pub delay: Duration,
    /// And up to so much longer, each for itself, so that they overtake each other.
    pub jitter: Duration,
    /// So many of a thousand are lost.
    pub lost_permille: u32,
    /// So many of a thousand come twice.
    pub doubled_permille: u32,
}

#[derive(Debug, Default)]
struct State {
    cut: BTreeSet<(End, End)>,
    weather: BTreeMap<(End, End), Weather>,
}

/// What the network does at the moment; asked for every packet.
#[derive(Debug, Default)]
pub struct Rules(Mutex<State>);

impl Rules {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing goes from the first to the second any more.
    pub fn cut(&self, from: End, to: End) {
        self.with(|s| s.cut.insert((from, to)));
    }

    /// Sets the weather of one direction.
    pub fn weather(&self, from: End, to: End, weather: Weather) {
        self.with(|s| s.weather.insert((from, to), weather));
    }

    /// Everything is well again.
    pub fn heal(&self) {
        self.with(|s| *s = State::default());
    }

    /// Whether nothing passes.
    pub fn is_cut(&self, from: End, to: End) -> bool {
        self.with(|s| s.cut.contains(&(from, to)))
    }

    /// `None` if nothing passes.
    pub fn between(&self, from: End, to: End) -> Option<Weather> {
        self.with(|s| (!s.cut.contains(&(from, to))).then(|| s.weather.get(&(from, to)).copied().unwrap_or_default()))
    }
}

/// Where a node listens, and what it tells others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// API listener, host and port.
    pub api_listen: String,
    /// Cluster listener, host and port.
    pub cluster_listen: String,
    /// Where others find the API.
    pub api: String,
    /// Where others find the cluster port.
    pub cluster: String,
    /// Words before the server's command.
    pub prefix: Vec<String>,
}
