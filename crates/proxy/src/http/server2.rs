//! HTTP/2 towards clients on the `h2` crate: every stream is a task of its own
//! on the connection's worker.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::convert;
use super::reader::{BodyReader, H2Reader};
use super::record::{Protocol, StreamRecord, now_ns};
use super::responder::Responder;
use super::stream::{Asks, HttpContext, Stream};
use crate::conn::Connection;
use crate::http1::{Reject, RejectKind};
use crate::io::timer::{self, NEVER};
use crate::io::{IoStream, Timer};

/// Streams that may be reset before they are accepted (rapid reset).
const PENDING_RESETS: usize = 50;

/// Serves an HTTP/2 connection until it ends.
pub async fn serve(conn: Rc<Connection>, http: Rc<HttpContext>) {
    http.stats.cells.downstream_cx_http2_total.inc();
    let options = &http.config.http2;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size)
        .header_table_size(options.hpack_table_size)
        .max_header_list_size(http.config.max_request_headers_kb * 1024)
        .max_send_buffer_size(64 * 1024)
        .max_pending_accept_reset_streams(PENDING_RESETS);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    let stream = IoStream(conn.io.clone());
    let mut h2 = match builder.handshake::<_, Bytes>(stream).await {
        Ok(h2) => h2,
        Err(error) => {
            tracing::debug!(%error, "HTTP/2 preface");
            return;
        }
    };
    let timer = Timer::new();
    let active = Rc::new(Cell::new(0_u32));
    let idle = http.config.idle_timeout.filter(|d: &Duration| !d.is_zero());
    let oldest = http.config.max_connection_duration;
    let until = timer::deadline(timer::now_ms(), oldest.filter(|d| !d.is_zero()));
    let watch = || timer.set(timer::deadline(timer::now_ms(), idle).min(until));
    watch();
    let mut served = 0_u32;
    let mut leaving = false;
    loop {
        let accepted = poll_fn(|cx| {
            if let Poll::Ready(next) = h2.poll_accept(cx) {
                return Poll::Ready(Event::Stream(next));
            }
            if !leaving && conn.poll_over(cx).is_ready() {
                return Poll::Ready(Event::Leave);
            }
            match timer.poll(cx) {
                Poll::Ready(()) if active.get() == 0 || timer::now_ms() >= until => {
                    Poll::Ready(Event::Leave)
                }
                Poll::Ready(()) => {
                    watch();
                    // Registers for the new deadline.
                    let _ = timer.poll(cx);
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match accepted {
            Event::Stream(Some(Ok((request, mut respond)))) => {
                if request.headers().len() > http.config.max_headers_count as usize {
                    respond.send_reset(h2::Reason::INTERNAL_ERROR);
                    continue;
                }
                let (parts, body) = request.into_parts();
                if convert::is_malformed(&parts) {
                    respond.send_reset(h2::Reason::PROTOCOL_ERROR);
                    continue;
                }
                let request = http::Request::from_parts(parts, body);
                served += 1;
                if !leaving {
                    watch();
                }
                let most = http.config.max_requests_per_connection;
                if most.is_some_and(|most| served >= most) {
                    h2.graceful_shutdown();
                }
                let counted = Counted::new(&active);
                let (conn, http) = (conn.clone(), http.clone());
                tokio::task::spawn_local(serve_stream(conn, http, request, respond, counted));
            }
            Event::Stream(Some(Err(error))) => {
                tracing::debug!(%error, "HTTP/2 connection");
                return;
            }
            Event::Stream(None) => return,
            Event::Leave => {
                leaving = true;
                timer.set(NEVER);
                h2.graceful_shutdown();
            }
        }
    }
}

/// A request with the way to answer it.
type Accepted = (
    http::Request<h2::RecvStream>,
    h2::server::SendResponse<Bytes>,
);

#[expect(
    clippy::large_enum_variant,
    reason = "lives for one turn of a loop, on the stack"
)]
enum Event {
    Stream(Option<Result<Accepted, h2::Error>>),
    Leave,
}

/// One stream in flight on a connection.
struct Counted(Rc<Cell<u32>>);

impl Counted {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn serve_stream(
    conn: Rc<Connection>,
    http: Rc<HttpContext>,
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
    _counted: Counted,
) {
    let mut record = StreamRecord::new(conn.clone());
    let (parts, body) = request.into_parts();
    let named = convert::from_request(&parts, &mut record.request);
    record.begin(Protocol::Http2, now_ns());
    http.stats.cells.downstream_rq_active.add(1);
    let refused = (!named).then_some(Reject {
        status: 400,
        details: "missing_host_header",
        kind: RejectKind::Request,
    });
    let asks = Asks {
        refused,
        ..Asks::default()
    };
    let timer = Timer::new();
    let mut out = Responder::H2(respond);
    let body = BodyReader::H2(H2Reader::new(body));
    Stream::new(&http, &mut record, &timer)
        .serve(body, &mut out, asks)
        .await;
    conn.worker.close_stream(&record, &http);
}
