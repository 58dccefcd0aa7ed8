//! The record of one stream: what happened, from the first byte to the last.
//! Log lines, metrics and retries all read it, so they cannot disagree.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use lateen_proxy_core::access_log::{Field, FieldValue, MetadataSource, Record, TimePoint};
use lateen_proxy_core::config::{Fields, Name, Route, Value, VirtualHost};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::request_id;
use smallvec::SmallVec;

use super::access::{self, Verdicts};
use super::charge::Charge;
use super::head::Head;
use super::known::Known;
use super::trace::Trace;
use super::upstream_side::UpstreamSide;
use crate::conn::Connection;
use crate::io::clock;
use crate::tls::session::UpstreamSession;
use crate::upstream::{ClusterState, Host};

/// Nanoseconds since the Unix epoch.
pub fn now_ns() -> u64 {
    clock::wall_ns()
}

/// HTTP version of a side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Protocol {
    /// As logs write it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// Moments of a stream in nanoseconds since the Unix epoch; 0 = not yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// First byte of the request.
    pub start: u64,
    /// Last byte of the request.
    pub request_end: u64,
    /// Upstream connect began and ended.
    pub connect: (u64, u64),
    /// First byte sent upstream.
    pub upstream_sent: u64,
    /// Last byte sent upstream.
    pub upstream_sent_end: u64,
    /// First byte of the upstream's answer.
    pub upstream_first: u64,
    /// Last byte of the upstream's answer.
    pub upstream_end: u64,
    /// First byte of the answer sent downstream.
    pub response_start: u64,
    /// End of the stream.
    pub end: u64,
}

/// The record of one stream.
#[derive(Debug)]
pub struct StreamRecord {
    /// The connection it came on.
    pub conn: Rc<Connection>,
    /// Request head as it is now.
    pub request: Head,
    /// Response head as it is now.
    pub response: Head,
    /// Response trailers, where there were any.
    pub trailers: Head,
    /// Moments.
    pub times: Times,
    /// Status sent downstream; 0 = none.
    pub code: u16,
    /// Why.
    pub flags: ResponseFlags,
    /// Whose the answer is in the statistics.
    pub charge: Charge,
    /// Details of the status.
    pub details: Cow<'static, str>,
    /// Downstream protocol.
    pub protocol: Protocol,
    /// Upstream protocol.
    pub upstream_protocol: Option<Protocol>,
    /// Body bytes of the request.
    pub received: u64,
    /// Body bytes of the answer.
    pub sent: u64,
    /// Client address as the connection manager sees it.
    pub remote: SocketAddr,
    /// Chosen virtual host and route.
    pub route: Option<(Arc<VirtualHost>, Arc<Route>)>,
    /// Virtual host of a request that has no route.
    pub virtual_host: Option<Arc<VirtualHost>>,
    /// Chosen cluster's name.
    pub cluster_name: Option<Name>,
    /// Chosen cluster.
    pub cluster: Option<Rc<ClusterState>>,
    /// Where the route of a request leads that a filter answered.
    pub led_to: Option<Rc<ClusterState>>,
    /// Chosen host.
    pub host: Option<Rc<Host>>,
    /// Our address of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// TLS of the upstream connection.
    pub upstream_tls: Option<Rc<UpstreamSession>>,
    /// Tries.
    pub attempts: u32,
    /// The hosts a connection was had to, with its number.
    pub reached: SmallVec<[(Rc<Host>, u64); 1]>,
    /// Bytes from and to upstreams over HTTP/1, all tries together.
    pub upstream_wire: (u64, u64),
    /// The connection's bytes when its stream before ended (HTTP/1).
    pub wire_before: (u64, u64),
    /// The answer said that its connection ends.
    pub says_close: bool,
    /// Why the upstream transport failed.
    pub transport_failure: String,
    /// Whether the request is internal.
    pub internal: bool,
    /// It was decided that the request is traced.
    pub traced: bool,
    /// Its spans, where a provider takes them.
    pub trace: Option<Box<Trace>>,
    /// The operation that the answer is to tell.
    pub decorated: Option<Name>,
    /// Body of a local reply, for `%LOCAL_REPLY_BODY%`.
    pub local_body: Vec<u8>,
    /// A random number for shares, one per request.
    pub random: u64,
    /// The peer that named itself in a header, as the worker's
    /// [`crate::mesh::Mesh`] numbers it; 0 = none did.
    pub peer: u32,
    /// The path that was asked for where a rewrite changed it and a filter wants it.
    pub asked: Option<Box<[u8]>>,
    /// gRPC messages of the request and of the answer, where they are counted.
    pub messages: (u64, u64),
    /// What access control said.
    pub verdicts: Verdicts,
    /// What other filters found out, by namespace; none until one did.
    pub metadata: Option<Box<Fields>>,
}

