//! Who a proxy says it is: the node id `<kind>~<ip>~<pod>.<ns>~<domain>`, its metadata
//! and the extensions it was built with. All of it is the proxy's word: names must be names,
//! sizes are bounded, and what cannot be understood is left out with a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lateen_model::Str;
use lateen_xds_proto::envoy::config::core::v3::Node;
use lateen_xds_proto::google::protobuf::value::Kind;
use lateen_xds_proto::{Struct, Value};

/// The role a proxy plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Beside an application, id prefix `sidecar`.
    Sidecar,
    /// At the edge, id prefix `router`.
    Router,
}

impl NodeKind {
    /// The id's prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// Longest node id: names of Kubernetes are at most 253 characters long.
const LONGEST_ID: usize = 1024;
/// Longest metadata text, locality part or label that is read.
const LONGEST_TEXT: usize = 2048;
/// Most addresses and labels of one proxy.
const MOST_ADDRESSES: usize = 64;
const MOST_LABELS: usize = 256;
/// Warnings about one node; one that earns more has earned enough.
const MOST_WARNINGS: usize = 16;

/// The metadata that is read; the rest of it is not kept.
const TEXTS: [&str; 11] = [
    "CLUSTER_ID",
    "DNS_CAPTURE",
    "HTTP10",
    "INSTANCE_IPS",
    "INTERCEPTION_MODE",
    "ISTIO_VERSION",
    "NAMESPACE",
    "NETWORK",
    "NODE_NAME",
    "SERVICE_ACCOUNT",
    "WORKLOAD_NAME",
];
/// Metadata that is one of a few words.
const WORDS: [(&str, &[&str]); 3] = [
    ("DNS_CAPTURE", &["", "true", "false"]),
    ("HTTP10", &["", "1", "0", "true", "false"]),
    ("INTERCEPTION_MODE", &["", "REDIRECT", "TPROXY", "NONE"]),
];

/// Why a node is refused; the text goes back to the proxy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeError {
    /// The first request carries no node.
    #[error("the first request of a stream must carry a node")]
    Missing,
    /// Not four parts, or an empty one.
    #[error("node id {0:?} is not <sidecar|router>~<ip>~<pod>.<namespace>~<domain>")]
    Shape(String),
    /// A role that is not served.
    #[error("node id {0:?}: unknown kind, expected sidecar or router")]
    Kind(String),
    /// No address where one should be.
    #[error("node id {0:?}: the second part is no IP address")]
    Address(String),
    /// Longer than any id is.
    #[error("the node id is {0} bytes long, at most {LONGEST_ID} are read")]
    Long(usize),
    /// A name that no Kubernetes object could have.
    #[error(
        "{what} {name:?} is no name: letters, digits, '-', '_' and '.' are allowed, at most {most}"
    )]
    Name {
        /// Whose name it should be.
        what: &'static str,
        /// The name, cut short.
        name: String,
        /// Most characters.
        most: usize,
    },
}

/// A proxy as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The whole id.
    pub id: String,
    /// Its role.
    pub kind: NodeKind,
    /// The address of the id, then those of `INSTANCE_IPS`.
    pub addresses: Vec<IpAddr>,
    /// The pod's name, or what the id has in its place.
    pub name: String,
    /// The namespace: metadata `NAMESPACE`, else the id's.
    pub namespace: String,
    /// The DNS domain of the id, `<ns>.svc.<cluster domain>`.
    pub domain: String,
    /// Labels that the proxy claims (`LABELS`); the Pod object, where known, wins.
    pub labels: BTreeMap<String, String>,
    /// The metadata that is read, as text.
    pub metadata: BTreeMap<&'static str, String>,
    /// Locality as `region/zone/subzone`, empty when not given.
    pub locality: String,
    /// The extensions the proxy lists, cut down to those the generator asks about; `None`
    /// when it lists none, which is how the mesh's own proxy says that it has all of them.
    pub extensions: Option<Arc<BTreeSet<Str>>>,
    /// What was left out, in words for the log and the debug pages.
    pub warnings: Vec<String>,
}

