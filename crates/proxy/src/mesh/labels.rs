//! The labels of a call in Istio's order, and the names of its series after overrides. Texts are
//! shared: between series, and with the workloads and services that they name.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::istio::MetricOverride;
use lateen_proxy_core::stats::StatName;

use super::telemetry::{Key, Kind, Secure, Service, Side};
use super::workload::{DESTINATION, SOURCE, UNKNOWN, Workload};

/// Names and values.
pub(super) type Labels = Arc<[(Name, Name)]>;

/// Texts of this program, each once.
#[derive(Debug, Default)]
pub(super) struct Texts(HashMap<&'static str, Name, RandomState>);

impl Texts {
    fn get(&mut self, text: &'static str) -> Name {
        self.0.entry(text).or_insert_with(|| text.into()).clone()
    }

    fn or_unknown(&mut self, text: &Name) -> Name {
        match text.is_empty() {
            true => self.get(UNKNOWN),
            false => text.clone(),
        }
    }
}

/// What the labels of a call are made of.
pub(super) struct Call<'a> {
    pub key: &'a Key,
    pub own: &'a Workload,
    pub peer: &'a Workload,
    pub principal: &'a Name,
    pub service: &'a Service,
}

impl Call<'_> {
    pub(super) fn labels(&self, texts: &mut Texts) -> Labels {
        let Self { key, own, peer, .. } = *self;
        let (reporter, source, destination) = match key.side {
            Side::Source => ("source", own, peer),
            Side::Destination => ("destination", peer, own),
        };
        let reporter = texts.get(reporter);
        let mut out = vec![(texts.get("reporter"), reporter)];
        for (names, workload) in [(SOURCE, source), (DESTINATION, destination)] {
            for (name, part) in names.into_iter().zip(workload.parts()) {
                out.push((texts.get(name), texts.or_unknown(part)));
            }
        }
        let namespace = match self.service.namespace.is_empty() {
            true => &destination.namespace,
            false => &self.service.namespace,
        };
        for (name, value) in [
            ("source_principal", self.principal),
            ("destination_principal", &Name::default()),
            ("destination_service", &self.service.host),
            ("destination_service_name", &self.service.name),
            ("destination_service_namespace", namespace),
        ] {
            out.push((texts.get(name), texts.or_unknown(value)));
        }
        out.extend(outcome(key, texts));
        out.into()
    }
}

/// How the call went, and over what.
fn outcome(key: &Key, texts: &mut Texts) -> Vec<(Name, Name)> {
    let protocol = texts.get(match key.protocol {
        Kind::Http => "http",
        Kind::Grpc => "grpc",
        Kind::Tcp => "tcp",
    });
    let mut out = vec![(texts.get("request_protocol"), protocol)];
    if key.protocol != Kind::Tcp {
        out.push((texts.get("response_code"), key.code.to_string().into()));
    }
    if key.protocol == Kind::Grpc {
        let status = key.grpc.map(|s| s.to_string()).unwrap_or_default();
        out.push((texts.get("grpc_response_status"), status.into()));
    }
    let mut flags = Vec::new();
    key.flags.write(false, &mut flags);
    let flags = match flags.is_empty() {
        true => texts.get("-"),
        false => String::from_utf8_lossy(&flags).into(),
    };
    out.push((texts.get("response_flags"), flags));
    let secure = texts.get(match key.secure {
        Secure::MutualTls => "mutual_tls",
        Secure::None => "none",
        Secure::Unknown => UNKNOWN,
    });
    out.push((texts.get("connection_security_policy"), secure));
    out
}

/// Istio's overrides name metrics by their API names.
fn api_name(metric: &str) -> &str {
    match metric {
        "request_duration_milliseconds" => "request_duration",
        other => other.strip_suffix("_total").unwrap_or(other),
    }
}

/// The name of a series after the overrides; none when it is dropped.
pub(super) fn stat_name(
    metric: &str,
    labels: &Labels,
    overrides: &[MetricOverride],
) -> Option<StatName> {
    let api = api_name(metric);
    let applies = |o: &&MetricOverride| o.name.is_empty() || &*o.name == metric || &*o.name == api;
    let mine: Vec<&MetricOverride> = overrides.iter().filter(applies).collect();
    if mine.iter().any(|o| o.drop) {
        return None;
    }
    let removed = |label: &str| {
        mine.iter()
            .any(|o| o.tags_to_remove.iter().any(|t| **t == *label))
    };
    let kept = match labels.iter().any(|(label, _)| removed(label)) {
        false => labels.clone(),
        true => {
            let kept = labels.iter().filter(|(label, _)| !removed(label));
            kept.cloned().collect()
        }
    };
    Some(StatName::custom(&format!("istio_{metric}"), kept))
}
