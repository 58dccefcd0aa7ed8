//! Operators and a record to bytes. Nothing from the network reaches a line unescaped.
use std::borrow::Cow;
use std::io::Write;

use super::command::{
    AddressPart, Command, DurationUnit, Field, FieldValue, GrpcStatusForm, HostName, Op,
    PathSource, Record, ServerName,
};
use super::{Format, JsonNode, Template};
use crate::config::Value;
use crate::local_reply::grpc_status;
use crate::path;
use crate::router::is_grpc_content_type;

impl Format {
    /// Writes the line of a record.
    pub fn write<R: Record + ?Sized>(&self, record: &R, out: &mut Vec<u8>) {
        match self {
            Self::Text {
                template,
                omit_empty,
            } => template.write_text(record, *omit_empty, out),
            Self::Json { root, omit_empty } => {
                if !root.write(record, *omit_empty, out) {
                    out.extend_from_slice(b"{}");
                }
                out.push(b'\n');
            }
        }
    }
}

impl Template {
    /// Writes as text: a missing value is `-`, or nothing with `omit_empty`.
    pub fn write_text<R: Record + ?Sized>(&self, record: &R, omit_empty: bool, out: &mut Vec<u8>) {
        for op in &self.ops {
            match op {
                Op::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Op::Command(command, limit) => {
                    let start = out.len();
                    match value(command, record, out) {
                        Shape::Missing if !omit_empty => out.push(b'-'),
                        Shape::Missing | Shape::Number => {}
                        Shape::Text => {
                            cut(out, start, *limit);
                            escape_controls(out, start);
                        }
                    }
                }
            }
        }
    }

    /// Writes a header value: missing values are left out, control bytes too.
    pub fn write_header<R: Record + ?Sized>(&self, record: &R, out: &mut Vec<u8>) {
        self.write_text(record, true, out);
    }
}

impl JsonNode {
    /// Writes the node; false (and nothing written) when it is missing and may be left out.
    fn write<R: Record + ?Sized>(&self, record: &R, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Literal(text) if omit_empty && &**text == "null" => return false,
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::Object(fields) => {
                out.push(b'{');
                let mut first = true;
                for (key, node) in fields {
                    let start = out.len();
                    if !first {
                        out.push(b',');
                    }
                    write_json_string(key.as_bytes(), out);
                    out.push(b':');
                    if node.write(record, omit_empty, out) {
                        first = false;
                    } else {
                        out.truncate(start);
                    }
                }
                out.push(b'}');
            }
            Self::List(nodes) => {
                out.push(b'[');
                let mut first = true;
                for node in nodes {
                    let start = out.len();
                    if !first {
                        out.push(b',');
                    }
                    if node.write(record, omit_empty, out) {
                        first = false;
                    } else {
                        out.truncate(start);
                    }
                }
                out.push(b']');
            }
            Self::Template(template) => return template.write_json(record, omit_empty, out),
        }
        true
    }
}

impl Template {
    fn write_json<R: Record + ?Sized>(
        &self,
        record: &R,
        omit_empty: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut text = Vec::new();
        if let [Op::Command(command, limit)] = &self.ops[..] {
            if let Command::Metadata(source, namespace, keys) = command {
                return match record
                    .metadata(*source, namespace)
                    .and_then(|v| v.path(keys))
                {
                    Some(value) => {
                        write_value(value, out);
                        true
                    }
                    None => missing(omit_empty, out),
                };
            }
            return match value(command, record, &mut text) {
                Shape::Missing => missing(omit_empty, out),
                Shape::Number => {
                    out.extend_from_slice(&text);
                    true
                }
                Shape::Text => {
                    cut(&mut text, 0, *limit);
                    write_json_string(&text, out);
                    true
                }
            };
        }
        for op in &self.ops {
            match op {
                Op::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                Op::Command(command, limit) => {
                    let start = text.len();
                    match value(command, record, &mut text) {
                        Shape::Missing if !omit_empty => text.push(b'-'),
                        Shape::Missing | Shape::Number => {}
                        Shape::Text => cut(&mut text, start, *limit),
                    }
                }
            }
        }
        write_json_string(&text, out);
        true
    }
}

