//! The bootstrap of an Istio sidecar or gateway, built from what injection put into its
//! environment: node id and metadata, the management server, the two static listeners.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What kind of proxy this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Beside an application.
    Sidecar,
    /// Gateway.
    Router,
}

/// What a bootstrap is built from.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Sidecar or gateway.
    pub role: Role,
    /// Environment of the process.
    pub environment: &'a BTreeMap<String, String>,
    /// Content of the downward API file `labels`, empty if there is none.
    pub labels: &'a str,
    /// Content of the downward API file `annotations`, empty if there is none.
    pub annotations: &'a str,
    /// `--domain`; empty = `<namespace>.svc.cluster.local`.
    pub domain: &'a str,
    /// Version told in the metadata.
    pub version: &'a str,
    /// State of the world instead of delta.
    pub state_of_the_world: bool,
}

/// A built bootstrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The bootstrap as JSON, for [`crate::bootstrap::load`].
    pub bootstrap: Value,
    /// Bearer token of the ADS stream; none on the plain port.
    pub token_file: Option<String>,
    /// Node id.
    pub node_id: String,
    /// Worker threads, where told.
    pub concurrency: Option<u32>,
    /// Seconds to drain on termination.
    pub termination_drain_seconds: u64,
    /// The mesh's proxy settings, as injected.
    pub proxy_config: Value,
}

impl Sidecar {
    /// Loads the built bootstrap like any other.
    ///
    /// # Errors
    /// As [`crate::bootstrap::load`]; the mesh's root certificate is read later, with the clusters.
    pub fn load(&self) -> Result<crate::bootstrap::Loaded, crate::bootstrap::BootstrapError> {
        // Not as text: YAML lacks characters and long keys that an annotation may have.
        let value = self.bootstrap.clone();
        let overrides = crate::bootstrap::Overrides::default();
        crate::bootstrap::load_values(vec![("sidecar bootstrap", value)], &overrides)
    }
}

/// Where injection mounts the mesh's root certificate.
pub const ROOT_CERT: &str = "/var/run/secrets/istio/root-cert.pem";
/// Where injection mounts the token for the management server.
pub const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
const DEFAULT_DISCOVERY: &str = "istiod.istio-system.svc:15012";

/// Why there is no bootstrap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// A variable that injection always sets is absent.
    #[error("environment variable {0} is not set; the pod must be injected, or set it by hand")]
    Missing(&'static str),
    /// A variable is not understood.
    #[error("environment variable {name}: {problem}")]
    Invalid {
        /// Variable.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Builds the bootstrap.
///
/// # Errors
/// When a needed variable is absent or not understood.
pub fn build(input: &Input<'_>) -> Result<Sidecar, SidecarError> {
    let env = |name: &str| {
        input
            .environment
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    };
    let proxy_config = proxy_config(env("PROXY_CONFIG"))?;
    let ip = env("INSTANCE_IP").ok_or(SidecarError::Missing("INSTANCE_IP"))?;
    let pod = env("POD_NAME").ok_or(SidecarError::Missing("POD_NAME"))?;
    let namespace = env("POD_NAMESPACE").ok_or(SidecarError::Missing("POD_NAMESPACE"))?;
    let domain = match input.domain {
        "" => format!("{namespace}.svc.cluster.local"),
        domain => domain.to_owned(),
    };
    let role = match input.role {
        Role::Sidecar => "sidecar",
        Role::Router => "router",
    };
    let node_id = format!("{role}~{ip}~{pod}.{namespace}~{domain}");
    let labels = downward(input.labels);
    let text = |key: &str| {
        proxy_config
            .get(key)
            .and_then(Value::as_str)
            .filter(|v| !v.is_empty())
    };
    let cluster = text("serviceCluster")
        .map_or_else(|| service_cluster(&labels, namespace), ToOwned::to_owned);
    let discovery = env("PILOT_ADDRESS")
        .or_else(|| text("discoveryAddress"))
        .unwrap_or(DEFAULT_DISCOVERY);
    let (host, port) = host_port(discovery)?;
    let tls = port != 15010;
    let metadata = metadata(input, &labels, &proxy_config, namespace, pod, ip);

    let admin = env("PROXY_ADMIN_PORT").unwrap_or("15000");
    let admin: u16 = number("PROXY_ADMIN_PORT", admin)?;
    let bootstrap = json!({
        "node": { "id": node_id, "cluster": cluster, "metadata": metadata },
        "admin": { "address": socket("127.0.0.1", admin) },
        "dynamic_resources": {
            "lds_config": ads_source(),
            "cds_config": ads_source(),
            "ads_config": {
                "api_type": if input.state_of_the_world { "GRPC" } else { "DELTA_GRPC" },
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
        "static_resources": {
            "clusters": [
                local_cluster("prometheus_stats", admin),
                local_cluster("agent", 15020),
                xds_cluster(&host, port, tls, env("PILOT_ROOT_CERT").unwrap_or(ROOT_CERT)),
            ],
            "listeners": [
                local_listener(15090, "/stats/prometheus", "prometheus_stats"),
                local_listener(15021, "/healthz/ready", "agent"),
            ],
        },
    });
    let concurrency = proxy_config
        .get("concurrency")
        .and_then(Value::as_u64)
        .and_then(|n| u32::try_from(n).ok());
    Ok(Sidecar {
        bootstrap,
        token_file: tls.then(|| env("PILOT_TOKEN_FILE").unwrap_or(TOKEN).to_owned()),
        node_id,
        concurrency: concurrency.filter(|n| *n > 0),
        termination_drain_seconds: text("terminationDrainDuration")
            .and_then(seconds)
            .unwrap_or(5),
        proxy_config,
    })
}

fn proxy_config(text: Option<&str>) -> Result<Value, SidecarError> {
    let Some(text) = text else {
        return Ok(json!({}));
    };
    let invalid = |problem: String| SidecarError::Invalid {
        name: "PROXY_CONFIG".into(),
        problem,
    };
    let value = crate::text::value(text).map_err(invalid)?;
    match value {
        Value::Null => Ok(json!({})),
        Value::Object(_) => Ok(value),
        _ => Err(invalid("a map is expected".into())),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, SidecarError> {
    text.parse().map_err(|_| SidecarError::Invalid {
        name: name.to_owned(),
        problem: format!("`{text}` is no port"),
    })
}

fn host_port(address: &str) -> Result<(String, u16), SidecarError> {
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| SidecarError::Invalid {
            name: "PROXY_CONFIG".into(),
            problem: format!("discoveryAddress `{address}` needs a port"),
        })?;
    Ok((host.to_owned(), number("PROXY_CONFIG", port)?))
}

/// Whole seconds of a Go or protobuf duration such as `5s`, `1m30s`, `500ms`.
fn seconds(text: &str) -> Option<u64> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let n: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |i| i + digits);
        total += n * match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        rest = &rest[unit_end..];
    }
    Some(total.ceil() as u64)
}

/// Lines `key="value"` of a downward API file; values are quoted as Go quotes.
fn downward(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value: String =
                serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
            Some((key.to_owned(), value))
        })
        .collect()
}

