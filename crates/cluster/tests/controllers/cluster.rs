//! A cluster for the tests: the API server with its store, all controllers, two nodes, and an
//! agent that pretends to run pods.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lateen_cluster::api::resource::{NODES, PODS};
use lateen_cluster::api::server::{ApiServer, ApiServerOptions, ClusterPki, ServerHandle};
use lateen_cluster::api::{Api, ApiError, DeleteOptions, Resource, Selectors};
use lateen_cluster::controllers::{self, Options};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A running cluster; dropping it stops it.
pub struct Cluster {
    /// The in-process client.
    pub api: Api,
    /// The server.
    pub handle: ServerHandle,
    _folder: tempfile::TempDir,
    shutdown: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Keys and certificates of the test cluster.
pub fn pki() -> ClusterPki {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "test");
    let certificate = params.self_signed(&key).expect("a certificate");
    ClusterPki {
        ca_cert_pem: certificate.pem(),
        ca_key_pem: key.serialize_pem(),
        service_account_key_pem: rcgen::KeyPair::generate().expect("a key").serialize_pem(),
    }
}

/// Options for a server on a free port with its store in `folder`.
pub fn options(folder: &std::path::Path) -> ApiServerOptions {
    ApiServerOptions {
        bind: "127.0.0.1:0".parse().expect("an address"),
        extra_binds: Vec::new(),
        data_dir: folder.to_path_buf(),
        pki: pki(),
        extra_sans: Vec::new(),
        advertise: None,
        service_cidr: "10.96.0.0/16".parse().expect("a range"),
        dns_ip: None,
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".to_owned(),
        version: "v1.37.0".to_owned(),
        tokens: Vec::new(),
    }
}

impl Cluster {
    /// Starts everything.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        let ca_pem = options.pki.ca_cert_pem.clone();
        let started = ApiServer::start(options).await;
        let (handle, api) = started.unwrap_or_else(|error| panic!("the server starts: {error}"));
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(controllers::run(
            api.clone(),
            Options { ca_pem },
            shutdown.clone(),
        ));
        tasks.spawn(agent(api.clone()));
        let cluster = Self {
            api,
            handle,
            _folder: folder,
            shutdown,
            _tasks: tasks,
        };
        for (node, zone) in [("node-1", "a"), ("node-2", "b")] {
            cluster.add_node(node, zone).await;
        }
        cluster
    }

    /// Adds a ready node.
    pub async fn add_node(&self, name: &str, zone: &str) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
        });
        self.api.create(&NODES, None, node).await.expect("created");
        let status = json!({"status": {
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        self.api
            .merge_patch(&NODES, None, name, &status, Some("status"))
            .await
            .expect("patched");
    }

    /// Creates an object in namespace `default`.
    pub async fn create(&self, resource: &Resource, object: Value) -> Arc<Value> {
        let kind = object["kind"].clone();
        let created = self.api.create(resource, Some("default"), object).await;
        created.unwrap_or_else(|error| panic!("creating {kind}: {error}"))
    }

    /// Patches an object in namespace `default`.
    pub async fn patch(&self, resource: &Resource, name: &str, patch: Value) -> Arc<Value> {
        let patched = self
            .api
            .merge_patch(resource, Some("default"), name, &patch, None)
            .await;
        patched.unwrap_or_else(|error| panic!("patching {name}: {error}"))
    }

    /// An object in namespace `default`, if it is there.
    pub async fn get(&self, resource: &Resource, name: &str) -> Option<Arc<Value>> {
        match self.api.get(resource, Some("default"), name).await {
            Ok(object) => Some(object),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("reading {name}: {error}"),
        }
    }

    /// All objects of a resource in namespace `default`.
    pub async fn list(&self, resource: &Resource) -> Vec<Arc<Value>> {
        self.api
            .list(resource, Some("default"), &Selectors::all())
            .await
            .expect("listed")
            .0
    }

    /// Deletes an object in namespace `default`.
    pub async fn delete(&self, resource: &Resource, name: &str, options: DeleteOptions) {
        let deleted = self
            .api
            .delete(resource, Some("default"), name, options)
            .await;
        deleted.unwrap_or_else(|error| panic!("deleting {name}: {error}"));
    }

    /// The pods with a label that neither ended nor leave.
    pub async fn pods(&self, label: (&str, &str)) -> Vec<Arc<Value>> {
        let found = self
            .api
            .list(&PODS, Some("default"), &Selectors::labels([label]))
            .await;
        let mut pods = found.expect("listed").0;
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods
    }
}

/// Waits until a check gives something; panics with `what` after 90 seconds.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(90),
            "never happened: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pretends to run the pods that are bound to a node. Label `test: broken` keeps a pod unready,
/// `test: ends` lets it succeed.
async fn agent(api: Api) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let api = api.as_user("system:node:test");
    let mut stream = api
        .watch(&PODS, None, &Selectors::all(), 0)
        .await
        .expect("a watch");
    while let Some(Ok(event)) = stream.next_event().await {
        let pod = &event.object;
        let bound = pod["spec"]["nodeName"].is_string();
        if !bound || event.kind == lateen_cluster::api::WatchKind::Deleted {
            continue;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = run(&api, pod, number).await
            && !error.is_not_found()
            && !error.is_conflict()
        {
            panic!("the agent: {error}");
        }
    }
}

async fn run(api: &Api, pod: &Value, number: u32) -> Result<(), ApiError> {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let (ns, name, uid) = (
        text("/metadata/namespace"),
        text("/metadata/name"),
        text("/metadata/uid"),
    );
    if !text("/metadata/deletionTimestamp").is_empty() {
        api.delete(&PODS, Some(ns), name, DeleteOptions::now().with_uid(uid))
            .await?;
        return Ok(());
    }
    if !text("/status/podIP").is_empty() {
        return Ok(());
    }
    let ip = format!("10.244.{}.{}", number / 250, number % 250 + 1);
    let mode = text("/metadata/labels/test");
    let ready = if mode.is_empty() { "True" } else { "False" };
    let phase = if mode == "ends" {
        "Succeeded"
    } else {
        "Running"
    };
    let at = jiff_now();
    let status = json!({"status": {
        "phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": at},
            {"type": "Ready", "status": ready, "lastTransitionTime": at}],
    }});
    api.merge_patch(&PODS, Some(ns), name, &status, Some("status"))
        .await?;
    Ok(())
}

fn jiff_now() -> String {
    controllers::object::format_time(jiff::Timestamp::now())
}