fn missing(omit_empty: bool, out: &mut Vec<u8>) -> bool {
    if !omit_empty {
        out.extend_from_slice(b"null");
    }
    !omit_empty
}

/// What a command wrote.
enum Shape {
    Missing,
    Number,
    Text,
}

fn value<R: Record + ?Sized>(command: &Command, record: &R, out: &mut Vec<u8>) -> Shape {
    match command {
        Command::RequestHeader(name, other) => text(
            record
                .request_header(name)
                .or_else(|| record.request_header(other.as_ref()?)),
            out,
        ),
        Command::ResponseHeader(name, other) => text(
            record
                .response_header(name)
                .or_else(|| record.response_header(other.as_ref()?)),
            out,
        ),
        Command::ResponseTrailer(name, other) => text(
            record
                .response_trailer(name)
                .or_else(|| record.response_trailer(other.as_ref()?)),
            out,
        ),
        Command::Time(point, format) => match record.time(*point) {
            Some(nanos) => {
                format.write(nanos, out);
                Shape::Text
            }
            None => Shape::Missing,
        },
        Command::Duration(from, to, unit) => match (record.time(*from), record.time(*to)) {
            (Some(from), Some(to)) => {
                let nanos = to.saturating_sub(from);
                number(
                    out,
                    match unit {
                        DurationUnit::Ms => nanos / 1_000_000,
                        DurationUnit::Us => nanos / 1000,
                        DurationUnit::Ns => nanos,
                    },
                )
            }
            _ => Shape::Missing,
        },
        Command::Field(f) => field(*f, record.field(*f), out),
        Command::AddressPart(field, part) => address_part(&record.field(*field), *part, out),
        Command::Spaced(f) => match record.field(*f) {
            FieldValue::Text(value) => text(Some(value.as_bytes()), out),
            _ => Shape::Missing,
        },
        Command::ServerName(which, host) => server_name(*which, *host, record, out),
        Command::Coalesce(ops) => coalesce(ops, record, out),
        // Only of gRPC requests, as Envoy does.
        Command::GrpcStatus(form) => record
            .request_header("content-type")
            .filter(|kind| is_grpc_content_type(kind))
            .and_then(|_| record.grpc_status().or_else(|| status_of_code(record)))
            .map_or(Shape::Missing, |s| grpc(s, *form, out)),
        Command::Metadata(source, namespace, keys) => {
            match record
                .metadata(*source, namespace)
                .and_then(|v| v.path(keys))
            {
                Some(Value::String(s)) => text(Some(s.as_bytes()), out),
                Some(value) => {
                    write_value(value, out);
                    Shape::Text
                }
                None => Shape::Missing,
            }
        }
        Command::FilterState(upstream, key) => {
            field(Field::CustomFlags, record.filter_state(*upstream, key), out)
        }
        Command::Environment(name) => text(record.environment(name).map(str::as_bytes), out),
        Command::QueryParameter(name) => {
            let query = record.request_header(":path").and_then(raw_query);
            if name.is_empty() {
                return text(query, out);
            }
            match query.and_then(|query| decoded_parameter(query, name.as_bytes())) {
                Some(value) => text(Some(&value), out),
                None => Shape::Missing,
            }
        }
        Command::Path { query, source } => {
            let current = record.request_header(":path");
            let original = record.request_header("x-envoy-original-path");
            let full = match source {
                PathSource::Current => current,
                PathSource::Original => original,
                PathSource::OriginalOrCurrent => original.or(current),
            };
            text(
                if *query {
                    full
                } else {
                    full.map(|path| path.split(|b| *b == b'?').next().unwrap_or_default())
                },
                out,
            )
        }
    }
}

