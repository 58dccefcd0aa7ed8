//! Opening connections to endpoints: source binding, socket options, TCP,
//! TLS, the HTTP/2 preface; and choosing between an open one and a new one.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lateen_proxy_core::config::address::SocketOption;
use lateen_proxy_core::config::cluster::{
    Cluster, HeaderCase, HealthCheck, TcpKeepalive, UpstreamProtocol,
};
use lateen_proxy_core::config::{Address, BindConfig};
use tokio::net::{TcpSocket, UnixStream};

use super::breaker::{Limited, Pending, Permit};
use super::cluster::ClusterState;
use super::host::{Connected, H1Client, Host, add_one};
use super::http2::{self, H2Stream};
use super::proxy_header::{self, Origin};
use crate::http::record::now_ns;
use crate::io::timer;
use crate::io::{Io, Meters, Timer};
use crate::logger::{CONNECTION, POOL, tells};
use crate::stats::rare::ClusterEvent;
use crate::tls::notes::Notes;
use crate::tls::session::UpstreamSession;
use crate::tls::words;

/// Why no connection was had.
#[derive(Debug)]
pub enum ConnectError {
    /// TCP did not connect.
    Failed(io::Error),
    /// No connection within the cluster's connect timeout.
    Timeout,
    /// The TLS handshake failed; text for logs.
    Tls(String),
    /// A circuit breaker is open.
    Overflow,
    /// The cluster's transport cannot be used (missing secret, bad certificate).
    Transport(String),
}

/// What an HTTP request travels on.
#[derive(Debug)]
pub enum HttpConnection {
    /// One request at a time.
    H1(Box<H1Client>),
    /// One stream of many.
    H2(H2Stream),
}

impl HttpConnection {
    /// Ends with a connection on which nothing was sent; for another request where it is kept.
    pub fn give_back(self, cluster: &ClusterState, host: &Rc<Host>, keeps: bool) {
        match self {
            Self::H1(client) if keeps => {
                cluster.watch_idle(host);
                host.put_idle(client);
            }
            // A stream of many takes its place with it.
            Self::H1(_) | Self::H2(_) => host.connection_closed(),
        }
    }
}

/// The client's address as the source of a connection to an endpoint, in place
/// of what the cluster binds (TPROXY). Takes CAP_NET_ADMIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalSource {
    /// The client's address; the port is the kernel's choice.
    pub ip: IpAddr,
    /// SO_MARK of the socket, by which the answers find their way back; 0 = none.
    pub mark: u32,
}

/// What a new connection needs to know of the request that asks for it.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// What it is for; a connection of one client serves no other.
    pub origin: Origin,
    /// Downstream speaks HTTP/2 (of meaning for `use_downstream_protocol`).
    pub downstream_h2: bool,
    /// The request's authority, for clusters that send it as SNI.
    pub authority: Vec<u8>,
    /// Protocols to offer by ALPN where the TLS context names none.
    pub alpn: &'static [&'static str],
    /// A connection of its own that is not to speak HTTP.
    pub raw: bool,
}

impl ConnectOptions {
    /// For a connection that must speak these.
    fn speaking(&self, alpn: &'static [&'static str]) -> Self {
        Self {
            alpn,
            ..self.clone()
        }
    }
}

/// Finds or opens a connection to `host` for one HTTP request. `reused` in the
/// answer tells whether it served requests before.
pub async fn http(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    priority: usize,
    options: &ConnectOptions,
) -> Result<(HttpConnection, bool), ConnectError> {
    if options.raw {
        return Box::pin(raw(cluster, host, priority, options)).await;
    }
    if let Some(connection) = at_once(cluster, host, options) {
        return Ok((connection, true));
    }
    if tells!(POOL) {
        let (cluster, host) = (&cluster.config.name, &host.text);
        tracing::debug!(target: POOL, "no connection to {host} of cluster {cluster} is free: another one");
    }
    // Rare, and large: it must not be part of every connection's task.
    Box::pin(open_http(cluster, host, priority, options)).await
}

