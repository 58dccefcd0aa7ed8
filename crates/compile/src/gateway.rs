//! Gateway objects to gateways.

use crate::name;
use lateen_model::{
    Gateway, GatewayServer, Protocol, ServerHost, ServerTls, ServerTlsMode, TlsVersion,
};
use lateen_resources::{Object, istio};

/// Converts a Gateway.
pub fn convert(object: &Object, gateway: &istio::Gateway) -> Gateway {
    let meta = &object.meta;
    let origin = name::origin(object);
    let servers = gateway.servers.iter().enumerate().filter_map(|(i, s)| {
        let port = s.port.as_ref()?;
        Some(GatewayServer {
            port: u16::try_from(port.number).ok()?,
            port_name: port.name.as_str().into(),
            protocol: Protocol::parse(&port.protocol).unwrap_or(Protocol::Tcp),
            bind: name::optional(&s.bind),
            hosts: s
                .hosts
                .iter()
                .map(|h| server_host(h, &meta.namespace))
                .collect(),
            tls: s.tls.as_ref().map(tls),
            name: s.name.as_str().into(),
            origin: origin.at(format!("spec.servers[{i}]")),
        })
    });
    Gateway {
        namespace: meta.namespace.as_str().into(),
        name: meta.name.as_str().into(),
        created: meta.created(),
        selector: name::selector(&gateway.selector),
        servers: servers.collect(),
        origin: origin.clone(),
    }
}

/// `host`, `namespace/host`, `./host` or `*/host`.
pub fn server_host(written: &str, namespace: &str) -> ServerHost {
    match written.split_once('/') {
        None => ServerHost {
            namespace: None,
            host: written.into(),
        },
        Some(("*", host)) => ServerHost {
            namespace: None,
            host: host.into(),
        },
        Some((".", host)) => ServerHost {
            namespace: Some(namespace.into()),
            host: host.into(),
        },
        Some((ns, host)) => ServerHost {
            namespace: Some(ns.into()),
            host: host.into(),
        },
    }
}

fn tls(t: &istio::ServerTlsSettings) -> ServerTls {
    let mut credential_names = name::list(&t.credential_names);
    if credential_names.is_empty() {
        credential_names.extend(name::optional(&t.credential_name));
    }
    let first = t.tls_certificates.first();
    let certificate = first.map_or(&t.server_certificate, |c| &c.server_certificate);
    let key = first.map_or(&t.private_key, |c| &c.private_key);
    ServerTls {
        mode: match t.mode {
            istio::ServerTlsMode::Passthrough => ServerTlsMode::Passthrough,
            istio::ServerTlsMode::Simple => ServerTlsMode::Simple,
            istio::ServerTlsMode::Mutual => ServerTlsMode::Mutual,
            istio::ServerTlsMode::AutoPassthrough => ServerTlsMode::AutoPassthrough,
            istio::ServerTlsMode::IstioMutual => ServerTlsMode::IstioMutual,
            istio::ServerTlsMode::OptionalMutual => ServerTlsMode::OptionalMutual,
        },
        https_redirect: t.https_redirect,
        credential_names,
        server_certificate: name::optional(certificate),
        private_key: name::optional(key),
        ca_certificates: name::optional(&t.ca_certificates),
        ca_crl: name::optional(&t.ca_crl),
        subject_alt_names: name::list(&t.subject_alt_names),
        verify_certificate_spki: name::list(&t.verify_certificate_spki),
        verify_certificate_hash: name::list(&t.verify_certificate_hash),
        min_version: version(t.min_protocol_version),
        max_version: version(t.max_protocol_version),
        cipher_suites: name::list(&t.cipher_suites),
    }
}

fn version(v: istio::TlsProtocol) -> Option<TlsVersion> {
    match v {
        istio::TlsProtocol::Auto => None,
        istio::TlsProtocol::V1_0 => Some(TlsVersion::V1_0),
        istio::TlsProtocol::V1_1 => Some(TlsVersion::V1_1),
        istio::TlsProtocol::V1_2 => Some(TlsVersion::V1_2),
        istio::TlsProtocol::V1_3 => Some(TlsVersion::V1_3),
    }
}
