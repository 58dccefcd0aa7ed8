//! Series as text: Envoy's `/stats` lines and the Prometheus exposition format.
use std::fmt::Write;

use super::histogram::{HistogramSnapshot, QUANTILES};
use super::{Metric, MetricValue};

/// Writes the `name: value` lines of `/stats` for counters and gauges.
pub fn write_text(metrics: &[Metric], out: &mut String) {
    for m in metrics {
        match &m.value {
            MetricValue::Counter(n) => line(out, &m.name.flat, n),
            MetricValue::Gauge(n) => line(out, &m.name.flat, n),
            MetricValue::Histogram(_) => {}
        }
    }
}

/// The quantiles of a histogram as `/stats` shows them; of the last interval and of all, which is the
/// same here.
#[must_use]
pub fn quantiles(h: &HistogramSnapshot) -> String {
    let shown = QUANTILES.iter().map(|q| {
        let value = number(h.quantile(*q).unwrap_or(f64::NAN));
        format!("P{}({value},{value})", number(q * 100.0))
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn line(out: &mut String, name: &str, value: &dyn std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{name}: {value}");
}

fn number(n: f64) -> String {
    let rounded = (n * 1000.0).round() / 1000.0;
    if rounded.is_nan() {
        "nan".into()
    } else {
        format!("{rounded}")
    }
}

/// Writes the Prometheus exposition format: one `# TYPE` line per name, labels from tags.
pub fn write_prometheus(metrics: &[Metric], out: &mut String) {
    let mut sorted: Vec<(String, &Metric)> =
        metrics.iter().map(|m| (m.name.prometheus(), m)).collect();
    sorted.sort_by(|a, b| {
        a.0.cmp(&b.0)
            .then_with(|| a.1.name.flat.cmp(&b.1.name.flat))
    });
    let mut current = "";
    for (name, m) in &sorted {
        let kind = match &m.value {
            MetricValue::Counter(_) => "counter",
            MetricValue::Gauge(_) => "gauge",
            MetricValue::Histogram(_) => "histogram",
        };
        if name != current {
            let _ = writeln!(out, "# TYPE {name} {kind}");
            current = name;
        }
        let labels = labels(m);
        match &m.value {
            MetricValue::Counter(n) => {
                let _ = writeln!(out, "{name}{{{labels}}} {n}");
            }
            MetricValue::Gauge(n) => {
                let _ = writeln!(out, "{name}{{{labels}}} {n}");
            }
            MetricValue::Histogram(h) => {
                let comma = if labels.is_empty() { "" } else { "," };
                for (bound, n) in h.cumulative() {
                    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {n}");
                }
                let _ = writeln!(
                    out,
                    "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}",
                    h.count
                );
                let _ = writeln!(out, "{name}_sum{{{labels}}} {}", h.sum);
                let _ = writeln!(out, "{name}_count{{{labels}}} {}", h.count);
            }
        }
    }
}

fn labels(metric: &Metric) -> String {
    let mut out = String::new();
    for (key, value) in metric.name.tags.iter() {
        if !out.is_empty() {
            out.push(',');
        }
        out.extend(key.chars().map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        }));
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}
