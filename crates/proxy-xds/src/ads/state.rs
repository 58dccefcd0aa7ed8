//! The ADS protocol without a socket: responses in, requests out. Request order, nonces, versions,
//! ACK and NACK, the held-back CDS ACK while clusters warm, subscription changes, reconnects. The
//! order is Envoy's; `tests/transcript.rs` compares it with the real one.
use std::collections::BTreeSet;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::bootstrap::XdsMode;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::service::discovery::v3 as pb;
use lateen_xds_proto::google::rpc;

use super::tally::Tally;
use crate::kind::Kind;
use crate::world::{self, Incoming, Now, World};

/// gRPC code of a NACK: INTERNAL, as Envoy sends.
const NACK_CODE: i32 = 13;

/// A request to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// State of the world.
    Sotw(pb::DiscoveryRequest),
    /// Delta.
    Delta(pb::DeltaDiscoveryRequest),
}

/// A response that came.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// State of the world.
    Sotw(pb::DiscoveryResponse),
    /// Delta.
    Delta(pb::DeltaDiscoveryResponse),
}

/// What is known of one type.
#[derive(Clone, Debug, Default)]
struct Subscription {
    /// A request was sent on this stream.
    sent: bool,
    /// Names of the last request.
    names: BTreeSet<Name>,
    /// Version of the last accepted response.
    version: String,
    /// Nonce of the last response on this stream.
    nonce: String,
    /// A response ever came, or the wait for it is over.
    answered: bool,
    /// An ACK that is held back.
    held_ack: bool,
    /// End of the wait for the first answer (wildcard types), monotonic milliseconds.
    deadline: Option<u64>,
}

/// The protocol state of one ADS client.
#[derive(Debug)]
pub struct State {
    mode: XdsMode,
    node: core::Node,
    node_once: bool,
    node_sent: bool,
    connected: bool,
    /// The first clusters are warm; from now on a CDS ACK waits for those that warm.
    clusters_ready: bool,
    /// Wildcard types that are configured: (type, initial fetch timeout in ms, 0 = for ever).
    wildcard: Vec<(Kind, u64)>,
    subscriptions: [Subscription; 5],
    /// Accepted responses.
    pub accepted: u64,
    /// Refused responses.
    pub rejected: u64,
    /// The same by kind.
    pub outcomes: [Outcomes; 5],
    /// The same by named resource.
    pub tally: Tally,
    /// `control_plane.identifier` of the last response.
    pub control_plane: String,
}

/// What became of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Subscriptions: each waits for an update before the first has come.
    pub asked: u64,
    /// Accepted whole.
    pub accepted: u64,
    /// Refused, if only for one resource.
    pub rejected: u64,
    /// Could not be read at all (files).
    pub failed: u64,
}

impl State {
    /// A state before the first connection. `wildcard` names the configured ones of CDS and LDS
    /// with their initial fetch timeouts in milliseconds.
    #[must_use]
    pub fn new(
        mode: XdsMode,
        node: core::Node,
        node_once: bool,
        wildcard: Vec<(Kind, u64)>,
    ) -> Self {
        Self {
            mode,
            node,
            node_once,
            node_sent: false,
            connected: false,
            clusters_ready: false,
            wildcard,
            subscriptions: Default::default(),
            accepted: 0,
            rejected: 0,
            outcomes: Default::default(),
            tally: Tally::default(),
            control_plane: String::new(),
        }
    }

    fn sub(&mut self, kind: Kind) -> &mut Subscription {
        &mut self.subscriptions[kind as usize]
    }

    /// A stream is open: everything subscribed is asked for again, with the last versions.
    pub fn connect(&mut self, world: &mut World, now: Now) -> Vec<Request> {
        self.connected = true;
        self.node_sent = false;
        for s in &mut self.subscriptions {
            s.sent = false;
            s.nonce.clear();
            s.names.clear();
            s.held_ack = false;
        }
        self.poll(world, now)
    }

