//! Spans as Zipkin's JSON, version 2 (`POST /api/v2/spans`).

use std::io::Write;

use super::{Kind, Reporter, Span};
use crate::access_log::write_json_string;

/// Writes a list of spans.
pub fn write(spans: &[Span], reporter: &Reporter, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, span) in spans.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        one(span, reporter, out);
    }
    out.push(b']');
}

/// Writing to a `Vec` cannot fail.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn one(span: &Span, reporter: &Reporter, out: &mut Vec<u8>) {
    let context = &span.context;
    let (kind, last) = match span.kind {
        Kind::Server => ("SERVER", "ss"),
        Kind::Client => ("CLIENT", "cr"),
    };
    let (start, end) = (span.start / 1000, span.end / 1000);
    let trace = context.trace_text();
    put(out, format_args!("{{\"traceId\":\"{trace}\",\"name\":"));
    write_json_string(span.name.as_bytes(), out);
    put(out, format_args!(",\"id\":\"{:016x}\"", context.span_id));
    if context.parent_id != 0 {
        put(
            out,
            format_args!(",\"parentId\":\"{:016x}\"", context.parent_id),
        );
    }
    // A duration of 0 is none in Zipkin.
    let duration = end.saturating_sub(start).max(1);
    put(
        out,
        format_args!(
            ",\"kind\":\"{kind}\",\"timestamp\":{start},\"duration\":{duration},\"localEndpoint\":{{\"serviceName\":"
        ),
    );
    write_json_string(reporter.service.as_bytes(), out);
    match reporter.ip {
        Some(std::net::IpAddr::V4(ip)) => put(out, format_args!(",\"ipv4\":\"{ip}\"")),
        Some(std::net::IpAddr::V6(ip)) => put(out, format_args!(",\"ipv6\":\"{ip}\"")),
        None => {}
    }
    put(
        out,
        format_args!(
            ",\"port\":0}},\"annotations\":[{{\"timestamp\":{end},\"value\":\"{last}\"}}],\"tags\":{{"
        ),
    );
    // Zipkin has no empty tags.
    let tags = span.tags.iter().filter(|(_, value)| !value.is_empty());
    for (i, (name, value)) in tags.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_json_string(name.as_bytes(), out);
        out.push(b':');
        write_json_string(value.as_bytes(), out);
    }
    out.push(b'}');
    if span.shared {
        out.extend_from_slice(b",\"shared\":true");
    }
    out.push(b'}');
}
