//! Runtime values of a bootstrap's static layers, put into resources before they are decoded: no
//! layer changes while the proxy runs, so that what a key says is known then, and the data path
//! knows no runtime. Keys and their meaning: Envoy's "Runtime" pages and the fields that name one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use lateen_proxy_core::config::{Fields, Name, Value};
use lateen_xds_proto::json;
use serde_json::{Map, Number, Value as Json, json};

use crate::error::{DecodeError, Result};

/// Keys of Envoy's own code paths: nothing here reads them, and a bootstrap that names them is none
/// the worse.
const FEATURES: [&str; 5] = [
    "envoy.reloadable_features.",
    "envoy.restart_features.",
    "envoy.deprecated_features",
    "envoy.features.",
    "re2.max_program_size.",
];
/// Beginnings of keys that Envoy itself asks for, by no field's order, and that are not done here.
const NOT_DONE: [&str; 11] = [
    "upstream.maintenance_mode",
    "upstream.use_http2",
    "upstream.zone_routing.",
    "upstream.weight_enabled",
    "health_check.min_interval",
    "health_check.max_interval",
    "health_check.verify_cluster",
    "tracing.global_enabled",
    "tracing.client_enabled",
    "tracing.random_sampling",
    "envoy.resource_limits.",
];
/// The key of the limit on all downstream connections.
const MAX_CONNECTIONS: &str = "overload.global_downstream_max_connections";
/// What stands before and behind a listener's name in the key of the limit on its connections.
const LISTENER: (&str, &str) = ("envoy.resource_limits.listener.", ".connection_limit");
const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

/// What the layers say, by key, features left out.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    values: BTreeMap<Name, Value>,
}

/// Why a key cannot be taken.
///
/// # Errors
/// A key of Envoy's that is not done here.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if limited_listener(key).is_some() {
        return Ok(());
    }
    match NOT_DONE.iter().find(|begin| key.starts_with(*begin)) {
        Some(_) => Err(DecodeError::new(format!(
            "runtime key {key} is not implemented"
        ))),
        None => Ok(()),
    }
}

impl Runtime {
    /// Of flattened layers.
    #[must_use]
    pub fn new(layers: &Fields) -> Self {
        let feature = |key: &Name| FEATURES.iter().any(|begin| key.starts_with(begin));
        let values = layers.iter().filter(|(key, _)| !feature(key));
        Self {
            values: values
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    /// The limit on all downstream connections.
    #[must_use]
    pub fn max_downstream_connections(&self) -> Option<u32> {
        self.limit(MAX_CONNECTIONS)
    }

    /// The listeners with a limit on their connections, and it.
    pub fn listener_connections(&self) -> impl Iterator<Item = (Name, u32)> {
        let of_listener = |key: &Name| Some((limited_listener(key)?.into(), self.limit(key)?));
        self.values.keys().filter_map(of_listener)
    }

    /// A count; out of range is no limit.
    fn limit(&self, key: &str) -> Option<u32> {
        let most = self.number(key)?.as_u64();
        Some(most.map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX)))
    }

