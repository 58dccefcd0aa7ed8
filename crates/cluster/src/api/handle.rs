//! The in-process client of the API: what controllers, the node agent and the CLI use.
//!
//! It goes through the same admission, defaulting, validation and storage as HTTP requests;
//! only authentication and authorisation are left out, since the caller names its own user.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde_json::Value;

use super::core::{Core, RequestInfo};
use super::error::ApiError;
use super::resource::Resource;
use super::selector::Selectors;

/// A client of the embedded API; cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) core: Arc<Core>,
    user: Arc<UserInfo>,
    field_manager: Arc<str>,
}

/// Who makes a request, as webhooks and events see it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UserInfo {
    /// User name such as `system:serviceaccount:kube-system:deployment-controller`.
    pub name: String,
    /// Unique id; may be empty.
    pub uid: String,
    /// Groups, without duplicates.
    pub groups: Vec<String>,
    /// Extra attributes, such as the bound pod of a service account token.
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The form of AdmissionReview and the review kinds.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut m = serde_json::Map::new();
        m.insert("username".to_owned(), self.name.as_str().into());
        if !self.uid.is_empty() {
            m.insert("uid".to_owned(), self.uid.as_str().into());
        }
        m.insert("groups".to_owned(), self.groups.clone().into());
        if !self.extra.is_empty() {
            m.insert("extra".to_owned(), serde_json::json!(self.extra));
        }
        Value::Object(m)
    }
}

/// What becomes of an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, dependents later.
    Background,
    /// Dependents go first (finalizer `foregroundDeletion`).
    Foreground,
    /// Dependents stay, without their owner reference (finalizer `orphan`).
    Orphan,
}

/// A condition on the object that a delete meets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// Required uid.
    pub uid: Option<String>,
    /// Required resource version.
    pub resource_version: Option<String>,
}

/// Options of a delete; the default is what `kubectl` gets without flags.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Grace in seconds; `None` is the object's own (30 for most pods), 0 is at once.
    pub grace_period_seconds: Option<i64>,
    /// Default: the kind's own, which is `Background` for all but Job.
    pub propagation: Option<Propagation>,
    /// Conditions on the object found.
    pub precondition: Precondition,
    /// Full checks, no write.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// At once, without grace.
    #[must_use]
    pub fn now() -> Self {
        Self {
            grace_period_seconds: Some(0),
            ..Self::default()
        }
    }

    /// Only the object with this uid.
    #[must_use]
    pub fn with_uid(mut self, uid: impl Into<String>) -> Self {
        self.precondition.uid = Some(uid.into());
        self
    }
}

/// The pod that a service account token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Pod name.
    pub name: String,
    /// Pod uid.
    pub uid: String,
}

/// A token made for a service account.
#[derive(Clone, Debug)]
pub struct ServiceAccountToken {
    /// The signed JWT.
    pub token: String,
    /// End of validity, in seconds since 1970.
    pub expires_at: i64,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// It appeared, or began to match the selectors.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or ceased to match; `object` is its last state.
    Deleted,
    /// Nothing; `rv` says how far the stream is.
    Bookmark,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// The object (for `Bookmark`: null).
    pub object: Arc<Value>,
    /// The store's version at this event.
    pub rv: u64,
}

/// A stream of events; an `Err` (410: list again) is its last item.
pub struct WatchStream {
    inner: Pin<Box<dyn Stream<Item = Result<WatchEvent, ApiError>> + Send>>,
}

impl WatchStream {
    pub(crate) fn new(
        inner: impl Stream<Item = Result<WatchEvent, ApiError>> + Send + 'static,
    ) -> Self {
        Self {
            inner: Box::pin(inner),
        }
    }

    /// The next event; `None` when the server stops. Safe to use in `select!`.
    pub async fn next_event(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        std::future::poll_fn(|cx| self.inner.as_mut().poll_next(cx)).await
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchEvent, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(cx)
    }
}

impl Api {
    /// A client of a core, acting as a member of `system:masters`.
    pub(crate) fn over(core: Arc<Core>) -> Self {
        Self {
            core,
            user: Arc::new(UserInfo {
                name: "system:apiserver".to_owned(),
                groups: vec!["system:masters".to_owned()],
                ..UserInfo::default()
            }),
            field_manager: Arc::from("lateen"),
        }
    }

    /// The same client under another user name (group `system:masters`), whose last part is
    /// also the field manager: `system:kube-controller-manager`, `system:node:node-1`.
    #[must_use]
    pub fn as_user(&self, name: &str) -> Self {
        Self {
            core: Arc::clone(&self.core),
            user: Arc::new(UserInfo {
                name: name.to_owned(),
                groups: vec![
                    "system:masters".to_owned(),
                    "system:authenticated".to_owned(),
                ],
                ..UserInfo::default()
            }),
            field_manager: Arc::from(name.rsplit(':').next().unwrap_or(name)),
        }
    }

    fn request(&self) -> RequestInfo {
        RequestInfo {
            user: Arc::clone(&self.user),
            field_manager: self.field_manager.to_string(),
            ..RequestInfo::default()
        }
    }

    /// One object. `ns` is `None` for cluster-scoped resources.
    ///
    /// # Errors
    /// 404.
    pub async fn get(
        &self,
        res: &Resource,
        ns: Option<&str>,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        self.core.get(res, ns, name)
    }

