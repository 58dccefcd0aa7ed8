//! Bootstraps beside the real Envoy: what Envoy takes is taken, what it refuses is refused, and the
//! refusal names file, line and field. The table is `bootstraps.yaml`. LATEEN_ENVOY names Envoy as
//! in `differential`.

#[path = "differential/envoy.rs"]
#[expect(dead_code, reason = "only Envoy's verdict is asked for here")]
mod envoy;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lateen_proxy_xds::bootstrap::{Overrides, Source};
use lateen_proxy_xds::decode::Context;
use lateen_proxy_xds::validate;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The field that the refusal names; empty = the text itself; none = it is taken.
    refused: Option<String>,
    /// Why it is refused where Envoy takes it.
    stricter: Option<String>,
    text: String,
}

impl Case {
    /// JSON has a name of its own to Envoy.
    fn file(&self, folder: &Path, at: usize) -> String {
        let json = self.text.trim_start().starts_with("{\n");
        let end = if json { "json" } else { "yaml" };
        format!("{}/{at}.{end}", folder.display())
    }

    /// What is wrong with our verdict.
    fn ours(&self, file: &str) -> Option<String> {
        let source = Source {
            name: file,
            text: &self.text,
        };
        let verdict = validate(&[source], &Overrides::default(), Context::files());
        match (&self.refused, verdict) {
            (None, Ok(())) => None,
            (None, Err(error)) => Some(format!("refused: {error}")),
            (Some(_), Ok(())) => Some("taken".to_owned()),
            (Some(field), Err(error)) => self.named(&error, file, field),
        }
    }

    fn named(&self, error: &str, file: &str, field: &str) -> Option<String> {
        let rest = error.strip_prefix(file).and_then(|r| r.strip_prefix(':'));
        let line = rest.map(|r| r.split(':').next().unwrap_or_default());
        let line: Option<usize> = line.and_then(|l| l.parse().ok());
        let lines = self.text.lines().count();
        if line.is_none_or(|line| line == 0 || line > lines + 1) {
            return Some(format!("without file and line: {error}"));
        }
        (!error.contains(field)).then(|| format!("without the field {field}: {error}"))
    }
}

fn takes(envoy: &Path, file: &str) -> bool {
    let mut command = Command::new(envoy);
    command.args(["--mode", "validate", "-l", "off", "-c", file]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn bootstraps_are_taken_and_refused_as_envoy_does() {
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bootstraps.yaml");
    let table = std::fs::read_to_string(table).unwrap();
    let cases: Vec<Case> = serde_saphyr::from_str(&table).unwrap();
    assert!(cases.iter().filter(|c| c.refused.is_some()).count() > 40);
    let folder = tempfile::tempdir().unwrap();
    let program = envoy::find();
    if program.is_none() {
        println!("SKIPPED in part: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let one = |at: usize, case: &Case| {
        let file = case.file(folder.path(), at);
        std::fs::write(&file, &case.text).unwrap();
        let fault = |what: String| wrong.lock().unwrap().push(format!("{}: {what}", case.name));
        if let Some(what) = case.ours(&file) {
            fault(what);
        }
        let Some(program) = &program else { return };
        let taken = takes(program, &file);
        let both = case.refused.is_none() || case.stricter.is_some();
        if taken != both {
            fault(format!(
                "Envoy {} it",
                if taken { "takes" } else { "refuses" }
            ));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(at) else { return };
                    one(at, case);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
