//! TLS of the listeners: what a connection is offered, and the stream that hyper speaks over.
//!
//! ```text
//!   hyper ─ plain bytes ─ TlsStream ─ rustls::ServerConnection ─ records ─ rt::Stream
//!                             ^
//!   TlsCell ── the configuration in force, one per listener, shared by all cores, replaced as a whole by reload()
//! ```
//! Driven by the listeners. Knows no HTTP, except for the one answer it gives to a client that speaks HTTP without
//! TLS. Never reads a file outside of [`TlsCell::new`] and [`TlsCell::reload`].

mod settings;
mod stream;
#[cfg(test)]
mod tests;

pub use settings::TlsError;
pub use stream::{HandshakeError, TlsStream};

use crate::config::ListenerTls;
use hyper::rt::{Read, Write};
use rustls::ServerConfig;
use std::sync::{Arc, PoisonError, RwLock};

/// The TLS configuration of a listener. Connections keep the one that they began with.
pub struct TlsCell {
    settings: ListenerTls,
    current: RwLock<Arc<ServerConfig>>,
}

impl TlsCell {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// Which file or setting is of no use, and why.
    pub fn new(settings: ListenerTls) -> Result<TlsCell, TlsError> {
        let current = RwLock::new(settings::server_config(&settings)?);
        Ok(TlsCell { settings, current })
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again (certificates are renewed in place). Small files, but files: give it to a helper thread.
    ///
    /// # Errors
    /// As [`TlsCell::new`]; what was in force stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = settings::server_config(&self.settings)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Shakes hands over a connection. It has no time limit of its own: bound it with [`timeout`](crate::rt::timeout).
    ///
    /// # Errors
    /// The client went away, or its bytes were not those of a client that we accept; it has been told.
    pub async fn accept<S: Read + Write + Unpin>(&self, stream: S) -> Result<TlsStream<S>, HandshakeError> {
        TlsStream::accept(stream, self.current()).await
    }
}

impl std::fmt::Debug for TlsCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsCell").field("settings", &self.settings).finish_non_exhaustive()
    }
}
