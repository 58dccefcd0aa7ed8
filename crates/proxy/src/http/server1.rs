//! HTTP/1 towards clients: requests one after another on a connection, each
//! begun when its head is whole and followed only when its answer is out.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use lateen_proxy_core::flags::ResponseFlags;

use super::local::LocalReply;
use super::reader::{BodyReader, H1Reader};
use super::record::{Protocol, StreamRecord, now_ns};
use super::responder::Responder;
use super::stream::{Asks, HttpContext, Stream};
use super::writer::H1Writer;
use crate::conn::Connection;
use crate::http1::{Limits, Reject, RejectKind, RequestHead, parse_request, reason};
use crate::io::timer::{self, NEVER};
use crate::io::{Buf, Timer};

/// What came instead of or as the next request.
enum Next {
    Request(RequestHead),
    Refused(Reject),
    HeadTimeout,
    /// The client left in the middle of a head.
    Gone,
    End,
}

/// The state of one HTTP/1 connection.
struct Server {
    conn: Rc<Connection>,
    http: Rc<HttpContext>,
    limits: Limits,
    reader: H1Reader,
    writer: H1Writer,
    record: StreamRecord,
    timer: Timer,
    served: u32,
    /// When the connection is as old as it may get (ms).
    until: u64,
}

/// Serves an HTTP/1 connection until it ends. `first` is what was read of it.
pub async fn serve(conn: Rc<Connection>, http: Rc<HttpContext>, first: Buf) {
    http.stats.cells.downstream_cx_http1_total.inc();
    let config = &http.config;
    let limits = Limits {
        head_bytes: config.max_request_headers_kb as usize * 1024,
        headers: config.max_headers_count as usize,
        accept_http_10: config.http1.accept_http_10,
        allow_chunked_length: config.http1.allow_chunked_length,
    };
    let oldest = config.max_connection_duration.filter(|d| !d.is_zero());
    let until = timer::deadline(timer::now_ms(), oldest);
    let mut reader = H1Reader::default();
    reader.buf = first;
    let mut server = Server {
        record: StreamRecord::new(conn.clone()),
        conn,
        http,
        limits,
        reader,
        writer: H1Writer::default(),
        timer: Timer::new(),
        served: 0,
        until,
    };
    while server.serve_next().await {}
    server.close().await;
}

impl Server {
    /// Serves one request. False when the connection ends.
    async fn serve_next(&mut self) -> bool {
        let (next, start_ns) = self.next_head().await;
        match next {
            Next::End => false,
            Next::Gone => {
                self.record.request.clear();
                self.record.begin(Protocol::Http11, start_ns);
                self.http.stats.cells.downstream_rq_active.add(1);
                self.record.client_gone();
                self.record.times.end = now_ns();
                self.conn.worker.close_stream(&self.record, &self.http);
                false
            }
            Next::Request(head) => {
                self.served += 1;
                self.serve_request(&head, start_ns).await
            }
            Next::Refused(reject) => {
                let text = match reject.kind {
                    RejectKind::Codec => reason(reject.status),
                    RejectKind::Request => "",
                };
                let mut reply = LocalReply::new(reject.status, text, reject.details);
                if reject.kind == RejectKind::Codec {
                    // What was read of it is not a request: the log shows none.
                    self.record.request.clear();
                    reply = reply.flag(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                }
                self.refuse(reply, start_ns).await
            }
            Next::HeadTimeout => {
                let situation = lateen_proxy_core::local_reply::Situation::HEADERS_INCOMPLETE;
                self.refuse(situation.into(), start_ns).await
            }
        }
    }

    /// Waits for the next head. The second value is when its first byte was
    /// seen, in nanoseconds since the Unix epoch.
    async fn next_head(&mut self) -> (Next, u64) {
        let Self {
            conn,
            http,
            limits,
            reader,
            record,
            timer,
            until,
            ..
        } = self;
        let config = &http.config;
        let positive = |d: &Duration| !d.is_zero();
        let idle = timer::deadline(timer::now_ms(), config.idle_timeout.filter(positive));
        timer.set(idle.min(*until));
        record.request.clear();
        let (mut seen, mut start_ns) = (0, 0);
        let next = poll_fn(|cx| {
            loop {
                let data = reader.buf.data();
                if data.len() > seen {
                    if start_ns == 0 {
                        start_ns = now_ns();
                        let limit = config.request_headers_timeout.filter(positive);
                        if limit.is_some() {
                            timer.set(timer::deadline(timer::now_ms(), limit));
                        }
                    }
                    match parse_request(data, seen, limits, &mut record.request) {
                        Ok(Some(head)) => return Poll::Ready(Next::Request(head)),
                        Ok(None) => seen = data.len(),
                        Err(reject) => return Poll::Ready(Next::Refused(reject)),
                    }
                }
                match reader.buf.poll_fill(&conn.io, cx) {
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) if seen > 0 => return Poll::Ready(Next::Gone),
                    Poll::Ready(_) => return Poll::Ready(Next::End),
                    Poll::Pending => break,
                }
            }
            if seen == 0 && conn.poll_over(cx).is_ready() {
                return Poll::Ready(Next::End);
            }
            timer.poll(cx).map(|()| match seen {
                0 => Next::End,
                _ if config.request_headers_timeout.is_some() => Next::HeadTimeout,
                _ => Next::End,
            })
        })
        .await;
        timer.set(NEVER);
        if let Next::Request(head) = &next {
            reader.buf.consume(head.consumed);
            reader.begin(head.framing);
        }
        (next, start_ns)
    }

