//! `analyze`: what is wrong with a configuration, in a cluster, in files, or in files as they would
//! be in the cluster. Exits with 79 when something at or above the threshold is found.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lateen_resources::{Diagnostic, ObjectSet, Severity, read_yaml};
use serde_json::json;

use super::{objects, validate};
use crate::client::ClusterArgs;
use crate::exit::{ANALYSIS, Failure};
use crate::style;

/// `analyze`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lateen analyze                      the current namespace\n  lateen analyze -A                   every namespace\n  lateen analyze new.yaml             the cluster as it would be with this file\n  lateen analyze --use-kube=false mesh/   files only"
)]
pub struct Analyze {
    /// Files and folders to add to what the cluster holds
    files: Vec<PathBuf>,
    /// Findings about every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Read the cluster too
    #[arg(short = 'k', long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    use_kube: bool,
    /// Read folders inside the given folders too (they always are)
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Leave findings out: CODE=Kind name.namespace, * as wildcard; may be repeated
    #[arg(short = 'S', long, value_name = "CODE=OBJECT")]
    suppress: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "log")]
    output: Output,
    /// Exit with 79 from this severity on
    #[arg(long, value_enum, default_value = "error", ignore_case = true)]
    failure_threshold: Threshold,
    /// Print only findings from this severity on
    #[arg(long, value_enum, default_value = "info", ignore_case = true)]
    output_threshold: Threshold,
    /// List the analyses and stop
    #[arg(short = 'L', long)]
    list_analyzers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Log,
    Json,
    Yaml,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Threshold {
    Info,
    Warning,
    Error,
}

impl From<Threshold> for Severity {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Info => Self::Info,
            Threshold::Warning => Self::Warning,
            Threshold::Error => Self::Error,
        }
    }
}

/// Runs the command.
pub async fn run(args: Analyze, cluster: &ClusterArgs) -> anyhow::Result<()> {
    if args.list_analyzers {
        let lines = lateen_resources::Code::ALL.iter();
        let text: String = lines
            .map(|code| format!("{} {}\n", code.id, code.name))
            .collect();
        return Ok(style::print(&text)?);
    }
    let mut set = ObjectSet::default();
    let mut found: Vec<Diagnostic> = Vec::new();
    let mut namespace = cluster.namespace.clone();
    if args.use_kube {
        let connected = cluster.connect().await?;
        namespace.get_or_insert_with(|| connected.namespace.clone());
        set = lateen_sources::load_once(connected.client).await?;
    }
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    for path in validate::files(&args.files)? {
        let text = objects::read(&path)?;
        let read = read_yaml(&text, &path.display().to_string(), &namespace);
        found.extend(read.diagnostics);
        for object in read.objects {
            set.insert(object.into());
        }
    }
    found.extend(lateen_compile::analyze(&set));
    found.retain(|d| args.concerns(d, &namespace) && !args.suppressed(d));
    report(&args, &found, &namespace)
}

impl Analyze {
    /// Whether a finding is about the namespace asked for; files are always asked for.
    fn concerns(&self, found: &Diagnostic, namespace: &str) -> bool {
        // A Namespace belongs to itself.
        let own = found.object.as_ref().map_or(namespace, |object| {
            if object.kind == "Namespace" {
                object.name.as_str()
            } else {
                object.namespace.as_str()
            }
        });
        let severe = found.severity >= Severity::from(self.output_threshold);
        severe
            && (self.all_namespaces || own.is_empty() || own == namespace || found.source.is_some())
    }

    fn suppressed(&self, found: &Diagnostic) -> bool {
        let Some(object) = &found.object else {
            return false;
        };
        let name = format!("{} {}.{}", object.kind, object.name, object.namespace);
        let bare = format!("{} {}", object.kind, object.name);
        self.suppress.iter().any(|rule| {
            rule.split_once('=').is_some_and(|(code, pattern)| {
                code == found.code.id && (like(pattern, &name) || like(pattern, &bare))
            })
        })
    }
}

/// Whether `text` is what `pattern` says, `*` standing for anything.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len())
                .filter(|i| tail.is_char_boundary(*i))
                .any(|i| like(rest, &tail[i..]))
        }),
    }
}

fn report(args: &Analyze, found: &[Diagnostic], namespace: &str) -> anyhow::Result<()> {
    match args.output {
        Output::Log => {
            for diagnostic in found {
                style::print(&format!("{diagnostic}\n"))?;
            }
            if found.is_empty() {
                let scope = if args.all_namespaces {
                    "all namespaces".to_owned()
                } else {
                    format!("namespace: {namespace}")
                };
                style::done(&format!(
                    "No validation issues found when analyzing {scope}."
                ));
            }
        }
        form => {
            let rows: Vec<_> = found.iter().map(row).collect();
            let text = match form {
                Output::Yaml => serde_saphyr::to_string(&rows)?,
                Output::Json | Output::Log => {
                    format!("{}\n", serde_json::to_string_pretty(&rows)?)
                }
            };
            style::print(&text)?;
        }
    }
    let threshold = Severity::from(args.failure_threshold);
    let worst = found.iter().filter(|d| d.severity >= threshold).count();
    if worst > 0 {
        let why = match args.output {
            Output::Log => "Analyzers found issues".to_owned(),
            Output::Json | Output::Yaml => String::new(),
        };
        return Err(Failure::new(ANALYSIS, why).into());
    }
    Ok(())
}

fn row(found: &Diagnostic) -> serde_json::Value {
    let mut row = json!({
        "code": found.code.id,
        "level": found.severity.to_string(),
        "message": found.message,
    });
    if let Some(object) = &found.object {
        row["origin"] = json!(object.to_string());
    }
    if !found.field.is_empty() {
        row["field"] = json!(found.field);
    }
    if let Some(source) = &found.source {
        row["reference"] = json!(source.to_string());
    }
    if !found.remedy.is_empty() {
        row["remedy"] = json!(found.remedy);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(like("Namespace x", "Namespace x"));
        assert!(like("VirtualService *.shop", "VirtualService a.shop"));
        assert!(!like("VirtualService *.shop", "VirtualService a.other"));
        assert!(like("*", ""));
    }
}
