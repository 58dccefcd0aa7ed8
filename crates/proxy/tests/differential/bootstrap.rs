//! From a case's configuration to listeners and clusters of a bootstrap.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::case::Config;
use super::expand::Instance;

/// Says in a log line whose it is.
const CASE: &str = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";
/// Operators of every log line.
const LOG: &str = "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %PROTOCOL% %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% rx=%BYTES_RECEIVED% tx=%BYTES_SENT% \
    to=%UPSTREAM_HOST% cluster=%UPSTREAM_CLUSTER_RAW% route=%ROUTE_NAME% \
    tries=%UPSTREAM_REQUEST_ATTEMPT_COUNT% why=%UPSTREAM_TRANSPORT_FAILURE_REASON% \
    end=%CONNECTION_TERMINATION_DETAILS% grpc=%GRPC_STATUS% \
    from=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%";
const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const FILE: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
/// Every listener has its own address and this port.
const PORT: u16 = 18080;
const UPSTREAM_PORT: u16 = 18100;

/// The loopback networks of one run: 127.N.a.b, one address for each listener,
/// and for each case's client.
#[derive(Clone, Copy)]
pub struct Networks {
    /// Envoy's listeners.
    pub envoy: u8,
    /// Our listeners.
    pub ours: u8,
    /// Upstreams, the same for both.
    pub upstream: u8,
    /// Clients, the same for both.
    pub client: u8,
}

impl Networks {
    /// Networks nobody uses: runs may go side by side. All numbers have three
    /// digits, so that texts with addresses are equally long on both sides.
    pub fn choose() -> Self {
        let start = u8::try_from(std::process::id() % 37).unwrap();
        let nets = (0..37).map(|n| 100 + (start + n) % 37 * 4);
        let free = |net: &u8| TcpListener::bind((Ipv4Addr::new(127, *net, 255, 1), PORT)).ok();
        for net in nets {
            if let Some(held) = free(&net) {
                // Held to the end of the process: this network is taken.
                std::mem::forget(held);
                return Self {
                    envoy: net,
                    ours: net + 1,
                    upstream: net + 2,
                    client: net + 3,
                };
            }
        }
        panic!("no free loopback network");
    }
}

/// The address of a client.
pub fn client(network: u8, index: usize) -> SocketAddr {
    address_at(network, index, 0)
}

/// The address of a listener.
pub fn address(network: u8, index: usize) -> SocketAddr {
    address_at(network, index, PORT)
}

fn address_at(network: u8, index: usize, port: u16) -> SocketAddr {
    let high = u8::try_from(index / 250).unwrap();
    let low = u8::try_from(index % 250 + 1).unwrap();
    SocketAddr::from((Ipv4Addr::new(127, network, high, low), port))
}

/// The address of the admin pages.
pub fn admin(network: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, network, 255, 2), PORT))
}

/// The address of a cluster's upstream.
pub fn upstream(network: u8, index: usize, place: usize) -> SocketAddr {
    let place = u16::try_from(place).unwrap();
    address_at(network, index, UPSTREAM_PORT + place)
}

/// The listener that a case runs on.
pub fn listener(case: &Instance, network: u8, log: &Path) -> Value {
    let config = &case.config;
    let hosts = config.hosts.clone().unwrap_or_else(|| {
        let everything = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "up" } }]);
        let routes = config.routes.clone().unwrap_or(everything);
        let mut host = json!({ "name": "all", "domains": ["*"], "routes": routes });
        merge(&mut host, &config.host);
        json!([host])
    });
    let mut table = json!({ "name": "table", "virtual_hosts": hosts, "validate_clusters": false });
    merge(&mut table, &config.table);
    let mut router = json!({ "@type": ROUTER });
    merge(&mut router, &config.router);
    let mut filters = config.filters.clone();
    filters.push(json!({ "name": "envoy.filters.http.router", "typed_config": router }));
    let mut manager = json!({
        "@type": MANAGER, "stat_prefix": "t", "delayed_close_timeout": "0.05s",
        "route_config": table, "http_filters": filters,
        "access_log": [logger(config, log)],
    });
    merge(&mut manager, &config.hcm);
    if let Some(fields) = &config.tcp {
        manager = json!({ "@type": TCP_PROXY, "stat_prefix": "t", "cluster": "up",
            "access_log": [logger(config, log)] });
        merge(&mut manager, fields);
    }
    own_names(&mut manager, case);
    let mut listener = json!({ "name": format!("slot-{:04}", case.slot),
        "address": socket(address(network, case.slot)),
        "filter_chains": [{ "filters": [{ "name": "filter", "typed_config": manager }] }] });
    merge(&mut listener, &config.listener);
    listener
}

