//! Clusters: discovery, balancing, limits, protocols, TLS.
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::headers::AppendAction;
use super::{
    BindConfig, ClusterLoadAssignment, Fields, Metadata, Name, Rare, UpstreamTls, Usual, Value,
};

use crate::matcher::StringMatcher;

/// A cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Resource name.
    pub name: Name,
    /// Name in statistics (`alt_stat_name` without Istio's trailing `;`, or the name).
    pub stat_name: Name,
    /// Where endpoints come from.
    pub discovery: ClusterDiscovery,
    /// Endpoints written in the cluster (STATIC, DNS).
    pub load_assignment: Option<Arc<ClusterLoadAssignment>>,
    /// How an endpoint is chosen.
    pub lb_policy: LbPolicy,
    /// Settings shared by all policies.
    pub lb_common: LbCommon,
    /// Subset balancing.
    pub subsets: Option<Arc<SubsetConfig>>,
    /// Time for TCP connect and TLS handshake. Default 5 s.
    pub connect_timeout: Duration,
    /// Soft limit of each buffer of an upstream connection, bytes. Default 1 MiB.
    pub per_connection_buffer_limit: u32,
    /// Limits for default priority, then for high.
    pub circuit_breakers: Rare<[CircuitBreaker; 2]>,
    /// Passive health checks; none = off.
    pub outlier_detection: Option<Arc<OutlierDetection>>,
    /// Active health checks.
    pub health_checks: Vec<HealthCheck>,
    /// HTTP towards endpoints.
    pub http: Rare<UpstreamHttp>,
    /// Transport when no match applies.
    pub transport_socket: TransportSocket,
    /// Transports chosen by endpoint metadata, first match wins.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// Binding of upstream sockets.
    pub bind: Option<Arc<BindConfig>>,
    /// TCP keep-alive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Metadata: Istio's `services`, `config`, `subset`.
    pub metadata: Metadata,
    /// Sends the connection's own PROXY protocol header: version 1 or 2.
    pub proxy_protocol: Option<u8>,
    /// Close all connections of a host that turns unhealthy.
    pub close_connections_on_host_health_failure: bool,
    /// Cluster filters of Istio (TCP metadata exchange) by protocol name.
    pub metadata_exchange: Option<Arc<super::istio::TcpMetadataExchange>>,
    /// One connection pool per downstream connection.
    pub connection_pool_per_downstream_connection: bool,
    /// The start waits for it. Default true.
    pub wait_for_warm: bool,
    /// Whether the cluster came over xDS.
    pub added_via_api: bool,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterDiscovery {
    /// Written in the cluster.
    Static,
    /// All addresses of the DNS names.
    StrictDns(Arc<Dns>),
    /// First address of the one DNS name, new connections follow it.
    LogicalDns(Arc<Dns>),
    /// EDS.
    Eds {
        /// Name to ask for; never empty (the cluster's name by default).
        service_name: Name,
    },
    /// Where the connection was going.
    OriginalDst(Arc<OriginalDst>),
}

/// DNS settings of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Time between look-ups. Default 5 s.
    pub refresh_rate: Duration,
    /// Follow the record's TTL instead.
    pub respect_ttl: bool,
    /// A shorter TTL counts as this one. Default 0.
    pub least_ttl: Duration,
    /// Back-off after a failure: (base, max); none = refresh rate.
    pub failure_refresh_rate: Option<(Duration, Duration)>,
    /// Random part added to each interval.
    pub jitter: Duration,
    /// Which families to ask for.
    pub family: DnsFamily,
    /// Who is asked.
    pub resolver: Resolver,
}

/// Who looks names up.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolver {
    /// The system's calls, which tell no TTL.
    System,
    /// The hosts file, then name servers.
    Servers(NameServers),
}

/// Name servers, and how they are asked.
#[derive(Clone, Debug, PartialEq)]
pub struct NameServers {
    /// Whom to ask; none = the machine's (`resolv.conf`).
    pub servers: Vec<std::net::SocketAddr>,
    /// They are asked only where the machine names none.
    pub as_fallback: bool,
    /// Over TCP from the start.
    pub tcp: bool,
    /// The machine's search domains are tried. Default true.
    pub search: bool,
    /// For one answer. Default 5 s.
    pub timeout: Duration,
    /// How often each is asked. Default 4.
    pub tries: u32,
    /// Begin with any of them.
    pub rotate: bool,
}

