//! Clients of SQL servers: carries out what engines ask ([`SqlAsk`]) over pooled connections.
//!
//! All of it lives on one thread with a small async runtime of its own: a slow server holds neither a core nor a thread
//! of the pool, and every ask ends within its time. A target that cannot be connected to is left alone for a while
//! that doubles, up to ten seconds; asks meanwhile fail at once with the last error, so that an unreachable server
//! holds up nobody else's work.

mod mysql;
mod pool;
mod postgres;
mod tls;

use crate::rt::channel::{self, Replier};
use pool::Pools;
use ringfence_node::{SideResult, SqlAsk};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Job = (SqlAsk, Replier<SideResult>);

/// Runs the statements and answers what came of it. Asks are bounded by the requests that make them.
pub async fn run(ask: SqlAsk) -> SideResult {
    let (replier, reply) = channel::reply();
    let gone = || SideResult::Failed("the thread of the SQL clients is gone".into());
    match clients() {
        Ok(to) => {
            if to.send((ask, replier)).is_err() {
                return gone();
            }
        }
        Err(why) => return SideResult::Failed(why),
    }
    reply.await.unwrap_or_else(|_| gone())
}

/// The thread of the clients; started at the first ask, ends with the process.
fn clients() -> Result<&'static UnboundedSender<Job>, String> {
    static CLIENTS: OnceLock<Result<UnboundedSender<Job>, String>> = OnceLock::new();
    CLIENTS.get_or_init(start).as_ref().map_err(Clone::clone)
}

fn start() -> Result<UnboundedSender<Job>, String> {
    let (to, jobs) = unbounded_channel::<Job>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| format!("the SQL clients cannot start: {e}"))?;
    std::thread::Builder::new()
        .name("sql".into())
        .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, serve(jobs)))
        .map_err(|e| format!("the SQL clients cannot start: {e}"))?;
    Ok(to)
}

/// Takes asks for as long as there is a process.
async fn serve(mut jobs: UnboundedReceiver<Job>) {
    let pools = Rc::new(Pools::default());
    while let Some((ask, replier)) = jobs.recv().await {
        let pools = pools.clone();
        tokio::task::spawn_local(async move {
            let limit = Duration::from_millis(ask.timeout_ms.into());
            let result = match tokio::time::timeout(limit, pools.run(ask)).await {
                Ok(Ok(())) => SideResult::Json(serde_json::Value::Null),
                Ok(Err(why)) => SideResult::Failed(why),
                Err(_) => SideResult::Failed("the database did not answer in time".into()),
            };
            // the request may have been given up meanwhile
            let _ = replier.send(result);
        });
    }
}
