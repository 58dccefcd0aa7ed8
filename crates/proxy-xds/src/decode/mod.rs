//! Envoy's messages to `proxy-core` values. Everything is checked; what this proxy does not do is
//! refused by name, never passed over.
#![expect(
    deprecated,
    reason = "control planes still send fields that Envoy's API marks as deprecated"
)]

mod access_log;
mod cluster;
mod common;
mod discovery_file;
mod dns;
mod endpoint;
mod ext_authz;
mod health_check;
mod http_connection_manager;
mod http_filter;
mod internal_redirect;
mod istio;
mod jwt;
mod lb;
mod listener;
mod match_tree;
mod matcher;
mod network_filter;
mod origin;
mod proxy_protocol;
mod rate_limit;
mod rate_limit_rules;
mod rbac;
mod retry;
mod route;
mod secret_source;
mod shared;
mod subset;
mod tls;
mod tracing;
mod written;

use lateen_proxy_core::config::{
    Cluster, ClusterLoadAssignment, Listener, Name, RouteConfiguration, Secret,
};
use lateen_xds_proto::{Any, Message};

use crate::error::{At, DecodeError, Result};
use crate::runtime::Runtime;

pub(crate) use common::{
    duration, fetch_timeout, json_to_struct, only_v3, opt_duration, own_address, pipe_mode,
    string_matcher_list, value_to_struct,
};
pub use common::{struct_to_json, struct_to_value};
pub(crate) use discovery_file::{
    line_of as discovery_line, read as discovery_file, watched as watched_file,
};
pub(crate) use endpoint::locality_value;
pub(crate) use matcher::string as string_matcher;
pub(crate) use secret_source::is_over_ads;
pub(crate) use secret_source::{NotTaken, files_stamp, in_file as secret_in_file, in_list};
pub use secret_source::{ResourceSource, own_name};

/// Reads a file by its path.
pub type ReadFile = dyn Fn(&str) -> std::io::Result<Vec<u8>> + Send + Sync;
/// Opens a file for appending, made where it is not there.
pub type OpenLog = dyn Fn(&str) -> std::io::Result<()> + Send + Sync;
/// Finds an environment variable.
pub type Environment = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What decoding may look at besides the message.
pub struct Context {
    /// Reads a file that a message names: [`crate::files::read`], which knows bounds.
    pub read_file: Box<ReadFile>,
    /// An environment variable that a message names.
    pub environment: Box<Environment>,
    /// What the bootstrap's runtime says.
    pub runtime: Runtime,
    /// Tries whether a file that a message wants to log to can be opened for that.
    pub open_log: Box<OpenLog>,
}

/// Opens a log of this machine's files as its writers will.
///
/// # Errors
/// When the directory is not there or nothing may be written.
pub fn open_log(path: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).open(path).map(drop)
}

/// Whether a log could be opened, without making what is not there: trying out a configuration
/// leaves nothing behind.
///
/// # Errors
/// As [`open_log`]'s, as far as that can be known.
pub fn try_log(path: &str) -> std::io::Result<()> {
    let path = std::path::Path::new(path);
    if path.exists() {
        let mut options = std::fs::OpenOptions::new();
        return options.append(true).open(path).map(drop);
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let folder = std::fs::metadata(parent.unwrap_or(std::path::Path::new(".")))?;
    match (folder.is_dir(), folder.permissions().readonly()) {
        (false, _) => Err(std::io::ErrorKind::NotADirectory.into()),
        (true, true) => Err(std::io::ErrorKind::PermissionDenied.into()),
        (true, false) => Ok(()),
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

impl Context {
    /// Files of this machine, no environment.
    #[must_use]
    pub fn files() -> Self {
        Self {
            read_file: Box::new(|path| crate::files::read(path)),
            environment: Box::new(|_| None),
            runtime: Runtime::default(),
            open_log: Box::new(open_log),
        }
    }

    /// Nothing: every file is absent.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            read_file: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
            environment: Box::new(|_| None),
            runtime: Runtime::default(),
            open_log: Box::new(|_| Ok(())),
        }
    }
}

/// Where a listener or cluster gets further resources from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Resource name.
    pub name: Name,
    /// `initial_fetch_timeout` in milliseconds, 0 = for ever.
    pub fetch_timeout_ms: u64,
    /// From where; secrets alone may have streams of their own.
    pub source: ResourceSource,
}