impl Default for NameServers {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            as_fallback: false,
            tcp: false,
            search: true,
            timeout: Duration::from_secs(5),
            tries: 4,
            rotate: false,
        }
    }
}

/// DNS look-up families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DnsFamily {
    /// IPv6, and IPv4 if there is none.
    #[default]
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4, and IPv6 if there is none.
    V4Preferred,
    /// Both.
    All,
}

/// Original-destination settings.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct OriginalDst {
    /// The address may come from a header.
    pub use_http_header: bool,
    /// That header, lower-case. Default `x-envoy-original-dst-host`.
    pub http_header_name: Name,
    /// Port to use instead of the connection's.
    pub upstream_port_override: Option<u16>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin(SlowStart),
    /// The less busy of a few.
    LeastRequest {
        /// Hosts to look at, at least 2. Default 2.
        choice_count: u32,
        /// Exponent of the active-request divisor under unequal weights. Default 1.0.
        active_request_bias: f64,
        /// Slow start.
        slow_start: SlowStart,
    },
    /// Any.
    Random,
    /// Consistent hashing on a ring.
    RingHash {
        /// Fewest points. Default 1024.
        minimum_ring_size: u64,
        /// Most points. Default 8 Mi.
        maximum_ring_size: u64,
        /// MurmurHash2 instead of XXH64.
        murmur: bool,
    },
    /// Consistent hashing by Maglev's table.
    Maglev {
        /// Prime. Default 65537.
        table_size: u64,
    },
    /// The cluster decides (original destination).
    ClusterProvided,
}

/// Slow start of new hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    /// Length; zero = off.
    pub window: Duration,
    /// Aggression, over 0. Default 1.0.
    pub aggression: f64,
    /// Least share of the weight in percent. Default 10.
    pub min_weight_percent: f64,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self {
            window: Duration::ZERO,
            aggression: 1.0,
            min_weight_percent: 10.0,
        }
    }
}

/// Settings shared by all policies.
#[derive(Clone, Debug, PartialEq)]
pub struct LbCommon {
    /// Below this share of healthy hosts (percent), all are used. Default 50, 0 = never.
    pub healthy_panic_threshold: f64,
    /// Hosts do not count until their first active check.
    pub ignore_new_hosts_until_first_hc: bool,
    /// In panic, fail instead.
    pub fail_traffic_on_panic: bool,
    /// Between localities: zone-aware (Envoy's default), weighted, or none.
    pub locality: LocalityLb,
    /// Hosts that leave are closed when unhealthy.
    pub close_connections_on_host_set_change: bool,
    /// Hash the host name instead of the address.
    pub use_hostname_for_hashing: bool,
    /// Bounded-load factor of consistent hashing in percent; 0 = off.
    pub hash_balance_factor: u32,
}

impl Default for LbCommon {
    fn default() -> Self {
        Self {
            healthy_panic_threshold: 50.0,
            ignore_new_hosts_until_first_hc: false,
            fail_traffic_on_panic: false,
            locality: LocalityLb::None,
            close_connections_on_host_set_change: false,
            use_hostname_for_hashing: false,
            hash_balance_factor: 0,
        }
    }
}

/// Balancing between localities.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalityLb {
    /// Localities play no part.
    None,
    /// By locality weight.
    Weighted,
    /// Near first. That needs a cluster of this proxy's own peers, which is
    /// refused: as in Envoy without one, localities play no part.
    ZoneAware,
}

/// Subset balancing.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetConfig {
    /// What to do when no subset matches.
    pub fallback: SubsetFallback,
    /// Metadata of the default subset's endpoints.
    pub default_subset: Fields,
    /// Key sets that make subsets.
    pub selectors: Vec<SubsetSelector>,
    /// Locality weights count within subsets too.
    pub locality_weight_aware: bool,
    /// Any endpoint where the fallback has none.
    pub panic_mode_any: bool,
    /// A list in an endpoint's metadata stands for each of its values.
    pub list_as_any: bool,
}

/// Keys whose values make subsets.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsetSelector {
    /// The keys.
    pub keys: BTreeSet<Name>,
    /// What to do when no subset of these keys matches; none = as for all.
    pub fallback: Option<SubsetFallback>,
    /// The keys to go on with, fewer than `keys`; for [`SubsetFallback::Keys`].
    pub fallback_keys: BTreeSet<Name>,
}

