//! Incremental ADS: each response carries the resources that differ from what the
//! proxy has and the names it should drop. On a fresh stream the proxy says what it
//! has, so that a reconnect without a change sends nothing but an empty answer.

use std::collections::BTreeMap;

use lateen_xds::{ResourceSet, ResourceType};
use lateen_xds_proto::envoy::config::core::v3::{ControlPlane, Node};
use lateen_xds_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource,
};

use super::state::{Built, Dialect, Names, Nonces, Outcome, Progress, Reason, Sent};

#[derive(Debug, Default)]
struct Watch {
    names: Names,
    sent: Sent,
    progress: Progress,
}

/// The state of one incremental stream.
#[derive(Debug, Default)]
pub struct Delta {
    watches: BTreeMap<ResourceType, Watch>,
    nonces: Nonces,
}

impl Watch {
    /// Starts a subscription. No names means "everything" for the wildcard types.
    fn start(t: ResourceType, request: &DeltaDiscoveryRequest) -> Self {
        let mut watch = Self::default();
        let subscribe = &request.resource_names_subscribe;
        watch.names.wildcard =
            subscribe.iter().any(|n| n == "*") || (t.is_wildcard() && subscribe.is_empty());
        watch.names.names = subscribe.iter().filter(|n| *n != "*").cloned().collect();
        // A version this control plane cannot have written compares unequal to all.
        let known = |v: &str| u64::from_str_radix(v, 16).unwrap_or(0);
        watch.sent = request
            .initial_resource_versions
            .iter()
            .filter(|(name, _)| watch.names.wildcard || watch.names.names.contains(*name))
            .map(|(name, version)| (name.clone(), Some(known(version))))
            .collect();
        watch
    }

    /// Applies subscribe and unsubscribe lists; true when something was asked for.
    fn adjust(&mut self, request: &DeltaDiscoveryRequest) -> bool {
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                self.names.wildcard = false;
                let named = &self.names.names;
                self.sent.retain(|n, _| named.contains(n));
            } else {
                self.names.names.remove(name);
                if !self.names.wildcard {
                    self.sent.remove(name);
                }
            }
        }
        let mut asked = false;
        for name in &request.resource_names_subscribe {
            asked = true;
            if name == "*" {
                self.names.wildcard = true;
            } else {
                self.names.names.insert(name.clone());
                // Asked again: the client dropped it and must get it again.
                self.sent.remove(name);
            }
        }
        asked
    }
}

impl Dialect for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    const NAME: &'static str = "delta";

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn asked(request: &DeltaDiscoveryRequest) -> &[String] {
        &request.resource_names_subscribe
    }

    fn count(&self, t: ResourceType) -> usize {
        self.watches.get(&t).map_or(0, |w| w.names.names.len())
    }

    fn on_request(&mut self, t: ResourceType, request: &DeltaDiscoveryRequest) -> Outcome {
        let Some(watch) = self.watches.get_mut(&t) else {
            self.watches.insert(t, Watch::start(t, request));
            return Outcome::Respond;
        };
        let asked = watch.adjust(request);
        let error = request.error_detail.as_ref().map(|e| e.message.as_str());
        let answered = !request.response_nonce.is_empty()
            && watch.progress.answered(&request.response_nonce, error);
        match (asked, error, answered || request.response_nonce.is_empty()) {
            (true, ..) => Outcome::Respond,
            (false, Some(message), _) => Outcome::Nack(message.to_owned()),
            (false, None, true) => Outcome::Ack,
            (false, None, false) => Outcome::Stale,
        }
    }

    fn names(&self, t: ResourceType) -> Option<Names> {
        self.watches.get(&t).map(|w| w.names.clone())
    }

    fn respond(
        &mut self,
        t: ResourceType,
        set: &ResourceSet,
        version: &str,
        reason: Reason,
    ) -> Option<Built<DeltaDiscoveryResponse>> {
        let watch = self.watches.get_mut(&t)?;
        let names = &watch.names;
        let wanted = |n: &str| names.wildcard || names.names.contains(n);
        let mut resources = Vec::new();
        let mut changed = Vec::new();
        for r in set.iter().filter(|r| wanted(&r.name)) {
            if watch.sent.get(&r.name) != Some(&Some(r.version)) {
                watch.sent.insert(r.name.clone(), Some(r.version));
                changed.push(r.name.clone());
                resources.push(WireResource {
                    name: r.name.clone(),
                    version: r.version_text(),
                    resource: Some(r.body.clone()),
                    ..WireResource::default()
                });
            }
        }
        // What the proxy holds and is no more, and what it asked for and never was.
        let mut removed: Vec<String> = watch
            .sent
            .iter()
            .filter(|(n, v)| v.is_some() && set.get(n).is_none())
            .map(|(n, _)| n.clone())
            .collect();
        for name in &names.names {
            if set.get(name).is_none() && !watch.sent.contains_key(name) {
                removed.push(name.clone());
            }
        }
        removed.sort();
        for name in &removed {
            if names.names.contains(name) {
                watch.sent.insert(name.clone(), None);
            } else {
                watch.sent.remove(name);
            }
        }
        if resources.is_empty() && removed.is_empty() && reason == Reason::Changed {
            return None;
        }
        let nonce = self.nonces.next();
        watch.progress.sent(&nonce, version);
        let response = DeltaDiscoveryResponse {
            system_version_info: version.to_owned(),
            resources,
            type_url: t.type_url().to_owned(),
            removed_resources: removed,
            nonce,
            control_plane: Some(ControlPlane {
                identifier: super::IDENTIFIER.to_owned(),
            }),
            ..DeltaDiscoveryResponse::default()
        };
        Some(Built { response, changed })
    }

    fn forget(&mut self, t: ResourceType, names: &[String]) {
        if let Some(watch) = self.watches.get_mut(&t) {
            for name in names {
                watch.sent.remove(name);
            }
        }
    }

    fn progress(&self) -> Vec<(ResourceType, Progress)> {
        self.watches
            .iter()
            .map(|(t, w)| (*t, w.progress.clone()))
            .collect()
    }
}
