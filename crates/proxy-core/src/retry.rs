//! Retries: which outcome of a try is tried again, when, and within which timeouts.
use std::time::Duration;

use smallvec::SmallVec;

use crate::config::route::{Forward, MaxStreamDuration, RateLimitedBackOff, RetryOn, RetryPolicy};
use crate::known::Known;
use crate::local_reply::ResetReason;
use crate::matcher::Headers;
use crate::router::is_grpc;

/// How a try ended.
#[derive(Clone, Copy)]
pub enum Outcome<'a, H: Headers + ?Sized> {
    /// Response headers came.
    Response {
        /// Status.
        status: u16,
        /// Response headers.
        headers: &'a H,
    },
    /// No response.
    Reset {
        /// Why.
        reason: ResetReason,
        /// Whether any byte of the request was written upstream.
        request_started: bool,
    },
    /// The time of this try is over.
    PerTryTimeout,
}

/// The retry settings of one request: the route's, joined with trusted request headers.
#[derive(Clone, Debug)]
pub struct Retry<'a> {
    policy: Option<&'a RetryPolicy>,
    on: RetryOn,
    extra_codes: Vec<u16>,
    /// Tries left beyond those made.
    pub left: u32,
    done: u32,
}

impl<'a> Retry<'a> {
    /// Settings of a request. `trusted` = headers may speak (not an edge request).
    #[must_use]
    pub fn new<H: Headers + ?Sized>(
        policy: Option<&'a RetryPolicy>,
        headers: &H,
        trusted: bool,
    ) -> Self {
        let mut retry = Self {
            policy,
            on: policy.map_or(RetryOn::default(), |p| p.on),
            extra_codes: Vec::new(),
            left: policy.map_or(1, |p| p.num_retries),
            done: 0,
        };
        if let Some(policy) = policy.filter(|p| !p.retriable_request_headers.is_empty())
            && !policy
                .retriable_request_headers
                .iter()
                .any(|m| m.matches(headers))
        {
            // No retry is called for, so none is missed either.
            retry.on = RetryOn::default();
            retry.left = 0;
            return retry;
        }
        if trusted {
            retry.read_headers(headers);
        }
        if retry.on == RetryOn::default() {
            retry.left = 0;
        }
        retry
    }

    fn read_headers<H: Headers + ?Sized>(&mut self, headers: &H) {
        let text = |name| std::str::from_utf8(headers.known(name)?).ok();
        for name in [Known::XEnvoyRetryOn, Known::XEnvoyRetryGrpcOn] {
            if let Some(list) = text(name) {
                self.on = self.on.with(RetryOn::parse(list).0);
            }
        }
        if let Some(codes) = text(Known::XEnvoyRetriableStatusCodes) {
            self.extra_codes = codes
                .split(',')
                .filter_map(|c| c.trim().parse().ok())
                .collect();
        }
        if let Some(max) = text(Known::XEnvoyMaxRetries).and_then(|v| v.trim().parse().ok()) {
            self.left = max;
        }
    }

