//! The form of the case files. What every field means is in `cases/README.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::tokens;

/// One file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Configurations that cases of any file name.
    #[serde(default)]
    pub configs: BTreeMap<String, Config>,
    /// Configuration of the cases that name none.
    pub config: Option<String>,
    /// Tokens that cases of any file may carry.
    #[serde(default)]
    pub tokens: BTreeMap<String, tokens::Spec>,
    /// The cases.
    #[serde(default)]
    pub cases: Vec<Case>,
}

/// A listener with its clusters, in Envoy's own fields under short names.
#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Fields of the connection manager.
    #[serde(default)]
    pub hcm: Map<String, Value>,
    /// HTTP filters in front of the router.
    #[serde(default)]
    pub filters: Vec<Value>,
    /// Options of the router filter.
    #[serde(default)]
    pub router: Map<String, Value>,
    /// Routes of the one virtual host; everything to `up` when absent.
    pub routes: Option<Value>,
    /// Fields of that virtual host.
    #[serde(default)]
    pub host: Map<String, Value>,
    /// All virtual hosts, in place of `routes`.
    pub hosts: Option<Value>,
    /// Fields of the route configuration.
    #[serde(default)]
    pub table: Map<String, Value>,
    /// Clusters beside `up`: extra fields, or one of the words
    /// `refused`, `blackhole`, `empty`.
    #[serde(default)]
    pub clusters: BTreeMap<String, Value>,
    /// More access-log operators.
    #[serde(default)]
    pub log: String,
    /// A `json_format` in place of the text line, with the fields beside it.
    pub log_format: Option<Value>,
    /// Filter of the logger.
    pub log_filter: Option<Value>,
    /// A TCP proxy to `up` in place of the connection manager.
    #[serde(default)]
    pub tcp: Option<Map<String, Value>>,
    /// Fields of the listener.
    #[serde(default)]
    pub listener: Map<String, Value>,
}

/// A case, or a family of cases by `each`.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique within its file.
    pub name: String,
    /// Name of a configuration.
    pub config: Option<String>,
    /// The overload action or load shed point under which it is played.
    pub under: Option<String>,
    /// Values for `<key>` in the texts; one case for each combination.
    #[serde(default)]
    pub each: BTreeMap<String, Vec<String>>,
    /// Exact bytes, or steps.
    pub send: Option<Steps>,
    /// Frames of HTTP/2, in the language of `tests/frames/script.rs`.
    pub frames: Option<Steps>,
    /// What else of an HTTP/2 connection is recorded: `settings`, `windows`, `last`.
    #[serde(default)]
    pub show: Vec<String>,
    /// A whole request head, one line each; line ends and the empty line are added.
    pub head: Option<String>,
    /// Bytes after `head`.
    #[serde(default)]
    pub body: String,
    /// Path of a plain GET.
    pub get: Option<String>,
    /// What the upstreams answer.
    #[serde(default)]
    pub upstream: Upstream,
    /// What `up` does on HTTP/2, frame by frame: a script for each connection, the last one again
    /// and again.
    #[serde(default)]
    pub serves: Vec<Steps>,
    /// Answers to wait for.
    pub answers: Option<usize>,
    /// Whether a second request shows that the connection is kept. True by default.
    pub probe: Option<bool>,
    /// Milliseconds to wait for what comes after the answer (mirrors, late ends).
    #[serde(default)]
    pub settle: u64,
    /// First cell of the row of docs/differences.md that says why both differ.
    pub differs: Option<String>,
    /// Words our record must have; with `differs` only.
    #[serde(default)]
    pub ours: Vec<String>,
    /// Words Envoy's record must have; with `differs` only.
    #[serde(default)]
    pub envoys: Vec<String>,
    /// Parts of the record that are not compared, with a comment why: `log`, `upstream`.
    #[serde(default)]
    pub skip: Vec<String>,
}

/// One text or several steps.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub enum Steps {
    /// Exact bytes.
    One(String),
    /// Bytes and orders (`!wait 50`).
    Many(Vec<String>),
}

impl Steps {
    /// The steps in order.
    pub fn list(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Many(all) => all.clone(),
        }
    }
}

/// Answers of the upstream `up`, or of several clusters by name.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub enum Upstream {
    /// One answer for every request.
    One(String),
    /// Answers in turn, the last one again and again.
    List(Vec<Steps>),
    /// By cluster.
    Named(BTreeMap<String, Vec<Steps>>),
}

impl Default for Upstream {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Upstream {
    /// Answers of a cluster; none means the usual one.
    pub fn of(&self, cluster: &str) -> Vec<Vec<String>> {
        match self {
            Self::One(text) if cluster == "up" => vec![vec![text.clone()]],
            Self::List(all) if cluster == "up" => all.iter().map(Steps::list).collect(),
            Self::Named(map) => {
                let all = map.get(cluster).map(Vec::as_slice).unwrap_or_default();
                all.iter().map(Steps::list).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Reads every case file of the folder, sorted by name.
pub fn read_all(folder: &Path) -> Vec<(String, File)> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = tokens::with_key_sets(&std::fs::read_to_string(path).unwrap());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let file = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}.yaml: {e}"));
        (name, file)
    };
    paths.iter().map(read).collect()
}

impl Steps {
    /// Changes every text.
    pub fn each(&mut self, change: impl Fn(&mut String)) {
        match self {
            Self::One(text) => change(text),
            Self::Many(all) => all.iter_mut().for_each(change),
        }
    }
}

impl Upstream {
    /// Changes every text.
    pub fn each(&mut self, change: impl Fn(&mut String)) {
        match self {
            Self::One(text) => change(text),
            Self::List(all) => all.iter_mut().for_each(|s| s.each(&change)),
            Self::Named(map) => {
                let all = map.values_mut().flatten();
                all.for_each(|s| s.each(&change));
            }
        }
    }
}
