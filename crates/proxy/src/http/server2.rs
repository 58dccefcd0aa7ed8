//! HTTP/2 towards clients: one task per connection moves its bytes, others serve
//! its streams, all on the connection's worker.

use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::overload::Action;

use super::record::{Protocol, StreamRecord, now_ns};
use super::stream::HttpContext;
use super::stream_tasks::StreamTasks;
use super::wire::{ReadEnd, StreamHandle, Wire};
use crate::conn::{Connection, Parting};
use crate::http2::{ConnectionError, Refusal, Role, Session, Settings};
use crate::io::timer::{self, NEVER};
use crate::io::{Buf, Timer};
use crate::stats::rare::HttpEvent;

/// Data of the PING that finds out whether a client knows that we leave.
const LEAVING: [u8; 8] = *b"leaving.";
/// Data of keep-alive PINGs.
const ALIVE: [u8; 8] = *b"alive...";
/// How long an error's GOAWAY may take to be sent, where nothing is configured.
const PARTING: Duration = Duration::from_secs(1);

/// How long a connection without streams keeps what serving them needs, in ms.
const LINGER: u64 = 2000;

/// The state of one connection.
struct Server {
    conn: Rc<Connection>,
    http: Rc<HttpContext>,
    wire: Rc<Wire>,
    tasks: StreamTasks,
    buf: Buf,
    timer: Timer,
    served: u32,
    /// No stream is served.
    idle: bool,
    /// Ends when it is idle so long (ms of the timer's clock).
    idle_at: u64,
    /// Since when it is idle.
    idle_since: u64,
    /// When it has been idle for [`LINGER`].
    rest_at: u64,
    /// When the connection is as old as it may get.
    until: u64,
    /// When no further stream is served.
    leave_at: u64,
    /// When the next keep-alive PING is due, or its answer.
    alive_at: u64,
    awaits_pong: bool,
    /// Told the client that we leave.
    leaving: bool,
    /// Told it that no further stream is served.
    left: bool,
}

/// How a connection ended.
enum End {
    /// In order, or by the client.
    Closed,
    /// Because of an error, of which the client is told.
    Failed,
}

/// Serves an HTTP/2 connection until it ends.
pub async fn serve(conn: Rc<Connection>, http: Rc<HttpContext>) {
    http.stats.cells.downstream_cx_http2_total.inc();
    let config = &http.config;
    let oldest = config.max_connection_duration.filter(|d| !d.is_zero());
    let mut server = Server {
        wire: Wire::new(Session::new(Role::Server, settings(&http))),
        tasks: StreamTasks::new(conn.clone(), http.clone()),
        buf: Buf::new(),
        timer: Timer::new(),
        served: 0,
        idle: true,
        idle_at: NEVER,
        idle_since: 0,
        rest_at: NEVER,
        until: timer::deadline(timer::now_ms(), oldest),
        leave_at: NEVER,
        alive_at: NEVER,
        awaits_pong: false,
        leaving: false,
        left: false,
        conn,
        http,
    };
    server.watch_idle();
    server.watch_alive();
    let end = poll_fn(|cx| server.poll(cx)).await;
    server.wire.with(Session::end);
    server.close(end).await;
}

/// What the configuration makes of the codec.
fn settings(http: &HttpContext) -> Settings {
    let (config, options) = (&http.config, &http.config.http2);
    Settings {
        header_table: options.hpack_table_size,
        max_streams: options.max_concurrent_streams,
        stream_window: options.initial_stream_window_size,
        connection_window: options.initial_connection_window_size,
        connect_protocol: options.allow_connect,
        header_list: config.max_request_headers_kb as usize * 1024,
        headers: config.max_headers_count as usize,
        outbound_frames: options.max_outbound_frames,
        outbound_control: options.max_outbound_control_frames,
        empty_frames: options.max_consecutive_inbound_frames_with_empty_payload,
        priority_frames: options.max_inbound_priority_frames_per_stream,
        window_updates: options.max_inbound_window_update_frames_per_data_frame_sent,
    }
}

