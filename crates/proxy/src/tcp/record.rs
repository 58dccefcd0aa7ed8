//! The record of one proxied TCP connection, for its log line.

use std::rc::Rc;

use lateen_proxy_core::access_log::{Field, FieldValue, MetadataSource, Record, TimePoint};
use lateen_proxy_core::config::{Name, Value};
use lateen_proxy_core::flags::ResponseFlags;
use smallvec::SmallVec;

use crate::conn::Connection;
use crate::http::record::{connection_field, now_ns, uuid};
use crate::http::upstream_side::UpstreamSide;
use crate::tls::session::UpstreamSession;
use crate::upstream::{ClusterState, Host};

/// What happened on a TCP connection.
#[derive(Debug)]
pub struct TcpRecord {
    /// The downstream connection.
    pub conn: Rc<Connection>,
    /// Why it ended as it did.
    pub flags: ResponseFlags,
    /// Details.
    pub details: &'static str,
    /// Chosen cluster's name.
    pub cluster_name: Option<Name>,
    /// Chosen cluster.
    pub cluster: Option<Rc<ClusterState>>,
    /// Chosen host.
    pub host: Option<Rc<Host>>,
    /// Our address of the upstream connection.
    pub upstream_local: Option<std::net::SocketAddr>,
    /// TLS of the upstream connection.
    pub upstream_tls: Option<Rc<UpstreamSession>>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Why the upstream transport failed.
    pub transport_failure: String,
    /// Connect attempts.
    pub attempts: u32,
    /// The host a connection was had to, with its number.
    pub reached: SmallVec<[(Rc<Host>, u64); 1]>,
    /// A number of its own, for `%STREAM_ID%`.
    pub stream_id: u128,
    /// When connecting to the upstream began and ended; 0 = not.
    pub connect: (u64, u64),
    /// End, nanoseconds since the Unix epoch; 0 = running.
    pub end_ns: u64,
}

impl TcpRecord {
    /// A record of a connection that begins.
    pub fn new(conn: Rc<Connection>) -> Self {
        Self {
            conn,
            flags: ResponseFlags::NONE,
            details: "",
            cluster_name: None,
            cluster: None,
            host: None,
            upstream_local: None,
            upstream_tls: None,
            received: 0,
            sent: 0,
            transport_failure: String::new(),
            attempts: 0,
            reached: SmallVec::new(),
            stream_id: fastrand::u128(..),
            connect: (0, 0),
            end_ns: 0,
        }
    }

    /// Milliseconds from accept to now or end.
    pub fn duration_ms(&self) -> u64 {
        let end = if self.end_ns == 0 {
            now_ns()
        } else {
            self.end_ns
        };
        end.saturating_sub(self.conn.accepted_ns) / 1_000_000
    }
}

impl Record for TcpRecord {
    fn field(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::ResponseCode
            | Field::RequestHeadersBytes
            | Field::ResponseHeadersBytes
            | Field::ResponseTrailersBytes => FieldValue::Number(0),
            Field::StreamId => FieldValue::Owned(uuid(self.stream_id)),
            Field::LocalReplyBody => FieldValue::Text(""),
            Field::DownstreamWireBytesReceived | Field::UpstreamWireBytesSent => {
                FieldValue::Number(self.received)
            }
            Field::DownstreamWireBytesSent | Field::UpstreamWireBytesReceived => {
                FieldValue::Number(self.sent)
            }
            Field::ResponseFlags | Field::ResponseFlagsLong => FieldValue::Flags(self.flags),
            Field::ResponseCodeDetails => Some(self.details).filter(|d| !d.is_empty()).into(),
            Field::BytesReceived => FieldValue::Number(self.received),
            Field::BytesSent => FieldValue::Number(self.sent),
            Field::UpstreamLocalAddress => self.upstream_local.into(),
            Field::UpstreamRequestAttemptCount => FieldValue::Number(self.attempts.into()),
            Field::UpstreamTransportFailureReason => Some(self.transport_failure.as_str())
                .filter(|t| !t.is_empty())
                .into(),
            Field::AccessLogType => FieldValue::Text("TcpConnectionEnd"),
            Field::Hostname => FieldValue::Text(&self.conn.worker.hostname),
            _ => {
                let side = UpstreamSide {
                    host: self.host.as_ref(),
                    cluster: self.cluster.as_ref(),
                    cluster_name: self.cluster_name.as_ref(),
                    reached: &self.reached,
                    tls: self.upstream_tls.as_deref(),
                };
                match side.field(field) {
                    FieldValue::Missing => connection_field(&self.conn, field),
                    value => value,
                }
            }
        }
    }

    fn time(&self, point: TimePoint) -> Option<u64> {
        let at = match point {
            TimePoint::Start => self.conn.accepted_ns,
            TimePoint::Emit => now_ns(),
            TimePoint::End => self.end_ns,
            TimePoint::UpstreamConnectStart => self.connect.0,
            TimePoint::UpstreamConnectEnd => self.connect.1,
            point => match self.upstream_tls.as_ref().map_or(0, |tls| tls.time(point)) {
                0 => crate::http::tls_fields::time(&self.conn, point),
                at => at,
            },
        };
        (at != 0).then_some(at)
    }

    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Value> {
        match source {
            MetadataSource::Cluster => self.cluster.as_ref()?.config.metadata.get(namespace),
            MetadataSource::UpstreamHost => self.host.as_ref()?.endpoint.metadata.get(namespace),
            MetadataSource::Listener => self.conn.listener.metadata.get(namespace),
            _ => None,
        }
    }
}
