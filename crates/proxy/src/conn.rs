//! A downstream connection as everything above the socket sees it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lateen_proxy_core::config::{FilterChain, Listener};

use crate::io::Io;
use crate::upstream::OriginalSource;
use crate::worker::Worker;

/// What the client's certificate says.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificate {
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub hash: String,
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Subject in RFC 2253 form.
    pub subject: String,
}

/// A connection that a client opened.
#[derive(Debug)]
pub struct Connection {
    /// Number within the process.
    pub id: u64,
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// The listener that serves it (after hand-off).
    pub listener: Arc<Listener>,
    /// The chosen chain.
    pub chain: Arc<FilterChain>,
    /// The bytes.
    pub io: Rc<Io>,
    /// Where the client meant to go: the original destination, or our address.
    pub local: SocketAddr,
    /// Who the client is; PROXY protocol may say so.
    pub remote: SocketAddr,
    /// What connections to endpoints on its behalf come from; none = as their
    /// cluster says.
    pub source: Option<OriginalSource>,
    /// SNI, lower-case; empty = none.
    pub server_name: String,
    /// ALPN that was agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The client's certificate.
    pub peer: Option<PeerCertificate>,
    /// Accepted at, nanoseconds since the Unix epoch.
    pub accepted_ns: u64,
    /// Requests served.
    pub requests: Cell<u32>,
    /// The chain is being drained: close when it suits.
    pub drain: Rc<Drain>,
    /// Why the connection was ended here, for the log.
    pub termination: RefCell<Option<String>>,
    /// Who waits for the next request.
    pub idle: RefCell<Option<Waker>>,
}

/// What becomes of the connections of a chain that left the configuration.
#[derive(Debug, Default)]
pub struct Drain {
    /// Answers say that the connection ends.
    pub begun: Cell<bool>,
    /// Idle connections are closed.
    pub over: Cell<bool>,
}

impl Connection {
    /// Whether the connection must end with the current request.
    pub fn must_close(&self) -> bool {
        self.drain.begun.get() || self.worker.draining()
    }

    /// Ready when an idle connection is to end now.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.drain.over.get() || self.worker.closing() {
            return Poll::Ready(());
        }
        let mut idle = self.idle.borrow_mut();
        if !idle.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *idle = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Has the connection look at whether it is to end.
    pub fn wake(&self) {
        if let Some(waker) = self.idle.borrow_mut().take() {
            waker.wake();
        }
    }
}
