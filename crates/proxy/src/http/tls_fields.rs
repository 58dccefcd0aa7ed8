//! What access logs ask of a connection's TLS: version, suite, the certificates
//! of both ends, why the handshake failed.

use lateen_proxy_core::access_log::{Field, FieldValue, TimePoint};

use crate::conn::Connection;
use crate::tls::certificate::{Detail, detail, validity};
use crate::tls::words;

/// The value of a field that is TLS's.
pub(super) fn field(conn: &Connection, field: Field) -> FieldValue<'_> {
    let peer = conn.peer.as_ref();
    let shown = conn.shown.as_deref();
    match field {
        Field::DownstreamTlsVersion => {
            let version = conn.io.tls(|tls| tls.protocol_version()).flatten();
            version.map(words::version).into()
        }
        Field::DownstreamTlsCipher => {
            let suite = conn.io.tls(|tls| tls.negotiated_cipher_suite()).flatten();
            suite.map(|s| words::suite(s.suite())).into()
        }
        Field::DownstreamTlsGroup => {
            let group = conn.io.tls(|tls| tls.negotiated_key_exchange_group());
            group.flatten().map(|g| words::group(g.name())).into()
        }
        Field::DownstreamPeerChainFingerprints256 => of_chain(conn, Detail::Sha256),
        Field::DownstreamPeerChainFingerprints1 => of_chain(conn, Detail::Sha1),
        Field::DownstreamPeerChainSerials => of_chain(conn, Detail::Serial),
        Field::DownstreamTransportFailureReason => {
            Some(conn.failure.as_str()).filter(|f| !f.is_empty()).into()
        }
        Field::DownstreamPeerUriSan => joined(peer.map(|p| &p.uris)),
        Field::DownstreamPeerDnsSan => joined(peer.map(|p| &p.dns)),
        Field::DownstreamPeerSubject => text(peer.map(|p| &p.subject)),
        Field::DownstreamPeerIpSan => of_peer(conn, Detail::Ips),
        Field::DownstreamPeerEmailSan => of_peer(conn, Detail::Emails),
        Field::DownstreamPeerIssuer => of_peer(conn, Detail::Issuer),
        Field::DownstreamPeerSerial => of_peer(conn, Detail::Serial),
        Field::DownstreamPeerFingerprint256 => text(peer.map(|p| &p.hash)),
        Field::DownstreamPeerFingerprint1 => of_peer(conn, Detail::Sha1),
        Field::DownstreamPeerCert => of_peer(conn, Detail::Pem),
        Field::DownstreamLocalUriSan => joined(shown.map(|s| &s.uris)),
        Field::DownstreamLocalDnsSan => joined(shown.map(|s| &s.dns)),
        Field::DownstreamLocalIpSan => joined(shown.map(|s| &s.ips)),
        Field::DownstreamLocalSubject => text(shown.map(|s| &s.subject)),
        _ => FieldValue::Missing,
    }
}

fn text(value: Option<&String>) -> FieldValue<'_> {
    value.map(String::as_str).filter(|t| !t.is_empty()).into()
}

fn joined(names: Option<&Vec<String>>) -> FieldValue<'_> {
    match names {
        Some(names) if !names.is_empty() => FieldValue::Owned(names.join(",")),
        _ => FieldValue::Missing,
    }
}

fn of_peer(conn: &Connection, what: Detail) -> FieldValue<'_> {
    match conn.with_leaf(|leaf| detail(leaf, what)).flatten() {
        Some(text) => FieldValue::Owned(text),
        None => FieldValue::Missing,
    }
}

/// The same of each certificate that the client sent, in their order.
fn of_chain(conn: &Connection, what: Detail) -> FieldValue<'_> {
    if conn
        .peer
        .as_ref()
        .is_some_and(|peer| peer.refused.is_some())
    {
        return of_peer(conn, what);
    }
    let all = conn.io.tls(|tls| {
        let chain = tls.peer_certificates().unwrap_or_default();
        let texts = chain.iter().filter_map(|der| detail(der, what));
        texts.collect::<Vec<_>>()
    });
    match all.filter(|all| !all.is_empty()) {
        Some(all) => FieldValue::Owned(all.join(",")),
        None => FieldValue::Missing,
    }
}

/// A point in time that a certificate tells, nanoseconds since the Unix epoch;
/// 0 = none.
pub(crate) fn time(conn: &Connection, point: TimePoint) -> u64 {
    let validity = || conn.with_leaf(validity).flatten();
    match point {
        TimePoint::PeerCertStart => validity().map_or(0, |v| v.0),
        TimePoint::PeerCertEnd => validity().map_or(0, |v| v.1),
        _ => 0,
    }
}