    /// The stream is gone. The configuration stays.
    pub fn disconnect(&mut self) {
        self.connected = false;
        for outcomes in self.outcomes.iter_mut().filter(|o| o.asked > 0) {
            outcomes.failed += 1;
        }
        self.tally.failed();
    }

    /// Whether all configured wildcard types were answered and nothing of the first answers warms.
    fn is_initialized(&self, world: &World) -> bool {
        let answered = |kind: &Kind| self.subscriptions[*kind as usize].answered;
        self.wildcard.iter().all(|(kind, _)| answered(kind))
            && !world.is_warming(Kind::Cluster)
            && !world.is_warming(Kind::Listener)
            && world.files_were_read()
    }

    /// Does what time or new resources make due: waits that end, subscriptions that change, a held
    /// ACK, the start of LDS. Call after every event and at [`Self::next_deadline`].
    pub fn poll(&mut self, world: &mut World, now: Now) -> Vec<Request> {
        world.settle(now);
        self.start_waits(world, now);
        if self.subscriptions[Kind::Cluster as usize].answered && !world.is_warming(Kind::Cluster) {
            self.clusters_ready = true;
            world.clusters_came();
        }
        if self.is_initialized(world) {
            world.set_initialized();
        }
        let mut out = Vec::new();
        if !self.connected {
            return out;
        }
        for kind in Kind::ALL {
            if kind.is_wildcard() {
                if kind == Kind::Cluster && self.sub(kind).held_ack && !world.is_warming(kind) {
                    self.sub(kind).held_ack = false;
                    out.push(self.ack(kind, world, None));
                }
                if self.may_start(kind, world) {
                    out.push(self.subscribe(kind, world, BTreeSet::new()));
                }
            } else {
                let wanted = world.wanted(kind);
                let s = self.sub(kind);
                if wanted != s.names || (!s.sent && !wanted.is_empty()) {
                    out.push(self.subscribe(kind, world, wanted));
                }
            }
        }
        out
    }

    /// Waits for the first answers of wildcard types start when the type may be asked for, with or
    /// without a connection.
    fn start_waits(&mut self, world: &World, now: Now) {
        for i in 0..self.wildcard.len() {
            let (kind, timeout) = self.wildcard[i];
            let due = self.subscriptions[kind as usize].sent || self.may_start(kind, world);
            if due {
                self.outcomes[kind as usize].asked = 1;
            }
            let s = self.sub(kind);
            if !due {
                continue;
            }
            if s.answered || timeout == 0 {
                continue;
            }
            match s.deadline {
                None => s.deadline = Some(now.mono_ms.saturating_add(timeout)),
                Some(at) if at <= now.mono_ms => s.answered = true,
                Some(_) => {}
            }
        }
    }

    /// LDS is asked for only when CDS was answered and its clusters are warm.
    fn may_start(&self, kind: Kind, world: &World) -> bool {
        let configured = |kind| self.wildcard.iter().any(|(k, _)| *k == kind);
        let s = &self.subscriptions[kind as usize];
        if s.sent || !configured(kind) {
            return false;
        }
        if kind == Kind::Cluster || !configured(Kind::Cluster) || s.answered {
            return true;
        }
        self.subscriptions[Kind::Cluster as usize].answered && !world.is_warming(Kind::Cluster)
    }

    /// The next moment at which [`Self::poll`] has something to do, monotonic milliseconds.
    #[must_use]
    pub fn next_deadline(&self, world: &World) -> Option<u64> {
        let waits = self
            .subscriptions
            .iter()
            .filter(|s| !s.answered)
            .filter_map(|s| s.deadline);
        waits.chain(world.next_deadline()).min()
    }

    fn take_node(&mut self) -> Option<core::Node> {
        if self.node_once && self.node_sent {
            return None;
        }
        self.node_sent = true;
        Some(self.node.clone())
    }

