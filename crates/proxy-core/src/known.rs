//! The header names that the proxy itself looks for, as small numbers, so that
//! asking whether one is present is a bit test.

/// A header name the proxy knows by number; [`Known::Other`] is all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the header name it spells")]
pub enum Known {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    KeepAlive,
    ProxyConnection,
    Upgrade,
    Expect,
    Trailer,
    ContentType,
    UserAgent,
    Accept,
    Date,
    Server,
    Cookie,
    Authorization,
    Location,
    Via,
    Origin,
    Etag,
    Vary,
    CacheControl,
    AccessControlRequestMethod,
    AccessControlRequestHeaders,
    AccessControlAllowOrigin,
    AccessControlAllowMethods,
    AccessControlAllowHeaders,
    AccessControlAllowCredentials,
    AccessControlExposeHeaders,
    AccessControlMaxAge,
    GrpcStatus,
    GrpcMessage,
    GrpcTimeout,
    GrpcEncoding,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    XForwardedClientCert,
    XRequestId,
    XClientTraceId,
    Http2Settings,
    XEnvoyUpstreamServiceTime,
    XEnvoyAttemptCount,
    XEnvoyExpectedRqTimeoutMs,
    XEnvoyInternal,
    XEnvoyExternalAddress,
    XEnvoyDownstreamServiceCluster,
    XEnvoyDownstreamServiceNode,
    XEnvoyDecoratorOperation,
    XEnvoyOriginalPath,
    XEnvoyOriginalHost,
    XEnvoyOverloaded,
    XEnvoyDegraded,
    XEnvoyRatelimited,
    XEnvoyImmediateHealthCheckFail,
    XEnvoyRetryOn,
    XEnvoyRetryGrpcOn,
    XEnvoyMaxRetries,
    XEnvoyHedgeOnPerTryTimeout,
    XEnvoyUpstreamRqTimeoutMs,
    XEnvoyUpstreamRqPerTryTimeoutMs,
    XEnvoyUpstreamRqTimeoutAltResponse,
    XEnvoyUpstreamAltStatName,
    XEnvoyUpstreamStreamDurationMs,
    XEnvoyRetriableStatusCodes,
    XEnvoyRetriableHeaderNames,
    XEnvoyForceTrace,
    XEnvoyIpTags,
    XEnvoyOriginalUrl,
    XEnvoyOriginalDstHost,
    XEnvoyPeerMetadata,
    XEnvoyPeerMetadataId,
    XEnvoyFaultAbortRequest,
    XEnvoyFaultDelayRequest,
    Traceparent,
    Tracestate,
    XB3Traceid,
    XB3Spanid,
    XB3Parentspanid,
    XB3Sampled,
    XB3Flags,
    B3,
    SetCookie,
    ContentEncoding,
    AcceptEncoding,
    /// Any name not in this list.
    Other,
}

