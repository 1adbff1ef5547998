//! Pools of connections, one a target and generation.

use super::{mysql, postgres};
use ringfence_node::{SqlAsk, SqlKind, SqlTarget};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// An idle connection that was not used for so long is closed.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// Connecting takes no longer, whatever time the ask has.
const CONNECT_TIME: Duration = Duration::from_secs(8);
/// Longest pause after failures to connect.
const MAX_PAUSE_SECONDS: u64 = 10;

/// All pools.
#[derive(Default)]
pub struct Pools {
    by_name: RefCell<BTreeMap<String, Rc<Pool>>>,
}

struct Pool {
    generation: u64,
    places: Semaphore,
    max_open: u32,
    idle: RefCell<Vec<Idle>>,
    /// Failures to connect in a row, until when nobody tries again, and why.
    failures: Cell<u32>,
    pause: RefCell<Option<(Instant, String)>>,
}

struct Idle {
    connection: Connection,
    opened: Instant,
    used: Instant,
}

/// An open connection of either kind.
pub enum Connection {
    Postgres(postgres::Connection),
    Mysql(mysql::Connection),
}

impl Pools {
    /// Does what is asked, to its end.
    pub async fn run(&self, ask: SqlAsk) -> Result<(), String> {
        if ask.statements.is_empty() {
            // a knock: neither a pooled connection nor a remembered failure may answer for the server
            return match connect(&ask.target).await? {
                Connection::Postgres(_) => Ok(()),
                Connection::Mysql(c) => c.close().await,
            };
        }
        let pool = self.pool(&ask.target);
        let _place = pool.places.acquire().await.map_err(|e| e.to_string())?;
        let (mut connection, opened) = match pool.take(&ask.target) {
            Some(c) => c,
            None => (pool.connect(&ask.target).await?, Instant::now()),
        };
        let statements: Vec<&str> = ask.statements.iter().map(|s| s.expose().as_str()).collect();
        let done = match &mut connection {
            Connection::Postgres(c) => c.run(&statements, ask.in_transaction).await,
            Connection::Mysql(c) => c.run(&statements).await,
        };
        if connection.is_usable() {
            pool.put(&ask.target, connection, opened);
        }
        done
    }

    fn pool(&self, target: &SqlTarget) -> Rc<Pool> {
        let (name, generation) = &target.pool;
        let mut pools = self.by_name.borrow_mut();
        if let Some(p) = pools.get(name).filter(|p| p.generation == *generation && p.max_open == target.max_open) {
            return p.clone();
        }
        let pool = Rc::new(Pool {
            generation: *generation,
            places: Semaphore::new(target.max_open.max(1) as usize),
            max_open: target.max_open,
            idle: RefCell::default(),
            failures: Cell::new(0),
            pause: RefCell::default(),
        });
        // the old one is dropped with its idle connections when its last ask ends
        pools.insert(name.clone(), pool.clone());
        // pools of connections that were deleted hold nothing open for long
        for p in pools.values() {
            p.sweep();
        }
        pool
    }
}

impl Pool {
    fn take(&self, target: &SqlTarget) -> Option<(Connection, Instant)> {
        self.sweep();
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            let too_old =
                target.max_lifetime_seconds > 0 && idle.opened.elapsed().as_secs() >= target.max_lifetime_seconds;
            if idle.connection.is_usable() && !too_old {
                return Some((idle.connection, idle.opened));
            }
        }
    }

    fn put(&self, target: &SqlTarget, connection: Connection, opened: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < target.max_idle as usize {
            idle.push(Idle { connection, opened, used: Instant::now() });
        }
    }

    fn sweep(&self) {
        self.idle.borrow_mut().retain(|i| i.used.elapsed() < IDLE_TIME);
    }

    async fn connect(&self, target: &SqlTarget) -> Result<Connection, String> {
        if let Some((until, why)) = &*self.pause.borrow()
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        match connect(target).await {
            Ok(c) => {
                self.failures.set(0);
                *self.pause.borrow_mut() = None;
                Ok(c)
            }
            Err(why) => {
                let seconds = MAX_PAUSE_SECONDS.min(1 << self.failures.get().min(10));
                self.failures.set(self.failures.get().saturating_add(1));
                *self.pause.borrow_mut() = Some((Instant::now() + Duration::from_secs(seconds), why.clone()));
                Err(why)
            }
        }
    }
}

async fn connect(target: &SqlTarget) -> Result<Connection, String> {
    let connecting = async {
        match target.kind {
            SqlKind::Postgres => postgres::connect(target).await.map(Connection::Postgres),
            SqlKind::Mysql => mysql::connect(target).await.map(Connection::Mysql),
        }
    };
    match tokio::time::timeout(CONNECT_TIME, connecting).await {
        Ok(done) => done,
        Err(_) => Err("failed to connect: timed out".into()),
    }
}

impl Connection {
    fn is_usable(&self) -> bool {
        match self {
            Connection::Postgres(c) => c.is_usable(),
            Connection::Mysql(c) => c.is_usable(),
        }
    }
}