/// The first of some operators that has a value.
fn coalesce<R: Record + ?Sized>(ops: &[Op], record: &R, out: &mut Vec<u8>) -> Shape {
    let start = out.len();
    for op in ops {
        let (shape, limit) = match op {
            Op::Literal(literal) => (text(Some(literal.as_bytes()), out), None),
            Op::Command(command, limit) => (value(command, record, out), *limit),
        };
        cut(out, start, limit);
        if !matches!(shape, Shape::Missing) {
            return Shape::Text;
        }
    }
    Shape::Missing
}

fn server_name<R: Record + ?Sized>(
    which: ServerName,
    host: HostName,
    record: &R,
    out: &mut Vec<u8>,
) -> Shape {
    let sni = Field::RequestedServerName;
    let original = || record.request_header("x-envoy-original-host");
    let current = || record.request_header(":authority");
    let host = || match host {
        HostName::Host => current(),
        HostName::Original => original(),
        HostName::OriginalOrHost => original().or_else(current),
    };
    let named = which != ServerName::SniOnly;
    if which == ServerName::HostFirst
        && let Some(host) = host()
    {
        return text(Some(host), out);
    }
    match field(sni, record.field(sni), out) {
        Shape::Missing if named => text(host(), out),
        shape => shape,
    }
}

/// What follows the question mark, a fragment that nobody should send included.
fn raw_query(path: &[u8]) -> Option<&[u8]> {
    let at = memchr::memchr(b'?', path)?;
    Some(&path[at + 1..])
}

/// The first value of a parameter; its name and it decoded.
fn decoded_parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|b| *b == b'&').find_map(|pair| {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        let key = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        (*path::percent_decoded(key) == *name).then(|| path::percent_decoded(value))
    })
}

fn text(value: Option<&[u8]>, out: &mut Vec<u8>) -> Shape {
    match value {
        Some(v) => {
            out.extend_from_slice(v);
            Shape::Text
        }
        None => Shape::Missing,
    }
}

fn number(out: &mut Vec<u8>, n: u64) -> Shape {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    Shape::Number
}

fn field(which: Field, value: FieldValue<'_>, out: &mut Vec<u8>) -> Shape {
    match value {
        FieldValue::Missing => Shape::Missing,
        FieldValue::Number(n) => number(out, n),
        FieldValue::Text(v) if which == Field::RequestedServerName => {
            // A client chooses its SNI freely: what is no host name character becomes `_`.
            out.extend(v.bytes().map(|b| {
                if b.is_ascii_alphanumeric() || b"-._*".contains(&b) {
                    b
                } else {
                    b'_'
                }
            }));
            Shape::Text
        }
        FieldValue::Text(v)
            if matches!(
                which,
                Field::ResponseCodeDetails | Field::ConnectionTerminationDetails
            ) =>
        {
            out.extend(v.bytes().map(|b| if b == b' ' { b'_' } else { b }));
            Shape::Text
        }
        FieldValue::Text(v) => text(Some(v.as_bytes()), out),
        FieldValue::Bytes(v) => text(Some(v), out),
        FieldValue::Owned(v) => text(Some(v.as_bytes()), out),
        FieldValue::Address(addr) => {
            write_display(&addr, out);
            Shape::Text
        }
        FieldValue::Flags(flags) if flags.is_empty() => text(Some(b"-"), out),
        FieldValue::Flags(flags) => {
            flags.write(which == Field::ResponseFlagsLong, out);
            Shape::Text
        }
    }
}

/// Writing to a `Vec` cannot fail.
fn write_display(value: &dyn std::fmt::Display, out: &mut Vec<u8>) {
    if write!(out, "{value}").is_err() {
        out.push(b'-');
    }
}

