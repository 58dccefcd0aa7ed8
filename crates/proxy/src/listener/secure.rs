//! TLS on an accepted connection: the context for its hello, the handshake, what
//! it leaves on the connection, its statistics and, when it fails, its log line.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::config::{DownstreamTls, FilterChain, Name, NetworkFilter};

use super::ListenerState;
use super::accept::connection;
use super::hello::{self, Found};
use super::inspect::{Inspected, more};
use crate::conn::{Connection, PeerCertificate};
use crate::http::record::now_ns;
use crate::io::{Io, Timer, timer};
use crate::stats::TlsStats;
use crate::tcp;
use crate::tls::notes::{Fault, Notes, Refusal};
use crate::tls::{TlsError, words};
use crate::worker::Worker;

/// How a handshake ended.
enum Shaken {
    Done,
    Failed(std::io::Error),
    Late,
}

/// Puts the chain's TLS on the connection; none = it failed and is logged.
pub(super) async fn handshake(
    worker: &Rc<Worker>,
    listener: &Rc<ListenerState>,
    (chain, context): (Arc<FilterChain>, Arc<DownstreamTls>),
    io: Io,
    inspected: Inspected,
    accepted_ns: u64,
) -> Option<Connection> {
    let timer = Timer::new();
    let mut limit = chain.transport_socket_connect_timeout;
    if worker.may_shed() && !listener.config.bypass_overload {
        limit = limit.map(|l| worker.shortened(ScaledTimeout::TransportConnect, l));
    }
    timer.set(timer::deadline(timer::now_ms(), limit));
    let mut first = First::default();
    if inspected.transport == "tls" {
        first.offered = Some(inspected.protocols.clone());
    } else if timer.race(first.read(&io)).await.is_none() {
        let conn = connection(worker, listener, chain, io, inspected, accepted_ns);
        return refuse(conn, "transport_socket_timeout".to_owned());
    }
    if let Some(why) = first.no_tls.take() {
        let stats = worker.stats.listener_tls(&listener.config.stat_prefix);
        stats.cells.connection_error.inc();
        let conn = connection(worker, listener, chain, io, inspected, accepted_ns);
        return refuse(conn, why);
    }
    let alpn: Option<&[Name]> = first.agrees_on_nothing(&context).then_some(&[]);
    let config = worker.clusters.tls.server(&context, alpn);
    let session = config.and_then(|c| Ok(rustls::ServerConnection::new(c)?));
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!(target: crate::logger::CONFIG, listener = %listener.config.name, %error, "TLS context");
            io.reset_on_close();
            let why = not_ready(&error);
            let conn = connection(worker, listener, chain, io, inspected, accepted_ns);
            return refuse(conn, why);
        }
    };
    let io = io.with_tls(session.into());
    let (shaken, notes) = shake(&io, &timer).await;
    let stats = worker.stats.listener_tls(&listener.config.stat_prefix);
    let mut conn = connection(worker, listener, chain, io, inspected, accepted_ns);
    conn.shown = notes.shown.clone();
    let failure = match shaken {
        Shaken::Done => {
            finish(&mut conn, &stats);
            return Some(conn);
        }
        Shaken::Late => "transport_socket_timeout".to_owned(),
        Shaken::Failed(error) => {
            stats.failed(&error, notes.refusal.as_ref());
            words::failure(&error, notes.refusal.as_ref())
        }
    };
    // A key that is for something else is refused before its owner is known.
    let judged = |r: &Refusal| r.fault != Fault::KeyUsage;
    if let Some(refusal) = notes.refusal.filter(judged) {
        let mut peer = PeerCertificate::of(&refusal.leaf);
        peer.refused = Some(refusal.leaf.into());
        conn.peer = Some(peer);
    }
    refuse(conn, failure)
}

/// Envoy's words for a context that cannot be used yet.
fn not_ready(error: &TlsError) -> String {
    match error {
        TlsError::MissingSecret(_) => "TLS_error:_Secret_is_not_supplied_by_SDS".to_owned(),
        error => format!("TLS_error:_{}", error.to_string().replace(' ', "_")),
    }
}