fn service_cluster(labels: &BTreeMap<String, String>, namespace: &str) -> String {
    [
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ]
    .iter()
    .find_map(|key| labels.get(*key))
    .map_or_else(
        || "istio-proxy".to_owned(),
        |name| format!("{name}.{namespace}"),
    )
}

fn metadata(
    input: &Input<'_>,
    labels: &BTreeMap<String, String>,
    proxy_config: &Value,
    namespace: &str,
    pod: &str,
    ip: &str,
) -> Value {
    let mut out = Map::new();
    for (name, value) in input.environment {
        if let Some(key) = name.strip_prefix("ISTIO_META_") {
            out.insert(key.to_owned(), json!(value));
        } else if name.starts_with("ISTIO_METAJSON_") {
            // Maps given as JSON are joined into the top level.
            if let Ok(Value::Object(map)) = serde_json::from_str(value) {
                out.extend(map);
            }
        }
    }
    let env = |name: &str| input.environment.get(name).filter(|v| !v.is_empty());
    for (key, name) in [
        ("SERVICE_ACCOUNT", "SERVICE_ACCOUNT"),
        ("NODE_NAME", "ISTIO_META_NODE_NAME"),
    ] {
        if let Some(value) = env(name) {
            out.insert(key.to_owned(), json!(value));
        }
    }
    let ips = env("INSTANCE_IPS").map_or(ip, String::as_str);
    out.insert("NAME".into(), json!(pod));
    out.insert("NAMESPACE".into(), json!(namespace));
    out.insert("INSTANCE_IPS".into(), json!(ips));
    out.insert("ISTIO_VERSION".into(), json!(input.version));
    out.insert("PROXY_CONFIG".into(), proxy_config.clone());
    out.insert("LABELS".into(), json!(labels));
    let annotations = downward(input.annotations);
    if !annotations.is_empty() {
        out.insert("ANNOTATIONS".into(), json!(annotations));
    }
    for (key, default) in [
        ("CLUSTER_ID", "Kubernetes"),
        ("INTERCEPTION_MODE", "REDIRECT"),
        ("MESH_ID", "cluster.local"),
    ] {
        out.entry(key).or_insert_with(|| json!(default));
    }
    Value::Object(out)
}

fn socket(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}

fn ads_source() -> Value {
    json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" })
}

fn endpoints(cluster: &str, address: &str, port: u16) -> Value {
    json!({
        "cluster_name": cluster,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(address, port) } }] }],
    })
}

fn local_cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "load_assignment": endpoints(name, "127.0.0.1", port),
    })
}

