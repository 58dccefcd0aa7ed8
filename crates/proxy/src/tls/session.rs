//! What log lines say of TLS towards an upstream: kept by the connection, shared with the records of
//! its requests.

use lateen_proxy_core::access_log::{Field, FieldValue, TimePoint};
use rustls_pki_types::CertificateDer;

use super::certificate::{Detail, Names, detail, url_pem, validity};
use super::words;

/// A TLS session with an upstream.
#[derive(Debug)]
pub struct UpstreamSession {
    version: Option<&'static str>,
    cipher: Option<&'static str>,
    group: Option<&'static str>,
    /// The upstream's certificate.
    leaf: Option<CertificateDer<'static>>,
    /// When the handshake was done, nanoseconds since the Unix epoch.
    done_ns: u64,
}

impl UpstreamSession {
    /// Of a handshake that is done now.
    pub fn new(tls: &rustls::Connection, done_ns: u64) -> Self {
        let leaf = tls.peer_certificates().and_then(<[_]>::first);
        let suite = tls.negotiated_cipher_suite();
        let group = tls.negotiated_key_exchange_group();
        Self {
            version: tls.protocol_version().map(words::version),
            cipher: suite.map(|s| words::suite(s.suite())),
            group: group.map(|g| words::group(g.name())),
            leaf: leaf.cloned(),
            done_ns,
        }
    }

    fn names(&self, of: fn(&Names) -> &[String]) -> FieldValue<'static> {
        let names = self.leaf.as_ref().map(|leaf| Names::of(leaf));
        match names.as_ref().map(of).filter(|names| !names.is_empty()) {
            Some(names) => FieldValue::Owned(names.join(",")),
            None => FieldValue::Missing,
        }
    }

    fn detail(&self, what: Detail) -> FieldValue<'static> {
        let text = self.leaf.as_ref().and_then(|leaf| detail(leaf, what));
        text.map_or(FieldValue::Missing, FieldValue::Owned)
    }

    /// The value of a field; missing where it is none of the session's.
    pub fn field(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::UpstreamTlsVersion => self.version.into(),
            Field::UpstreamTlsCipher => self.cipher.into(),
            Field::UpstreamTlsGroup => self.group.into(),
            Field::UpstreamPeerUriSan => self.names(|n| &n.uris),
            Field::UpstreamPeerDnsSan => self.names(|n| &n.dns),
            Field::UpstreamPeerIpSan => self.detail(Detail::Ips),
            Field::UpstreamPeerIssuer => self.detail(Detail::Issuer),
            Field::UpstreamPeerSubject => {
                let names = self.leaf.as_ref().map(|leaf| Names::of(leaf));
                match names.filter(|n| !n.subject.is_empty()) {
                    Some(names) => FieldValue::Owned(names.subject),
                    None => FieldValue::Missing,
                }
            }
            Field::UpstreamPeerCert => match &self.leaf {
                Some(leaf) => FieldValue::Owned(url_pem([&**leaf].into_iter())),
                None => FieldValue::Missing,
            },
            _ => FieldValue::Missing,
        }
    }

    /// A point in time that the session tells; 0 = none.
    pub fn time(&self, point: TimePoint) -> u64 {
        let validity = || self.leaf.as_ref().and_then(|leaf| validity(leaf));
        match point {
            TimePoint::UpstreamTlsConnectEnd => self.done_ns,
            TimePoint::UpstreamPeerCertStart => validity().map_or(0, |v| v.0),
            TimePoint::UpstreamPeerCertEnd => validity().map_or(0, |v| v.1),
            _ => 0,
        }
    }
}
