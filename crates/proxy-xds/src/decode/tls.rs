//! TLS contexts and secrets.
use std::sync::Arc;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::tls::{
    CertificateSource, CipherSuite, CommonTls, Curve, DownstreamTls, Material, Private, SanMatcher,
    SanType, Secret, TicketKeys, TlsCertificate, TlsVersion, UpstreamTls, ValidationContext,
    ValidationSource,
};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3 as pb;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::common::{bool_or, data_source, need, opt_duration, u32_of};
use super::{Collected, Context, Needs, add_need, matcher, secret_source};
use crate::certified_key::certified_key;
use crate::error::{At, Result, list, refuse, refuse_set};

pub(super) fn downstream(m: &pb::DownstreamTlsContext, c: &Collected<'_>) -> Result<DownstreamTls> {
    let common = common(m.common_tls_context.as_ref(), c).at("common_tls_context")?;
    if common.certificates.is_empty() {
        return refuse(
            "a server needs a certificate: tls_certificates or tls_certificate_sds_secret_configs",
        )
        .at("common_tls_context");
    }
    refuse_set(&[
        // Lenient stapling of nothing is no stapling.
        (m.ocsp_staple_policy != 0, "ocsp_staple_policy"),
        (
            bool_or(m.full_scan_certs_on_sni_mismatch.as_ref(), false),
            "full_scan_certs_on_sni_mismatch",
        ),
    ])?;
    use pb::downstream_tls_context::SessionTicketKeysType as K;
    let mut disabled = false;
    let sealed_by = match &m.session_ticket_keys_type {
        None => TicketKeys::Own,
        Some(K::DisableStatelessSessionResumption(off)) => {
            disabled = *off;
            TicketKeys::Own
        }
        Some(K::SessionTicketKeys(keys)) => {
            TicketKeys::Inline(ticket_keys(keys, c.context).at("session_ticket_keys")?)
        }
        Some(K::SessionTicketKeysSdsSecretConfig(s)) => {
            TicketKeys::Sds(sds(s, c).at("session_ticket_keys_sds_secret_config")?)
        }
    };
    let required = bool_or(m.require_client_certificate.as_ref(), false);
    if required && matches!(common.validation, ValidationSource::None) {
        // Envoy asks for no certificate then and lets everyone in.
        return refuse("needs a validation_context: nothing says how certificates are judged")
            .at("require_client_certificate");
    }
    Ok(DownstreamTls {
        common,
        require_client_certificate: required,
        require_sni: bool_or(m.require_sni.as_ref(), false),
        disable_stateless_session_resumption: disabled,
        disable_stateful_session_resumption: m.disable_stateful_session_resumption,
        ticket_keys: sealed_by,
        prefer_client_ciphers: m.prefer_client_ciphers,
        session_timeout: opt_duration(m.session_timeout.as_ref(), "session_timeout")?,
    })
}

pub(super) fn upstream(m: &pb::UpstreamTlsContext, c: &Collected<'_>) -> Result<UpstreamTls> {
    if m.sni.len() > 255 {
        return refuse("must be at most 255 bytes").at("sni");
    }
    refuse_set(&[(m.allow_renegotiation, "allow_renegotiation")])?;
    Ok(UpstreamTls {
        common: common(m.common_tls_context.as_ref(), c).at("common_tls_context")?,
        sni: m.sni.as_str().into(),
        auto_host_sni: m.auto_host_sni,
        auto_sni_san_validation: m.auto_sni_san_validation,
        allow_renegotiation: m.allow_renegotiation,
        max_session_keys: u32_of(m.max_session_keys.as_ref()),
    })
}

/// The keys of session tickets: name, HMAC key and AES key of each in 80 bytes.
fn ticket_keys(m: &pb::TlsSessionTicketKeys, context: &Context) -> Result<Arc<[Private]>> {
    if m.keys.is_empty() {
        return refuse("at least one key is required").at("keys");
    }
    let keys = list(&m.keys, "keys", |k| {
        let key = material(k, context)?;
        if key.bytes.len() != 80 {
            let length = key.bytes.len();
            return refuse(format!("a key has 80 bytes, this one {length}"));
        }
        Ok(Private(key))
    })?;
    Ok(keys.into())
}

