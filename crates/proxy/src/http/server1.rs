//! HTTP/1 towards clients: requests one after another on a connection, each
//! begun when its head is whole and followed only when its answer is out.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::overload::Action;

use super::local::LocalReply;
use super::reader::{BodyReader, H1Reader};
use super::record::{Protocol, StreamRecord, now_ns};
use super::responder::Responder;
use super::stream::{Asks, HttpContext, Stream};
use super::writer::H1Writer;
use crate::conn::Connection;
use crate::http1::case;
use crate::http1::{Limits, Reject, RejectKind, RequestHead, parse_request, reason};
use crate::io::timer::{self, NEVER};
use crate::io::{Buf, Timer};
use crate::stats::rare::HttpEvent;

/// How long a connection without a request keeps what serving one needs, in ms:
/// most clients are back sooner, and those that are not cost a fraction then.
const LINGER: u64 = 2000;

/// The answer where the overload manager has no next request read.
const OVERLOADED: Reject = Reject {
    status: 500,
    details: "overload",
    kind: RejectKind::Codec,
};

/// What came instead of or as the next request.
enum Next {
    Request(RequestHead),
    Refused(Reject),
    HeadTimeout,
    /// The client left in the middle of a head.
    Gone,
    /// Nothing for a while: the connection stays, what serves it need not.
    Rest,
    End,
}

/// How the serving of a connection paused.
enum Pause {
    /// Until more comes.
    Rest,
    /// For good.
    End,
}

/// What stays of an HTTP/1 connection between its requests.
struct Kept {
    conn: Rc<Connection>,
    http: Rc<HttpContext>,
    limits: Limits,
    timer: Timer,
    served: u32,
    /// When the connection is as old as it may get (ms).
    until: u64,
    /// Since when it idles (ms).
    idle_since: u64,
    /// When it has idled for long enough to end (ms).
    idle_until: u64,
}

/// An HTTP/1 connection at work.
struct Server<'k> {
    kept: &'k mut Kept,
    reader: H1Reader,
    writer: H1Writer,
    record: StreamRecord,
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
        custom_methods: config.http1.allow_custom_methods,
        absolute_urls: config.http1.allow_absolute_url,
    };
    let oldest = config.max_connection_duration.filter(|d| !d.is_zero());
    let until = timer::deadline(timer::now_ms(), oldest);
    let mut kept = Kept {
        conn,
        http,
        limits,
        timer: Timer::new(),
        served: 0,
        until,
        idle_since: 0,
        idle_until: NEVER,
    };
    let mut first = first;
    loop {
        // A request on its way is several times as large as all that an idle
        // connection needs.
        match Box::pin(Server::new(&mut kept, first).run()).await {
            Pause::End => return,
            Pause::Rest if kept.rest().await => first = Buf::new(),
            Pause::Rest => {
                kept.count_age();
                return Box::pin(Server::new(&mut kept, Buf::new()).close()).await;
            }
        }
    }
}

/// When a connection that idles since that moment (ms) has done so for long enough.
fn idle_deadline(conn: &Connection, http: &HttpContext, since: u64) -> u64 {
    let idle = http.config.idle_timeout;
    timer::deadline(since, conn.shortened(ScaledTimeout::ConnectionIdle, idle))
}

impl Kept {
    /// Counts why a connection without a request ends, where that is its age.
    fn count_age(&self) {
        let now = timer::now_ms();
        let events = &self.http.stats.events;
        if now >= self.until {
            events.inc(HttpEvent::downstream_cx_max_duration_reached);
        } else if now >= self.idle_until {
            events.inc(HttpEvent::downstream_cx_idle_timeout);
        }
    }

    /// Counts a request that never became one.
    fn count_request(&self) {
        let cells = &self.http.stats.cells;
        cells.downstream_rq_total.inc();
        cells.downstream_rq_http1_total.inc();
        cells.downstream_rq_active.add(1);
    }

