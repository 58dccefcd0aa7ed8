//! TLS contexts and secrets.
use std::sync::Arc;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::tls::{
    CertificateSource, CommonTls, DownstreamTls, Material, Private, SanMatcher, SanType, Secret,
    TlsCertificate, TlsVersion, UpstreamTls, ValidationContext, ValidationSource,
};
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3 as pb;

use super::common::{bool_or, config_source, data_source, need, opt_duration, u32_of};
use super::{Collected, Context, Needs, add_need, matcher};
use crate::error::{At, Result, list, refuse, refuse_set};

fn names(list: &[String]) -> Vec<Name> {
    list.iter().map(|s| s.as_str().into()).collect()
}

pub(super) fn downstream(m: &pb::DownstreamTlsContext, c: &Collected<'_>) -> Result<DownstreamTls> {
    let common = common(m.common_tls_context.as_ref(), c).at("common_tls_context")?;
    if common.certificates.is_empty() {
        return refuse(
            "a server needs a certificate: tls_certificates or tls_certificate_sds_secret_configs",
        )
        .at("common_tls_context");
    }
    Ok(DownstreamTls {
        common,
        require_client_certificate: bool_or(m.require_client_certificate.as_ref(), false),
        require_sni: bool_or(m.require_sni.as_ref(), false),
        disable_stateless_session_resumption: matches!(
            m.session_ticket_keys_type,
            Some(pb::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(true))
        ),
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
            m.tls_certificate_provider_instance.is_some(),
            "tls_certificate_provider_instance",
        ),
        (m.key_log.is_some(), "key_log"),
    ] {
        if set {
            return refuse("is not implemented").at(field);
        }
    }
    // Cipher suites and curves are hints here: the TLS library has none but the strong ones, which
    // every list Istio sends includes. Session lifetimes and caches do not change what is let in.
    let params = m.tls_params.clone().unwrap_or_default();
    let mut certificates = list(&m.tls_certificates, "tls_certificates", |t| {
        certificate(t, c.context).map(|t| CertificateSource::Inline(Arc::new(t)))
    })?;
    certificates.extend(list(
        &m.tls_certificate_sds_secret_configs,
        "tls_certificate_sds_secret_configs",
        |s| sds(s, c).map(CertificateSource::Sds),
    )?);
    Ok(CommonTls {
        min_version: version(params.tls_minimum_protocol_version),
        max_version: version(params.tls_maximum_protocol_version),
        cipher_suites: names(&params.cipher_suites),
        ecdh_curves: names(&params.ecdh_curves),
        certificates,
        validation: validation_source(m, c)?,
        alpn_protocols: names(&m.alpn_protocols),
    })
}

fn validation_source(m: &pb::CommonTlsContext, c: &Collected<'_>) -> Result<ValidationSource> {
    use pb::common_tls_context::ValidationContextType as V;
    Ok(match m.validation_context_type.as_ref() {
        None => ValidationSource::None,
        Some(V::ValidationContext(v)) => {
            ValidationSource::Inline(Arc::new(validation(v, c.context).at("validation_context")?))
        }
        Some(V::ValidationContextSdsSecretConfig(s)) => {
            ValidationSource::Sds(sds(s, c).at("validation_context_sds_secret_config")?)
        }
        Some(V::CombinedValidationContext(v)) => {
            let default = v.default_validation_context.clone().unwrap_or_default();
            let secret = need(
                v.validation_context_sds_secret_config.as_ref(),
                "validation_context_sds_secret_config",
            )
            .and_then(|s| sds(s, c))
            .at("combined_validation_context")?;
            let default = validation(&default, c.context)
                .at("default_validation_context")
                .at("combined_validation_context")?;
            ValidationSource::Combined {
                default: Arc::new(default),
                sds: secret,
            }
        }
        Some(
            V::ValidationContextCertificateProvider(_)
            | V::ValidationContextCertificateProviderInstance(_),
        ) => {
            return refuse("certificate providers are not implemented");
        }
    })
}

/// An SDS reference. Without a config source the secret is a static one.
fn sds(m: &pb::SdsSecretConfig, c: &Collected<'_>) -> Result<Name> {
    if m.name.is_empty() {
        return refuse("is required").at("name");
    }
    let name: Name = m.name.as_str().into();
    if m.sds_config.is_some() {
        let fetch_timeout_ms = config_source(m.sds_config.as_ref()).at("sds_config")?;
        add_need(
            &c.secrets,
            Needs {
                name: name.clone(),
                fetch_timeout_ms,
            },
        );
    }
    Ok(name)
}

fn material(source: &core::DataSource, context: &Context) -> Result<Material> {
    let (bytes, path) = data_source(source, context)?;
    Ok(Material { bytes, path })
}

fn certificate(m: &pb::TlsCertificate, context: &Context) -> Result<TlsCertificate> {
    if m.pkcs12.is_some() || m.private_key_provider.is_some() {
        return refuse("pkcs12 and private_key_provider are not implemented");
    }
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
    refuse_set(&[(m.allow_expired_certificate, "allow_expired_certificate")])?;
    let trusted_ca = optional(m.trusted_ca.as_ref(), "trusted_ca")?;
    let spiffe_bundles = spiffe(m, context).at("custom_validator_config")?;
    let hash = |h: &String| -> Result<Name> { Ok(h.replace(':', "").to_ascii_lowercase().into()) };
    Ok(ValidationContext {
        trusted_ca,
        system_root_certs: m.system_root_certs.is_some(),
        spiffe_bundles,
        match_sans,
        verify_certificate_spki: names(&m.verify_certificate_spki),
        verify_certificate_hash: list(&m.verify_certificate_hash, "verify_certificate_hash", hash)?,
        crl: optional(m.crl.as_ref(), "crl")?,
        allow_expired_certificate: m.allow_expired_certificate,
        accept_untrusted: m.trust_chain_verification
            == pb::certificate_validation_context::TrustChainVerification::AcceptUntrusted as i32,
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
    list(&spiffe.trust_domains, "trust_domains", |d| {
        let bundle = need(d.trust_bundle.as_ref(), "trust_bundle")?;
        Ok((
            d.name.as_str().into(),
            material(bundle, context).at("trust_bundle")?,
        ))
    })
}

pub(super) fn secret(m: &pb::Secret, context: &Context) -> Result<(Name, Secret)> {
    use pb::secret::Type as T;
    let value = match m.r#type.as_ref() {
        Some(T::TlsCertificate(t)) => {
            Secret::Certificate(Arc::new(certificate(t, context).at("tls_certificate")?))
        }
        Some(T::ValidationContext(v)) => {
            Secret::Validation(Arc::new(validation(v, context).at("validation_context")?))
        }
        Some(T::SessionTicketKeys(k)) => Secret::SessionTicketKeys(
            list(&k.keys, "keys", |k| material(k, context).map(Private))
                .at("session_ticket_keys")?,
        ),
        Some(T::GenericSecret(g)) => {
            let source = need(g.secret.as_ref(), "secret").at("generic_secret")?;
            Secret::Generic(Private(
                material(source, context).at("generic_secret.secret")?,
            ))
        }
        None => return refuse("a secret needs one of tls_certificate, validation_context, ..."),
    };
    Ok((m.name.as_str().into(), value))
}