/// Suites that Envoy's TLS library has and this proxy never offers: no forward secrecy, or no
/// authenticated encryption. A list may name them beside others.
const NOT_OFFERED: [&str; 14] = [
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "AES128-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "DES-CBC3-SHA",
];

/// Cipher suites by name; `[a|b]` is a group of equals, of which the first is preferred here.
fn cipher_suites(names: &[String]) -> Result<Vec<CipherSuite>> {
    let mut found = Vec::new();
    for (i, text) in names.iter().enumerate() {
        for name in text.split([':', '|']) {
            let name = name.trim_start_matches('[').trim_end_matches(']');
            match CipherSuite::of_name(name) {
                Some(suite) if !found.contains(&suite) => found.push(suite),
                Some(_) => {}
                None if NOT_OFFERED.contains(&name) => {}
                None => {
                    return refuse(format!("`{name}` is not a known cipher suite"))
                        .item("cipher_suites", i);
                }
            }
        }
    }
    if found.is_empty() && !names.is_empty() {
        return refuse(format!(
            "none of them is offered; those of TLS 1.2 are {}",
            CipherSuite::DEFAULT.map(CipherSuite::openssl).join(", ")
        ))
        .at("cipher_suites");
    }
    Ok(found)
}

fn curves(names: &[String]) -> Result<Vec<Curve>> {
    let mut found = Vec::new();
    for (i, text) in names.iter().enumerate() {
        for name in text.split(':') {
            found.push(match name {
                "X25519" => Curve::X25519,
                "P-256" | "prime256v1" => Curve::P256,
                "P-384" | "secp384r1" => Curve::P384,
                "X25519MLKEM768" => Curve::X25519MlKem768,
                // Known, not offered; others of the list may be.
                "P-521" | "P-224" | "secp521r1" | "X25519Kyber768Draft00" => continue,
                _ => {
                    return refuse(format!("`{name}` is not a known curve")).item("ecdh_curves", i);
                }
            });
        }
    }
    if found.is_empty() && !names.is_empty() {
        return refuse("none of them is offered; those are X25519, P-256, P-384, X25519MLKEM768")
            .at("ecdh_curves");
    }
    Ok(found)
}

fn params(m: &pb::TlsParameters) -> Result<(Option<TlsVersion>, Option<TlsVersion>)> {
    refuse_set(&[
        (!m.signature_algorithms.is_empty(), "signature_algorithms"),
        (!m.compliance_policies.is_empty(), "compliance_policies"),
    ])?;
    let min = version(m.tls_minimum_protocol_version);
    let max = version(m.tls_maximum_protocol_version);
    if max.is_some_and(|max| max < TlsVersion::V1_2) {
        return refuse("TLS 1.2 and 1.3 are offered, nothing below")
            .at("tls_maximum_protocol_version");
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return refuse("is above tls_maximum_protocol_version").at("tls_minimum_protocol_version");
    }
    Ok((min, max))
}

fn version(v: i32) -> Option<TlsVersion> {
    use pb::tls_parameters::TlsProtocol as P;
    match P::try_from(v) {
        Ok(P::TlSv10) => Some(TlsVersion::V1_0),
        Ok(P::TlSv11) => Some(TlsVersion::V1_1),
        Ok(P::TlSv12) => Some(TlsVersion::V1_2),
        Ok(P::TlSv13) => Some(TlsVersion::V1_3),
        Ok(P::TlsAuto) | Err(_) => None,
    }
}

