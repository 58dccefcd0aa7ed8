//! SDS: certificates and roots as secrets. The material is the caller's; which proxy may
//! have it is the caller's question, too.

use std::sync::Arc;

use lateen_xds_proto::envoy::config::core::v3::{DataSource, data_source};
use lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};

use crate::fingerprint::resource;
use crate::resource::Resource;

/// Ends the name of the part of a gateway credential that holds the client CA.
pub const CA_SUFFIX: &str = "-cacert";

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec())),
        ..DataSource::default()
    })
}

/// A certificate chain with its key, both PEM.
pub fn certificate(name: &str, chain: &[u8], key: &[u8]) -> Arc<Resource> {
    resource(Secret {
        name: name.to_owned(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(chain),
            private_key: inline(key),
            ..TlsCertificate::default()
        })),
    })
}

/// Roots to check peers against, PEM.
pub fn roots(name: &str, roots: &[u8]) -> Arc<Resource> {
    resource(Secret {
        name: name.to_owned(),
        r#type: Some(secret::Type::ValidationContext(
            CertificateValidationContext {
                trusted_ca: inline(roots),
                ..CertificateValidationContext::default()
            },
        )),
    })
}
