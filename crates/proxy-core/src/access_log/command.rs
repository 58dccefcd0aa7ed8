//! The operators of access-log formats and the record that gives their values.
use std::net::SocketAddr;

use super::time::TimeFormat;
use crate::config::{Name, Value};
use crate::flags::ResponseFlags;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Text as it is.
    Literal(Name),
    /// A value, cut to so many bytes.
    Command(Command, Option<usize>),
}

/// An operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Request header, or the other if it is absent. Lower-case names.
    RequestHeader(Name, Option<Name>),
    /// Response header.
    ResponseHeader(Name, Option<Name>),
    /// Response trailer.
    ResponseTrailer(Name, Option<Name>),
    /// Bytes of a header's value: 0 request, 1 response, 2 trailer.
    Time(TimePoint, TimeFormat),
    /// Time between two points.
    Duration(TimePoint, TimePoint, DurationUnit),
    /// A plain field.
    Field(Field),
    /// Part of an address field.
    AddressPart(Field, AddressPart),
    /// A field as it is, white space included.
    Spaced(Field),
    /// SNI or host.
    ServerName(ServerName, HostName),
    /// The first of these that has a value.
    Coalesce(Vec<Op>),
    /// gRPC status.
    GrpcStatus(GrpcStatusForm),
    /// Metadata: where, namespace, keys.
    Metadata(MetadataSource, Name, Vec<Name>),
    /// Filter state: of the upstream side, key.
    FilterState(bool, Name),
    /// Environment variable of the process.
    Environment(Name),
    /// Query parameter of the request path.
    QueryParameter(Name),
    /// Path: with query, original before rewrite.
    Path {
        /// Query is kept.
        query: bool,
        /// Which path.
        source: PathSource,
    },
}

/// Which path `%PATH()%` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// As it is now.
    Current,
    /// Before a rewrite; missing when there was none.
    Original,
    /// Before a rewrite, else as it is.
    OriginalOrCurrent,
}

/// Which name of the server `%REQUESTED_SERVER_NAME()%` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// The TLS hello's.
    SniOnly,
    /// The hello's, else the request's host.
    SniFirst,
    /// The request's host, else the hello's.
    HostFirst,
}

/// Which host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostName {
    /// As it is now.
    Host,
    /// Before a rewrite; missing when there was none.
    Original,
    /// Before a rewrite, else as it is.
    OriginalOrHost,
}

/// A plain field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "each is the operator of the same name, documented by Envoy's access log"
)]
pub enum Field {
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    BytesReceived,
    BytesSent,
    BytesRetransmitted,
    PacketsRetransmitted,
    UpstreamWireBytesSent,
    UpstreamWireBytesReceived,
    DownstreamWireBytesSent,
    DownstreamWireBytesReceived,
    UpstreamHost,
    UpstreamHostName,
    UpstreamHostNameWithoutPort,
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamConnectionId,
    UpstreamLocalAddress,
    UpstreamRemoteAddress,
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    UpstreamHostsAttempted,
    UpstreamHostsAttemptedWithoutPort,
    UpstreamHostNamesAttemptedWithoutPort,
    UpstreamHostNamesAttempted,
    UpstreamConnectionIdsAttempted,
    UpstreamTlsVersion,
    UpstreamTlsCipher,
    UpstreamTlsGroup,
    UpstreamTlsSessionId,
    UpstreamPeerIssuer,
    UpstreamPeerSubject,
    UpstreamPeerUriSan,
    UpstreamPeerDnsSan,
    UpstreamPeerIpSan,
    UpstreamPeerCert,
    UpstreamConnectionPoolReadyDuration,
    DownstreamTransportFailureReason,
    DownstreamLocalAddress,
    DownstreamDirectLocalAddress,
    DownstreamRemoteAddress,
    DownstreamDirectRemoteAddress,
    DownstreamPeerUriSan,
    DownstreamPeerDnsSan,
    DownstreamPeerIpSan,
    DownstreamPeerEmailSan,
    DownstreamPeerSubject,
    DownstreamPeerIssuer,
    DownstreamPeerSerial,
    DownstreamPeerFingerprint256,
    DownstreamPeerFingerprint1,
    DownstreamPeerCert,
    DownstreamLocalUriSan,
    DownstreamLocalDnsSan,
    DownstreamLocalIpSan,
    DownstreamPeerChainFingerprints256,
    DownstreamPeerChainFingerprints1,
    DownstreamPeerChainSerials,
    DownstreamTlsGroup,
    DownstreamLocalSubject,
    DownstreamTlsSessionId,
    DownstreamTlsCipher,
    DownstreamTlsVersion,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    ListenerName,
    ListenerMetadata,
    FilterChainName,
    ConnectionId,
    StreamId,
    TraceId,
    SpanId,
    Hostname,
    AccessLogType,
    LocalReplyBody,
    CustomFlags,
    UniqueId,
    RequestHeadersBytes,
    ResponseHeadersBytes,
    ResponseTrailersBytes,
}

