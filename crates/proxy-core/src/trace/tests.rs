//! Headers in and out, decisions, and the collectors' forms.

use super::propagation::{extract_b3, extract_w3c};
use super::*;
use crate::config::FractionalPercent;
use crate::config::tracing::Sampling;
use crate::request_id::TraceReason;

type Lines = Vec<(&'static str, &'static str)>;

fn tracing(client: u32, random: u32, overall: u32) -> Sampling {
    let share = |numerator| FractionalPercent {
        numerator,
        denominator: 100,
    };
    Sampling {
        client: share(client),
        random: share(random),
        overall: share(overall),
    }
}

#[test]
fn b3_is_read_in_both_forms_and_refused_when_broken() {
    let trace = "463ac35c9f6413ad48485a3953bb6124";
    let many: Lines = vec![
        ("x-b3-traceid", trace),
        ("x-b3-spanid", "a2fb4a1d1a96d312"),
        ("x-b3-sampled", "1"),
    ];
    let found = extract_b3(&many[..]).unwrap();
    let context = found.context.unwrap();
    assert_eq!(
        (context.trace_text().as_str(), found.sampled),
        (trace, Some(true))
    );
    assert_eq!(context.span_id, 0xa2fb_4a1d_1a96_d312);
    let one = |line: &'static str| extract_b3(&[("b3", line)][..]);
    let found = one("463ac35c9f6413ad-a2fb4a1d1a96d312-d-0020000000000001").unwrap();
    let context = found.context.unwrap();
    assert!(found.single && found.sampled == Some(true) && context.narrow);
    assert_eq!(context.parent_id, 0x0020_0000_0000_0001);
    assert_eq!(one("0").unwrap().sampled, Some(false));
    for bad in [
        "2",
        "",
        "zz-1",
        "463ac35c9f6413ad-a2fb4a1d1a96d312-9",
        "1-2-1-3-4",
        "-",
    ] {
        assert_eq!(one(bad), None, "{bad}");
    }
    let broken: Lines = vec![("x-b3-traceid", "zz"), ("x-b3-spanid", "1")];
    assert_eq!(extract_b3(&broken[..]), None);
}

#[test]
fn traceparent_is_read_and_refused_when_broken() {
    let read = |line: &'static str| extract_w3c(&[("traceparent", line)][..]);
    let found = read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
    assert_eq!(found.sampled, Some(true));
    assert_eq!(found.context.unwrap().span_id, 0xb7ad_6b71_6920_3331);
    for bad in [
        "bad",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-001",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
    assert_eq!(extract_w3c(&[("x", "y")][..]), Some(Incoming::default()));
}

#[test]
fn decisions_follow_the_id_then_the_client_then_chance() {
    let id = "8883737f-04bb-408a-b159-b0df38604323";
    let ask = |config: &Sampling, lines: Lines| decide(config, &lines[..], true, 1);
    let plain: Lines = vec![("x-request-id", id)];
    let all = tracing(100, 100, 100);
    let none = tracing(100, 0, 100);
    let said = |reason, changed| Decision { reason, changed };
    assert_eq!(ask(&all, plain.clone()), said(TraceReason::Sampling, true));
    assert_eq!(
        ask(&none, plain.clone()),
        said(TraceReason::NotTraced, false)
    );
    let client = vec![
        plain[0],
        ("x-client-trace-id", "a"),
        ("x-envoy-force-trace", "1"),
    ];
    assert_eq!(ask(&none, client.clone()), said(TraceReason::Client, true));
    assert_eq!(
        ask(&tracing(0, 0, 100), client.clone()).reason,
        TraceReason::Forced
    );
    assert_eq!(
        ask(&tracing(100, 100, 0), client),
        said(TraceReason::NotTraced, true)
    );
    assert_eq!(
        ask(&all, vec![("x-request-id", "short")]).reason,
        TraceReason::NotTraced
    );
    let traced = vec![("x-request-id", "8883737f-04bb-908a-b159-b0df38604323")];
    // The id says so already.
    assert_eq!(
        ask(&none, traced.clone()),
        said(TraceReason::Sampling, false)
    );
    assert_eq!(
        decide(&none, &traced[..], false, 1),
        said(TraceReason::NotTraced, false)
    );
    let overall = tracing(100, 100, 0);
    assert_eq!(ask(&overall, traced), said(TraceReason::NotTraced, true));
}

fn span() -> Span {
    let root = SpanContext {
        trace_id: 0x1f,
        narrow: true,
        span_id: 0xab,
        sampled: true,
        ..SpanContext::default()
    };
    Span {
        context: root.child(0xcd),
        name: "a \"b\"".into(),
        kind: Kind::Client,
        shared: true,
        start: 5_000,
        end: 5_100,
        failed: true,
        tags: vec![("zone".into(), String::new()), ("k".into(), "v\n".into())],
    }
}

#[test]
fn zipkin_json() {
    let mut out = Vec::new();
    let reporter = Reporter {
        service: "s".into(),
        ip: Some([10, 0, 0, 1].into()),
    };
    zipkin::write(&[span()], &reporter, &mut out);
    let want = r#"[{"traceId":"000000000000001f","name":"a \"b\"","id":"00000000000000cd","parentId":"00000000000000ab","kind":"CLIENT","timestamp":5,"duration":1,"localEndpoint":{"serviceName":"s","ipv4":"10.0.0.1","port":0},"annotations":[{"timestamp":5,"value":"cr"}],"tags":{"k":"v\n"},"shared":true}]"#;
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

#[test]
fn otlp_wire() {
    let mut out = Vec::new();
    otlp::write(&[span()], &[("service.name", "s")], "1", &mut out);
    // ResourceSpans, its length, Resource with one attribute.
    let resource = b"\x0a\x15\x0a\x13\x0a\x0cservice.name\x12\x03\x0a\x01s";
    assert_eq!(out[0], 0x0a);
    assert!(out.windows(resource.len()).any(|w| w == resource));
    // Flags: sampled, a parent that is not remote.
    assert!(out.ends_with(b"\x7a\x02\x18\x02\x85\x01\x01\x01\x00\x00"));
}
