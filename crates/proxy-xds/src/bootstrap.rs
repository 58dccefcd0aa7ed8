//! Envoy's bootstrap: YAML or JSON text to checked settings and raw static resources.
#![expect(deprecated, reason = "an old field must be refused, not passed over")]

mod fields;
mod overload;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::bootstrap::{
    Admin, Ads, Bootstrap, Node, StatsMatcher, Subscription, XdsMode,
};
use lateen_proxy_core::config::{Address, Fields, Name, Value};
use lateen_xds_proto::envoy::config::bootstrap::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::config::metrics::v3 as metrics;
use lateen_xds_proto::{Message, json};

use crate::decode;
use crate::error::{At, DecodeError, Result, list, refuse};
use crate::locate;

const MESSAGE: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Raw static resources: (name, wire bytes).
#[derive(Clone, Debug, Default)]
pub struct StaticResources {
    /// Listeners.
    pub listeners: Vec<(Name, Arc<[u8]>)>,
    /// Clusters.
    pub clusters: Vec<(Name, Arc<[u8]>)>,
    /// Secrets.
    pub secrets: Vec<(Name, Arc<[u8]>)>,
}

/// A loaded bootstrap.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where it is from, as errors name it: the first file or flag; may be empty.
    pub file: String,
    /// Settings of the process.
    pub bootstrap: Bootstrap,
    /// The node as it is sent to the management server.
    pub node: core::Node,
    /// Static resources, not decoded yet.
    pub fixed: StaticResources,
    /// The bootstrap's wire bytes without what `fixed` has.
    pub raw: Arc<[u8]>,
    /// Fields that were passed over (only with `allow_unknown`).
    pub unknown: Vec<String>,
    /// Names and texts of the sources, for who wants the line of a bad resource in its error. They
    /// live until the resources are decoded: a large bootstrap is not to be held.
    pub texts: Vec<(String, String)>,
}

/// Why a bootstrap is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BootstrapError {
    /// Which text: a file name or a flag.
    pub file: String,
    /// The line that is wrong, or that of the field; none where the text has no such place.
    pub line: Option<u64>,
    /// The field; empty where the text itself is wrong.
    pub path: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl BootstrapError {
    /// With the line of its field, which stands in one of these texts.
    #[must_use]
    fn located(mut self, sources: &[Source<'_>]) -> Self {
        if self.line.is_none() {
            // What is missing altogether is missing from the first line on.
            let (file, line) = locate(sources, &self.path).unwrap_or((&self.file, 1));
            (self.file, self.line) = (file.to_owned(), Some(line));
        }
        self
    }
}

/// The text and line in which a field of a bootstrap stands: the first text that has it.
#[must_use]
pub fn locate<'a>(sources: &[Source<'a>], path: &str) -> Option<(&'a str, u64)> {
    let lines = |s: &Source<'a>| Some((s.name, locate::line(s.text, path)?));
    sources.iter().find_map(lines)
}

/// What stands behind `line ` in a reader's message.
fn line_of(problem: &str) -> Option<u64> {
    let (_, rest) = problem.split_once("line ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// A piece of bootstrap text and where it is from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// File name, or `--config-yaml`.
    pub name: &'a str,
    /// YAML or JSON.
    pub text: &'a str,
}

/// Flags that change a bootstrap.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--service-node`.
    pub service_node: Option<String>,
    /// `--service-cluster`.
    pub service_cluster: Option<String>,
    /// `--service-zone`.
    pub service_zone: Option<String>,
    /// `--allow-unknown-static-fields`.
    pub allow_unknown: bool,
}