    /// Whether any retry may happen at all (the request body must then be kept).
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.left > 0
    }

    /// Whether the outcome is one to retry, tries left or not.
    #[must_use]
    pub fn wanted<H: Headers + ?Sized>(&self, outcome: &Outcome<'_, H>) -> bool {
        match outcome {
            Outcome::Response { status, headers } => self.wants_response(*status, *headers),
            Outcome::Reset {
                reason,
                request_started,
            } => self.wants_reset(*reason, *request_started),
            Outcome::PerTryTimeout => self.wants_any(&[
                RetryOn::SERVER_ERROR,
                RetryOn::GATEWAY_ERROR,
                RetryOn::RESET,
            ]),
        }
    }

    /// Takes one try. False when none is left.
    pub fn take(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.done += 1;
        true
    }

    fn wants_any(&self, list: &[RetryOn]) -> bool {
        list.iter().any(|on| self.on.has(*on))
    }

    fn wants_reset(&self, reason: ResetReason, request_started: bool) -> bool {
        if reason == ResetReason::Overflow {
            return false;
        }
        let connect = matches!(
            reason,
            ResetReason::LocalConnectionFailure
                | ResetReason::RemoteConnectionFailure
                | ResetReason::ConnectionTimeout
        );
        self.wants_any(&[
            RetryOn::SERVER_ERROR,
            RetryOn::GATEWAY_ERROR,
            RetryOn::RESET,
        ]) || (self.on.has(RetryOn::RESET_BEFORE_REQUEST) && !request_started)
            || (self.on.has(RetryOn::REFUSED_STREAM)
                && reason == ResetReason::RemoteRefusedStreamReset)
            || (self.on.has(RetryOn::CONNECT_FAILURE) && connect)
    }

    fn wants_response<H: Headers + ?Sized>(&self, status: u16, headers: &H) -> bool {
        if headers.known(Known::XEnvoyRatelimited).is_some() {
            return self.on.has(RetryOn::ENVOY_RATELIMITED);
        }
        let listed = || {
            self.extra_codes.contains(&status)
                || self
                    .policy
                    .is_some_and(|p| p.retriable_status_codes.contains(&status))
        };
        let header = || {
            self.policy
                .is_some_and(|p| p.retriable_headers.iter().any(|m| m.matches(headers)))
        };
        (self.on.has(RetryOn::SERVER_ERROR) && (500..600).contains(&status))
            || (self.on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (self.on.has(RetryOn::RETRIABLE_4XX) && status == 409)
            || (self.on.has(RetryOn::RETRIABLE_STATUS_CODES) && listed())
            || (self.on.has(RetryOn::RETRIABLE_HEADERS) && header())
            || self.wants_grpc(headers)
    }

    fn wants_grpc<H: Headers + ?Sized>(&self, headers: &H) -> bool {
        let status = headers.known(Known::GrpcStatus);
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u32>().ok();
        let bit = match status.and_then(number) {
            Some(1) => RetryOn::GRPC_CANCELLED,
            Some(4) => RetryOn::GRPC_DEADLINE_EXCEEDED,
            Some(8) => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            Some(13) => RetryOn::GRPC_INTERNAL,
            Some(14) => RetryOn::GRPC_UNAVAILABLE,
            _ => return false,
        };
        self.on.has(bit)
    }

    /// How long to wait before the next try (after [`Self::take`]): full jitter over
    /// `base * 2^n`, capped.
    #[must_use]
    pub fn back_off(&self, random: u64) -> Duration {
        let (base, max) = self.policy.map_or(
            (Duration::from_millis(25), Duration::from_millis(250)),
            |p| (p.base_interval, p.max_interval),
        );
        back_off(base, max, self.done.saturating_sub(1), random)
    }

    /// How long the upstream told to wait, where the policy listens to it.
    #[must_use]
    pub fn told_back_off<H: Headers + ?Sized>(
        &self,
        headers: &H,
        unix_seconds: u64,
        random: u64,
    ) -> Option<Duration> {
        let told: &RateLimitedBackOff = self.policy?.rate_limited_back_off.as_ref()?;
        told.reset_headers.iter().find_map(|(name, is_time)| {
            let n: u64 = std::str::from_utf8(headers.first(name)?)
                .ok()?
                .trim()
                .parse()
                .ok()?;
            let seconds = if *is_time {
                n.checked_sub(unix_seconds)?
            } else {
                n
            };
            let wait = Duration::from_secs(seconds);
            // Up to half as long again, so that clients do not come back together.
            (wait <= told.max_interval)
                .then(|| wait + wait.mul_f64((random % 1000) as f64 / 2000.0))
        })
    }
}

/// Full-jitter exponential back-off: a random time below `min(base * 2^n, max)`.
#[must_use]
pub fn back_off(base: Duration, max: Duration, n: u32, random: u64) -> Duration {
    let cap = base
        .saturating_mul(1_u32.checked_shl(n).unwrap_or(u32::MAX))
        .min(max);
    let nanos = u64::try_from(cap.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.max(1))
}

/// What goes upstream as `grpc-timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcTime {
    /// As long as the proxy waits for the try, where that is bounded.
    OfTry,
    /// So long.
    Fixed(Duration),
}

/// The timeouts of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Whole request; none = off.
    pub global: Option<Duration>,
    /// Each try; none = off.
    pub per_try: Option<Duration>,
    /// Stream duration from `grpc-timeout` or the route; none = off.
    pub max_duration: Option<Duration>,
    /// What a gRPC request is told to have; none = what it says itself.
    pub told: Option<GrpcTime>,
    /// Longest life of one try's stream, in place of the cluster's; zero = none.
    pub upstream: Option<Duration>,
}

