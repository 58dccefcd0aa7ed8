//! The form of the cases.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::frames::script::{self, Step};

/// A case as it is written, perhaps a family of cases.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Written {
    /// What is done, in words.
    name: String,
    /// The RFC and section whose rule it is.
    section: String,
    /// Steps in the language of `frames/script.rs`.
    send: Vec<String>,
    /// Reactions, any of which is right; see `judge.rs`.
    allow: Vec<String>,
    /// Values for `<key>` in the steps and reactions.
    #[serde(default)]
    each: BTreeMap<String, Vec<String>>,
    /// Whether a PING may be sent afterwards. True by default.
    probe: Option<bool>,
    /// The stream that `allow` speaks of; the newest one with HEADERS otherwise.
    stream: Option<u32>,
    /// Why it does not pass.
    fails: Option<String>,
}

/// One case.
pub struct Case {
    /// Unique.
    pub name: String,
    /// RFC and section.
    pub section: String,
    /// What is sent.
    pub steps: Vec<Step>,
    /// Reactions that are right.
    pub allow: Vec<String>,
    /// Whether a PING may be sent afterwards.
    pub probe: bool,
    /// The stream that `allow` speaks of.
    pub stream: Option<u32>,
    /// Why it does not pass.
    pub fails: Option<String>,
}

/// The cases of all files, in the order of files.
pub fn read_all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    let mut all: Vec<Case> = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let written: Vec<Written> =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        all.extend(written.iter().flat_map(family));
    }
    let mut names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "two cases of one name");
    all
}

/// A case for each value of its family (one key at most).
fn family(written: &Written) -> Vec<Case> {
    assert!(written.each.len() < 2, "{}: two keys", written.name);
    let Some((key, values)) = written.each.first_key_value() else {
        return vec![made(written, written.name.clone())];
    };
    let pattern = format!("<{key}>");
    let each = values.iter().map(|value| {
        let mut own = written.clone();
        let texts = own.send.iter_mut().chain(&mut own.allow);
        texts.for_each(|text| *text = text.replace(&pattern, value));
        let shown: String = value.escape_default().take(60).collect();
        made(&own, format!("{} [{shown}]", written.name))
    });
    each.collect()
}

fn made(written: &Written, name: String) -> Case {
    assert!(written.section.starts_with("RFC "), "{name}: section");
    Case {
        name,
        section: written.section.clone(),
        steps: script::steps(&written.send),
        allow: written.allow.clone(),
        probe: written.probe != Some(false),
        stream: written.stream,
        fails: written.fails.clone(),
    }
}
