//! The debug pages: who is connected, what was generated for whom and from what.

mod cache;
mod dump;
mod endpoints;
mod pages;
mod policy;
mod scope;
#[cfg(test)]
mod tests;

pub use dump::config_dump;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;

use crate::ads::{Caller, Connections};
use crate::auth::Authenticator;
use crate::metrics::Metrics;
use crate::store::Store;

/// What the pages show.
#[derive(Clone)]
pub struct DebugState {
    /// The configuration.
    pub store: Arc<Store>,
    /// The streams.
    pub connections: Arc<Connections>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Checks tokens of callers from pods; `None` where there is no cluster to ask.
    pub authenticator: Option<Arc<Authenticator>>,
    /// What the injector is configured with, for `/debug/inject`.
    pub injection: Arc<dyn Fn() -> Value + Send + Sync>,
    /// True once the first configuration is in place.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Query parameters of the pages.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Params {
    /// `<pod>.<namespace>`.
    #[serde(rename = "proxyID")]
    pub proxy_id: Option<String>,
    /// Of `cachez`: show bytes in place of names.
    pub sizes: String,
    /// Of `cachez`: forget what is kept.
    pub clear: String,
}

/// Pages with their meaning, in the order of `/debug/list`.
const LIST: &[(&str, &str)] = &[
    ("adsz", "Status and debug interface for ADS"),
    ("authorizationz", "Authorization policies by namespace"),
    ("cachez", "Generated resources that are kept, by type"),
    ("cachez?clear=true", "Forget generated resources"),
    ("cachez?sizes=true", "Bytes of kept resources, by type"),
    ("clusterz", "Clusters watched by this control plane"),
    (
        "config_dump",
        "Configuration for a proxy, as Envoy's config dump (proxyID)",
    ),
    ("configz", "All Istio configuration objects"),
    ("connections", "Connected proxies"),
    ("ecdsz", "Extension configurations of a proxy (proxyID)"),
    (
        "edsz",
        "Endpoints of all clusters, or of those of a proxy (proxyID)",
    ),
    ("endpointShardz", "Endpoints by service"),
    ("inject", "Active injection configuration"),
    ("instancesz", "Service ports by proxy"),
    ("list", "This list"),
    ("mesh", "Active mesh configuration"),
    ("ndsz", "Name table of a proxy (proxyID)"),
    ("networkz", "Networks and gateways"),
    (
        "pushcontext",
        "Policies and gateways that pushes are made from",
    ),
    ("push_status", "Diagnostics of the last compilation"),
    ("registryz", "Services"),
    ("resourcesz", "Objects by kind"),
    ("sidecarz", "Sidecar scope of a proxy (proxyID)"),
    ("syncz", "Synchronization status of all proxies"),
    (
        "telemetryz",
        "Telemetry objects by namespace, or those for a proxy (proxyID)",
    ),
];

/// `/debug/*`, `/ready`, `/healthz`, `/version` and `/metrics`.
pub fn router(state: DebugState) -> Router {
    let debug = Router::new()
        .route("/debug", get(list))
        .route("/debug/list", get(list))
        .route("/debug/adsz", get(adsz))
        .route("/debug/syncz", get(syncz))
        .route("/debug/connections", get(connections))
        .route("/debug/edsz", get(edsz))
        .route("/debug/config_dump", get(config_dump_page))
        .route("/debug/ndsz", get(ndsz))
        .route("/debug/ecdsz", get(ecdsz))
        .route("/debug/sidecarz", get(sidecarz))
        .route("/debug/telemetryz", get(telemetryz))
        .route("/debug/authorizationz", get(authorizationz))
        .route("/debug/pushcontext", get(pushcontext))
        .route("/debug/cachez", get(cachez))
        .route("/debug/configz", get(configz))
        .route("/debug/registryz", get(registryz))
        .route("/debug/endpointShardz", get(shards))
        .route("/debug/instancesz", get(instances))
        .route("/debug/resourcesz", get(resources))
        .route("/debug/clusterz", get(clusterz))
        .route("/debug/networkz", get(networkz))
        .route("/debug/push_status", get(push_status))
        .route("/debug/mesh", get(mesh))
        .route("/debug/inject", get(inject))
        .layer(middleware::from_fn_with_state(state.clone(), admit));
    let open = Router::new()
        .route("/ready", get(ready))
        .route("/healthz", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics));
    debug.merge(open).with_state(state)
}

/// Configuration of one namespace is no business of another's pods: a caller with a pod's
/// address needs a token of the control plane's namespace. Callers from the machine itself
/// (not a pod) may look, as may those who forward a port to the control plane.
async fn admit(State(state): State<DebugState>, request: Request, next: Next) -> Response {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|c| c.0.ip());
    let configuration = state.store.current();
    let from_pod = peer.is_none_or(|ip| {
        !ip.is_loopback()
            && configuration
                .endpoints
                .workloads
                .at(ip.to_canonical())
                .is_some()
    });
    if !from_pod {
        return next.run(request).await;
    }
    let header = request.headers().get(header::AUTHORIZATION).cloned();
    let header = header.as_ref().and_then(|h| h.to_str().ok());
    let root = &*configuration.snapshot.mesh.root_namespace;
    match &state.authenticator {
        Some(a) => match a.caller(header).await {
            Ok(Caller::ServiceAccount { namespace, .. }) if namespace == root => {
                next.run(request).await
            }
            Ok(_) => (
                StatusCode::FORBIDDEN,
                "only for the control plane's namespace\n",
            )
                .into_response(),
            Err(e) => (StatusCode::UNAUTHORIZED, format!("{}\n", e.message())).into_response(),
        },
        None => (StatusCode::FORBIDDEN, "not from a pod\n").into_response(),
    }
}