fn common(m: Option<&pb::CommonTlsContext>, c: &Collected<'_>) -> Result<CommonTls> {
    let Some(m) = m else {
        return Ok(CommonTls::default());
    };
    for (set, field) in [
        (
            m.custom_tls_certificate_selector.is_some(),
            "custom_tls_certificate_selector",
        ),
        (m.custom_handshaker.is_some(), "custom_handshaker"),
        (
            m.tls_certificate_certificate_provider.is_some(),
            "tls_certificate_certificate_provider",
        ),
        (
            m.tls_certificate_certificate_provider_instance.is_some(),
            "tls_certificate_certificate_provider_instance",
        ),
        (
            m.tls_certificate_provider_instance.is_some(),
            "tls_certificate_provider_instance",
        ),
        (m.key_log.is_some(), "key_log"),
    ] {
        if set {
            return refuse("is not implemented").at(field);
        }
    }
    let tls_params = m.tls_params.clone().unwrap_or_default();
    let (min_version, max_version) = params(&tls_params).at("tls_params")?;
    let alpn_protocols = alpn(&m.alpn_protocols).at("alpn_protocols")?;
    let mut certificates = list(&m.tls_certificates, "tls_certificates", |t| {
        let t = certificate(t, c.context)?;
        usable(&t)?;
        Ok(CertificateSource::Inline(Arc::new(t)))
    })?;
    certificates.extend(list(
        &m.tls_certificate_sds_secret_configs,
        "tls_certificate_sds_secret_configs",
        |s| sds(s, c).map(CertificateSource::Sds),
    )?);
    Ok(CommonTls {
        min_version,
        max_version,
        cipher_suites: cipher_suites(&tls_params.cipher_suites).at("tls_params")?,
        ecdh_curves: curves(&tls_params.ecdh_curves).at("tls_params")?,
        certificates,
        validation: validation_source(m, c)?,
        alpn_protocols,
    })
}

/// Names of protocols are one to 255 bytes (RFC 7301 section 3.1). An entry may hold several with
/// commas between them, as Envoy reads them.
fn alpn(entries: &[String]) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        for name in entry.split(',') {
            if name.is_empty() || name.len() > 255 {
                return refuse(format!("entry {i}: a protocol has 1 to 255 bytes"));
            }
            names.push(Name::from(name));
        }
    }
    Ok(names)
}

fn validation_source(m: &pb::CommonTlsContext, c: &Collected<'_>) -> Result<ValidationSource> {
    use pb::common_tls_context::ValidationContextType as V;
    Ok(match m.validation_context_type.as_ref() {
        None => ValidationSource::None,
        Some(V::ValidationContext(v)) => {
            let rules = validation(v, c.context).at("validation_context")?;
            readable(&rules).at("validation_context")?;
            let roots = rules.trusted_ca.is_some() || rules.system_root_certs;
            if !rules.match_sans.is_empty() && !roots && rules.spiffe_bundles.is_empty() {
                return refuse("names without a trusted_ca prove nothing")
                    .at("match_typed_subject_alt_names")
                    .at("validation_context");
            }
            ValidationSource::Inline(Arc::new(rules))
        }
        Some(V::ValidationContextSdsSecretConfig(s)) => {
            ValidationSource::Sds(sds(s, c).at("validation_context_sds_secret_config")?)
        }
        Some(V::CombinedValidationContext(v)) => {
            refuse_set(&[
                (
                    v.validation_context_certificate_provider.is_some(),
                    "validation_context_certificate_provider",
                ),
                (
                    v.validation_context_certificate_provider_instance.is_some(),
                    "validation_context_certificate_provider_instance",
                ),
            ])
            .at("combined_validation_context")?;
            let default = v.default_validation_context.clone().unwrap_or_default();
            let secret = need(
                v.validation_context_sds_secret_config.as_ref(),
                "validation_context_sds_secret_config",
            )
            .and_then(|s| sds(s, c).at("validation_context_sds_secret_config"))
            .at("combined_validation_context")?;
            let default = validation(&default, c.context)
                .at("default_validation_context")
                .at("combined_validation_context")?;
            ValidationSource::Combined {
                default: Arc::new(default),
                sds: secret,
            }
        }
        Some(V::ValidationContextCertificateProvider(_)) => {
            return refuse("is not implemented").at("validation_context_certificate_provider");
        }
        Some(V::ValidationContextCertificateProviderInstance(_)) => {
            return refuse("is not implemented")
                .at("validation_context_certificate_provider_instance");
        }
    })
}