    /// Waits, with next to nothing in memory, until there is something to read.
    /// False when the connection is to end instead.
    async fn rest(&mut self) -> bool {
        self.conn.worker.rested();
        self.timer.set(self.idle_until.min(self.until));
        let Self {
            conn,
            http,
            timer,
            until,
            idle_since,
            idle_until,
            ..
        } = self;
        let comes = poll_fn(|cx| {
            // What has come is answered. An error is for the read that follows to find.
            if conn.io.poll_readable(cx).is_ready() {
                return Poll::Ready(true);
            }
            if conn.worker.may_shed() {
                *idle_until = idle_deadline(conn, http, *idle_since);
                timer.set((*idle_until).min(*until));
            }
            conn.poll_over(cx, false).map(|()| false)
        });
        let comes = timer.race(comes).await;
        timer.set(NEVER);
        comes.unwrap_or(false)
    }
}

impl<'k> Server<'k> {
    fn new(kept: &'k mut Kept, first: Buf) -> Self {
        let case = kept.http.config.http1.header_case;
        let mut reader = H1Reader::new(case);
        reader.buf = first;
        let mut record = StreamRecord::new(kept.conn.clone());
        if kept.served > 0 {
            record.wire_before = kept.conn.io.counts();
        }
        Self {
            record,
            kept,
            reader,
            writer: H1Writer::new(case),
        }
    }

    /// Serves requests until none comes for a while, or ever.
    async fn run(mut self) -> Pause {
        loop {
            match self.serve_next().await {
                None => {}
                Some(Pause::Rest) => return Pause::Rest,
                Some(Pause::End) => {
                    self.close().await;
                    return Pause::End;
                }
            }
        }
    }

    /// Serves one request, or says why there is none.
    async fn serve_next(&mut self) -> Option<Pause> {
        let (next, start_ns) = self.next_head().await;
        let goes_on = match next {
            Next::Rest => return Some(Pause::Rest),
            Next::End => {
                self.kept.count_age();
                false
            }
            Next::Gone => {
                self.record.request.clear();
                self.record.begin(Protocol::Http11, start_ns);
                self.kept.count_request();
                self.record.client_gone();
                self.finish();
                false
            }
            Next::Request(head) => {
                self.kept.served += 1;
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
                    let events = &self.kept.http.stats.events;
                    events.inc(HttpEvent::downstream_cx_protocol_error);
                    reply = reply.flag(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                }
                self.refuse(reply, start_ns).await
            }
            Next::HeadTimeout => {
                let situation = lateen_proxy_core::local_reply::Situation::HEADERS_INCOMPLETE;
                self.refuse(situation.into(), start_ns).await
            }
        };
        (!goes_on).then_some(Pause::End)
    }

    /// Closes the record of a request that was no stream to its end.
    fn finish(&mut self) {
        self.record.times.end = now_ns();
        let Kept { conn, http, .. } = &*self.kept;
        conn.worker.close_stream(&self.record, http);
    }