/// A connection that is open and free for what [`http`] would be asked for.
pub fn at_once(
    cluster: &ClusterState,
    host: &Host,
    options: &ConnectOptions,
) -> Option<HttpConnection> {
    if options.raw {
        return None;
    }
    let (one, two) = match cluster.config.http.protocol {
        UpstreamProtocol::Http1 => (true, false),
        UpstreamProtocol::Http2 => (false, true),
        UpstreamProtocol::UseDownstream => (!options.downstream_h2, options.downstream_h2),
        UpstreamProtocol::Auto => (true, true),
    };
    if two && let Some(client) = host.take_stream(options.origin) {
        return Some(HttpConnection::H2(client.begin()));
    }
    if one && let Some(client) = host.take_idle(options.origin) {
        return Some(HttpConnection::H1(client));
    }
    None
}

async fn open_http(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    priority: usize,
    options: &ConnectOptions,
) -> Result<(HttpConnection, bool), ConnectError> {
    match cluster.config.http.protocol {
        UpstreamProtocol::Http1 => h1(cluster, host, priority, options).await,
        UpstreamProtocol::Http2 => h2(cluster, host, priority, options).await,
        UpstreamProtocol::UseDownstream if options.downstream_h2 => {
            h2(cluster, host, priority, options).await
        }
        UpstreamProtocol::UseDownstream | UpstreamProtocol::Auto => {
            h1(cluster, host, priority, options).await
        }
    }
}

async fn h1(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    priority: usize,
    options: &ConnectOptions,
) -> Result<(HttpConnection, bool), ConnectError> {
    let _pending = pending(cluster, priority)?;
    let permit = loop {
        if let Some(permit) = permit_or_room(cluster, host, priority) {
            break permit;
        }
        if let Some(client) = wait_for_idle(host, options.origin).await? {
            return Ok((HttpConnection::H1(client), true));
        }
    };
    let connected = Connected::new(host, &cluster.stats, permit);
    let alpn: &[&str] = match cluster.config.http.protocol {
        UpstreamProtocol::Auto => &["h2", "http/1.1"],
        _ => &["http/1.1"],
    };
    // As in Envoy, counted when it is begun where its protocol is known.
    let auto = cluster.config.http.protocol == UpstreamProtocol::Auto;
    if !auto {
        cluster.stats.cells.upstream_cx_http1_total.inc();
    }
    let io = open(cluster, host, &options.speaking(alpn)).await?;
    let case = cluster.config.http.http1.header_case;
    let client = Box::new(H1Client::new(io, options.origin, connected, case));
    if auto && speaks_h2(&client.io) {
        let H1Parts { io, connected } = client.into_parts();
        let client = http2::start(cluster, host, io, options.origin, connected);
        return Ok((HttpConnection::H2(client.begin()), false));
    }
    if auto {
        cluster.stats.cells.upstream_cx_http1_total.inc();
    }
    Ok((HttpConnection::H1(client), false))
}

/// A connection of its own for bytes that are no HTTP.
async fn raw(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    priority: usize,
    options: &ConnectOptions,
) -> Result<(HttpConnection, bool), ConnectError> {
    let _pending = pending(cluster, priority)?;
    let Some(permit) = connection_permit(cluster, host, priority) else {
        cluster.stats.cells.upstream_cx_overflow.inc();
        return Err(ConnectError::Overflow);
    };
    let connected = Connected::new(host, &cluster.stats, permit);
    let io = open(cluster, host, options).await?;
    let client = Box::new(H1Client::new(
        io,
        options.origin,
        connected,
        HeaderCase::Lower,
    ));
    Ok((HttpConnection::H1(client), false))
}

/// A host's first connection in a worker is always allowed.
fn connection_permit(cluster: &ClusterState, host: &Host, priority: usize) -> Option<Permit> {
    match cluster.permit(priority, Limited::Connections) {
        Some(permit) => Some(permit),
        None if host.connections.get() == 0 => Some(Permit::force(
            &cluster.in_flight[priority],
            &cluster.config.circuit_breakers[priority],
            Limited::Connections,
        )),
        None => {
            cluster.stats.cells.upstream_cx_overflow.inc();
            None
        }
    }
}

