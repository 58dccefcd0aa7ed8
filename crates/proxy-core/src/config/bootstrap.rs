//! What the bootstrap says about this process: node, admin, xDS, flush and drain times.
use std::time::Duration;

use super::{Address, Fields, Locality, Name};
use crate::overload::{Least, Rule};

/// Who this proxy is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Node id, for Istio `sidecar~IP~pod.ns~ns.svc.cluster.local`.
    pub id: Name,
    /// Service cluster.
    pub cluster: Name,
    /// Metadata.
    pub metadata: Fields,
    /// Where it runs.
    pub locality: Locality,
}

/// Admin listener.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Where it listens; none = no admin.
    pub address: Option<Address>,
    /// Ignores SIGHUP and the like; kept for dumps.
    pub ignore_global_conn_limit: bool,
    /// The paths, queries included, that are answered; empty = all.
    pub allow_paths: Vec<crate::matcher::StringMatcher>,
    /// Permissions of the file of a Unix socket; 0 = the system's.
    pub mode: u32,
}

/// How resources are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdsMode {
    /// State of the world.
    StateOfTheWorld,
    /// Incremental.
    Delta,
}

/// The ADS stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Ads {
    /// Form.
    pub mode: XdsMode,
    /// Cluster that carries the stream.
    pub cluster: Name,
    /// Headers sent with the stream.
    pub initial_metadata: Vec<(Name, Name)>,
    /// Node is sent on the first request only.
    pub set_node_on_first_message_only: bool,
}

/// Which statistics are kept.
#[derive(Clone, Debug, Default)]
pub struct StatsMatcher {
    /// Kept if one matches; empty = see `reject_all`.
    pub inclusion: Vec<crate::matcher::StringMatcher>,
    /// Dropped if one matches.
    pub exclusion: Vec<crate::matcher::StringMatcher>,
    /// Keep none.
    pub reject_all: bool,
}

/// A file with a discovery response, and what tells that it is to be read again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchedFile {
    /// The file.
    pub path: Name,
    /// Whatever is moved into this directory has the file read again; none = the file itself moved
    /// into place.
    pub directory: Option<Name>,
    /// So does what is written in that directory, when it is closed.
    pub written: bool,
}

/// Where all listeners, or all clusters, come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// The ADS stream, with the initial fetch timeout (zero = for ever).
    Ads(Duration),
    /// A file.
    File(WatchedFile),
}

impl Subscription {
    /// The initial fetch timeout of one over ADS.
    #[must_use]
    pub fn over_ads(&self) -> Option<Duration> {
        match self {
            Self::Ads(timeout) => Some(*timeout),
            Self::File(_) => None,
        }
    }

    /// The file of one from a file.
    #[must_use]
    pub fn file(&self) -> Option<&WatchedFile> {
        match self {
            Self::Ads(_) => None,
            Self::File(file) => Some(file),
        }
    }
}

/// What is done when resources run short.
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// Between two readings of the resources. Default 1 s, at least 1 ms.
    pub refresh_interval: Duration,
    /// The resources; rules name them by their places.
    pub monitors: Vec<Monitor>,
    /// What is done, and when.
    pub rules: Vec<Rule>,
    /// Between two times that memory is given back while it is to be. Default 1 s.
    pub shrink_interval: Duration,
    /// Which timeouts become shorter, each at most once.
    pub timeouts: Vec<(ScaledTimeout, Least)>,
}

/// A resource and how its pressure is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    /// Envoy's name for it.
    pub name: Name,
    /// Where its pressure is from.
    pub source: PressureSource,
}

/// Where a pressure is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PressureSource {
    /// The process's own memory, of so many bytes.
    FixedHeap(u64),
    /// The memory of the process's control group, of its limit or of so many bytes, whichever is
    /// less.
    CgroupMemory(Option<u64>),
    /// A file that says it: a number from 0 to 1.
    Injected(Name),
}

/// A timeout that may become shorter under pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaledTimeout {
    /// Of a client's connection without a request.
    ConnectionIdle,
    /// Of a stream on which nothing moves.
    StreamIdle,
    /// Of a TLS handshake.
    TransportConnect,
}

/// Settings of the process from its bootstrap. Static resources are in the first snapshot.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Who this proxy is.
    pub node: Node,
    /// Admin listener.
    pub admin: Admin,
    /// ADS; none = static only.
    pub ads: Option<Ads>,
    /// Where listeners come from beside the static ones.
    pub lds: Option<Subscription>,
    /// Where clusters come from beside the static ones.
    pub cds: Option<Subscription>,
    /// Between stat flushes. Default 5 s.
    pub stats_flush_interval: Duration,
    /// Which statistics are kept.
    pub stats_matcher: StatsMatcher,
    /// Most downstream connections of the whole proxy (overload manager).
    pub max_downstream_connections: Option<u32>,
    /// What is done under pressure; none = no resource is watched.
    pub overload: Option<Overload>,
    /// Static runtime layers, flattened.
    pub runtime: Fields,
}
