//! The router: which cluster, host and connection, how often, how long; then
//! request and answer flow at the same time until both have ended.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lateen_proxy_core::config::ClusterDiscovery;
use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::config::route::Forward;
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::local_reply::{ResetReason, Situation};
use lateen_proxy_core::retry::GrpcTime;
use lateen_proxy_core::router::is_grpc;
use lateen_proxy_core::{hash_policy, retry};

use smallvec::SmallVec;

use super::attempt::{Attempt, Try};
use super::charge::Charge;
use super::known::Known;
use super::local::LocalReply;
use super::mutate::{self, Side};
use super::record::{Protocol, now_ns};
use super::responder::Responder;
use super::retry::Retries;
use super::source::RequestBody;
use super::stream::{Chosen, Stream};
use super::upstream::UpstreamReset;
use super::{peers, rewrite, shadow, trace};
use crate::io::timer::{self, NEVER};
use crate::logger;
use crate::stats::rare::ClusterEvent;
use crate::upstream::connect;
use crate::upstream::host::add_one;
use crate::upstream::{Choice, ClusterState, ConnectError, ConnectOptions, Host};

/// The headers by which a request sets what the router does; they end here.
const SETTINGS: u128 = Known::bits(&[
    Known::XEnvoyUpstreamRqTimeoutMs,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyHedgeOnPerTryTimeout,
    Known::XEnvoyUpstreamRqTimeoutAltResponse,
    Known::XEnvoyUpstreamAltStatName,
    Known::XEnvoyUpstreamStreamDurationMs,
]);

/// The gRPC status of a stream that lived too long.
const DEADLINE_EXCEEDED: u32 = 4;

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    /// Whole request and answer.
    Route,
    /// One try.
    PerTry,
    /// Nothing moved.
    Idle,
    /// Longest life of a stream.
    MaxDuration,
    /// Longest life of one try's stream.
    Upstream,
    /// Request not complete in time.
    Request,
}

impl Timeout {
    /// Whether the host is to blame: for how long the router waits for an answer, it is. How
    /// long streams may live or rest is a matter of the client's too, which could otherwise have
    /// healthy hosts ejected.
    pub(super) fn blames_host(self) -> bool {
        matches!(self, Self::Route | Self::PerTry)
    }
}

/// The deadlines of a stream in milliseconds of the timer's clock.
#[derive(Debug)]
pub(super) struct Deadlines {
    pub(super) route: u64,
    pub(super) per_try: u64,
    pub(super) idle: u64,
    pub(super) max: u64,
    pub(super) upstream: u64,
    pub(super) request: u64,
    pub(super) upstream_after: Option<Duration>,
    pub(super) idle_after: Option<Duration>,
    pub(super) route_after: Option<Duration>,
    pub(super) per_try_after: Option<Duration>,
}

impl Deadlines {
    pub(super) fn next(&self) -> u64 {
        self.route
            .min(self.per_try)
            .min(self.idle)
            .min(self.max)
            .min(self.upstream)
            .min(self.request)
    }

    fn passed(&self, now: u64) -> Timeout {
        match now {
            n if self.route <= n => Timeout::Route,
            n if self.max <= n => Timeout::MaxDuration,
            n if self.per_try <= n => Timeout::PerTry,
            n if self.upstream <= n => Timeout::Upstream,
            n if self.request <= n => Timeout::Request,
            _ => Timeout::Idle,
        }
    }

    /// Something moved.
    pub(super) fn touch(&mut self) {
        if self.idle_after.is_some() {
            self.idle = timer::deadline(timer::now_ms(), self.idle_after);
        }
    }

    /// The whole request has arrived: what waits for the answer begins.
    pub(super) fn request_complete(&mut self) {
        let now = timer::now_ms();
        self.request = NEVER;
        if self.route == NEVER {
            self.route = timer::deadline(now, self.route_after);
        }
        self.per_try = timer::deadline(now, self.per_try_after);
    }
}