/// What to do when no subset matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetFallback {
    /// Fail.
    None,
    /// Any endpoint.
    Any,
    /// The default subset.
    Default,
    /// Look again with fewer keys (of a selector only).
    Keys,
}

/// Limits of one priority.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// Connections. Default 1024.
    pub max_connections: u32,
    /// Requests waiting for a connection. Default 1024.
    pub max_pending_requests: u32,
    /// Requests in flight. Default 1024.
    pub max_requests: u32,
    /// Retries in flight. Default 3.
    pub max_retries: u32,
    /// Retries in proportion to requests: (percent, least concurrency).
    pub retry_budget: Option<(f64, u32)>,
    /// Pools alive at once; none = no limit.
    pub max_connection_pools: Option<u32>,
    /// Publish remaining counts.
    pub track_remaining: bool,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            max_connection_pools: None,
            track_remaining: false,
        }
    }
}

impl Usual for [CircuitBreaker; 2] {
    fn usual() -> &'static Self {
        static BOTH: LazyLock<[CircuitBreaker; 2]> = LazyLock::new(Default::default);
        &BOTH
    }

    fn is_usual(&self) -> bool {
        self == Self::usual()
    }
}

/// Passive health checks.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// Server errors in a row. Default 5, 0 = off.
    pub consecutive_5xx: u32,
    /// Chance of acting on it, percent. Default 100.
    pub enforcing_consecutive_5xx: u32,
    /// Gateway errors (502, 503, 504) in a row. Default 5.
    pub consecutive_gateway_failure: u32,
    /// Chance of acting on it, percent. Default 0.
    pub enforcing_consecutive_gateway_failure: u32,
    /// Locally originated failures count apart.
    pub split_external_local_origin_errors: bool,
    /// Local failures in a row. Default 5.
    pub consecutive_local_origin_failure: u32,
    /// Chance of acting on it, percent. Default 100.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// Between sweeps. Default 10 s.
    pub interval: Duration,
    /// Ejection time for the first ejection. Default 30 s.
    pub base_ejection_time: Duration,
    /// Longest ejection. Default 300 s.
    pub max_ejection_time: Duration,
    /// Random part added to an ejection. Default 0.
    pub max_ejection_time_jitter: Duration,
    /// Most hosts ejected, percent. Default 10.
    pub max_ejection_percent: u32,
    /// Chance of success-rate ejection, percent. Default 100.
    pub enforcing_success_rate: u32,
    /// The same by local failures alone, where they are split. Default 100.
    pub enforcing_local_origin_success_rate: u32,
    /// Fewest hosts for success rate. Default 5.
    pub success_rate_minimum_hosts: u32,
    /// Fewest requests per host. Default 100.
    pub success_rate_request_volume: u32,
    /// Standard deviations times 1000. Default 1900.
    pub success_rate_stdev_factor: u32,
    /// Failure percentage threshold. Default 85.
    pub failure_percentage_threshold: u32,
    /// Chance of acting on it, percent. Default 0.
    pub enforcing_failure_percentage: u32,
    /// The same by local failures alone, where they are split. Default 0.
    pub enforcing_failure_percentage_local_origin: u32,
    /// Fewest hosts for failure percentage. Default 5.
    pub failure_percentage_minimum_hosts: u32,
    /// Fewest requests per host. Default 50.
    pub failure_percentage_request_volume: u32,
    /// One host may go even when the share is below one host. Default false.
    pub always_eject_one_host: bool,
    /// A good active check ends an ejection. Default true.
    pub successful_active_health_check_uneject_host: bool,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            enforcing_consecutive_5xx: 100,
            consecutive_gateway_failure: 5,
            enforcing_consecutive_gateway_failure: 0,
            split_external_local_origin_errors: false,
            consecutive_local_origin_failure: 5,
            enforcing_consecutive_local_origin_failure: 100,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            enforcing_success_rate: 100,
            enforcing_local_origin_success_rate: 100,
            success_rate_minimum_hosts: 5,
            success_rate_request_volume: 100,
            success_rate_stdev_factor: 1900,
            failure_percentage_threshold: 85,
            enforcing_failure_percentage: 0,
            enforcing_failure_percentage_local_origin: 0,
            failure_percentage_minimum_hosts: 5,
            failure_percentage_request_volume: 50,
            always_eject_one_host: false,
            successful_active_health_check_uneject_host: true,
        }
    }
}

