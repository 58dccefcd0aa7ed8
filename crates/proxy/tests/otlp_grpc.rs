//! Spans over gRPC: a collector of the test's own takes what the OTLP exporter sends, refuses it, and
//! goes away; the statistics tell these apart.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::json;
use support::whole::*;
use support::{Upstream, ask, body, free_address, get};

/// A call that the collector got.
struct Export {
    path: String,
    kind: String,
    te: String,
    more: String,
    message: Vec<u8>,
}

type Exports = Arc<Mutex<Vec<Export>>>;

/// Serves gRPC over HTTP/2 with this status, in the trailers or without a message in the head.
fn collector(address: SocketAddr, status: &'static str, in_head: bool) -> Exports {
    let kept = Exports::default();
    let all = kept.clone();
    let socket = std::net::TcpListener::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let socket = tokio::net::TcpListener::from_std(socket).unwrap();
            while let Ok((stream, _)) = socket.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(export(request, respond, all.clone(), status, in_head));
                    }
                });
            }
        });
    });
    kept
}

async fn export(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    all: Exports,
    status: &'static str,
    in_head: bool,
) {
    let (head, mut incoming) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(data)) = incoming.data().await {
        let _ = incoming.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
    }
    let text = |name: &str| {
        let value = head.headers.get(name);
        value.map_or(String::new(), |v| v.to_str().unwrap().to_owned())
    };
    all.lock().unwrap().push(Export {
        path: head.uri.path().to_owned(),
        kind: text("content-type"),
        te: text("te"),
        more: text("x-key"),
        message,
    });
    let mut answer = Response::builder().header("content-type", "application/grpc");
    if in_head {
        answer = answer.header("grpc-status", status);
    }
    let mut stream = respond
        .send_response(answer.body(()).unwrap(), in_head)
        .unwrap();
    if in_head {
        return;
    }
    // An empty message, then how it went.
    stream
        .send_data(Bytes::from_static(&[0; 5]), false)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    stream.send_trailers(trailers).unwrap();
}

/// A proxy that traces every request to a collector, with its admin port.
struct Scene {
    _proxy: Proxy,
    web: SocketAddr,
    admin: SocketAddr,
    _upstream: Upstream,
}

impl Scene {
    fn new(collector: SocketAddr) -> Self {
        let (web, admin) = (free_address(), free_address());
        let upstream = Upstream::new(&[OK]);
        let provider = json!({
            "@type": url("envoy.config.trace.v3.OpenTelemetryConfig"), "service_name": "a.shop",
            "grpc_service": { "envoy_grpc": { "cluster_name": "collector" }, "timeout": "5s",
                "initial_metadata": [{ "key": "x-key", "value": "secret" }] } });
        let tracing = json!({ "random_sampling": { "value": 100 },
            "provider": { "name": "envoy.tracers.opentelemetry", "typed_config": provider } });
        let listener = http(web, vec![], everything(), json!({ "tracing": tracing }));
        let mut spans = static_cluster("collector", collector);
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        spans["typed_extension_protocol_options"] = json!({ options: { "@type": url(options),
            "explicit_http_config": { "http2_protocol_options": {} } } });
        let clusters = json!([static_cluster("c", upstream.address), spans]);
        let proxy = Proxy::with_admin(json!([listener]), clusters, admin);
        wait_for(web);
        wait_for(admin);
        Self {
            _proxy: proxy,
            web,
            admin,
            _upstream: upstream,
        }
    }

    fn ask(&self) {
        let answer = ask(self.web, &get("/traced"));
        assert_eq!(status(&answer), "200");
    }

    /// Waits until a statistic of the exporter has this value.
    fn reaches(&self, stat: &str, want: u64) {
        let name = format!("tracing.opentelemetry.{stat}");
        let target = format!("/stats?filter=^{name}$");
        eventually(&format!("{name} = {want}"), || {
            let page = ask(self.admin, &get(&target));
            body(&page).trim() == format!("{name}: {want}")
        });
    }
}

#[test]
fn a_collector_gets_spans_over_grpc() {
    for in_head in [false, true] {
        let address = free_address();
        let exports = collector(address, "0", in_head);
        let scene = Scene::new(address);
        scene.ask();
        scene.ask();
        scene.reaches("spans_sent", 2);
        for stat in ["spans_dropped", "reports_dropped", "reports_failed"] {
            scene.reaches(stat, 0);
        }
        let exports = exports.lock().unwrap();
        scene.reaches("reports_sent", exports.len() as u64);
        scene.reaches("timer_flushed", exports.len() as u64);
        for export in &*exports {
            let service = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
            assert_eq!(export.path, service);
            assert_eq!(export.kind, "application/grpc");
            assert_eq!(export.te, "trailers");
            assert_eq!(export.more, "secret");
            let (head, message) = export.message.split_at(5);
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            assert_eq!(
                (head[0], length as usize),
                (0, message.len()),
                "one message"
            );
            // ResourceSpans is field 1, with a length: the whole message is one of them.
            assert_eq!(message[0], 0x0a);
            let has = |text: &[u8]| message.windows(text.len()).any(|w| w == text);
            assert!(has(b"a.shop") && has(b"/traced") && has(b"http.status_code"));
        }
    }
}

#[test]
fn a_collector_that_refuses_or_is_gone() {
    let address = free_address();
    // What UNAVAILABLE is worth: the spans are not taken though HTTP says 200.
    let exports = collector(address, "14", false);
    let scene = Scene::new(address);
    scene.ask();
    scene.reaches("reports_dropped", 1);
    scene.reaches("spans_dropped", 1);
    scene.reaches("spans_sent", 0);
    assert_eq!(exports.lock().unwrap().len(), 1);
    let scene = Scene::new(free_address());
    scene.ask();
    scene.reaches("reports_failed", 1);
    scene.reaches("spans_dropped", 1);
    scene.reaches("reports_dropped", 0);
}