/// Computes the timeouts of a request. Trusted requests may set them by header.
#[must_use]
pub fn timeouts<H: Headers + ?Sized>(
    forward: &Forward,
    retry_policy: Option<&RetryPolicy>,
    headers: &H,
    trusted: bool,
    respect_expected: bool,
) -> Timeouts {
    let ms = |name| {
        let v = std::str::from_utf8(headers.known(name)?).ok()?;
        v.trim().parse().ok().map(Duration::from_millis)
    };
    let limits = forward.max_stream_duration.as_deref();
    let (mut told, mut max_duration) = (None, None);
    let mut global = match limits {
        None => forward.timeout,
        Some(limits) if limits.of_request && is_grpc(headers) => {
            told = Some(GrpcTime::OfTry);
            grpc_request_timeout(limits, headers)
        }
        Some(limits) if limits.of_request => forward.timeout,
        // A longest life of streams takes the place of the route's timeout.
        Some(limits) => {
            let time;
            (max_duration, time) = stream_duration(limits, headers);
            told = time.map(GrpcTime::Fixed);
            None
        }
    };
    let mut per_try = retry_policy.and_then(|p| p.per_try_timeout);
    if trusted {
        let told = if respect_expected {
            ms(Known::XEnvoyExpectedRqTimeoutMs)
        } else {
            None
        };
        if let Some(t) = told.or_else(|| ms(Known::XEnvoyUpstreamRqTimeoutMs)) {
            global = (!t.is_zero()).then_some(t);
        }
        if let Some(t) = ms(Known::XEnvoyUpstreamRqPerTryTimeoutMs) {
            per_try = (!t.is_zero()).then_some(t);
        }
    }
    if per_try >= global && global.is_some() {
        per_try = None;
    }
    let of_header = trusted.then(|| ms(Known::XEnvoyUpstreamStreamDurationMs));
    Timeouts {
        global,
        per_try,
        upstream: of_header.flatten(),
        told,
        max_duration,
    }
}

/// The whole time of a gRPC request by `max_grpc_timeout`; none = off.
fn grpc_request_timeout<H: Headers + ?Sized>(
    limits: &MaxStreamDuration,
    headers: &H,
) -> Option<Duration> {
    let told = headers.known(Known::GrpcTimeout).and_then(grpc_timeout);
    let told = told.unwrap_or_default();
    let offset = limits.grpc_timeout_header_offset.unwrap_or_default();
    let told = if offset < told { told - offset } else { told };
    let max = limits.grpc_timeout_header_max.unwrap_or_default();
    // Zero is no bound on either side.
    let bound = match (told.is_zero(), max.is_zero()) {
        (_, true) => told,
        (true, false) => max,
        (false, false) => told.min(max),
    };
    Some(bound).filter(|d| !d.is_zero())
}

/// How long the stream lives, and what a gRPC request is told of it.
fn stream_duration<H: Headers + ?Sized>(
    limits: &MaxStreamDuration,
    headers: &H,
) -> (Option<Duration>, Option<Duration>) {
    let grpc = is_grpc(headers);
    let by_header = limits.grpc_timeout_header_max.filter(|_| grpc);
    let by_header = by_header.and_then(|cap| {
        let told = grpc_timeout(headers.known(Known::GrpcTimeout)?)?;
        let told = if cap.is_zero() { told } else { told.min(cap) };
        let offset = limits.grpc_timeout_header_offset.unwrap_or_default();
        Some(if offset < told { told - offset } else { told })
    });
    match by_header {
        // Who asks for no time at all is told so at once, as by Envoy: zero stands for no limit
        // further on.
        Some(told) => (Some(told.max(Duration::from_millis(1))), Some(told)),
        None => {
            let max = limits.max.filter(|d| !d.is_zero());
            (max, max.filter(|_| grpc))
        }
    }
}

/// A time as `grpc-timeout`: the smallest unit from milliseconds on that needs no more than eight
/// digits.
#[must_use]
pub fn grpc_timeout_text(time: Duration) -> SmallVec<[u8; 16]> {
    const MOST: u128 = 99_999_999;
    let mut left = time.as_nanos().div_ceil(1_000_000);
    let mut unit = b'm';
    for (larger, next) in [(1000, b'S'), (60, b'M'), (60, b'H')] {
        if left > MOST {
            (left, unit) = (left / larger, next);
        }
    }
    let mut digits = itoa::Buffer::new();
    let mut text = SmallVec::from_slice(digits.format(left.min(MOST)).as_bytes());
    text.push(unit);
    text
}