impl StreamRecord {
    /// A record that has seen nothing.
    pub fn new(conn: Rc<Connection>) -> Self {
        Self {
            remote: conn.remote,
            conn,
            request: Head::new(),
            response: Head::new(),
            trailers: Head::new(),
            times: Times::default(),
            code: 0,
            flags: ResponseFlags::NONE,
            charge: Charge::default(),
            details: Cow::Borrowed(""),
            protocol: Protocol::Http11,
            upstream_protocol: None,
            received: 0,
            sent: 0,
            route: None,
            virtual_host: None,
            cluster_name: None,
            cluster: None,
            led_to: None,
            host: None,
            upstream_local: None,
            upstream_tls: None,
            attempts: 0,
            reached: SmallVec::new(),
            upstream_wire: (0, 0),
            wire_before: (0, 0),
            says_close: false,
            transport_failure: String::new(),
            internal: false,
            traced: false,
            trace: None,
            decorated: None,
            local_body: Vec::new(),
            random: 0,
            peer: 0,
            verdicts: Verdicts::default(),
            asked: None,
            messages: (0, 0),
            metadata: None,
        }
    }

    /// Begins the record of the connection's next stream; the request head was
    /// parsed into it already.
    pub fn begin(&mut self, protocol: Protocol, start_ns: u64) {
        self.response.clear();
        self.trailers.clear();
        self.times = Times {
            start: start_ns,
            ..Times::default()
        };
        self.code = 0;
        self.flags = ResponseFlags::NONE;
        self.charge = Charge::default();
        self.details = Cow::Borrowed("");
        self.protocol = protocol;
        self.upstream_protocol = None;
        self.received = 0;
        self.sent = 0;
        self.remote = self.conn.remote;
        self.route = None;
        self.virtual_host = None;
        self.cluster_name = None;
        self.cluster = None;
        self.led_to = None;
        self.host = None;
        self.upstream_local = None;
        self.upstream_tls = None;
        self.attempts = 0;
        self.reached.clear();
        self.upstream_wire = (0, 0);
        self.says_close = false;
        self.transport_failure.clear();
        self.internal = false;
        self.traced = false;
        self.trace = None;
        self.decorated = None;
        self.local_body.clear();
        self.random = fastrand::u64(..);
        self.peer = 0;
        self.verdicts.clear();
        self.asked = None;
        self.messages = (0, 0);
        self.metadata = None;
        self.conn.requests.set(self.conn.requests.get() + 1);
    }

    /// What filters found out in a namespace.
    pub fn dynamic_metadata(&self, namespace: &str) -> Option<&Value> {
        if namespace == access::NAMESPACE {
            return self.verdicts.metadata();
        }
        self.metadata.as_ref()?.get(namespace)
    }

    /// The cluster that the route leads to, asked or not.
    pub fn routed_cluster(&self) -> Option<&Rc<ClusterState>> {
        self.cluster.as_ref().or(self.led_to.as_ref())
    }

    /// Keeps what a filter found out; what the namespace has under that key goes.
    pub fn set_metadata(&mut self, namespace: &str, key: &str, value: Value) {
        let all = self.metadata.get_or_insert_default();
        let of = all.or_null(namespace);
        match of {
            Value::Struct(fields) => {
                fields.insert(key.into(), value);
            }
            other => *other = Value::Struct(Fields::from([(key.into(), value)])),
        }
    }

    /// The client went away before the end.
    pub fn client_gone(&mut self) {
        self.flags
            .set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
        self.details = Cow::Borrowed("downstream_remote_disconnect");
        self.conn.broken.set(true);
    }

    /// Milliseconds from the end of the request to that of the upstream's answer; none without one.
    pub fn upstream_ms(&self) -> Option<u64> {
        let times = &self.times;
        (times.upstream_first > 0 && self.details == "via_upstream").then(|| {
            let end = times.upstream_end.max(times.upstream_first);
            end.saturating_sub(times.request_end.max(times.start)) / 1_000_000
        })
    }

    /// Milliseconds from start to now or end.
    pub fn duration_ms(&self) -> u64 {
        let end = if self.times.end == 0 {
            now_ns()
        } else {
            self.times.end
        };
        end.saturating_sub(self.times.start) / 1_000_000
    }

