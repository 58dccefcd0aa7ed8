//! A check over HTTP: the request's head, cut down, to a server whose status is the verdict. 200
//! passes, 5xx is no verdict, everything else refuses and is the client's answer.

use lateen_proxy_core::config::ext_authz::{ExtAuthz, HttpAuthz};
use lateen_proxy_core::config::{Fields, Metadata, Name, Value};
use lateen_proxy_core::matcher::StringMatcher;
use lateen_proxy_xds::authz::{HeaderWrite, NAMESPACE, Pass, Refusal, Verdict, Write};

use super::super::call::{Answer, Call, mark_own};
use super::super::head::Head;
use super::super::known::Known;
use super::super::stream::Stream;
use super::{CheckError, LONGEST, Sample};

/// Names of headers that are to be taken out of the request.
const REMOVE: &[u8] = b"x-envoy-auth-headers-to-remove";

fn any(matchers: &[StringMatcher], name: &[u8]) -> bool {
    matchers.iter().any(|m| m.matches(name))
}

/// The request that asks, and whether the sample follows it as its tail.
pub(super) fn question(
    stream: &Stream<'_>,
    config: &ExtAuthz,
    service: &HttpAuthz,
    sample: Option<Sample<'_>>,
) -> (Call, bool) {
    let request = &stream.record.request;
    let mut head = Head::new();
    head.set_method(request.method());
    head.set_scheme(request.scheme());
    head.set_authority(request.authority());
    match service.path_override.as_bytes() {
        [] => head.set_path(&[service.path_prefix.as_bytes(), request.path()].concat()),
        path => head.set_path(path),
    }
    let length = sample.map_or(0, |s| s.bytes.len() as u64);
    head.add_number(Known::ContentLength, length);
    for (name, value) in request.lines() {
        // Hop by hop, or made here.
        let own = matches!(
            name,
            b"connection" | b"upgrade" | b"transfer-encoding" | b"content-length" | b"te"
        );
        let allowed = name == b"authorization" || any(&config.allowed_headers, name);
        if !own && allowed && !any(&config.disallowed_headers, name) {
            head.add(name, value);
        }
    }
    for (name, value) in &service.headers_to_add {
        head.set(name.as_bytes(), value.as_bytes());
    }
    if let Some(sample) = sample {
        let partial: &[u8] = if sample.partial { b"true" } else { b"false" };
        head.set(b"x-envoy-auth-partial-body", partial);
    }
    mark_own(&stream.record.conn.worker, &mut head, service.uri.timeout);
    head.remove_known(Known::XForwardedFor);
    let call = Call {
        head,
        body: Vec::new(),
        tail: Vec::new(),
        timeout: service.uri.timeout,
        longest: Some(LONGEST),
        repeatable: true,
    };
    (call, sample.is_some())
}

/// What the server's answer means.
pub(super) fn verdict(service: &HttpAuthz, answer: Answer) -> Result<Verdict, CheckError> {
    let status = answer.head.status;
    if status >= 500 {
        return Err(CheckError::Answer(format!("answered with {status}")));
    }
    let head = &answer.head;
    let write = |name: &[u8], value: &[u8], write| {
        let name = std::str::from_utf8(name).ok()?;
        Some(HeaderWrite {
            name: name.into(),
            value: value.to_vec(),
            write,
        })
    };
    let matching = |matchers: &[StringMatcher], how: Write| -> Vec<HeaderWrite> {
        // What is said to the proxy goes no further.
        let lines = head.lines().filter(|(name, _)| *name != REMOVE);
        lines
            .filter(|(name, _)| any(matchers, name))
            .filter_map(|(name, value)| write(name, value, how))
            .collect()
    };
    let kept = matching(&service.metadata_headers, Write::Set);
    let kept = kept.iter().map(|header| {
        let value = String::from_utf8_lossy(&header.value);
        (header.name.clone(), Value::String(value.as_ref().into()))
    });
    let kept = Value::Struct(kept.collect());
    let metadata = [(NAMESPACE.into(), kept)];
    let metadata = Metadata::from(Fields::from(metadata));
    if status != 200 {
        let full = !answer.body.is_empty();
        let passed = |name: &[u8]| match name {
            b"transfer-encoding" | b"connection" | REMOVE => false,
            // Its place is kept; the value is what the body has.
            b"content-length" => full,
            b"location" | b"www-authenticate" => true,
            name => service.client_headers.is_empty() || any(&service.client_headers, name),
        };
        let lines = head.lines().filter(|(name, _)| passed(name));
        let lines = lines.filter_map(|(name, value)| write(name, value, Write::Add));
        let refusal = Refusal {
            status: Some(status),
            headers: lines.collect(),
            body: answer.body,
        };
        return Ok(Verdict::Refused(refusal, metadata));
    }
    let mut headers = matching(&service.upstream_headers, Write::Set);
    headers.extend(matching(&service.upstream_headers_to_append, Write::Add));
    let mut remove: Vec<Name> = Vec::new();
    head.each(REMOVE, &mut |line| {
        let names = line.split(|b| *b == b',');
        let names = names.filter_map(|n| std::str::from_utf8(n.trim_ascii()).ok());
        let names = names.filter(|n| !n.is_empty() && !n.starts_with(':') && *n != "host");
        remove.extend(names.map(|n| Name::from(n.to_ascii_lowercase())));
        true
    });
    let pass = Pass {
        headers,
        remove,
        response_headers: matching(&service.client_headers_on_success, Write::Add),
        ..Pass::default()
    };
    Ok(Verdict::Passes(pass, metadata))
}
