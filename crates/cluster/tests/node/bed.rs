//! What the tests share: unique names, ranges that no other test uses, pipes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use lateen_cluster::api::resource::{ENDPOINT_SLICES, EVENTS, PODS, SERVICE_ACCOUNTS, SERVICES};
use lateen_cluster::api::server::{ApiServer, ApiServerOptions, ClusterPki, ServerHandle};
use lateen_cluster::api::{Api, DeleteOptions, Selectors};
use lateen_cluster::network::cidr::{Ranges, nth_address};
use lateen_cluster::network::host::{HostNetwork, NetworkOptions, clean_up};
use lateen_cluster::node::image::{HostPrograms, Image, ImageCatalogue};
use lateen_cluster::node::process::sandbox::Helper;
use lateen_cluster::node::runtime::{ExecRequest, LogOptions, NodeRuntime, PodRef};
use lateen_cluster::node::{NodeHandle, NodeOptions, start};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// A network of its own for one test; removed by [`Bed::close`].
pub struct Bed {
    pub state: tempfile::TempDir,
    pub instance: String,
    pub network: HostNetwork,
}

impl Bed {
    /// `number` makes names and ranges unique among tests that run side by side.
    pub async fn open(number: u8) -> Self {
        let state = tempfile::tempdir().unwrap();
        let instance = format!("lttest{number}");
        let options = NetworkOptions {
            state_dir: state.path().to_owned(),
            instance: instance.clone(),
            ranges: Some(Ranges {
                pods: format!("10.{}.0.0/16", 150 + number).parse().unwrap(),
                services: format!("10.{}.0.0/16", 170 + number).parse().unwrap(),
            }),
            nodes: vec!["lateen-1".into(), "lateen-2".into()],
        };
        let network = HostNetwork::prepare(&options).await.unwrap();
        Self {
            state,
            instance,
            network,
        }
    }

    pub fn helper(&self) -> Helper {
        Helper {
            program: program(),
            marker: self.instance.clone(),
        }
    }

    pub async fn close(self) {
        clean_up(self.state.path()).await.unwrap();
        assert_eq!(
            self.network.links.index(&self.instance).await.unwrap(),
            None
        );
    }
}

pub fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A pipe: our read end, the program's write end.
pub fn output_pipe() -> (Receiver, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    let read = OwnedFd::from(read);
    lateen_cluster::node::process::terminal::set_nonblocking(&read).unwrap();
    (Receiver::from_owned_fd(read).unwrap(), write.into())
}

pub fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// A cluster of API server and node agent, without controllers: tests make what those would.
pub struct Cluster {
    pub bed: Bed,
    pub api: Api,
    node: Option<NodeHandle>,
    pub runtime: Arc<dyn NodeRuntime>,
    server: ServerHandle,
}

/// The "images" of the tests.
pub fn images() -> ImageCatalogue {
    let mut images = ImageCatalogue::default();
    images.add(&["alpine", "busybox"], &Image::default());
    let app = Image {
        programs: HostPrograms::basic_and(&["nc", "ip"]),
        user: (1000, 1000),
        entrypoint: vec!["sh".into(), "-c".into()],
        ..Image::default()
    };
    images.add(&["examples/app"], &app);
    images
}

impl Cluster {
    pub async fn open(number: u8) -> Self {
        let bed = Bed::open(number).await;
        let pki = ClusterPki::generate(std::time::SystemTime::now()).unwrap();
        let dns_ip = nth_address(bed.network.ranges.services, 10).unwrap();
        let options = ApiServerOptions {
            service_cidr: bed.network.ranges.services,
            dns_ip: Some(dns_ip.into()),
            extra_binds: vec![bed.network.listen(6443)],
            advertise: Some(bed.network.listen(6443)),
            ..ApiServerOptions::new(bed.state.path().join("store"), pki)
        };
        let (server, api) = ApiServer::start(options).await.unwrap();
        let node = start(api.clone(), bed.node_options(dns_ip)).await.unwrap();
        let account = json!({"metadata": {"name": "default", "namespace": "default"}});
        drop(
            api.create(&SERVICE_ACCOUNTS, Some("default"), account)
                .await,
        );
        let runtime = node.runtime();
        server.set_runtime(Arc::clone(&runtime));
        Self {
            bed,
            api,
            node: Some(node),
            runtime,
            server,
        }
    }

    pub async fn close(self) {
        self.node.unwrap().shutdown().await;
        self.server.shutdown().await;
        self.bed.close().await;
    }

    /// Ends the agent and starts a new one over the same API.
    pub async fn restart_agent(&mut self) {
        let dns_ip = nth_address(self.bed.network.ranges.services, 10).unwrap();
        let node = self.node.take().unwrap();
        node.shutdown().await;
        let node = start(self.api.clone(), self.bed.node_options(dns_ip))
            .await
            .unwrap();
        self.runtime = node.runtime();
        self.node = Some(node);
    }

