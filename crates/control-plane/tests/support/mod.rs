//! What tests with a real Envoy share: the control plane on a port, a network namespace with
//! redirection rules, backends and the proxy itself, all gone when dropped.

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_compile::EndpointOptions;
use lateen_control_plane::ads::{Ads, Connections};
use lateen_control_plane::metrics::Metrics;
use lateen_control_plane::planner::Planner;
use lateen_control_plane::serve;
use lateen_control_plane::store::Store;
use lateen_model::MeshConfig;
use lateen_process::stop;
use lateen_resources::read_yaml;
use lateen_sources::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A control plane without files or cluster: objects come from the test.
pub struct Plane {
    pub connections: Arc<Connections>,
    pub metrics: Arc<Metrics>,
    events: mpsc::Sender<Event>,
    _stop: stop::Stopper,
    _meshes: mpsc::Sender<MeshConfig>,
}

impl Plane {
    /// Serves ADS on an address with these objects.
    pub async fn start(address: SocketAddr, yaml: &str, mesh: MeshConfig) -> Self {
        let store = Arc::new(Store::new(Default::default()));
        let (connections, metrics) = (Arc::<Connections>::default(), Arc::<Metrics>::default());
        let options = EndpointOptions { from_pods: true };
        let planner = Planner::new(store.clone(), mesh, options, "test".into());
        let (events, receiver) = mpsc::channel(1024);
        let (meshes, no_mesh) = mpsc::channel(1);
        tokio::spawn(planner.run(receiver, no_mesh));
        let (trigger, stop) = stop::pair();
        let listener = serve::bind("xDS", address).await.expect("a free port");
        let ads = Ads::new(
            store.clone(),
            connections.clone(),
            metrics.clone(),
            stop.clone(),
        );
        tokio::spawn(async move { serve::xds_plain(listener, ads, stop).await.expect("serves") });
        let plane = Self {
            connections,
            metrics,
            events,
            _stop: trigger,
            _meshes: meshes,
        };
        plane.apply(yaml).await;
        plane.events.send(Event::Synced).await.expect("running");
        plane
    }

    /// Adds or replaces the objects of a text.
    pub async fn apply(&self, yaml: &str) {
        let read = read_yaml(yaml, "input.yaml", "default");
        assert!(!read.has_errors(), "{:?}", read.diagnostics);
        for object in read.objects {
            self.events
                .send(Event::Upsert(Arc::new(object)))
                .await
                .expect("running");
        }
    }

    /// Waits until the proxy has accepted everything it was sent, and says what it refused.
    pub async fn wait_synced(&self, proxy: &str, types: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let progress = self
                .connections
                .find(proxy)
                .map(|c| c.progress())
                .unwrap_or_default();
            for (t, p) in &progress {
                assert_eq!(p.last_error, None, "{proxy} refused {}", t.short_name());
            }
            let synced = progress
                .iter()
                .filter(|(_, p)| p.status() == "SYNCED")
                .count();
            if progress.len() >= types && synced == progress.len() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{proxy} is not in sync: {progress:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The real Envoy, or `None` with a loud line when it is not installed.
pub fn envoy() -> Option<String> {
    let named = std::env::var("LATEEN_ENVOY").ok();
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        let mut all = std::env::split_paths(&path).map(|d| d.join("envoy"));
        Some(all.find(|p| p.is_file())?.to_str()?.to_owned())
    });
    if found.is_none() {
        eprintln!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
    }
    found
}

/// The mesh's own program, or `None` with a loud line when nobody says where it is: this
/// crate does not build it.
pub fn lateen() -> Option<String> {
    let found = std::env::var("LATEEN_PROGRAM").ok();
    if found.is_none() {
        eprintln!("SKIPPED: the lateen program is not known (set LATEEN_PROGRAM)");
    }
    found
}

/// True when this process may make network namespaces.
pub fn may_make_namespaces() -> bool {
    let ok = run("ip", &["netns", "list"]).is_some_and(|o| o.status.success())
        && run("id", &["-u"]).is_some_and(|o| o.stdout.starts_with(b"0\n"));
    if !ok {
        eprintln!("SKIPPED: network namespaces need root and iproute2");
    }
    ok
}

fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).output().ok()
}

/// Runs a command that must succeed; its standard output.
pub fn must(program: &str, arguments: &[&str]) -> String {
    let out = run(program, arguments).unwrap_or_else(|| panic!("{program} is not installed"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    text
}

/// A network namespace behind a link to this one.
pub struct Namespace {
    name: String,
    link: String,
}

impl Namespace {
    /// `host` are addresses on this side, `inside` on the other, all in one /24. The first
    /// of `host` is the way out.
    pub fn new(tag: &str, host: &[&str], inside: &[&str]) -> Self {
        let id = std::process::id();
        let ns = Self {
            name: format!("lateen-{tag}-{id}"),
            link: format!("l{tag}{id}"),
        };
        let peer = format!("p{tag}{id}");
        must("ip", &["netns", "add", &ns.name]);
        must(
            "ip",
            &[
                "link", "add", &ns.link, "type", "veth", "peer", "name", &peer,
            ],
        );
        must("ip", &["link", "set", &peer, "netns", &ns.name]);
        for a in host {
            must("ip", &["addr", "add", &format!("{a}/24"), "dev", &ns.link]);
        }
        must("ip", &["link", "set", &ns.link, "up"]);
        ns.must("ip", &["link", "set", "lo", "up"]);
        for a in inside {
            ns.must("ip", &["addr", "add", &format!("{a}/24"), "dev", &peer]);
        }
        ns.must("ip", &["link", "set", &peer, "up"]);
        ns.must("ip", &["route", "add", "default", "via", host[0]]);
        ns
    }

    /// The redirection rules of a sidecar with this address.
    pub fn redirect(&self, address: &str) {
        let rule = |text: &str| {
            let mut arguments = vec!["-w", "-t", "nat", "-A"];
            arguments.extend(text.split_whitespace());
            self.must("iptables", &arguments);
        };
        rule("OUTPUT -o lo -s 127.0.0.6/32 -j RETURN");
        rule("OUTPUT -m owner --uid-owner 1337 -j RETURN");
        rule("OUTPUT -d 127.0.0.1/32 -j RETURN");
        rule("OUTPUT -p tcp -j REDIRECT --to-ports 15001");
        rule(&format!(
            "PREROUTING -p tcp -d {address} -j REDIRECT --to-ports 15006"
        ));
    }

    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &self.name, program])
            .args(arguments);
        c
    }

    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.name, program];
        all.extend(arguments);
        must("ip", &all)
    }

    /// An HTTP request from inside: status and body.
    pub async fn get(&self, arguments: &[&str]) -> (u16, String) {
        let mut c = self.command("curl", &CURL);
        c.args(arguments);
        curl(c).await
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The link goes with the namespace, but not at once; both may be gone already.
        run("ip", &["link", "del", &self.link]);
        run("ip", &["netns", "del", &self.name]);
    }
}

