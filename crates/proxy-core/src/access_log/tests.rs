//! Formats against a fixed record; parser against arbitrary text.
use proptest::prelude::*;

use super::*;
use crate::config::Value;
use crate::flags::ResponseFlags;

struct Fixed;

impl Record for Fixed {
    fn field(&self, field: Field) -> FieldValue<'_> {
        match field {
            Field::Protocol => FieldValue::Text("HTTP/1.1"),
            Field::ResponseCode => FieldValue::Number(200),
            Field::ResponseFlags | Field::ResponseFlagsLong => {
                FieldValue::Flags(ResponseFlags::NONE)
            }
            Field::ResponseCodeDetails => FieldValue::Text("via upstream"),
            Field::BytesReceived => FieldValue::Number(0),
            Field::BytesSent => FieldValue::Number(437),
            Field::UpstreamHost | Field::UpstreamRemoteAddress => {
                FieldValue::Address("10.244.0.9:9080".parse().unwrap())
            }
            Field::UpstreamClusterRaw => {
                FieldValue::Text("outbound|9080||reviews.default.svc.cluster.local")
            }
            Field::DownstreamRemoteAddress => FieldValue::Address("10.244.0.7:0".parse().unwrap()),
            Field::RequestedServerName => FieldValue::Text("a\nb.c"),
            Field::RouteName => FieldValue::Text("default"),
            _ => FieldValue::Missing,
        }
    }

    fn time(&self, point: TimePoint) -> Option<u64> {
        match point {
            TimePoint::Start => Some(1_795_247_829_623_000_000),
            TimePoint::End => Some(1_795_247_829_640_900_000),
            _ => None,
        }
    }

    fn request_header(&self, name: &str) -> Option<&[u8]> {
        match name {
            ":method" => Some(b"GET"),
            ":path" => Some(b"/reviews/0?a=1"),
            ":authority" => Some(b"reviews:9080"),
            "user-agent" => Some(b"curl\x1b[2J\"\xff"),
            _ => None,
        }
    }
}

fn text(format: &str) -> String {
    let mut out = Vec::new();
    Format::text(format, false).unwrap().write(&Fixed, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn istio_default_text() {
    assert_eq!(
        text(DEFAULT_TEXT),
        "[2026-11-21T07:57:09.623Z] \"GET /reviews/0?a=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 437 17 - \"-\" \
         \"curl\\x1b[2J\"\u{fffd}\" \"-\" \"reviews:9080\" \"10.244.0.9:9080\" \
         outbound|9080||reviews.default.svc.cluster.local - - 10.244.0.7:0 a_b.c default\n"
    );
}

#[test]
fn operators() {
    for (format, want) in [
        ("%REQ(:METHOD):2%", "GE"),
        ("100%%", "100%"),
        ("%REQ(x?:authority)%", "reviews:9080"),
        (
            "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%",
            "10.244.0.9 9080",
        ),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.244.0.7"),
        ("%START_TIME(%Y/%m/%d %3f)%", "2026/11/21 623"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "-"),
        ("%QUERY_PARAM(a)% %PATH(NQ)%", "1 /reviews/0"),
        ("%GRPC_STATUS%", "-"),
        ("%ROUTE_NAME%x%ROUTE_NAME%", "defaultxdefault"),
    ] {
        assert_eq!(text(format), want, "{format}");
    }
}

#[test]
fn bad_formats_name_the_place() {
    for (format, at, part) in [
        ("a %NO_SUCH%", 2, "NO_SUCH"),
        ("%REQ%", 0, "needs an argument"),
        ("%REQ(a?b?c)%", 0, "more than one"),
        ("%START_TIME(%Q)%", 0, "%Q"),
        ("%PROTOCOL", 0, "not closed"),
        ("%PROTOCOL(x)%", 0, "takes no arguments"),
        ("%REQ(x", 0, "not closed"),
        ("50% off", 2, "operator name"),
        ("%REQ_WITHOUT_QUERY(:PATH)%", 0, "not a known operator"),
    ] {
        let error = Template::parse(format).unwrap_err();
        assert_eq!(error.at, at, "{format}");
        assert!(error.reason.contains(part), "{format}: {}", error.reason);
    }
}

#[test]
fn json_keeps_types_and_sorts() {
    let map = [
        ("b", "%RESPONSE_CODE%"),
        ("a", "%REQ(USER-AGENT)%"),
        ("c", "%REQ(GONE)%"),
        ("d", "x %REQ(GONE)% y"),
    ];
    let map = Value::Struct(
        map.iter()
            .map(|(k, v)| ((*k).into(), Value::String((*v).into())))
            .collect(),
    );
    let root = JsonNode::parse(&map).unwrap();
    let line = |omit_empty| {
        let mut out = Vec::new();
        Format::Json {
            root: root.clone(),
            omit_empty,
        }
        .write(&Fixed, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        line(false),
        "{\"a\":\"curl\\u001b[2J\\u0022\\u00ff\",\"b\":200,\"c\":null,\"d\":\"x - y\"}\n"
    );
    assert_eq!(
        line(true),
        "{\"a\":\"curl\\u001b[2J\\u0022\\u00ff\",\"b\":200,\"d\":\"x  y\"}\n"
    );
}

#[test]
fn default_json_parses() {
    assert_eq!(DEFAULT_JSON.len(), 24);
    for (key, format) in DEFAULT_JSON {
        assert!(Template::parse(format).is_ok(), "{key}");
    }
    assert!(Template::parse(ENVOY_DEFAULT_TEXT).is_ok());
}

proptest! {
    #[test]
    fn parser_never_panics(format in "[%A-Z_():?a-z0-9 ]{0,40}") {
        if let Ok(template) = Template::parse(&format) {
            let mut out = Vec::new();
            template.write_text(&Fixed, false, &mut out);
        }
    }

    #[test]
    fn text_without_percent_is_itself(format in "[^%]{0,40}") {
        let template = Template::parse(&format).unwrap();
        prop_assert_eq!(template.as_literal(), Some(&format[..]));
    }

    #[test]
    fn no_line_feed_escapes(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        struct One(Vec<u8>);
        impl Record for One {
            fn field(&self, _: Field) -> FieldValue<'_> { FieldValue::Bytes(&self.0) }
            fn time(&self, _: TimePoint) -> Option<u64> { None }
        }
        let mut out = Vec::new();
        Template::parse("%ROUTE_NAME%").unwrap().write_text(&One(value.clone()), false, &mut out);
        prop_assert!(!out.contains(&b'\n') && !out.contains(&0x1b));
        let root = JsonNode::parse(&Value::String("%ROUTE_NAME%".into())).unwrap();
        let mut out = Vec::new();
        Format::Json { root, omit_empty: false }.write(&One(value), &mut out);
        prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
    }
}
