//! What every namespace gets: ServiceAccount `default` and ConfigMap `kube-root-ca.crt`.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::engine::{Change, Controller, Outcome};
use super::object::{deleting, name, text};
use super::queue::Key;
use crate::api::resource::{CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS};
use crate::api::{Api, ApiError, Resource};

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

/// See the module.
pub struct NamespaceDefaults {
    api: Api,
    /// PEM of the authority that signs the API server's certificate.
    ca_pem: String,
}

impl std::fmt::Debug for NamespaceDefaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamespaceDefaults").finish_non_exhaustive()
    }
}

impl NamespaceDefaults {
    /// A controller over this API; `ca_pem` goes to `ca.crt` of the ConfigMap.
    pub fn new(api: &Api, ca_pem: String) -> Self {
        let api = api.as_user("system:serviceaccount:kube-system:service-account-controller");
        Self { api, ca_pem }
    }

    async fn ensure(&self, ns: &str, resource: &Resource, wanted: Value) -> Result<(), ApiError> {
        match self.api.create(resource, Some(ns), wanted).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    async fn ensure_root_ca(&self, ns: &str) -> Result<(), ApiError> {
        let data = json!({"ca.crt": self.ca_pem});
        match self.api.get(&CONFIG_MAPS, Some(ns), ROOT_CA).await {
            Ok(found) if found["data"] == data => Ok(()),
            Ok(found) => {
                let mut updated = (*found).clone();
                updated["data"] = data;
                self.api
                    .update(&CONFIG_MAPS, Some(ns), updated)
                    .await
                    .map(drop)
            }
            Err(error) if error.is_not_found() => {
                let wanted = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": ROOT_CA, "namespace": ns, "annotations": {
                        "kubernetes.io/description":
                            "Contains a CA bundle that can be used to verify the kube-apiserver \
                             when using internal endpoints such as the internal service IP or \
                             kubernetes.default.svc. No other usage is guaranteed across \
                             distributions of Kubernetes clusters."}},
                    "data": data,
                });
                self.ensure(ns, &CONFIG_MAPS, wanted).await
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Controller for NamespaceDefaults {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn watches(&self) -> Vec<&'static Resource> {
        vec![&NAMESPACES, &SERVICE_ACCOUNTS, &CONFIG_MAPS]
    }

    async fn keys(&self, change: &Change) -> Vec<Key> {
        let watched = if change.resource == NAMESPACES {
            return if change.deleted {
                Vec::new()
            } else {
                vec![change.key()]
            };
        } else if change.resource == SERVICE_ACCOUNTS {
            change.deleted && name(&change.object) == ACCOUNT
        } else {
            name(&change.object) == ROOT_CA && (change.deleted || change.old.is_some())
        };
        let ns = super::object::namespace(&change.object);
        if watched {
            vec![Key::new("", ns)]
        } else {
            Vec::new()
        }
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let namespace = match self.api.get(&NAMESPACES, None, &key.name).await {
            Ok(namespace) => namespace,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if deleting(&namespace) || text(&namespace, "/status/phase") == "Terminating" {
            return Ok(None);
        }
        let ns = key.name.as_str();
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": ns},
        });
        if self
            .api
            .get(&SERVICE_ACCOUNTS, Some(ns), ACCOUNT)
            .await
            .is_err()
        {
            self.ensure(ns, &SERVICE_ACCOUNTS, account).await?;
        }
        self.ensure_root_ca(ns).await?;
        Ok(None)
    }
}
