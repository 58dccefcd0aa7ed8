//! No field of a configuration is passed over in silence: each field of each message in the
//! examples (`silent/examples.yaml`, and what they can hold) is set by reflection over the schema
//! table, and must then change what is decoded, or be refused with its name, or stand in
//! `silent/ignored.yaml` with its reason. Each value of an enum is tried for itself.

#[path = "silent/probe.rs"]
mod probe;
/// The schema table's reader of `xds-proto`, over the same bytes.
#[expect(dead_code, reason = "the reader has more than is asked here")]
#[path = "../../xds-proto/src/json/table.rs"]
mod table;

use std::collections::BTreeMap;

use probe::Prober;
use serde::Deserialize;
use serde_json::{Value, json};

/// What to start from: small ones, as each is decoded for each of its fields.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Example {
    /// A whole listener.
    Listener(Value),
    /// A whole route table.
    Routes(Value),
    /// A secret.
    Secret(Value),
    /// The options of an HTTP filter.
    HttpFilter(Value),
    /// The options of a connection manager.
    Manager(Value),
    /// The options of network filters.
    NetworkFilters(Vec<Value>),
    /// One route.
    Route(Value),
}

const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

fn filter(options: Value) -> Value {
    json!({ "name": "f", "typed_config": options })
}

fn listener(filters: Vec<Value>) -> Value {
    let filters: Vec<_> = filters.into_iter().map(filter).collect();
    json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": filters }] })
}

fn manager(mut options: Value, filters: Vec<Value>) -> Value {
    options["@type"] = json!(format!("type.googleapis.com/{HCM}"));
    options["stat_prefix"] = json!("h");
    if options.get("rds").is_none() {
        options["route_config"] = json!({ "virtual_hosts": [] });
    }
    let router = json!({ "@type": ROUTER });
    let filters = filters.into_iter().chain([router]).map(filter);
    options["http_filters"] = filters.collect();
    listener(vec![options])
}

impl Example {
    /// The message's name and the resource.
    fn whole(self) -> (&'static str, Value) {
        const LISTENER: &str = "envoy.config.listener.v3.Listener";
        const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
        match self {
            Self::Listener(value) => (LISTENER, value),
            Self::Routes(value) => (ROUTES, value),
            Self::Secret(value) => ("envoy.extensions.transport_sockets.tls.v3.Secret", value),
            Self::HttpFilter(options) => (LISTENER, manager(json!({}), vec![options])),
            Self::Manager(options) => (LISTENER, manager(options, Vec::new())),
            Self::NetworkFilters(filters) => (LISTENER, listener(filters)),
            Self::Route(route) => {
                let host = json!({ "name": "v", "domains": ["*"], "routes": [route] });
                (ROUTES, json!({ "virtual_hosts": [host] }))
            }
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}"))
}

/// What may stand for a field without effect: the field within the one that holds its message, the
/// field wherever it is, and `*` for all values of its enum.
fn names(owner: &str, field: &str) -> Vec<String> {
    let any = field.split_once('=').map(|(field, _)| format!("{field}=*"));
    let here = format!("{owner} > {field}");
    [here, field.to_owned()].into_iter().chain(any).collect()
}

#[test]
fn no_field_is_passed_over_in_silence() {
    let own = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let text = [
        (r#""${chain}""#, own.cert.pem()),
        (r#""${key}""#, own.signing_key.serialize_pem()),
    ]
    .iter()
    .fold(
        include_str!("silent/examples.yaml").to_owned(),
        |text, (mark, pem)| text.replace(mark, &json!(pem).to_string()),
    );
    let examples: Vec<Example> = read(&text);
    let ignored: BTreeMap<String, String> = read(include_str!("silent/ignored.yaml"));
    let mut prober = Prober::default();
    for example in examples {
        let (message, resource) = example.whole();
        prober.example(message, resource);
    }
    let found = prober.finish();
    let mut problems = found.problems;
    let keys = found
        .silent
        .iter()
        .map(|(owner, field)| names(owner, field));
    let keys: Vec<Vec<String>> = keys.collect();
    let silent = keys
        .iter()
        .filter(|n| !n.iter().any(|n| ignored.contains_key(n)));
    problems.extend(silent.map(|n| format!("{}: is passed over in silence", n[0])));
    let idle = ignored
        .keys()
        .filter(|s| !keys.iter().flatten().any(|n| n == *s));
    problems.extend(idle.map(|s| format!("{s}: stands in ignored.yaml and is not ignored")));
    let empty = ignored.iter().filter(|(_, reason)| reason.len() < 10);
    problems.extend(empty.map(|(s, _)| format!("{s}: needs a reason")));
    assert!(found.probes > 1_500, "only {} probes", found.probes);
    assert!(
        problems.is_empty(),
        "{} of {} probes:\n{}",
        problems.len(),
        found.probes,
        problems.join("\n")
    );
}
