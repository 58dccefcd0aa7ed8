//! One try of a request over an open connection: the request goes out while
//! the answer is awaited, then the answer goes back while the request may
//! still be going out.

use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::framing::BodyLength;
use lateen_proxy_core::local_reply::{ResetReason, http_status};
use lateen_proxy_core::router::is_grpc;

use super::forward::{Deadlines, Timeout, Tries};
use super::head::Head;
use super::known::Known;
use super::peers;
use super::reader::{BodyReader, ReadError};
use super::record::{Protocol, now_ns};
use super::responder::{Body, Responder};
use super::source::RequestBody;
use super::stream::Stream;
use super::tunnel::as_asked;
use super::upstream::{Answer, H1Receiver, Receiver, UpstreamReset, reset_by};
use super::writer::{BodyWriter, H2Writer, Meter, PumpError, poll_pump};
use crate::http1::{BodyError, Framing, write_request_head};
use crate::http2::Reason;
use crate::io::timer;
use crate::stats::rare::ClusterEvent;
use crate::upstream::host::{H1Client, add_one};
use crate::upstream::http2::H2Stream;
use crate::upstream::{ClusterState, Host, HttpConnection};

/// How long a client may take for what was received of a broken answer, where
/// the configuration does not bound it.
const HAND_OVER: Duration = Duration::from_secs(1);

/// How a try ended.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The answer was given, whole or broken.
    Done,
    /// The answer calls for another try.
    Again,
    /// The answer leads elsewhere, and the request follows.
    Redirected,
    /// The connection was stale; the request goes out anew, uncounted.
    Renew,
    /// There is no host.
    NoHost,
    /// The client went away.
    Gone,
    /// The client's request is malformed past its head.
    Malformed,
    /// A deadline passed before the answer.
    TimedOut(Timeout),
    /// No answer; whether the request was sent.
    Reset(UpstreamReset, bool),
}

/// What a try goes to.
pub(super) struct Try<'h> {
    pub(super) host: &'h Rc<Host>,
    pub(super) reused: bool,
}

/// The state of an exchange between its two phases.
pub(super) struct Exchange<'r, 'b> {
    pub(super) receiver: Receiver<'r>,
    pub(super) sender: BodyWriter<'r>,
    pub(super) body: &'r mut RequestBody<'b>,
    meter: Meter,
    sent: bool,
    /// What the client sends belongs to the tunnel and waits for its answer.
    hold: bool,
}

impl Exchange<'_, '_> {
    /// Sends what may be sent before the answer. Ready when that is all.
    fn poll_send(
        &mut self,
        trailers: &mut Head,
        trailers_on: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PumpError>> {
        if self.hold {
            let flushed = self.sender.poll_flush(cx);
            return match flushed.map_err(PumpError::Sink)? {
                Poll::Ready(()) | Poll::Pending => Poll::Pending,
            };
        }
        let (body, sender) = (&mut *self.body, &mut self.sender);
        poll_pump(body, sender, &mut self.meter, trailers, trailers_on, cx)
    }
}

impl Stream<'_> {
    /// Runs the try on a connection and puts the connection where it belongs.
    pub(super) async fn exchange(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
        connection: HttpConnection,
        tried: Try<'_>,
    ) -> Attempt {
        // Edits may have written any header; where the body ends they do not say.
        let length = match body.is_empty() {
            true => BodyLength::Empty,
            false => body.length,
        };
        length.settle_request(&mut self.record.request);
        if self.http.config.scheme_of_upstream {
            let tls = match &connection {
                HttpConnection::H1(client) => client.io.is_tls(),
                HttpConnection::H2(stream) => stream.client.session().is_some(),
            };
            let scheme: &[u8] = if tls { b"https" } else { b"http" };
            self.record.request.set_scheme(scheme);
        }
        match connection {
            HttpConnection::H1(client) => self.over_h1(body, out, tries, client, tried).await,
            HttpConnection::H2(stream) => self.over_h2(body, out, tries, stream, tried).await,
        }
    }

