//! HTTP/2 connections to endpoints: shared by streams, each driven by a task of
//! its own until it, or the endpoint, is done.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use lateen_proxy_core::config::cluster::Http2Options;

use super::cluster::ClusterState;
use super::host::{Connected, Host};
use super::proxy_header::Origin;
use crate::http::head::Head;
use crate::http::wire::{ReadEnd, StreamHandle, Wire};
use crate::http2::{Role, Session, Settings};
use crate::io::timer::{self, NEVER, now_ms};
use crate::io::{Buf, Io, Meters, Timer};
use crate::tls::session::UpstreamSession;

/// Largest list of header fields of an answer, in bytes: less than over HTTP/1, as in Envoy.
const HEADER_LIST: usize = 60 * 1024;
/// Most header fields of an answer.
const HEADERS: usize = 100;
/// Data of keep-alive PINGs.
const ALIVE: [u8; 8] = *b"alive...";
/// How long the last frames of a connection may take to be sent.
const PARTING: Duration = Duration::from_secs(1);

/// An HTTP/2 connection to an endpoint, shared by streams.
#[derive(Debug)]
pub struct H2Client {
    wire: Rc<Wire>,
    /// Address of our end.
    pub local: SocketAddr,
    /// Streams in flight.
    pub active: Cell<u32>,
    /// Streams begun.
    pub requests: Cell<u32>,
    /// The connection is gone or going.
    pub closed: Cell<bool>,
    /// Why it went, for logs.
    pub reason: RefCell<Option<String>>,
    pub(super) origin: Origin,
    most: u32,
    most_requests: u32,
    pub(super) idle_since: Cell<u64>,
    /// The connection counts until this goes; none = it does not (checks).
    pub(super) connected: Option<Connected>,
    meters: Option<Rc<Meters>>,
}

impl H2Client {
    /// Number of the connection within the process.
    pub fn id(&self) -> u64 {
        self.connected.as_ref().map_or(0, |c| c.id)
    }

    /// Its TLS, where it has any.
    pub fn session(&self) -> Option<Rc<UpstreamSession>> {
        self.meters.as_ref()?.session()
    }

    /// Whether it takes one more stream.
    pub(super) fn has_room(&self) -> bool {
        self.active.get() < self.most
            && self.requests.get() < self.most_requests
            && self.wire.with(|s| s.can_open())
    }

    /// Whether it serves extended CONNECT (RFC 8441). Waits for its settings, but
    /// not longer than for a connection.
    pub async fn serves_connect_protocol(&self, within: Duration) -> bool {
        let timer = Timer::new();
        timer.set(timer::deadline(now_ms(), Some(within)));
        let told = poll_fn(|cx| self.wire.with(|s| s.poll_connect_protocol(cx)));
        timer.race(told).await == Some(true)
    }

    /// A handle to begin one stream with, counted until dropped.
    pub fn begin(self: Rc<Self>) -> H2Stream {
        self.active.set(self.active.get() + 1);
        self.requests.set(self.requests.get() + 1);
        if let Some(meters) = &self.meters {
            meters.begin();
        }
        if self.requests.get() >= self.most_requests {
            self.closed.set(true);
        }
        H2Stream { client: self }
    }
}

impl Drop for H2Client {
    fn drop(&mut self) {
        // Nobody will ask for a stream again.
        self.wire.kick();
    }
}

/// One stream's share of an HTTP/2 connection.
#[derive(Debug)]
pub struct H2Stream {
    /// The connection.
    pub client: Rc<H2Client>,
}

impl H2Stream {
    /// Sends a request's head, with `protocol` as an extended CONNECT. `None` when
    /// the connection takes no more.
    pub fn open(&self, head: &Head, protocol: &[u8], end: bool) -> Option<StreamHandle> {
        let wire = &self.client.wire;
        let slot = wire.act(|s| s.open(head, protocol, end, now_ms()))?;
        Some(StreamHandle::new(wire.clone(), slot))
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        let client = &self.client;
        client.active.set(client.active.get() - 1);
        client.idle_since.set(now_ms());
        if let Some(meters) = client.meters.as_ref().filter(|_| client.active.get() == 0) {
            meters.busy.set(false);
        }
    }
}

/// Speaks HTTP/2 on an open connection and puts it into the host's pool.
pub(super) fn start(
    cluster: &Rc<ClusterState>,
    host: &Rc<Host>,
    io: Io,
    origin: Origin,
    connected: Connected,
) -> Rc<H2Client> {
    let pool = Rc::downgrade(host);
    let client = begin(cluster, pool, io, origin, Some(connected));
    cluster.stats.cells.upstream_cx_http2_total.inc();
    host.put_stream(client.clone());
    cluster.watch_idle(host);
    client
}

/// Speaks HTTP/2 on a connection of a health check, which ends with its client.
pub(super) fn start_for_check(cluster: &ClusterState, io: Io) -> Rc<H2Client> {
    begin(cluster, Weak::new(), io, Origin::default(), None)
}

