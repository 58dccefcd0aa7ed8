//! The objects that every cluster has from its first moment: namespaces, roles, and the Service
//! by which pods reach the API.

use serde_json::{Value, json};

use super::auth;
use super::core::{Core, RequestInfo};
use super::error::ApiError;
use super::resource::{ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, Resource, SERVICES};

const SPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing and renews the address of the API.
pub(crate) async fn run(core: &Core) -> Result<(), ApiError> {
    let info = RequestInfo::internal();
    for name in SPACES {
        ensure(
            core,
            &info,
            &NAMESPACES,
            None,
            json!({"metadata": {"name": name}}),
        )
        .await?;
    }
    for (res, object) in auth::bootstrap_objects() {
        ensure(core, &info, res, None, object).await?;
    }
    kubernetes_service(core, &info).await
}

async fn ensure(
    core: &Core,
    info: &RequestInfo,
    res: &Resource,
    ns: Option<&str>,
    object: Value,
) -> Result<(), ApiError> {
    let target = core.target(res)?;
    match core.create(info, &target, ns, object).await {
        Err(e) if e.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

async fn kubernetes_service(core: &Core, info: &RequestInfo) -> Result<(), ApiError> {
    let ns = Some("default");
    let address = core.settings.advertise;
    let ip = core
        .settings
        .service_cidr
        .hosts()
        .next()
        .ok_or_else(|| ApiError::internal("the service range is empty"))?;
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"metadata": {"name": "kubernetes", "labels": labels},
        "spec": {"clusterIP": ip.to_string(), "type": "ClusterIP",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": address.port()}]}});
    replace(core, info, &SERVICES, ns, service, "spec").await?;
    let endpoints = json!({"metadata": {"name": "kubernetes",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address.ip().to_string()}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}]}]});
    replace(core, info, &ENDPOINTS, ns, endpoints, "subsets").await?;
    let slice = json!({"metadata": {"name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}]});
    replace(core, info, &ENDPOINT_SLICES, ns, slice.clone(), "endpoints").await?;
    replace(core, info, &ENDPOINT_SLICES, ns, slice, "ports").await
}

/// Creates an object, or brings one of its fields up to date.
async fn replace(
    core: &Core,
    info: &RequestInfo,
    res: &Resource,
    ns: Option<&str>,
    object: Value,
    field: &str,
) -> Result<(), ApiError> {
    let name = super::meta::name(&object).to_owned();
    let patch = json!({field: object[field]});
    let target = core.target(res)?;
    match core.create(info, &target, ns, object).await {
        Err(e) if e.is_already_exists() => core
            .merge_patch(info, res, ns, &name, &patch, None)
            .await
            .map(drop),
        other => other.map(drop),
    }
}