    /// A message's wire bytes with the values in their fields.
    ///
    /// # Errors
    /// When the message cannot be read by its description.
    pub(crate) fn apply<'a>(&self, name: &str, wire: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        if self.values.is_empty() {
            return Ok(Cow::Borrowed(wire));
        }
        let unreadable = |e: json::JsonError| DecodeError::new(format!("runtime values: {e}"));
        let mut message = json::from_wire(name, wire).map_err(unreadable)?;
        let before = message.clone();
        self.visit(&mut message);
        if name == CLUSTER {
            self.cluster(&mut message);
        }
        if message == before {
            return Ok(Cow::Borrowed(wire));
        }
        let changed = json::to_wire(name, &message).map_err(unreadable)?;
        Ok(Cow::Owned(changed))
    }

    fn visit(&self, value: &mut Json) {
        match value {
            Json::Array(all) => all.iter_mut().for_each(|value| self.visit(value)),
            Json::Object(map) => {
                self.object(map);
                map.values_mut().for_each(|value| self.visit(value));
            }
            _ => {}
        }
    }

    fn object(&self, map: &mut Map<String, Json>) {
        if let Some(key) = text(map, "runtime_key") {
            self.default_value(&key, map);
        }
        if let Some(prefix) = text(map, "runtime_key_prefix")
            && let Some(Json::Array(clusters)) = map.get_mut("clusters")
        {
            for cluster in clusters.iter_mut().filter_map(Json::as_object_mut) {
                let name = text(cluster, "name").unwrap_or_default();
                if let Some(weight) = self.number(&format!("{prefix}.{name}")) {
                    cluster.insert("weight".into(), weight.into());
                }
            }
        }
        let is_fault = |url: String| url.rsplit('/').next() == Some(FAULT);
        if text(map, "@type").is_some_and(is_fault) {
            self.fault(map);
        }
    }

    /// The five messages with a key and a default differ in their default's form.
    fn default_value(&self, key: &str, map: &mut Map<String, Json>) {
        let new = match map.get("default_value") {
            Some(Json::Object(old)) if old.contains_key("value") => {
                self.number(key).map(|n| json!({ "value": n }))
            }
            Some(Json::Object(_)) => self.share(key),
            Some(Json::Bool(_)) => self.truth(key).map(Json::Bool),
            Some(Json::Number(_)) => self.number(key).map(Json::Number),
            // RuntimeFeatureFlag's false and RuntimePercent's zero may not be written; the former is
            // the one that has a key alone.
            _ => self.truth(key).map(Json::Bool),
        };
        if let Some(new) = new {
            map.insert("default_value".into(), new);
        }
    }

    fn fault(&self, map: &mut Map<String, Json>) {
        let own = |field: &str, known: &str| text(map, field).unwrap_or_else(|| known.to_owned());
        let [
            abort_share,
            status,
            grpc_status,
            delay_share,
            time,
            most,
            rate_share,
        ] = [
            ("abort_percent_runtime", "fault.http.abort.abort_percent"),
            ("abort_http_status_runtime", "fault.http.abort.http_status"),
            ("abort_grpc_status_runtime", "fault.http.abort.grpc_status"),
            (
                "delay_percent_runtime",
                "fault.http.delay.fixed_delay_percent",
            ),
            (
                "delay_duration_runtime",
                "fault.http.delay.fixed_duration_ms",
            ),
            ("max_active_faults_runtime", "fault.http.max_active_faults"),
            (
                "response_rate_limit_percent_runtime",
                "fault.http.rate_limit.response_percent",
            ),
        ]
        .map(|(field, known)| own(field, known));
        if let Some(Json::Object(abort)) = map.get_mut("abort") {
            self.part(abort, "percentage", &abort_share);
            self.code(abort, "http_status", &status);
            self.code(abort, "grpc_status", &grpc_status);
        }
        if let Some(Json::Object(delay)) = map.get_mut("delay") {
            self.part(delay, "percentage", &delay_share);
            if let Some(ms) = self.number(&time)
                && delay.contains_key("fixed_delay")
            {
                delay.insert("fixed_delay".into(), milliseconds(&ms));
            }
        }
        if let Some(Json::Object(rate)) = map.get_mut("response_rate_limit") {
            self.part(rate, "percentage", &rate_share);
        }
        if let Some(most) = self.number(&most) {
            map.insert("max_active_faults".into(), most.into());
        }
    }

    /// A share where its key is known.
    fn part(&self, map: &mut Map<String, Json>, field: &str, key: &str) {
        if let Some(share) = self.share(key) {
            map.insert(field.into(), share);
        }
    }

    /// A number in place of another.
    fn code(&self, map: &mut Map<String, Json>, field: &str, key: &str) {
        if let (Some(value), Some(code)) = (map.get_mut(field), self.number(key)) {
            *value = code.into();
        }
    }

    fn cluster(&self, message: &mut Json) {
        let Json::Object(map) = message else {
            return;
        };
        if let Some(share) = self.number("upstream.healthy_panic_threshold") {
            let share = (
                "healthy_panic_threshold".to_owned(),
                json!({ "value": share }),
            );
            let common = object_at(map, "common_lb_config");
            if let Some(common) = common {
                common.extend([share]);
            }
        }
        if let Some(Json::Object(outlier)) = map.get_mut("outlier_detection") {
            for (key, value) in self.below("outlier_detection.") {
                match (key.strip_suffix("_ms"), value) {
                    (Some(field), Value::Number(_)) => {
                        let ms = self.number(&format!("outlier_detection.{key}"));
                        outlier.extend(ms.map(|ms| (field.to_owned(), milliseconds(&ms))));
                    }
                    (None, value) => {
                        outlier.extend(number(value).map(|n| (key.to_owned(), n.into())));
                    }
                    _ => {}
                }
            }
        }
        let name = text(map, "name").unwrap_or_default();
        for (key, value) in self.below(&format!("circuit_breakers.{name}.")) {
            if let (Some((priority, field)), Some(limit)) = (key.split_once('.'), number(value)) {
                breaker(map, &priority.to_uppercase(), field, limit);
            }
        }
    }

    /// Keys that begin so, without their beginning.
    fn below<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let from = self
            .values
            .range::<str, _>((Bound::Included(begin), Bound::Unbounded));
        from.map_while(move |(key, value)| Some((key.strip_prefix(begin)?, value)))
    }

    fn number(&self, key: &str) -> Option<Number> {
        number(self.values.get(key)?)
    }

    fn truth(&self, key: &str) -> Option<bool> {
        match self.values.get(key)? {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Value::Number(n) => Some(*n != 0.0),
            _ => None,
        }
    }

    /// A share: a whole number is one of a hundred, at most all; a struct has its denominator.
    fn share(&self, key: &str) -> Option<Json> {
        if let Some(n) = self.number(key) {
            let n = n.as_u64()?.min(100);
            return Some(json!({ "numerator": n, "denominator": "HUNDRED" }));
        }
        let n = self.number(&format!("{key}.numerator"))?;
        let denominator = match self.values.get(format!("{key}.denominator").as_str()) {
            Some(Value::String(name)) => name.to_string(),
            _ => "HUNDRED".to_owned(),
        };
        Some(json!({ "numerator": n, "denominator": denominator }))
    }
}

