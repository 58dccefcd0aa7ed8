//! The façade over the Kubernetes client: the few reads and writes that the
//! control plane and the commands need, as plain JSON.

use crate::raw;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error as ClientError};
use serde_json::{Value, json};
use std::path::Path;

/// Name under which writes are owned.
const FIELD_MANAGER: &str = "lateen";

/// Why a request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The server answered with an error.
    #[error("{message}")]
    Status {
        /// HTTP status.
        code: u16,
        /// Kubernetes' reason word, such as `NotFound`.
        reason: String,
        /// The server's words.
        message: String,
    },
    /// The request did not get through.
    #[error(transparent)]
    Client(ClientError),
    /// No usable configuration.
    #[error("cannot read the kubeconfig: {0}")]
    Config(String),
}

impl From<ClientError> for KubeError {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Api(s) => KubeError::Status {
                code: s.code,
                reason: s.reason.clone(),
                message: s.message.clone(),
            },
            other => KubeError::Client(other),
        }
    }
}

impl KubeError {
    /// The object or kind is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, KubeError::Status { code: 404, .. })
    }

    /// The object is there already, or was changed by somebody else.
    pub fn is_conflict(&self) -> bool {
        matches!(self, KubeError::Status { code: 409, .. })
    }
}

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenIdentity {
    /// The server vouches for it.
    pub authenticated: bool,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub username: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Audiences that both sides share.
    pub audiences: Vec<String>,
    /// Why it was refused; empty when it was not.
    pub error: String,
}

impl TokenIdentity {
    /// Namespace and name of a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        service_account(&self.username)
    }
}

/// Namespace and name in `system:serviceaccount:NAMESPACE:NAME`; `None` for other users and
/// for names that no object could have.
pub fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_name = |n: &str, most: usize| !n.is_empty() && n.len() <= most && n.chars().all(plain);
    (is_name(namespace, 63) && is_name(name, 253)).then_some((namespace, name))
}

/// A connection configuration: a kubeconfig file with an optional context, or
/// without a file the usual places (`KUBECONFIG`, `~/.kube/config`, in-cluster),
/// which kube finds by itself.
pub async fn connect_config(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Config, KubeError> {
    let options = KubeConfigOptions {
        context: context.map(Into::into),
        ..Default::default()
    };
    let fail = |e: &dyn std::fmt::Display| KubeError::Config(e.to_string());
    match (kubeconfig, context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|e| fail(&e))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|e| fail(&e))
        }
        (None, Some(_)) => Config::from_kubeconfig(&options)
            .await
            .map_err(|e| fail(&e)),
        (None, None) => Config::infer().await.map_err(|e| fail(&e)),
    }
}

/// Connects; see [`connect_config`].
pub async fn connect(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, KubeError> {
    Ok(Client::try_from(
        connect_config(kubeconfig, context).await?,
    )?)
}

/// Reads and writes of an API server, as JSON.
#[derive(Clone)]
pub struct Kube {
    client: Client,
}

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kube").finish_non_exhaustive()
    }
}

/// Names of a resource: `apiVersion`, kind and plural.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    /// `v1`, `apps/v1`, ...
    pub api_version: &'a str,
    /// `ConfigMap`, ...
    pub kind: &'a str,
    /// `configmaps`, ...
    pub plural: &'a str,
}

impl<'a> Resource<'a> {
    const fn new(api_version: &'a str, kind: &'a str, plural: &'a str) -> Self {
        Self {
            api_version,
            kind,
            plural,
        }
    }
}

/// ConfigMaps.
pub const CONFIG_MAP: Resource<'static> = Resource::new("v1", "ConfigMap", "configmaps");
/// Nodes.
pub const NODE: Resource<'static> = Resource::new("v1", "Node", "nodes");
/// Secrets.
pub const SECRET: Resource<'static> = Resource::new("v1", "Secret", "secrets");
/// Namespaces.
pub const NAMESPACE: Resource<'static> = Resource::new("v1", "Namespace", "namespaces");
/// Mutating webhook configurations.
pub const MUTATING_WEBHOOK: Resource<'static> = Resource::new(
    "admissionregistration.k8s.io/v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
);
/// Validating webhook configurations.
pub const VALIDATING_WEBHOOK: Resource<'static> = Resource::new(
    "admissionregistration.k8s.io/v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
);
/// Token reviews.
const TOKEN_REVIEW: Resource<'static> =
    Resource::new("authentication.k8s.io/v1", "TokenReview", "tokenreviews");