    fn upstream_field(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::UpstreamProtocol => self.upstream_protocol.map(Protocol::text).into(),
            Field::UpstreamWireBytesReceived => FieldValue::Number(self.upstream_wire.0),
            Field::UpstreamWireBytesSent => FieldValue::Number(self.upstream_wire.1),
            Field::UpstreamConnectionPoolReadyDuration if self.host.is_some() => {
                let (from, to) = self.times.connect;
                FieldValue::Number(to.saturating_sub(from) / 1_000_000)
            }
            Field::UpstreamLocalAddress => self.upstream_local.into(),
            Field::UpstreamRequestAttemptCount => FieldValue::Number(self.attempts.into()),
            Field::UpstreamTransportFailureReason => Some(self.transport_failure.as_str())
                .filter(|t| !t.is_empty())
                .into(),
            _ => {
                let side = UpstreamSide {
                    host: self.host.as_ref(),
                    cluster: self.routed_cluster(),
                    cluster_name: self.cluster_name.as_ref(),
                    reached: &self.reached,
                    tls: self.upstream_tls.as_deref(),
                };
                side.field(field)
            }
        }
    }

    fn connection_field(&self, field: Field) -> FieldValue<'_> {
        connection_field(&self.conn, field)
    }
}

/// The fields that a connection alone answers.
pub fn connection_field(conn: &Connection, field: Field) -> FieldValue<'_> {
    let optional = |t: &'_ str| !t.is_empty();
    match field {
        Field::DownstreamLocalAddress => FieldValue::Address(conn.local),
        Field::DownstreamDirectLocalAddress => FieldValue::Address(conn.io.local),
        Field::DownstreamDirectRemoteAddress => FieldValue::Address(conn.io.peer),
        Field::DownstreamRemoteAddress => FieldValue::Address(conn.remote),
        Field::RequestedServerName => Some(conn.server_name.as_str())
            .filter(|t| optional(t))
            .into(),
        Field::ListenerName => FieldValue::Text(&conn.listener.name),
        Field::FilterChainName => Some(&*conn.chain.name).filter(|t| optional(t)).into(),
        Field::ConnectionId => FieldValue::Number(conn.id),
        Field::ConnectionTerminationDetails => match &*conn.termination.borrow() {
            Some(details) => FieldValue::Owned(details.clone()),
            None => FieldValue::Missing,
        },
        Field::DownstreamWireBytesReceived => FieldValue::Number(conn.io.counts().0),
        Field::DownstreamWireBytesSent => FieldValue::Number(conn.io.counts().1),
        // Only QUIC counts them, in Envoy too.
        Field::BytesRetransmitted | Field::PacketsRetransmitted => FieldValue::Number(0),
        // No filter here sets one.
        Field::CustomFlags => FieldValue::Text(""),
        Field::UniqueId => FieldValue::Owned(uuid(fastrand::u128(..))),
        _ => super::tls_fields::field(conn, field),
    }
}

/// A random number in the form of a request id.
pub fn uuid(random: u128) -> String {
    String::from_utf8_lossy(&request_id::make(random)).into_owned()
}