/// Part of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPart {
    /// Without port.
    Host,
    /// Port only.
    Port,
    /// The network of so many bits that it is in.
    Prefix(u8),
}

/// A point in the life of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimePoint {
    /// Stream start.
    Start,
    /// Log line is written.
    Emit,
    /// Last byte of the request received.
    DownstreamRxEnd,
    /// Upstream connect begins.
    UpstreamConnectStart,
    /// Upstream connect ended.
    UpstreamConnectEnd,
    /// Upstream TLS ended.
    UpstreamTlsConnectEnd,
    /// First byte sent upstream.
    UpstreamTxStart,
    /// Last byte sent upstream.
    UpstreamTxEnd,
    /// First byte received from upstream.
    UpstreamRxStart,
    /// Body began to arrive from upstream.
    UpstreamRxBody,
    /// Last byte received from upstream.
    UpstreamRxEnd,
    /// First byte sent downstream.
    DownstreamTxStart,
    /// Last byte sent downstream.
    DownstreamTxEnd,
    /// Last byte acknowledged downstream.
    DownstreamLastAck,
    /// Downstream TLS handshake ended.
    DownstreamHandshakeEnd,
    /// Stream end.
    End,
    /// Peer certificate valid from.
    PeerCertStart,
    /// Peer certificate valid until.
    PeerCertEnd,
    /// Upstream certificate valid from.
    UpstreamPeerCertStart,
    /// Upstream certificate valid until.
    UpstreamPeerCertEnd,
}

/// Unit of `COMMON_DURATION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationUnit {
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatusForm {
    /// `NotFound`.
    Camel,
    /// `NOT_FOUND`.
    Snake,
    /// `5`.
    Number,
}

/// Where metadata is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetadataSource {
    /// Set by filters on this stream.
    Dynamic,
    /// The cluster's.
    Cluster,
    /// The chosen endpoint's.
    UpstreamHost,
    /// The route's.
    Route,
    /// The listener's.
    Listener,
    /// The virtual host's.
    VirtualHost,
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// Not there: `-` in text, `null` in JSON.
    Missing,
    /// Text.
    Text(&'a str),
    /// Text that may not be UTF-8.
    Bytes(&'a [u8]),
    /// Text made for this record.
    Owned(String),
    /// Number.
    Number(u64),
    /// Address with port.
    Address(SocketAddr),
    /// Flags; an empty set is `-`, in JSON too.
    Flags(ResponseFlags),
}

impl<'a> From<Option<&'a str>> for FieldValue<'a> {
    fn from(value: Option<&'a str>) -> Self {
        value.map_or(Self::Missing, Self::Text)
    }
}

impl From<Option<SocketAddr>> for FieldValue<'_> {
    fn from(value: Option<SocketAddr>) -> Self {
        value.map_or(Self::Missing, Self::Address)
    }
}

impl From<Option<u64>> for FieldValue<'_> {
    fn from(value: Option<u64>) -> Self {
        value.map_or(Self::Missing, Self::Number)
    }
}

/// What a finished (or running) stream tells its log. Absent things have defaults, so that a TCP
/// record is short.
pub trait Record {
    /// A plain field.
    fn field(&self, field: Field) -> FieldValue<'_>;

    /// A point in time: nanoseconds since the Unix epoch.
    fn time(&self, point: TimePoint) -> Option<u64>;

    /// First line of a request header (lower-case name, pseudo headers too).
    fn request_header(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    /// First line of a response header (lower-case name).
    fn response_header(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    /// First line of a response trailer (lower-case name).
    fn response_trailer(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    /// gRPC status: from trailers, headers, or mapped.
    fn grpc_status(&self) -> Option<u32> {
        let read = |v: &[u8]| std::str::from_utf8(v).ok()?.trim().parse().ok();
        self.response_trailer("grpc-status")
            .or_else(|| self.response_header("grpc-status"))
            .and_then(read)
    }

    /// Metadata of a namespace.
    fn metadata(&self, _source: MetadataSource, _namespace: &str) -> Option<&Value> {
        None
    }

    /// Filter state by key, of the upstream side or of the stream.
    fn filter_state(&self, _upstream: bool, _key: &str) -> FieldValue<'_> {
        FieldValue::Missing
    }

    /// An environment variable of the process.
    fn environment(&self, _name: &str) -> Option<&str> {
        None
    }
}