impl Known {
    /// The number of a lower-case name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let slot = slot(name);
        let known = SLOTS[slot];
        if known == Self::Other || NAMES[known as usize] == name {
            return known;
        }
        Self::look_on(name, slot)
    }

    /// Goes on from a slot that another name has.
    #[cold]
    fn look_on(name: &[u8], mut slot: usize) -> Self {
        loop {
            slot = (slot + 1) % SLOTS.len();
            let known = SLOTS[slot];
            if known == Self::Other || NAMES[known as usize] == name {
                return known;
            }
        }
    }

    /// The lower-case name; empty for [`Known::Other`].
    #[must_use]
    #[inline]
    pub const fn name(self) -> &'static str {
        let line = self.line();
        line.split_at(line.len().saturating_sub(2)).0
    }

    /// How a line of that name begins: the lower-case name, a colon and a space; empty for
    /// [`Known::Other`].
    #[must_use]
    #[inline]
    pub const fn line(self) -> &'static str {
        match self {
            Self::Host => "host: ",
            Self::Connection => "connection: ",
            Self::ContentLength => "content-length: ",
            Self::TransferEncoding => "transfer-encoding: ",
            Self::Te => "te: ",
            Self::KeepAlive => "keep-alive: ",
            Self::ProxyConnection => "proxy-connection: ",
            Self::Upgrade => "upgrade: ",
            Self::Expect => "expect: ",
            Self::Trailer => "trailer: ",
            Self::ContentType => "content-type: ",
            Self::UserAgent => "user-agent: ",
            Self::Accept => "accept: ",
            Self::Date => "date: ",
            Self::Server => "server: ",
            Self::Cookie => "cookie: ",
            Self::Authorization => "authorization: ",
            Self::Location => "location: ",
            Self::Via => "via: ",
            Self::Origin => "origin: ",
            Self::Etag => "etag: ",
            Self::Vary => "vary: ",
            Self::CacheControl => "cache-control: ",
            Self::AccessControlRequestMethod => "access-control-request-method: ",
            Self::AccessControlRequestHeaders => "access-control-request-headers: ",
            Self::AccessControlAllowOrigin => "access-control-allow-origin: ",
            Self::AccessControlAllowMethods => "access-control-allow-methods: ",
            Self::AccessControlAllowHeaders => "access-control-allow-headers: ",
            Self::AccessControlAllowCredentials => "access-control-allow-credentials: ",
            Self::AccessControlExposeHeaders => "access-control-expose-headers: ",
            Self::AccessControlMaxAge => "access-control-max-age: ",
            Self::GrpcStatus => "grpc-status: ",
            Self::GrpcMessage => "grpc-message: ",
            Self::GrpcTimeout => "grpc-timeout: ",
            Self::GrpcEncoding => "grpc-encoding: ",
            Self::XForwardedFor => "x-forwarded-for: ",
            Self::XForwardedProto => "x-forwarded-proto: ",
            Self::XForwardedHost => "x-forwarded-host: ",
            Self::XForwardedPort => "x-forwarded-port: ",
            Self::XForwardedClientCert => "x-forwarded-client-cert: ",
            Self::XRequestId => "x-request-id: ",
            Self::XClientTraceId => "x-client-trace-id: ",
            Self::Http2Settings => "http2-settings: ",
            Self::XEnvoyUpstreamServiceTime => "x-envoy-upstream-service-time: ",
            Self::XEnvoyAttemptCount => "x-envoy-attempt-count: ",
            Self::XEnvoyExpectedRqTimeoutMs => "x-envoy-expected-rq-timeout-ms: ",
            Self::XEnvoyInternal => "x-envoy-internal: ",
            Self::XEnvoyExternalAddress => "x-envoy-external-address: ",
            Self::XEnvoyDownstreamServiceCluster => "x-envoy-downstream-service-cluster: ",
            Self::XEnvoyDownstreamServiceNode => "x-envoy-downstream-service-node: ",
            Self::XEnvoyDecoratorOperation => "x-envoy-decorator-operation: ",
            Self::XEnvoyOriginalPath => "x-envoy-original-path: ",
            Self::XEnvoyOriginalHost => "x-envoy-original-host: ",
            Self::XEnvoyOverloaded => "x-envoy-overloaded: ",
            Self::XEnvoyDegraded => "x-envoy-degraded: ",
            Self::XEnvoyRatelimited => "x-envoy-ratelimited: ",
            Self::XEnvoyImmediateHealthCheckFail => "x-envoy-immediate-health-check-fail: ",
            Self::XEnvoyRetryOn => "x-envoy-retry-on: ",
            Self::XEnvoyRetryGrpcOn => "x-envoy-retry-grpc-on: ",
            Self::XEnvoyMaxRetries => "x-envoy-max-retries: ",
            Self::XEnvoyHedgeOnPerTryTimeout => "x-envoy-hedge-on-per-try-timeout: ",
            Self::XEnvoyUpstreamRqTimeoutMs => "x-envoy-upstream-rq-timeout-ms: ",
            Self::XEnvoyUpstreamRqPerTryTimeoutMs => "x-envoy-upstream-rq-per-try-timeout-ms: ",
            Self::XEnvoyUpstreamRqTimeoutAltResponse => {
                "x-envoy-upstream-rq-timeout-alt-response: "
            }
            Self::XEnvoyUpstreamAltStatName => "x-envoy-upstream-alt-stat-name: ",
            Self::XEnvoyUpstreamStreamDurationMs => "x-envoy-upstream-stream-duration-ms: ",
            Self::XEnvoyRetriableStatusCodes => "x-envoy-retriable-status-codes: ",
            Self::XEnvoyRetriableHeaderNames => "x-envoy-retriable-header-names: ",
            Self::XEnvoyForceTrace => "x-envoy-force-trace: ",
            Self::XEnvoyIpTags => "x-envoy-ip-tags: ",
            Self::XEnvoyOriginalUrl => "x-envoy-original-url: ",
            Self::XEnvoyOriginalDstHost => "x-envoy-original-dst-host: ",
            Self::XEnvoyPeerMetadata => "x-envoy-peer-metadata: ",
            Self::XEnvoyPeerMetadataId => "x-envoy-peer-metadata-id: ",
            Self::XEnvoyFaultAbortRequest => "x-envoy-fault-abort-request: ",
            Self::XEnvoyFaultDelayRequest => "x-envoy-fault-delay-request: ",
            Self::Traceparent => "traceparent: ",
            Self::Tracestate => "tracestate: ",
            Self::XB3Traceid => "x-b3-traceid: ",
            Self::XB3Spanid => "x-b3-spanid: ",
            Self::XB3Parentspanid => "x-b3-parentspanid: ",
            Self::XB3Sampled => "x-b3-sampled: ",
            Self::XB3Flags => "x-b3-flags: ",
            Self::B3 => "b3: ",
            Self::SetCookie => "set-cookie: ",
            Self::ContentEncoding => "content-encoding: ",
            Self::AcceptEncoding => "accept-encoding: ",
            Self::Other => "",
        }
    }

    /// The bit of this name in a presence mask.
    #[must_use]
    pub const fn bit(self) -> u128 {
        1 << (self as u8)
    }

    /// The bits of several names.
    #[must_use]
    pub const fn bits(names: &[Self]) -> u128 {
        let (mut bits, mut index) = (0, 0);
        while index < names.len() {
            bits |= names[index].bit();
            index += 1;
        }
        bits
    }

    /// The names that have these bits.
    pub fn of_bits(bits: u128) -> impl Iterator<Item = Self> {
        let has = move |name: &Self| bits & name.bit() != 0;
        ALL.into_iter().filter(has)
    }
}

