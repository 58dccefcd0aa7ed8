//! From listeners of the case files to a bootstrap's.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::case::{Chain, Listener};
use crate::support::whole::{filter, router, socket, url};

const CASE: &str = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";
/// Operators of every connection's line.
const LOG: &str = "flags=%RESPONSE_FLAGS% details=%RESPONSE_CODE_DETAILS% \
    chain=%FILTER_CHAIN_NAME% sni=%REQUESTED_SERVER_NAME% \
    why=%DOWNSTREAM_TRANSPORT_FAILURE_REASON% end=%CONNECTION_TERMINATION_DETAILS% \
    subject=%DOWNSTREAM_PEER_SUBJECT% uri=%DOWNSTREAM_PEER_URI_SAN% \
    from=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% to=%DOWNSTREAM_LOCAL_ADDRESS%";
/// Operators of every request's line.
const REQUEST: &str = "request %RESPONSE_CODE% flags=%RESPONSE_FLAGS% \
    details=%RESPONSE_CODE_DETAILS% upstream_why=%UPSTREAM_TRANSPORT_FAILURE_REASON%";
const FILE: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const DIRECT: &str = "envoy.extensions.filters.network.direct_response.v3.Config";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// One listener for Envoy or for us.
pub fn listener(name: &str, config: &Listener, address: SocketAddr, log: &Path) -> Value {
    let line = format!("{CASE} {LOG} {}\n", config.log);
    let request = format!("{CASE} {REQUEST} {}\n", config.log);
    let chains: Value = config
        .chains
        .iter()
        .map(|c| chain(name, c, log, &request))
        .collect();
    let mut made = json!({
        "name": name, "address": socket(address), "filter_chains": chains,
        "listener_filters": config.filters.iter().map(listener_filter).collect::<Value>(),
        "access_log": [file(log, &line)],
    });
    if let Some(default) = &config.default {
        made["default_filter_chain"] = chain(name, default, log, &request);
    }
    merge(&mut made, &config.fields);
    made
}

fn file(log: &Path, line: &str) -> Value {
    let format = json!({ "text_format_source": { "inline_string": line } });
    filter("file", FILE, json!({ "path": log, "log_format": format }))
}

fn listener_filter(given: &Value) -> Value {
    let (word, fields) = match given {
        Value::String(word) => (word.clone(), json!({})),
        Value::Object(map) => {
            let (word, fields) = map.iter().next().unwrap();
            (word.clone(), fields.clone())
        }
        other => panic!("listener filter {other}"),
    };
    let (name, message) = match word.as_str() {
        "tls" => ("tls_inspector", "tls_inspector.v3.TlsInspector"),
        "http" => ("http_inspector", "http_inspector.v3.HttpInspector"),
        "proxy" => ("proxy_protocol", "proxy_protocol.v3.ProxyProtocol"),
        other => panic!("listener filter {other}"),
    };
    let name = format!("envoy.filters.listener.{name}");
    let message = format!("envoy.extensions.filters.listener.{message}");
    filter(&name, &message, fields)
}

fn chain(listener: &str, given: &Chain, log: &Path, request: &str) -> Value {
    // An answer of the proxy's own would end the connection in its handshake.
    let greeter = given.tls.is_some().then(|| "greeter".to_owned());
    let served = match (&given.http, given.tcp.as_ref().or(greeter.as_ref())) {
        (Some(fields), _) => manager(listener, fields, log, request),
        (None, Some(cluster)) => {
            let cluster = own(listener, cluster);
            let log = file(log, request);
            let fields = json!({ "stat_prefix": "t", "cluster": cluster, "access_log": [log] });
            filter("tcp", TCP, fields)
        }
        (None, None) => {
            let says = json!({ "inline_string": given.name });
            filter("direct", DIRECT, json!({ "response": says }))
        }
    };
    let mut made = json!({ "name": given.name, "filters": [served] });
    if !given.matching.is_empty() {
        made["filter_chain_match"] = Value::Object(given.matching.clone());
    }
    if let Some(tls) = &given.tls {
        made["transport_socket"] = filter("envoy.transport_sockets.tls", TLS, tls.clone());
    }
    merge(&mut made, &given.fields);
    made
}

fn manager(listener: &str, fields: &Map<String, Value>, log: &Path, request: &str) -> Value {
    let mut fields = fields.clone();
    let cluster = fields.remove("cluster");
    let cluster = cluster.as_ref().and_then(Value::as_str).unwrap_or("echo");
    let routes =
        json!([{ "match": { "prefix": "/" }, "route": { "cluster": own(listener, cluster) } }]);
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
    let mut made = json!({
        "stat_prefix": "t", "generate_request_id": false, "http_filters": [router()],
        "route_config": { "name": "r", "virtual_hosts": hosts, "validate_clusters": false },
        "access_log": [file(log, request)],
    });
    merge(&mut made, &fields);
    filter("http", MANAGER, made)
}

/// A cluster's name beside those of other listeners.
fn own(listener: &str, cluster: &str) -> String {
    match cluster {
        "echo" | "greeter" => cluster.to_owned(),
        _ => format!("{listener}.{cluster}"),
    }
}

/// The clusters of a listener; `server` finds the address of one.
pub fn clusters(name: &str, config: &Listener, server: &impl Fn(&str) -> SocketAddr) -> Vec<Value> {
    let made = config.clusters.iter().map(|(cluster, fields)| {
        let mut fields = fields.clone();
        let behind = fields.remove("server");
        let behind = behind.as_ref().and_then(Value::as_str).unwrap();
        let endpoint = fields.remove("endpoint").unwrap_or_else(|| json!({}));
        let mut host = json!({ "endpoint": { "address": socket(server(behind)) } });
        for (key, value) in endpoint.as_object().unwrap() {
            match key.as_str() {
                "hostname" => host["endpoint"]["hostname"] = value.clone(),
                _ => host[key] = value.clone(),
            }
        }
        let own = own(name, cluster);
        let mut made = json!({ "name": own, "connect_timeout": "2s",
            "load_assignment": { "cluster_name": own,
                "endpoints": [{ "lb_endpoints": [host] }] } });
        if let Some(tls) = fields.remove("tls") {
            made["transport_socket"] = upstream_tls(&tls);
        }
        if let Some(Value::Array(all)) = fields.remove("matches") {
            let one = |m: &Value| {
                let mut made = m.clone();
                let tls = made.as_object_mut().unwrap().remove("tls");
                made["transport_socket"] = match tls {
                    Some(tls) => upstream_tls(&tls),
                    None => {
                        let raw = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
                        filter("envoy.transport_sockets.raw_buffer", raw, json!({}))
                    }
                };
                made
            };
            made["transport_socket_matches"] = all.iter().map(one).collect();
        }
        merge(&mut made, &fields);
        made
    });
    made.collect()
}

fn upstream_tls(tls: &Value) -> Value {
    filter("envoy.transport_sockets.tls", UPSTREAM_TLS, tls.clone())
}

fn merge(into: &mut Value, fields: &Map<String, Value>) {
    for (key, value) in fields {
        into[key] = value.clone();
    }
}

/// Short type names become whole.
pub fn full_types(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(full_types),
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::String(text) if key == "@type" && !text.contains('/') => {
                        *text = url(text);
                    }
                    _ => full_types(value),
                }
            }
        }
        _ => {}
    }
}
