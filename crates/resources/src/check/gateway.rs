//! Gateway.

use super::{Findings, text};
use crate::istio::{Gateway, Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};

/// Checks a gateway.
pub fn check(gateway: &Gateway, f: &mut Findings<'_>) {
    f.labels("spec.selector", &gateway.selector);
    if gateway.servers.is_empty() {
        f.error(
            "spec.servers",
            "gateway must have at least one server",
            "add a server with port and hosts",
        );
    }
    for (i, s) in gateway.servers.iter().enumerate() {
        let path = format!("spec.servers[{i}]");
        server(s, &path, f);
        let Some(port) = s.port.as_ref().filter(|p| !p.name.is_empty()) else {
            continue;
        };
        let before = gateway.servers[..i].iter().filter_map(|s| s.port.as_ref());
        if before.into_iter().any(|p| p.name == port.name) {
            f.error(
                &format!("{path}.port.name"),
                &format!(
                    "port names in servers must be unique: duplicate name {}",
                    port.name
                ),
                "use another name",
            );
        }
    }
}

fn server(s: &Server, path: &str, f: &mut Findings<'_>) {
    if s.hosts.is_empty() {
        f.error(
            &format!("{path}.hosts"),
            "server config must contain at least one host",
            "use \"*\" for every host",
        );
    }
    for (i, host) in s.hosts.iter().enumerate() {
        server_host(host, &format!("{path}.hosts[{i}]"), f);
    }
    if !s.bind.is_empty()
        && s.bind.parse::<std::net::IpAddr>().is_err()
        && !s.bind.starts_with("unix://")
    {
        f.error(
            &format!("{path}.bind"),
            &format!("{:?} is no address", s.bind),
            "use an IP address, or leave it out for every address",
        );
    }
    if !s.default_endpoint.is_empty() {
        f.warn(
            &format!("{path}.defaultEndpoint"),
            "defaultEndpoint is not used by gateways",
            "leave it out",
        );
    }
    let Some(port) = &s.port else {
        f.error(
            &format!("{path}.port"),
            "port is required",
            "use port with number, name and protocol",
        );
        return;
    };
    let field = format!("{path}.port");
    f.port(&format!("{field}.number"), port.number);
    if port.name.is_empty() {
        f.error(
            &format!("{field}.name"),
            "port name must be set",
            "use a name such as http or https",
        );
    }
    if !text::is_protocol(&port.protocol) {
        f.error(
            &format!("{field}.protocol"),
            &format!("{:?} is no protocol", port.protocol),
            "use HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS",
        );
        return;
    }
    let protocol = port.protocol.to_ascii_uppercase();
    let is_tls = matches!(protocol.as_str(), "HTTPS" | "TLS");
    let is_http = matches!(
        protocol.as_str(),
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY"
    );
    match &s.tls {
        None if is_tls => f.error(
            &format!("{path}.tls"),
            "server must have TLS settings for HTTPS/TLS protocols",
            "add tls with mode and credentialName",
        ),
        None => {}
        Some(t) => {
            let path = format!("{path}.tls");
            let ends = !(t.https_redirect && t.mode == ServerTlsMode::Passthrough);
            if is_http && ends && (t.mode != ServerTlsMode::Passthrough || has_certificate(t)) {
                f.error(
                    &path,
                    "server cannot have TLS settings for non HTTPS/TLS ports",
                    "use protocol HTTPS, or leave tls out",
                );
            }
            if !is_http && t.https_redirect {
                f.error(
                    &format!("{path}.httpsRedirect"),
                    "httpsRedirect is for HTTP ports",
                    "use it on a server of protocol HTTP, or leave it out",
                );
            }
            tls(t, is_http && t.https_redirect, &path, f);
        }
    }
}

fn server_host(written: &str, field: &str, f: &mut Findings<'_>) {
    let host = match written.split_once('/') {
        None => written,
        Some((ns, host)) => {
            if !matches!(ns, "." | "*") && !text::is_dns_label(ns) {
                f.error(
                    field,
                    &format!("namespace {ns:?} is not valid"),
                    "use \"*\", \".\" or a namespace",
                );
            }
            host
        }
    };
    if let Some(problem) = text::host_problem(host) {
        f.error(field, &format!("host {host:?} is not valid: {problem}"), "");
    } else if host.parse::<std::net::IpAddr>().is_ok() {
        f.warn(
            field,
            "an address is never sent as SNI and seldom as Host",
            "use a name",
        );
    }
}

fn has_certificate(t: &ServerTlsSettings) -> bool {
    !t.credential_name.is_empty()
        || !t.credential_names.is_empty()
        || !t.server_certificate.is_empty()
        || !t.private_key.is_empty()
        || !t.tls_certificates.is_empty()
}

fn tls(t: &ServerTlsSettings, redirect_only: bool, path: &str, f: &mut Findings<'_>) {
    let names = !t.credential_name.is_empty() || !t.credential_names.is_empty();
    let files = !t.server_certificate.is_empty() || !t.private_key.is_empty();
    if t.min_protocol_version != TlsProtocol::Auto
        && t.max_protocol_version != TlsProtocol::Auto
        && (t.min_protocol_version as u8) > (t.max_protocol_version as u8)
    {
        f.error(
            &format!("{path}.minProtocolVersion"),
            "the lowest version is above the highest",
            "use a minProtocolVersion that is not above maxProtocolVersion",
        );
    }
    if !t.credential_name.is_empty() && !t.credential_names.is_empty() {
        f.error(
            path,
            "credentialName and credentialNames exclude each other",
            "keep one of them",
        );
    }
    if redirect_only {
        return;
    }
    match t.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if names || files {
                f.warn(
                    path,
                    "certificates are not used with PASSTHROUGH",
                    "use mode SIMPLE, or leave them out",
                );
            }
        }
        ServerTlsMode::IstioMutual => {
            if names || files || !t.ca_certificates.is_empty() {
                f.error(
                    path,
                    "ISTIO_MUTUAL TLS cannot have associated certificates",
                    "leave them out, or use mode MUTUAL",
                );
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            if names && files {
                f.error(
                    path,
                    "credentialName excludes certificate files",
                    "keep one of them",
                );
            }
            if names || !t.tls_certificates.is_empty() {
                return;
            }
            if t.server_certificate.is_empty() || t.private_key.is_empty() {
                f.error(
                    path,
                    "a certificate is required",
                    "set credentialName, or serverCertificate and privateKey",
                );
            }
            if t.mode == ServerTlsMode::Mutual && t.ca_certificates.is_empty() {
                f.error(
                    &format!("{path}.caCertificates"),
                    "MUTUAL TLS requires caCertificates",
                    "use caCertificates, credentialName, or mode SIMPLE",
                );
            }
        }
    }
}
