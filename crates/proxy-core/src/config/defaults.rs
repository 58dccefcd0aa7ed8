//! Resources that say nothing but their name: every option as Envoy has it by default.
use std::time::Duration;

use super::cluster::{
    Cluster, ClusterDiscovery, Http1Options, Http2Options, LbCommon, LbPolicy, SlowStart,
    TransportSocket,
};
use super::http_connection_manager::{
    ClientCertDetails, Codec, ForwardClientCert, HttpConnectionManager, PathNormalization,
    RouteSource, ServerHeader, StripPort, Underscores,
};
use super::{Metadata, Name, Rare, RouteConfiguration};
use crate::router::VirtualHostIndex;

impl HttpConnectionManager {
    /// A connection manager without filters.
    #[must_use]
    pub fn new(stat_prefix: Name, routes: RouteSource) -> Self {
        Self {
            stat_prefix,
            codec: Codec::Auto,
            routes,
            http_filters: vec![],
            access_logs: vec![],
            access_log_flush_interval: None,
            access_log_on_new_request: false,
            tracing: None,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            max_requests_per_connection: None,
            max_headers_count: 100,
            max_request_headers_kb: 60,
            underscores: Underscores::Allow,
            server_name: "envoy".into(),
            server_header: ServerHeader::Overwrite,
            scheme_overwrite: None,
            scheme_of_upstream: false,
            stream_idle_timeout: Some(Duration::from_secs(300)),
            request_timeout: None,
            request_headers_timeout: None,
            drain_timeout: Duration::from_secs(5),
            delayed_close_timeout: Some(Duration::from_secs(1)),
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            original_ip: Box::default(),
            early_edits: Box::default(),
            skip_xff_append: false,
            via: Name::default(),
            internal_addresses: vec![],
            internal_unix_sockets: false,
            generate_request_id: true,
            preserve_external_request_id: false,
            always_set_request_id_in_response: false,
            pack_trace_reason: true,
            forward_client_cert: ForwardClientCert::Sanitize,
            client_cert_details: ClientCertDetails::default(),
            proxy_100_continue: false,
            upgrades: vec![],
            path: PathNormalization::default(),
            strip_port: StripPort::None,
            strip_trailing_host_dot: false,
            local_reply: None,
            stream_error_on_invalid_http_message: false,
            append_x_forwarded_port: false,
            append_local_overload: false,
            add_user_agent: false,
            proxy_status: false,
            sampled: None,
        }
    }
}

impl RouteConfiguration {
    /// A route table without hosts.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self {
            name,
            virtual_hosts: vec![],
            index: VirtualHostIndex::default(),
            headers: Rare::default(),
            internal_only_headers: vec![],
            most_specific_header_mutations_wins: false,
            validate_clusters: false,
            ignore_port_in_host_matching: false,
            ignore_path_parameters_in_path_matching: false,
            max_direct_response_body_size: 4096,
            mirrors: Rare::default(),
            per_filter: Rare::default(),
            metadata: Metadata::default(),
        }
    }
}

impl Cluster {
    /// A static cluster without endpoints.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self {
            name: name.clone(),
            stat_name: name,
            discovery: ClusterDiscovery::Static,
            load_assignment: None,
            lb_policy: LbPolicy::RoundRobin(SlowStart::default()),
            lb_common: LbCommon::default(),
            subsets: None,
            connect_timeout: Duration::from_secs(5),
            per_connection_buffer_limit: 1 << 20,
            circuit_breakers: Rare::default(),
            outlier_detection: None,
            health_checks: vec![],
            http: Rare::default(),
            transport_socket: TransportSocket::RawBuffer,
            transport_socket_matches: vec![],
            bind: None,
            tcp_keepalive: None,
            metadata: Metadata::default(),
            proxy_protocol: None,
            close_connections_on_host_health_failure: false,
            metadata_exchange: None,
            connection_pool_per_downstream_connection: false,
            wait_for_warm: true,
            added_via_api: false,
        }
    }
}