/// A decoded listener with what it waits for.
#[derive(Clone, Debug)]
pub struct DecodedListener {
    /// The listener.
    pub listener: Listener,
    /// Route tables over ADS.
    pub routes: Vec<Needs>,
    /// Secrets over ADS.
    pub secrets: Vec<Needs>,
}

/// A decoded cluster with what it waits for.
#[derive(Clone, Debug)]
pub struct DecodedCluster {
    /// The cluster.
    pub cluster: Cluster,
    /// Endpoints over ADS.
    pub endpoints: Option<Needs>,
    /// Secrets over ADS.
    pub secrets: Vec<Needs>,
}

/// Things a message asks for while it is decoded.
#[derive(Debug)]
pub(crate) struct Collected<'a> {
    pub(crate) context: &'a Context,
    pub(crate) routes: std::cell::RefCell<Vec<Needs>>,
    pub(crate) secrets: std::cell::RefCell<Vec<Needs>>,
}

impl<'a> Collected<'a> {
    pub(crate) fn new(context: &'a Context) -> Self {
        Self {
            context,
            routes: Default::default(),
            secrets: Default::default(),
        }
    }
}

pub(crate) fn add_need(list: &std::cell::RefCell<Vec<Needs>>, need: Needs) {
    let mut list = list.borrow_mut();
    if !list.iter().any(|n| n.name == need.name) {
        list.push(need);
    }
}

fn message<T: Message + Default>(bytes: &[u8]) -> Result<T> {
    T::decode(bytes).map_err(|e| DecodeError::new(format!("malformed message: {e}")))
}

/// A message with the runtime's values in their fields.
fn with_runtime<T: Message + lateen_xds_proto::Name + Default>(
    bytes: &[u8],
    context: &Context,
) -> Result<T> {
    message(&context.runtime.apply(&T::full_name(), bytes)?)
}

/// Decodes a listener from wire bytes.
///
/// # Errors
/// When the message is malformed, invalid, or asks for what this proxy does not do.
pub fn listener(bytes: &[u8], context: &Context) -> Result<DecodedListener> {
    let collected = Collected::new(context);
    let listener = listener::listener(&with_runtime(bytes, context)?, &collected)?;
    Ok(DecodedListener {
        listener,
        routes: collected.routes.into_inner(),
        secrets: collected.secrets.into_inner(),
    })
}

/// Decodes a cluster from wire bytes.
///
/// # Errors
/// As [`listener`].
pub fn cluster(bytes: &[u8], context: &Context, added_via_api: bool) -> Result<DecodedCluster> {
    let collected = Collected::new(context);
    let (cluster, endpoints) =
        cluster::cluster(&with_runtime(bytes, context)?, &collected, added_via_api)?;
    Ok(DecodedCluster {
        cluster,
        endpoints,
        secrets: collected.secrets.into_inner(),
    })
}

/// Decodes endpoints from wire bytes.
///
/// # Errors
/// As [`listener`].
pub fn endpoints(bytes: &[u8]) -> Result<ClusterLoadAssignment> {
    let assignment = endpoint::assignment(&message(bytes)?)?;
    endpoint::only_addresses(&assignment)?;
    Ok(assignment)
}

/// Decodes a route table from wire bytes.
///
/// # Errors
/// As [`listener`].
pub fn routes(bytes: &[u8], context: &Context) -> Result<RouteConfiguration> {
    route::configuration(
        &with_runtime(bytes, context)?,
        &Collected::new(context),
        false,
    )
}

/// Decodes a secret from wire bytes: its name and value.
///
/// # Errors
/// As [`listener`].
pub fn secret(bytes: &[u8], context: &Context) -> Result<(Name, Secret)> {
    tls::secret(&message(bytes)?, context)
}

/// The name of a secret in wire bytes.
///
/// # Errors
/// When the message is malformed.
pub fn secret_name(bytes: &[u8]) -> Result<Name> {
    let secret: lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3::Secret =
        message(bytes)?;
    Ok(secret.name.into())
}

/// The message inside an `Any`, `TypedStruct` taken off.
pub(crate) fn typed<T: Message + lateen_xds_proto::Name + Default>(any: &Any) -> Result<T> {
    let any = common::unwrap_typed_struct(any)?;
    Ok(lateen_xds_proto::any::unpack(&any)?)
}

/// The full name of the message inside an `Any`, `TypedStruct` taken off.
pub(crate) fn type_name(any: &Any) -> Result<String> {
    let any = common::unwrap_typed_struct(any).at("typed_config")?;
    Ok(lateen_xds_proto::type_url::message_name(&any.type_url).to_owned())
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod value_tests;