/// An active health check.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Time for an answer.
    pub timeout: Duration,
    /// Between checks.
    pub interval: Duration,
    /// Random part of the wait for the first check.
    pub initial_jitter: Duration,
    /// Random part added to the interval.
    pub interval_jitter: Duration,
    /// Random part added to the interval, in percent of it.
    pub interval_jitter_percent: u32,
    /// Bad checks that turn a host unhealthy.
    pub unhealthy_threshold: u32,
    /// Good checks that turn it healthy.
    pub healthy_threshold: u32,
    /// Interval while the cluster never had traffic. Default 60 s.
    pub no_traffic_interval: Duration,
    /// The same for hosts that pass. Default as above.
    pub no_traffic_healthy_interval: Duration,
    /// Interval of hosts that fail. Default `interval`.
    pub unhealthy_interval: Duration,
    /// Interval while the unhealthy threshold is being reached. Default `unhealthy_interval`.
    pub unhealthy_edge_interval: Duration,
    /// Interval while the healthy threshold is being reached. Default `interval`.
    pub healthy_edge_interval: Duration,
    /// Keep the connection between checks. Default true.
    pub reuse_connection: bool,
    /// Metadata to choose the transport by, in place of the endpoint's.
    pub transport_criteria: Option<Metadata>,
    /// Protocols to offer by ALPN in place of the transport's.
    pub alpn: Option<Vec<Name>>,
    /// What is asked.
    pub probe: HealthProbe,
}

/// What an active health check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthProbe {
    /// An HTTP request.
    Http {
        /// Host header; empty = cluster name.
        host: Name,
        /// Path.
        path: Name,
        /// Method.
        method: Name,
        /// Good codes as `[start, end)`; empty = 200.
        expected: Vec<(u16, u16)>,
        /// Codes that count towards the unhealthy threshold instead of failing at once.
        retriable: Vec<(u16, u16)>,
        /// HTTP/2 instead of HTTP/1.1.
        http2: bool,
        /// Request headers to take out, and to write.
        headers: ProbeHeaders,
        /// What `x-envoy-upstream-healthchecked-cluster` of a good answer must be.
        service: Option<StringMatcher>,
    },
    /// Connect, send, expect.
    Tcp {
        /// Bytes to send.
        send: Vec<u8>,
        /// Fragments to find in order.
        receive: Vec<Vec<u8>>,
    },
    /// grpc.health.v1.
    Grpc {
        /// Service to ask for.
        service_name: Name,
        /// `:authority`; empty = cluster name.
        authority: Name,
        /// Request headers to write.
        headers: ProbeHeaders,
    },
}

/// Edits of a check's request: fixed text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeHeaders {
    /// Names to take out first, lower-case.
    pub remove: Vec<Name>,
    /// Lower-case name, value, what to do where it is there already.
    pub add: Vec<(Name, Name, AppendAction)>,
}

/// HTTP towards endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamHttp {
    /// Which protocol is spoken.
    pub protocol: UpstreamProtocol,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// HTTP/1 settings.
    pub http1: Http1Options,
    /// Idle connection life; none = never closed. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Requests per connection; none = no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Longest life of a stream.
    pub max_stream_duration: Option<Duration>,
    /// Most response headers. Default 100.
    pub max_headers_count: u32,
    /// SNI from the request's authority.
    pub auto_sni: bool,
    /// Certificate must name the authority.
    pub auto_san_validation: bool,
    /// Header that overrides the SNI, lower-case.
    pub override_auto_sni_header: Name,
}

impl Default for UpstreamHttp {
    fn default() -> Self {
        Self {
            protocol: UpstreamProtocol::Http1,
            http2: Http2Options::default(),
            http1: Http1Options::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_stream_duration: None,
            max_headers_count: 100,
            auto_sni: false,
            auto_san_validation: false,
            override_auto_sni_header: Name::default(),
        }
    }
}

impl Usual for UpstreamHttp {
    fn usual() -> &'static Self {
        static PLAIN: LazyLock<UpstreamHttp> = LazyLock::new(Default::default);
        &PLAIN
    }

    fn is_usual(&self) -> bool {
        self == Self::usual()
    }
}