/// An SDS reference. Without a config source the secret is a static one.
fn sds(m: &pb::SdsSecretConfig, c: &Collected<'_>) -> Result<Name> {
    if m.name.is_empty() {
        return refuse("is required").at("name");
    }
    let Some(config) = &m.sds_config else {
        return Ok(m.name.as_str().into());
    };
    let (source, fetch_timeout_ms) = secret_source::source(config, c.context).at("sds_config")?;
    let name = source.key(&m.name);
    add_need(
        &c.secrets,
        Needs {
            name: name.clone(),
            fetch_timeout_ms,
            source,
        },
    );
    Ok(name)
}

fn material(source: &core::DataSource, context: &Context) -> Result<Material> {
    let (bytes, path) = data_source(source, context)?;
    Ok(Material { bytes, path })
}

fn certificate(m: &pb::TlsCertificate, context: &Context) -> Result<TlsCertificate> {
    refuse_set(&[
        (m.pkcs12.is_some(), "pkcs12"),
        (m.private_key_provider.is_some(), "private_key_provider"),
        (m.ocsp_staple.is_some(), "ocsp_staple"),
        (
            !m.signed_certificate_timestamp.is_empty(),
            "signed_certificate_timestamp",
        ),
        (m.tls_params.is_some(), "tls_params"),
    ])?;
    let get =
        |s: Option<&core::DataSource>, field: &str| material(need(s, field)?, context).at(field);
    Ok(TlsCertificate {
        certificate_chain: get(m.certificate_chain.as_ref(), "certificate_chain")?,
        private_key: Private(get(m.private_key.as_ref(), "private_key")?),
        password: m
            .password
            .as_ref()
            .map(|p| material(p, context).map(Private))
            .transpose()
            .at("password")?,
    })
}

fn validation(
    m: &pb::CertificateValidationContext,
    context: &Context,
) -> Result<ValidationContext> {
    if m.ca_certificate_provider_instance.is_some() {
        return refuse("is not implemented").at("ca_certificate_provider_instance");
    }
    let mut match_sans = list(
        &m.match_typed_subject_alt_names,
        "match_typed_subject_alt_names",
        |s| {
            use pb::subject_alt_name_matcher::SanType as T;
            let kind = match T::try_from(s.san_type) {
                Ok(T::Dns) => SanType::Dns,
                Ok(T::Uri) => SanType::Uri,
                Ok(T::Email) => SanType::Email,
                Ok(T::IpAddress) => SanType::IpAddress,
                _ => return refuse("is not a known type of name").at("san_type"),
            };
            let matcher = matcher::string(need(s.matcher.as_ref(), "matcher")?).at("matcher")?;
            Ok(SanMatcher { kind, matcher })
        },
    )?;
    match_sans.extend(list(
        &m.match_subject_alt_names,
        "match_subject_alt_names",
        |s| {
            Ok(SanMatcher {
                kind: SanType::Any,
                matcher: matcher::string(s)?,
            })
        },
    )?);
    let optional = |s: Option<&core::DataSource>, field: &str| {
        s.map(|s| material(s, context)).transpose().at(field)
    };
    refuse_set(&[
        (m.allow_expired_certificate, "allow_expired_certificate"),
        (m.max_verify_depth.is_some(), "max_verify_depth"),
        (
            bool_or(m.require_signed_certificate_timestamp.as_ref(), false),
            "require_signed_certificate_timestamp",
        ),
    ])?;
    let trusted_ca = optional(m.trusted_ca.as_ref(), "trusted_ca")?;
    let spiffe_bundles = spiffe(m, context).at("custom_validator_config")?;
    let hash = |h: &String| -> Result<Name> {
        let bare = h.replace(':', "").to_ascii_lowercase();
        if bare.len() != 64 || !bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            return refuse(format!("`{h}` is no SHA-256 in hex"));
        }
        Ok(bare.into())
    };
    let pin = |p: &String| -> Result<Name> {
        if p.len() != 44 {
            return refuse(format!("`{p}` is no SHA-256 in base64"));
        }
        Ok(p.as_str().into())
    };
    Ok(ValidationContext {
        trusted_ca,
        system_root_certs: m.system_root_certs.is_some(),
        spiffe_bundles,
        match_sans,
        verify_certificate_spki: list(&m.verify_certificate_spki, "verify_certificate_spki", pin)?,
        verify_certificate_hash: list(&m.verify_certificate_hash, "verify_certificate_hash", hash)?,
        crl: optional(m.crl.as_ref(), "crl")?,
        allow_expired_certificate: m.allow_expired_certificate,
        accept_untrusted: m.trust_chain_verification
            == pb::certificate_validation_context::TrustChainVerification::AcceptUntrusted as i32,
        only_verify_leaf_cert_crl: m.only_verify_leaf_cert_crl,
        suppress_client_ca_list: m.suppress_client_ca_list,
    })
}

