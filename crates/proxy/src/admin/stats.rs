//! `/stats` in its forms: text, JSON, Prometheus; filtered by pattern, kind and use.

use lateen_proxy_core::regex::Search;
use lateen_proxy_core::stats::{Metric, MetricValue, quantiles, write_prometheus, write_text};
use serde_json::{Value, json};

use super::State;
use super::histograms::{self, Form};
use super::query::Query;

/// Content type and body.
type Page = (&'static str, String);

const TEXT: &str = "text/plain; charset=UTF-8";
/// The content type of the Prometheus text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// The `/stats` page; an error is the text of a 400.
pub fn page(state: &dyn State, query: &Query) -> Result<Page, String> {
    if query.get("format") == Some("prometheus") {
        return prometheus_page(state, query);
    }
    let form = Form::of(query)?;
    let metrics = select(state, query)?;
    match query.get("format") {
        None | Some("text" | "") => {
            let mut out = String::new();
            write_text(&metrics, &mut out);
            histograms::text(form, &metrics, quantiles, &mut out);
            Ok((TEXT, out))
        }
        Some("json") => Ok(("application/json", as_json(form, &metrics).to_string())),
        Some(other) => Err(format!(
            "usage: /stats?format=(text|json|prometheus), not \"{other}\"\n"
        )),
    }
}

/// The `/stats/prometheus` page, filtered as `/stats` is.
pub fn prometheus_page(state: &dyn State, query: &Query) -> Result<Page, String> {
    Form::exposes(query)?;
    Ok((PROMETHEUS, exposition(&select(state, query)?)))
}

/// All series in Prometheus' text format.
#[must_use]
pub fn prometheus(state: &dyn State) -> String {
    exposition(&state.metrics())
}

fn exposition(metrics: &[Metric]) -> String {
    let mut out = String::new();
    write_prometheus(metrics, &mut out);
    out
}

fn select(state: &dyn State, query: &Query) -> Result<Vec<Metric>, String> {
    let mut metrics = state.metrics();
    if query.has("usedonly") {
        metrics.retain(|metric| metric.used);
    }
    if let Some(pattern) = query.get("filter") {
        let filter = Search::new(pattern)
            .map_err(|error| format!("filter is no regular expression: {error}\n"))?;
        let inverted = query.has("invert_filter");
        metrics.retain(|metric| filter.is_in(&metric.name.flat) != inverted);
    }
    match query.get("type") {
        None | Some("All") => {}
        Some("Counters") => metrics.retain(|m| matches!(m.value, MetricValue::Counter(_))),
        Some("Gauges") => metrics.retain(|m| matches!(m.value, MetricValue::Gauge(_))),
        Some("Histograms") => metrics.retain(|m| matches!(m.value, MetricValue::Histogram(_))),
        Some("TextReadouts") => metrics.clear(),
        Some(other) => return Err(format!("invalid &type= param: {other}\n")),
    }
    Ok(metrics)
}

fn as_json(form: Form, metrics: &[Metric]) -> Value {
    let mut stats = Vec::new();
    for metric in metrics {
        let name = &*metric.name.flat;
        match &metric.value {
            MetricValue::Counter(n) => stats.push(json!({"name": name, "value": n})),
            MetricValue::Gauge(n) => stats.push(json!({"name": name, "value": n})),
            MetricValue::Histogram(_) => {}
        }
    }
    let histograms = histograms::as_json(form, metrics);
    stats.extend(histograms.map(|all| json!({ "histograms": all })));
    json!({ "stats": stats })
}