fn xds_cluster(host: &str, port: u16, tls: bool, root: &str) -> Value {
    let mut cluster = json!({
        "name": "xds-grpc",
        "type": if host.parse::<std::net::IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" },
        "connect_timeout": "10s",
        "load_assignment": endpoints("xds-grpc", host, port),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
    });
    if tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "validation_context": {
                        "trusted_ca": { "filename": root },
                        "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": host } }],
                    },
                },
            },
        });
    }
    cluster
}

fn local_listener(port: u16, path: &str, cluster: &str) -> Value {
    json!({
        "name": format!("0.0.0.0_{port}"),
        "address": socket("0.0.0.0", port),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "codec_type": "AUTO",
                "stat_prefix": cluster,
                "route_config": { "virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": path }, "route": { "cluster": cluster } }],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        }]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(extra: &[(&str, &str)]) -> BTreeMap<String, String> {
        let base = [
            ("INSTANCE_IP", "10.244.0.7"),
            ("POD_NAME", "productpage-v1-abc"),
            ("POD_NAMESPACE", "default"),
            ("SERVICE_ACCOUNT", "bookinfo-productpage"),
            ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
            ("ISTIO_META_WORKLOAD_NAME", "productpage-v1"),
            ("ISTIO_METAJSON_X", "{\"APP_CONTAINERS\":\"productpage\"}"),
            (
                "PROXY_CONFIG",
                "{\"concurrency\":2,\"terminationDrainDuration\":\"7s\"}",
            ),
        ];
        base.iter()
            .chain(extra)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn input(environment: &BTreeMap<String, String>) -> Input<'_> {
        Input {
            role: Role::Sidecar,
            environment,
            labels: "app=\"productpage\"\nversion=\"v1\"\nquoted=\"a\\\"b\"\n",
            annotations: "",
            domain: "",
            version: "0.1.0",
            state_of_the_world: false,
        }
    }

    #[test]
    fn characters_that_yaml_lacks_are_told_all_the_same() {
        let env = environment(&[]);
        let annotations = format!(
            "{}=\"x\u{7f}\u{85}\u{2028}\u{feff}\u{e9}y\"\n",
            "a".repeat(2000)
        );
        let built = build(&Input {
            annotations: &annotations,
            ..input(&env)
        })
        .unwrap();
        let loaded = built.load().unwrap();
        let told = format!("{:?}", loaded.bootstrap.node.metadata);
        assert!(told.contains("\u{e9}y"), "{told}");
    }

    #[test]
    fn built_bootstrap_loads() {
        let env = environment(&[]);
        let built = build(&input(&env)).unwrap();
        assert_eq!(
            built.node_id,
            "sidecar~10.244.0.7~productpage-v1-abc.default~default.svc.cluster.local"
        );
        assert_eq!(built.token_file.as_deref(), Some(TOKEN));
        assert_eq!(
            (built.concurrency, built.termination_drain_seconds),
            (Some(2), 7)
        );
        let loaded = built.load().unwrap();
        assert_eq!(&*loaded.bootstrap.node.cluster, "productpage.default");
        let md = &loaded.bootstrap.node.metadata;
        let get = |key: &str| {
            md.get(key)
                .and_then(lateen_proxy_core::config::Value::as_str)
                .map(ToOwned::to_owned)
        };
        assert_eq!(get("WORKLOAD_NAME").as_deref(), Some("productpage-v1"));
        assert_eq!(get("APP_CONTAINERS").as_deref(), Some("productpage"));
        assert_eq!(
            get("SERVICE_ACCOUNT").as_deref(),
            Some("bookinfo-productpage")
        );
        let labels = md.get("LABELS").unwrap();
        assert_eq!(
            labels.path(["quoted"]).and_then(|v| v.as_str()),
            Some("a\"b")
        );
        assert_eq!(loaded.fixed.listeners.len(), 2);
        assert_eq!(loaded.fixed.clusters.len(), 3);
        let cds = loaded.bootstrap.cds.as_ref();
        let timeout = cds.and_then(|cds| cds.over_ads());
        assert_eq!(timeout, Some(std::time::Duration::ZERO));
    }

    #[test]
    fn plain_port_has_no_token() {
        let env = environment(&[("PILOT_ADDRESS", "127.0.0.1:15010")]);
        let built = build(&input(&env)).unwrap();
        assert_eq!(built.token_file, None);
        let xds = &built.bootstrap["static_resources"]["clusters"][2];
        assert_eq!(xds["type"], "STATIC");
        assert!(xds.get("transport_socket").is_none());
    }

    #[test]
    fn errors_name_the_variable() {
        let mut env = environment(&[]);
        env.remove("POD_NAME");
        assert_eq!(build(&input(&env)), Err(SidecarError::Missing("POD_NAME")));
        let env = environment(&[("PROXY_CONFIG", "[1]")]);
        assert!(
            build(&input(&env))
                .unwrap_err()
                .to_string()
                .contains("PROXY_CONFIG")
        );
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("1m30s"), Some(90));
        assert_eq!(seconds("500ms"), Some(1));
        assert_eq!(seconds("5"), None);
    }
}