/// A permit for a connection; one that idles for another client gives way.
fn permit_or_room(cluster: &ClusterState, host: &Host, priority: usize) -> Option<Permit> {
    let permit = connection_permit(cluster, host, priority);
    permit.or_else(|| {
        host.close_idle()
            .then(|| connection_permit(cluster, host, priority))
            .flatten()
    })
}

/// Counts a request that waits for a connection.
fn pending(cluster: &Rc<ClusterState>, priority: usize) -> Result<Pending, ConnectError> {
    let permit = cluster.permit(priority, Limited::Pending);
    let permit = permit.ok_or(ConnectError::Overflow)?;
    Ok(Pending::new(permit, &cluster.stats))
}

/// Waits for a connection that its request gives back. `None` = one idles for
/// another client.
async fn wait_for_idle(host: &Host, origin: Origin) -> Result<Option<Box<H1Client>>, ConnectError> {
    poll_fn(|cx| match host.take_idle(origin) {
        Some(client) => Poll::Ready(Ok(Some(client))),
        None if host.pooled().0 > 0 => Poll::Ready(Ok(None)),
        // The connections died instead of idling: the request must not wait
        // for ever; it is refused like any other overflow.
        None if host.connections.get() == 0 => Poll::Ready(Err(ConnectError::Overflow)),
        None => {
            host.waiting.borrow_mut().insert(0, cx.waker().clone());
            Poll::Pending
        }
    })
    .await
}

