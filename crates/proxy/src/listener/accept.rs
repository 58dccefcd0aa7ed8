//! From an accepted socket to the filters that serve it: original destination,
//! hand-off, listener filters, chain, TLS, network filters.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::config::http_connection_manager::Codec;
use lateen_proxy_core::config::istio::IstioStats;
use lateen_proxy_core::config::listener::ListenerFilterKind;
use lateen_proxy_core::config::{FilterChain, NetworkFilter};
use lateen_proxy_core::filter_chain;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::overload::Action;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::ListenerState;
use super::inspect::{self, Inspected};
use super::last::{self, Last};
use super::limits::{Admitted, Full};
use super::secure;
use crate::conn::Connection;
use crate::engine;
use crate::http::record::now_ns;
use crate::http::{server1, server2};
use crate::io::{Buf, Io, Timer, timer};
use crate::logger;
use crate::stats::rare::{HelloEvent, HttpEvent, ListenerEvent};
use crate::stats::{HttpStats, ListenerStats};
use crate::tcp;
use crate::worker::{Arrival, Worker};

/// Accepts connections of one socket until `stop` says for whom the last ones are, or that nobody
/// wants them.
pub(super) async fn accept_loop(
    worker: Rc<Worker>,
    address: SocketAddr,
    socket: TcpListener,
    mut stop: oneshot::Receiver<Last>,
) {
    let timer = Timer::new();
    let last = loop {
        let accepted = tokio::select! {
            biased;
            last = &mut stop => break last,
            accepted = poll_fn(|cx| {
                if worker.gate.poll_open(cx).is_pending() && !is_exempt(&worker, address) {
                    return Poll::Pending;
                }
                socket.poll_accept(cx)
            }) => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Some(listener) = worker.listeners.at(address) {
                    take(&worker, listener, stream);
                }
            }
            Err(error) => {
                // Out of descriptors or the like: a moment later may be better.
                tracing::warn!(target: logger::CONN_HANDLER, %address, %error, "accept");
                timer.sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let Ok((listener, _arrival)) = last else {
        return;
    };
    let backlog = engine::backlog(&listener.config) as usize;
    let taken = |stream| take(&worker, listener.clone(), stream);
    last::calls(socket, address, backlog, taken).await;
}

/// Whether a listener goes on to accept whatever the overload manager says.
fn is_exempt(worker: &Worker, address: SocketAddr) -> bool {
    let listener = worker.listeners.at(address);
    listener.is_some_and(|listener| listener.config.bypass_overload)
}

/// Whether the overload manager turns a new connection away.
fn is_shed(worker: &Worker, listener: &ListenerState) -> bool {
    worker.may_shed()
        && !listener.config.bypass_overload
        && (worker.sheds(Action::RejectIncomingConnections) || worker.sheds(Action::AtAccept))
}

/// Serves an accepted connection, where no limit is reached.
fn take(worker: &Rc<Worker>, listener: Rc<ListenerState>, stream: TcpStream) {
    match worker.options.limits.admit(&listener.config) {
        Ok(_) if is_shed(worker, &listener) => {
            let stats = worker.stats.listener(&listener.config.stat_prefix);
            let events = &stats.events;
            events.inc(ListenerEvent::downstream_cx_overload_reject);
        }
        Ok(admitted) => {
            let arrival = worker.arrival();
            spawn_local(serve(arrival, listener, (stream, admitted)));
        }
        Err(full) => refuse(worker, &listener, full),
    }
}

/// Counts a connection that a limit keeps out; it is closed without a word.
fn refuse(worker: &Worker, listener: &ListenerState, full: Full) {
    let stats = worker.stats.listener(&listener.config.stat_prefix);
    let cells = &stats.cells;
    match full {
        Full::Global => cells.downstream_global_cx_overflow.inc(),
        Full::Listener => cells.downstream_cx_overflow.inc(),
    }
    tracing::debug!(target: logger::CONN_HANDLER, listener = %listener.config.name, ?full, "connection limit reached");
}

/// Where the client meant to go, before redirection.
fn original_destination(io: &Io) -> Option<SocketAddr> {
    let found = io.tcp_socket(|stream| {
        let socket = socket2::SockRef::from(stream);
        let v4 = io.local.is_ipv4() || io.local.ip().to_canonical().is_ipv4();
        let found = if v4 {
            socket.original_dst_v4()
        } else {
            socket.original_dst_v6()
        };
        found.ok().and_then(|a| a.as_socket())
    });
    found.flatten()
}

async fn serve(
    arrival: Arrival,
    listener: Rc<ListenerState>,
    (stream, admitted): (TcpStream, Admitted),
) {
    let worker = arrival.worker().clone();
    let accepted_ns = now_ns();
    let io = Io::tcp(stream);
    let (listener, local) = hand_off(&worker, listener, &io);
    let stats = worker.stats.listener(&listener.config.stat_prefix);
    let early = Early::new(stats.clone());
    let cells = &stats.cells;
    let inspected = match inspect::run(&io, &listener.config, local).await {
        Ok(inspected) => inspected,
        Err(stopped) => {
            tracing::debug!(target: logger::FILTER, listener = %listener.config.name, ?stopped, "listener filters");
            match stopped {
                inspect::Stopped::Timeout => cells.downstream_pre_cx_timeout.inc(),
                inspect::Stopped::Closed => cells.downstream_listener_filter_error.inc(),
            }
            let inspected = Inspected::of(&io, local);
            return no_chain(&worker, &listener, io, inspected, accepted_ns, None);
        }
    };
    let inspects = |f: &ListenerFilterKind| matches!(f, ListenerFilterKind::TlsInspector { .. });
    if listener.config.active_filters(local.port()).any(inspects) {
        count_hello(&worker, &inspected);
    }
    let Some(chain) = choose_chain(&listener, &io, &inspected) else {
        cells.no_filter_chain_match.inc();
        let why = Some("filter_chain_not_found");
        return no_chain(&worker, &listener, io, inspected, accepted_ns, why);
    };
    drop(early);
    let open = OpenConnection::new(stats, accepted_ns, admitted);
    let conn = match chain.tls.clone() {
        None => connection(&worker, &listener, chain, io, inspected, accepted_ns),
        Some(tls) => {
            let secure =
                secure::handshake(&worker, &listener, (chain, tls), io, inspected, accepted_ns);
            // A handshake is large and short.
            match Box::pin(secure).await {
                Some(conn) => conn,
                None => return,
            }
        }
    };
    let conn = Rc::new(conn);
    worker.remember(&conn);
    drop(arrival);
    logger::opened(&conn);
    let open = (open, Forget(conn.clone()));
    run_filters(conn, &listener, open).await;
}

/// Counts what the TLS inspector found.
fn count_hello(worker: &Worker, inspected: &Inspected) {
    let events = worker.stats.hello();
    if inspected.transport != "tls" {
        return events.inc(HelloEvent::tls_not_found);
    }
    events.inc(HelloEvent::tls_found);
    events.inc(match inspected.server_name.is_empty() {
        true => HelloEvent::sni_not_found,
        false => HelloEvent::sni_found,
    });
    events.inc(match inspected.protocols.is_empty() {
        true => HelloEvent::alpn_not_found,
        false => HelloEvent::alpn_found,
    });
}

/// Counts a connection whose chain is not chosen yet.
struct Early(Rc<ListenerStats>);

impl Early {
    fn new(stats: Rc<ListenerStats>) -> Self {
        stats
            .events
            .raise(ListenerEvent::downstream_pre_cx_active, 1);
        Self(stats)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        let events = &self.0.events;
        events.raise(ListenerEvent::downstream_pre_cx_active, -1);
    }
}

/// Milliseconds since a moment (nanoseconds since the Unix epoch).
fn ms_since(begun_ns: u64) -> u64 {
    now_ns().saturating_sub(begun_ns) / 1_000_000
}

/// Counts an open connection of a listener, whose chain is chosen.
struct OpenConnection(
    Rc<ListenerStats>,
    u64,
    #[expect(dead_code, reason = "given back on drop")] Admitted,
);

impl OpenConnection {
    fn new(stats: Rc<ListenerStats>, accepted_ns: u64, admitted: Admitted) -> Self {
        stats.cells.downstream_cx_total.inc();
        stats.cells.downstream_cx_active.add(1);
        stats.here.0.inc();
        stats.here.1.add(1);
        Self(stats, accepted_ns, admitted)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.cells.downstream_cx_active.sub(1);
        self.0.cells.downstream_cx_destroy.inc();
        self.0.here.1.sub(1);
        let events = &self.0.events;
        events.record(ListenerEvent::downstream_cx_length_ms, ms_since(self.1));
    }
}

/// Counts an open connection of a connection manager, and its last bytes.
struct OpenHttp {
    stats: Rc<HttpStats>,
    conn: Rc<Connection>,
    /// Which protocol's count it is in.
    of: Option<HttpEvent>,
}

impl OpenHttp {
    fn new(stats: &Rc<HttpStats>, conn: &Rc<Connection>) -> Self {
        stats.cells.downstream_cx_total.inc();
        stats.cells.downstream_cx_active.add(1);
        if conn.io.is_tls() {
            stats.events.inc(HttpEvent::downstream_cx_ssl_total);
            stats.events.raise(HttpEvent::downstream_cx_ssl_active, 1);
        }
        Self {
            stats: stats.clone(),
            conn: conn.clone(),
            of: None,
        }
    }

    /// It speaks this.
    fn speaks(&mut self, is_h2: bool) {
        let of = match is_h2 {
            true => HttpEvent::downstream_cx_http2_active,
            false => HttpEvent::downstream_cx_http1_active,
        };
        self.stats.events.raise(of, 1);
        self.of = Some(of);
    }
}

impl Drop for OpenHttp {
    fn drop(&mut self) {
        let (cells, events) = (&self.stats.cells, &self.stats.events);
        cells.downstream_cx_active.sub(1);
        cells.downstream_cx_destroy.inc();
        self.stats.bytes(&self.conn);
        if let Some(of) = self.of {
            events.raise(of, -1);
        }
        if self.conn.io.is_tls() {
            events.raise(HttpEvent::downstream_cx_ssl_active, -1);
        }
        events.inc(match self.conn.io.ended_by_peer() {
            true => HttpEvent::downstream_cx_destroy_remote,
            false => HttpEvent::downstream_cx_destroy_local,
        });
        if self.conn.broken.get() {
            events.inc(HttpEvent::downstream_cx_destroy_active_rq);
            events.inc(HttpEvent::downstream_cx_destroy_remote_active_rq);
        }
        let lived = ms_since(self.conn.accepted_ns);
        events.record(HttpEvent::downstream_cx_length_ms, lived);
    }
}

/// Takes the connection out of the worker's book however it ends, and logs it
/// where its listener has logs of its own.
struct Forget(Rc<Connection>);

impl Drop for Forget {
    fn drop(&mut self) {
        let conn = &self.0;
        conn.worker.forget(conn.id);
        logger::closed(conn);
        if !conn.listener.access_logs.is_empty() {
            let mut record = tcp::TcpRecord::new(conn.clone());
            record.details = conn.details.get();
            record.flags = conn.flags.get();
            (record.received, record.sent) = conn.io.counts();
            record.end_ns = now_ns();
            conn.worker.close_tcp(&record, &conn.listener.access_logs);
        }
    }
}

/// The listener that serves the connection, and the destination it is for.
fn hand_off(
    worker: &Worker,
    listener: Rc<ListenerState>,
    io: &Io,
) -> (Rc<ListenerState>, SocketAddr) {
    let config = &listener.config;
    let restores = config.use_original_dst
        || config
            .active_filters(io.local.port())
            .any(|f| *f == ListenerFilterKind::OriginalDst);
    if !restores {
        return (listener, io.local);
    }
    let local = match original_destination(io) {
        Some(original) => original,
        // TPROXY keeps the destination as the socket's own address.
        None => return (listener, io.local),
    };
    if !config.use_original_dst || local == io.local {
        return (listener, local);
    }
    match worker.listeners.for_destination(local) {
        Some(target) => (target, local),
        None => (listener, local),
    }
}

fn choose_chain(
    listener: &ListenerState,
    io: &Io,
    inspected: &Inspected,
) -> Option<Arc<FilterChain>> {
    let config = &listener.config;
    let protocols: Vec<&str> = inspected.protocols.iter().map(String::as_str).collect();
    let connection = filter_chain::Connection {
        destination: Some(inspected.local),
        server_name: &inspected.server_name,
        transport_protocol: inspected.transport,
        application_protocols: &protocols,
        direct_source: Some(io.peer),
        source: Some(inspected.remote),
    };
    match config.matcher.select(&config.filter_chains, &connection) {
        Some(index) => config.filter_chains.get(index).cloned(),
        None => config.default_filter_chain.clone(),
    }
}

/// Logs a connection that reaches no chain, and closes it; with a reset where
/// its client sent what nobody will read. `why` = none fits.
fn no_chain(
    worker: &Rc<Worker>,
    listener: &Rc<ListenerState>,
    io: Io,
    inspected: Inspected,
    accepted_ns: u64,
    why: Option<&'static str>,
) {
    let chain = Arc::new(FilterChain {
        name: Default::default(),
        matching: Default::default(),
        tls: None,
        filters: Vec::new(),
        transport_socket_connect_timeout: None,
        metadata: Default::default(),
    });
    if io.has_unread() {
        io.reset_on_close();
    }
    let conn = connection(worker, listener, chain, io, inspected, accepted_ns);
    let mut record = tcp::TcpRecord::new(Rc::new(conn));
    if let Some(why) = why {
        record.flags.set(ResponseFlags::NO_ROUTE_FOUND);
        record.details = why;
    }
    record.end_ns = now_ns();
    worker.close_tcp(&record, &listener.config.access_logs);
}

pub(super) fn connection(
    worker: &Rc<Worker>,
    listener: &Rc<ListenerState>,
    chain: Arc<FilterChain>,
    io: Io,
    inspected: Inspected,
    accepted_ns: u64,
) -> Connection {
    Connection {
        id: worker.connection_id(),
        worker: worker.clone(),
        listener: listener.config.clone(),
        drain: listener.drain_of(&chain),
        chain,
        io: Rc::new(io),
        local: inspected.local,
        remote: inspected.remote,
        source: inspected.source,
        server_name: inspected.server_name,
        alpn: None,
        peer: None,
        shown: None,
        failure: String::new(),
        details: Cell::new(""),
        flags: Cell::new(ResponseFlags::NONE),
        accepted_ns,
        requests: Cell::new(0),
        metered: Cell::new((0, 0)),
        broken: Cell::new(false),
        termination: RefCell::new(None),
        parting: Cell::default(),
        idle: RefCell::new(None),
    }
}

/// Runs the chain's network filters; the terminal one serves the connection, in
/// a task of its own: what a connection holds for its life is no more than its
/// protocol takes, whatever came before. `open` counts it until then.
async fn run_filters(
    conn: Rc<Connection>,
    listener: &Rc<ListenerState>,
    open: impl Sized + 'static,
) {
    let mut telemetry: Option<&Arc<IstioStats>> = None;
    let chain = conn.chain.clone();
    for filter in &chain.filters {
        match filter {
            NetworkFilter::HttpConnectionManager(config) => {
                let http = listener.context(config, &conn.worker.stats);
                let mut open = (open, OpenHttp::new(&http.stats, &conn));
                let Some((first, is_h2)) = first_bytes(&conn, config.codec, &http.stats).await
                else {
                    return;
                };
                if conn.sheds(Action::AtCodec) {
                    let events = &http.stats.events;
                    events.inc(HttpEvent::downstream_rq_overload_close);
                    return conn.end_in_order().await;
                }
                open.1.speaks(is_h2);
                if is_h2 {
                    conn.io.unread_plain(first.data());
                    drop(first);
                    spawn_local(async move {
                        let _open = open;
                        server2::serve(conn, http).await;
                    });
                } else {
                    spawn_local(async move {
                        let _open = open;
                        server1::serve(conn, http, first).await;
                    });
                }
                return;
            }
            NetworkFilter::TcpProxy(config) => {
                let (config, telemetry) = (config.clone(), telemetry.cloned());
                spawn_local(async move {
                    let _open = open;
                    tcp::serve(conn, config, telemetry.as_ref()).await;
                });
                return;
            }
            NetworkFilter::DirectResponse(bytes) => {
                conn.details.set("direct_response");
                let sent = conn.io.write_all(bytes).await;
                if sent.is_ok() {
                    let _ = poll_fn(|cx| conn.io.poll_shutdown(cx)).await;
                }
                return;
            }
            NetworkFilter::Echo => return echo(&conn).await,
            NetworkFilter::IstioStats(filter) => telemetry = Some(filter),
            // Peers exchange metadata over TLS with a protocol name of its own
            // only, which no client of this proxy offers.
            NetworkFilter::MetadataExchange(_) => {}
            NetworkFilter::Rbac(rules) => {
                if !crate::http::access::admits(&conn, rules) {
                    refused(&conn);
                    return conn.end_in_order().await;
                }
            }
        }
    }
}

/// Logs a connection that a network filter refused.
fn refused(conn: &Rc<Connection>) {
    let loggers = conn.chain.filters.iter().find_map(|filter| match filter {
        NetworkFilter::TcpProxy(config) => Some(&config.access_logs),
        NetworkFilter::HttpConnectionManager(config) => Some(&config.access_logs),
        _ => None,
    });
    let Some(loggers) = loggers else { return };
    let mut record = tcp::TcpRecord::new(conn.clone());
    record.end_ns = now_ns();
    conn.worker.close_tcp(&record, loggers);
}

/// Which HTTP is spoken (true = HTTP/2), with what was read to know it. `None` =
/// ended before.
async fn first_bytes(conn: &Connection, codec: Codec, stats: &HttpStats) -> Option<(Buf, bool)> {
    match codec {
        Codec::Http1 => Some((Buf::new(), false)),
        Codec::Http2 => Some((Buf::new(), true)),
        Codec::Auto if conn.alpn.as_deref() == Some(b"h2") => Some((Buf::new(), true)),
        Codec::Auto => preface(conn, stats).await,
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear whether HTTP/2 is spoken. `None` = ended before.
async fn preface(conn: &Connection, stats: &HttpStats) -> Option<(Buf, bool)> {
    let mut buf = Buf::new();
    let timer = Timer::new();
    let NetworkFilter::HttpConnectionManager(config) = conn.chain.filters.last()? else {
        return None;
    };
    let since = timer::now_ms();
    // Pressure may change it meanwhile.
    let watch = || {
        let idle = conn.shortened(ScaledTimeout::ConnectionIdle, config.idle_timeout);
        timer.set(timer::deadline(since, idle));
    };
    watch();
    loop {
        let data = buf.data();
        if data.len() >= PREFACE.len() || (!data.is_empty() && !PREFACE.starts_with(data)) {
            let h2 = data.starts_with(PREFACE);
            return Some((buf, h2));
        }
        let filled = poll_fn(|cx| {
            if conn.poll_over(cx, false).is_ready() {
                return Poll::Ready(Ok(0));
            }
            if conn.worker.may_shed() {
                watch();
            }
            buf.poll_fill(&conn.io, cx)
        });
        match timer.race(filled).await {
            Some(Ok(count)) if count > 0 => {}
            Some(_) => return None,
            None => {
                stats.events.inc(HttpEvent::downstream_cx_idle_timeout);
                return None;
            }
        }
    }
}

async fn echo(conn: &Connection) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(count) = conn.io.read(&mut chunk).await {
        if count == 0 || conn.io.write_all(&chunk[..count]).await.is_err() {
            break;
        }
    }
    let _ = poll_fn(|cx| conn.io.poll_shutdown(cx)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// A connection's task is most of what a connection costs while it idles.
    #[test]
    fn an_idle_connection_is_small() {
        let two = |a, b, ()| server2::serve(a, b);
        let sizes = [
            ("connection", size(serve)),
            ("HTTP/1", size(server1::serve)),
            ("HTTP/2", size(two)),
            ("TCP", size(tcp::serve)),
            ("inspectors", size(inspect::run)),
        ];
        println!("{sizes:?}");
        for ((name, size), most) in sizes.into_iter().zip([1520, 5000, 1800, 1520, 900]) {
            assert!(size <= most, "{name}: {size}");
        }
    }
}
