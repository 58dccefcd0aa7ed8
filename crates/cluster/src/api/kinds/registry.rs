//! The set of kinds served now: the built-in rows and the established custom resources.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Kind, KindVersion, ROWS, Row, Scale};
use crate::api::crd;
use crate::api::meta;
use crate::api::resource::Resource;
use crate::api::schema::builtin;

/// A kind in one of its served versions.
#[derive(Clone, Debug)]
pub struct Target {
    /// The kind.
    pub kind: Arc<Kind>,
    /// Served version.
    pub version: String,
}

impl Target {
    /// `apiVersion` of this target.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.kind.api_version(&self.version)
    }
}

/// An immutable set of kinds; replaced as a whole when custom resources change.
#[derive(Debug, Default)]
pub struct Registry {
    /// In the order of discovery.
    kinds: Vec<Arc<Kind>>,
    by_resource: HashMap<Resource, usize>,
}

impl Registry {
    /// The built-in kinds and those of the given CustomResourceDefinition objects.
    #[must_use]
    pub fn build(crds: &[Arc<Value>]) -> Self {
        Self::rebuild(crds, &Self::default())
    }

    /// As [`Registry::build`], taking over from `earlier` the kinds whose definition is the same.
    #[must_use]
    pub fn rebuild(crds: &[Arc<Value>], earlier: &Self) -> Self {
        let mut kinds: Vec<Arc<Kind>> = if earlier.kinds.is_empty() {
            ROWS.iter().map(|r| Arc::new(builtin_kind(r))).collect()
        } else {
            earlier
                .kinds
                .iter()
                .filter(|k| !k.custom)
                .cloned()
                .collect()
        };
        for object in crds {
            if meta::deleting(object) && !crd::has_cleanup(object) {
                continue;
            }
            let origin = crd::origin(object);
            let known = earlier
                .kinds
                .iter()
                .find(|k| k.custom && k.origin == origin);
            match known {
                Some(k) => kinds.push(Arc::clone(k)),
                None => kinds.extend(crd::kind_of(object).map(Arc::new)),
            }
        }
        let by_resource = kinds
            .iter()
            .enumerate()
            .map(|(i, k)| (k.res.clone(), i))
            .collect();
        Self { kinds, by_resource }
    }

    /// All kinds.
    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// The kind of a resource.
    #[must_use]
    pub fn kind(&self, res: &Resource) -> Option<&Arc<Kind>> {
        self.by_resource.get(res).map(|i| &self.kinds[*i])
    }

    /// The kind at `group`, `version`, `plural`, when that version is served.
    #[must_use]
    pub fn target(&self, group: &str, version: &str, plural: &str) -> Option<Target> {
        let kind = self.kind(&Resource::named(group, plural))?;
        kind.version(version)?;
        Some(Target {
            kind: Arc::clone(kind),
            version: version.to_owned(),
        })
    }

    /// The target for an object's `apiVersion` and `kind`.
    #[must_use]
    pub fn target_of(&self, api_version: &str, kind: &str) -> Option<Target> {
        let (group, version) = meta::split_api_version(api_version);
        let found = self
            .kinds
            .iter()
            .find(|k| k.res.group == group && k.kind == kind && k.version(version).is_some())?;
        Some(Target {
            kind: Arc::clone(found),
            version: version.to_owned(),
        })
    }

    /// All versions of a group in order of preference.
    #[must_use]
    pub fn versions(&self, group: &str) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for kind in self.kinds.iter().filter(|k| k.res.group == group) {
            for v in &kind.versions {
                if !out.contains(&v.name) {
                    out.push(v.name.clone());
                }
            }
        }
        out.sort_by_key(|v| std::cmp::Reverse(crd::version_order(v)));
        out
    }

    /// All groups but the core one, in the order of discovery.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let mut out: Vec<&str> = Vec::new();
        for kind in &self.kinds {
            let group = kind.res.group.as_ref();
            if !group.is_empty() && !out.contains(&group) {
                out.push(group);
            }
        }
        out
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn builtin_kind(row: &Row) -> Kind {
    let res = Resource::new(row.group, row.plural);
    let store = row
        .alias_of
        .map_or_else(|| res.clone(), |(g, p)| Resource::new(g, p));
    let stored = ROWS
        .iter()
        .find(|r| r.group == store.group && r.plural == store.plural)
        .unwrap_or(row);
    Kind {
        res,
        store,
        storage_api_version: meta::api_version(stored.group, stored.version),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        singular: row.kind.to_lowercase(),
        short_names: owned(row.short),
        categories: owned(row.categories),
        namespaced: row.namespaced,
        versions: std::iter::once(row.version)
            .chain(row.older.iter().copied())
            .map(|version| KindVersion {
                name: version.to_owned(),
                deprecation: row.deprecation.map(str::to_owned),
                custom: None,
            })
            .collect(),
        status: row.status,
        scale: row.scale.then(|| Scale {
            spec: ".spec.replicas".to_owned(),
            status: ".status.replicas".to_owned(),
            selector: ".spec.selector".to_owned(),
        }),
        generation: row.generation,
        needs_version: row.needs_version,
        names: row.names,
        fields: owned(row.fields),
        definition: builtin::definition_of(stored.group, stored.plural),
        conversion: row.conversion,
        custom: false,
        origin: String::new(),
    }
}