async fn h2(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    priority: usize,
    options: &ConnectOptions,
) -> Result<(HttpConnection, bool), ConnectError> {
    let mut waits = None;
    loop {
        if let Some(client) = host.take_stream(options.origin) {
            return Ok((HttpConnection::H2(client.begin()), true));
        }
        if waits.is_none() {
            waits = Some(pending(cluster, priority)?);
        }
        if !host.opening.get() {
            break;
        }
        // Someone opens one already: share it.
        let mut first = true;
        poll_fn(|cx| {
            if !std::mem::take(&mut first) {
                return Poll::Ready(());
            }
            host.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
    let Some(permit) = connection_permit(cluster, host, priority) else {
        return Err(ConnectError::Overflow);
    };
    let opening = Opening::begin(host);
    let connected = Connected::new(host, &cluster.stats, permit);
    let io = open(cluster, host, &options.speaking(&["h2"])).await?;
    let client = http2::start(cluster, host, io, options.origin, connected);
    drop(opening);
    Ok((HttpConnection::H2(client.begin()), false))
}

/// Tells those who wait that the opening ended, however it did.
struct Opening<'a>(&'a Rc<Host>);

impl<'a> Opening<'a> {
    fn begin(host: &'a Rc<Host>) -> Self {
        host.opening.set(true);
        Self(host)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.wake_all();
    }
}

fn speaks_h2(io: &Io) -> bool {
    io.tls(|tls| tls.alpn_protocol() == Some(b"h2")) == Some(true)
}

/// What an HTTP/1 client is taken apart into when ALPN chose HTTP/2.
pub(super) struct H1Parts {
    pub(super) io: Io,
    pub(super) connected: Connected,
}

/// Opens a connection, TLS included, within the connect timeout.
pub async fn open(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    options: &ConnectOptions,
) -> Result<Io, ConnectError> {
    if let Some(health) = &cluster.health {
        health.use_it();
    }
    let timer = Timer::new();
    let now = timer::now_ms();
    timer.set(timer::deadline(now, Some(cluster.config.connect_timeout)));
    let outcome = match cluster.client_tls(host, options) {
        // Large: it must not be part of every connection's task.
        Ok(tls) => {
            let target = Target::of(host);
            let opening = open_now(cluster, &target, options.origin, tls, true);
            timer.race(Box::pin(opening)).await
        }
        Err(text) => Some(Err(ConnectError::Transport(text))),
    };
    let cells = &cluster.stats.cells;
    if !matches!(outcome, Some(Ok(_))) {
        add_one(&host.counts.connect_failures);
        // Whoever opens a connection waits for it.
        cells.upstream_rq_pending_failure_eject.inc();
    }
    if tells!(CONNECTION) {
        say_opened(cluster, host, outcome.as_ref());
    }
    match outcome {
        Some(Ok(io)) => {
            let took = timer::now_ms().saturating_sub(now);
            cells.upstream_cx_connect_ms.record(took);
            Ok(io)
        }
        Some(Err(error)) => {
            cells.upstream_cx_connect_fail.inc();
            Err(error)
        }
        None => {
            cells.upstream_cx_connect_fail.inc();
            cells.upstream_cx_connect_timeout.inc();
            Err(ConnectError::Timeout)
        }
    }
}

fn say_opened(cluster: &ClusterState, host: &Host, outcome: Option<&Result<Io, ConnectError>>) {
    let (cluster, host) = (&cluster.config.name, &host.text);
    let failure = match outcome {
        Some(Ok(io)) => {
            let local = io.local;
            tracing::debug!(target: CONNECTION, "connected to {host} of cluster {cluster} from {local}");
            return;
        }
        Some(Err(error)) => failure_details(error),
        None => "connection_timeout".to_owned(),
    };
    let failure = failure.as_bytes().escape_ascii();
    tracing::debug!(target: CONNECTION, "connecting to {host} of cluster {cluster}: {failure}");
}

/// Opens a connection for a health check, which counts in no statistics of the
/// cluster's traffic. It may go to another address than the host's.
pub(super) async fn open_for_check(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    check: &HealthCheck,
) -> Result<Io, ConnectError> {
    let tls = cluster.check_tls(host, check);
    let tls = tls.map_err(ConnectError::Transport)?;
    let own = host.endpoint.check_address();
    let target = Target {
        addr: own.socket(),
        address: &own,
    };
    open_now(cluster, &target, Origin::default(), tls, false).await
}

/// What to connect to.
struct Target<'a> {
    address: &'a Address,
    addr: Option<SocketAddr>,
}

impl<'a> Target<'a> {
    fn of(host: &'a Host) -> Self {
        Self {
            address: &host.endpoint.address,
            addr: host.addr,
        }
    }
}

async fn open_now(
    cluster: &Rc<ClusterState>,
    target: &Target<'_>,
    origin: Origin,
    tls: Option<ClientTls>,
    counted: bool,
) -> Result<Io, ConnectError> {
    // One that was never made was ended by the other side.
    let refused = |error| {
        if counted {
            let events = &cluster.stats.events;
            events.inc(ClusterEvent::upstream_cx_destroy_remote);
            events.record(ClusterEvent::upstream_cx_length_ms, 0);
        }
        ConnectError::Failed(error)
    };
    let io = match target.address {
        Address::Pipe(path) => Io::unix(connect_unix(path).await.map_err(refused)?),
        _ => {
            let addr = target.addr.ok_or_else(|| {
                let text = format!("{} is not an address", target.address);
                ConnectError::Failed(io::Error::new(io::ErrorKind::AddrNotAvailable, text))
            })?;
            let stream = connect_tcp(addr, &cluster.config, origin.source)
                .await
                .map_err(refused)?;
            Io::tcp(stream)
        }
    };
    let io = match counted {
        true => io.metered(Meters::new(&cluster.stats)),
        false => io,
    };
    if let Some(version) = cluster.config.proxy_protocol {
        let own = target.addr.map(|to| (io.local, to));
        let header = proxy_header::header(version, origin.told, own);
        tell(&io, &header).await.map_err(ConnectError::Failed)?;
    }
    let Some((config, name)) = tls else {
        return Ok(io);
    };
    let session = rustls::ClientConnection::new(config, name)
        .map_err(|e| ConnectError::Transport(e.to_string()))?;
    let io = io.with_tls(session.into());
    let mut notes = Notes::default();
    let shaken = poll_fn(|cx| {
        let done = io.poll_handshake(cx);
        // What was noted in this poll is this connection's.
        notes.gather();
        done
    });
    match shaken.await {
        Ok(()) => {
            io.tls(|tls| {
                cluster.stats.tls().shaken(tls);
                if let Some(meters) = io.meters() {
                    meters.secured(UpstreamSession::new(tls, now_ns()));
                }
            });
            Ok(io)
        }
        Err(error) => {
            cluster.stats.tls().failed(&error, notes.refusal.as_ref());
            let text = words::failure(&error, notes.refusal.as_ref());
            Err(ConnectError::Tls(text))
        }
    }
}

/// Writes what comes before all else.
async fn tell(io: &Io, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|cx| io.poll_write(cx, &[IoSlice::new(bytes)])).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
    }
    Ok(())
}

