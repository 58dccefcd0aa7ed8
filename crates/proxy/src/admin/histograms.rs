//! Histograms of `/stats` as `histogram_buckets` asks for them: by quantiles, or by buckets. Intervals
//! are not kept apart, so that what Envoy shows of the last one is the whole here.

use std::fmt::Write;

use lateen_proxy_core::stats::{HistogramSnapshot, Metric, MetricValue, QUANTILES};
use serde_json::{Value, json};

use super::query::Query;

/// How they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Quantiles.
    Summary,
    /// Counts at or below each bound.
    Cumulative,
    /// Counts between each bound and the one before.
    Disjoint,
    /// Both, and where each bucket begins.
    Detailed,
}

impl Form {
    /// What the query asks for.
    ///
    /// # Errors
    /// The text of a 400.
    pub(super) fn of(query: &Query) -> Result<Self, String> {
        Ok(match query.get("histogram_buckets") {
            None | Some("" | "none" | "summary") => Self::Summary,
            Some("cumulative") => Self::Cumulative,
            Some("disjoint") => Self::Disjoint,
            Some("detailed") => Self::Detailed,
            Some(_) => {
                let forms = "cumulative|disjoint|detailed|summary|prometheusnative";
                return Err(format!("usage: /stats?histogram_buckets=({forms})\n"));
            }
        })
    }

    /// Whether Prometheus' format has it: what is not asked for, or counts at or below each bound.
    ///
    /// # Errors
    /// The text of a 400.
    pub(super) fn exposes(query: &Query) -> Result<(), String> {
        match query.get("histogram_buckets") {
            None | Some("" | "none" | "cumulative") => Ok(()),
            _ => {
                Self::of(query)?;
                Err("unsupported prometheus histogram bucket mode".to_owned())
            }
        }
    }
}

fn histograms(metrics: &[Metric]) -> impl Iterator<Item = (&str, &HistogramSnapshot)> {
    metrics.iter().filter_map(|m| match &m.value {
        MetricValue::Histogram(h) => Some((&*m.name.flat, &**h)),
        _ => None,
    })
}

/// Bounds with the counts that the form asks for.
fn buckets(form: Form, h: &HistogramSnapshot) -> Vec<(f64, u64)> {
    let mut before = 0;
    let own = |(bound, n): (f64, u64)| (bound, n - std::mem::replace(&mut before, n));
    match form {
        Form::Disjoint => h.cumulative().map(own).collect(),
        _ => h.cumulative().collect(),
    }
}

/// What holds something: lower bound, width, count.
fn held(h: &HistogramSnapshot) -> Vec<(f64, f64, u64)> {
    let mut low = 0.0;
    let mut out = Vec::new();
    for (bound, n) in buckets(Form::Disjoint, h) {
        out.push((low, bound - low, n));
        low = bound;
    }
    let beyond = h.buckets.last().copied().unwrap_or_default();
    out.push((low, (h.most as f64 - low).max(0.0), beyond));
    out.retain(|(_, _, n)| *n > 0);
    out
}

/// A bound as C's `%g` writes it.
fn short(bound: f64) -> String {
    let exponent = bound.abs().log10().floor() as i32;
    if bound == 0.0 || (-5..6).contains(&exponent) {
        return format!("{bound}");
    }
    let mantissa = bound / 10_f64.powi(exponent);
    let rounded = (mantissa * 1e5).round() / 1e5;
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{rounded}e{sign}{:02}", exponent.abs())
}

/// The lines of `/stats`; `summary` = the quantiles of one as text.
pub(super) fn text(
    form: Form,
    metrics: &[Metric],
    summary: impl Fn(&HistogramSnapshot) -> String,
    out: &mut String,
) {
    for (name, h) in histograms(metrics) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{name}:");
        if h.count == 0 {
            out.push_str(" No recorded values\n");
            continue;
        }
        match form {
            Form::Summary => {
                let _ = write!(out, " {}", summary(h));
            }
            Form::Cumulative | Form::Disjoint => {
                for (bound, n) in buckets(form, h) {
                    let _ = write!(out, " B{}({n},{n})", short(bound));
                }
            }
            Form::Detailed => {
                let all = held(h);
                let all = all
                    .iter()
                    .map(|(low, width, n)| format!("{low},{width}:{n}"));
                let all = all.collect::<Vec<_>>().join(", ");
                let quantiles = summary(h);
                let _ = write!(
                    out,
                    "\n  totals={all}\n  intervals={all}\n  summary={quantiles}"
                );
            }
        }
        out.push('\n');
    }
}

