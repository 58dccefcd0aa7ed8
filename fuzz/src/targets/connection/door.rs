//! One connection of a whole connection manager, on a socket pair: its configuration, a client
//! that says what it is told to, and what must hold when both have left.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy::fuzz::connection;
use lateen_proxy::http::stream::HttpContext;
use lateen_proxy::http::{server1, server2};
use lateen_proxy::io::{Buf, Io, timer};
use lateen_proxy::worker::{Worker, WorkerOptions};
use lateen_proxy_core::config::{Cluster, Listener, NetworkFilter, Snapshot};
use lateen_proxy_core::stats::Registry;
use lateen_proxy_xds::decode::{self, Context};
use lateen_xds_proto::json;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};

use super::upstream;
use crate::runtime::{real, settle, watched};

/// What a connection may take to end once the client has left. Nothing in it waits: this is far
/// longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(8);

/// How a client behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Speaks HTTP/2.
    pub http2: bool,
    /// Meets the second configuration: small limits, all options.
    pub strict: bool,
    /// Throws away what it reads.
    pub forgetful: bool,
    /// Reads nothing before it leaves.
    pub deaf: bool,
    /// Closes at once instead of saying that it has no more to say.
    pub abrupt: bool,
}

/// What is left of a connection.
#[derive(Debug)]
pub struct Talk {
    /// What the client was sent.
    pub received: Vec<u8>,
    /// Whether all that the client had to say was taken.
    pub all_taken: bool,
}

thread_local! {
    static LISTENERS: [Arc<Listener>; 2] = [listener(false), listener(true)];
    static CLUSTERS: [Arc<Cluster>; 2] = [cluster("up"), cluster("none")];
}

fn routes(strict: bool) -> Value {
    let mut routes = vec![
        json!({"match": {"prefix": "/direct"},
            "direct_response": {"status": 200, "body": {"inline_string": "direct"}}}),
        json!({"match": {"prefix": "/redirect"},
            "redirect": {"host_redirect": "x.y", "response_code": "FOUND", "strip_query": true}}),
        json!({"match": {"prefix": "/none"}, "route": {"cluster": "none"}}),
        json!({"match": {"prefix": "/fault"}, "route": {"cluster": "up"}, "typed_per_filter_config": {
            "envoy.filters.http.fault": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                "abort": {"http_status": 418, "percentage": {"numerator": 100}}}}}),
        json!({"match": {"prefix": "/retry"}, "route": {"cluster": "up", "timeout": "2s",
            "retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 2,
                "retry_back_off": {"base_interval": "0.001s"}},
            "request_mirror_policies": [{"cluster": "up"}]}}),
        json!({"match": {"prefix": "/rewrite"}, "route": {"cluster": "up", "timeout": "2s",
            "regex_rewrite": {"pattern": {"regex": "/rewrite/([^/]*)"}, "substitution": "/\\1/x"},
            "host_rewrite_literal": "other", "hash_policy": [{"cookie": {"name": "u", "ttl": "1s"}}]},
            "request_headers_to_add": [{"header": {"key": "x-from", "value": "%REQ(:PATH)% %DOWNSTREAM_REMOTE_ADDRESS%"}}],
            "response_headers_to_add": [{"header": {"key": "x-to", "value": "%REQ(X-A)% %RESPONSE_CODE%"}}]}),
        json!({"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "2s"}}),
    ];
    if strict {
        routes.insert(
            0,
            json!({"match": {"connect_matcher": {}}, "route": {"cluster": "up", "timeout": "2s"}}),
        );
    }
    json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]})
}

/// The connection manager: as Istio's is by default, or with small limits and all options.
fn manager(strict: bool) -> Value {
    let log = json!({"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/null", "log_format": {"text_format_source": {"inline_string":
            "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_SENT% %REQ(X-A)% %RESP(SERVER)% %DURATION%\n"}}}});
    let typed = |name: &str, kind: &str| {
        json!({"name": name, "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")}})
    };
    let filters = [
        typed("envoy.filters.http.fault", "fault.v3.HTTPFault"),
        typed("envoy.filters.http.cors", "cors.v3.Cors"),
        typed("envoy.filters.http.router", "router.v3.Router"),
    ];
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "f", "route_config": routes(strict), "http_filters": filters,
        "normalize_path": true, "access_log": [log], "delayed_close_timeout": "0.1s",
        "upgrade_configs": [{"upgrade_type": "websocket"}]});
    if strict {
        let more = json!({
            "max_request_headers_kb": 1, "merge_slashes": true, "use_remote_address": true,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
            "strip_any_host_port": true, "via": "v", "always_set_request_id_in_response": true,
            "request_headers_timeout": "2s", "request_timeout": "3s", "stream_idle_timeout": "3s",
            "common_http_protocol_options": {"max_headers_count": 8, "max_requests_per_connection": 5,
                "headers_with_underscores_action": "DROP_HEADER"},
            "http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "d",
                "allow_chunked_length": true, "enable_trailers": true},
            "http2_protocol_options": {"max_concurrent_streams": 4, "allow_connect": true,
                "initial_stream_window_size": 65535, "initial_connection_window_size": 65535},
            "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}]});
        if let (Some(to), Value::Object(more)) = (manager.as_object_mut(), more) {
            to.extend(more);
        }
    }
    manager
}