fn logger(config: &Config, log: &Path) -> Value {
    let format = match &config.log_format {
        Some(format) => {
            let mut format = format.clone();
            format["json_format"]["0"] = json!(CASE);
            format
        }
        None => {
            let text = format!("{CASE} {LOG} {}\n", config.log);
            json!({ "text_format_source": { "inline_string": text } })
        }
    };
    let mut logger = json!({ "name": "file", "typed_config": { "@type": FILE, "path": log,
        "log_format": format } });
    if let Some(filter) = &config.log_filter {
        logger["filter"] = filter.clone();
    }
    logger
}

/// The clusters behind it.
pub fn clusters(case: &Instance, network: u8, blackhole: SocketAddr) -> Vec<Value> {
    let names = case.clusters();
    let made = names.iter().enumerate().map(|(place, name)| {
        let own = case.cluster(name);
        let given = case.config.clusters.get(name);
        let kind = given.and_then(Value::as_str);
        let (host, time) = match kind {
            Some("refused") => (Some(address_at(network, case.slot, 1)), "2s"),
            Some("blackhole") => (Some(blackhole), "0.2s"),
            Some("empty") => (None, "2s"),
            Some(word) => panic!("{}: cluster {word}", case.name),
            None => (Some(upstream(network, case.slot, place)), "2s"),
        };
        let hosts: Vec<Value> = host
            .map(|host| json!({ "endpoint": { "address": socket(host) } }))
            .into_iter()
            .collect();
        let mut cluster = json!({ "name": own, "connect_timeout": time,
            "load_assignment": { "cluster_name": own, "endpoints": [{ "lb_endpoints": hosts }] } });
        if let Some(Value::Object(fields)) = given {
            merge(&mut cluster, fields);
        }
        full_types(&mut cluster);
        cluster
    });
    made.collect()
}

pub fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn merge(into: &mut Value, fields: &Map<String, Value>) {
    for (key, value) in fields {
        // The endpoints stay where only their policy is given.
        if let ("load_assignment", Value::Object(more)) = (&**key, value) {
            merge(&mut into[key], more);
            continue;
        }
        into[key] = value.clone();
    }
}

/// Cluster names of the case become its own, and short type names whole.
fn own_names(value: &mut Value, case: &Instance) {
    let names = case.clusters();
    rename(value, &|name| {
        let known = names.iter().any(|n| n == name);
        known.then(|| case.cluster(name))
    });
    full_types(value);
}

fn rename(value: &mut Value, own: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|v| rename(v, own)),
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                if key == "weighted_clusters" {
                    for cluster in value["clusters"].as_array_mut().into_iter().flatten() {
                        rename_text(&mut cluster["name"], own);
                    }
                }
                let names = [
                    "cluster",
                    "upstream_cluster",
                    "collector_cluster",
                    "cluster_name",
                ];
                if names.contains(&key.as_str()) {
                    rename_text(value, own);
                }
                rename(value, own);
            }
        }
        _ => {}
    }
}

fn rename_text(value: &mut Value, own: &impl Fn(&str) -> Option<String>) {
    if let Some(name) = value.as_str().and_then(own) {
        *value = json!(name);
    }
}

fn full_types(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(full_types),
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match value {
                    Value::String(name) if key == "@type" && !name.contains('/') => {
                        *name = format!("type.googleapis.com/{name}");
                    }
                    value => full_types(value),
                }
            }
        }
        _ => {}
    }
}
