//! `validate`: Istio objects in files checked one by one, without a cluster.

use std::path::PathBuf;

use clap::Args;
use lateen_resources::check::check;
use lateen_resources::{Diagnostic, Severity, read_yaml};

use super::objects;
use crate::exit::{BAD_INPUT, Failure, USAGE};
use crate::style;

/// `validate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lateen validate -f reviews.yaml\n  lateen validate -f mesh/      (every .yaml, .yml and .json below it)\n  kubectl get vs -o yaml | lateen validate -f -"
)]
pub struct Validate {
    /// File or folder to check (`-` is standard input); may be repeated
    #[arg(short, long = "filename", visible_alias = "file", value_name = "FILE")]
    filename: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(args: Validate) -> anyhow::Result<()> {
    if args.filename.is_empty() {
        return Err(Failure::new(USAGE, "name a file or a folder with -f").into());
    }
    let mut found: Vec<Diagnostic> = Vec::new();
    for path in files(&args.filename)? {
        let text = objects::read(&path)?;
        let read = read_yaml(&text, &path.display().to_string(), "default");
        found.extend(read.diagnostics);
        found.extend(read.objects.iter().flat_map(check));
    }
    let errors = found
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    for diagnostic in &found {
        style::print(&format!("{diagnostic}\n"))?;
        if let Some(remedy) = unsaid(diagnostic) {
            style::hint(remedy);
        }
    }
    if errors > 0 {
        return Err(Failure::new(BAD_INPUT, format!("{errors} of the findings are errors")).into());
    }
    let names: Vec<String> = args
        .filename
        .iter()
        .map(|path| format!("{path:?}"))
        .collect();
    Ok(style::print(&format!("{} is valid\n", names.join(", ")))?)
}

/// The remedy, where the message does not end with it already.
fn unsaid(diagnostic: &Diagnostic) -> Option<&str> {
    let said = diagnostic.message.ends_with(&diagnostic.remedy);
    (!said).then_some(diagnostic.remedy.as_str())
}

/// The files that a list of files and folders names, folders searched through.
pub fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for path in given {
        if !path.is_dir() {
            out.push(path.clone());
            continue;
        }
        let mut inner: Vec<PathBuf> = std::fs::read_dir(path)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        inner.retain(|p| {
            let ending = p.extension().and_then(|ending| ending.to_str());
            p.is_dir() || matches!(ending, Some("yaml" | "yml" | "json"))
        });
        inner.sort();
        out.extend(files(&inner)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_said_once() {
        let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: {name: v}\nspec: {hostz: [a]}\n";
        let read = read_yaml(text, "v.yaml", "default");
        let found = &read.diagnostics[0];
        assert_eq!(found.remedy, "did you mean \"hosts\"?");
        assert_eq!(found.message.matches("did you mean").count(), 1);
        assert_eq!(unsaid(found), None);
        let apart = Diagnostic::new(found.code, None, "twice").remedy("remove one");
        assert_eq!(unsaid(&apart), Some("remove one"));
    }
}