    async fn over_h1(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
        mut client: Box<H1Client>,
        tried: Try<'_>,
    ) -> Attempt {
        let record = &mut *self.record;
        record.upstream_protocol = Some(Protocol::Http11);
        record.upstream_local = Some(client.io.local);
        record.reached.push((tried.host.clone(), client.id()));
        record.upstream_tls = client.io.meters().and_then(|m| m.session());
        let before = client.io.counts();
        client.begins();
        if tries.terminates {
            let deadlines = &mut tries.deadlines;
            return self
                .terminate(body, out, &mut client, tried, deadlines)
                .await;
        }
        let framing = match () {
            () if tries.upgrade => Framing::Close,
            () if body.is_empty() => Framing::None,
            () if record.request.has(Known::ContentLength) => Framing::Length(1),
            () => Framing::Chunked,
        };
        let connect = record.request.method() == b"CONNECT";
        if tries.upgrade && !connect && !record.request.has(Known::Connection) {
            record.request.set_known(Known::Connection, b"upgrade");
        }
        let parts = &mut *client;
        let head = &record.request;
        parts
            .writer
            .begin(framing == Framing::Chunked, head.names(), |bytes| {
                write_request_head(head, framing, bytes);
            });
        // What follows an answer to CONNECT is never a body to us: a 2xx begins
        // the tunnel (RFC 9110 section 9.3.6), of others only the status passes.
        let to_head = connect || head.method() == b"HEAD";
        let mut exchange = Exchange {
            receiver: Receiver::H1(H1Receiver {
                io: &parts.io,
                reader: &mut parts.reader,
                to_head,
                upgrade: tries.upgrade && !connect,
                inform: self.http.config.proxy_100_continue,
                seen: 0,
            }),
            sender: BodyWriter::H1(&parts.io, &mut parts.writer),
            hold: tries.upgrade && !body.is_empty(),
            body,
            meter: self.meter(),
            sent: false,
        };
        let (attempt, reusable) = self.run(&mut exchange, out, tries, &tried).await;
        let (received, sent) = client.io.counts();
        let wire = &mut self.record.upstream_wire;
        *wire = (wire.0 + received - before.0, wire.1 + sent - before.1);
        if reusable || tries.upgrade {
            client.rests();
        }
        if reusable && !tries.upgrade && fits_pool(&client, &tries.cluster) {
            tries.cluster.watch_idle(tried.host);
            tried.host.put_idle(client);
        } else {
            drop(client);
            tried.host.connection_closed();
        }
        attempt
    }

    /// A meter that counts messages where a filter wants them.
    fn meter(&self) -> Meter {
        let grpc = self.http.grpc.as_ref();
        let counts = grpc.is_some_and(|grpc| grpc.watches(self.record));
        let mut meter = Meter::default();
        meter.frames = counts.then(Default::default);
        meter
    }

    /// Accepts a CONNECT in the place of its upstream, which gets its bytes alone.
    async fn terminate(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        client: &mut H1Client,
        tried: Try<'_>,
        deadlines: &mut Deadlines,
    ) -> Attempt {
        let record = &mut *self.record;
        record.upstream_protocol = None;
        record.response.clear();
        record.response.status = 200;
        record.times.upstream_sent = now_ns();
        record.times.upstream_first = record.times.upstream_sent;
        client.writer.begin(false, None, |_| {});
        if let Responder::H1 { close, .. } = out {
            *close = false; // the head of a tunnel does not say so
        }
        let mut exchange = Exchange {
            receiver: Receiver::H1(H1Receiver {
                io: &client.io,
                reader: &mut client.reader,
                to_head: false,
                upgrade: false,
                inform: false,
                seen: 0,
            }),
            sender: BodyWriter::H1(&client.io, &mut client.writer),
            hold: true,
            body,
            meter: Meter::default(),
            sent: false,
        };
        Box::pin(self.tunnel(&mut exchange, out, deadlines)).await;
        tried.host.connection_closed();
        Attempt::Done
    }

