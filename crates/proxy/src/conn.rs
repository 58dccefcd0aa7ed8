//! A downstream connection as everything above the socket sees it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::config::{Cluster, FilterChain, Listener};
use lateen_proxy_core::drain;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::overload::Action;

use crate::io::{Io, Timer, timer};
use crate::tls::certificate::{Names, sha256_hex};
use crate::upstream::{Origin, OriginalSource};
use crate::worker::{Worker, WorkerOptions};

/// How long a connection that nothing serves is read on before it is closed.
const LINGER: Duration = Duration::from_secs(1);

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
    /// The leaf's DER where it was refused; else the TLS session has it.
    pub refused: Option<Box<[u8]>>,
}

impl PeerCertificate {
    /// Reads a client's leaf.
    pub fn of(der: &[u8]) -> Self {
        let names = Names::of(der);
        Self {
            hash: sha256_hex(der),
            uris: names.uris,
            dns: names.dns,
            subject: names.subject,
            refused: None,
        }
    }
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
    /// Names of the certificate that the client was shown.
    pub shown: Option<Arc<Names>>,
    /// Why the TLS handshake failed; empty = it did not.
    pub failure: String,
    /// What became of the connection where that is not a stream's to say.
    pub details: Cell<&'static str>,
    /// Flags of the connection itself.
    pub flags: Cell<ResponseFlags>,
    /// Accepted at, nanoseconds since the Unix epoch.
    pub accepted_ns: u64,
    /// Requests served.
    pub requests: Cell<u32>,
    /// Bytes received and sent that the statistics have.
    pub metered: Cell<(u64, u64)>,
    /// The client broke it off while it was served.
    pub broken: Cell<bool>,
    /// The chain is being drained: close when it suits.
    pub drain: Rc<Drain>,
    /// Why the connection was ended here, for the log.
    pub termination: RefCell<Option<String>>,
    /// How far its client is asked to go, whatever it asks for.
    pub parting: Cell<Parting>,
    /// Who waits for the next request.
    pub idle: RefCell<Option<Waker>>,
}

/// How far a client is asked to go by a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parting {
    /// Not yet.
    #[default]
    No,
    /// It is: by a GOAWAY, or with the next answer; a connection never used ends.
    Asked,
    /// And had its time: the connection ends as soon as it is idle.
    Over,
}

/// What becomes of the connections of a chain that left the configuration.
#[derive(Debug, Default)]
pub struct Drain {
    /// Since when clients are asked to go, in ms of the timer's clock; none = they are not.
    pub begun: Cell<Option<u64>>,
    /// Idle connections are closed.
    pub over: Cell<bool>,
}

impl Drain {
    /// Asks clients to go since that moment (ms of the timer's clock), where that has not begun.
    pub fn begin(&self, now: u64) {
        self.begun.set(self.begun.get().or(Some(now)));
    }
}

impl Connection {
    /// What a connection to a cluster's endpoint on this one's behalf is for.
    pub fn origin(&self, cluster: &Cluster) -> Origin {
        Origin {
            source: self.source,
            told: cluster.proxy_protocol.map(|_| (self.remote, self.local)),
        }
    }

    /// Runs `look` on the client's leaf certificate, DER.
    pub fn with_leaf<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if let Some(refused) = self.peer.as_ref().and_then(|p| p.refused.as_ref()) {
            return Some(look(refused));
        }
        let found = self.io.tls(|tls| {
            let leaf = tls.peer_certificates().and_then(<[_]>::first);
            leaf.map(|leaf| look(leaf))
        });
        found.flatten()
    }

    /// Where the client meant to go, where that is not this proxy itself: what
    /// was not redirected has no other destination.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        let redirected = self.local != self.io.local || self.listener.transparent;
        redirected.then_some(self.local)
    }

    /// Whether the connection is to end with the current answer. While a drain is gradual this is
    /// drawn: to be asked once for each answer.
    pub fn must_close(&self) -> bool {
        let WorkerOptions {
            drain_strategy,
            drain_time,
            ..
        } = self.worker.options;
        let asks = |elapsed| drain::asks(drain_strategy, elapsed, drain_time, fastrand::u64(..));
        self.parting.get() >= Parting::Asked
            || self.worker.leaving()
            || self.worker.failed() && !self.listener.drains_when_modified_only
            || self.draining().any(asks)
    }

    /// Whether an overload action is taken this time.
    pub fn sheds(&self, action: Action) -> bool {
        self.worker.may_shed() && !self.listener.bypass_overload && self.worker.sheds(action)
    }

    /// What a timeout is under the pressure of now; none or zero = there is none.
    pub fn shortened(&self, which: ScaledTimeout, timeout: Option<Duration>) -> Option<Duration> {
        let timeout = timeout.filter(|d| !d.is_zero())?;
        Some(match self.listener.bypass_overload {
            true => timeout,
            false => self.worker.shortened(which, timeout),
        })
    }

    /// Whether the request that came is turned away.
    pub fn sheds_requests(&self) -> bool {
        self.worker.may_shed()
            && (self.sheds(Action::AtHeaders) || self.sheds(Action::StopAcceptingRequests))
    }

    /// For how long the chain and the worker have drained, as far as they do.
    pub fn draining(&self) -> impl Iterator<Item = Duration> {
        let begun = [self.drain.begun.get(), self.worker.draining()];
        let elapsed = |begun| Duration::from_millis(timer::now_ms().saturating_sub(begun));
        begun.into_iter().flatten().map(elapsed)
    }

    /// Has the client asked to go. False = it was before.
    pub fn ask_to_go(&self) -> bool {
        let first = self.parting.get() == Parting::No;
        if first {
            self.parting.set(Parting::Asked);
            self.wake();
        }
        first
    }

    /// Ready when an idle connection is to end now. A client that was answered moments ago
    /// (`lately`) may have its next request on its way: as the process ends it has a moment more.
    pub fn poll_over(&self, cx: &mut Context<'_>, lately: bool) -> Poll<()> {
        let fresh = self.requests.get() == 0;
        let parted = match self.parting.get() {
            Parting::No => false,
            Parting::Asked => fresh,
            Parting::Over => true,
        };
        if parted || self.drain.over.get() || self.worker.closes(fresh || lately) {
            return Poll::Ready(());
        }
        let mut idle = self.idle.borrow_mut();
        if !idle.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *idle = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends a connection that nothing serves so that its client sees an end and no reset: what it
    /// still sends is read and dropped, as long as [`LINGER`].
    pub async fn end_in_order(&self) {
        let timer = Timer::new();
        timer.set(timer::deadline(timer::now_ms(), Some(LINGER)));
        let drained = async {
            if poll_fn(|cx| self.io.poll_shutdown(cx)).await.is_ok() {
                let mut dropped = vec![0_u8; 512];
                while self.io.read(&mut dropped).await.is_ok_and(|n| n > 0) {}
            }
        };
        // Who goes on sending sees a reset.
        let _ = timer.race(drained).await;
    }

    /// Has the connection look at whether it is to end.
    pub fn wake(&self) {
        if let Some(waker) = self.idle.borrow_mut().take() {
            waker.wake();
        }
    }
}