const CURL: [&str; 5] = ["-sS", "-m", "10", "-w", "\n%{http_code}"];

async fn curl(mut c: Command) -> (u16, String) {
    let out = tokio::task::spawn_blocking(move || c.output())
        .await
        .expect("joins")
        .expect("curl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
    let status = status.parse().unwrap_or(0);
    if status == 0 {
        return (0, String::from_utf8_lossy(&out.stderr).into_owned());
    }
    (status, body.to_owned())
}

/// An HTTP request from here.
pub async fn get(arguments: &[&str]) -> (u16, String) {
    let mut c = Command::new("curl");
    c.args(CURL).args(arguments);
    curl(c).await
}

/// A process that ends with its owner.
pub struct Process(Child);

impl Process {
    pub fn spawn(mut c: Command) -> Self {
        Self(c.stdin(Stdio::null()).spawn().expect("starts"))
    }
}

impl Process {
    /// Asks the process to end and waits for it: logs are flushed.
    pub fn stop(mut self) {
        must("kill", &["-TERM", &self.0.id().to_string()]);
        self.0.wait().expect("ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a proxy is started.
pub struct Proxy<'a> {
    pub node: &'a str,
    pub control_plane: SocketAddr,
    pub admin_port: u16,
    pub delta: bool,
}

impl Proxy<'_> {
    /// Starts a proxy that takes Envoy's arguments, in a namespace as the sidecar's user.
    pub fn start(&self, program: &[String], ns: &Namespace) -> Process {
        let config = self.bootstrap().to_string();
        let log = std::env::var("LATEEN_ENVOY_LOG").unwrap_or_else(|_| "error".into());
        let mut arguments = vec!["--reuid", "1337", "--clear-groups"];
        arguments.extend(program.iter().map(String::as_str));
        arguments.extend(["--config-yaml", &config, "--disable-hot-restart"]);
        arguments.extend(["--concurrency", "1", "-l", &log]);
        Process::spawn(ns.command("setpriv", &arguments))
    }

    fn bootstrap(&self) -> serde_json::Value {
        let kind = if self.delta { "DELTA_GRPC" } else { "GRPC" };
        let ads = serde_json::json!({"ads": {}, "resource_api_version": "V3"});
        let socket = |address: String, port: u16| serde_json::json!({"socket_address": {"address": address, "port_value": port}});
        let (ip, port) = (
            self.control_plane.ip().to_string(),
            self.control_plane.port(),
        );
        serde_json::json!({
            "node": {"id": self.node, "cluster": "test"},
            "admin": {"address": socket("127.0.0.1".into(), self.admin_port)},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": kind,
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
                "cds_config": ads, "lds_config": ads,
            },
            "static_resources": {"clusters": [{
                "name": "xds-grpc",
                "type": "STATIC",
                "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": socket(ip, port)}},
                ]}]},
            }]},
        })
    }
}

/// Waits until a proxy's admin says that it is live.
pub async fn wait_live(ns: &Namespace, admin_port: u16) {
    let url = format!("http://127.0.0.1:{admin_port}/ready");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, body) = ns.get(&[&url]).await;
        if status == 200 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the proxy is not live: {status} {body}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Answers every HTTP request with a name and the path.
pub async fn backend(address: &str, name: &'static str) {
    let listener = TcpListener::bind(address).await.expect("a free address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut buffer = [0u8; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    seen.extend_from_slice(&buffer[..n]);
                    while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                        let head = String::from_utf8_lossy(&seen[..end]).into_owned();
                        seen.drain(..end + 4);
                        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
                        let body = format!("{name} {path}");
                        let length = body.len();
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nx-backend: {name}\r\n\r\n{body}"
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

/// Speaks first, as a database would: greets, then repeats what it reads.
pub async fn greeter(address: &str) {
    let listener = TcpListener::bind(address).await.expect("a free address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                if writer.write_all(b"hello\n").await.is_ok() {
                    // The peer closing is the usual end.
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                }
            });
        }
    });
}

/// The first line that a server sends by itself.
pub async fn tcp_line(address: &str) -> Option<String> {
    let read = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let mut buffer = [0u8; 64];
        let n = stream.read(&mut buffer).await.ok()?;
        String::from_utf8_lossy(&buffer[..n])
            .lines()
            .next()
            .map(str::to_owned)
    };
    tokio::time::timeout(Duration::from_secs(2), read)
        .await
        .ok()
        .flatten()
}
