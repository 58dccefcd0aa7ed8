//! What is done to a request's headers before anything looks at it: the host is
//! stripped, the client is found, what an outsider must not say is removed, the
//! request id and the scheme are set. The rules are `proxy-core`'s.

use lateen_proxy_core::config::HttpConnectionManager;
use lateen_proxy_core::forwarding::{self, Downstream, PeerCertificate};
use lateen_proxy_core::{request_id, rewrite};

use super::head::Head;
use super::known::Known;
use super::record::StreamRecord;
use crate::conn::Connection;
use crate::tls::certificate::url_pem;

/// Applies the rules to the record's request; the status where it is refused.
pub fn request(record: &mut StreamRecord, hcm: &HttpConnectionManager) -> Option<u16> {
    let conn = &*record.conn;
    let head = &mut record.request;
    let stripped = rewrite::strip_host(hcm, head.authority(), Some(conn.local.port()));
    // A CONNECT is nothing without the port it names (RFC 9110 9.3.6).
    if stripped.len() != head.authority().len() && head.method() != b"CONNECT" {
        let stripped = stripped.into_owned();
        head.set_authority(&stripped);
    }
    let origin = match &conn.peer {
        None => sanitize(head, hcm, conn, None),
        Some(peer) => {
            let uris: Vec<&str> = peer.uris.iter().map(String::as_str).collect();
            let dns: Vec<&str> = peer.dns.iter().map(String::as_str).collect();
            let own = conn.shown.as_deref().map(|s| s.uris.as_slice());
            let own: Vec<&str> = own.unwrap_or_default().iter().map(String::as_str).collect();
            let (cert, chain) = pem(conn, hcm);
            let certificate = PeerCertificate {
                own_uri_sans: &own,
                hash: &peer.hash,
                subject: &peer.subject,
                uri_sans: &uris,
                dns_sans: &dns,
                cert: &cert,
                chain: &chain,
            };
            sanitize(head, hcm, conn, Some(certificate))
        }
    };
    record.remote = origin.client.unwrap_or(conn.remote);
    record.internal = origin.internal;
    if hcm.add_user_agent {
        let own = &conn.worker.mesh.own;
        let service = own.service.as_bytes();
        head.set_known(Known::XEnvoyDownstreamServiceCluster, service);
        if head.known(Known::UserAgent).is_none_or(<[u8]>::is_empty) {
            head.set_known(Known::UserAgent, service);
        }
        if !own.id.is_empty() {
            head.set_known(Known::XEnvoyDownstreamServiceNode, &own.id);
        }
    }
    if !hcm.via.is_empty() {
        head.join_known(Known::Via, b", ", hcm.via.as_bytes());
    }
    set_scheme(head, hcm);
    let id = head.known(Known::XRequestId);
    if hcm.generate_request_id && id.is_none_or(<[u8]>::is_empty) {
        head.set_known(Known::XRequestId, &request_id::make(fastrand::u128(..)));
    }
    origin.refused
}

/// The client's certificate and its whole chain as PEM, where they are asked for.
fn pem(conn: &Connection, hcm: &HttpConnectionManager) -> (String, String) {
    let details = hcm.client_cert_details;
    if !details.cert && !details.chain {
        return <(String, String)>::default();
    }
    let found = conn.io.tls(|tls| {
        let all = tls.peer_certificates().unwrap_or_default();
        let of = |wanted: bool, count: usize| match wanted {
            true => url_pem(all.iter().take(count).map(|der| der.as_ref())),
            false => String::new(),
        };
        (of(details.cert, 1), of(details.chain, all.len()))
    });
    found.unwrap_or_default()
}

fn sanitize(
    head: &mut Head,
    hcm: &HttpConnectionManager,
    conn: &Connection,
    peer_certificate: Option<PeerCertificate<'_>>,
) -> forwarding::Origin {
    let down = Downstream {
        peer: Some(conn.remote),
        local: Some(conn.local),
        tls: conn.io.is_tls(),
        peer_certificate,
        node_ip: conn.worker.node_ip,
    };
    forwarding::sanitize(head, hcm, &down)
}

fn set_scheme(head: &mut Head, hcm: &HttpConnectionManager) {
    if let Some(scheme) = &hcm.scheme_overwrite {
        head.set_known(Known::XForwardedProto, scheme.as_bytes());
        return head.set_scheme(scheme.as_bytes());
    }
    let https = head
        .known(Known::XForwardedProto)
        .is_some_and(|v| v.eq_ignore_ascii_case(b"https"));
    head.set_scheme(if https { b"https" } else { b"http" });
}
