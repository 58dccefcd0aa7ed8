//! The operations of the API on its store, shared by HTTP and in-process callers.

use std::sync::Arc;

use serde_json::Value;

use super::error::ApiError;
use super::handle::{BoundPod, DeleteOptions, ServiceAccountToken, UserInfo, WatchStream};
use super::resource::Resource;
use super::selector::Selectors;

/// What a write request brings beside its object.
#[derive(Clone, Debug, Default)]
pub struct RequestInfo {
    /// Who asks.
    pub user: Arc<UserInfo>,
    /// Name under which changed fields are owned.
    pub field_manager: String,
    /// Full checks, no write.
    pub dry_run: bool,
}

/// The API without its transport.
pub struct Core {}

fn starting<T>() -> Result<T, ApiError> {
    Err(ApiError::unavailable("the API server is starting"))
}

#[expect(clippy::unused_async, reason = "bodies follow in the next commit")]
impl Core {
    pub(crate) fn get(
        &self,
        _: &Resource,
        _: Option<&str>,
        _: &str,
    ) -> Result<Arc<Value>, ApiError> {
        starting()
    }
    pub(crate) fn list(
        &self,
        _: &Resource,
        _: Option<&str>,
        _: &Selectors,
    ) -> Result<(Vec<Arc<Value>>, u64), ApiError> {
        starting()
    }
    pub(crate) fn watch(
        &self,
        _: &Resource,
        _: Option<&str>,
        _: &Selectors,
        _: u64,
    ) -> Result<WatchStream, ApiError> {
        starting()
    }
    pub(crate) async fn create(
        &self,
        _: &RequestInfo,
        _: &Resource,
        _: Option<&str>,
        _: Value,
    ) -> Result<Arc<Value>, ApiError> {
        starting()
    }
    pub(crate) async fn update(
        &self,
        _: &RequestInfo,
        _: &Resource,
        _: Option<&str>,
        _: Value,
        _: Option<&str>,
    ) -> Result<Arc<Value>, ApiError> {
        starting()
    }
    pub(crate) async fn merge_patch(
        &self,
        _: &RequestInfo,
        _: &Resource,
        _: Option<&str>,
        _: &str,
        _: &Value,
        _: Option<&str>,
    ) -> Result<Arc<Value>, ApiError> {
        starting()
    }
    pub(crate) async fn apply(
        &self,
        _: &RequestInfo,
        _: &Resource,
        _: Option<&str>,
        _: Value,
        _: bool,
    ) -> Result<Arc<Value>, ApiError> {
        starting()
    }
    pub(crate) async fn delete(
        &self,
        _: &RequestInfo,
        _: &Resource,
        _: Option<&str>,
        _: &str,
        _: &DeleteOptions,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        starting()
    }
    pub(crate) async fn bind_pod(
        &self,
        _: &RequestInfo,
        _: &str,
        _: &str,
        _: &str,
    ) -> Result<(), ApiError> {
        starting()
    }
    pub(crate) async fn finalize_namespace(
        &self,
        _: &RequestInfo,
        _: &str,
    ) -> Result<(), ApiError> {
        starting()
    }
    pub(crate) async fn service_account_token(
        &self,
        _: &str,
        _: &str,
        _: &[String],
        _: i64,
        _: Option<&BoundPod>,
    ) -> Result<ServiceAccountToken, ApiError> {
        starting()
    }
    pub(crate) fn served_resources(&self) -> Vec<(Resource, bool)> {
        Vec::new()
    }
    pub(crate) fn resource_for(&self, _: &str, _: &str) -> Option<(Resource, bool)> {
        None
    }
}