/// Loads a bootstrap from one or more texts; later ones are merged over earlier ones as protobuf
/// merges: scalars replace, lists are joined.
///
/// # Errors
/// When a text is no YAML or JSON, has fields that are not known, or asks for what is not done.
pub fn load(
    sources: &[Source<'_>],
    overrides: &Overrides,
) -> std::result::Result<Loaded, BootstrapError> {
    let mut values = Vec::with_capacity(sources.len());
    for source in sources {
        match crate::text::value(source.text) {
            Ok(value) => values.push((source.name, value)),
            Err(problem) => {
                return Err(BootstrapError {
                    file: source.name.to_owned(),
                    line: line_of(&problem),
                    path: String::new(),
                    problem,
                });
            }
        }
    }
    load_values(values, overrides).map_err(|error| error.located(sources))
}

/// [`load`] of values that were read before, each with its name for messages.
pub(crate) fn load_values(
    sources: Vec<(&str, serde_json::Value)>,
    overrides: &Overrides,
) -> std::result::Result<Loaded, BootstrapError> {
    let mut wire = Vec::new();
    let mut unknown = Vec::new();
    for (name, value) in &sources {
        let fail = |error: DecodeError| BootstrapError {
            file: (*name).to_owned(),
            line: None,
            path: error.path,
            problem: error.problem,
        };
        if !value.is_object() {
            return Err(fail(DecodeError::new(
                "a bootstrap is a map with `node`, `admin`, `static_resources`, ...",
            )));
        }
        let options = json::ParseOptions {
            allow_unknown: overrides.allow_unknown,
            loose: true,
            ..json::ParseOptions::default()
        };
        let parsed = json::to_wire_with(MESSAGE, value, &options).map_err(|e| fail(e.into()))?;
        // Wire bytes one after the other are a merge.
        wire.extend_from_slice(&parsed.wire);
        unknown.extend(parsed.unknown);
    }
    let file = sources.first().map_or("bootstrap", |s| s.0).to_owned();
    let fail = |e: DecodeError| BootstrapError {
        file: file.clone(),
        line: None,
        path: e.path,
        problem: e.problem,
    };
    let mut message =
        pb::Bootstrap::decode(&wire[..]).map_err(|e| fail(DecodeError::new(e.to_string())))?;
    apply(&mut message, overrides);
    drop((sources, wire));
    let mut loaded = from_message(message).map_err(&fail)?;
    loaded.unknown = unknown;
    loaded.file = file.clone();
    Ok(loaded)
}

fn apply(message: &mut pb::Bootstrap, overrides: &Overrides) {
    let node = message.node.get_or_insert_with(core::Node::default);
    if let Some(id) = &overrides.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &overrides.service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &overrides.service_zone {
        node.locality
            .get_or_insert_with(core::Locality::default)
            .zone
            .clone_from(zone);
    }
}

/// Takes a bootstrap message apart.
///
/// # Errors
/// When it asks for what is not done.
pub fn from_message(mut m: pb::Bootstrap) -> Result<Loaded> {
    let mut node = m.node.clone().unwrap_or_default();
    node.user_agent_name = "envoy".to_owned();
    node.user_agent_version_type = Some(core::node::UserAgentVersionType::UserAgentBuildVersion(
        build_version(),
    ));
    let bootstrap = settings(&m, &node)?;
    let fixed = m.static_resources.as_mut().map(taken).unwrap_or_default();
    if let Some(ads) = &bootstrap.ads
        && !fixed.clusters.iter().any(|(name, _)| *name == ads.cluster)
    {
        return refuse(format!("unknown gRPC client cluster '{}'", ads.cluster))
            .at("cluster_name")
            .at("envoy_grpc")
            .item("grpc_services", 0)
            .at("ads_config")
            .at("dynamic_resources");
    }
    Ok(Loaded {
        file: String::new(),
        bootstrap,
        node,
        fixed,
        raw: m.encode_to_vec().into(),
        unknown: vec![],
        texts: vec![],
    })
}

/// Takes the resources out of the message; each is let go once it is wire bytes.
fn taken(m: &mut pb::bootstrap::StaticResources) -> StaticResources {
    fn each<T: Message>(list: &mut Vec<T>, name: impl Fn(&T) -> &str) -> Vec<(Name, Arc<[u8]>)> {
        // Not collected from the list's own iterator: that would keep the messages' memory.
        let mut out = Vec::with_capacity(list.len());
        for m in std::mem::take(list) {
            out.push((name(&m).into(), m.encode_to_vec().into()));
        }
        out
    }
    StaticResources {
        listeners: each(&mut m.listeners, |l| &l.name),
        clusters: each(&mut m.clusters, |c| &c.name),
        secrets: each(&mut m.secrets, |s| &s.name),
    }
}

impl Loaded {
    /// The bootstrap's wire bytes, for the config dump.
    #[must_use]
    pub fn wire(&self) -> Vec<u8> {
        /// `static_resources` of a bootstrap, and its lists.
        const STATIC: u32 = 2;
        let mut inner = Vec::new();
        let fixed = &self.fixed;
        for (field, list) in [
            (1, &fixed.listeners),
            (2, &fixed.clusters),
            (3, &fixed.secrets),
        ] {
            for (_, raw) in list {
                piece(field, raw, &mut inner);
            }
        }
        let mut wire = self.raw.to_vec();
        if !inner.is_empty() {
            // A message that comes in two pieces is merged from them.
            piece(STATIC, &inner, &mut wire);
        }
        wire
    }
}

/// A field of bytes, or of a message.
fn piece(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    use prost::encoding::{WireType, encode_key, encode_varint};
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The Envoy version whose behaviour this proxy reproduces.
fn build_version() -> core::BuildVersion {
    core::BuildVersion {
        version: Some(lateen_xds_proto::envoy::r#type::v3::SemanticVersion {
            major_number: 1,
            minor_number: 40,
            patch: 0,
        }),
        metadata: Some(decode::json_to_struct(
            &serde_json::json!({ "build.type": "RELEASE", "ssl.version": "rustls" }),
        )),
    }
}

fn settings(m: &pb::Bootstrap, node: &core::Node) -> Result<Bootstrap> {
    fields::refuse_undone(m)?;
    let dynamic = m.dynamic_resources.clone().unwrap_or_default();
    let ads = dynamic
        .ads_config
        .as_ref()
        .map(ads)
        .transpose()
        .at("ads_config")
        .at("dynamic_resources")?;
    let fetch = |source: Option<&core::ConfigSource>, field: &str| -> Result<Option<_>> {
        source
            .map(|s| subscription(s, ads.is_some()))
            .transpose()
            .at(field)
            .at("dynamic_resources")
    };
    let (lds, cds) = (
        fetch(dynamic.lds_config.as_ref(), "lds_config")?,
        fetch(dynamic.cds_config.as_ref(), "cds_config")?,
    );
    if ads.is_some() && (node.id.is_empty() || node.cluster.is_empty()) {
        return refuse("`id` and `cluster` are required with xDS; set them here or by --service-node and --service-cluster")
            .at("node");
    }
    let flush = m
        .stats_flush_interval
        .as_ref()
        .map(decode::duration)
        .transpose()
        .at("stats_flush_interval")?;
    let (max_downstream_connections, overload) =
        overload::manager(m.overload_manager.as_ref()).at("overload_manager")?;
    Ok(Bootstrap {
        node: node_value(node),
        admin: admin(m)?,
        ads,
        lds,
        cds,
        stats_flush_interval: flush.unwrap_or(Duration::from_secs(5)),
        stats_matcher: stats_matcher(m).at("stats_config.stats_matcher")?,
        max_downstream_connections,
        overload,
        runtime: runtime(m),
    })
}

fn node_value(node: &core::Node) -> Node {
    let metadata = node.metadata.as_ref().map(decode::struct_to_value);
    Node {
        id: node.id.as_str().into(),
        cluster: node.cluster.as_str().into(),
        metadata: match metadata {
            Some(Value::Struct(map)) => map,
            _ => Fields::new(),
        },
        locality: decode::locality_value(node.locality.as_ref()),
    }
}

fn admin(m: &pb::Bootstrap) -> Result<Admin> {
    let Some(a) = &m.admin else {
        return Ok(Admin::default());
    };
    let address = a.address.as_ref().map(admin_address).transpose();
    Ok(Admin {
        address: address.at("address").at("admin")?,
        ignore_global_conn_limit: a.ignore_global_conn_limit,
        allow_paths: list(&a.allow_paths, "allow_paths", decode::string_matcher).at("admin")?,
        mode: decode::pipe_mode(a.address.as_ref())
            .at("address")
            .at("admin")?,
    })
}

/// The address of the admin pages: a TCP socket or a Unix one.
fn admin_address(m: &core::Address) -> Result<Address> {
    match decode::own_address(m)? {
        Address::Host { host, .. } => refuse(format!("malformed IP address: {host}"))
            .at("address")
            .at("socket_address"),
        Address::Internal(_) => {
            refuse("is not implemented; socket_address and pipe are").at("envoy_internal_address")
        }
        own => Ok(own),
    }
}

fn ads(m: &core::ApiConfigSource) -> Result<Ads> {
    use core::api_config_source::ApiType as T;
    use core::grpc_service::TargetSpecifier as G;
    if m.transport_api_version == core::ApiVersion::V2 as i32 {
        return refuse("must be V3").at("transport_api_version");
    }
    let mode = match T::try_from(m.api_type) {
        Ok(T::Grpc | T::AggregatedGrpc) => XdsMode::StateOfTheWorld,
        Ok(T::DeltaGrpc | T::AggregatedDeltaGrpc) => XdsMode::Delta,
        _ => return refuse("must be GRPC or DELTA_GRPC").at("api_type"),
    };
    let Some(service) = m.grpc_services.first() else {
        return refuse("is required").at("grpc_services");
    };
    let cluster = match service.target_specifier.as_ref() {
        Some(G::EnvoyGrpc(g)) if !g.cluster_name.is_empty() => g.cluster_name.as_str().into(),
        Some(G::EnvoyGrpc(_)) => {
            return refuse("is required")
                .at("cluster_name")
                .at("envoy_grpc")
                .item("grpc_services", 0);
        }
        Some(G::GoogleGrpc(_)) => {
            return refuse("is not implemented; use envoy_grpc")
                .at("google_grpc")
                .item("grpc_services", 0);
        }
        None => return refuse("envoy_grpc is required").item("grpc_services", 0),
    };
    Ok(Ads {
        mode,
        cluster,
        initial_metadata: service
            .initial_metadata
            .iter()
            .map(|h| (h.key.to_ascii_lowercase().into(), h.value.as_str().into()))
            .collect(),
        set_node_on_first_message_only: m.set_node_on_first_message_only,
    })
}

fn subscription(m: &core::ConfigSource, has_ads: bool) -> Result<Subscription> {
    use core::config_source::ConfigSourceSpecifier as S;
    decode::only_v3(m)?;
    let timeout = Duration::from_millis(decode::fetch_timeout(m)?);
    match &m.config_source_specifier {
        Some(S::Ads(_)) if has_ads => Ok(Subscription::Ads(timeout)),
        Some(S::Ads(_)) => refuse("`ads` needs dynamic_resources.ads_config"),
        Some(S::ApiConfigSource(_)) => {
            refuse("is not implemented; use `ads`").at("api_config_source")
        }
        Some(S::Self_(_)) => refuse("is not implemented; use `ads`").at("self"),
        _ => match decode::watched_file(m)? {
            Some(file) => Ok(Subscription::File(file)),
            None => refuse("a config source is required: `ads` or path_config_source"),
        },
    }
}

fn stats_matcher(m: &pb::Bootstrap) -> Result<StatsMatcher> {
    use metrics::stats_matcher::StatsMatcher as S;
    let mut out = StatsMatcher::default();
    match m
        .stats_config
        .as_ref()
        .and_then(|c| c.stats_matcher.as_ref())
        .and_then(|m| m.stats_matcher.as_ref())
    {
        None | Some(S::RejectAll(false)) => {}
        Some(S::RejectAll(true)) => out.reject_all = true,
        Some(S::InclusionList(l)) => {
            out.inclusion = decode::string_matcher_list(&l.patterns).at("inclusion_list")?
        }
        Some(S::ExclusionList(l)) => {
            out.exclusion = decode::string_matcher_list(&l.patterns).at("exclusion_list")?
        }
    }
    Ok(out)
}

/// Static runtime layers, later ones over earlier ones, nested keys joined by dots.
fn runtime(m: &pb::Bootstrap) -> Fields {
    let mut out = Fields::new();
    for layer in m.layered_runtime.iter().flat_map(|r| &r.layers) {
        if let Some(pb::runtime_layer::LayerSpecifier::StaticLayer(s)) = &layer.layer_specifier {
            flatten("", &decode::struct_to_value(s), &mut out);
        }
    }
    out
}

fn flatten(prefix: &str, value: &Value, out: &mut Fields) {
    match value {
        Value::Struct(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() {
                    key.to_string()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&key, value, out);
            }
        }
        other => {
            out.insert(prefix.into(), other.clone());
        }
    }
}
