//! The kinds that are served: one row of data for each built-in, the same form for custom ones.

mod convert;
mod registry;
mod rows;

use std::sync::Arc;

use serde_json::Value;

use super::resource::Resource;
use crate::api::crd::CrdVersion;
pub use convert::Conversion;
pub use registry::{Registry, Target};
pub use rows::{ROWS, Row};

/// Rule for `metadata.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// DNS-1123 subdomain, at most 253 characters.
    Subdomain,
    /// DNS-1123 label, at most 63 characters.
    Label,
    /// DNS-1035 label: begins with a letter.
    Service,
    /// A path segment (RBAC objects: colons allowed).
    Path,
}

/// How a kind's scale is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// JSON path of the wanted number, such as `.spec.replicas`.
    pub spec: String,
    /// JSON path of the present number.
    pub status: String,
    /// JSON path of the selector (text or label selector object); may be empty.
    pub selector: String,
}

/// A served kind.
#[derive(Debug)]
pub struct Kind {
    /// Group and plural under which it is served.
    pub res: Resource,
    /// Group and plural under which it is stored: differs for aliases.
    pub store: Resource,
    /// `apiVersion` of stored objects.
    pub storage_api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// List kind, such as `DeploymentList`.
    pub list_kind: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Lives in namespaces.
    pub namespaced: bool,
    /// Served versions, best first.
    pub versions: Vec<KindVersion>,
    /// Has the `status` subresource.
    pub status: bool,
    /// Has the `scale` subresource.
    pub scale: Option<Scale>,
    /// `metadata.generation` is kept.
    pub generation: bool,
    /// An update needs a resource version.
    pub needs_version: bool,
    /// Rule of its names.
    pub names: NameRule,
    /// Field selectors beside name and namespace.
    pub fields: Vec<String>,
    /// The OpenAPI definition of a built-in's stored form.
    pub definition: Option<String>,
    /// Conversion between served and stored form.
    pub conversion: Conversion,
    /// Is a custom resource.
    pub custom: bool,
    /// Custom resources: uid and generation of the definition.
    pub origin: String,
}

/// One served version of a kind.
#[derive(Clone, Debug)]
pub struct KindVersion {
    /// Name, such as `v1`.
    pub name: String,
    /// Warning sent with every answer in this version.
    pub deprecation: Option<String>,
    /// Custom resources: schema and columns.
    pub custom: Option<Arc<CrdVersion>>,
}

impl Kind {
    /// `apiVersion` of a served version.
    #[must_use]
    pub fn api_version(&self, version: &str) -> String {
        super::meta::api_version(&self.res.group, version)
    }

    /// The best version.
    #[must_use]
    pub fn preferred(&self) -> &str {
        self.versions.first().map_or("v1", |v| v.name.as_str())
    }

    /// A served version by name.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&KindVersion> {
        self.versions.iter().find(|v| v.name == name)
    }

    /// The custom schema that applies to the stored form.
    #[must_use]
    pub fn storage_schema(&self) -> Option<&Arc<CrdVersion>> {
        let (_, version) = super::meta::split_api_version(&self.storage_api_version);
        self.version(version)
            .or_else(|| self.versions.first())
            .and_then(|v| v.custom.as_ref())
    }

    /// Whether this is the given built-in resource (in its stored form).
    #[must_use]
    pub fn is(&self, res: &Resource) -> bool {
        self.store == *res
    }

    /// An object in the given served version: itself when it has that version already.
    #[must_use]
    pub fn present(&self, object: &Arc<Value>, version: &str) -> Arc<Value> {
        let api_version = self.api_version(version);
        if object["apiVersion"].as_str() == Some(&api_version) {
            return Arc::clone(object);
        }
        let mut copy = (**object).clone();
        self.conversion.to_served(&mut copy, &api_version);
        Arc::new(copy)
    }

    /// Brings a served object into its stored form.
    pub fn to_storage(&self, object: &mut Value) {
        if object["apiVersion"].as_str() != Some(&self.storage_api_version) {
            self.conversion.to_stored(object, &self.storage_api_version);
        }
    }
}