impl Kube {
    /// A façade over a client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn api(&self, r: Resource<'_>, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = r
            .api_version
            .rsplit_once('/')
            .unwrap_or(("", r.api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: r.api_version.to_owned(),
            kind: r.kind.to_owned(),
            plural: r.plural.to_owned(),
        };
        match namespace {
            Some(ns) => Api::namespaced_with(self.client.clone(), ns, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Reads one object; `None` when it is not there.
    pub async fn get(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let found = self.api(r, namespace).get_opt(name).await?;
        Ok(found.map(to_json))
    }

    /// Lists objects, of all namespaces when none is given. `labels` is a
    /// label selector, empty for all.
    pub async fn list(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, KubeError> {
        let params = ListParams::default().labels(labels);
        let list = self.api(r, namespace).list(&params).await?;
        Ok(list.into_iter().map(to_json).collect())
    }

    /// Creates an object and gives it back as stored.
    pub async fn create(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, KubeError> {
        let object = from_json(object)?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..Default::default()
        };
        Ok(to_json(
            self.api(r, namespace).create(&params, &object).await?,
        ))
    }

    /// Replaces an object; its `resourceVersion`, if set, must be the current one.
    pub async fn replace(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        object: Value,
    ) -> Result<Value, KubeError> {
        let object = from_json(object)?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..Default::default()
        };
        Ok(to_json(
            self.api(r, namespace)
                .replace(name, &params, &object)
                .await?,
        ))
    }

    /// Applies a JSON merge patch (RFC 7386).
    pub async fn merge_patch(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Value, KubeError> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..Default::default()
        };
        let patch = Patch::Merge(patch);
        Ok(to_json(
            self.api(r, namespace).patch(name, &params, &patch).await?,
        ))
    }

    /// Deletes an object; false when it was not there.
    pub async fn delete(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<bool, KubeError> {
        match self
            .api(r, namespace)
            .delete(name, &DeleteParams::default())
            .await
        {
            Ok(_) => Ok(true),
            Err(ClientError::Api(s)) if s.code == 404 => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes an object be as given: creates it, or merges the given fields into
    /// the one that is there. Gives it back as stored.
    pub async fn ensure(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Value, KubeError> {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        match self.create(r, namespace, object.clone()).await {
            Err(e) if e.is_conflict() => self.merge_patch(r, namespace, &name, &object).await,
            other => other,
        }
    }

    /// Asks the server who a token belongs to (`TokenReview`).
    pub async fn review_token(
        &self,
        token: &str,
        audiences: &[&str],
    ) -> Result<TokenIdentity, KubeError> {
        let review = json!({
            "apiVersion": TOKEN_REVIEW.api_version,
            "kind": TOKEN_REVIEW.kind,
            "metadata": {},
            "spec": {"token": token, "audiences": audiences},
        });
        let answer = self.create(TOKEN_REVIEW, None, review).await?;
        let status = &answer["status"];
        let words = |v: &Value| {
            let list = v.as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(String::from).collect()
        };
        Ok(TokenIdentity {
            authenticated: status["authenticated"].as_bool().unwrap_or(false),
            username: status["user"]["username"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            groups: words(&status["user"]["groups"]),
            audiences: words(&status["audiences"]),
            error: status["error"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Puts a CA into every webhook of a webhook configuration (base64 of PEM);
    /// true when something was changed, false when it was right already or the
    /// configuration is not there.
    pub async fn set_ca_bundle(
        &self,
        r: Resource<'_>,
        name: &str,
        ca_bundle: &str,
    ) -> Result<bool, KubeError> {
        let Some(mut found) = self.get(r, None, name).await? else {
            return Ok(false);
        };
        let Some(webhooks) = found["webhooks"].as_array_mut() else {
            return Ok(false);
        };
        let mut changed = false;
        for webhook in webhooks {
            let config = &mut webhook["clientConfig"];
            if config["caBundle"].as_str() != Some(ca_bundle) {
                config["caBundle"] = ca_bundle.into();
                changed = true;
            }
        }
        if changed {
            // The resource version guards against another replica's write.
            self.replace(r, None, name, found).await?;
        }
        Ok(changed)
    }

    /// Merges a status into an object's status subresource.
    pub async fn write_status(
        &self,
        r: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        status: &Value,
    ) -> Result<(), KubeError> {
        let patch = json!({ "status": status });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..Default::default()
        };
        self.api(r, namespace)
            .patch_status(name, &params, &Patch::Merge(&patch))
            .await?;
        Ok(())
    }
}

fn to_json(mut object: DynamicObject) -> Value {
    raw::trim(&mut object);
    serde_json::to_value(object).unwrap_or_default()
}

fn from_json(value: Value) -> Result<DynamicObject, KubeError> {
    serde_json::from_value(value).map_err(|e| KubeError::Client(ClientError::SerdeError(e)))
}

#[cfg(test)]
mod tests {
    use super::service_account;

    #[test]
    fn only_service_accounts_with_names_of_objects_are_read() {
        assert_eq!(
            service_account("system:serviceaccount:default:bookinfo-reviews"),
            Some(("default", "bookinfo-reviews"))
        );
        let long = format!("system:serviceaccount:{}:x", "a".repeat(64));
        for other in [
            "",
            "admin",
            "system:node:n1",
            "system:serviceaccount:",
            "system:serviceaccount:default",
            "system:serviceaccount::x",
            "system:serviceaccount:default:",
            "system:serviceaccount:default:a:b",
            "system:serviceaccount:default:a/b",
            "system:serviceaccount:de fault:a",
            "system:serviceaccount:default:a\n",
            "SYSTEM:serviceaccount:default:a",
            &long,
        ] {
            assert_eq!(service_account(other), None, "{other:?}");
        }
    }
}