    async fn over_h2(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
        stream: H2Stream,
        tried: Try<'_>,
    ) -> Attempt {
        let record = &mut *self.record;
        record.upstream_protocol = Some(Protocol::Http2);
        record.upstream_local = Some(stream.client.local);
        record.upstream_tls = stream.client.session();
        record
            .reached
            .push((tried.host.clone(), stream.client.id()));
        let connect = record.request.method() == b"CONNECT";
        let mut protocol = Vec::new();
        if tries.upgrade && !connect {
            // Leaving HTTP over HTTP/2 takes extended CONNECT (RFC 8441).
            let within = tries.cluster.config.connect_timeout;
            if !stream.client.serves_connect_protocol(within).await {
                return Attempt::Reset(UpstreamReset::new(ResetReason::ProtocolError), false);
            }
            protocol.extend_from_slice(record.request.known(Known::Upgrade).unwrap_or_default());
        }
        let end = body.is_empty() && !tries.upgrade;
        let Some(handle) = stream.open(&record.request, &protocol, end) else {
            // The connection began to go since it was chosen.
            let reset = UpstreamReset::new(ResetReason::ConnectionTermination);
            return Attempt::Reset(reset, false);
        };
        if self.http.config.proxy_100_continue {
            handle.ask_informational();
        }
        let mut exchange = Exchange {
            receiver: Receiver::H2(&handle, tries.upgrade && !connect),
            sender: BodyWriter::H2(H2Writer::new(&handle, end)),
            hold: tries.upgrade,
            body,
            meter: self.meter(),
            sent: false,
        };
        let (attempt, _) = self.run(&mut exchange, out, tries, &tried).await;
        attempt
    }

    /// Both phases. The flag says whether an HTTP/1 connection may be reused.
    async fn run(
        &mut self,
        exchange: &mut Exchange<'_, '_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
        tried: &Try<'_>,
    ) -> (Attempt, bool) {
        self.record.times.upstream_sent = now_ns();
        let answer = match self.await_head(exchange, out, tries).await {
            Ok(answer) => answer,
            Err(attempt) => return (self.failed(exchange, attempt, tries, tried), false),
        };
        self.record.times.upstream_first = now_ns();
        crate::logger::answered(self.record);
        self.complete = exchange.body.complete;
        let status = self.record.response.status;
        let grpc = is_grpc(&self.record.request);
        match grpc {
            false => tried.host.note_status(&tries.cluster, status),
            true => {
                let told = grpc_status_of(&self.record.response);
                let bare = answer.body == Body::None;
                tried.host.note_grpc(&tries.cluster, status, told, bare);
            }
        }
        if tried.host.health.is_some()
            && self
                .record
                .response
                .has(Known::XEnvoyImmediateHealthCheckFail)
        {
            tries.cluster.fail_at_once(tried.host);
        }
        if exchange.body.can_restart()
            && tries.retries.on_response(&self.record.response)
            && self.retry_permitted(tries)
        {
            exchange.sender.abort(Reason::CANCEL);
            tries.cluster.stats.retried(status);
            tried.host.note_unless(grpc, status);
            return (Attempt::Again, false);
        }
        if let Some(policy) = &tries.forward.internal_redirect
            && policy.follows(status)
            && !tries.upgrade
            && self.redirects(policy, exchange.body, tries.chosen)
        {
            if tries.retries.exhausted() {
                let flag = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
                self.record.flags.set(flag);
            }
            // Nothing more of it is to come, or nobody waits for it.
            let whole = exchange.sent && answer.body == Body::None;
            if !whole {
                exchange.sender.abort(Reason::CANCEL);
            }
            return (Attempt::Redirected, whole && answer.keep_alive);
        }
        // Where a redirect leads on, it is no success of the host's.
        tried.host.note_unless(grpc, status);
        let connect = self.record.request.method() == b"CONNECT";
        let left = match connect {
            true => (200..300).contains(&status),
            false => status == 101,
        };
        if tries.upgrade && left {
            self.tunnel(exchange, out, &mut tries.deadlines).await;
            return (Attempt::Done, false);
        }
        let ended = self.relay(exchange, out, tries, answer).await;
        if grpc && status < 500 && answer.body != Body::None {
            let told = grpc_status_of(&self.record.trailers);
            tried
                .host
                .note_good(told.is_some_and(|s| http_status(s) < 500));
        }
        ended
    }

    /// Retries may be in flight only so many at a time.
    fn retry_permitted(&mut self, tries: &mut Tries<'_>) -> bool {
        let permit = tries
            .cluster
            .permit(tries.priority, crate::upstream::Limited::Retries);
        match permit {
            Some(permit) => {
                tries.retries.hold(permit);
                true
            }
            None => {
                tries.cluster.stats.cells.upstream_rq_retry_overflow.inc();
                self.record.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
                false
            }
        }
    }