/// What the tries of one request share.
pub(super) struct Tries<'f> {
    pub(super) forward: &'f Forward,
    pub(super) chosen: &'f Chosen,
    pub(super) cluster: Rc<ClusterState>,
    pub(super) deadlines: Deadlines,
    pub(super) retries: Retries<'f>,
    pub(super) upgrade: bool,
    /// A CONNECT that ends here: its bytes go on as TCP (`connect_config`).
    pub(super) terminates: bool,
    pub(super) priority: usize,
    pub(super) hash: Option<u64>,
    /// A request that failed on a connection that was open before was sent
    /// again without counting as a retry.
    pub(super) renewed: bool,
    pub(super) tried: SmallVec<[Rc<Host>; 3]>,
}

/// Whether a request is dropped because the endpoints say so, and the header that tells.
fn dropped(cluster: &ClusterState) -> Option<(Situation, &'static str)> {
    let share = cluster.drop_overload.get()?;
    if share.is_all() {
        return Some((
            Situation::UNCONDITIONAL_DROP_OVERLOAD,
            "x-envoy-unconditional-drop-overload",
        ));
    }
    let hit = share.hit(fastrand::u64(..));
    hit.then_some((Situation::DROP_OVERLOAD, "x-envoy-drop-overload"))
}

impl Stream<'_> {
    /// Sends the request on and the answer back.
    pub(super) async fn forward(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        forward: &Forward,
        chosen: &Chosen,
        upgrade: bool,
    ) {
        let terminates = upgrade && self.ends_connect(forward);
        if terminates {
            // Whatever is answered, no request follows on this connection.
            out.set_close();
        }
        let Some(cluster) = self.cluster_of(forward, chosen) else {
            let reply = LocalReply::from(Situation::NO_CLUSTER);
            return self
                .reply(out, reply.status(forward.cluster_not_found_code))
                .await;
        };
        self.record.cluster_name = Some(cluster.config.name.clone());
        self.record.cluster = Some(cluster.clone());
        logger::matched(self.record, &cluster.config.name);
        if let Some((situation, header)) = dropped(&cluster) {
            let reply = LocalReply::from(situation);
            let reply = match self.http.router.suppress_envoy_headers {
                true => reply,
                false => reply.header(header, "true"),
            };
            return self.reply(out, reply).await;
        }
        let priority = usize::from(forward.high_priority);
        let policy = forward
            .retry_policy
            .as_deref()
            .or(chosen.host.retry_policy.as_deref());
        let retries = Retries::new(policy, &self.record.request, &cluster.stats);
        let respects = self.http.router.respect_expected_rq_timeout;
        let timeouts = retry::timeouts(forward, policy, &self.record.request, true, respects);
        if retries.possible() || forward.internal_redirect.is_some() {
            body.keep(self.buffer_limit(chosen));
        } else if body.is_empty() {
            body.keep(1);
        }
        let mut deadlines = self.deadlines(forward, body.complete, &timeouts);
        let upstream = timeouts
            .upstream
            .or(cluster.config.http.max_stream_duration);
        deadlines.upstream_after = upstream.filter(|d| !d.is_zero());
        let hash = self.hash(forward);
        if self
            .http
            .grpc
            .as_ref()
            .is_some_and(|g| g.watches(self.record))
        {
            self.record.asked = Some(self.record.request.path().into());
        }
        self.prepare_request(forward, chosen, &deadlines, timeouts.told);
        let shadows = match upgrade {
            true => Vec::new(),
            false => shadow::wanted(self.record, forward, chosen),
        };
        if !shadows.is_empty() && !body.is_empty() {
            body.keep(self.buffer_limit(chosen));
        }
        if let Some(peers) = &self.http.peers {
            peers::tell_upstream(self.record, peers, &cluster);
        }
        let mut tries = Tries {
            forward,
            chosen,
            cluster,
            deadlines,
            retries,
            upgrade,
            terminates,
            priority,
            hash,
            renewed: false,
            tried: SmallVec::new(),
        };
        if body.complete {
            tries.deadlines.request_complete();
        }
        if !shadows.is_empty() && body.is_empty() {
            let worker = &self.record.conn.worker;
            shadow::send(worker, &shadows, &[], forward.timeout);
        }
        self.try_until_done(body, out, &mut tries).await;
        if !shadows.is_empty()
            && let Some(bytes) = body.whole().filter(|b| !b.is_empty())
        {
            let worker = &self.record.conn.worker;
            shadow::send(worker, &shadows, bytes, forward.timeout);
        }
        self.timer.set(NEVER);
    }

    /// Whether a CONNECT ends here, as the route says.
    fn ends_connect(&self, forward: &Forward) -> bool {
        self.record.request.method() == b"CONNECT"
            && forward.upgrades.iter().any(|u| u.connect_config)
    }

    async fn try_until_done(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
    ) {
        loop {
            self.record.attempts += 1;
            if self.record.attempts > 1 {
                tries.cluster.stats.cells.upstream_rq_retry.inc();
            }
            self.number_attempt(tries);
            self.tell_time_left(tries);
            if self.record.trace.is_some() {
                trace::before_try(self);
            }
            let attempt = self.attempt(body, out, tries).await;
            if self.record.trace.is_some() {
                trace::after_try(self, &attempt);
            }
            self.complete = body.complete;
            match attempt {
                Attempt::Done | Attempt::Redirected => return,
                Attempt::Again => {}
                Attempt::Renew => {
                    self.record.attempts -= 1;
                    body.restart();
                    continue;
                }
                Attempt::NoHost => {
                    return self.reply(out, Situation::NO_HEALTHY_UPSTREAM.into()).await;
                }
                Attempt::Gone => return self.client_gone(out),
                Attempt::Malformed => {
                    out.set_close();
                    let reply = LocalReply::new(400, "Bad Request", "http1.codec_error");
                    let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
                    return self.reply(out, reply.flag(flag)).await;
                }
                Attempt::TimedOut(timeout) => {
                    if let Some(reply) = self.timed_out(body, tries, timeout) {
                        return self.reply(out, reply).await;
                    }
                }
                Attempt::Reset(reset, sent) => {
                    if let Some(reply) = self.was_reset(body, tries, &reset, sent) {
                        return self.reply(out, reply).await;
                    }
                }
            }
            logger::retried(self.record);
            body.restart();
            let wait = tries.retries.back_off(fastrand::u64(..));
            tries.deadlines.per_try = NEVER;
            tries.deadlines.upstream = NEVER;
            if let Some(stop) = self.pause(body, out, tries, wait).await {
                match stop {
                    Attempt::TimedOut(timeout) => {
                        let reply = self.final_timeout(body, timeout);
                        return self.reply(out, reply).await;
                    }
                    _ => return self.client_gone(out),
                }
            }
            if body.complete {
                tries.deadlines.request_complete();
            }
        }
    }

    /// A try failed before its answer: the reply, or none to try again.
    fn was_reset(
        &mut self,
        body: &RequestBody<'_>,
        tries: &mut Tries<'_>,
        reset: &UpstreamReset,
        sent: bool,
    ) -> Option<LocalReply<'static>> {
        logger::reset(self.record, &reset.reason, &reset.text);
        let overflow = reset.reason == ResetReason::Overflow;
        if body.can_restart() && !overflow && tries.retries.on_reset(reset.reason, sent) {
            return None;
        }
        if tries.retries.exhausted() {
            self.record
                .flags
                .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        }
        self.record.transport_failure.clone_from(&reset.text);
        let retried = tries.retries.count() > 0;
        let text = if reset.reason == ResetReason::ProtocolError {
            ""
        } else {
            &reset.text
        };
        let mut reply = LocalReply::new(reset.reason.status(), "", reset.reason.details(text));
        reply.body = Cow::Owned(reset.reason.body(retried).into_bytes());
        if overflow {
            reply = reply.header("x-envoy-overloaded", "true");
        }
        Some(reply.flag(reset.reason.flag()))
    }

    fn timed_out(
        &mut self,
        body: &RequestBody<'_>,
        tries: &mut Tries<'_>,
        timeout: Timeout,
    ) -> Option<LocalReply<'static>> {
        if timeout == Timeout::PerTry {
            tries.cluster.stats.cells.upstream_rq_per_try_timeout.inc();
            if body.can_restart() && tries.retries.on_per_try_timeout() {
                return None;
            }
            if tries.retries.exhausted() {
                self.record
                    .flags
                    .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            }
        }
        if timeout == Timeout::Upstream {
            let events = &tries.cluster.stats.events;
            events.inc(ClusterEvent::upstream_rq_max_duration_reached);
            let reason = ResetReason::LocalReset;
            if body.can_restart() && tries.retries.on_reset(reason, true) {
                return None;
            }
            if tries.retries.exhausted() {
                self.record
                    .flags
                    .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            }
        }
        Some(self.final_timeout(body, timeout))
    }

    fn final_timeout(&mut self, body: &RequestBody<'_>, timeout: Timeout) -> LocalReply<'static> {
        self.count_timeout(timeout);
        if !timeout.blames_host() {
            self.record.charge = Charge::Manager;
        }
        let reply = LocalReply::from(match timeout {
            Timeout::Route => Situation::REQUEST_TIMEOUT,
            Timeout::PerTry => Situation::PER_TRY_TIMEOUT,
            Timeout::Idle if !body.complete => Situation::STREAM_IDLE_REQUEST,
            Timeout::Idle => Situation::STREAM_IDLE,
            Timeout::MaxDuration if !body.complete => Situation::MAX_DURATION_REQUEST,
            Timeout::MaxDuration => Situation::MAX_DURATION,
            Timeout::Upstream => Situation::UPSTREAM_MAX_DURATION,
            Timeout::Request => Situation::REQUEST_INCOMPLETE,
        });
        match timeout {
            Timeout::MaxDuration => reply.of_manager(Some(DEADLINE_EXCEEDED)),
            Timeout::Idle | Timeout::Request => reply.of_manager(None),
            Timeout::Route | Timeout::PerTry | Timeout::Upstream => reply,
        }
    }

    /// Counts the end of a route's time; that of a try has its own counter.
    pub(super) fn count_timeout(&self, timeout: Timeout) {
        if timeout == Timeout::Route
            && let Some(cluster) = &self.record.cluster
        {
            cluster.stats.cells.upstream_rq_timeout.inc();
        }
    }

    pub(super) fn client_gone(&mut self, out: &mut Responder<'_>) {
        self.record.client_gone();
        out.set_close();
    }

    fn buffer_limit(&self, chosen: &Chosen) -> usize {
        let own = chosen
            .route
            .per_request_buffer_limit
            .or(chosen.host.per_request_buffer_limit);
        own.unwrap_or(self.record.conn.listener.per_connection_buffer_limit) as usize
    }

    fn deadlines(
        &self,
        forward: &Forward,
        complete: bool,
        timeouts: &retry::Timeouts,
    ) -> Deadlines {
        let config = &self.http.config;
        let now = timer::now_ms();
        let positive = |d: &Duration| !d.is_zero();
        let idle_after = match forward.idle_timeout {
            Some(own) => Some(own).filter(positive),
            None => config.stream_idle_timeout.filter(positive),
        };
        let conn = &self.record.conn;
        let idle_after = conn.shortened(ScaledTimeout::StreamIdle, idle_after);
        let of_stream = forward.max_stream_duration.as_ref();
        let max = match of_stream.filter(|limits| !limits.of_request) {
            Some(_) => timeouts.max_duration,
            None => config.max_stream_duration.filter(positive),
        };
        Deadlines {
            route: NEVER,
            per_try: NEVER,
            idle: timer::deadline(now, idle_after),
            max: timer::deadline(now, max),
            upstream: NEVER,
            upstream_after: None,
            request: match complete {
                true => NEVER,
                false => timer::deadline(now, config.request_timeout.filter(positive)),
            },
            idle_after,
            route_after: timeouts.global.filter(positive),
            per_try_after: timeouts.per_try.filter(positive),
        }
    }

    fn hash(&mut self, forward: &Forward) -> Option<u64> {
        if forward.hash_policy.is_empty() {
            return None;
        }
        let client = Some(self.record.remote.ip());
        let request = &self.record.request;
        let hashed = hash_policy::compute(&forward.hash_policy, request, client, &mut || {
            fastrand::u64(..)
        });
        self.cookies = hashed.cookies;
        hashed.hash
    }

    /// Edits, rewrites and headers of our own, once for all tries.
    fn prepare_request(
        &mut self,
        forward: &Forward,
        chosen: &Chosen,
        deadlines: &Deadlines,
        told: Option<GrpcTime>,
    ) {
        let suppressed = self.http.router.suppress_envoy_headers;
        let shortest = [deadlines.route_after, deadlines.per_try_after];
        let expected = shortest.into_iter().flatten().min();
        let request = &mut self.record.request;
        request.remove_all(SETTINGS);
        let name = Known::XEnvoyExpectedRqTimeoutMs;
        match expected.filter(|_| !suppressed) {
            Some(expected) => request.set_number(name, expected.as_millis() as u64),
            None => request.remove_known(name),
        }
        let told = told.and_then(|told| match told {
            GrpcTime::OfTry => expected,
            GrpcTime::Fixed(time) => Some(time),
        });
        if let Some(time) = told {
            let text = retry::grpc_timeout_text(time);
            request.set_known(Known::GrpcTimeout, &text);
        }
        let record = &mut *self.record;
        for level in chosen.edits().into_iter().flatten() {
            mutate::remove(&mut record.request, &level.request_remove);
            mutate::apply(record, Side::Request, &level.request_add);
        }
        rewrite::request(record, forward, chosen, !suppressed);
    }

    fn number_attempt(&mut self, tries: &Tries<'_>) {
        if tries.chosen.host.include_request_attempt_count {
            let count = self.record.attempts.into();
            self.record
                .request
                .set_number(Known::XEnvoyAttemptCount, count);
        }
    }

    /// Of another try less time is left than of the first.
    fn tell_time_left(&mut self, tries: &Tries<'_>) {
        let name = Known::XEnvoyExpectedRqTimeoutMs;
        if self.record.attempts < 2 || !self.record.request.has(name) {
            return;
        }
        let left = match tries.deadlines.route {
            NEVER => None,
            at => Some(at.saturating_sub(timer::now_ms())),
        };
        let of_try = tries.deadlines.per_try_after.map(|d| d.as_millis() as u64);
        if let Some(expected) = left.into_iter().chain(of_try).min() {
            self.record.request.set_number(name, expected);
            let limits = tries.forward.max_stream_duration.as_ref();
            if limits.is_some_and(|l| l.of_request) && is_grpc(&self.record.request) {
                let text = retry::grpc_timeout_text(Duration::from_millis(expected));
                self.record.request.set_known(Known::GrpcTimeout, &text);
            }
        }
    }

    /// Waits between tries; an end that comes first is returned.
    async fn pause(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
        wait: Duration,
    ) -> Option<Attempt> {
        if wait.is_zero() {
            return None;
        }
        let until = timer::now_ms() + wait.as_millis() as u64;
        self.timer.set(until.min(tries.deadlines.next()));
        poll_fn(|cx| {
            if body.complete && body.reader.poll_gone(cx).is_ready() || out.poll_gone(cx).is_ready()
            {
                return Poll::Ready(Some(Attempt::Gone));
            }
            if self.timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = timer::now_ms();
            Poll::Ready(match now < until {
                true => Some(Attempt::TimedOut(tries.deadlines.passed(now))),
                false => None,
            })
        })
        .await
    }

    /// Ready when one of the stream's deadlines passed.
    pub(super) fn poll_deadlines(
        &self,
        deadlines: &Deadlines,
        cx: &mut Context<'_>,
    ) -> Poll<Timeout> {
        self.timer.set(deadlines.next());
        match self.timer.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(deadlines.passed(timer::now_ms())),
        }
    }

    /// One try: host, connection, exchange.
    async fn attempt(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        tries: &mut Tries<'_>,
    ) -> Attempt {
        let Some(host) = self.choose_host(tries) else {
            return Attempt::NoHost;
        };
        self.record.host = Some(host.clone());
        let keep = !self.http.router.suppress_envoy_headers;
        rewrite::host_of_endpoint(self.record, tries.forward, &host, keep);
        tries.tried.push(host.clone());
        logger::forwarded(self.record, &host.text);
        let options = ConnectOptions {
            downstream_h2: self.record.protocol == Protocol::Http2,
            authority: match tries.cluster.config.http.auto_sni {
                true => self.record.request.authority().to_vec(),
                false => Vec::new(),
            },
            origin: self.record.conn.origin(&tries.cluster.config),
            alpn: &[],
            raw: tries.terminates,
        };
        let cluster = tries.cluster.clone();
        self.record.times.connect = (0, 0);
        // Over HTTP/2 it may have been given up already.
        let at_once = match out.is_h2() {
            true => None,
            false => connect::at_once(&cluster, &host, &options),
        };
        let connected = match at_once {
            Some(connection) => Ok(Ok((connection, true))),
            None => {
                let connecting = pin!(connect::http(&cluster, &host, tries.priority, &options));
                self.while_connecting(body, out, tries, connecting).await
            }
        };
        let (connection, reused) = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                if !tries.upgrade {
                    body.take_in().await;
                }
                // A breaker says nothing of the host.
                match error {
                    ConnectError::Overflow => {
                        self.record.host = None;
                        cluster.stats.cells.upstream_rq_pending_overflow.inc();
                    }
                    _ => host.note_failure(&tries.cluster),
                }
                return Attempt::Reset(connect_reset(&error), false);
            }
            Err(stopped) => {
                cluster.stats.cells.upstream_rq_cancelled.inc();
                return stopped;
            }
        };
        // As in Envoy, a request counts from here on, not while it waits.
        let Some(_active) = cluster.active_request(tries.priority) else {
            // Pools of another priority are apart in Envoy.
            let keeps = !options.raw && tries.priority == 0;
            connection.give_back(&cluster, &host, keeps);
            return Attempt::Reset(connect_reset(&ConnectError::Overflow), false);
        };
        host.active.set(host.active.get() + 1);
        add_one(&host.counts.requests);
        cluster.stats.cells.upstream_rq_total.inc();
        let after = tries.deadlines.upstream_after;
        if after.is_some() {
            tries.deadlines.upstream = timer::deadline(timer::now_ms(), after);
        }
        let tried = Try {
            host: &host,
            reused,
        };
        let attempt = self.exchange(body, out, tries, connection, tried).await;
        host.active.set(host.active.get() - 1);
        attempt
    }

    async fn while_connecting<T>(
        &mut self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        tries: &Tries<'_>,
        mut connecting: std::pin::Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Attempt> {
        let mut waited = false;
        let done = poll_fn(|cx| {
            // A stream that was reset opens nothing, or resets would be a way to have the proxy
            // open connections without end.
            if out.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Attempt::Gone));
            }
            if let Poll::Ready(done) = connecting.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if !std::mem::replace(&mut waited, true) {
                self.record.times.connect.0 = now_ns();
            }
            if body.complete && body.reader.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Attempt::Gone));
            }
            self.poll_deadlines(&tries.deadlines, cx)
                .map(|t| Err(Attempt::TimedOut(t)))
        })
        .await;
        if waited {
            self.record.times.connect.1 = now_ns();
        }
        done
    }

    fn choose_host(&self, tries: &Tries<'_>) -> Option<Rc<Host>> {
        if let ClusterDiscovery::OriginalDst(options) = &tries.cluster.config.discovery {
            let by_header = || -> Option<SocketAddr> {
                let value = self
                    .record
                    .request
                    .first(options.http_header_name.as_bytes())?;
                std::str::from_utf8(value).ok()?.parse().ok()
            };
            let named = options.use_http_header.then(by_header).flatten();
            let mut addr = named.or(self.record.conn.original_destination())?;
            if let Some(port) = options.upstream_port_override {
                addr.set_port(port);
            }
            return Some(tries.cluster.passing_host(addr));
        }
        let attempts = tries.retries.avoidance();
        let avoid: &[Rc<Host>] = if attempts.is_some() {
            &tries.tried
        } else {
            &[]
        };
        let own = tries.chosen.weighted.as_ref().map(|w| &w.metadata_match);
        tries.cluster.choose(&Choice {
            hash: tries.hash,
            criteria: own.or(Some(&tries.forward.metadata_match)),
            avoid,
            attempts: attempts.unwrap_or(1),
        })
    }
}

fn connect_reset(error: &ConnectError) -> UpstreamReset {
    let reason = match error {
        ConnectError::Timeout => ResetReason::ConnectionTimeout,
        ConnectError::Overflow => ResetReason::Overflow,
        ConnectError::Failed(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable => {
            ResetReason::LocalConnectionFailure
        }
        ConnectError::Failed(_) | ConnectError::Tls(_) | ConnectError::Transport(_) => {
            ResetReason::RemoteConnectionFailure
        }
    };
    UpstreamReset {
        reason,
        text: connect::failure_details(error),
    }
}