impl NodeInfo {
    /// Reads a node.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn parse(node: Option<&Node>) -> Result<Self, NodeError> {
        let node = node.ok_or(NodeError::Missing)?;
        if node.id.len() > LONGEST_ID {
            return Err(NodeError::Long(node.id.len()));
        }
        let shape = || NodeError::Shape(node.id.clone());
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, address, workload, domain] = parts[..] else {
            return Err(shape());
        };
        let kind = match kind {
            "sidecar" => NodeKind::Sidecar,
            "router" => NodeKind::Router,
            _ => return Err(NodeError::Kind(node.id.clone())),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| NodeError::Address(node.id.clone()))?;
        let (name, id_namespace) = workload.rsplit_once('.').ok_or_else(shape)?;
        if name.is_empty() || id_namespace.is_empty() {
            return Err(shape());
        }
        let mut warnings = Warnings::default();
        let empty = Struct::default();
        let fields = node.metadata.as_ref().unwrap_or(&empty);
        let metadata = texts(fields, &mut warnings);
        let namespace = metadata.get("NAMESPACE").filter(|n| !n.is_empty());
        let namespace = namespace.map_or(id_namespace, String::as_str).to_owned();
        // These stand in logs, in tables and beside the names of service accounts.
        check_name("the pod", name, 253)?;
        check_name("the namespace", &namespace, 63)?;
        if !domain.is_empty() {
            check_name("the DNS domain", domain, 253)?;
        }
        Ok(Self {
            id: node.id.clone(),
            kind,
            addresses: addresses(address, metadata.get("INSTANCE_IPS"), &mut warnings),
            name: name.to_owned(),
            namespace,
            domain: domain.to_owned(),
            labels: labels(fields.fields.get("LABELS"), &mut warnings),
            metadata,
            locality: locality(node, &mut warnings),
            extensions: extensions(node),
            warnings: warnings.0,
        })
    }

    /// `<pod>.<ns>`, the name of a proxy in tables.
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// A metadata value as text, empty when absent.
    pub fn meta(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }
}

/// What was left out, a bounded list.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn add(&mut self, make: impl FnOnce() -> String) {
        if self.0.len() < MOST_WARNINGS {
            self.0.push(make());
        }
    }
}

/// Foreign text for a message: without control characters, cut short.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let cut: String = text.chars().take(MOST).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}

/// Names of pods, namespaces and domains, a little wider than Kubernetes takes them:
/// proxies outside of it name themselves.
fn check_name(what: &'static str, name: &str, most: usize) -> Result<(), NodeError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= most && name.chars().all(plain) {
        return Ok(());
    }
    Err(NodeError::Name {
        what,
        name: name.chars().take(80).collect(),
        most,
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Kind::StringValue(s) if s.len() <= LONGEST_TEXT => Some(s.clone()),
        Kind::NumberValue(n) => Some(n.to_string()),
        Kind::BoolValue(b) => Some(b.to_string()),
        _ => None,
    }
}

fn texts(fields: &Struct, warnings: &mut Warnings) -> BTreeMap<&'static str, String> {
    let mut out = BTreeMap::new();
    for key in TEXTS {
        let Some(value) = fields.fields.get(key) else {
            continue;
        };
        match scalar(value) {
            Some(text) => {
                out.insert(key, text);
            }
            None => warnings.add(|| {
                format!("metadata {key} is no text of at most {LONGEST_TEXT} bytes: ignored")
            }),
        }
    }
    for (key, allowed) in WORDS {
        if let Some(text) = out.get(key)
            && !allowed.contains(&text.as_str())
        {
            let allowed = allowed[1..].join(", ");
            warnings.add(|| {
                format!(
                    "metadata {key} is {}, not one of {allowed}: ignored",
                    shown(text)
                )
            });
            out.remove(key);
        }
    }
    out
}

fn addresses(own: IpAddr, more: Option<&String>, warnings: &mut Warnings) -> Vec<IpAddr> {
    let mut out = vec![own];
    let words = more.map_or("", String::as_str).split(',').map(str::trim);
    for word in words.filter(|w| !w.is_empty()) {
        let Ok(ip) = word.parse() else {
            warnings.add(|| format!("INSTANCE_IPS: {} is no IP address: ignored", shown(word)));
            continue;
        };
        if out.len() >= MOST_ADDRESSES {
            warnings.add(|| format!("INSTANCE_IPS: only {MOST_ADDRESSES} addresses are read"));
            break;
        }
        if !out.contains(&ip) {
            out.push(ip);
        }
    }
    out
}

