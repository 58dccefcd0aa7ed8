//! The pages by their content, over a router without sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::Request;
use lateen_compile::EndpointOptions;
use lateen_model::MeshConfig;
use lateen_resources::read_yaml;
use lateen_sources::Event;
use lateen_xds::ResourceType;
use lateen_xds_proto::envoy::config::core::v3::Node;
use serde_json::{Value, json};
use tower::Service as _;

use super::{DebugState, router};
use crate::ads::{Connections, Listed, NodeInfo, Source as _, View as _};
use crate::planner::Planner;
use crate::store::{ProxyView, Store};

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 9080}], selector: {app: reviews}}
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: default}
spec: {clusterIP: 10.96.0.8, ports: [{name: http, port: 9080}], selector: {app: ratings}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: 10.96.0.9, ports: [{name: tcp, port: 3306}], selector: {app: db}}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: default, labels: {app: reviews, version: v1}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.244.0.9, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings, namespace: default}
spec: {host: ratings, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: second, namespace: default, creationTimestamp: '2024-01-02T00:00:00Z'}
spec: {action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: third-by-name-first-by-age, namespace: default, annotations: {why: because}, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh, namespace: istio-system}
spec: {accessLogging: [{providers: [{name: envoy}]}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: reviews, namespace: default}
spec: {selector: {matchLabels: {app: reviews}}, tracing: [{disableSpanReporting: true}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: ratings, namespace: default}
spec: {selector: {matchLabels: {app: ratings}}, tracing: [{disableSpanReporting: true}]}
";

const SIDECAR: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: default}
spec:
  workloadSelector: {labels: {app: reviews}}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  ingress: [{port: {number: 9080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:9080'}]
  egress:
  - port: {number: 3306, protocol: TCP, name: db}
    hosts: ['data/*']
  - hosts: ['./ratings.default.svc.cluster.local']
";

struct Pages {
    router: Router,
    store: Arc<Store>,
    planner: Planner,
    node: NodeInfo,
    _listed: Listed,
}

impl Pages {
    fn new() -> Self {
        let store = Arc::new(Store::new(Default::default()));
        let options = EndpointOptions { from_pods: true };
        let planner = Planner::new(store.clone(), MeshConfig::default(), options, "t".into());
        let id = "sidecar~10.244.0.9~reviews-1.default~default.svc.cluster.local";
        let node = Node {
            id: id.into(),
            ..Node::default()
        };
        let node = NodeInfo::parse(Some(&node)).expect("a node");
        let connections = Arc::<Connections>::default();
        let listed = connections.add(node.clone(), "delta", "peer".into());
        let router = router(DebugState {
            store: store.clone(),
            connections,
            metrics: Arc::default(),
            authenticator: None,
            injection: Arc::new(|| json!({})),
            ready: Arc::new(|| true),
        });
        let mut pages = Self {
            router,
            store,
            planner,
            node,
            _listed: listed,
        };
        pages.planner.apply(Event::Synced);
        pages.apply(OBJECTS);
        pages
    }

    fn apply(&mut self, yaml: &str) {
        let read = read_yaml(yaml, "t.yaml", "default");
        assert!(!read.has_errors(), "{:?}", read.diagnostics);
        for object in read.objects {
            self.planner.apply(Event::Upsert(Arc::new(object)));
        }
        self.planner.publish(Instant::now());
    }

    fn view(&self) -> Arc<ProxyView> {
        self.store.view(&self.node)
    }

    async fn from(&self, peer: &str, page: &str) -> (u16, String) {
        let mut request = Request::get(format!("/debug/{page}"))
            .body(Body::empty())
            .expect("a request");
        let peer = SocketAddr::new(peer.parse().expect("an address"), 40000);
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self.router.clone().call(request).await.expect("answers");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await;
        let text = String::from_utf8(body.expect("a body").to_vec()).expect("text");
        (status, text)
    }

    async fn json(&self, page: &str) -> Value {
        let (status, text) = self.from("127.0.0.1", page).await;
        assert_eq!(status, 200, "{page}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{page}: {e}: {text}"))
    }
}

fn texts(v: &Value) -> Vec<&str> {
    let list = v.as_array().unwrap_or_else(|| panic!("no list: {v}"));
    list.iter().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn pages_of_a_proxy_want_one_that_is_connected() {
    let pages = Pages::new();
    for page in ["ecdsz", "sidecarz", "ndsz", "config_dump"] {
        let (status, text) = pages.from("127.0.0.1", page).await;
        assert_eq!(status, 400, "{page}: {text}");
        assert!(text.contains("proxyID"), "{page}: {text}");
    }
    for page in ["ecdsz", "sidecarz", "telemetryz", "edsz"] {
        let unknown = format!("{page}?proxyID=nobody.default");
        let (status, text) = pages.from("127.0.0.1", &unknown).await;
        assert_eq!(status, 404, "{page}: {text}");
        assert!(text.contains("nobody.default"), "{page}: {text}");
    }
    assert_eq!(
        pages.json("ecdsz?proxyID=reviews-1.default").await,
        json!([])
    );
}

#[tokio::test]
async fn every_page_of_the_list_is_there_and_none_is_for_pods() {
    let pages = Pages::new();
    let list = pages.json("list").await;
    let list = list.as_array().expect("a list");
    for entry in list {
        let page = entry["path"].as_str().expect("a path");
        let page = page.strip_prefix("/debug/").expect("a debug page");
        let own = if page.contains('?') { '&' } else { '?' };
        let asked = format!("{page}{own}proxyID=reviews-1.default");
        let (status, text) = pages.from("127.0.0.1", &asked).await;
        assert_eq!(status, 200, "{page}: {text}");
        // A pod without a token of the control plane's namespace sees none of them.
        let (status, text) = pages.from("10.244.0.9", &asked).await;
        assert_eq!(status, 403, "{page}: {text}");
    }
    let named = |n: &str| list.iter().any(|e| e["path"] == format!("/debug/{n}"));
    for name in [
        "ecdsz",
        "sidecarz",
        "telemetryz",
        "authorizationz",
        "cachez",
    ] {
        assert!(named(name), "{name} is listed");
    }
}

#[tokio::test]
async fn a_proxy_without_a_sidecar_object_sees_everything_and_is_told_so() {
    let pages = Pages::new();
    let scope = pages.json("sidecarz?proxyID=reviews-1.default").await;
    assert_eq!(scope["name"], "default-sidecar");
    assert_eq!(scope["namespace"], "default");
    assert_eq!(scope["sidecar"], Value::Null);
    assert_eq!(scope["outboundTrafficPolicy"], json!({"mode": "ALLOW_ANY"}));
    assert_eq!(scope["services"].as_array().map(Vec::len), Some(3));
    let egress = &scope["egressListeners"][0];
    assert_eq!(egress["hosts"], json!(["*/*"]));
    assert_eq!(texts(&egress["services"]).len(), 3);
    let rules = &scope["destinationRules"];
    assert_eq!(
        rules["ratings.default.svc.cluster.local"]["subsets"],
        json!(["v1"])
    );
    assert_eq!(rules["db.data.svc.cluster.local"], Value::Null);
    assert_eq!(scope["notes"], json!([]));
}

#[tokio::test]
async fn a_sidecar_object_narrows_the_scope() {
    let mut pages = Pages::new();
    pages.apply(SIDECAR);
    let scope = pages.json("sidecarz?proxyID=reviews-1.default").await;
    assert_eq!(scope["name"], "narrow");
    assert_eq!(
        scope["outboundTrafficPolicy"],
        json!({"mode": "REGISTRY_ONLY"})
    );
    assert_eq!(
        scope["sidecar"]["workloadSelector"],
        json!({"labels": {"app": "reviews"}})
    );
    let hosts: Vec<&str> = scope["services"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| s["hostname"].as_str())
        .collect();
    let (ratings, db) = (
        "ratings.default.svc.cluster.local",
        "db.data.svc.cluster.local",
    );
    assert_eq!(hosts.len(), 2, "{hosts:?}");
    assert!(hosts.contains(&ratings) && hosts.contains(&db), "{hosts:?}");
    let first = &scope["egressListeners"][0];
    assert_eq!(texts(&first["services"]), [db]);
    assert_eq!(texts(&first["hosts"]), ["data/*"]);
    assert_eq!(first["port"]["number"], 3306);
    assert_eq!(texts(&scope["egressListeners"][1]["services"]), [ratings]);
    assert_eq!(scope["ingressListeners"][0]["port"]["number"], 9080);
    assert_eq!(texts(&scope["notes"]).len(), 2, "{}", scope["notes"]);
    // The page says what the generator does: no other cluster is sent.
    let all = crate::ads::Names {
        wildcard: true,
        ..Default::default()
    };
    let clusters = pages.view().generate(ResourceType::Cluster, &all);
    assert!(clusters.get(&format!("outbound|9080||{ratings}")).is_some());
    let own = "outbound|9080||reviews.default.svc.cluster.local";
    assert!(clusters.get(own).is_none());
}

#[tokio::test]
async fn policies_are_listed_by_namespace_and_age() {
    let pages = Pages::new();
    let page = pages.json("authorizationz").await;
    let all = &page["authorization_policies"];
    assert_eq!(all["root_namespace"], "istio-system");
    let own = &all["namespace_to_policies"]["default"];
    assert_eq!(own[0]["name"], "third-by-name-first-by-age");
    assert_eq!(own[0]["annotations"], json!({"why": "because"}));
    assert_eq!(own[1]["spec"]["action"], "DENY");
    assert_eq!(own.as_array().map(Vec::len), Some(2));
    assert_eq!(page["enforced"], false);
    let context = pages.json("pushcontext").await;
    assert_eq!(&context["AuthorizationPolicies"], all);

    let page = pages.json("telemetryz").await;
    let all = &page["telemetries"];
    assert_eq!(all["root_namespace"], "istio-system");
    let of = &all["namespace_to_telemetries"];
    assert_eq!(of["istio-system"][0]["name"], "mesh");
    assert_eq!(of["default"].as_array().map(Vec::len), Some(2));
    let of = pages.json("telemetryz?proxyID=reviews-1.default").await;
    assert_eq!(of["Root"]["name"], "mesh");
    assert_eq!(of["Namespace"], Value::Null);
    assert_eq!(of["Workload"]["name"], "reviews");
    assert_eq!(of["enforced"], false);
}

#[tokio::test]
async fn the_cache_shows_what_is_kept_and_forgets_it_on_request() {
    let pages = Pages::new();
    assert_eq!(pages.json("cachez").await, json!({}), "nobody asked yet");
    let view = pages.view();
    let all = crate::ads::Names {
        wildcard: true,
        ..Default::default()
    };
    let clusters = view.generate(ResourceType::Cluster, &all);
    let route = crate::ads::Names {
        names: ["9080".to_owned()].into(),
        ..Default::default()
    };
    view.generate(ResourceType::Route, &route);
    let kept = pages.json("cachez").await;
    let of = |t: ResourceType| texts(&kept[t.type_url()]);
    assert_eq!(of(ResourceType::Cluster).len(), clusters.len());
    assert!(of(ResourceType::Cluster).contains(&"BlackHoleCluster"));
    assert_eq!(of(ResourceType::Route), ["9080"]);
    assert_eq!(kept[ResourceType::Listener.type_url()], Value::Null);
    let sizes = pages.json("cachez?sizes=true").await;
    let total = sizes["total"].as_str().expect("a size");
    assert!(total.ends_with("kB"), "{sizes}");
    assert!(sizes[ResourceType::Cluster.type_url()].is_string());

    let (status, text) = pages.from("127.0.0.1", "cachez?clear=true").await;
    assert_eq!((status, text.as_str()), (200, "Cache cleared\n"));
    assert_eq!(pages.json("cachez").await, json!({}));
    // What is made anew is what it was.
    let again = view.generate(ResourceType::Cluster, &all);
    let versions = |set: &lateen_xds::ResourceSet| -> Vec<(String, u64)> {
        set.iter().map(|r| (r.name.clone(), r.version)).collect()
    };
    assert_eq!(versions(&clusters), versions(&again));
}