    /// A request that says what is wanted of a type.
    fn subscribe(&mut self, kind: Kind, world: &World, wanted: BTreeSet<Name>) -> Request {
        let node = self.take_node();
        let mode = self.mode;
        let s = self.sub(kind);
        let first = !s.sent;
        let old = std::mem::replace(&mut s.names, wanted);
        s.sent = true;
        let s = &self.subscriptions[kind as usize];
        if s.names != old {
            self.tally.wants(kind, &s.names);
        }
        let text =
            |names: &mut dyn Iterator<Item = &Name>| names.map(ToString::to_string).collect();
        match mode {
            XdsMode::StateOfTheWorld => Request::Sotw(pb::DiscoveryRequest {
                version_info: s.version.clone(),
                node,
                resource_names: text(&mut s.names.iter()),
                type_url: kind.type_url().to_owned(),
                response_nonce: s.nonce.clone(),
                ..Default::default()
            }),
            XdsMode::Delta => {
                let versions = if first {
                    world.versions(kind)
                } else {
                    Default::default()
                };
                Request::Delta(pb::DeltaDiscoveryRequest {
                    node,
                    type_url: kind.type_url().to_owned(),
                    resource_names_subscribe: text(&mut s.names.difference(&old)),
                    resource_names_unsubscribe: text(&mut old.difference(&s.names)),
                    initial_resource_versions: versions
                        .into_iter()
                        .map(|(n, v)| (n.to_string(), v.to_string()))
                        .collect(),
                    ..Default::default()
                })
            }
        }
    }

    /// An ACK, or a NACK with its reason. Names follow what is wanted now.
    fn ack(&mut self, kind: Kind, world: &World, error: Option<String>) -> Request {
        let node = self.take_node();
        let mode = self.mode;
        let wanted = if kind.is_wildcard() {
            BTreeSet::new()
        } else {
            world.wanted(kind)
        };
        let s = self.sub(kind);
        let old = std::mem::replace(&mut s.names, wanted);
        let s = &self.subscriptions[kind as usize];
        if s.names != old {
            self.tally.wants(kind, &s.names);
        }
        let error_detail = error.map(|message| rpc::Status {
            code: NACK_CODE,
            message,
            details: vec![],
        });
        let text =
            |names: &mut dyn Iterator<Item = &Name>| names.map(ToString::to_string).collect();
        match mode {
            XdsMode::StateOfTheWorld => Request::Sotw(pb::DiscoveryRequest {
                version_info: s.version.clone(),
                node,
                resource_names: text(&mut s.names.iter()),
                type_url: kind.type_url().to_owned(),
                response_nonce: s.nonce.clone(),
                error_detail,
                ..Default::default()
            }),
            XdsMode::Delta => Request::Delta(pb::DeltaDiscoveryRequest {
                node,
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: text(&mut s.names.difference(&old)),
                resource_names_unsubscribe: text(&mut old.difference(&s.names)),
                response_nonce: s.nonce.clone(),
                error_detail,
                ..Default::default()
            }),
        }
    }

    /// Takes a response in and returns what to send: requests for what it makes wanted, then its
    /// ACK or NACK (a CDS ACK waits until the clusters are warm), then what it makes due.
    pub fn receive(&mut self, response: Response, world: &mut World, now: Now) -> Vec<Request> {
        let (type_url, version, nonce, identifier) = match &response {
            Response::Sotw(r) => (&r.type_url, &r.version_info, &r.nonce, &r.control_plane),
            Response::Delta(r) => (
                &r.type_url,
                &r.system_version_info,
                &r.nonce,
                &r.control_plane,
            ),
        };
        let Some(kind) = Kind::from_url(type_url) else {
            return vec![];
        };
        if !self.sub(kind).sent {
            return vec![];
        }
        if let Some(c) = identifier {
            self.control_plane.clone_from(&c.identifier);
        }
        let (version, nonce) = (version.clone(), nonce.clone());
        let error = take_in(kind, &response, world, &self.tally, now);
        let s = self.sub(kind);
        s.nonce = nonce;
        s.answered = true;
        if error.is_none() {
            world.set_version(kind, &version);
            s.version = version;
        }
        let outcomes = &mut self.outcomes[kind as usize];
        let (all, of_kind) = match &error {
            None => (&mut self.accepted, &mut outcomes.accepted),
            Some(_) => (&mut self.rejected, &mut outcomes.rejected),
        };
        *all += 1;
        *of_kind += 1;
        world.settle(now);
        // What the response made wanted or due goes out before its own ACK, as Envoy does.
        let mut out = Vec::new();
        for dependent in [Kind::Endpoints, Kind::Routes, Kind::Secret] {
            let wanted = world.wanted(dependent);
            if dependent != kind && wanted != self.sub(dependent).names {
                out.push(self.subscribe(dependent, world, wanted));
            }
        }
        let waits = error.is_none()
            && kind == Kind::Cluster
            && self.clusters_ready
            && world.is_warming(kind);
        self.sub(kind).held_ack = waits;
        out.extend(self.poll(world, now));
        if !waits {
            out.push(self.ack(kind, world, error));
        }
        out
    }
}