/// Every name that has a number.
pub const ALL: [Known; 87] = [
    Known::Host,
    Known::Connection,
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Te,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Upgrade,
    Known::Expect,
    Known::Trailer,
    Known::ContentType,
    Known::UserAgent,
    Known::Accept,
    Known::Date,
    Known::Server,
    Known::Cookie,
    Known::Authorization,
    Known::Location,
    Known::Via,
    Known::Origin,
    Known::Etag,
    Known::Vary,
    Known::CacheControl,
    Known::AccessControlRequestMethod,
    Known::AccessControlRequestHeaders,
    Known::AccessControlAllowOrigin,
    Known::AccessControlAllowMethods,
    Known::AccessControlAllowHeaders,
    Known::AccessControlAllowCredentials,
    Known::AccessControlExposeHeaders,
    Known::AccessControlMaxAge,
    Known::GrpcStatus,
    Known::GrpcMessage,
    Known::GrpcTimeout,
    Known::GrpcEncoding,
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedClientCert,
    Known::XRequestId,
    Known::XClientTraceId,
    Known::Http2Settings,
    Known::XEnvoyUpstreamServiceTime,
    Known::XEnvoyAttemptCount,
    Known::XEnvoyExpectedRqTimeoutMs,
    Known::XEnvoyInternal,
    Known::XEnvoyExternalAddress,
    Known::XEnvoyDownstreamServiceCluster,
    Known::XEnvoyDownstreamServiceNode,
    Known::XEnvoyDecoratorOperation,
    Known::XEnvoyOriginalPath,
    Known::XEnvoyOriginalHost,
    Known::XEnvoyOverloaded,
    Known::XEnvoyDegraded,
    Known::XEnvoyRatelimited,
    Known::XEnvoyImmediateHealthCheckFail,
    Known::XEnvoyRetryOn,
    Known::XEnvoyRetryGrpcOn,
    Known::XEnvoyMaxRetries,
    Known::XEnvoyHedgeOnPerTryTimeout,
    Known::XEnvoyUpstreamRqTimeoutMs,
    Known::XEnvoyUpstreamRqPerTryTimeoutMs,
    Known::XEnvoyUpstreamRqTimeoutAltResponse,
    Known::XEnvoyUpstreamAltStatName,
    Known::XEnvoyUpstreamStreamDurationMs,
    Known::XEnvoyRetriableStatusCodes,
    Known::XEnvoyRetriableHeaderNames,
    Known::XEnvoyForceTrace,
    Known::XEnvoyIpTags,
    Known::XEnvoyOriginalUrl,
    Known::XEnvoyOriginalDstHost,
    Known::XEnvoyPeerMetadata,
    Known::XEnvoyPeerMetadataId,
    Known::XEnvoyFaultAbortRequest,
    Known::XEnvoyFaultDelayRequest,
    Known::Traceparent,
    Known::Tracestate,
    Known::XB3Traceid,
    Known::XB3Spanid,
    Known::XB3Parentspanid,
    Known::XB3Sampled,
    Known::XB3Flags,
    Known::B3,
    Known::SetCookie,
    Known::ContentEncoding,
    Known::AcceptEncoding,
];

