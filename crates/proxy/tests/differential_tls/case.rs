//! The form of the case files. What every field means is in `cases/README.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

/// One file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    listeners: BTreeMap<String, Listener>,
    #[serde(default)]
    certificates: BTreeMap<String, Certificate>,
    #[serde(default)]
    servers: BTreeMap<String, Server>,
    #[serde(default)]
    cases: Vec<Value>,
}

/// All files together.
pub struct Suite {
    /// By name.
    pub listeners: BTreeMap<String, Listener>,
    /// By name.
    pub certificates: BTreeMap<String, Certificate>,
    /// By name.
    pub servers: BTreeMap<String, Server>,
    /// In the order of the files.
    pub cases: Vec<Case>,
}

/// A listener, in Envoy's own fields under short names.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Listener filters: `tls`, `http`, `proxy`, or with fields.
    #[serde(default)]
    pub filters: Vec<Value>,
    /// Further fields of the listener.
    #[serde(default)]
    pub fields: Map<String, Value>,
    /// Filter chains.
    #[serde(default)]
    pub chains: Vec<Chain>,
    /// The default one.
    pub default: Option<Chain>,
    /// Clusters: fields, with `server` for the name of one.
    #[serde(default)]
    pub clusters: BTreeMap<String, Map<String, Value>>,
    /// More access-log operators.
    #[serde(default)]
    pub log: String,
}

/// A filter chain.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Its name, and what it sends to who reaches it.
    pub name: String,
    /// `filter_chain_match`.
    #[serde(default, rename = "match")]
    pub matching: Map<String, Value>,
    /// Fields of the downstream context; plain without.
    pub tls: Option<Value>,
    /// Fields of the connection manager; without it the chain says its name.
    pub http: Option<Map<String, Value>>,
    /// A cluster to which bytes are carried.
    pub tcp: Option<String>,
    /// Further fields of the chain.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// A certificate; one of these names is `$cert.<name>` in a configuration.
#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Who signs: an authority of this name is made; `ca` by default.
    pub by: Option<String>,
    /// Common name.
    pub cn: Option<String>,
    #[serde(default)]
    pub dns: Vec<String>,
    #[serde(default)]
    pub uri: Vec<String>,
    #[serde(default)]
    pub email: Vec<String>,
    #[serde(default)]
    pub ip: Vec<String>,
    /// `client`, `server`, `email`: extended key usages.
    #[serde(default)]
    pub usages: Vec<String>,
    /// Key usages by their names in RFC 5280.
    #[serde(default)]
    pub key_usages: Vec<String>,
    /// Ended in 2020.
    #[serde(default)]
    pub expired: bool,
    /// Begins in 2090.
    #[serde(default)]
    pub early: bool,
    /// Its own issuer.
    #[serde(default)]
    pub self_signed: bool,
    /// May sign others by what it says, and signs none.
    #[serde(default)]
    pub ca: bool,
    /// May sign others (named in their `by`).
    #[serde(default)]
    pub authority: bool,
    /// With an RSA key.
    #[serde(default)]
    pub rsa: bool,
    /// Of X.509 version 1, without any extension.
    #[serde(default)]
    pub version1: bool,
    /// Serial number.
    pub serial: Option<u64>,
}

/// A TLS server behind the proxy: it answers with what it sees of its client.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its certificate.
    pub certificate: String,
    #[serde(default)]
    pub alpn: Vec<String>,
    /// `1.2` or `1.3` only.
    pub version: Option<String>,
    /// Asks for a certificate; anyone's will do.
    #[serde(default)]
    pub asks: bool,
    /// Refuses who shows none.
    #[serde(default)]
    pub requires: bool,
}

/// A case.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique within its file.
    pub name: String,
    /// Name of a listener.
    pub listener: String,
    /// Bytes before everything else.
    #[serde(default)]
    pub before: String,
    /// `full`, `hello` (a ClientHello, then plain bytes), `plain`.
    #[serde(default)]
    pub tls: Mode,
    #[serde(default)]
    pub sni: String,
    #[serde(default)]
    pub alpn: Vec<String>,
    /// `1.2` or `1.3` only.
    pub version: Option<String>,
    /// Cipher suites by rustls' names; all without.
    #[serde(default)]
    pub ciphers: Vec<String>,
    /// The client's certificate.
    pub certificate: Option<String>,
    /// Application bytes. None when empty.
    #[serde(default)]
    pub send: String,
    /// Milliseconds until nothing more is awaited.
    pub quiet: Option<u64>,
    /// First cell of the row of docs/differences.md that says why both differ.
    pub differs: Option<String>,
    /// Words our record must have; with `differs` only.
    #[serde(default)]
    pub ours: Vec<String>,
    /// Lines that begin so are not compared, with a comment why.
    #[serde(default)]
    pub skip: Vec<String>,
}

/// How far TLS goes.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A handshake.
    #[default]
    Full,
    /// A hello, and what comes back as it is.
    Hello,
    /// None.
    Plain,
}

/// Reads every case file whose cases are wanted.
pub fn read_all(wanted: &str) -> Suite {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential_tls/cases");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    let mut suite = Suite {
        listeners: BTreeMap::new(),
        certificates: BTreeMap::new(),
        servers: BTreeMap::new(),
        cases: Vec::new(),
    };
    for path in paths {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let file: File =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{stem}.yaml: {e}"));
        for (name, listener) in file.listeners {
            let before = suite.listeners.insert(name.clone(), listener);
            assert!(before.is_none(), "two listeners {name}");
        }
        suite.certificates.extend(file.certificates);
        suite.servers.extend(file.servers);
        for case in file.cases.into_iter().flat_map(family) {
            let mut case: Case =
                serde_json::from_value(case).unwrap_or_else(|e| panic!("{stem}.yaml: {e}"));
            case.name = format!("{stem}/{}", case.name);
            if case.name.contains(wanted) {
                suite.cases.push(case);
            }
        }
    }
    let mut names: Vec<&str> = suite.cases.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .for_each(|pair| assert_ne!(pair[0], pair[1], "two cases of one name"));
    let used = |name: &String| suite.cases.iter().any(|c| c.listener == *name);
    suite.listeners.retain(|name, _| used(name));
    suite
}

/// The cases of a family: every combination of the values in `each`.
fn family(mut case: Value) -> Vec<Value> {
    let each = case.as_object_mut().unwrap().remove("each");
    let mut all = vec![case];
    for (key, values) in each
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let values = values.as_array().unwrap();
        all = all
            .iter()
            .flat_map(|case| values.iter().map(move |value| filled(case, key, value)))
            .collect();
    }
    all
}

/// `<key>` replaced in all texts; a text that is nothing else takes the value
/// as it is, so that lists may be given.
fn filled(case: &Value, key: &str, value: &Value) -> Value {
    let pattern = format!("<{key}>");
    let shown = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut case = case.clone();
    let name = case["name"].as_str().unwrap();
    case["name"] = Value::String(format!("{name} [{}]", shown.escape_default()));
    fill(&mut case, &pattern, value, &shown);
    case
}

fn fill(into: &mut Value, pattern: &str, value: &Value, shown: &str) {
    match into {
        Value::String(text) if text == pattern => *into = value.clone(),
        Value::String(text) => *text = text.replace(pattern, shown),
        Value::Array(all) => all.iter_mut().for_each(|v| fill(v, pattern, value, shown)),
        Value::Object(map) => map
            .values_mut()
            .for_each(|v| fill(v, pattern, value, shown)),
        _ => {}
    }
}
