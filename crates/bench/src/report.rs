//! Figures as JSON, and the tables that are made from it: medians, their spread, ratios by round.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// One measured figure: a value for each round.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The scenario.
    pub scenario: String,
    /// What was measured, with its unit.
    pub metric: String,
    /// Whose.
    pub contestant: String,
    /// A value for each round.
    pub values: Vec<f64>,
}

/// Everything of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of measurement.
    pub figures: Vec<Figure>,
    /// Scenarios that say nothing, with the reason.
    pub void: BTreeMap<String, String>,
    /// What could not be measured, with the reason.
    pub failed: Vec<String>,
    /// The machine, programs and options.
    pub about: BTreeMap<String, String>,
}

impl Report {
    /// Adds a value to its figure.
    pub fn add(&mut self, scenario: &str, metric: &str, contestant: &str, value: f64) {
        let same = |f: &&mut Figure| {
            f.scenario == scenario && f.metric == metric && f.contestant == contestant
        };
        if let Some(figure) = self.figures.iter_mut().find(same) {
            figure.values.push(value);
            return;
        }
        self.figures.push(Figure {
            scenario: scenario.to_owned(),
            metric: metric.to_owned(),
            contestant: contestant.to_owned(),
            values: vec![value],
        });
    }

    /// The values of a figure.
    pub fn values(&self, scenario: &str, metric: &str, contestant: &str) -> Option<&[f64]> {
        let mut all = self.figures.iter();
        let found = all
            .find(|f| f.scenario == scenario && f.metric == metric && f.contestant == contestant)?;
        Some(&found.values)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|f| {
                json!({
                    "scenario": f.scenario, "metric": f.metric,
                    "contestant": f.contestant, "values": f.values,
                })
            })
            .collect();
        json!({"about": self.about, "figures": figures, "void": self.void, "failed": self.failed})
    }

    /// Reads what [`Report::to_json`] wrote.
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let map = |value: &Value| -> Option<BTreeMap<String, String>> {
            let pairs = value.as_object()?.iter();
            pairs.map(|(k, v)| Some((k.clone(), text(v)?))).collect()
        };
        let figure = |value: &Value| {
            Some(Figure {
                scenario: text(&value["scenario"])?,
                metric: text(&value["metric"])?,
                contestant: text(&value["contestant"])?,
                values: value["values"]
                    .as_array()?
                    .iter()
                    .filter_map(Value::as_f64)
                    .collect(),
            })
        };
        Some(Self {
            figures: value["figures"]
                .as_array()?
                .iter()
                .map(figure)
                .collect::<Option<_>>()?,
            void: map(&value["void"])?,
            failed: value["failed"]
                .as_array()?
                .iter()
                .filter_map(text)
                .collect(),
            about: map(&value["about"])?,
        })
    }

    /// Figures of this run take the place of the same scenarios' of an older one.
    pub fn over(mut self, older: Self) -> Self {
        let new: Vec<String> = self.figures.iter().map(|f| f.scenario.clone()).collect();
        let kept = older
            .figures
            .into_iter()
            .filter(|f| !new.contains(&f.scenario));
        self.figures.splice(0..0, kept);
        for (scenario, why) in older.void {
            if !new.contains(&scenario) {
                self.void.insert(scenario, why);
            }
        }
        self
    }

    /// The tables in Markdown, scenario by scenario.
    pub fn tables(&self) -> String {
        let mut out = String::new();
        // In the page's order; what an older program measured comes last.
        let order = crate::scenario::SCENARIOS.iter().map(|s| s.name);
        let measured = self.figures.iter().map(|f| f.scenario.as_str());
        let mut seen: Vec<&str> = Vec::new();
        for scenario in order.chain(measured.clone()) {
            if !seen.contains(&scenario) && measured.clone().any(|name| name == scenario) {
                seen.push(scenario);
                self.table(scenario, &mut out);
            }
        }
        for line in &self.failed {
            let _ = writeln!(out, "Not measured: {line}\n");
        }
        out
    }

    fn table(&self, scenario: &str, out: &mut String) {
        let about = crate::scenario::about(scenario);
        let _ = writeln!(out, "## {scenario}\n\n{about}\n");
        if let Some(why) = self.void.get(scenario) {
            let _ = writeln!(out, "**Void**: {why}.\n");
        }
        let own: Vec<&Figure> = self
            .figures
            .iter()
            .filter(|f| f.scenario == scenario)
            .collect();
        let mut metrics: Vec<&str> = Vec::new();
        for figure in &own {
            if !metrics.contains(&figure.metric.as_str()) {
                metrics.push(&figure.metric);
            }
        }
        let _ = writeln!(
            out,
            "| | {} | to envoy |\n|---|{}---|",
            metrics.join(" | "),
            "---|".repeat(metrics.len())
        );
        let mut contestants: Vec<&str> = Vec::new();
        for figure in &own {
            if !contestants.contains(&figure.contestant.as_str()) {
                contestants.push(&figure.contestant);
            }
        }
        let envoy = match contestants.contains(&"envoy") {
            true => "envoy",
            false => "envoy-bare",
        };
        for contestant in contestants {
            let mut row = format!("| {contestant} |");
            for metric in &metrics {
                let values = self.values(scenario, metric, contestant);
                let _ = write!(row, " {} |", values.map_or(String::new(), spread));
            }
            let first = metrics.first().copied().unwrap_or_default();
            let (ours, theirs) = (
                self.values(scenario, first, contestant),
                self.values(scenario, first, envoy),
            );
            let ratio = ours.zip(theirs).filter(|_| contestant != envoy);
            let ratio = ratio.map_or(String::new(), |(a, b)| format!("{} x", ratios(a, b)));
            let _ = writeln!(out, "{row} {ratio} |");
        }
        out.push('\n');
    }
}