/// What stands under `histograms` of the page's JSON; none without any.
pub(super) fn as_json(form: Form, metrics: &[Metric]) -> Option<Value> {
    let percents: Vec<f64> = QUANTILES.iter().map(|q| q * 100.0).collect();
    let values = |h: &HistogramSnapshot| -> Vec<Value> {
        let value = |q: &f64| (h.count > 0).then(|| h.quantile(*q)).flatten();
        let both = |v| json!({"interval": v, "cumulative": v});
        QUANTILES.iter().map(|q| both(value(q))).collect()
    };
    let of = |(name, h): (&str, &HistogramSnapshot)| match form {
        Form::Summary => json!({"name": name, "values": values(h)}),
        Form::Cumulative | Form::Disjoint => {
            let bucket = |(bound, n)| json!({"upper_bound": bound, "interval": n, "cumulative": n});
            let all = buckets(form, h).into_iter().map(bucket);
            json!({"name": name, "buckets": all.collect::<Vec<_>>()})
        }
        Form::Detailed => {
            let bucket = |(low, width, n)| json!({"lower_bound": low, "width": width, "count": n});
            let all: Vec<_> = held(h).into_iter().map(bucket).collect();
            json!({"name": name, "totals": all, "intervals": all, "percentiles": values(h)})
        }
    };
    let all: Vec<Value> = histograms(metrics).map(of).collect();
    if all.is_empty() {
        return None;
    }
    Some(match form {
        Form::Summary => json!({"supported_quantiles": percents, "computed_quantiles": all}),
        Form::Detailed => json!({"supported_percentiles": percents, "details": all}),
        Form::Cumulative | Form::Disjoint => Value::Array(all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(h: HistogramSnapshot) -> Metric {
        Metric {
            name: lateen_proxy_core::stats::Scope::group("a").stat("b"),
            value: MetricValue::Histogram(Box::new(h)),
            used: true,
        }
    }

    #[test]
    fn buckets_are_shown_as_envoy_writes_them() {
        let mut h = HistogramSnapshot::default();
        h.buckets[0] = 2;
        h.buckets[1] = 1;
        (h.count, h.sum, h.most) = (3, 1, 1);
        let metrics = [metric(h), metric(HistogramSnapshot::default())];
        let shown = |form| {
            let mut out = String::new();
            text(form, &metrics, |_| "Q".to_owned(), &mut out);
            out
        };
        assert_eq!(shown(Form::Summary), "a.b: Q\na.b: No recorded values\n");
        let cumulative = shown(Form::Cumulative);
        let begin = "a.b: B0.5(2,2) B1(3,3) B5(3,3) ";
        assert!(cumulative.starts_with(begin), "{cumulative}");
        assert!(
            cumulative.contains(" B600000(3,3) B1.8e+06(3,3) B3.6e+06(3,3)\n"),
            "{cumulative}"
        );
        let disjoint = shown(Form::Disjoint);
        assert!(
            disjoint.starts_with("a.b: B0.5(2,2) B1(1,1) B5(0,0) "),
            "{disjoint}"
        );
        let detailed =
            "a.b:\n  totals=0,0.5:2, 0.5,0.5:1\n  intervals=0,0.5:2, 0.5,0.5:1\n  summary=Q\n";
        assert!(shown(Form::Detailed).starts_with(detailed));
        let value = as_json(Form::Disjoint, &metrics).unwrap();
        assert_eq!(
            value[0]["buckets"][1],
            json!({"upper_bound": 1.0, "interval": 1, "cumulative": 1})
        );
        let value = as_json(Form::Detailed, &metrics).unwrap();
        assert_eq!(value["details"][0]["totals"][1]["width"], json!(0.5));
        assert_eq!(as_json(Form::Summary, &[]), None);
    }

    #[test]
    fn other_forms_are_refused() {
        let of = |text| Form::of(&Query::parse(text));
        assert_eq!(of(""), Ok(Form::Summary));
        assert_eq!(of("histogram_buckets=detailed"), Ok(Form::Detailed));
        assert!(
            of("histogram_buckets=x")
                .unwrap_err()
                .starts_with("usage: /stats?")
        );
        let exposes = |text| Form::exposes(&Query::parse(text));
        assert_eq!(exposes("histogram_buckets=cumulative"), Ok(()));
        assert!(exposes("histogram_buckets=disjoint").is_err());
        assert!(
            exposes("histogram_buckets=x")
                .unwrap_err()
                .starts_with("usage")
        );
    }
}