    /// All matching objects (`ns` `None`: of all namespaces) and the version of the snapshot.
    ///
    /// # Errors
    /// 404 for an unknown resource, 400 for an unknown field.
    pub async fn list(
        &self,
        res: &Resource,
        ns: Option<&str>,
        selectors: &Selectors,
    ) -> Result<(Vec<Arc<Value>>, u64), ApiError> {
        self.core.list(res, ns, selectors)
    }

    /// Changes after `since_rv`; with 0, first an `Added` for every object there is, then one
    /// `Bookmark`, then the changes.
    ///
    /// # Errors
    /// 404 for an unknown resource, 410 when `since_rv` is too old.
    pub async fn watch(
        &self,
        res: &Resource,
        ns: Option<&str>,
        selectors: &Selectors,
        since_rv: u64,
    ) -> Result<WatchStream, ApiError> {
        self.core.watch(res, ns, selectors, since_rv)
    }

    /// Creates an object; `metadata.name` or `metadata.generateName` names it.
    ///
    /// # Errors
    /// 409 `AlreadyExists`, 422, 403 from admission, 404 for a missing namespace.
    pub async fn create(
        &self,
        res: &Resource,
        ns: Option<&str>,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        let target = self.core.target(res)?;
        self.core.create(&self.request(), &target, ns, object).await
    }

    /// Replaces an object (all but its status). A `metadata.resourceVersion` in the object is
    /// a condition.
    ///
    /// # Errors
    /// 404, 409 `Conflict`, 422.
    pub async fn update(
        &self,
        res: &Resource,
        ns: Option<&str>,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        let target = self.core.target(res)?;
        self.core
            .update(&self.request(), &target, ns, object, None)
            .await
    }

    /// Replaces only an object's status.
    ///
    /// # Errors
    /// As [`Api::update`].
    pub async fn update_status(
        &self,
        res: &Resource,
        ns: Option<&str>,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        let target = self.core.target(res)?;
        self.core
            .update(&self.request(), &target, ns, object, Some("status"))
            .await
    }

    /// Applies a JSON merge patch; `subresource` is `None`, `Some("status")` or
    /// `Some("scale")`. Retried on conflict unless the patch names a resource version.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub async fn merge_patch(
        &self,
        res: &Resource,
        ns: Option<&str>,
        name: &str,
        patch: &Value,
        subresource: Option<&str>,
    ) -> Result<Arc<Value>, ApiError> {
        self.core
            .merge_patch(&self.request(), res, ns, name, patch, subresource)
            .await
    }

    /// Creates or changes the fields the object names (server-side apply, with force, as the
    /// given manager).
    ///
    /// # Errors
    /// 422, 403 from admission.
    pub async fn apply(
        &self,
        res: &Resource,
        ns: Option<&str>,
        object: Value,
        manager: &str,
    ) -> Result<Arc<Value>, ApiError> {
        let mut req = self.request();
        manager.clone_into(&mut req.field_manager);
        req.tracked = true;
        let target = self.core.target(res)?;
        let name = super::meta::name(&object).to_owned();
        let (object, _) = self
            .core
            .apply(&req, &target, ns, &name, None, &object, true)
            .await?;
        Ok(object)
    }

    /// Deletes an object: `Ok(None)` when it is gone, `Ok(Some(object))` when grace or
    /// finalizers keep it.
    ///
    /// # Errors
    /// 404, 409 for a failed precondition.
    pub async fn delete(
        &self,
        res: &Resource,
        ns: Option<&str>,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        self.core
            .delete(&self.request(), res, ns, name, &options)
            .await
    }

    /// Binds a pod to a node, as the scheduler does.
    ///
    /// # Errors
    /// 404, 409 when it is bound already.
    pub async fn bind_pod(&self, ns: &str, name: &str, node: &str) -> Result<(), ApiError> {
        self.core.bind_pod(&self.request(), ns, name, node).await
    }

    /// Takes the `kubernetes` finalizer off a terminating namespace, which removes it.
    ///
    /// # Errors
    /// 404, 409.
    pub async fn finalize_namespace(&self, name: &str) -> Result<(), ApiError> {
        self.core.finalize_namespace(&self.request(), name).await
    }

    /// A signed token for a service account. `audiences` empty means the API's own;
    /// `expiry_seconds` is at least 600.
    ///
    /// # Errors
    /// 404 for a missing account or bound pod, 422.
    pub async fn service_account_token(
        &self,
        ns: &str,
        account: &str,
        audiences: &[String],
        expiry_seconds: i64,
        pod: Option<&BoundPod>,
    ) -> Result<ServiceAccountToken, ApiError> {
        self.core
            .service_account_token(ns, account, audiences, expiry_seconds, pod)
            .await
    }

    /// All resources that are served now and can be listed, with "is namespaced" (custom
    /// resources included): for the owner and namespace collectors.
    pub async fn served_resources(&self) -> Vec<(Resource, bool)> {
        self.core.served_resources()
    }

    /// The kind's resource for an `apiVersion` and `kind`, as owner references name them, with
    /// "is namespaced".
    pub async fn resource_for(&self, api_version: &str, kind: &str) -> Option<(Resource, bool)> {
        self.core.resource_for(api_version, kind)
    }
}