    async fn serve_request(&mut self, head: &RequestHead, start_ns: u64) -> bool {
        let protocol = if head.http_10 {
            Protocol::Http10
        } else {
            Protocol::Http11
        };
        self.record.begin(protocol, start_ns);
        self.http.stats.cells.downstream_rq_active.add(1);
        let most = self.http.config.max_requests_per_connection;
        let last = most.is_some_and(|most| self.served >= most) || timer::now_ms() >= self.until;
        if head.http_10 && !self.record.request.has_authority() {
            let host = self.http.config.http1.default_host_for_http_10.clone();
            if !host.is_empty() {
                self.record.request.set_authority(host.as_bytes());
            }
        }
        let asks = Asks {
            upgrade: head.upgrade,
            expect_continue: head.expect_continue,
            refused: head.refused.filter(|r| {
                r.details != "missing_host_header" || !self.record.request.has_authority()
            }),
        };
        let mut out = Responder::H1 {
            io: &self.conn.io,
            writer: &mut self.writer,
            http_10: head.http_10,
            to_head: self.record.request.method() == b"HEAD",
            close: !head.keep_alive || last,
        };
        let body = BodyReader::H1(&self.conn.io, &mut self.reader);
        Stream::new(&self.http, &mut self.record, &self.timer)
            .serve(body, &mut out, asks)
            .await;
        let keep = !out.closes();
        self.conn.worker.close_stream(&self.record, &self.http);
        let (received, sent) = self.conn.io.counts();
        // What was read ahead is the next request's.
        let ahead = self.reader.buf.len() as u64;
        self.record.wire_before = (received.saturating_sub(ahead), sent);
        keep
    }

    /// Answers what is not a request; the connection ends.
    async fn refuse(&mut self, reply: LocalReply<'_>, start_ns: u64) -> bool {
        self.record.begin(Protocol::Http11, start_ns);
        self.http.stats.cells.downstream_rq_active.add(1);
        let mut out = Responder::H1 {
            io: &self.conn.io,
            writer: &mut self.writer,
            http_10: false,
            to_head: false,
            close: true,
        };
        Stream::new(&self.http, &mut self.record, &self.timer)
            .reply(&mut out, reply)
            .await;
        self.record.times.end = now_ns();
        self.conn.worker.close_stream(&self.record, &self.http);
        false
    }

    /// Ends the sending side, then reads on for a moment: closing with unread
    /// bytes would reset the connection under the last answer.
    async fn close(mut self) {
        let io = &self.conn.io;
        if poll_fn(|cx| io.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let Some(wait) = self
            .http
            .config
            .delayed_close_timeout
            .filter(|d| !d.is_zero())
        else {
            return;
        };
        self.timer.set(timer::deadline(timer::now_ms(), Some(wait)));
        let buf = &mut self.reader.buf;
        let drained = poll_fn(|cx| {
            loop {
                let held = buf.len();
                buf.consume(held);
                match buf.poll_fill(io, cx) {
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let _ = self.timer.race(drained).await;
    }
}
