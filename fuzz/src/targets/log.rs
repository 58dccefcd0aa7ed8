//! Access-log formats, which also write header values and local replies.

use std::net::SocketAddr;

use lateen_proxy_core::access_log::{
    Field, FieldValue, Format, JsonNode, MetadataSource, Record, Template, TimePoint,
};
use lateen_proxy_core::config::Value;
use lateen_proxy_core::flags::ResponseFlags;

use crate::Target;
use crate::bytes::{choice, nested, seeds_after, text};

/// Text and JSON formats, rendered over a record.
pub const FORMAT: Target = Target {
    name: "log_format",
    run: format,
    seeds: format_seeds,
    words: &[
        "%",
        "%%",
        "(",
        ")",
        ":",
        "%START_TIME%",
        "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "%REQ(",
        "%REQ(X?Y):3%",
        "%RESP(",
        "%TRAILER(",
        "%DURATION%",
        "%RESPONSE_CODE%",
        "%PROTOCOL%",
        "%UPSTREAM_HOST%",
        "%DYNAMIC_METADATA(a:b):4%",
        "%FILTER_STATE(a:PLAIN)%",
        "%COMMON_DURATION(DS_RX_BEG:US_TX_END:ms)%",
        "%RESPONSE_FLAGS%",
        "%GRPC_STATUS(CAMEL_STRING)%",
        "%PATH(NQ:PATH)%",
        "%ENVIRONMENT(A)%",
        "%s",
        "%3f",
        "%f",
        "\\",
        "\"",
        "{\"a\":",
        "[",
        "\u{e9}",
    ],
    rounds: 4000,
};

fn format_seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds_after(
        0,
        &[
            lateen_proxy_core::access_log::DEFAULT_TEXT,
            lateen_proxy_core::access_log::ENVOY_DEFAULT_TEXT,
            "%START_TIME(%s.%3f %H:%M)% %REQ(:AUTHORITY?HOST):10% %DYNAMIC_METADATA(a:b):4%",
            "100%% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %GRPC_STATUS%",
        ],
    );
    seeds.extend(seeds_after(
        2,
        &[r#"{"a":"%PROTOCOL%","n":1.5,"l":["%REQ(X)%",true,null],"o":{"t":"x %START_TIME% y"}}"#],
    ));
    seeds.push([&[2][..], &nested("[", "]", 120)].concat());
    seeds
}

/// A record with awkward values.
struct Awkward;

impl Record for Awkward {
    fn field(&self, field: Field) -> FieldValue<'_> {
        match format!("{field:?}").len() % 6 {
            0 => FieldValue::Missing,
            1 => FieldValue::Text("a \"quoted\"\\ text\n\u{1}\u{e9}"),
            2 => FieldValue::Bytes(b"\xff\x00\"raw\x7f"),
            3 => FieldValue::Number(u64::MAX),
            4 => FieldValue::Address(SocketAddr::from(([127, 0, 0, 1], 80))),
            _ => FieldValue::Flags(ResponseFlags::default()),
        }
    }

    fn time(&self, point: TimePoint) -> Option<u64> {
        match format!("{point:?}").len() % 4 {
            0 => None,
            1 => Some(0),
            2 => Some(1_700_000_000_123_456_789),
            _ => Some(u64::MAX),
        }
    }

    fn request_header(&self, name: &str) -> Option<&[u8]> {
        (!name.is_empty()).then_some(b"\xf0\x9f\x98\x80 value, \xff".as_slice())
    }

    fn response_header(&self, name: &str) -> Option<&[u8]> {
        (name == "x").then_some(b"1".as_slice())
    }

    fn metadata(&self, _: MetadataSource, namespace: &str) -> Option<&Value> {
        (namespace == "a").then_some(&Value::Number(1e300))
    }

    fn environment(&self, name: &str) -> Option<&str> {
        (name == "A").then_some("\"")
    }
}

/// JSON of any shape as a configuration value.
fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => Value::Number(n.as_f64().unwrap_or_default()),
        serde_json::Value::String(s) => Value::String(s.as_str().into()),
        serde_json::Value::Array(list) => Value::List(list.iter().map(value).collect()),
        serde_json::Value::Object(map) => Value::Struct(
            map.iter()
                .map(|(k, v)| (k.as_str().into(), value(v)))
                .collect(),
        ),
    }
}

fn format(data: &[u8]) {
    let (option, input) = choice(data);
    let Some(input) = text(input) else {
        return;
    };
    let omit_empty = option & 1 != 0;
    let mut out = Vec::new();
    if option & 2 == 0 {
        match Template::parse(input) {
            Err(error) => assert!(input.is_char_boundary(error.at), "a place in a character"),
            Ok(template) => {
                template.write_header(&Awkward, &mut out);
                let breaks = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
                let asked = input.bytes().any(|b| breaks(&b) || b == b'\\');
                assert!(
                    asked || !out.iter().any(breaks),
                    "a header value breaks its line"
                );
                out.clear();
                Format::Text {
                    template,
                    omit_empty,
                }
                .write(&Awkward, &mut out);
                // No operator writes more than its value: the longest is under 80 bytes.
                assert!(out.len() <= 80 * input.len() + 1, "{} bytes", out.len());
            }
        }
        return;
    }
    let Ok(json) = serde_json::from_str::<serde_json::Value>(input) else {
        return;
    };
    let Ok(root) = JsonNode::parse(&value(&json)) else {
        return;
    };
    Format::Json { root, omit_empty }.write(&Awkward, &mut out);
    assert_eq!(out.last(), Some(&b'\n'));
    let lines = out.iter().filter(|b| **b == b'\n').count();
    assert_eq!(lines, 1, "one record, one line");
    let read: Result<serde_json::Value, _> = serde_json::from_slice(&out);
    assert!(read.is_ok(), "no JSON: {}", String::from_utf8_lossy(&out));
}