fn begin(
    cluster: &ClusterState,
    pool: Weak<Host>,
    io: Io,
    origin: Origin,
    connected: Option<Connected>,
) -> Rc<H2Client> {
    let options = &cluster.config.http.http2;
    let wire = Wire::new(Session::new(Role::Client, settings(options)));
    let most_requests = cluster.config.http.max_requests_per_connection;
    let client = Rc::new(H2Client {
        wire: wire.clone(),
        local: io.local,
        active: Cell::new(0),
        requests: Cell::new(0),
        closed: Cell::new(false),
        reason: RefCell::default(),
        origin,
        most: options.max_concurrent_streams,
        most_requests: match connected {
            Some(_) => most_requests.unwrap_or(u32::MAX),
            None => u32::MAX,
        },
        idle_since: Cell::new(now_ms()),
        connected,
        meters: io.meters().cloned(),
    });
    let driver = Driver {
        io,
        wire,
        client: Rc::downgrade(&client),
        pool,
        buf: Buf::new(),
        timer: Timer::new(),
        keepalive: options.keepalive,
        alive_at: NEVER,
        awaits_pong: false,
    };
    tokio::task::spawn_local(driver.run());
    client
}

fn settings(options: &Http2Options) -> Settings {
    Settings {
        header_table: options.hpack_table_size,
        max_streams: options.max_concurrent_streams,
        stream_window: options.initial_stream_window_size,
        connection_window: options.initial_connection_window_size,
        connect_protocol: false,
        header_list: HEADER_LIST,
        headers: HEADERS,
        outbound_frames: options.max_outbound_frames,
        outbound_control: options.max_outbound_control_frames,
        empty_frames: options.max_consecutive_inbound_frames_with_empty_payload,
        priority_frames: options.max_inbound_priority_frames_per_stream,
        window_updates: options.max_inbound_window_update_frames_per_data_frame_sent,
    }
}

/// The task of one connection.
struct Driver {
    io: Io,
    wire: Rc<Wire>,
    client: Weak<H2Client>,
    pool: Weak<Host>,
    buf: Buf,
    timer: Timer,
    keepalive: Option<(Duration, Duration)>,
    /// When the next keep-alive PING is due, or its answer.
    alive_at: u64,
    awaits_pong: bool,
}

impl Driver {
    async fn run(mut self) {
        self.watch_alive();
        let reason = poll_fn(|cx| self.poll(cx)).await;
        if let Some(client) = self.client.upgrade() {
            client.closed.set(true);
            *client.reason.borrow_mut() = reason;
        }
        if let Some(host) = self.pool.upgrade() {
            host.drop_dead();
        }
        self.wire.with(Session::end);
        let (wire, io) = (&self.wire, &self.io);
        self.timer.set(timer::deadline(now_ms(), Some(PARTING)));
        let flush = poll_fn(|cx| {
            wire.begin_turn(cx);
            match wire.poll_write(io, cx) {
                Poll::Ready(Ok(())) => io.poll_shutdown(cx),
                other => other,
            }
        });
        // A server that is gone needs no goodbye.
        let _ = self.timer.race(flush).await;
        self.wire.with(Session::drop_outgoing);
    }

    /// Ready when the connection is over; with why, where it did not end in order.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.wire.begin_turn(cx);
        loop {
            match self.wire.poll_read(&self.io, &mut self.buf, cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ReadEnd::Closed)) => return Poll::Ready(None),
                Poll::Ready(Err(ReadEnd::Error(error))) => {
                    self.wire.with(|s| s.fail(error));
                    return Poll::Ready(Some(error.to_string()));
                }
            }
        }
        let (leaves, idle) = self.wire.with(|s| (s.peer_leaves(), s.live() == 0));
        let client = self.client.upgrade();
        if leaves && let Some(client) = &client {
            client.closed.set(true);
        }
        if idle && (leaves || client.is_none()) {
            self.wire.with(Session::leave_now);
            return Poll::Ready(None);
        }
        if let Some(why) = self.poll_alive(cx) {
            return Poll::Ready(Some(why));
        }
        match self.wire.poll_write(&self.io, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Some(error.to_string())),
            Poll::Ready(Ok(())) => Poll::Pending,
            Poll::Pending => match self.wire.with(|s| s.check()) {
                Ok(()) => Poll::Pending,
                Err(error) => {
                    self.wire.with(|s| s.fail(error));
                    Poll::Ready(Some(error.to_string()))
                }
            },
        }
    }

    fn poll_alive(&mut self, cx: &mut Context<'_>) -> Option<String> {
        let (_, wait) = self.keepalive?;
        if self.wire.with(Session::take_pong) == Some(ALIVE) {
            self.awaits_pong = false;
            self.watch_alive();
        }
        loop {
            self.timer.set(self.alive_at);
            if self.timer.poll(cx).is_pending() {
                return None;
            }
            if self.awaits_pong {
                return Some("http2.keepalive_timeout".to_owned());
            }
            self.wire.with(|s| s.ping(ALIVE));
            self.awaits_pong = true;
            self.alive_at = timer::deadline(now_ms(), Some(wait));
        }
    }

    fn watch_alive(&mut self) {
        let interval = self.keepalive.map(|(interval, _)| interval);
        self.alive_at = timer::deadline(now_ms(), interval);
    }
}
