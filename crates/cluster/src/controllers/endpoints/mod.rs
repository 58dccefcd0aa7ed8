//! The endpoints controller: EndpointSlices and Endpoints of Services with a selector, and slices
//! that mirror hand-made Endpoints of Services without one.

mod backends;
mod legacy;
mod slices;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use self::slices::{MANAGED_BY, MIRROR_KEEPER, SELECTOR_KEEPER, SERVICE_NAME, Write};
use super::engine::{Change, Controller, Outcome};
use super::object::{deleting, label, name, namespace, plain_selector_matches, text, uid};
use super::queue::Key;
use crate::api::resource::{ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES};
use crate::api::{Api, ApiError, DeleteOptions, Resource, Selectors};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// See the module.
pub struct Endpoints {
    api: Api,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}

impl Endpoints {
    /// A controller over this API.
    pub fn new(api: &Api) -> Self {
        Self {
            api: api.as_user("system:serviceaccount:kube-system:endpointslice-controller"),
        }
    }

    /// The slices of a Service, by keeper.
    async fn existing(
        &self,
        ns: &str,
        service: &str,
        keeper: &str,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let selectors = Selectors::labels([(SERVICE_NAME, service), (MANAGED_BY, keeper)]);
        Ok(self
            .api
            .list(&ENDPOINT_SLICES, Some(ns), &selectors)
            .await?
            .0)
    }

    async fn select(&self, service: &Value) -> Result<(), ApiError> {
        let ns = namespace(service);
        let (pods, _) = self.api.list(&PODS, Some(ns), &Selectors::all()).await?;
        let backends = backends::backends(service, &pods);
        let groups = slices::groups(service, &backends, &self.zones().await?);
        let existing = self.existing(ns, name(service), SELECTOR_KEEPER).await?;
        self.write(
            ns,
            slices::plan(service, SELECTOR_KEEPER, groups, &existing),
        )
        .await?;
        let mirrors = self.existing(ns, name(service), MIRROR_KEEPER).await?;
        self.write(
            ns,
            mirrors
                .iter()
                .map(|s| Write::Delete(name(s).to_owned()))
                .collect(),
        )
        .await?;
        self.write_endpoints(ns, legacy::endpoints(service, &backends))
            .await
    }

    async fn mirror(&self, service: &Value) -> Result<(), ApiError> {
        let ns = namespace(service);
        let groups = match self.api.get(&ENDPOINTS, Some(ns), name(service)).await {
            Ok(made) if legacy::mirrored(&made) && !deleting(&made) => legacy::mirror_groups(&made),
            Ok(_) => Vec::new(),
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        };
        let existing = self.existing(ns, name(service), MIRROR_KEEPER).await?;
        self.write(ns, slices::plan(service, MIRROR_KEEPER, groups, &existing))
            .await
    }

    async fn zones(&self) -> Result<HashMap<String, String>, ApiError> {
        let (nodes, _) = self.api.list(&NODES, None, &Selectors::all()).await?;
        let zone = |node: &Value| label(node, ZONE_LABEL).map(str::to_owned);
        Ok(nodes
            .iter()
            .filter_map(|n| Some((name(n).to_owned(), zone(n)?)))
            .collect())
    }

    async fn write(&self, ns: &str, writes: Vec<Write>) -> Result<(), ApiError> {
        for write in writes {
            match write {
                Write::Create(slice) => {
                    self.api.create(&ENDPOINT_SLICES, Some(ns), slice).await?;
                }
                Write::Update(slice) => {
                    self.api.update(&ENDPOINT_SLICES, Some(ns), slice).await?;
                }
                Write::Delete(gone) => {
                    ignore_missing(self.api.delete(
                        &ENDPOINT_SLICES,
                        Some(ns),
                        &gone,
                        DeleteOptions::default(),
                    ))
                    .await?;
                }
            }
        }
        Ok(())
    }

