//! Spans as a collector gets them, from the real Envoy and from this proxy for
//! the same requests: names, kinds, tags, parents, error and flags must agree.
//! Ids, times and versions are their own. Without Envoy the test says SKIPPED.

#[path = "differential/envoy.rs"]
mod envoy;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use support::free_address;
use support::whole::{Proxy, eventually, socket, static_cluster, url, wait_for};

/// Reports of a collector: path, content type and body.
type Reports = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

/// Serves HTTP/1 on a port of its own: `answer` makes the answer from the path; what came is kept.
fn serve(kept: Reports, answer: fn(&str) -> &'static str) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let kept = kept.clone();
            std::thread::spawn(move || connection(stream, &kept, answer));
        }
    });
    address
}

fn connection(mut stream: TcpStream, kept: &Reports, answer: fn(&str) -> &'static str) {
    let mut data = Vec::new();
    while let Some((path, kind, body)) = message(&mut stream, &mut data) {
        let text = answer(&path);
        kept.lock().unwrap().push((path, kind, body));
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// One request: path, content type and body; `None` at the end.
fn message(stream: &mut TcpStream, data: &mut Vec<u8>) -> Option<(String, String, Vec<u8>)> {
    let mut until = |data: &mut Vec<u8>, enough: &dyn Fn(&[u8]) -> Option<usize>| {
        let mut piece = [0; 16384];
        loop {
            if let Some(end) = enough(data) {
                return Some(end);
            }
            match stream.read(&mut piece) {
                Ok(count) if count > 0 => data.extend_from_slice(&piece[..count]),
                _ => return None,
            }
        }
    };
    let line_end = |from: usize, what: &'static [u8]| {
        move |d: &[u8]| {
            let at = d.get(from..)?.windows(what.len()).position(|w| w == what)?;
            Some(from + at + what.len())
        }
    };
    let end = until(data, &line_end(0, b"\r\n\r\n"))?;
    let head = String::from_utf8_lossy(&data[..end]).to_ascii_lowercase();
    let field = |name: &str| {
        let line = head.lines().find_map(|l| l.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let kind = field("content-type:").unwrap_or_default();
    data.drain(..end);
    let mut body = Vec::new();
    if field("transfer-encoding:").is_some() {
        loop {
            let end = until(data, &line_end(0, b"\r\n"))?;
            let size = String::from_utf8_lossy(&data[..end - 2]).into_owned();
            let size = usize::from_str_radix(&size, 16).ok()?;
            until(data, &|d| (d.len() >= end + size + 2).then_some(0))?;
            body.extend_from_slice(&data[end..end + size]);
            data.drain(..end + size + 2);
            if size == 0 {
                break;
            }
        }
    } else {
        let size: usize = field("content-length:")
            .and_then(|l| l.parse().ok())
            .unwrap_or(0);
        until(data, &|d| (d.len() >= size).then_some(0))?;
        body.extend(data.drain(..size));
    }
    Some((path, kind, body))
}

/// Fields of a protobuf message: number, and the number or bytes in it.
fn fields(bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let mut at = 0;
    let varint = |at: &mut usize| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let mut all = Vec::new();
    while at < bytes.len() {
        let tag = varint(&mut at);
        let (mut number, mut text) = (0, Vec::new());
        let size = match tag & 7 {
            0 => {
                number = varint(&mut at);
                0
            }
            1 => 8,
            2 => varint(&mut at) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        text.extend_from_slice(&bytes[at..at + size]);
        at += size;
        all.push((tag >> 3, number, text));
    }
    all
}

fn inside(bytes: &[u8], field: u64) -> Vec<Vec<u8>> {
    let all = fields(bytes).into_iter();
    all.filter(|(f, ..)| *f == field).map(|(.., b)| b).collect()
}

/// A `KeyValue` with a text.
fn pair(bytes: &[u8]) -> (String, String) {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let value = inside(&inside(bytes, 2)[0], 1);
    (
        text(&inside(bytes, 1)[0]),
        text(value.first().map_or(&[][..], |v| v)),
    )
}

/// What is compared of a span.
fn otlp_spans(report: &[u8]) -> Vec<Value> {
    let mut all = Vec::new();
    for resource_spans in inside(report, 1) {
        let resource = &inside(&resource_spans, 1)[0];
        let mut resource: BTreeMap<_, _> = inside(resource, 1).iter().map(|a| pair(a)).collect();
        resource.retain(|name, _| !name.starts_with("telemetry.sdk."));
        for scope in inside(&resource_spans, 2) {
            for span in inside(&scope, 2) {
                let parts = fields(&span);
                let find = |field| parts.iter().find(|(f, ..)| *f == field);
                let text = |field| find(field).map(|(.., b)| String::from_utf8_lossy(b));
                let tags: BTreeMap<_, _> = inside(&span, 9).iter().map(|a| pair(a)).collect();
                all.push(json!({
                    "name": text(5), "kind": find(6).map(|f| f.1), "tags": tags,
                    "trace id": find(1).map(|f| f.2.len()), "id": find(2).map(|f| f.2.len()),
                    "state": text(3), "parent": find(4).is_some(), "flags": find(16).map(|f| &f.2),
                    "status": find(15).map(|f| &f.2), "resource": resource,
                }));
            }
        }
    }
    all
}

fn zipkin_spans(report: &[u8]) -> Vec<Value> {
    let spans: Vec<Value> = serde_json::from_slice(report).unwrap();
    let one = |mut span: Value| {
        for id in ["id", "traceId", "parentId"] {
            if let Some(text) = span.get(id).and_then(Value::as_str) {
                span[id] = json!(text.len());
            }
        }
        for number in ["timestamp", "duration"] {
            assert!(span[number].as_u64().is_some_and(|n| n > 0), "{span}");
            span[number] = json!("number");
        }
        span["annotations"][0]["timestamp"] = json!("number");
        span
    };
    spans.into_iter().map(one).collect()
}

struct Side {
    address: SocketAddr,
    reports: Reports,
    cluster: Value,
}

impl Side {
    fn new() -> Self {
        let reports = Reports::default();
        let collector = serve(
            reports.clone(),
            |_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        );
        Self {
            address: free_address(),
            reports,
            cluster: static_cluster("collector", collector),
        }
    }

    fn clusters(&self, upstream: SocketAddr, nobody: SocketAddr) -> Value {
        let mut up = static_cluster("up", upstream);
        up["alt_stat_name"] = json!("other");
        json!([up, static_cluster("refused", nobody), self.cluster])
    }

    /// Sends each request on a connection of its own and reads to its end.
    fn ask(&self, requests: &[&str]) {
        for request in requests {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        }
    }

    fn spans(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for (path, kind, body) in self.reports.lock().unwrap().iter() {
            match kind.as_str() {
                "application/json" => {
                    assert_eq!(path, "/api/v2/spans");
                    all.extend(zipkin_spans(body));
                }
                "application/x-protobuf" => {
                    assert_eq!(path, "/v1/traces");
                    all.extend(otlp_spans(body));
                }
                other => panic!("{path} {other}"),
            }
        }
        all
    }
}

fn listener(address: SocketAddr, tracing: &Value, direction: &str) -> Value {
    let routes = json!([
        { "match": { "path": "/direct" }, "direct_response": { "status": 200, "body": { "inline_string": "hi" } } },
        { "match": { "path": "/refused" }, "route": { "cluster": "refused" } },
        { "match": { "path": "/decorated" }, "decorator": { "operation": "our-op" }, "route": { "cluster": "up" } },
        { "match": { "path": "/503" }, "route": { "cluster": "up", "retry_policy": { "retry_on": "5xx", "num_retries": 1 } } },
        { "match": { "prefix": "/up" }, "route": { "cluster": "up", "prefix_rewrite": "/" } },
    ]);
    let manager = json!({
        "@type": url("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "t", "tracing": tracing,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "http_filters": [{ "name": "router", "typed_config": { "@type": url("envoy.extensions.filters.http.router.v3.Router") } }],
    });
    json!({ "name": "l", "address": socket(address), "traffic_direction": direction,
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

fn node() -> Value {
    json!({ "id": "sidecar~10.0.0.1~a-v1-x.shop~shop.svc.cluster.local", "cluster": "a.shop" })
}

const REQUESTS: &[&str] = &[
    "GET /up/a?q=1 HTTP/1.1\r\nHost: a.b\r\nUser-Agent: curl\r\nX-Tag: given\r\nConnection: close\r\n\r\n",
    "POST /up HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    "GET /direct HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /refused HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /decorated HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /503 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /up HTTP/1.1\r\nHost: x\r\nX-B3-TraceId: 463ac35c9f6413ad48485a3953bb6124\r\nX-B3-SpanId: a2fb4a1d1a96d312\r\nX-B3-Sampled: 1\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nTracestate: a=b\r\nConnection: close\r\n\r\n",
    "POST /up HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 1S\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
];

fn upstream_answer(path: &str) -> &'static str {
    match path {
        "/503" => "HTTP/1.1 503 no\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    }
}

/// Both sides' spans for the requests, sorted; ids of requests are named.
fn compare(program: &std::path::Path, tracing: &Value, direction: &str, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let nobody = free_address();
    let upstream = serve(Reports::default(), upstream_answer);
    let (theirs, ours) = (Side::new(), Side::new());
    let bootstrap = json!({ "node": node(), "static_resources": {
        "listeners": [listener(theirs.address, tracing, direction)],
        "clusters": theirs.clusters(upstream, nobody) },
        "layered_runtime": { "layers": [{ "name": "quick", "static_layer": {
            "tracing.zipkin.flush_interval_ms": 50, "tracing.zipkin.min_flush_spans": 1,
            "tracing.opentelemetry.flush_interval_ms": 50, "tracing.opentelemetry.min_flush_spans": 1 } }] } });
    let mut envoy = envoy::Envoy::start(program, folder.path(), &bootstrap);
    let listeners = json!([listener(ours.address, tracing, direction)]);
    let _proxy = Proxy::start(listeners, ours.clusters(upstream, nobody), None);
    envoy.wait_for(theirs.address);
    wait_for(ours.address);
    let [left, right] = [&theirs, &ours].map(|side| {
        side.ask(REQUESTS);
        eventually("all spans", || side.spans().len() >= count);
        let mut spans: Vec<String> = side.spans().iter().map(|s| plain(s, side)).collect();
        spans.sort();
        spans
    });
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        let mut rest = of.to_vec();
        let lost = from.iter().filter(|span| {
            let found = rest.iter().position(|r| r == *span);
            found.map(|at| rest.remove(at)).is_none()
        });
        lost.cloned().collect()
    };
    let (envoys, own) = (missing(&left, &right), missing(&right, &left));
    assert!(
        envoys.is_empty() && own.is_empty() && left.len() == count,
        "{count} spans; only Envoy's:\n{}\nonly ours:\n{}",
        envoys.join("\n"),
        own.join("\n")
    );
}

/// A span without what is its own.
fn plain(span: &Value, side: &Side) -> String {
    let mut span = span.clone();
    let id = &mut span["tags"]["guid:x-request-id"];
    if let Some(text) = id.as_str() {
        *id = json!(format!("{} with {}", text.len(), &text[14..15]));
    }
    if span["localEndpoint"]["ipv4"].is_string() {
        span["localEndpoint"]["ipv4"] = json!("address");
    }
    let text = serde_json::to_string_pretty(&sorted(&span)).unwrap();
    text.replace(&side.address.port().to_string(), "PORT")
}

/// With the keys of all objects in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> =
                fields.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(all) => all.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn tags() -> Value {
    json!([
        { "tag": "literal", "literal": { "value": "L" } },
        { "tag": "given", "request_header": { "name": "X-Tag", "default_value": "none" } },
        { "tag": "absent", "request_header": { "name": "x-absent" } },
        { "tag": "environment", "environment": { "name": "LATEEN_NOT_SET", "default_value": "unset" } },
    ])
}

fn zipkin(more: &Value) -> Value {
    let mut config = json!({ "@type": url("envoy.config.trace.v3.ZipkinConfig"),
        "collector_cluster": "collector", "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON" });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    json!({ "name": "envoy.tracers.zipkin", "typed_config": config })
}

fn otlp() -> Value {
    json!({ "name": "envoy.tracers.opentelemetry", "typed_config": {
        "@type": url("envoy.config.trace.v3.OpenTelemetryConfig"), "service_name": "a.shop",
        "http_service": { "http_uri": { "uri": "http://collector/v1/traces", "cluster": "collector", "timeout": "5s" } } } })
}

/// Requests, and with a span for each try: the tries too.
const WHOLE: usize = REQUESTS.len();
const WITH_TRIES: usize = REQUESTS.len() + 8;

#[test]
fn a_collector_gets_what_envoy_sends_it() {
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let plain = json!({});
    let wide = json!({ "trace_id_128bit": true, "shared_span_context": false });
    let cases = [
        (zipkin(&plain), false, "INBOUND"),
        (zipkin(&plain), false, "OUTBOUND"),
        (zipkin(&wide), true, "OUTBOUND"),
        (otlp(), false, "INBOUND"),
        (otlp(), false, "OUTBOUND"),
        (otlp(), true, "INBOUND"),
    ];
    std::thread::scope(|scope| {
        for (provider, tries, direction) in cases {
            let program = &program;
            scope.spawn(move || {
                let tracing = json!({ "provider": provider, "custom_tags": tags(), "spawn_upstream_span": tries });
                let count = if tries { WITH_TRIES } else { WHOLE };
                compare(program, &tracing, direction, count);
            });
        }
    });
}
