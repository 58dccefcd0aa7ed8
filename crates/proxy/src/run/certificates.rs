//! The certificates in use, as `/certs` shows them: those of every TLS context of the listeners and
//! clusters that are served, whether they stand in the context or come as secrets.

use std::collections::BTreeMap;

use lateen_proxy_core::config::tls::{
    CertificateSource, CommonTls, Material, Secret, ValidationContext, ValidationSource,
};
use lateen_proxy_core::config::{Snapshot, cluster::TransportSocket};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::time::ASN1Time;

/// Entries by their text: a context that many share is shown once.
type Entries = BTreeMap<String, Value>;

/// All of them.
pub(super) fn all(snapshot: &Snapshot) -> Value {
    let mut entries = Entries::new();
    for listener in snapshot.listeners.values() {
        let chains = listener.filter_chains.iter();
        for chain in chains.chain(&listener.default_filter_chain) {
            if let Some(tls) = &chain.tls {
                context(snapshot, &tls.common, &mut entries);
            }
        }
    }
    for cluster in snapshot.clusters.values() {
        let matches = cluster.transport_socket_matches.iter();
        let sockets = matches.map(|m| &m.transport_socket);
        for socket in sockets.chain([&cluster.transport_socket]) {
            if let TransportSocket::Tls(tls) = socket {
                context(snapshot, &tls.common, &mut entries);
            }
        }
    }
    Value::Array(entries.into_values().collect())
}

fn context(snapshot: &Snapshot, tls: &CommonTls, entries: &mut Entries) {
    let secret = |name: &str| snapshot.secrets.get(name).map(AsRef::as_ref);
    let mut chain = Vec::new();
    for source in &tls.certificates {
        let certificate = match source {
            CertificateSource::Inline(certificate) => Some(certificate),
            CertificateSource::Sds(name) => match secret(name) {
                Some(Secret::Certificate(certificate)) => Some(certificate),
                _ => None,
            },
        };
        if let Some(certificate) = certificate {
            chain.extend(details(&certificate.certificate_chain));
        }
    }
    let mut authorities = Vec::new();
    let mut rules = |rules: &ValidationContext| {
        let bundles = rules.spiffe_bundles.iter().map(|(_, bundle)| bundle);
        for material in rules.trusted_ca.iter().chain(bundles) {
            authorities.extend(details(material));
        }
    };
    let mut named = |name: &str| {
        if let Some(Secret::Validation(validation)) = secret(name) {
            rules(validation);
        }
    };
    match &tls.validation {
        ValidationSource::None => {}
        ValidationSource::Sds(name) => named(name),
        ValidationSource::Combined { sds, default } => {
            named(sds);
            rules(default);
        }
        ValidationSource::Inline(validation) => rules(validation),
    }
    if chain.is_empty() && authorities.is_empty() {
        return;
    }
    let entry = json!({ "ca_cert": authorities, "cert_chain": chain });
    entries.insert(entry.to_string(), entry);
}

/// What is shown of each certificate of a PEM.
fn details(material: &Material) -> Vec<Value> {
    let path = material.path.as_deref().unwrap_or("<inline>");
    let one = |der: CertificateDer<'_>| {
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = parsed.validity();
        let now = ASN1Time::now().timestamp();
        let names = crate::tls::certificate::Names::of(&der);
        let dns = names.dns.iter().map(|d| json!({ "dns": d }));
        let uris = names.uris.iter().map(|u| json!({ "uri": u }));
        let ips = names.ips.iter().map(|i| json!({ "ip_address": i }));
        let days = (validity.not_after.timestamp() - now) / 86_400;
        Some(json!({
            "path": path,
            "serial_number": crate::tls::certificate::serial(parsed.raw_serial()),
            "subject_alt_names": dns.chain(uris).chain(ips).collect::<Vec<_>>(),
            "days_until_expiration": days.max(0).to_string(),
            "valid_from": date(validity.not_before),
            "expiration_time": date(validity.not_after),
        }))
    };
    CertificateDer::pem_slice_iter(&material.bytes)
        .filter_map(|der| one(der.ok()?))
        .collect()
}

fn date(at: ASN1Time) -> String {
    let at = at.to_datetime();
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
