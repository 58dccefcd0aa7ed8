//! The ADS protocol as state without sockets or clocks: what a proxy subscribed
//! to, what it was sent, what it acknowledged or refused, and from these the next
//! response, if any. `sotw` and `delta` are its two dialects.

use std::collections::{BTreeSet, HashMap};

use lateen_xds::{ResourceSet, ResourceType};

/// Longest name of a resource that may be asked for: a host is at most 253 characters long.
pub(super) const LONGEST_NAME: usize = 1024;
/// Most names of one type that a stream may ask for by name.
pub(super) const MOST_NAMES: usize = 1 << 17;
/// Characters kept of what a proxy says about a refusal.
const LONGEST_ERROR: usize = 4096;

/// What a request meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer to an older response; the newer one will be answered too.
    Stale,
    /// The last response was accepted and nothing new is asked for.
    Ack,
    /// The last response was refused with this message; the proxy keeps what it had.
    Nack(String),
    /// New names (or a first subscription): the proxy waits for an answer.
    Respond,
}

/// Why a response is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The proxy asked; an answer is due even when it is empty.
    Asked,
    /// The configuration changed; no answer is due when nothing differs.
    Changed,
}

/// What one proxy wants of one type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Everything there is.
    pub wildcard: bool,
    /// Named resources, on top of the wildcard.
    pub names: BTreeSet<String>,
}

/// Counters and nonces of one subscription, for `syncz` and the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nonce of the last response sent; empty before the first.
    pub nonce_sent: String,
    /// Nonce of the last response accepted.
    pub nonce_acked: String,
    /// Nonce of the last response refused.
    pub nonce_nacked: String,
    /// Version text of the last response sent.
    pub version_sent: String,
    /// Version text of the last response accepted.
    pub version_acked: String,
    /// The proxy's words about the last refused response, until one is accepted.
    pub last_error: Option<String>,
}

impl Progress {
    /// `SYNCED`, `STALE` or `NOT SENT`, as `proxy-status` prints them.
    pub fn status(&self) -> &'static str {
        if self.nonce_sent.is_empty() {
            "NOT SENT"
        } else if self.nonce_sent == self.nonce_acked {
            "SYNCED"
        } else {
            "STALE"
        }
    }

    /// Notes the answer to a response; true when the answer is about the last one.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<&str>) -> bool {
        if nonce != self.nonce_sent {
            return false;
        }
        match error {
            Some(message) => {
                self.nonce_nacked = nonce.to_owned();
                self.last_error = Some(message.chars().take(LONGEST_ERROR).collect());
            }
            None => {
                self.nonce_acked = nonce.to_owned();
                self.version_acked.clone_from(&self.version_sent);
                self.last_error = None;
            }
        }
        true
    }

    pub(super) fn sent(&mut self, nonce: &str, version: &str) {
        self.nonce_sent = nonce.to_owned();
        self.version_sent = version.to_owned();
    }
}

/// A response and the names in it that differ from what the proxy had.
#[derive(Debug)]
pub struct Built<R> {
    /// The response to send.
    pub response: R,
    /// New and changed names, for the follow-up rule of [`Dialect::forget`].
    pub changed: Vec<String>,
}

/// One dialect of ADS over one stream.
pub trait Dialect: Default + Send + 'static {
    /// What the proxy sends.
    type Request: Send + Sync + 'static;
    /// What it is sent.
    type Response: Send + 'static;

    /// Name of the dialect in logs and metrics.
    const NAME: &'static str;

    /// The node of a request, present at least in the stream's first.
    fn node(request: &Self::Request) -> Option<&lateen_xds_proto::envoy::config::core::v3::Node>;

    /// The type URL of a request.
    fn type_url(request: &Self::Request) -> &str;

    /// Names that a request asks for.
    fn asked(request: &Self::Request) -> &[String];

    /// How many names of a type are asked for.
    fn count(&self, t: ResourceType) -> usize;

    /// Takes a request in.
    fn on_request(&mut self, t: ResourceType, request: &Self::Request) -> Outcome;

    /// What is subscribed of a type; `None` when the proxy never asked for it.
    fn names(&self, t: ResourceType) -> Option<Names>;

    /// Builds the next response from the resources generated for [`Self::names`], or
    /// `None` when the proxy already has all of it. `version` labels the configuration.
    fn respond(
        &mut self,
        t: ResourceType,
        set: &ResourceSet,
        version: &str,
        reason: Reason,
    ) -> Option<Built<Self::Response>>;

    /// Forgets that these names were sent, so that the next push carries them again:
    /// a proxy that warms a changed cluster waits for its endpoints even if they are
    /// the ones it had.
    fn forget(&mut self, t: ResourceType, names: &[String]);

    /// Progress of every subscribed type.
    fn progress(&self) -> Vec<(ResourceType, Progress)>;
}

/// Versions by name of what a proxy was sent; `None` when it was told of absence.
pub(super) type Sent = HashMap<String, Option<u64>>;

/// Nonces of a stream: a counter is enough, since a nonce means nothing outside it.
#[derive(Debug, Default)]
pub(super) struct Nonces(u64);

impl Nonces {
    pub(super) fn next(&mut self) -> String {
        self.0 += 1;
        format!("{:x}", self.0)
    }
}