/// Labels in the order of their keys, so that the same ones are read each time.
fn labels(value: Option<&Value>, warnings: &mut Warnings) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let claimed = match value.and_then(|v| v.kind.as_ref()) {
        None | Some(Kind::NullValue(_)) => return out,
        Some(Kind::StructValue(s)) => s,
        Some(_) => {
            warnings.add(|| "metadata LABELS is no object: ignored".to_owned());
            return out;
        }
    };
    let mut entries: Vec<_> = claimed.fields.iter().collect();
    entries.sort_by_key(|(k, _)| *k);
    for (key, value) in entries {
        if out.len() >= MOST_LABELS {
            warnings.add(|| format!("LABELS: only {MOST_LABELS} labels are read"));
            break;
        }
        match scalar(value) {
            Some(text) if key.len() <= LONGEST_TEXT => {
                out.insert(key.clone(), text);
            }
            _ => {
                warnings.add(|| format!("LABELS: {} has no text as its value: ignored", shown(key)))
            }
        }
    }
    out
}

fn locality(node: &Node, warnings: &mut Warnings) -> String {
    let Some(l) = &node.locality else {
        return String::new();
    };
    let parts = [&l.region, &l.zone, &l.sub_zone];
    let plain = |p: &&String| p.len() <= LONGEST_TEXT && !p.contains(['/', '*']);
    if !parts.iter().all(plain) {
        warnings.add(|| "the locality is too long or has '/' or '*' in a part: ignored".to_owned());
        return String::new();
    }
    let text = format!("{}/{}/{}", l.region, l.zone, l.sub_zone);
    text.trim_end_matches('/').to_owned()
}