/// Applies a response to the world; the reason of a refusal.
fn take_in(
    kind: Kind,
    response: &Response,
    world: &mut World,
    tally: &Tally,
    now: Now,
) -> Option<String> {
    let (incoming, removed, complete) = match response {
        Response::Sotw(r) => (sotw_resources(kind, r), vec![], true),
        Response::Delta(r) => {
            let removed = r
                .removed_resources
                .iter()
                .map(|n| n.as_str().into())
                .collect();
            (delta_resources(kind, r), removed, false)
        }
    };
    let incoming = match incoming {
        Ok(list) => list,
        Err(error) => return Some(error),
    };
    let refused = world.update(kind, &incoming, &removed, complete, now);
    if !kind.is_wildcard() {
        let named = incoming.iter().map(|one| match one.name.is_empty() {
            true => (world::name_in(&one.raw).as_str().into(), &*one.raw),
            false => (one.name.clone(), &*one.raw),
        });
        tally.came(kind, named, !refused.is_empty(), now.unix_ms);
    }
    if refused.is_empty() {
        return None;
    }
    let list: Vec<String> = refused
        .iter()
        .map(|(name, error)| format!("{name}: {error}"))
        .collect();
    Some(format!(
        "Error adding/updating {}(s) {}",
        kind.word(),
        list.join(", ")
    ))
}

fn wrong_type(kind: Kind, name: &str, found: &str) -> String {
    format!(
        "{name}: type URL {found} of the resource does not match the response's {}",
        kind.type_url()
    )
}

/// The resources of a response in their order.
///
/// # Errors
/// When one is of another type.
pub(crate) fn sotw_resources(
    kind: Kind,
    r: &pb::DiscoveryResponse,
) -> Result<Vec<Incoming>, String> {
    r.resources
        .iter()
        .map(|any| {
            if any.type_url == kind.type_url() {
                return Ok(Incoming {
                    name: Name::default(),
                    version: r.version_info.as_str().into(),
                    raw: any.value.as_slice().into(),
                });
            }
            // A resource may come wrapped, with its own name and version.
            let wrapped: pb::Resource = lateen_xds_proto::any::unpack(any).map_err(|_| {
                let name = world::name_in(&any.value);
                wrong_type(kind, &name, &any.type_url)
            })?;
            unwrap_resource(kind, &wrapped, &r.version_info)?
                .ok_or_else(|| wrong_type(kind, &wrapped.name, "(none)"))
        })
        .collect()
}

fn delta_resources(kind: Kind, r: &pb::DeltaDiscoveryResponse) -> Result<Vec<Incoming>, String> {
    // A resource without content is a heartbeat.
    r.resources
        .iter()
        .filter_map(|res| unwrap_resource(kind, res, &res.version).transpose())
        .collect()
}

fn unwrap_resource(
    kind: Kind,
    r: &pb::Resource,
    version: &str,
) -> Result<Option<Incoming>, String> {
    let Some(any) = &r.resource else {
        return Ok(None);
    };
    if any.type_url != kind.type_url() {
        return Err(wrong_type(kind, &r.name, &any.type_url));
    }
    Ok(Some(Incoming {
        name: r.name.as_str().into(),
        version: version.into(),
        raw: any.value.as_slice().into(),
    }))
}

#[cfg(test)]
mod tests;
