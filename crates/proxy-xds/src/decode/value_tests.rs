//! Values that are well formed and wrong: Envoy refuses them when it loads them, and so do we.
use lateen_xds_proto::json;
use serde_json::{Value, json};

use super::*;

fn wire(message: &str, value: &Value) -> Vec<u8> {
    json::to_wire(message, value).unwrap_or_else(|e| panic!("{e}"))
}

fn of_cluster(value: &Value) -> String {
    let bytes = wire("envoy.config.cluster.v3.Cluster", value);
    match cluster(&bytes, &Context::empty(), true) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

fn of_listener(value: &Value, context: &Context) -> String {
    let bytes = wire("envoy.config.listener.v3.Listener", value);
    match listener(&bytes, context) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// A listener whose one chain has these fields beside a TCP proxy.
fn chained(fields: &Value, logs: &Value) -> Value {
    let mut chain = json!({ "filters": [{ "name": "t", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t", "cluster": "c", "access_log": logs } }] });
    for (key, value) in fields.as_object().unwrap() {
        chain[key] = value.clone();
    }
    json!({ "name": "l", "filter_chains": [chain],
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } })
}

fn tls(common: &Value) -> Value {
    json!({ "transport_socket": { "name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": common } } })
}

#[test]
fn numbers_and_names_out_of_range() {
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} } });
    for (fields, want) in [
        (
            json!({ "connect_timeout": "0s" }),
            "connect_timeout: must be greater than 0s",
        ),
        (
            json!({ "common_lb_config": { "healthy_panic_threshold": { "value": 101.0 } } }),
            "healthy_panic_threshold: 101 is no share",
        ),
        (
            json!({ "typed_extension_protocol_options": { "http": options } }),
            "only HttpProtocolOptions",
        ),
        (
            json!({ "connect_timeout": "0.001s", "common_lb_config": { "healthy_panic_threshold": { "value": 100.0 } } }),
            "",
        ),
    ] {
        let mut value = json!({ "name": "c" });
        for (key, field) in fields.as_object().unwrap() {
            value[key] = field.clone();
        }
        let error = of_cluster(&value);
        assert!(
            error.contains(want) && error.is_empty() == want.is_empty(),
            "{fields}: {error}"
        );
    }
    let matching = json!({ "filter_chain_match": { "destination_port": 0 } });
    let error = of_listener(&chained(&matching, &json!([])), &Context::empty());
    assert!(
        error.contains("destination_port: must be 1 to 65535"),
        "{error}"
    );
    let table = json!({ "name": "t", "virtual_hosts": [{ "name": "v", "domains": ["*"],
        "virtual_clusters": [{ "name": "c", "headers": [{ "name": "x", "present_match": true }] }] }] });
    let bytes = wire("envoy.config.route.v3.RouteConfiguration", &table);
    let error = routes(&bytes, &Context::empty()).unwrap_err().to_string();
    assert!(
        error.contains("virtual_hosts[0].virtual_clusters: is not implemented"),
        "{error}"
    );
}

#[test]
fn a_key_must_fit_its_certificate() {
    let one = rcgen::generate_simple_self_signed(vec!["one".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap();
    let inline = |key: String| {
        tls(&json!({ "tls_certificates": [{
            "certificate_chain": { "inline_string": one.cert.pem() },
            "private_key": { "inline_string": key } }] }))
    };
    let good = chained(&inline(one.signing_key.serialize_pem()), &json!([]));
    assert_eq!(of_listener(&good, &Context::empty()), "");
    let bad = chained(&inline(other.signing_key.serialize_pem()), &json!([]));
    let error = of_listener(&bad, &Context::empty());
    assert!(
        error.contains("tls_certificates[0].private_key: "),
        "{error}"
    );
}

#[test]
fn protocols_may_share_an_entry() {
    let one = rcgen::generate_simple_self_signed(vec!["one".to_owned()]).unwrap();
    let with = |names: Value| {
        let common = json!({ "alpn_protocols": names, "tls_certificates": [{
            "certificate_chain": { "inline_string": one.cert.pem() },
            "private_key": { "inline_string": one.signing_key.serialize_pem() } }] });
        let value = chained(&tls(&common), &json!([]));
        let bytes = wire("envoy.config.listener.v3.Listener", &value);
        listener(&bytes, &Context::empty()).map(|decoded| {
            let chain = &decoded.listener.filter_chains[0];
            chain.tls.as_ref().unwrap().common.alpn_protocols.clone()
        })
    };
    let names = with(json!(["h2,http/1.1", "x"])).unwrap();
    assert_eq!(names, ["h2", "http/1.1", "x"].map(Name::from));
    assert!(with(json!(["h2,"])).is_err());
}

#[test]
fn a_log_must_be_writable_when_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let logs = |path: &std::path::Path| {
        json!([{ "name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path } }])
    };
    let good = chained(&json!({}), &logs(&dir.path().join("log")));
    assert_eq!(of_listener(&good, &Context::files()), "");
    // Trying a configuration out leaves nothing behind.
    let trying = Context {
        open_log: Box::new(try_log),
        ..Context::files()
    };
    let other = dir.path().join("other");
    assert_eq!(
        of_listener(&chained(&json!({}), &logs(&other)), &trying),
        ""
    );
    assert!(!other.exists() && dir.path().join("log").exists());
    let bad = chained(&json!({}), &logs(&dir.path().join("none/log")));
    assert!(of_listener(&bad, &trying).contains("cannot be opened"));
    let error = of_listener(&bad, &Context::files());
    assert!(
        error.contains("access_log[0].typed_config.path: ") && error.contains("cannot be opened"),
        "{error}"
    );
}
