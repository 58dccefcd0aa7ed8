//! A check over gRPC: one message out, one back, status in the trailers. The messages are
//! `proxy-xds`'s.

use lateen_proxy_core::config::ext_authz::{ExtAuthz, ExtAuthzPerRoute, GrpcTarget};
use lateen_proxy_xds::authz::{Check, METHOD, Verdict};

use super::super::call::{Answer, Call, mark_own};
use super::super::head::Head;
use super::super::known::Known;
use super::super::stream::Stream;
use super::{CheckError, LONGEST, Sample};

/// A flag and four bytes of length stand before a message.
const PREFIX: usize = 5;

/// The request that asks, and whether the sample follows it as its tail.
pub(super) fn question(
    stream: &Stream<'_>,
    config: &ExtAuthz,
    service: &GrpcTarget,
    own: Option<&ExtAuthzPerRoute>,
    sample: Option<Sample<'_>>,
) -> (Call, bool) {
    let record = &*stream.record;
    let request = &record.request;
    let allowed = |name: &[u8]| {
        let asked = config.allowed_headers.is_empty()
            || config.allowed_headers.iter().any(|m| m.matches(name));
        asked && !config.disallowed_headers.iter().any(|m| m.matches(name))
    };
    let pseudo = [
        (&b":authority"[..], request.authority()),
        (&b":path"[..], request.path()),
        (&b":method"[..], request.method()),
        (&b":scheme"[..], request.scheme()),
    ];
    let pseudo = pseudo.into_iter().filter(|(_, value)| !value.is_empty());
    let partial: &[u8] = match sample {
        Some(sample) if sample.partial => b"true",
        _ => b"false",
    };
    let told = sample.map(|_| (&b"x-envoy-auth-partial-body"[..], partial));
    let headers = pseudo.chain(request.lines());
    let headers = headers.filter(|(name, _)| allowed(name));
    let peer = record.conn.peer.as_ref();
    let principal = peer.map_or("", |peer| {
        let names = [peer.uris.first(), peer.dns.first(), Some(&peer.subject)];
        names.into_iter().flatten().next().map_or("", |n| n)
    });
    let namespaces = config.metadata_namespaces.iter();
    let metadata =
        namespaces.filter_map(|n| Some((n.clone(), record.dynamic_metadata(n)?.clone())));
    let check = Check {
        source: Some(record.remote),
        source_principal: principal,
        destination: Some(record.conn.local),
        time_ns: record.times.start,
        id: record.random,
        method: request.method(),
        path: request.path(),
        host: request.authority(),
        scheme: request.scheme(),
        protocol: record.protocol.text(),
        // Of the body, as far as it has come.
        size: Some(sample.map_or(0, |s| s.come)),
        headers: headers.chain(told).collect(),
        body: sample.map_or(&b""[..], |s| s.bytes),
        body_as_bytes: sample.is_some_and(|s| s.wanted.as_bytes),
        context_extensions: own.map_or(&[][..], |own| &own.context_extensions[..]),
        metadata: metadata.collect(),
        server_name: config
            .include_tls_session
            .then_some(record.conn.server_name.as_str()),
    };
    let mut head = Head::new();
    head.set_method(b"POST");
    head.set_scheme(b"http");
    head.set_authority(service.authority.as_bytes());
    head.set_path(METHOD.as_bytes());
    head.add(b"te", b"trailers");
    head.add(b"content-type", b"application/grpc");
    if !service.timeout.is_zero() {
        let timeout = format!("{}m", service.timeout.as_millis());
        head.add(b"grpc-timeout", timeout.as_bytes());
    }
    for (name, value) in &service.metadata {
        head.add(name.as_bytes(), value.as_bytes());
    }
    mark_own(&record.conn.worker, &mut head, service.timeout);
    let (message, text) = check.encode();
    let follows = text.is_none() && sample.is_some();
    let tail = text.unwrap_or_default();
    let after = match (follows, sample) {
        (true, Some(sample)) => sample.bytes.len(),
        _ => tail.len(),
    };
    let mut body = Vec::with_capacity(PREFIX + message.len());
    body.push(0);
    let length = u32::try_from(message.len() + after).unwrap_or(u32::MAX);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(&message);
    let call = Call {
        head,
        body,
        tail,
        timeout: service.timeout,
        longest: Some(LONGEST),
        repeatable: true,
    };
    (call, follows)
}

/// What the service's answer means.
pub(super) fn verdict(answer: &Answer) -> Result<Verdict, CheckError> {
    let wrong = |why: String| Err(CheckError::Answer(why));
    if answer.head.status != 200 {
        return wrong(format!("answered with {}", answer.head.status));
    }
    // An answer without a message has its status in the head.
    let status = answer.trailers.known(Known::GrpcStatus);
    let status = status.or_else(|| answer.head.known(Known::GrpcStatus));
    if status != Some(b"0") {
        let status = status.map(String::from_utf8_lossy);
        return wrong(format!("gRPC status {status:?}"));
    }
    let Some((prefix, message)) = answer.body.split_at_checked(PREFIX) else {
        return wrong("no message".to_owned());
    };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || length as usize != message.len() {
        return wrong("not one plain message".to_owned());
    }
    Verdict::decode(message).map_err(CheckError::Answer)
}