    /// Waits for the next head. The second value is when its first byte was
    /// seen, in nanoseconds since the Unix epoch.
    async fn next_head(&mut self) -> (Next, u64) {
        let Self {
            kept,
            reader,
            record,
            ..
        } = self;
        let Kept {
            conn,
            http,
            limits,
            timer,
            until,
            idle_since,
            idle_until,
            ..
        } = &mut **kept;
        let config = &http.config;
        let positive = |d: &Duration| !d.is_zero();
        let now = timer::now_ms();
        *idle_since = now;
        *idle_until = idle_deadline(conn, http, now);
        let mut end = (*idle_until).min(*until);
        timer.set(end.min(now + LINGER));
        record.request.clear();
        let (mut seen, mut start_ns) = (0, 0);
        let next = poll_fn(|cx| {
            loop {
                let data = reader.buf.data();
                if data.len() > seen {
                    let begins = start_ns == 0;
                    if begins {
                        start_ns = now_ns();
                        if conn.sheds(Action::AtHttp1) {
                            let events = &http.stats.events;
                            events.inc(HttpEvent::downstream_rq_overload_close);
                            return Poll::Ready(Next::Refused(OVERLOADED));
                        }
                    }
                    match parse_request(data, seen, limits, &mut record.request) {
                        Ok(Some(head)) => {
                            let names = case::kept(reader.case, &data[..head.consumed]);
                            record.request.set_names(names);
                            return Poll::Ready(Next::Request(head));
                        }
                        Ok(None) => seen = data.len(),
                        Err(reject) => return Poll::Ready(Next::Refused(reject)),
                    }
                    // Half of it is here: the rest has so long.
                    let limit = config.request_headers_timeout.filter(positive);
                    match limit {
                        _ if !begins => {}
                        Some(_) => timer.set(timer::deadline(timer::now_ms(), limit)),
                        None => timer.set(end),
                    }
                }
                match reader.buf.poll_fill(&conn.io, cx) {
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) if seen > 0 => return Poll::Ready(Next::Gone),
                    Poll::Ready(_) => return Poll::Ready(Next::End),
                    Poll::Pending => break,
                }
            }
            if seen == 0 && conn.poll_over(cx, true).is_ready() {
                return Poll::Ready(Next::End);
            }
            if seen == 0 && conn.worker.may_shed() {
                // Pressure may have changed it.
                *idle_until = idle_deadline(conn, http, now);
                end = (*idle_until).min(*until);
                timer.set(end.min(now + LINGER));
            }
            timer.poll(cx).map(|()| match seen {
                0 if timer::now_ms() < end => Next::Rest,
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
        self.kept.http.stats.cells.downstream_rq_active.add(1);
        let most = self.kept.http.config.max_requests_per_connection;
        let most = most.is_some_and(|most| self.kept.served >= most);
        if most {
            let events = &self.kept.http.stats.events;
            events.inc(HttpEvent::downstream_cx_max_requests_reached);
        }
        let last = most || timer::now_ms() >= self.kept.until;
        if head.http_10 && !self.record.request.has_authority() {
            let host = self.kept.http.config.http1.default_host_for_http_10.clone();
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
            io: &self.kept.conn.io,
            writer: &mut self.writer,
            http_10: head.http_10,
            to_head: self.record.request.method() == b"HEAD",
            close: !head.keep_alive || last,
        };
        let body = BodyReader::H1(&self.kept.conn.io, &mut self.reader);
        Stream::new(&self.kept.http, &mut self.record, &self.kept.timer)
            .serve(body, &mut out, asks)
            .await;
        let keep = !out.closes();
        let Kept { conn, http, .. } = &*self.kept;
        conn.worker.close_stream(&self.record, http);
        let (received, sent) = conn.io.counts();
        // What was read ahead is the next request's.
        let ahead = self.reader.buf.len() as u64;
        self.record.wire_before = (received.saturating_sub(ahead), sent);
        keep
    }

    /// Answers what is not a request; the connection ends.
    async fn refuse(&mut self, reply: LocalReply<'_>, start_ns: u64) -> bool {
        self.record.begin(Protocol::Http11, start_ns);
        self.kept.count_request();
        let mut out = Responder::H1 {
            io: &self.kept.conn.io,
            writer: &mut self.writer,
            http_10: false,
            to_head: false,
            close: true,
        };
        Stream::new(&self.kept.http, &mut self.record, &self.kept.timer)
            .reply(&mut out, reply)
            .await;
        self.kept.http.stats.answered_early(self.record.flags);
        self.finish();
        false
    }

    /// Ends the sending side, then reads on for a moment: closing with unread
    /// bytes would reset the connection under the last answer.
    async fn close(mut self) {
        let io = &self.kept.conn.io;
        if poll_fn(|cx| io.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let config = &self.kept.http.config;
        let Some(wait) = config.delayed_close_timeout.filter(|d| !d.is_zero()) else {
            return;
        };
        self.kept
            .timer
            .set(timer::deadline(timer::now_ms(), Some(wait)));
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
        let _ = self.kept.timer.race(drained).await;
    }
}