/// Which listener's connections a key limits.
fn limited_listener(key: &str) -> Option<&str> {
    key.strip_prefix(LISTENER.0)?.strip_suffix(LISTENER.1)
}

/// Numbers may be written as texts in a layer.
fn number(value: &Value) -> Option<Number> {
    match value {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and in the range, as the guard says"
        )]
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9.0e15 => Some(Number::from(*n as i64)),
        Value::Number(n) => Number::from_f64(*n),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn milliseconds(ms: &Number) -> Json {
    let ms = ms.as_u64().unwrap_or(0);
    format!("{}.{:03}s", ms / 1000, ms % 1000).into()
}

fn text(map: &Map<String, Json>, field: &str) -> Option<String> {
    Some(map.get(field)?.as_str()?.to_owned())
}

/// The object under a field, made where there is none.
fn object_at<'a>(map: &'a mut Map<String, Json>, field: &str) -> Option<&'a mut Map<String, Json>> {
    let value = map.entry(field).or_insert_with(|| json!({}));
    value.as_object_mut()
}

/// Sets a limit of the thresholds of one priority, which may not be there yet.
fn breaker(cluster: &mut Map<String, Json>, priority: &str, field: &str, limit: Number) {
    let breakers = object_at(cluster, "circuit_breakers");
    let all = breakers.map(|b| b.entry("thresholds").or_insert_with(|| json!([])));
    let Some(Json::Array(all)) = all else {
        return;
    };
    let of_priority = |t: &Json| {
        t.get("priority")
            .map_or("DEFAULT", |p| p.as_str().unwrap_or(""))
            == priority
    };
    let at = all.iter().position(of_priority).unwrap_or_else(|| {
        all.push(json!({ "priority": priority }));
        all.len() - 1
    });
    if let Some(Json::Object(thresholds)) = all.get_mut(at) {
        thresholds.insert(field.to_owned(), limit.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(layers: &[(&str, Json)]) -> Runtime {
        let value = |json: &Json| match json {
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => Value::Number(n.as_f64().expect("finite")),
            other => Value::String(other.as_str().expect("a text").into()),
        };
        let layers = layers.iter().map(|(key, v)| ((*key).into(), value(v)));
        Runtime::new(&layers.collect())
    }

    fn applied(runtime: &Runtime, name: &str, message: &Json) -> Json {
        let wire = json::to_wire(name, message).expect("a message");
        let changed = runtime.apply(name, &wire).expect("applied");
        json::from_wire(name, &changed).expect("a message")
    }

    const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";

    fn routes(route: Json) -> Json {
        json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [route] }] })
    }

    #[test]
    fn shares_and_weights_come_from_their_keys() {
        let values = runtime(&[
            ("a.share", json!(30)),
            ("w.x", json!(7)),
            ("w.y", json!("93")),
            ("f.numerator", json!(5)),
            ("f.denominator", json!("MILLION")),
        ]);
        let route = |key: &str, share: Json, weights: [u32; 2]| {
            routes(json!({
                "match": { "prefix": "/", "runtime_fraction": { "default_value": share, "runtime_key": key } },
                "route": { "weighted_clusters": { "runtime_key_prefix": "w", "clusters": [
                    { "name": "x", "weight": weights[0] }, { "name": "y", "weight": weights[1] }] } },
            }))
        };
        let given = json!({ "numerator": 1, "denominator": "TEN_THOUSAND" });
        let whole = applied(&values, ROUTES, &route("a.share", given.clone(), [50, 50]));
        let share = whole.pointer("/virtual_hosts/0/routes/0/match/runtime_fraction/default_value");
        assert_eq!(
            share,
            Some(&json!({ "numerator": 30 })),
            "of a hundred, the default"
        );
        let clusters = whole.pointer("/virtual_hosts/0/routes/0/route/weighted_clusters/clusters");
        let weights = clusters.and_then(Json::as_array).expect("clusters");
        assert_eq!(
            (&weights[0]["weight"], &weights[1]["weight"]),
            (&json!(7), &json!(93))
        );
        let whole = applied(&values, ROUTES, &route("f", given.clone(), [50, 50]));
        let share = whole.pointer("/virtual_hosts/0/routes/0/match/runtime_fraction/default_value");
        assert_eq!(
            share,
            Some(&json!({ "numerator": 5, "denominator": "MILLION" }))
        );
        let untouched = route("unknown", given, [1, 2]);
        let none = runtime(&[("envoy.reloadable_features.x", json!(true))]);
        assert_eq!(applied(&none, ROUTES, &untouched), untouched);
    }

    #[test]
    fn flags_numbers_and_percents_have_their_own_forms() {
        let values = runtime(&[("k", json!(3)), ("t", json!("true"))]);
        let mut map = json!({
            "flag": { "default_value": false, "runtime_key": "t" },
            "bare": { "runtime_key": "t" },
            "int": { "default_value": 1, "runtime_key": "k" },
            "percent": { "default_value": { "value": 1.5 }, "runtime_key": "k" },
        });
        values.visit(&mut map);
        assert_eq!(map["flag"]["default_value"], json!(true));
        assert_eq!(map["bare"]["default_value"], json!(true));
        assert_eq!(map["int"]["default_value"], json!(3));
        assert_eq!(map["percent"]["default_value"], json!({ "value": 3 }));
    }

    #[test]
    fn a_clusters_limits_have_keys_of_their_own() {
        let values = runtime(&[
            ("circuit_breakers.c.default.max_requests", json!(2)),
            ("circuit_breakers.c.high.max_retries", json!(9)),
            ("circuit_breakers.other.default.max_requests", json!(1)),
            ("outlier_detection.consecutive_5xx", json!(4)),
            ("outlier_detection.interval_ms", json!(1500)),
            ("upstream.healthy_panic_threshold", json!(0)),
        ]);
        let given = json!({ "name": "c", "outlier_detection": { "interval": "10s" },
            "circuit_breakers": { "thresholds": [{ "max_connections": 5 }] } });
        let cluster = applied(&values, CLUSTER, &given);
        assert_eq!(
            cluster["circuit_breakers"]["thresholds"],
            json!([
            { "max_connections": 5, "max_requests": 2 }, { "priority": "HIGH", "max_retries": 9 }])
        );
        assert_eq!(
            cluster["outlier_detection"],
            json!({ "interval": "1.500s", "consecutive_5xx": 4 })
        );
        assert_eq!(
            cluster["common_lb_config"],
            json!({ "healthy_panic_threshold": {} })
        );
    }

    #[test]
    fn faults_have_keys_without_a_field() {
        let values = runtime(&[
            ("fault.http.abort.abort_percent", json!(100)),
            ("fault.http.abort.http_status", json!(499)),
            ("my.status", json!(418)),
            ("fault.http.delay.fixed_duration_ms", json!(50)),
        ]);
        let mut fault = json!({ "@type": format!("type.googleapis.com/{FAULT}"),
            "abort_http_status_runtime": "my.status",
            "abort": { "http_status": 503, "percentage": { "numerator": 0 } },
            "delay": { "fixed_delay": "5s" } });
        values.visit(&mut fault);
        assert_eq!(fault["abort"]["http_status"], json!(418));
        assert_eq!(fault["abort"]["percentage"]["numerator"], json!(100));
        assert_eq!(fault["delay"]["fixed_delay"], json!("0.050s"));
    }

    #[test]
    fn connections_have_limits() {
        let one = "envoy.resource_limits.listener.a.b.connection_limit";
        let values = runtime(&[
            (MAX_CONNECTIONS, json!("7")),
            (one, json!(1)),
            (
                "envoy.resource_limits.listener.c.connection_limit",
                json!(-1),
            ),
            ("envoy.resource_limits.listener.d.other", json!(1)),
        ]);
        assert_eq!(values.max_downstream_connections(), Some(7));
        let listeners: Vec<_> = values.listener_connections().collect();
        assert_eq!(listeners, [("a.b".into(), 1), ("c".into(), u32::MAX)]);
        assert!(check_key(one).is_ok());
        assert!(check_key("envoy.resource_limits.listener.d.other").is_err());
    }

    #[test]
    fn keys_that_are_not_done_are_named() {
        assert!(check_key("my.own").is_ok() && check_key("envoy.reloadable_features.x").is_ok());
        let why = check_key("upstream.maintenance_mode.c")
            .expect_err("refused")
            .to_string();
        assert!(why.contains("upstream.maintenance_mode.c"), "{why}");
    }
}