/// Reads `grpc-timeout`: up to eight digits and a unit.
#[must_use]
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        // In whole milliseconds, as Envoy counts.
        b'u' => Duration::from_millis(n.div_ceil(1000)),
        b'n' => Duration::from_millis(n.div_ceil(1_000_000)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::HeaderList;

    fn policy(on: &str) -> RetryPolicy {
        let (on, unknown) = RetryOn::parse(on);
        assert_eq!(unknown, None);
        RetryPolicy {
            on,
            num_retries: 2,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: vec![503],
            retriable_headers: vec![],
            retriable_request_headers: vec![],
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            rate_limited_back_off: None,
            previous_hosts: true,
            host_selection_max_attempts: 5,
            previous_priorities: None,
        }
    }

    #[test]
    fn istio_default_list() {
        let p =
            policy("connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes");
        let none = HeaderList::default();
        let r = Retry::new(Some(&p), &none, false);
        let reset = |reason, request_started| {
            r.wanted::<HeaderList>(&Outcome::Reset {
                reason,
                request_started,
            })
        };
        assert!(reset(ResetReason::RemoteConnectionFailure, false));
        assert!(reset(ResetReason::RemoteRefusedStreamReset, true));
        assert!(
            !reset(ResetReason::ConnectionTermination, true),
            "a written request is not sent twice"
        );
        assert!(!reset(ResetReason::Overflow, false));
        let status = |status, h: &HeaderList| r.wanted(&Outcome::Response { status, headers: h });
        assert!(status(503, &none));
        assert!(!status(500, &none));
        assert!(status(200, &HeaderList::of(&[("grpc-status", "14")])));
        assert!(!status(
            503,
            &HeaderList::of(&[("x-envoy-ratelimited", "true")])
        ));
        assert!(!r.wanted::<HeaderList>(&Outcome::PerTryTimeout));
    }

    #[test]
    fn inbound_default() {
        let p = policy("reset-before-request");
        let none = HeaderList::default();
        let mut r = Retry::new(Some(&p), &none, false);
        let reset = |r: &Retry<'_>, s| {
            r.wanted::<HeaderList>(&Outcome::Reset {
                reason: ResetReason::ConnectionTermination,
                request_started: s,
            })
        };
        assert!(reset(&r, false));
        assert!(!reset(&r, true));
        assert!(r.take() && r.take() && !r.take());
    }

    #[test]
    fn headers_add_only_when_trusted() {
        let h = HeaderList::of(&[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "7")]);
        assert!(!Retry::new(None, &h, false).enabled());
        let r = Retry::new(None, &h, true);
        assert_eq!(r.left, 7);
        assert!(r.wanted(&Outcome::Response {
            status: 500,
            headers: &HeaderList::default()
        }));
    }

    #[test]
    fn back_off_is_jittered_and_capped() {
        let (base, max) = (Duration::from_millis(25), Duration::from_millis(250));
        for n in 0..40 {
            for random in [0, 1, u64::MAX / 3, u64::MAX] {
                let cap = base.saturating_mul(1 << n.min(20)).min(max);
                assert!(back_off(base, max, n, random) < cap, "{n}");
            }
        }
    }

    #[test]
    fn no_grpc_timeout_escapes_its_bound() {
        let ms = Duration::from_millis;
        let limits = |max, offset| MaxStreamDuration {
            of_request: false,
            max: Some(ms(2000)),
            grpc_timeout_header_max: Some(ms(max)),
            grpc_timeout_header_offset: Some(ms(offset)),
        };
        let asks = |time: &str| {
            let mut list = HeaderList::of(&[("content-type", "application/grpc")]);
            if !time.is_empty() {
                list.0.push(("grpc-timeout".into(), time.into()));
            }
            list
        };
        for (max, offset, time, lives, told) in [
            (400, 0, "0S", 1, 0),
            (400, 0, "150m", 150, 150),
            (400, 0, "5S", 400, 400),
            (400, 100, "5S", 300, 300),
            (400, 400, "5S", 400, 400),
            (0, 0, "5S", 5000, 5000),
            (0, 0, "", 2000, 2000),
        ] {
            let got = stream_duration(&limits(max, offset), &asks(time));
            assert_eq!(got, (Some(ms(lives)), Some(ms(told))), "{max} {time}");
        }
        let other = stream_duration(&limits(400, 0), &HeaderList::default());
        assert_eq!(other, (Some(ms(2000)), None));
        for (max, offset, time, whole) in [
            (400, 0, "", Some(400)),
            (400, 0, "5S", Some(400)),
            (400, 0, "300m", Some(300)),
            (400, 100, "300m", Some(200)),
            (400, 0, "0S", Some(400)),
            (0, 0, "5S", Some(5000)),
            (0, 0, "", None),
        ] {
            let got = grpc_request_timeout(&limits(max, offset), &asks(time));
            assert_eq!(got, whole.map(ms), "{max} {time}");
        }
    }

    #[test]
    fn grpc_timeouts_as_text() {
        for (ms, want) in [
            (0, "0m"),
            (400, "400m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (359_999_996_400_000, "99999999H"),
            (u64::MAX, "99999999H"),
        ] {
            let text = grpc_timeout_text(Duration::from_millis(ms));
            assert_eq!(&text[..], want.as_bytes());
        }
        let part = Duration::from_micros(900_001);
        assert_eq!(&grpc_timeout_text(part)[..], b"901m");
    }

    #[test]
    fn grpc_timeouts() {
        assert_eq!(grpc_timeout(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(grpc_timeout(b"5m"), Some(Duration::from_millis(5)));
        assert_eq!(grpc_timeout(b"123456789m"), None);
        assert_eq!(grpc_timeout(b"m"), None);
        assert_eq!(grpc_timeout(b"1x"), None);
    }
}