/// Which HTTP is spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, prior knowledge or ALPN.
    Http2,
    /// By ALPN.
    Auto,
    /// What the client speaks.
    UseDownstream,
}

/// HTTP/1 codec options, both sides.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Http1Options {
    /// Absolute-form targets are understood. Default true for listeners.
    pub allow_absolute_url: bool,
    /// HTTP/1.0 requests are served.
    pub accept_http_10: bool,
    /// Host for HTTP/1.0 requests without one.
    pub default_host_for_http_10: Name,
    /// Header name style on the wire.
    pub header_case: HeaderCase,
    /// Trailers are forwarded.
    pub enable_trailers: bool,
    /// Content-Length beside chunked is dropped instead of refused.
    pub allow_chunked_length: bool,
    /// Any method token is allowed.
    pub allow_custom_methods: bool,
    /// One bad message ends the stream, not the connection, where framing allows.
    pub stream_error_on_invalid_message: bool,
}

/// Header name style of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeaderCase {
    /// Lower-case.
    #[default]
    Lower,
    /// `Content-Type`.
    ProperCase,
    /// As the peer wrote it.
    Preserve {
        /// What the peer did not write is like [`HeaderCase::ProperCase`].
        capitals: bool,
    },
}

/// HTTP/2 codec options, both sides. Sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Http2Options {
    /// Dynamic table. Default 4096.
    pub hpack_table_size: u32,
    /// Streams at once. Default 1024.
    pub max_concurrent_streams: u32,
    /// Stream window. Default 16 MiB.
    pub initial_stream_window_size: u32,
    /// Connection window. Default 24 MiB.
    pub initial_connection_window_size: u32,
    /// Extended CONNECT is offered.
    pub allow_connect: bool,
    /// Keep-alive PING: (interval, timeout).
    pub keepalive: Option<(Duration, Duration)>,
    /// A bad message resets its stream only.
    pub stream_error_on_invalid_http_message: bool,
    /// Frames queued outwards. Default 10000.
    pub max_outbound_frames: u32,
    /// Control frames queued outwards. Default 1000.
    pub max_outbound_control_frames: u32,
    /// Empty frames in a row. Default 1.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// PRIORITY frames per stream. Default 100.
    pub max_inbound_priority_frames_per_stream: u32,
    /// WINDOW_UPDATE frames per DATA frame. Default 10.
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            keepalive: None,
            stream_error_on_invalid_http_message: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
        }
    }
}

/// Transport towards endpoints.
#[derive(Clone, Debug)]
pub enum TransportSocket {
    /// Plain bytes.
    RawBuffer,
    /// TLS.
    Tls(Arc<UpstreamTls>),
}

/// A transport for endpoints whose metadata matches.
#[derive(Clone, Debug)]
pub struct TransportSocketMatch {
    /// Name for statistics.
    pub name: Name,
    /// Keys of `envoy.transport_socket_match` that must be equal; empty matches all.
    pub criteria: Value,
    /// The transport.
    pub transport_socket: TransportSocket,
}

/// TCP keep-alive of upstream sockets.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    /// Probes; none = system.
    pub probes: Option<u32>,
    /// Seconds of idleness; none = system.
    pub time: Option<u32>,
    /// Seconds between probes; none = system.
    pub interval: Option<u32>,
}

impl Cluster {
    /// The transport for an endpoint: first match by its metadata, else the cluster's.
    #[must_use]
    pub fn transport_for(&self, endpoint: &Metadata) -> &TransportSocket {
        const KEY: &str = "envoy.transport_socket_match";
        let have = endpoint.get(KEY);
        self.transport_socket_matches
            .iter()
            .find(|m| match &m.criteria {
                Value::Struct(want) if want.is_empty() => true,
                want => have.is_some_and(|h| h.covers(want)),
            })
            .map_or(&self.transport_socket, |m| &m.transport_socket)
    }

    /// Every TLS context of the cluster.
    pub fn tls_contexts(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        std::iter::once(&self.transport_socket)
            .chain(
                self.transport_socket_matches
                    .iter()
                    .map(|m| &m.transport_socket),
            )
            .filter_map(|t| match t {
                TransportSocket::Tls(tls) => Some(tls),
                TransportSocket::RawBuffer => None,
            })
    }
}