    /// Makes a pod on the first node unless it names another.
    pub async fn pod(&self, name: &str, mut spec: Value) -> Value {
        if spec["nodeName"].is_null() {
            spec["nodeName"] = json!("lateen-1");
        }
        if spec["automountServiceAccountToken"].is_null() {
            spec["automountServiceAccountToken"] = json!(false);
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        (*self.api.create(&PODS, Some("default"), pod).await.unwrap()).clone()
    }

    /// Waits until the pod looks as wanted.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = std::time::Instant::now();
        loop {
            let pod = self.api.get(&PODS, Some("default"), name).await.unwrap();
            if wanted(&pod) {
                return (*pod).clone();
            }
            assert!(
                started.elapsed() < crate::PATIENCE,
                "{name} never was {what}: {:#}",
                pod["status"]
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub async fn ready(&self, name: &str) -> Value {
        self.until(name, "ready", |pod| {
            let conditions = pod["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
        .await
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |pod| pod["status"]["phase"] == phase)
            .await
    }

    pub async fn delete(&self, name: &str, grace: i64) {
        let options = DeleteOptions {
            grace_period_seconds: Some(grace),
            ..DeleteOptions::default()
        };
        self.api
            .delete(&PODS, Some("default"), name, options)
            .await
            .unwrap();
        let started = std::time::Instant::now();
        while self.api.get(&PODS, Some("default"), name).await.is_ok() {
            assert!(started.elapsed() < crate::PATIENCE, "{name} was never gone");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Runs a command in a container: its output (both streams) and exit code.
    pub async fn exec(&self, pod: &str, container: &str, script: &str) -> (String, i32) {
        let request = ExecRequest {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let session = self
            .runtime
            .exec(&pod_ref(pod), container, request)
            .await
            .unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let (mut stdout, mut stderr) = (session.stdout.unwrap(), session.stderr.unwrap());
        let (a, b) = tokio::join!(
            stdout.read_to_string(&mut out),
            stderr.read_to_string(&mut err)
        );
        a.and(b).unwrap();
        (out + &err, session.exit.await.unwrap().code())
    }

    /// The whole log of a container.
    pub async fn logs(&self, pod: &str, container: &str, options: LogOptions) -> String {
        let mut stream = self
            .runtime
            .logs(&pod_ref(pod), container, options)
            .await
            .unwrap();
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    /// Waits until the events about a pod hold this one, "Reason: message".
    pub async fn tells(&self, pod: &str, wanted: &str) {
        let started = std::time::Instant::now();
        loop {
            let events = self.events(pod).await;
            if events.iter().any(|event| event == wanted) {
                return;
            }
            assert!(started.elapsed() < crate::PATIENCE, "{wanted}: {events:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Reasons and messages of the events about a pod so far.
    async fn events(&self, pod: &str) -> Vec<String> {
        let (events, _) = self
            .api
            .list(&EVENTS, Some("default"), &Selectors::all())
            .await
            .unwrap();
        let ours = events.iter().filter(|e| e["involvedObject"]["name"] == pod);
        ours.map(|e| {
            format!(
                "{}: {}",
                e["reason"].as_str().unwrap(),
                e["message"].as_str().unwrap()
            )
        })
        .collect()
    }

    /// Makes a Service and the slice that a controller would make.
    pub async fn service(&self, name: &str, spec: Value, endpoints: &[&Value]) -> Value {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        let service = self
            .api
            .create(&SERVICES, Some("default"), service)
            .await
            .unwrap();
        let list: Vec<Value> = endpoints
            .iter()
            .map(|pod| json!({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": true}, "nodeName": pod["spec"]["nodeName"]}))
            .collect();
        let port = &spec["ports"][0];
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-x"), "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": list,
            "ports": [{"name": port["name"].as_str().unwrap_or(""), "port": port["targetPort"], "protocol": "TCP"}],
        });
        self.api
            .create(&ENDPOINT_SLICES, Some("default"), slice)
            .await
            .unwrap();
        // A Service without endpoints needs no rule of its own; and what the kernel has, the name
        // server has.
        if !endpoints.is_empty() {
            self.rules_hold(&service, endpoints).await;
        }
        (*service).clone()
    }

    /// Waits until the kernel's rules lead from the Service's address to each of its endpoints.
    async fn rules_hold(&self, service: &Value, endpoints: &[&Value]) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let chain = format!("chain svc/default/{}/", text(&service["metadata"]["name"]));
        let ip = format!("{} . tcp", text(&service["spec"]["clusterIP"]));
        let started = std::time::Instant::now();
        loop {
            let output = tokio::process::Command::new("nft")
                .args(["list", "table", "ip", &self.bed.instance])
                .output()
                .await
                .unwrap();
            let rules = String::from_utf8_lossy(&output.stdout).into_owned();
            let own = rules.split(&chain).nth(1).unwrap_or_default();
            let own = own.split('}').next().unwrap_or_default();
            // A map of endpoints ends with the first brace too.
            let all = |pod: &&Value| own.contains(&text(&pod["status"]["podIP"]));
            if rules.contains(&ip) && endpoints.iter().all(all) {
                return;
            }
            assert!(started.elapsed() < crate::PATIENCE, "no rules: {rules}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

pub fn pod_ref(name: &str) -> PodRef {
    PodRef {
        namespace: "default".into(),
        name: name.into(),
        uid: String::new(),
    }
}

impl Bed {
    fn node_options(&self, dns_ip: std::net::Ipv4Addr) -> NodeOptions {
        NodeOptions {
            state_dir: self.state.path().to_owned(),
            instance: self.instance.clone(),
            network: self.network.clone(),
            program: program(),
            images: images(),
            dns_ip,
            cluster_domain: "cluster.local".into(),
            version: "v1.33.1+test".into(),
            runtime_version: "lateen://test".into(),
        }
    }
}
