//! What plugs in: an engine is a table of paths and at most four callbacks.

use crate::cx::Cx;
use crate::error::Error;
use crate::path::{Matcher, Table};
use crate::{Map, Outcome};
use std::collections::BTreeMap;

/// Where an engine may be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// `sys/mounts`.
    Secret,
    /// `sys/auth`.
    Auth,
}

/// A lease as its engine sees it at renewal and revocation.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The secret type the engine named.
    pub secret: String,
    /// What the engine kept with it.
    pub internal: Map,
    /// Path of the request that made it, within the mount.
    pub path: String,
    /// Seconds that the client asks for; 0 = none asked.
    pub increment: u64,
}

/// What an auth method allows at the renewal of one of its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Renewal {
    /// As in [`crate::Auth`].
    pub ttl: u64,
    /// As in [`crate::Auth`].
    pub max_ttl: u64,
    /// As in [`crate::Auth`].
    pub period: u64,
    /// External groups, if the method asked for them anew; `None` leaves the memberships as they are.
    pub group_aliases: Option<Vec<crate::Alias>>,
}

/// An engine or auth method. Stateless: all it knows is in the transaction.
pub trait Engine: Send + Sync {
    /// Its paths.
    fn table(&self) -> &'static Table;

    /// Renews a secret of this engine, before the lease's due time is moved: the engine may refuse. The response's
    /// lease terms say what it allows.
    fn renew(&self, _cx: &mut Cx<'_, '_>, _lease: &Lease) -> Outcome {
        Err(Error::invalid("lease is not renewable"))
    }

    /// Ends a secret of this engine.
    fn revoke(&self, _cx: &mut Cx<'_, '_>, _lease: &Lease) -> Outcome {
        crate::response::nothing()
    }

    /// What has to be asked outside before a token of this auth method may be renewed; an error refuses the renewal.
    /// Asked before [`Engine::renew_token`], which decides the rest over a transaction of its own. It writes nothing.
    fn prove_renewal(&self, _cx: &mut Cx<'_, '_>, _internal: &Map) -> Outcome {
        crate::response::nothing()
    }

    /// Decides whether a token of this auth method may be renewed. `internal` is what the login kept.
    fn renew_token(&self, _cx: &mut Cx<'_, '_>, _policies: &[String], _internal: &Map) -> Result<Renewal, Error> {
        Ok(Renewal::default())
    }

    /// A job that [`Cx::schedule`](crate::Cx::schedule) named is due. The engine does a bounded piece of work and
    /// schedules the job again if it is to come again; otherwise it is forgotten. A failure is tried again later and
    /// later. Work outside goes by [`Step::Intent`](crate::Step::Intent): after a crash the job is due again and finds
    /// what the intent wrote.
    fn due(&self, _cx: &mut Cx<'_, '_>, _job: &str) -> Outcome {
        crate::response::nothing()
    }

    /// The options of a mount of this engine are about to become `new`; the engine refuses, or answers warnings.
    fn reconfigure(
        &self,
        _cx: &mut Cx<'_, '_>,
        _old: &BTreeMap<String, String>,
        _new: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

/// An engine and its compiled matcher.
pub struct Registered {
    /// The name mounts know it by: `kv`, and `kv-v2` for the second version.
    pub name: &'static str,
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// Its matcher.
    pub matcher: Matcher,
}

/// All engines there are. The vault floor gets one and knows no engine by name.
#[derive(Default)]
pub struct Registry {
    rows: Vec<Registered>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds an engine under a name; the class comes from its table.
    pub fn add(&mut self, name: &'static str, engine: Box<dyn Engine>) -> &mut Registry {
        let matcher = Matcher::new(engine.table());
        self.rows.push(Registered { name, engine, matcher });
        self
    }

    /// The engine that serves a mount of this type, class and version option.
    pub fn find(&self, class: Class, kind: &str, version: Option<&str>) -> Option<&Registered> {
        let versioned = version.filter(|v| *v != "1").map(|v| format!("{kind}-v{v}"));
        let wanted = versioned.as_deref().unwrap_or(kind);
        self.rows.iter().find(|r| r.name == wanted && r.engine.table().class == class)
    }

    /// Every registered engine.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.rows.iter()
    }
}