async fn shake(io: &Io, timer: &Timer) -> (Shaken, Notes) {
    let mut notes = Notes::default();
    let polled = poll_fn(|cx| {
        let done = io.poll_handshake(cx);
        // What was noted in this poll is this connection's.
        notes.gather();
        done
    });
    let shaken = match timer.race(polled).await {
        Some(Ok(())) => Shaken::Done,
        Some(Err(error)) => Shaken::Failed(error),
        None => Shaken::Late,
    };
    (shaken, notes)
}

/// Takes what the session tells.
fn finish(conn: &mut Connection, stats: &TlsStats) {
    let told = conn.io.tls(|tls| {
        stats.shaken(tls);
        let leaf = tls.peer_certificates().and_then(<[_]>::first);
        let alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
        (leaf.map(|der| PeerCertificate::of(der)), alpn)
    });
    if let Some((peer, alpn)) = told {
        conn.peer = peer;
        conn.alpn = alpn;
    }
}

/// Logs a connection that its TLS refused.
fn refuse(mut conn: Connection, failure: String) -> Option<Connection> {
    tracing::debug!(target: crate::logger::CONNECTION, listener = %conn.listener.name, %failure, "TLS handshake");
    conn.failure = failure;
    let conn = Rc::new(conn);
    let mut record = tcp::TcpRecord::new(conn.clone());
    record.end_ns = now_ns();
    for filter in &conn.chain.filters {
        if let NetworkFilter::TcpProxy(proxy) = filter {
            conn.worker.close_tcp(&record, &proxy.access_logs);
        }
    }
    conn.worker.close_tcp(&record, &conn.listener.access_logs);
    None
}

/// What is known of a hello before TLS reads it.
#[derive(Default)]
struct First {
    /// Protocols of the client's ALPN.
    offered: Option<Vec<String>>,
    /// It is no TLS at all: why, for the log.
    no_tls: Option<String>,
}

impl First {
    /// Looks at the hello, which TLS reads again.
    async fn read(&mut self, io: &Io) {
        let mut seen = Vec::new();
        loop {
            match hello::inspect(&seen) {
                Found::More => {}
                Found::Plain => {
                    // A record that is no hello is TLS's to refuse.
                    let tls = seen.starts_with(&[0x16, 3]);
                    self.no_tls = (!tls).then(|| words::no_tls(&seen));
                    break;
                }
                Found::Hello { alpn, .. } => {
                    self.offered = Some(alpn);
                    break;
                }
            }
            if more(io, &mut seen).await.is_err() {
                // The end comes again when TLS reads on.
                break;
            }
        }
        io.unread(&seen);
    }

    /// Whether the client offers protocols of which we speak none: Envoy then
    /// goes on without one, where TLS would end the handshake.
    fn agrees_on_nothing(&self, context: &DownstreamTls) -> bool {
        let ours = &context.common.alpn_protocols;
        self.offered.as_ref().is_some_and(|offered| {
            let known = |p: &String| ours.iter().any(|o| **o == **p);
            !ours.is_empty() && !offered.is_empty() && !offered.iter().any(known)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_common_is_no_failure() {
        let context = |list: &[&str]| {
            let mut context = DownstreamTls::default();
            context.common.alpn_protocols = list.iter().map(|p| (*p).into()).collect();
            context
        };
        let first = |list: &[&str]| First {
            offered: Some(list.iter().map(|p| (*p).to_owned()).collect()),
            no_tls: None,
        };
        assert!(first(&["x"]).agrees_on_nothing(&context(&["h2"])));
        assert!(!first(&["x", "h2"]).agrees_on_nothing(&context(&["h2"])));
        assert!(!first(&["x"]).agrees_on_nothing(&context(&[])));
        assert!(!first(&[]).agrees_on_nothing(&context(&["h2"])));
        assert!(!First::default().agrees_on_nothing(&context(&["h2"])));
    }
}
