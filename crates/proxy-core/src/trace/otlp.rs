//! Spans as an OTLP `ExportTraceServiceRequest` (opentelemetry-proto 1.x, trace/v1/trace.proto).
//! Its few fields are written by hand in protobuf's wire format: the exporter needs nothing else of
//! it. Field numbers stand beside each call.

use super::{Kind, Span};

/// `SpanFlags`: the trace flags of W3C, and whether the parent is remote (bits 8 and 9).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Writes a request with all spans.
pub fn write(spans: &[Span], resource: &[(&str, &str)], version: &str, out: &mut Vec<u8>) {
    message(out, 1, |resource_spans| {
        message(resource_spans, 1, |out| {
            for (name, value) in resource {
                attribute(out, 1, name, value);
            }
        });
        message(resource_spans, 2, |scope_spans| {
            message(scope_spans, 1, |scope| {
                bytes(scope, 1, b"lateen");
                bytes(scope, 2, version.as_bytes());
            });
            for span in spans {
                message(scope_spans, 2, |out| one(span, out));
            }
        });
    });
}

fn one(span: &Span, out: &mut Vec<u8>) {
    let context = &span.context;
    bytes(out, 1, &context.trace_id.to_be_bytes());
    bytes(out, 2, &context.span_id.to_be_bytes());
    if !context.state.is_empty() {
        bytes(out, 3, context.state.as_bytes());
    }
    if context.parent_id != 0 {
        bytes(out, 4, &context.parent_id.to_be_bytes());
    }
    bytes(out, 5, span.name.as_bytes());
    let kind = match span.kind {
        Kind::Server => 2,
        Kind::Client => 3,
    };
    number(out, 6, kind);
    fixed64(out, 7, span.start);
    fixed64(out, 8, span.end);
    for (name, value) in &span.tags {
        attribute(out, 9, name, value);
    }
    if span.failed {
        // Status.code = STATUS_CODE_ERROR.
        message(out, 15, |status| number(status, 3, 2));
    }
    let mut flags = HAS_IS_REMOTE | u32::from(context.sampled);
    if context.remote_parent && context.parent_id != 0 {
        flags |= IS_REMOTE;
    }
    tag(out, 16, 5);
    out.extend_from_slice(&flags.to_le_bytes());
}

/// A `KeyValue` with a text.
fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: &str) {
    message(out, field, |pair| {
        bytes(pair, 1, name.as_bytes());
        message(pair, 2, |any| bytes(any, 1, value.as_bytes()));
    });
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u32, wire: u32) {
    varint(out, u64::from(field << 3 | wire));
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, 0);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn message(out: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes(out, field, &inner);
}
