//! State-of-the-world ADS: CDS and LDS are answered with the whole set when any
//! part of it differs; EDS, RDS and SDS only with the names that do.

use std::collections::{BTreeMap, BTreeSet};

use lateen_xds::{Resource, ResourceSet, ResourceType};
use lateen_xds_proto::envoy::config::core::v3::{ControlPlane, Node};
use lateen_xds_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use std::sync::Arc;

use super::state::{Built, Dialect, Names, Nonces, Outcome, Progress, Reason, Sent};

/// One subscription of a stream.
#[derive(Debug, Default)]
struct Watch {
    names: Names,
    sent: Sent,
    /// Names in the order of the last whole response; an order change is a change.
    order: Vec<String>,
    progress: Progress,
}

/// The state of one state-of-the-world stream.
#[derive(Debug, Default)]
pub struct Sotw {
    watches: BTreeMap<ResourceType, Watch>,
    nonces: Nonces,
}

impl Sotw {
    fn first_request(&mut self, t: ResourceType, names: Names) -> Outcome {
        self.watches.insert(
            t,
            Watch {
                names,
                ..Watch::default()
            },
        );
        Outcome::Respond
    }
}

/// Reads the names of a request. An empty list is "everything" for the wildcard types
/// as long as no name was ever given, and "nothing any more" otherwise.
fn requested(t: ResourceType, request: &DiscoveryRequest, before: Option<&Names>) -> Names {
    let mut names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
    let explicit = names.remove("*");
    let legacy = t.is_wildcard()
        && names.is_empty()
        && before.is_none_or(|b| b.wildcard && b.names.is_empty());
    Names {
        wildcard: explicit || legacy,
        names,
    }
}

impl Dialect for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const NAME: &'static str = "sotw";

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }

    fn asked(request: &DiscoveryRequest) -> &[String] {
        &request.resource_names
    }

    fn count(&self, t: ResourceType) -> usize {
        self.watches.get(&t).map_or(0, |w| w.names.names.len())
    }

    fn on_request(&mut self, t: ResourceType, request: &DiscoveryRequest) -> Outcome {
        let Some(watch) = self.watches.get_mut(&t) else {
            let names = requested(t, request, None);
            return self.first_request(t, names);
        };
        // An empty nonce on a known subscription starts it over (a client that
        // subscribes anew on the same stream).
        if request.response_nonce.is_empty() {
            let names = requested(t, request, None);
            return self.first_request(t, names);
        }
        let error = request.error_detail.as_ref().map(|e| e.message.as_str());
        if !watch.progress.answered(&request.response_nonce, error) {
            return Outcome::Stale;
        }
        let names = requested(t, request, Some(&watch.names));
        let grew = names.names.iter().any(|n| !watch.names.names.contains(n))
            || (names.wildcard && !watch.names.wildcard);
        watch
            .sent
            .retain(|name, _| names.wildcard || names.names.contains(name));
        watch.names = names;
        match (error, grew) {
            (_, true) => Outcome::Respond,
            (Some(message), false) => Outcome::Nack(message.to_owned()),
            (None, false) => Outcome::Ack,
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
    ) -> Option<Built<DiscoveryResponse>> {
        let watch = self.watches.get_mut(&t)?;
        let wanted: Vec<&Arc<Resource>> = set
            .iter()
            .filter(|r| watch.names.wildcard || watch.names.names.contains(&r.name))
            .collect();
        let differs = |r: &Resource| watch.sent.get(&r.name) != Some(&Some(r.version));
        let chosen: Vec<&Arc<Resource>> = if t.is_full_state() {
            let same = wanted.len() == watch.order.len()
                && wanted
                    .iter()
                    .zip(&watch.order)
                    .all(|(r, name)| r.name == *name && !differs(r));
            if same && reason == Reason::Changed {
                return None;
            }
            wanted
        } else {
            let news: Vec<_> = wanted.into_iter().filter(|r| differs(r)).collect();
            if news.is_empty() && (reason == Reason::Changed || !watch.sent.is_empty()) {
                return None;
            }
            news
        };
        let changed = chosen
            .iter()
            .filter(|r| differs(r))
            .map(|r| r.name.clone())
            .collect();
        if t.is_full_state() {
            watch.sent.clear();
            watch.order = chosen.iter().map(|r| r.name.clone()).collect();
        }
        for r in &chosen {
            watch.sent.insert(r.name.clone(), Some(r.version));
        }
        let nonce = self.nonces.next();
        watch.progress.sent(&nonce, version);
        let response = DiscoveryResponse {
            version_info: version.to_owned(),
            resources: chosen.into_iter().map(|r| r.body.clone()).collect(),
            type_url: t.type_url().to_owned(),
            nonce,
            control_plane: Some(ControlPlane {
                identifier: super::IDENTIFIER.to_owned(),
            }),
            ..DiscoveryResponse::default()
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
