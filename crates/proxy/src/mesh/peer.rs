//! `x-envoy-peer-metadata`: a protobuf `Struct` in base64, as Istio's proxies
//! tell each other who they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_proxy_core::config::{Fields, Name, Value};

use super::workload::Workload;

/// Longest header value that is read, in bytes.
const LONGEST: usize = 16 * 1024;
/// Deepest struct that is read.
const DEEPEST: u32 = 4;

/// Fields of `google.protobuf.Struct`, its map entry and `Value`.
const STRUCT_FIELDS: u64 = 1;
const ENTRY_KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;
const VALUE_STRING: u64 = 3;
const VALUE_STRUCT: u64 = 5;
/// Wire type of strings and messages.
const LEN: u64 = 2;

/// The header value for a node: what peers make labels of.
pub(super) fn encode(metadata: &Fields, own: &Workload) -> String {
    let string = |s: &str| Value::String(s.into());
    let labels = [
        ("app", &own.app),
        ("version", &own.version),
        ("service.istio.io/canonical-name", &own.canonical_service),
        (
            "service.istio.io/canonical-revision",
            &own.canonical_revision,
        ),
    ];
    let labels = labels
        .into_iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| (Name::from(k), string(v)));
    let mut told = Fields::from([("LABELS".into(), Value::Struct(labels.collect()))]);
    for key in ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "OWNER"] {
        if let Some(value) = metadata.get(key).and_then(Value::as_str) {
            told.insert(key.into(), string(value));
        }
    }
    let mut bytes = Vec::new();
    write_struct(&told, &mut bytes);
    STANDARD.encode(bytes)
}

fn write_varint(mut n: u64, out: &mut Vec<u8>) {
    while n > 0x7f {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn write_piece(field: u64, bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(field << 3 | LEN, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(crate) fn write_struct(map: &Fields, out: &mut Vec<u8>) {
    for (key, value) in map {
        let mut of_value = Vec::new();
        match value {
            Value::String(s) => write_piece(VALUE_STRING, s.as_bytes(), &mut of_value),
            Value::Struct(inner) => {
                let mut bytes = Vec::new();
                write_struct(inner, &mut bytes);
                write_piece(VALUE_STRUCT, &bytes, &mut of_value);
            }
            // Nothing else is told.
            _ => continue,
        }
        let mut entry = Vec::new();
        write_piece(ENTRY_KEY, key.as_bytes(), &mut entry);
        write_piece(ENTRY_VALUE, &of_value, &mut entry);
        write_piece(STRUCT_FIELDS, &entry, out);
    }
}

/// Reads a header value; strings and structs only, other values are left out.
pub(crate) fn decode(value: &[u8]) -> Option<Fields> {
    if value.is_empty() || value.len() > LONGEST {
        return None;
    }
    read_struct(&STANDARD.decode(value).ok()?, DEEPEST)
}

fn read_varint(input: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

fn take<'a>(input: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let count = usize::try_from(count).ok()?;
    let (piece, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(piece)
}

/// The next field: its number, and its bytes where it is a string or message.
fn read_field<'a>(input: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let tag = read_varint(input)?;
    let piece = match tag & 7 {
        0 => {
            read_varint(input)?;
            None
        }
        1 => take(input, 8).map(|_| None)?,
        LEN => {
            let count = read_varint(input)?;
            Some(take(input, count)?)
        }
        5 => take(input, 4).map(|_| None)?,
        _ => return None,
    };
    Some((tag >> 3, piece))
}

fn read_struct(mut input: &[u8], deeper: u32) -> Option<Fields> {
    let deeper = deeper.checked_sub(1)?;
    let mut map = Vec::new();
    while !input.is_empty() {
        let (STRUCT_FIELDS, Some(mut entry)) = read_field(&mut input)? else {
            continue;
        };
        let (mut key, mut value) = (Name::default(), None);
        while !entry.is_empty() {
            match read_field(&mut entry)? {
                (ENTRY_KEY, Some(bytes)) => key = std::str::from_utf8(bytes).ok()?.into(),
                (ENTRY_VALUE, Some(bytes)) => value = read_value(bytes, deeper)?,
                _ => {}
            }
        }
        if let Some(value) = value {
            map.push((key, value));
        }
    }
    Some(map.into_iter().collect())
}

/// The outer `None` is a broken message, the inner one a value of another kind.
fn read_value(mut input: &[u8], deeper: u32) -> Option<Option<Value>> {
    let mut value = None;
    while !input.is_empty() {
        match read_field(&mut input)? {
            (VALUE_STRING, Some(bytes)) => {
                value = Some(Value::String(std::str::from_utf8(bytes).ok()?.into()));
            }
            (VALUE_STRUCT, Some(bytes)) => value = Some(Value::Struct(read_struct(bytes, deeper)?)),
            _ => {}
        }
    }
    Some(value)
}