/// Where the look for a name begins. The factors were searched for: few of the names meet.
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    let (first, middle, last) = (name[0], name[len / 2], name[len - 1]);
    let late = name[len - 1 - len / 4];
    let mixed = len * 107 + first as usize * 39 + middle as usize * 147 + last as usize * 61;
    (mixed + late as usize) % 512
}

/// By [`slot`]; [`Known::Other`] ends the look. Most of it is empty, so a name without a number is
/// mostly told by one look.
static SLOTS: [Known; 512] = {
    let mut slots = [Known::Other; 512];
    let mut index = 0;
    while index < ALL.len() {
        let mut at = slot(ALL[index].name().as_bytes());
        while slots[at] as u8 != Known::Other as u8 {
            at = (at + 1) % slots.len();
        }
        slots[at] = ALL[index];
        index += 1;
    }
    slots
};

/// The names by number; that of [`Known::Other`], which has none, is the last.
static NAMES: [&[u8]; ALL.len() + 1] = {
    let mut names: [&[u8]; ALL.len() + 1] = [b""; ALL.len() + 1];
    let mut index = 0;
    while index < ALL.len() {
        names[ALL[index] as usize] = ALL[index].name().as_bytes();
        index += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for known in ALL {
            assert_eq!(Known::of(known.name().as_bytes()), known);
            assert_eq!(Known::of_bits(known.bit()).next(), Some(known));
        }
        assert_eq!(Known::of(b"x-unknown"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
        assert!((Known::Other as u8) < 128, "the mask has 128 bits");
    }

    #[test]
    fn a_name_is_found_in_few_looks() {
        let steps = |known: Known| {
            let name = known.name().as_bytes();
            let at = |step: usize| SLOTS[(slot(name) + step) % SLOTS.len()];
            let found = |step: &usize| at(*step) == known;
            (0..SLOTS.len()).find(found).unwrap()
        };
        let all: Vec<usize> = ALL.iter().map(|known| steps(*known)).collect();
        assert!(all.iter().sum::<usize>() < ALL.len() / 2, "{all:?}");
    }
}