/// Bytes of names and values, as Envoy counts header maps.
fn line_bytes(head: &Head) -> usize {
    head.lines()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

fn request_size(head: &Head) -> u64 {
    let pseudo = [
        (":authority", head.authority()),
        (":path", head.path()),
        (":method", head.method()),
        (":scheme", head.scheme()),
    ];
    let some = pseudo.iter().filter(|(_, value)| !value.is_empty());
    let pseudo: usize = some.map(|(name, value)| name.len() + value.len()).sum();
    (line_bytes(head) + pseudo) as u64
}

impl Record for StreamRecord {
    fn field(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::Protocol => FieldValue::Text(self.protocol.text()),
            Field::ResponseCode => FieldValue::Number(self.code.into()),
            Field::ResponseCodeDetails => Some(&*self.details).filter(|d| !d.is_empty()).into(),
            Field::ResponseFlags | Field::ResponseFlagsLong => FieldValue::Flags(self.flags),
            Field::BytesReceived => FieldValue::Number(self.received),
            Field::BytesSent => FieldValue::Number(self.sent),
            Field::DownstreamRemoteAddress => FieldValue::Address(self.remote),
            Field::RouteName => {
                let name = self.route.as_ref().map(|(_, route)| &*route.name);
                name.filter(|n| !n.is_empty()).into()
            }
            Field::TraceId => match &self.trace {
                Some(trace) => FieldValue::Owned(trace.context.trace_text()),
                None => FieldValue::Missing,
            },
            Field::SpanId => match self.trace.as_ref().filter(|t| t.names_span) {
                Some(trace) => FieldValue::Owned(format!("{:016x}", trace.context.span_id)),
                None => FieldValue::Missing,
            },
            Field::StreamId => match self.request.known(Known::XRequestId) {
                Some(id) => FieldValue::Bytes(id),
                None => FieldValue::Missing,
            },
            Field::DownstreamWireBytesReceived | Field::DownstreamWireBytesSent => {
                // Of one stream among others nothing is known.
                if self.protocol == Protocol::Http2 {
                    return FieldValue::Missing;
                }
                let (now, before) = (self.conn.io.counts(), self.wire_before);
                FieldValue::Number(match field {
                    Field::DownstreamWireBytesReceived => now.0.saturating_sub(before.0),
                    _ => now.1.saturating_sub(before.1),
                })
            }
            Field::LocalReplyBody => FieldValue::Bytes(&self.local_body),
            Field::Hostname => FieldValue::Text(&self.conn.worker.hostname),
            Field::AccessLogType => FieldValue::Text("DownstreamEnd"),
            Field::RequestHeadersBytes => FieldValue::Number(request_size(&self.request)),
            Field::ResponseHeadersBytes => {
                let close = match self.says_close {
                    true => "connectionclose".len(),
                    false => 0,
                };
                let status = ":status200".len();
                FieldValue::Number((line_bytes(&self.response) + status + close) as u64)
            }
            Field::ResponseTrailersBytes => FieldValue::Number(line_bytes(&self.trailers) as u64),
            _ => match self.upstream_field(field) {
                FieldValue::Missing => self.connection_field(field),
                value => value,
            },
        }
    }

    fn time(&self, point: TimePoint) -> Option<u64> {
        let times = &self.times;
        let at = match point {
            TimePoint::Start => times.start,
            TimePoint::Emit => now_ns(),
            // A header that tells how long it took cannot wait for the end.
            TimePoint::End if times.end == 0 => now_ns(),
            TimePoint::End | TimePoint::DownstreamTxEnd => times.end,
            TimePoint::DownstreamRxEnd => times.request_end,
            // Only of a connection that was had.
            TimePoint::UpstreamConnectStart if !self.reached.is_empty() => times.connect.0,
            TimePoint::UpstreamConnectEnd if !self.reached.is_empty() => times.connect.1,
            TimePoint::UpstreamTxStart => times.upstream_sent,
            TimePoint::UpstreamTxEnd => times.upstream_sent_end,
            TimePoint::UpstreamRxStart => times.upstream_first,
            TimePoint::UpstreamRxBody if self.sent > 0 => times.upstream_first,
            TimePoint::UpstreamRxEnd => times.upstream_end,
            TimePoint::DownstreamTxStart => times.response_start,
            // Only of a connection that was opened for it.
            TimePoint::UpstreamTlsConnectEnd if times.connect.0 == 0 => 0,
            point => match self.upstream_tls.as_ref().map_or(0, |tls| tls.time(point)) {
                0 => super::tls_fields::time(&self.conn, point),
                at => at,
            },
        };
        (at != 0).then_some(at)
    }

    fn request_header(&self, name: &str) -> Option<&[u8]> {
        self.request.first(name.as_bytes())
    }

    fn response_header(&self, name: &str) -> Option<&[u8]> {
        self.response.first(name.as_bytes())
    }

    fn response_trailer(&self, name: &str) -> Option<&[u8]> {
        self.trailers.first(name.as_bytes())
    }

    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Value> {
        match source {
            MetadataSource::Cluster => self.routed_cluster()?.config.metadata.get(namespace),
            MetadataSource::UpstreamHost => self.host.as_ref()?.endpoint.metadata.get(namespace),
            MetadataSource::Route => self.route.as_ref()?.1.metadata.get(namespace),
            MetadataSource::VirtualHost => {
                let chosen = self.route.as_ref().map(|(host, _)| host);
                let host = chosen.or(self.virtual_host.as_ref())?;
                host.metadata.get(namespace)
            }
            MetadataSource::Listener => self.conn.listener.metadata.get(namespace),
            MetadataSource::Dynamic => self.dynamic_metadata(namespace),
        }
    }
}