impl Server {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.wire.begin_turn(cx);
        if self.conn.worker.may_shed() && self.sheds(cx) {
            self.leave();
            self.leave_now();
            return Poll::Ready(End::Failed);
        }
        loop {
            match self.wire.poll_read(&self.conn.io, &mut self.buf, cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {
                    if self.conn.worker.may_shed() && self.conn.sheds(Action::AtHttp2) {
                        self.leave();
                    }
                    self.accept();
                }
                Poll::Ready(Err(ReadEnd::Closed)) => return Poll::Ready(End::Closed),
                Poll::Ready(Err(ReadEnd::Error(error))) => {
                    // What came before the error was asked for.
                    self.accept();
                    return Poll::Ready(self.fail(error));
                }
            }
        }
        if let Some(end) = self.poll_life(cx) {
            return Poll::Ready(end);
        }
        match self.wire.poll_write(&self.conn.io, cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(End::Closed),
            Poll::Ready(Ok(())) => {
                if self.left && self.wire.with(|s| s.live()) == 0 {
                    return Poll::Ready(End::Closed);
                }
            }
            Poll::Pending => {
                // The client reads slower than frames come up.
                if let Err(error) = self.wire.with(|s| s.check()) {
                    return Poll::Ready(self.fail(error));
                }
            }
        }
        Poll::Pending
    }

    /// Whether the connection ends before what comes on it is read.
    fn sheds(&self, cx: &mut Context<'_>) -> bool {
        let io = &self.conn.io;
        let comes = io.has_unread() || io.poll_readable(cx).is_ready();
        comes && self.conn.sheds(Action::AtHttp2Ending)
    }

    fn fail(&self, error: ConnectionError) -> End {
        tracing::debug!(target: crate::logger::HTTP2, %error, "HTTP/2 connection");
        let events = &self.http.stats.events;
        events.inc(HttpEvent::downstream_cx_protocol_error);
        if error.details == "too many early resets" {
            let cells = &self.http.stats.cells;
            cells.downstream_rq_too_many_premature_resets.inc();
        }
        self.wire.with(|s| s.fail(error));
        End::Failed
    }

    /// Begins the streams that came.
    fn accept(&mut self) {
        while let Some(accepted) = self.wire.with(Session::next_accepted) {
            self.served += 1;
            self.idle = false;
            self.idle_at = NEVER;
            self.rest_at = NEVER;
            let most = self.http.config.max_requests_per_connection;
            if most.is_some_and(|most| self.served >= most) {
                self.leave();
            }
            let handle = StreamHandle::new(self.wire.clone(), accepted.slot);
            self.tasks.serve(accepted, handle);
        }
        while let Some(refusal) = self.wire.with(Session::next_refused) {
            self.log_refused(refusal);
        }
    }

    /// Closes the record of a request that the codec refused: as in Envoy, it
    /// shows nothing of it but why.
    fn log_refused(&self, refusal: Refusal) {
        let mut record = StreamRecord::new(self.conn.clone());
        record.begin(Protocol::Http2, now_ns());
        record.flags.set(match refusal {
            Refusal::Malformed(_) => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            Refusal::TooLarge(_) => ResponseFlags::DOWNSTREAM_REMOTE_RESET,
        });
        record.details = Cow::Borrowed(refusal.details());
        record.times.end = now_ns();
        let cells = &self.http.stats.cells;
        cells.downstream_rq_total.inc();
        cells.downstream_rq_http2_total.inc();
        cells.downstream_rq_active.add(1);
        self.conn.worker.close_stream(&record, &self.http);
    }

    /// Deadlines, drain and keep-alive.
    fn poll_life(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if !self.left && self.conn.poll_over(cx, false).is_ready() {
            if !self.leaving {
                self.wire.with(|s| s.ping(LEAVING));
            }
            self.leave();
        }
        if self.conn.parting.get() != Parting::No {
            self.leave();
        }
        let pong = self.wire.with(Session::take_pong);
        if pong == Some(ALIVE) {
            self.awaits_pong = false;
            self.watch_alive();
        }
        if pong == Some(LEAVING) && self.leaving {
            // The client has read the first GOAWAY: nothing is on its way.
            self.leave_now();
        }
        if !self.idle && self.wire.with(|s| s.live()) == 0 {
            self.idle = true;
            self.rest_at = timer::now_ms() + LINGER;
            self.watch_idle();
        }
        if self.idle_at != NEVER && self.conn.worker.may_shed() {
            // Pressure may have changed it.
            self.idle_at = self.idle_deadline();
        }
        loop {
            let next = self.idle_at.min(self.until).min(self.leave_at);
            self.timer.set(next.min(self.alive_at).min(self.rest_at));
            if self.timer.poll(cx).is_pending() {
                return None;
            }
            let now = timer::now_ms();
            if now >= self.leave_at {
                self.leave_now();
            }
            if now >= self.rest_at {
                self.rest_at = NEVER;
                self.tasks.rest();
                self.wire.with(Session::rest);
            }
            if now >= self.idle_at.min(self.until) {
                let events = &self.http.stats.events;
                events.inc(match now >= self.until {
                    true => HttpEvent::downstream_cx_max_duration_reached,
                    false => HttpEvent::downstream_cx_idle_timeout,
                });
                self.idle_at = NEVER;
                self.until = NEVER;
                self.leave();
            }
            if now >= self.alive_at {
                if self.awaits_pong {
                    let why = "http2.keepalive_timeout".to_owned();
                    *self.conn.termination.borrow_mut() = Some(why);
                    return Some(End::Closed);
                }
                self.wire.with(|s| s.ping(ALIVE));
                self.awaits_pong = true;
                let wait = self.http.config.http2.keepalive.map(|(_, wait)| wait);
                self.alive_at = timer::deadline(now, wait);
            }
        }
    }

    fn watch_idle(&mut self) {
        if !self.leaving {
            self.idle_since = timer::now_ms();
            self.idle_at = self.idle_deadline();
        }
    }

    fn idle_deadline(&self) -> u64 {
        let (which, idle) = (ScaledTimeout::ConnectionIdle, self.http.config.idle_timeout);
        timer::deadline(self.idle_since, self.conn.shortened(which, idle))
    }

    fn watch_alive(&mut self) {
        let interval = self
            .http
            .config
            .http2
            .keepalive
            .map(|(interval, _)| interval);
        self.alive_at = timer::deadline(timer::now_ms(), interval);
    }

    /// Tells the client that we leave; what it asks until it knows is served.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.wire.with(Session::leave);
            let wait = Some(self.http.config.drain_timeout);
            self.leave_at = timer::deadline(timer::now_ms(), wait);
        }
    }

    fn leave_now(&mut self) {
        self.leave_at = NEVER;
        if !std::mem::replace(&mut self.left, true) {
            self.wire.with(Session::leave_now);
        }
    }

    /// Sends what waits and ends the sending side; after an error of the client
    /// reads on for a moment, so that the GOAWAY is not lost to a reset.
    async fn close(mut self, end: End) {
        let io = &self.conn.io;
        let configured = self.http.config.delayed_close_timeout;
        let wait = configured.filter(|d| !d.is_zero()).unwrap_or(PARTING);
        self.timer.set(timer::deadline(timer::now_ms(), Some(wait)));
        let wire = self.wire.clone();
        let flush = poll_fn(|cx| {
            wire.begin_turn(cx);
            match wire.poll_write(io, cx) {
                Poll::Ready(Ok(())) => io.poll_shutdown(cx),
                other => other,
            }
        });
        let flushed = matches!(self.timer.race(flush).await, Some(Ok(())));
        self.wire.with(Session::drop_outgoing);
        if !flushed || matches!(end, End::Closed) {
            return;
        }
        let buf = &mut self.buf;
        let drained = poll_fn(|cx| {
            loop {
                let held = buf.len();
                buf.consume(held);
                match buf.poll_fill(io, cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let _ = self.timer.race(drained).await;
    }
}
