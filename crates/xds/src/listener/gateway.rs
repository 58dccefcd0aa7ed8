//! Gateway listeners: one per bound port, a chain for all its plain HTTP servers and one per
//! TLS server or TCP rule.

use std::collections::BTreeMap;
use std::time::Duration;

use lateen_model::gateway::{GatewayServer, ServerTls, ServerTlsMode, TlsVersion};
use lateen_model::{Gateway, Protocol, Str};
use lateen_xds_proto::any::pack;
use lateen_xds_proto::envoy::config::core::v3::{
    DataSource, TrafficDirection, TransportSocket, data_source, transport_socket,
};
use lateen_xds_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsCertificate, TlsParameters, common_tls_context as ctc,
    subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
};
use lateen_xds_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};

use super::http::{Routes, chain_filters};
use super::outbound::parse_cidr;
use super::{chain, detection};
use crate::access_log;
use crate::context::Context;
use crate::filters::{self, Side};
use crate::route::l4;
use crate::wire;

/// A server with the gateway it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// The gateway.
    pub gateway: &'a Gateway,
    /// The server.
    pub server: &'a GatewayServer,
}

/// The servers of a proxy by bind address and bound port, oldest gateway first.
pub fn servers<'a>(cx: &'a Context<'_>) -> BTreeMap<(u16, Str), Vec<Bound<'a>>> {
    let serves = cx.serves();
    let mut out: BTreeMap<(u16, Str), Vec<Bound<'a>>> = BTreeMap::new();
    for gateway in cx.snapshot.gateways_for(&cx.key.labels) {
        for server in &gateway.servers {
            for port in cx.bound_ports(&serves, server.port) {
                let bind = server.bind.clone().unwrap_or_else(|| "".into());
                out.entry((port, bind))
                    .or_default()
                    .push(Bound { gateway, server });
            }
        }
    }
    out
}

/// Name of the routes shared by the plain HTTP servers of a port.
pub fn http_route_name(port: u16, bind: &str) -> String {
    with_bind(format!("http.{port}"), bind)
}

/// Name of the routes of one HTTPS server.
pub fn https_route_name(b: Bound<'_>, bind: &str) -> String {
    let (s, g) = (b.server, b.gateway);
    with_bind(
        format!(
            "https.{}.{}.{}.{}",
            s.port, s.port_name, g.name, g.namespace
        ),
        bind,
    )
}

fn with_bind(name: String, bind: &str) -> String {
    if bind.is_empty() {
        name
    } else {
        format!("{name}.{bind}")
    }
}

/// True when requests of a server reach the connection manager.
pub fn speaks_http(server: &GatewayServer) -> bool {
    server.protocol.is_http() || (server.protocol == Protocol::Https && ends_tls(server))
}

/// True when TLS is ended here.
pub fn ends_tls(server: &GatewayServer) -> bool {
    use ServerTlsMode as M;
    let ending = |t: &ServerTls| matches!(t.mode, M::Simple | M::Mutual | M::OptionalMutual);
    server.protocol.is_tls() && server.tls.as_ref().is_some_and(ending)
}

/// All listeners of a gateway.
pub fn listeners(cx: &Context<'_>) -> Vec<Listener> {
    let all = servers(cx);
    all.iter()
        .filter_map(|((port, bind), on)| listener(cx, *port, bind, on))
        .collect()
}

/// Routes those listeners ask for.
pub fn route_names(cx: &Context<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for ((port, bind), on) in servers(cx) {
        for b in on.iter().filter(|b| speaks_http(b.server)) {
            let name = if ends_tls(b.server) {
                https_route_name(*b, &bind)
            } else {
                http_route_name(port, &bind)
            };
            if !out.contains(&name) {
                out.push(name);
            }
        }
    }
    out
}

