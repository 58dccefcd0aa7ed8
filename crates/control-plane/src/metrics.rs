//! The control plane's own metrics, in Prometheus' text form and under Istio's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Bucket bounds of `pilot_proxy_convergence_time`, in seconds.
const BUCKETS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0,
];

/// Name, kind and meaning of every metric.
const CATALOGUE: &[(&str, &str, &str)] = &[
    (
        "citadel_server_csr_count",
        "counter",
        "Certificate requests received.",
    ),
    (
        "citadel_server_success_cert_issuance_count",
        "counter",
        "Certificates issued.",
    ),
    (
        "citadel_server_authentication_failure_count",
        "counter",
        "Callers not authenticated.",
    ),
    (
        "galley_validation_failed",
        "counter",
        "Objects refused by the validation webhook.",
    ),
    (
        "galley_validation_passed",
        "counter",
        "Objects let through by the validation webhook.",
    ),
    (
        "pilot_proxy_convergence_time",
        "histogram",
        "Seconds from a noticed change to its push.",
    ),
    ("pilot_services", "gauge", "Services known."),
    (
        "pilot_total_xds_rejects",
        "counter",
        "Responses refused by proxies.",
    ),
    ("pilot_virt_services", "gauge", "VirtualServices in effect."),
    ("pilot_xds", "gauge", "Proxies connected."),
    ("pilot_xds_pushes", "counter", "Responses sent, by type."),
    (
        "sidecar_injection_failure_total",
        "counter",
        "Pods that could not be injected.",
    ),
    (
        "sidecar_injection_requests_total",
        "counter",
        "Pods shown to the injection webhook.",
    ),
    (
        "sidecar_injection_skip_total",
        "counter",
        "Pods left as they were.",
    ),
    (
        "sidecar_injection_success_total",
        "counter",
        "Pods injected.",
    ),
];

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    total: u64,
    sum: f64,
}

#[derive(Debug, Default)]
struct Values {
    /// Name, then rendered labels, to value.
    plain: BTreeMap<&'static str, BTreeMap<String, f64>>,
    histograms: BTreeMap<&'static str, Histogram>,
}

/// All metrics of one control plane.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<Values>);

impl Metrics {
    fn values(&self) -> std::sync::MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one to a counter.
    pub fn count(&self, name: &'static str, labels: &[(&str, &str)]) {
        *self
            .values()
            .plain
            .entry(name)
            .or_default()
            .entry(render(labels))
            .or_default() += 1.0;
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        self.values()
            .plain
            .entry(name)
            .or_default()
            .insert(render(labels), value);
    }

    /// Adds an observation in seconds to a histogram.
    pub fn observe(&self, name: &'static str, seconds: f64) {
        let mut values = self.values();
        let h = values.histograms.entry(name).or_default();
        h.total += 1;
        h.sum += seconds;
        for (bound, count) in BUCKETS.iter().zip(&mut h.counts) {
            if seconds <= *bound {
                *count += 1;
            }
        }
    }

    /// The page `/metrics`.
    pub fn page(&self) -> String {
        let values = self.values();
        let mut out = String::new();
        for (name, kind, help) in CATALOGUE {
            let series = values.plain.get(name);
            let histogram = values.histograms.get(name);
            if series.is_none() && histogram.is_none() {
                continue;
            }
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in series.into_iter().flatten() {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
            if let Some(h) = histogram {
                for (bound, count) in BUCKETS.iter().zip(h.counts) {
                    let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
                }
                let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", h.total);
                let _ = writeln!(out, "{name}_sum {}\n{name}_count {}", h.sum, h.total);
            }
        }
        out
    }
}

fn render(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let parts: Vec<String> = labels
        .iter()
        .map(|(k, v)| {
            format!(
                "{k}=\"{}\"",
                v.replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n")
            )
        })
        .collect();
    format!("{{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_types_labels_and_buckets() {
        let m = Metrics::default();
        m.count("pilot_xds_pushes", &[("type", "cds")]);
        m.count("pilot_xds_pushes", &[("type", "cds")]);
        m.observe("pilot_proxy_convergence_time", 0.02);
        let page = m.page();
        assert!(page.contains("# TYPE pilot_xds_pushes counter"));
        assert!(page.contains("pilot_xds_pushes{type=\"cds\"} 2"));
        assert!(page.contains("pilot_proxy_convergence_time_bucket{le=\"0.01\"} 0\n"));
        assert!(page.contains("pilot_proxy_convergence_time_bucket{le=\"0.025\"} 1\n"));
        assert!(page.contains("pilot_proxy_convergence_time_count 1\n"));
    }
}