/// Pretty-printed with two spaces, which people grep with a count of lines.
fn json(value: &Value) -> Response {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn list() -> Response {
    let pages = LIST.iter().map(
        |(name, what)| serde_json::json!({"path": format!("/debug/{name}"), "description": what}),
    );
    json(&pages.collect())
}

async fn adsz(State(s): State<DebugState>) -> Response {
    json(&pages::adsz(&s))
}

async fn syncz(State(s): State<DebugState>) -> Response {
    json(&pages::syncz(&s))
}

async fn connections(State(s): State<DebugState>) -> Response {
    json(&pages::connections(&s))
}

async fn configz(State(s): State<DebugState>) -> Response {
    json(&pages::configz(&s))
}

async fn registryz(State(s): State<DebugState>) -> Response {
    json(&pages::registryz(&s))
}

async fn instances(State(s): State<DebugState>) -> Response {
    json(&pages::instances(&s))
}

async fn resources(State(s): State<DebugState>) -> Response {
    json(&pages::resources(&s))
}

async fn clusterz(State(s): State<DebugState>) -> Response {
    json(&pages::clusterz(&s))
}

async fn networkz() -> Response {
    json(&serde_json::json!({"gateways": []}))
}

async fn push_status(State(s): State<DebugState>) -> Response {
    json(&pages::push_status(&s))
}

async fn mesh(State(s): State<DebugState>) -> Response {
    json(&pages::mesh(&s))
}

async fn inject(State(s): State<DebugState>) -> Response {
    json(&(s.injection)())
}

async fn shards(State(s): State<DebugState>) -> Response {
    json(&endpoints::shards(&s))
}

async fn edsz(State(s): State<DebugState>, Query(p): Query<Params>) -> Response {
    match p.proxy_id {
        None => json(&endpoints::all(&s)),
        Some(id) => of_proxy(&s, &id, endpoints::of_view),
    }
}

async fn config_dump_page(State(s): State<DebugState>, Query(p): Query<Params>) -> Response {
    of_required(&s, p, config_dump)
}

async fn ndsz(State(s): State<DebugState>, Query(p): Query<Params>) -> Response {
    of_required(&s, p, dump::name_table)
}

async fn ecdsz(State(s): State<DebugState>, Query(p): Query<Params>) -> Response {
    of_required(&s, p, dump::extensions)
}

async fn sidecarz(State(s): State<DebugState>, Query(p): Query<Params>) -> Response {
    of_required(&s, p, scope::sidecarz)
}

async fn telemetryz(State(s): State<DebugState>, Query(p): Query<Params>) -> Response {
    match p.proxy_id {
        None => json(&policy::telemetryz(&s.store.current())),
        Some(id) => of_proxy(&s, &id, policy::telemetry_of),
    }
}

async fn authorizationz(State(s): State<DebugState>) -> Response {
    json(&policy::authorizationz(&s.store.current()))
}

async fn pushcontext(State(s): State<DebugState>) -> Response {
    json(&policy::pushcontext(&s.store.current()))
}

async fn cachez(State(s): State<DebugState>, Query(p): Query<Params>) -> Response {
    if !p.clear.is_empty() {
        s.store.forget();
        return "Cache cleared\n".into_response();
    }
    if !p.sizes.is_empty() {
        return json(&cache::sizes(&s.store));
    }
    json(&cache::names(&s.store))
}

fn of_required(
    s: &DebugState,
    p: Params,
    page: impl Fn(&crate::store::ProxyView) -> Value,
) -> Response {
    match p.proxy_id {
        Some(id) => of_proxy(s, &id, page),
        None => (
            StatusCode::BAD_REQUEST,
            "You must provide a proxyID in the query string\n",
        )
            .into_response(),
    }
}

fn of_proxy(
    s: &DebugState,
    id: &str,
    page: impl Fn(&crate::store::ProxyView) -> Value,
) -> Response {
    use crate::ads::Source as _;
    match s.connections.find(id) {
        Some(c) => json(&page(&s.store.view(&c.node))),
        None => (
            StatusCode::NOT_FOUND,
            format!("Proxy not connected to this control plane: {id}\n"),
        )
            .into_response(),
    }
}

async fn ready(State(s): State<DebugState>) -> Response {
    if (s.ready)() {
        "".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n").into_response()
    }
}

async fn version() -> String {
    format!("{}\n", crate::ads::IDENTIFIER)
}

async fn metrics(State(s): State<DebugState>) -> Response {
    s.metrics
        .set("pilot_xds", &[], s.connections.all().len() as f64);
    let c = s.store.current();
    s.metrics
        .set("pilot_services", &[], c.snapshot.services().len() as f64);
    s.metrics.set(
        "pilot_virt_services",
        &[],
        c.snapshot.virtual_services().len() as f64,
    );
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        s.metrics.page(),
    )
        .into_response()
}