    async fn await_head(
        &mut self,
        exchange: &mut Exchange<'_, '_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
    ) -> Result<Answer, Attempt> {
        let trailers_on = self.passes_trailers(tries);
        let mut trailers = Head::new();
        let mut informing = false;
        poll_fn(|cx| {
            if !exchange.sent {
                match exchange.poll_send(&mut trailers, trailers_on, cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => {
                        exchange.sent = true;
                        self.request_sent(tries);
                    }
                    Poll::Ready(Err(PumpError::Source(error))) => {
                        return Poll::Ready(Err(Self::request_broke(&error)));
                    }
                    // The upstream may have answered before it closed.
                    Poll::Ready(Err(PumpError::Sink(_))) => exchange.sent = true,
                }
            }
            // One informational head at a time, so that none piles up.
            informing = informing && out.writer().poll_flush(cx).is_pending();
            let head = &mut self.record.response;
            while !informing && let Poll::Ready(done) = exchange.receiver.poll_head(head, cx) {
                if done.is_err() || head.status >= 200 || head.status == 101 {
                    let done = done.and_then(|answer| as_asked(&self.record.request, head, answer));
                    return Poll::Ready(done.map_err(|reset| Attempt::Reset(reset, exchange.sent)));
                }
                // Another try might not say the same.
                tries.retries.stop();
                head.remove_known(Known::ContentLength);
                out.inform(head);
                informing = out.writer().poll_flush(cx).is_pending();
            }
            if std::mem::take(&mut exchange.meter.moved) {
                tries.deadlines.touch();
            }
            if exchange.body.complete && exchange.body.reader.poll_gone(cx).is_ready()
                || out.poll_gone(cx).is_ready()
            {
                return Poll::Ready(Err(Attempt::Gone));
            }
            match self.poll_deadlines(&tries.deadlines, cx) {
                Poll::Ready(timeout) => Poll::Ready(Err(Attempt::TimedOut(timeout))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Whether trailers pass: each side that speaks HTTP/1 must be told to.
    fn passes_trailers(&self, tries: &Tries<'_>) -> bool {
        let down =
            self.record.protocol == Protocol::Http2 || self.http.config.http1.enable_trailers;
        let up = self.record.upstream_protocol == Some(Protocol::Http2)
            || tries.cluster.config.http.http1.enable_trailers;
        down && up
    }

    fn request_sent(&mut self, tries: &mut Tries<'_>) {
        let now = now_ns();
        self.record.times.upstream_sent_end = now;
        if self.record.times.request_end == 0 {
            self.record.times.request_end = now;
            tries.deadlines.request_complete();
        }
    }

    /// The client's request ended in the middle, or is malformed.
    fn request_broke(error: &ReadError) -> Attempt {
        match error {
            ReadError::Malformed(error) if *error != BodyError::Truncated => Attempt::Malformed,
            _ => Attempt::Gone,
        }
    }

    /// No answer came: what that means for a connection that was open before.
    fn failed(
        &mut self,
        exchange: &mut Exchange<'_, '_>,
        attempt: Attempt,
        tries: &mut Tries<'_>,
        tried: &Try<'_>,
    ) -> Attempt {
        exchange.sender.abort(Reason::CANCEL);
        if let Attempt::Reset(reset, _) = &attempt {
            // A kept connection may be closed by its server at any moment; a
            // request that may be repeated (RFC 9110 section 9.2.2) goes out
            // on another one.
            let stale = tried.reused
                && reset.reason == ResetReason::ConnectionTermination
                && !std::mem::replace(&mut tries.renewed, true)
                && exchange.body.can_restart()
                && is_idempotent(self.record.request.method());
            if stale {
                return Attempt::Renew;
            }
            tried.host.note_failure(&tries.cluster);
        }
        if let Attempt::TimedOut(timeout) = &attempt
            && timeout.blames_host()
        {
            add_one(&tried.host.counts.timeouts);
            tried.host.note_failure(&tries.cluster);
        }
        attempt
    }

    /// Sends the answer on.
    async fn relay(
        &mut self,
        exchange: &mut Exchange<'_, '_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
        answer: Answer,
    ) -> (Attempt, bool) {
        let body_kind = self.answer_head(out, tries, answer.body);
        let Exchange {
            receiver,
            sender,
            body,
            meter,
            sent,
            ..
        } = exchange;
        let mut upstream = receiver.body();
        self.record.times.response_start = now_ns();
        let begun = out.begin(&mut self.record.response, body_kind);
        let mut relay = Relay {
            body,
            sender,
            upward: meter,
            // What follows a refused upgrade is no body and goes nowhere.
            sent: *sent || tries.upgrade,
            downward: self.meter(),
        };
        let ended = match begun {
            // The answer has a body that is not passed on (a refused upgrade).
            Ok(mut writer) if body_kind == Body::None && answer.body != Body::None => {
                relay.sent = false;
                poll_fn(|cx| writer.poll_flush(cx))
                    .await
                    .map_err(|_| Broken::Downstream)
            }
            Ok(mut writer) => {
                let ended = self
                    .pump(&mut relay, &mut upstream, &mut writer, tries)
                    .await;
                if matches!(ended, Err(Broken::Upstream(_) | Broken::TimedOut(_))) {
                    self.hand_over(&mut writer).await;
                }
                ended
            }
            Err(_) => Err(Broken::Downstream),
        };
        self.record.sent = relay.downward.bytes;
        let messages = |meter: &Meter| meter.frames.map_or(0, |f| f.count);
        self.record.messages = (messages(relay.upward), messages(&relay.downward));
        let complete = relay.sent && upstream.is_done();
        match ended {
            Ok(()) => {}
            Err(broken) => {
                self.broke(broken, out);
                relay.sender.abort(Reason::CANCEL);
            }
        }
        self.record.times.upstream_end = now_ns();
        (Attempt::Done, complete && answer.keep_alive)
    }

    /// Lets what was received of a broken answer reach the client before the
    /// break does, as long as a closing connection is waited for.
    async fn hand_over(&mut self, writer: &mut BodyWriter<'_>) {
        let wait = self.http.config.delayed_close_timeout;
        self.timer
            .set(timer::deadline(timer::now_ms(), wait.or(Some(HAND_OVER))));
        let flush = poll_fn(|cx| writer.poll_flush(cx));
        // A client that does not take it in time sees the break alone.
        let _ = self.timer.race(flush).await;
    }

    /// The response head as the client gets it.
    fn answer_head(&mut self, out: &mut Responder<'_>, tries: &Tries<'_>, body: Body) -> Body {
        let suppressed = self.http.router.suppress_envoy_headers;
        let record = &mut *self.record;
        let status = record.response.status;
        record.code = status;
        record.details = Cow::Borrowed("via_upstream");
        if tries.retries.exhausted() {
            record
                .flags
                .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        // The method may have been changed on its way.
        let to_head = out.to_head() || record.request.method() == b"HEAD";
        let mut kind = body;
        let connect = record.request.method() == b"CONNECT";
        if tries.upgrade {
            out.set_close();
        }
        let websocket = || {
            let asked = record.request.known(Known::Upgrade);
            asked.is_some_and(|asked| asked.eq_ignore_ascii_case(b"websocket"))
        };
        if tries.upgrade && (connect || (status < 400 && websocket())) {
            // Refused by the upstream: its status passes, nothing else does.
            record.details = Cow::Borrowed("websocket_handshake_unsuccessful");
            record.response.remove_known(Known::ContentLength);
            kind = Body::None;
        } else if !suppressed && !tries.upgrade && record.times.request_end != 0 {
            // All tries since the request was whole; of one that is not there is
            // nothing to measure from.
            let begin = record.times.request_end;
            let ms = record.times.upstream_first.saturating_sub(begin) / 1_000_000;
            record
                .response
                .set_number(Known::XEnvoyUpstreamServiceTime, ms);
        }
        // Over HTTP/2 an upstream may send one all the same: to the client it would be the next answer.
        if to_head || matches!(status, 204 | 304) {
            kind = Body::None;
        }
        if let Some(peers) = &self.http.peers {
            peers::of_response(self.record, peers);
        }
        self.finish_response_head(out);
        kind
    }

    async fn pump(
        &mut self,
        relay: &mut Relay<'_, '_, '_>,
        upstream: &mut BodyReader<'_>,
        writer: &mut BodyWriter<'_>,
        tries: &mut Tries<'_>,
    ) -> Result<(), Broken> {
        let trailers_on = self.passes_trailers(tries);
        let mut request_trailers = Head::new();
        // The answer has begun: only idleness and the stream's life are left.
        tries.deadlines.per_try = timer::NEVER;
        poll_fn(|cx| {
            if !relay.sent {
                let (body, sender) = (&mut *relay.body, &mut *relay.sender);
                let meter = &mut *relay.upward;
                match poll_pump(body, sender, meter, &mut request_trailers, trailers_on, cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => {
                        relay.sent = true;
                        self.request_sent(tries);
                    }
                    Poll::Ready(Err(PumpError::Source(_))) => {
                        return Poll::Ready(Err(Broken::Downstream));
                    }
                    Poll::Ready(Err(PumpError::Sink(_))) => {
                        *relay.sender = BodyWriter::Nowhere;
                    }
                }
            }
            let trailers = &mut self.record.trailers;
            let down = poll_pump(
                upstream,
                writer,
                &mut relay.downward,
                trailers,
                trailers_on,
                cx,
            );
            match down {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(PumpError::Source(error))) => {
                    return Poll::Ready(Err(Broken::Upstream(error)));
                }
                Poll::Ready(Err(PumpError::Sink(_))) => {
                    return Poll::Ready(Err(Broken::Downstream));
                }
                Poll::Pending => {}
            }
            if writer.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Broken::Downstream));
            }
            if relay.body.complete && relay.body.reader.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Broken::Downstream));
            }
            let moved =
                std::mem::take(&mut relay.downward.moved) | std::mem::take(&mut relay.upward.moved);
            if moved {
                tries.deadlines.touch();
            }
            self.poll_deadlines(&tries.deadlines, cx)
                .map(|t| Err(Broken::TimedOut(t)))
        })
        .await
    }

    /// The exchange broke after the answer had begun.
    pub(super) fn broke(&mut self, broken: Broken, out: &mut Responder<'_>) {
        let record = &mut *self.record;
        match broken {
            Broken::Downstream => {
                record.client_gone();
                return out.abort(Reason::INTERNAL_ERROR);
            }
            Broken::Upstream(error) => {
                let reason = match error {
                    ReadError::Closed(_) => ResetReason::ConnectionTermination,
                    ReadError::Malformed(_) => ResetReason::ProtocolError,
                    ReadError::Reset(reason) => reset_by(reason),
                };
                record.flags.set(reason.flag());
                record.details = Cow::Owned(reason.details_after());
            }
            Broken::TimedOut(timeout) => {
                self.count_timeout(timeout);
                let record = &mut *self.record;
                let (flag, details) = match timeout {
                    Timeout::Idle => (ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
                    Timeout::MaxDuration => (ResponseFlags::NONE, "max_duration_timeout"),
                    Timeout::Upstream => (
                        ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
                        "upstream_max_stream_duration_reached",
                    ),
                    _ => (ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
                };
                record.flags.set(flag);
                record.details = Cow::Borrowed(details);
            }
        }
        out.cut(Reason::INTERNAL_ERROR);
    }
}

/// The four halves while the answer flows.
struct Relay<'x, 'r, 'b> {
    body: &'x mut RequestBody<'b>,
    sender: &'x mut BodyWriter<'r>,
    upward: &'x mut Meter,
    sent: bool,
    downward: Meter,
}

/// Why an exchange broke after the answer had begun.
#[derive(Debug)]
pub(super) enum Broken {
    Downstream,
    Upstream(ReadError),
    TimedOut(Timeout),
}

/// Whether a connection may serve another request.
pub(super) fn fits_pool(client: &H1Client, cluster: &ClusterState) -> bool {
    let http = &cluster.config.http;
    let age = timer::now_ms().saturating_sub(client.born);
    client.reader.is_done()
        && client.reader.buf.is_empty()
        && client.writer.is_flushed()
        && http.max_requests_per_connection.is_none_or(|most| {
            if client.requests >= most {
                let events = &cluster.stats.events;
                events.inc(ClusterEvent::upstream_cx_max_requests);
            }
            client.requests < most
        })
        && http
            .max_connection_duration
            .is_none_or(|most| u128::from(age) < most.as_millis())
}

/// `grpc-status` of a head or of trailers, where it is there; what is no number is no status.
fn grpc_status_of(head: &Head) -> Option<u32> {
    let value = head.known(Known::GrpcStatus)?;
    let number = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
    Some(number.unwrap_or(u32::MAX))
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}