fn extensions(node: &Node) -> Option<Arc<BTreeSet<Str>>> {
    if node.extensions.is_empty() {
        return None;
    }
    let asked = |name: &&str| lateen_xds::EXTENSIONS.contains(name);
    let names = node
        .extensions
        .iter()
        .map(|e| e.name.as_str())
        .filter(asked);
    Some(Arc::new(names.map(Str::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_xds_proto::envoy::config::core::v3::Extension;

    fn node(id: &str) -> Node {
        Node {
            id: id.into(),
            ..Node::default()
        }
    }

    #[test]
    fn a_sidecar_introduces_itself() {
        let mut n = node("sidecar~10.1.2.3~reviews-v1-abc.default~default.svc.cluster.local");
        let text = |s: &str| Value {
            kind: Some(Kind::StringValue(s.into())),
        };
        let mut meta = Struct::default();
        meta.fields
            .insert("INSTANCE_IPS".into(), text("10.1.2.3,fd00::3"));
        let mut l = Struct::default();
        l.fields.insert("app".into(), text("reviews"));
        meta.fields.insert(
            "LABELS".into(),
            Value {
                kind: Some(Kind::StructValue(l)),
            },
        );
        n.metadata = Some(meta);
        n.extensions = vec![Extension {
            name: "envoy.filters.http.router".into(),
            ..Extension::default()
        }];
        let info = NodeInfo::parse(Some(&n)).expect("good node");
        assert_eq!(info.display_name(), "reviews-v1-abc.default");
        assert_eq!(info.addresses.len(), 2);
        assert_eq!(info.labels["app"], "reviews");
        assert!(
            info.extensions
                .expect("listed")
                .contains("envoy.filters.http.router")
        );
    }

    fn text(s: &str) -> Value {
        Value {
            kind: Some(Kind::StringValue(s.into())),
        }
    }

    fn with(fields: Vec<(&str, Value)>) -> NodeInfo {
        let mut n = node("sidecar~10.1.2.3~a.default~default.svc.cluster.local");
        let fields = fields.into_iter().map(|(k, v)| (k.to_owned(), v));
        n.metadata = Some(Struct {
            fields: fields.collect(),
        });
        NodeInfo::parse(Some(&n)).expect("odd metadata is no reason to refuse a proxy")
    }

    fn object(fields: Vec<(String, Value)>) -> Value {
        let fields = fields.into_iter().collect();
        Value {
            kind: Some(Kind::StructValue(Struct { fields })),
        }
    }

    #[test]
    fn values_of_a_wrong_type_or_size_are_left_out_with_a_warning() {
        for key in TEXTS {
            let odd = [
                object(vec![("a".into(), text("b"))]),
                Value { kind: None },
                Value {
                    kind: Some(Kind::NullValue(0)),
                },
                text(&"x".repeat(LONGEST_TEXT + 1)),
            ];
            for value in odd {
                let info = with(vec![(key, value)]);
                assert_eq!(info.meta(key), "", "{key}");
                assert_eq!(info.warnings.len(), 1, "{key}: {:?}", info.warnings);
                assert!(info.warnings[0].contains(key), "{:?}", info.warnings);
            }
        }
        let nan = Value {
            kind: Some(Kind::NumberValue(f64::NAN)),
        };
        assert_eq!(with(vec![("NETWORK", nan)]).meta("NETWORK"), "NaN");
        let info = with(vec![
            ("INTERCEPTION_MODE", text("tproxy\u{1b}[31m")),
            ("HTTP10", text("yes")),
        ]);
        assert_eq!(info.warnings.len(), 2, "{:?}", info.warnings);
        assert!(!info.warnings.concat().contains('\u{1b}'));
        assert_eq!(info.meta("INTERCEPTION_MODE"), "");
        // What nobody reads is not kept.
        let big = with(vec![("ANYTHING", text(&"x".repeat(1 << 20)))]);
        assert!(big.metadata.is_empty() && big.warnings.is_empty());
    }

    #[test]
    fn labels_and_addresses_are_bounded() {
        let many = (0..10_000)
            .map(|i| (format!("k{i:05}"), text("v")))
            .collect();
        let info = with(vec![("LABELS", object(many))]);
        assert_eq!(info.labels.len(), MOST_LABELS);
        assert!(info.labels.contains_key("k00000"), "the first by name");
        assert_eq!(info.warnings.len(), 1);
        let odd = with(vec![("LABELS", text("app=reviews"))]);
        assert!(odd.labels.is_empty() && odd.warnings.len() == 1);
        let deep = object(vec![("x".into(), object(vec![]))]);
        assert_eq!(with(vec![("LABELS", deep)]).warnings.len(), 1);

        let ips: Vec<String> = (0..100).map(|i| format!("10.9.0.{i}")).collect();
        let info = with(vec![("INSTANCE_IPS", text(&ips.join(",")))]);
        assert_eq!(info.addresses.len(), MOST_ADDRESSES);
        let info = with(vec![(
            "INSTANCE_IPS",
            text("10.1.2.3, nine,,::1,999.1.1.1"),
        )]);
        assert_eq!(info.addresses.len(), 2, "{:?}", info.addresses);
        assert_eq!(info.warnings.len(), 2, "{:?}", info.warnings);
        let noisy = vec!["x"; 900].join(",");
        let info = with(vec![("INSTANCE_IPS", text(&noisy))]);
        assert_eq!(info.warnings.len(), MOST_WARNINGS);
    }

    #[test]
    fn names_that_would_forge_a_line_or_a_path_are_refused() {
        let long = format!("sidecar~1.1.1.1~{}.b~c", "a".repeat(2000));
        for (id, want) in [
            (long.as_str(), "bytes long"),
            ("sidecar~1.1.1.1~a\nb.default~c", "the pod"),
            ("sidecar~1.1.1.1~a.de/fault~c", "the namespace"),
            ("sidecar~1.1.1.1~a.default~c d", "the DNS domain"),
        ] {
            let e = NodeInfo::parse(Some(&node(id)))
                .expect_err(want)
                .to_string();
            assert!(e.contains(want) && !e.contains('\n'), "{e}");
            assert!(e.len() < 400, "{e}");
        }
        let mut n = node("sidecar~1.1.1.1~a.default~c");
        n.metadata = Some(Struct {
            fields: [("NAMESPACE".to_owned(), text("default\nroot"))].into(),
        });
        assert!(NodeInfo::parse(Some(&n)).is_err());
    }

    #[test]
    fn a_locality_with_a_pattern_in_it_is_ignored() {
        let mut n = node("sidecar~1.1.1.1~a.default~c");
        n.locality = Some(lateen_xds_proto::envoy::config::core::v3::Locality {
            region: "a/b".into(),
            ..Default::default()
        });
        let info = NodeInfo::parse(Some(&n)).expect("a node");
        assert_eq!((info.locality.as_str(), info.warnings.len()), ("", 1));
    }

    #[test]
    fn bad_ids_are_refused_with_a_reason() {
        assert_eq!(NodeInfo::parse(None), Err(NodeError::Missing));
        for (id, want) in [
            ("x", "is not <sidecar"),
            ("ztunnel~1.1.1.1~a.b~c", "unknown kind"),
            ("sidecar~nine~a.b~c", "no IP address"),
            ("sidecar~1.1.1.1~a~c", "is not <sidecar"),
        ] {
            let e = NodeInfo::parse(Some(&node(id))).expect_err(id).to_string();
            assert!(e.contains(want), "{id}: {e}");
        }
    }
}