fn address_part(value: &FieldValue<'_>, part: AddressPart, out: &mut Vec<u8>) -> Shape {
    match (value, part) {
        (FieldValue::Address(addr), AddressPart::Host) => {
            write_display(&addr.ip(), out);
            Shape::Text
        }
        (FieldValue::Address(addr), AddressPart::Prefix(bits)) => {
            match ipnet::IpNet::new(addr.ip(), bits) {
                Ok(net) => {
                    write_display(&net.trunc(), out);
                    Shape::Text
                }
                // Longer than such an address is.
                Err(_) => Shape::Missing,
            }
        }
        (FieldValue::Address(addr), AddressPart::Port) => number(out, u64::from(addr.port())),
        (FieldValue::Text(v), AddressPart::Host) => {
            text(Some(path::without_port(v.as_bytes())), out)
        }
        (FieldValue::Text(v), AddressPart::Port) => {
            path::port(v.as_bytes()).map_or(Shape::Missing, |p| number(out, u64::from(p)))
        }
        _ => Shape::Missing,
    }
}

const GRPC_CODES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// What an answer without a gRPC status means to a gRPC client.
fn status_of_code<R: Record + ?Sized>(record: &R) -> Option<u32> {
    match record.field(Field::ResponseCode) {
        FieldValue::Number(code) if code != 0 => {
            Some(grpc_status(u16::try_from(code).unwrap_or_default()))
        }
        _ => None,
    }
}

fn grpc(status: u32, form: GrpcStatusForm, out: &mut Vec<u8>) -> Shape {
    match (form, GRPC_CODES.get(status as usize)) {
        (GrpcStatusForm::Camel, Some((camel, _))) => text(Some(camel.as_bytes()), out),
        (GrpcStatusForm::Snake, Some((_, snake))) => text(Some(snake.as_bytes()), out),
        (GrpcStatusForm::Number, _) => number(out, u64::from(status)),
        (_, None) => {
            write_display(&status, out);
            Shape::Text
        }
    }
}

fn cut(out: &mut Vec<u8>, start: usize, limit: Option<usize>) {
    if let Some(limit) = limit {
        out.truncate(start.saturating_add(limit).min(out.len()));
    }
}

/// A line feed or an escape character in a value must not forge a line or drive a terminal.
fn escape_controls(out: &mut Vec<u8>, start: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let control = |b: &u8| *b < 0x20 && *b != b'\t' || *b == 0x7f;
    if !out[start..].iter().any(control) {
        return;
    }
    let raw = out.split_off(start);
    for b in raw {
        if control(&b) {
            out.extend_from_slice(&[
                b'\\',
                b'x',
                HEX[usize::from(b >> 4)],
                HEX[usize::from(b & 15)],
            ]);
        } else {
            out.push(b);
        }
    }
}

/// Writes a JSON string. Bytes that are not UTF-8 make the whole string be written byte by byte,
/// what is not plain ASCII as `\u00XX`, as Envoy does.
pub(crate) fn write_json_string(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    match std::str::from_utf8(value) {
        Ok(text) => text.chars().for_each(|c| write_json_char(c, out)),
        Err(_) => {
            for b in value {
                match b {
                    b'"' | b'\\' | 0x7f.. | ..0x20 => {
                        write_display(&format_args!("\\u{b:04x}"), out)
                    }
                    _ => out.push(*b),
                }
            }
        }
    }
    out.push(b'"');
}

fn write_json_char(c: char, out: &mut Vec<u8>) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c if c < ' ' || c == '\x7f' => write_display(&format_args!("\\u{:04x}", c as u32), out),
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Writes a value as JSON, object keys sorted.
pub fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Number(n) => write_display(n, out),
        Value::String(s) => write_json_string(s.as_bytes(), out),
        Value::List(list) => {
            out.push(b'[');
            for (i, v) in list.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(v, out);
            }
            out.push(b']');
        }
        Value::Struct(map) => {
            out.push(b'{');
            for (i, (k, v)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_json_string(k.as_bytes(), out);
                out.push(b':');
                write_value(v, out);
            }
            out.push(b'}');
        }
    }
}