    async fn write_endpoints(&self, ns: &str, wanted: Value) -> Result<(), ApiError> {
        match self.api.get(&ENDPOINTS, Some(ns), name(&wanted)).await {
            Ok(found) if legacy::same(&found, &wanted) => Ok(()),
            Ok(found) => {
                let mut updated = (*found).clone();
                updated["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
                updated["subsets"] = wanted["subsets"].clone();
                self.api
                    .update(&ENDPOINTS, Some(ns), updated)
                    .await
                    .map(drop)
            }
            Err(error) if error.is_not_found() => self
                .api
                .create(&ENDPOINTS, Some(ns), wanted)
                .await
                .map(drop),
            Err(error) => Err(error),
        }
    }

    /// The Service is gone: so are its slices and its Endpoints, whoever made them.
    async fn clear(&self, key: &Key) -> Result<(), ApiError> {
        for keeper in [SELECTOR_KEEPER, MIRROR_KEEPER] {
            let existing = self.existing(&key.namespace, &key.name, keeper).await?;
            let deletes = existing
                .iter()
                .map(|s| Write::Delete(name(s).to_owned()))
                .collect();
            self.write(&key.namespace, deletes).await?;
        }
        let ns = Some(key.namespace.as_str());
        match self.api.get(&ENDPOINTS, ns, &key.name).await {
            Ok(found) if legacy::kept_by_controller(&found) => {
                let options = DeleteOptions::default().with_uid(uid(&found));
                ignore_missing(self.api.delete(&ENDPOINTS, ns, &key.name, options)).await
            }
            _ => Ok(()),
        }
    }

    async fn services(&self, ns: Option<&str>) -> Vec<Arc<Value>> {
        match self.api.list(&SERVICES, ns, &Selectors::all()).await {
            Ok((services, _)) => services,
            Err(error) => {
                tracing::warn!("listing services: {error}");
                Vec::new()
            }
        }
    }
}

async fn ignore_missing<T>(
    delete: impl Future<Output = Result<T, ApiError>>,
) -> Result<(), ApiError> {
    match delete.await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[async_trait]
impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&SERVICES, &PODS, &NODES, &ENDPOINTS, &ENDPOINT_SLICES]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        let resource = &change.resource;
        if *resource == SERVICES || *resource == ENDPOINTS {
            return vec![change.key()];
        }
        if *resource == ENDPOINT_SLICES {
            // Only to repair what somebody else changed: our own writes find nothing to do.
            let ns = namespace(&change.object);
            let keeper = label(&change.object, MANAGED_BY);
            return match label(&change.object, SERVICE_NAME) {
                Some(service) if [Some(SELECTOR_KEEPER), Some(MIRROR_KEEPER)].contains(&keeper) => {
                    vec![Key::new(ns, service)]
                }
                _ => Vec::new(),
            };
        }
        if *resource == NODES {
            let zone = |node: &Value| label(node, ZONE_LABEL).map(str::to_owned);
            let same = change
                .old
                .as_deref()
                .is_some_and(|old| zone(old) == zone(&change.object));
            if same && !change.deleted {
                return Vec::new();
            }
            return self
                .services(None)
                .await
                .iter()
                .map(|service| Key::of(service))
                .collect();
        }
        let services = self.services(Some(namespace(&change.object))).await;
        services
            .iter()
            .filter(|service| {
                let selector = backends::selector(service);
                change
                    .states()
                    .any(|pod| plain_selector_matches(selector, pod))
            })
            .map(|service| Key::of(service))
            .collect()
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        match self
            .api
            .get(&SERVICES, Some(&key.namespace), &key.name)
            .await
        {
            Ok(service) if deleting(&service) => {}
            Ok(service) if text(&service, "/spec/type") == "ExternalName" => {}
            Ok(service) if backends::selector(&service).is_some() => {
                self.select(&service).await?;
            }
            Ok(service) => self.mirror(&service).await?,
            Err(error) if error.is_not_found() => self.clear(key).await?,
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}