fn listener(cx: &Context<'_>, port: u16, bind: &str, on: &[Bound<'_>]) -> Option<Listener> {
    let address = if bind.is_empty() {
        wire::ANY.to_string()
    } else {
        bind.to_owned()
    };
    let name = format!("{address}_{port}");
    let mut l = Listener {
        address: Some(wire::socket_address(&address, port)),
        traffic_direction: TrafficDirection::Outbound as i32,
        access_log: access_log::listener_logs(cx),
        ..Listener::default()
    };
    let mut taken: Vec<FilterChainMatch> = Vec::new();
    for b in on {
        for c in server_chains(cx, *b, port, bind, &name) {
            let m = c.filter_chain_match.clone().unwrap_or_default();
            // Two chains that match alike make a proxy refuse the listener: the older stays.
            if !taken.contains(&m) {
                taken.push(m);
                l.filter_chains.push(c);
            }
        }
    }
    if l.filter_chains.is_empty() {
        return None;
    }
    if on.iter().any(|b| b.server.protocol.is_tls()) {
        l.listener_filters.push(filters::tls_inspector(None));
        detection(cx, &mut l);
    }
    l.name = name;
    Some(l)
}

fn server_chains(
    cx: &Context<'_>,
    b: Bound<'_>,
    port: u16,
    bind: &str,
    listener: &str,
) -> Vec<FilterChain> {
    let prefix = format!("outbound_{listener}");
    let http = |routes| chain_filters(cx, Side::Gateway, &prefix, Routes::Named(routes));
    if b.server.protocol.is_http() {
        return vec![chain("", None, http(http_route_name(port, bind)))];
    }
    if ends_tls(b.server) {
        let Some(socket) = b
            .server
            .tls
            .as_ref()
            .and_then(|t| tls_socket(t, b.server.protocol))
        else {
            return Vec::new();
        };
        let filters = if b.server.protocol == Protocol::Https {
            http(https_route_name(b, bind))
        } else {
            match l4::gateway_tcp(cx, b.gateway, b.server).into_iter().next() {
                Some(rule) => l4_filters(cx, &rule),
                None => return Vec::new(),
            }
        };
        let mut c = chain("", sni_match(server_names(b.server)), filters);
        c.transport_socket = Some(socket);
        c.transport_socket_connect_timeout = wire::duration(Duration::from_secs(15));
        return vec![c];
    }
    let rules = if b.server.protocol.is_tls() {
        l4::gateway_tls(cx, b.gateway, b.server)
    } else {
        l4::gateway_tcp(cx, b.gateway, b.server)
    };
    rules
        .iter()
        .map(|rule| {
            let mut m = sni_match(rule.sni.clone()).unwrap_or_default();
            m.prefix_ranges = rule.subnets.iter().filter_map(|s| parse_cidr(s)).collect();
            let m = (m != FilterChainMatch::default()).then_some(m);
            chain("", m, l4_filters(cx, rule))
        })
        .collect()
}

fn l4_filters(
    cx: &Context<'_>,
    rule: &l4::Rule,
) -> Vec<lateen_xds_proto::envoy::config::listener::v3::Filter> {
    let stat = rule.to.first().map(|(n, _)| n.clone()).unwrap_or_default();
    filters::tcp(cx, Side::Gateway, &stat, &rule.to)
}

/// Hosts as server names; `*` among them matches any or no name.
fn server_names(server: &GatewayServer) -> Vec<String> {
    if server.hosts.iter().any(|h| &*h.host == "*") {
        return Vec::new();
    }
    let mut names: Vec<String> = server.hosts.iter().map(|h| h.host.to_string()).collect();
    names.dedup();
    names
}

fn sni_match(mut names: Vec<String>) -> Option<FilterChainMatch> {
    names.retain(|n| n != "*");
    if names.is_empty() {
        return None;
    }
    Some(FilterChainMatch {
        server_names: names,
        ..FilterChainMatch::default()
    })
}