async fn connect_unix(path: &str) -> io::Result<UnixStream> {
    match path.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let addr = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&addr)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
        None => UnixStream::connect(path).await,
    }
}

async fn connect_tcp(
    addr: SocketAddr,
    cluster: &Cluster,
    source: Option<OriginalSource>,
) -> io::Result<tokio::net::TcpStream> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(keepalive) = &cluster.tcp_keepalive {
        set_keepalive(&socket, keepalive)?;
    }
    match (source, &cluster.bind) {
        (Some(source), bind) => {
            let options = bind.as_ref().map_or(&[][..], |b| &b.socket_options);
            bind_original(&socket, addr, source, options)?;
        }
        (None, Some(bind)) => bind_source(&socket, addr, bind)?,
        (None, None) => {}
    }
    socket.connect(addr).await
}

/// Gives the socket the client's address, which is not this machine's.
fn bind_original(
    socket: &TcpSocket,
    target: SocketAddr,
    source: OriginalSource,
    options: &[SocketOption],
) -> io::Result<()> {
    for option in options {
        crate::os::set_socket_option(socket, option)?;
    }
    crate::os::set_transparent(socket, target.is_ipv4())?;
    if source.mark != 0 {
        crate::os::set_mark(socket, source.mark)?;
    }
    crate::os::set_bind_address_no_port(socket)?;
    socket.bind(SocketAddr::new(source.ip, 0))
}

fn set_keepalive(socket: &TcpSocket, config: &TcpKeepalive) -> io::Result<()> {
    let mut keepalive = socket2::TcpKeepalive::new();
    if let Some(seconds) = config.time {
        keepalive = keepalive.with_time(Duration::from_secs(seconds.into()));
    }
    if let Some(seconds) = config.interval {
        keepalive = keepalive.with_interval(Duration::from_secs(seconds.into()));
    }
    if let Some(probes) = config.probes {
        keepalive = keepalive.with_retries(probes);
    }
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

fn bind_source(socket: &TcpSocket, target: SocketAddr, bind: &BindConfig) -> io::Result<()> {
    for option in &bind.socket_options {
        crate::os::set_socket_option(socket, option)?;
    }
    let source = bind
        .source_addresses
        .iter()
        .find(|s| s.is_ipv4() == target.is_ipv4());
    let Some(source) = source else {
        return Ok(());
    };
    if bind.freebind {
        crate::os::set_freebind(socket, target.is_ipv4())?;
    }
    if source.port() == 0 {
        // The port is chosen at connect, so that many connections share it.
        crate::os::set_bind_address_no_port(socket)?;
    }
    socket.bind(*source)
}

/// The text Envoy puts into details for a failed connect.
pub fn failure_details(error: &ConnectError) -> String {
    match error {
        ConnectError::Failed(error) => {
            let text = match error.raw_os_error() {
                Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
                None => error.to_string(),
            };
            format!("delayed_connect_error:_{}", text.replace(' ', "_"))
        }
        ConnectError::Tls(text) => text.clone(),
        ConnectError::Transport(text) => format!("TLS_error:_{}", text.replace(' ', "_")),
        ConnectError::Timeout => String::new(),
        ConnectError::Overflow => String::new(),
    }
}

/// A TLS client configuration with the name to ask for.
pub type ClientTls = (
    Arc<rustls::ClientConfig>,
    rustls_pki_types::ServerName<'static>,
);