/// The median.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.get(middle.wrapping_sub(1))) {
        (Some(a), Some(b)) if sorted.len().is_multiple_of(2) => f64::midpoint(*a, *b),
        (Some(a), _) => *a,
        _ => f64::NAN,
    }
}

/// How far the values lie apart, as a share of their median.
pub fn width(values: &[f64]) -> f64 {
    let (low, high) = ends(values);
    (high - low) / median(values)
}

fn ends(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

/// The median with the ends, where there is more than one value.
fn spread(values: &[f64]) -> String {
    let (low, high) = ends(values);
    match values.len() {
        0 => String::new(),
        1 => short(median(values)),
        _ => format!(
            "{} ({} to {})",
            short(median(values)),
            short(low),
            short(high)
        ),
    }
}

/// Ratios round by round: what disturbs a round disturbs both.
fn ratios(ours: &[f64], theirs: &[f64]) -> String {
    let all: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    spread(&all)
}

/// Three figures that count, no more.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_newer_figures_win() {
        let mut old = Report::default();
        old.add("a", "us", "envoy", 100.0);
        old.add("b", "us", "envoy", 50.0);
        old.void.insert("a".to_owned(), "why".to_owned());
        let mut new = Report::default();
        new.add("a", "us", "envoy", 10.0);
        new.add("a", "us", "envoy", 20.0);
        new.add("a", "us", "lateen", 3.0);
        new.add("a", "us", "lateen", 4.0);
        let all = new.over(Report::from_json(&old.to_json()).expect("readable"));
        assert_eq!(all.values("a", "us", "envoy"), Some(&[10.0, 20.0][..]));
        assert_eq!(all.values("b", "us", "envoy"), Some(&[50.0][..]));
        assert!(all.void.is_empty());
        let text = all.tables();
        assert!(
            text.contains("| lateen | 3.50 (3.00 to 4.00) | 0.25 (0.20 to 0.30) x |"),
            "{text}"
        );
    }

    #[test]
    fn the_median_of_few() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!((width(&[8.0, 10.0, 12.0]) - 0.4).abs() < 1e-9);
    }
}