/// The TLS of a server; `None` when it names no certificate, since a chain that cannot
/// answer must not take the port's other servers down with it.
fn tls_socket(tls: &ServerTls, protocol: Protocol) -> Option<TransportSocket> {
    let file = |path: &Str| DataSource {
        specifier: Some(data_source::Specifier::Filename(path.to_string())),
        ..DataSource::default()
    };
    let sds = |name: String| SdsSecretConfig {
        name,
        sds_config: Some(wire::ads()),
    };
    let mut common = CommonTlsContext {
        tls_params: Some(parameters(tls)),
        ..CommonTlsContext::default()
    };
    if protocol == Protocol::Https {
        common.alpn_protocols = vec!["h2".to_owned(), "http/1.1".to_owned()];
    }
    let credentials = tls
        .credential_names
        .iter()
        .map(|n| sds(format!("kubernetes://{n}")));
    common.tls_certificate_sds_secret_configs = credentials.collect();
    if let (Some(cert), Some(key)) = (&tls.server_certificate, &tls.private_key)
        && common.tls_certificate_sds_secret_configs.is_empty()
    {
        common.tls_certificates.push(TlsCertificate {
            certificate_chain: Some(file(cert)),
            private_key: Some(file(key)),
            ..TlsCertificate::default()
        });
    }
    if common.tls_certificates.is_empty() && common.tls_certificate_sds_secret_configs.is_empty() {
        return None;
    }
    let asks = matches!(
        tls.mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    );
    if asks {
        let validation = validation(tls, &file);
        common.validation_context_type = Some(match tls.credential_names.first() {
            Some(name) => ctc::ValidationContextType::CombinedValidationContext(
                ctc::CombinedCertificateValidationContext {
                    default_validation_context: Some(validation),
                    validation_context_sds_secret_config: Some(sds(format!(
                        "kubernetes://{name}-cacert"
                    ))),
                    ..ctc::CombinedCertificateValidationContext::default()
                },
            ),
            None => ctc::ValidationContextType::ValidationContext(validation),
        });
    }
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: wire::bool_value(tls.mode == ServerTlsMode::Mutual),
        ..DownstreamTlsContext::default()
    };
    Some(TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(&context))),
    })
}

fn validation(tls: &ServerTls, file: &dyn Fn(&Str) -> DataSource) -> CertificateValidationContext {
    let sans = tls.subject_alt_names.iter().flat_map(|name| {
        [SanType::Uri, SanType::Dns].map(|kind| SubjectAltNameMatcher {
            san_type: kind as i32,
            matcher: Some(StringMatcher {
                match_pattern: Some(string_matcher::MatchPattern::Exact(name.to_string())),
                ..StringMatcher::default()
            }),
            ..SubjectAltNameMatcher::default()
        })
    });
    CertificateValidationContext {
        trusted_ca: tls.ca_certificates.as_ref().map(file),
        crl: tls.ca_crl.as_ref().map(file),
        match_typed_subject_alt_names: sans.collect(),
        verify_certificate_spki: tls
            .verify_certificate_spki
            .iter()
            .map(Str::to_string)
            .collect(),
        verify_certificate_hash: tls
            .verify_certificate_hash
            .iter()
            .map(Str::to_string)
            .collect(),
        ..CertificateValidationContext::default()
    }
}

fn parameters(tls: &ServerTls) -> TlsParameters {
    let version = |v: Option<TlsVersion>, default: TlsProtocol| {
        let v = match v {
            None => default,
            Some(TlsVersion::V1_0) => TlsProtocol::TlSv10,
            Some(TlsVersion::V1_1) => TlsProtocol::TlSv11,
            Some(TlsVersion::V1_2) => TlsProtocol::TlSv12,
            Some(TlsVersion::V1_3) => TlsProtocol::TlSv13,
        };
        v as i32
    };
    TlsParameters {
        tls_minimum_protocol_version: version(tls.min_version, TlsProtocol::TlSv12),
        tls_maximum_protocol_version: version(tls.max_version, TlsProtocol::TlsAuto),
        cipher_suites: tls.cipher_suites.iter().map(Str::to_string).collect(),
        ..TlsParameters::default()
    }
}