/// `envoy.tls.cert_validator.spiffe`: a bundle per trust domain.
fn spiffe(
    m: &pb::CertificateValidationContext,
    context: &Context,
) -> Result<Vec<(Name, Material)>> {
    let Some(config) = &m.custom_validator_config else {
        return Ok(vec![]);
    };
    let Some(any) = &config.typed_config else {
        return refuse("is required").at("typed_config");
    };
    let spiffe: pb::SpiffeCertValidatorConfig = super::typed(any).at("typed_config")?;
    refuse_set(&[(spiffe.trust_bundles.is_some(), "trust_bundles")]).at("typed_config")?;
    if spiffe.trust_domains.is_empty() {
        return refuse("at least one is required")
            .at("trust_domains")
            .at("typed_config");
    }
    list(&spiffe.trust_domains, "trust_domains", |d| {
        refuse_set(&[(!d.workload_trust_domain.is_empty(), "workload_trust_domain")])?;
        let bundle = need(d.trust_bundle.as_ref(), "trust_bundle")?;
        Ok((
            d.name.as_str().into(),
            material(bundle, context).at("trust_bundle")?,
        ))
    })
}

/// Refuses a certificate that could not be shown: what serves now must not give
/// way to it.
fn usable(certificate: &TlsCertificate) -> Result<()> {
    let chain: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&certificate.certificate_chain.bytes).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => return refuse("no certificate in the PEM text").at("certificate_chain"),
        Err(error) => return refuse(error.to_string()).at("certificate_chain"),
    };
    let key = match PrivateKeyDer::from_pem_slice(&certificate.private_key.0.bytes) {
        Ok(key) => key,
        Err(error) => return refuse(error.to_string()).at("private_key"),
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match certified_key(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(error) => refuse(error.to_string()).at("private_key"),
    }
}

/// Refuses roots without a certificate among them.
fn readable(rules: &ValidationContext) -> Result<()> {
    let Some(roots) = &rules.trusted_ca else {
        return Ok(());
    };
    let all: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&roots.bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(()),
        Ok(_) => refuse("no certificate in the PEM text").at("trusted_ca"),
        Err(error) => refuse(error.to_string()).at("trusted_ca"),
    }
}

pub(super) fn secret(m: &pb::Secret, context: &Context) -> Result<(Name, Secret)> {
    use pb::secret::Type as T;
    let value = match m.r#type.as_ref() {
        Some(T::TlsCertificate(t)) => {
            let certificate = certificate(t, context)
                .and_then(|c| usable(&c).map(|()| c))
                .at("tls_certificate")?;
            Secret::Certificate(Arc::new(certificate))
        }
        Some(T::ValidationContext(v)) => {
            let rules = validation(v, context)
                .and_then(|v| readable(&v).map(|()| v))
                .at("validation_context")?;
            Secret::Validation(Arc::new(rules))
        }
        Some(T::SessionTicketKeys(k)) => {
            Secret::SessionTicketKeys(ticket_keys(k, context).at("session_ticket_keys")?)
        }
        Some(T::GenericSecret(g)) => {
            refuse_set(&[(!g.secrets.is_empty(), "secrets")]).at("generic_secret")?;
            let source = need(g.secret.as_ref(), "secret").at("generic_secret")?;
            Secret::Generic(Private(
                material(source, context).at("generic_secret.secret")?,
            ))
        }
        None => return refuse("a secret needs one of tls_certificate, validation_context, ..."),
    };
    Ok((m.name.as_str().into(), value))
}