fn listener(strict: bool) -> Arc<Listener> {
    let value = json!({"name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "h", "typed_config": manager(strict)}]}]});
    let wire = json::to_wire("envoy.config.listener.v3.Listener", &value).expect("a listener");
    Arc::new(
        decode::listener(&wire, &Context::empty())
            .expect("accepted")
            .listener,
    )
}

fn cluster(name: &str) -> Arc<Cluster> {
    let mut value = json!({"name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name}});
    if name == "up" {
        let path = format!("@{}", upstream::name());
        value["load_assignment"]["endpoints"] = json!([{"lb_endpoints": [
            {"endpoint": {"address": {"pipe": {"path": path}}}}]}]);
    }
    let wire = json::to_wire("envoy.config.cluster.v3.Cluster", &value).expect("a cluster");
    let decoded = decode::cluster(&wire, &Context::empty(), false);
    Arc::new(decoded.expect("accepted").cluster)
}

fn worker() -> Rc<Worker> {
    let worker = Worker::new(WorkerOptions {
        log_files: Default::default(),
        overload: None,
        index: 0,
        hostname: "fuzz".to_owned(),
        node_ip: None,
        flush_interval: Duration::from_secs(1),
        drain_strategy: Default::default(),
        drain_time: Duration::from_secs(1),
        limits: Arc::default(),
        clusters: Arc::default(),
        stats: Registry::new(),
        own: Arc::default(),
    });
    CLUSTERS.with(|clusters| {
        let named = clusters.iter().map(|c| (c.name.clone(), c.clone()));
        worker.clusters.set_snapshot(&Arc::new(Snapshot {
            clusters: Arc::new(named.collect()),
            ..Snapshot::default()
        }));
    });
    worker
}

/// Has a client say these pieces, one after another, to a fresh proxy, whose upstream answers
/// `/raw` with `raw`. Panics when anything of it does, or does not end.
#[must_use]
pub fn talk(pieces: &mut dyn Iterator<Item = &[u8]>, raw: &[u8], manner: Manner) -> Talk {
    watched(|| {
        let local = LocalSet::new();
        local.block_on(real(), async {
            spawn_local(timer::drive());
            upstream::start(raw);
            converse(pieces, manner).await
        })
    })
}

async fn converse(pieces: &mut dyn Iterator<Item = &[u8]>, manner: Manner) -> Talk {
    let worker = worker();
    let listener = LISTENERS.with(|both| both[usize::from(manner.strict)].clone());
    let Some(NetworkFilter::HttpConnectionManager(config)) =
        listener.filter_chains[0].filters.last()
    else {
        panic!("no connection manager");
    };
    let http = Rc::new(HttpContext::new(config.clone(), &worker.stats));
    let (near, far) = UnixStream::pair().expect("a socket pair");
    let conn = connection(&worker, &listener, Io::unix(far));
    let (left, serving) = (Rc::downgrade(&conn), http.clone());
    // Its socket closes with the last that holds the connection.
    let serving = spawn_local(async move {
        match manner.http2 {
            true => server2::serve(conn, serving).await,
            false => server1::serve(conn, serving, Buf::new()).await,
        }
    });
    let talk = client(near, pieces, manner).await;
    let ended = tokio::time::timeout(PATIENCE, serving).await;
    ended
        .expect("the connection does not end")
        .expect("no panic");
    let gone = tokio::time::timeout(PATIENCE, async {
        while left.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(gone.await.is_ok(), "something holds on to the connection");
    assert_eq!(
        http.stats.cells.downstream_rq_active.get(),
        0,
        "requests that never end"
    );
    worker.logs.flush();
    talk
}

async fn client(
    stream: UnixStream,
    pieces: &mut dyn Iterator<Item = &[u8]>,
    manner: Manner,
) -> Talk {
    let (mut read, mut write) = stream.into_split();
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let reading = spawn_local(async move {
        let mut out = Vec::new();
        if manner.deaf {
            let _ = left.await;
        }
        // A reset ends it as well: what came before counts.
        while matches!(read.read_buf(&mut out).await, Ok(1..)) {
            if manner.forgetful {
                out.clear();
            }
        }
        out
    });
    let mut all_taken = true;
    for piece in pieces {
        // A server that takes no more is one way to keep within bounds.
        let wrote = tokio::time::timeout(Duration::from_millis(300), write.write_all(piece)).await;
        all_taken = matches!(wrote, Ok(Ok(())));
        if !all_taken {
            break;
        }
        settle().await;
    }
    if manner.abrupt {
        reading.abort();
        drop((write, leave));
        return Talk {
            received: Vec::new(),
            all_taken,
        };
    }
    let _ = write.shutdown().await;
    drop(leave);
    let received = tokio::time::timeout(PATIENCE, reading).await;
    let received = received
        .expect("the server does not close")
        .expect("no panic");
    Talk {
        received,
        all_taken,
    }
}
