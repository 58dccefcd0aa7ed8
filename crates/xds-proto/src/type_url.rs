//! The type URLs by which ADS names its resource types and configurations name their messages.

/// What stands before the full message name in every type URL that xDS uses.
pub const PREFIX: &str = "type.googleapis.com/";

/// CDS: `envoy.config.cluster.v3.Cluster`.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// EDS: `envoy.config.endpoint.v3.ClusterLoadAssignment`.
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// LDS: `envoy.config.listener.v3.Listener`.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// RDS: `envoy.config.route.v3.RouteConfiguration`.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// SRDS: `envoy.config.route.v3.ScopedRouteConfiguration`.
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// VHDS: `envoy.config.route.v3.VirtualHost`.
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// SDS: `envoy.extensions.transport_sockets.tls.v3.Secret`.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// ECDS: `envoy.config.core.v3.TypedExtensionConfig`.
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// RTDS: `envoy.service.runtime.v3.Runtime`.
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// NDS, Istio's name table for the DNS of the agent.
pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
/// PCDS, Istio's per-proxy configuration.
pub const PROXY_CONFIG: &str = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig";
/// Health reports from the agent to the control plane.
pub const HEALTH_INFORMATION: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// The bootstrap as a resource.
pub const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";
/// Debug questions over xDS (`istioctl` asks these through the XDS port).
pub const ISTIO_DEBUG: &str = "istio.io/debug";

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
pub const HTTP_CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
pub const TCP_PROXY: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// `envoy.extensions.filters.http.router.v3.Router`.
pub const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
/// `envoy.extensions.filters.http.fault.v3.HTTPFault`.
pub const HTTP_FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
/// `envoy.extensions.filters.http.cors.v3.Cors`.
pub const CORS: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
/// `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`.
pub const HTTP_PROTOCOL_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// `envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext`.
pub const UPSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`.
pub const DOWNSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
/// `envoy.extensions.access_loggers.file.v3.FileAccessLog`.
pub const FILE_ACCESS_LOG: &str =
    "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
/// `udpa.type.v1.TypedStruct`.
pub const UDPA_TYPED_STRUCT: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";
/// `xds.type.v3.TypedStruct`.
pub const XDS_TYPED_STRUCT: &str = "type.googleapis.com/xds.type.v3.TypedStruct";
/// `stats.PluginConfig`, the configuration of the filter `istio.stats`.
pub const ISTIO_STATS: &str = "type.googleapis.com/stats.PluginConfig";
/// The configuration of the filter `istio.alpn`.
pub const ISTIO_ALPN: &str =
    "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
/// The configuration of the HTTP filter `istio.metadata_exchange`.
pub const ISTIO_PEER_METADATA: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";
/// The configuration of the network filter `istio.metadata_exchange`.
pub const ISTIO_METADATA_EXCHANGE: &str =
    "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange";

/// The full message name inside a type URL: what follows the last `/`, or the whole text
/// where there is none.
#[must_use]
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// The abbreviation by which operators know a resource type (`CDS`, `LDS`, ...).
#[must_use]
pub fn short_name(type_url: &str) -> Option<&'static str> {
    Some(match type_url {
        CLUSTER => "CDS",
        ENDPOINT => "EDS",
        LISTENER => "LDS",
        ROUTE => "RDS",
        SCOPED_ROUTE => "SRDS",
        VIRTUAL_HOST => "VHDS",
        SECRET => "SDS",
        EXTENSION_CONFIG => "ECDS",
        RUNTIME => "RTDS",
        NAME_TABLE => "NDS",
        PROXY_CONFIG => "PCDS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, envoy};

    #[test]
    fn constants_agree_with_the_messages() {
        assert_eq!(CLUSTER, envoy::config::cluster::v3::Cluster::type_url());
        assert_eq!(
            ENDPOINT,
            envoy::config::endpoint::v3::ClusterLoadAssignment::type_url()
        );
        assert_eq!(LISTENER, envoy::config::listener::v3::Listener::type_url());
        assert_eq!(
            ROUTE,
            envoy::config::route::v3::RouteConfiguration::type_url()
        );
        assert_eq!(
            SECRET,
            envoy::extensions::transport_sockets::tls::v3::Secret::type_url()
        );
        assert_eq!(NAME_TABLE, crate::istio::nds::NameTable::type_url());
        assert_eq!(ISTIO_STATS, crate::istio::stats::PluginConfig::type_url());
        assert_eq!(ISTIO_ALPN, crate::istio::alpn::FilterConfig::type_url());
        assert_eq!(
            ISTIO_PEER_METADATA,
            crate::istio::peer_metadata::Config::type_url()
        );
        assert_eq!(
            ISTIO_METADATA_EXCHANGE,
            crate::istio::metadata_exchange::MetadataExchange::type_url()
        );
    }

    #[test]
    fn names_come_out_of_urls() {
        assert_eq!(message_name(CLUSTER), "envoy.config.cluster.v3.Cluster");
        assert_eq!(message_name("plain.Name"), "plain.Name");
        assert_eq!(short_name(LISTENER), Some("LDS"));
        assert_eq!(short_name("x"), None);
    }
}
