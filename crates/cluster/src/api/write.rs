//! Creating and changing objects: the one path from a request's body to the store.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admit::{Attributes, Operation};
use super::carry::{carry_over, check_identity, is_gone, number_generation, prepare_create};
use super::core::{Core, Patched, RequestInfo, store_error};
use super::error::ApiError;
use super::intake::{check_place, check_type};
use super::kinds::{Kind, Target};
use super::meta;
use super::patch::apply::{self as managed, Writer};
use super::patch::{self, PatchType};
use super::resource::{CUSTOM_RESOURCE_DEFINITIONS, Resource};
use crate::store::{Key, StoreError, Write};

/// Attempts at a generated name, and at a write that lost a race.
const ATTEMPTS: usize = 8;

pub(crate) fn key(kind: &Kind, ns: Option<&str>, name: &str) -> Key {
    Key {
        res: kind.store.clone(),
        ns: ns
            .filter(|_| kind.namespaced)
            .unwrap_or_default()
            .to_owned(),
        name: name.to_owned(),
    }
}

impl Core {
    /// Creates an object; answers in the target's version.
    pub(crate) async fn create(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        self.create_as(info, target, ns, object, false).await
    }

    /// `applied`: the object comes with the field ownership of server-side apply.
    async fn create_as(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        mut object: Value,
        applied: bool,
    ) -> Result<Arc<Value>, ApiError> {
        let kind = &target.kind;
        Self::deprecation(info, target);
        check_type(target, &mut object)?;
        check_place(target, ns, &mut object)?;
        if !meta::text(&object, "resourceVersion").is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        kind.to_storage(&mut object);
        self.clean(info, target, &mut object)?;
        self.check_namespace(kind, ns, meta::name(&object))?;
        let generated = meta::name(&object)
            .is_empty()
            .then(|| meta::text(&object, "generateName").to_owned())
            .filter(|g| !g.is_empty());
        for _ in 0..ATTEMPTS {
            let mut fresh = object.clone();
            if let Some(base) = &generated {
                fresh["metadata"]["name"] = meta::generated_name(base).into();
            }
            let made = self.create_once(info, target, ns, fresh, applied).await;
            match made {
                Err(e) if e.is_already_exists() && generated.is_some() => {}
                other => return other,
            }
        }
        Err(ApiError::already_exists(
            &kind.res,
            generated.as_deref().unwrap_or_default(),
        ))
    }

    async fn create_once(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        mut object: Value,
        applied: bool,
    ) -> Result<Arc<Value>, ApiError> {
        let kind = &target.kind;
        prepare_create(kind, &mut object, applied);
        Self::fill_defaults(kind, &mut object);
        let name = meta::name(&object).to_owned();
        // Told early: admission need not run for what cannot be stored.
        if self
            .store
            .get(
                &kind.store,
                ns.filter(|_| kind.namespaced).unwrap_or_default(),
                &name,
            )
            .is_some()
        {
            return Err(ApiError::already_exists(&kind.res, &name));
        }
        let at = Attributes {
            kind,
            version: &target.version,
            ns: ns.filter(|_| kind.namespaced),
            name: &name,
            sub: None,
            operation: Operation::Create,
            info,
            options: json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}),
        };
        self.admit(&at, &mut object, None).await?;
        let _held = self.settle(&at, &mut object, None).await?;
        if info.tracked && !applied {
            let api_version = target.api_version();
            managed::record_update(
                kind,
                &Value::Null,
                &mut object,
                &writer(info, &api_version, None),
            );
        }
        if info.dry_run {
            return Ok(kind.present(&Arc::new(object), &target.version));
        }
        let stored = self
            .store
            .write(key(kind, ns, &name), Write::Create(object))
            .await
            .map_err(|e| store_error(&kind.res, &name, &e))?;
        let stored = self.after_write(kind, stored).await;
        Ok(kind.present(&stored, &target.version))
    }

    /// What follows a write of some kinds.
    async fn after_write(&self, kind: &Kind, stored: Arc<Value>) -> Arc<Value> {
        if !kind.is(&CUSTOM_RESOURCE_DEFINITIONS) {
            return stored;
        }
        let name = meta::name(&stored);
        self.definition_changed(name).await;
        self.store.get(&kind.store, "", name).unwrap_or(stored)
    }

    /// Replaces an object, or one of its subresources `status` and `finalize`.
    pub(crate) async fn update(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        object: Value,
        sub: Option<&str>,
    ) -> Result<Arc<Value>, ApiError> {
        let name = meta::name(&object).to_owned();
        if name.is_empty() {
            return Err(ApiError::bad_request("name is required"));
        }
        if target.kind.needs_version && meta::text(&object, "resourceVersion").is_empty() {
            let cause = super::error::Cause {
                reason: "FieldValueInvalid",
                message: "Invalid value: 0: must be specified for an update".to_owned(),
                field: "metadata.resourceVersion".to_owned(),
            };
            return Err(ApiError::invalid(
                &target.kind.res.group,
                &target.kind.kind,
                &name,
                &[cause],
            ));
        }
        self.modify(info, target, ns, &name, sub, |_| Ok(object.clone()))
            .await
    }

    pub(crate) async fn merge_patch(
        &self,
        info: &RequestInfo,
        res: &Resource,
        ns: Option<&str>,
        name: &str,
        patch: &Value,
        sub: Option<&str>,
    ) -> Result<Arc<Value>, ApiError> {
        let target = self.target(res)?;
        self.patch(info, &target, ns, name, sub, PatchType::Merge, patch)
            .await
    }

    /// Applies a JSON, merge or strategic patch.
    #[expect(clippy::too_many_arguments, reason = "the parts of a PATCH request")]
    pub(crate) async fn patch(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        sub: Option<&str>,
        how: PatchType,
        patch: &Value,
    ) -> Result<Arc<Value>, ApiError> {
        if sub == Some("scale") {
            return self
                .modify_scale(info, target, ns, name, |scale| {
                    patch::apply_to(
                        &target.kind,
                        if how == PatchType::Strategic {
                            PatchType::Merge
                        } else {
                            how
                        },
                        patch,
                        scale,
                    )
                })
                .await;
        }
        let shown = match how {
            PatchType::Strategic => Patched::Fields(patch::go_text(patch)),
            _ => Patched::Whole,
        };
        let info = &RequestInfo {
            patched: Some(Arc::new(shown)),
            ..info.clone()
        };
        self.modify(info, target, ns, name, sub, |current| {
            let mut next = (**current).clone();
            patch::apply_to(&target.kind, how, patch, &mut next)?;
            Ok(next)
        })
        .await
    }

    /// Server-side apply; also says whether the object was created.
    #[expect(clippy::too_many_arguments, reason = "the parts of an apply request")]
    pub(crate) async fn apply(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        sub: Option<&str>,
        applied: &Value,
        force: bool,
    ) -> Result<(Arc<Value>, bool), ApiError> {
        let kind = &target.kind;
        let mut applied = applied.clone();
        check_type(target, &mut applied)?;
        if meta::name(&applied).is_empty() {
            applied["metadata"]["name"] = name.into();
        }
        if meta::name(&applied) != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                meta::name(&applied)
            )));
        }
        check_place(target, ns, &mut applied)?;
        if applied["metadata"]["managedFields"]
            .as_array()
            .is_some_and(|m| !m.is_empty())
        {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let wanted_rv = meta::text(&applied, "resourceVersion").to_owned();
        meta::remove(&mut applied["metadata"], "resourceVersion");
        kind.to_storage(&mut applied);
        self.clean(info, target, &mut applied)?;
        let api_version = target.api_version();
        let by = writer(info, &api_version, sub);
        for _ in 0..ATTEMPTS {
            if self.stored(kind, ns, name).is_err() {
                if sub.is_some() {
                    return Err(ApiError::not_found(&kind.res, name));
                }
                let fresh = managed::apply(kind, &Value::Null, &applied, &by, force)?;
                match self
                    .create_as(info, &self.storage_target(target), ns, fresh, true)
                    .await
                {
                    Err(e) if e.is_already_exists() => continue,
                    other => return other.map(|o| (kind.present(&o, &target.version), true)),
                }
            }
            let storage = self.storage_target(target);
            let done = self
                .modify_from(info, &storage, ns, name, sub, true, |current| {
                    if !wanted_rv.is_empty() && wanted_rv != meta::text(current, "resourceVersion")
                    {
                        return Err(ApiError::modified(&kind.res, name));
                    }
                    managed::apply(kind, current, &applied, &by, force)
                })
                .await;
            match done {
                Err(e) if e.is_not_found() && sub.is_none() => {}
                other => return other.map(|o| (kind.present(&o, &target.version), false)),
            }
        }
        Err(ApiError::modified(&kind.res, name))
    }

    /// The target in which objects are stored, when it is served; else itself.
    fn storage_target(&self, target: &Target) -> Target {
        let (_, stored) = meta::split_api_version(&target.kind.storage_api_version);
        let version =
            if target.kind.res == target.kind.store && target.kind.version(stored).is_some() {
                stored
            } else {
                &target.version
            };
        Target {
            kind: Arc::clone(&target.kind),
            version: version.to_owned(),
        }
    }

    /// Changes an object by a function of its present state, again when another write was
    /// faster.
    pub(crate) async fn modify(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        sub: Option<&str>,
        change: impl Fn(&Arc<Value>) -> Result<Value, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        self.modify_from(info, target, ns, name, sub, false, change)
            .await
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of an update")]
    async fn modify_from(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        sub: Option<&str>,
        applied: bool,
        change: impl Fn(&Arc<Value>) -> Result<Value, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let kind = &target.kind;
        Self::deprecation(info, target);
        for _ in 0..ATTEMPTS {
            let current = self.stored(kind, ns, name)?;
            let served = kind.present(&current, &target.version);
            let next = change(&served)?;
            match self
                .replace(info, target, ns, name, sub, applied, &current, next)
                .await
            {
                Err(Lost::Race) => {}
                Err(Lost::For(e)) => return Err(*e),
                Ok(object) => return Ok(kind.present(&object, &target.version)),
            }
        }
        Err(ApiError::modified(&kind.res, name))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of an update")]
    async fn replace(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        sub: Option<&str>,
        applied: bool,
        current: &Arc<Value>,
        mut next: Value,
    ) -> Result<Arc<Value>, Lost> {
        let kind = &target.kind;
        check_type(target, &mut next)?;
        check_place(target, ns, &mut next)?;
        check_identity(kind, name, current, &next)?;
        kind.to_storage(&mut next);
        self.clean(info, target, &mut next)?;
        carry_over(kind, sub, current, &mut next);
        Self::fill_defaults(kind, &mut next);
        let at = Attributes {
            kind,
            version: &target.version,
            ns: ns.filter(|_| kind.namespaced),
            name,
            sub,
            operation: Operation::Update,
            info,
            options: json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"}),
        };
        self.admit(&at, &mut next, Some(current)).await?;
        let _held = self.settle(&at, &mut next, Some(current)).await?;
        number_generation(kind, current, &mut next);
        if info.tracked && !applied {
            let api_version = target.api_version();
            managed::record_update(kind, current, &mut next, &writer(info, &api_version, sub));
        }
        if next == **current {
            return Ok(Arc::clone(current));
        }
        if info.dry_run {
            return Ok(Arc::new(next));
        }
        let rv = meta::version(current);
        let write = if is_gone(kind, &next) {
            Write::Remove { rv, last: next }
        } else {
            Write::Replace { rv, object: next }
        };
        let removed = matches!(write, Write::Remove { .. });
        let stored = match self.store.write(key(kind, ns, name), write).await {
            Err(StoreError::Conflict) => return Err(Lost::Race),
            Err(e) => return Err(store_error(&kind.res, name, &e).into()),
            Ok(o) => o,
        };
        if removed {
            if kind.is(&CUSTOM_RESOURCE_DEFINITIONS) {
                self.refresh_registry();
            }
            return Ok(stored);
        }
        Ok(self.after_write(kind, stored).await)
    }

    /// Reads and writes the `scale` of an object.
    pub(crate) async fn modify_scale(
        &self,
        info: &RequestInfo,
        target: &Target,
        ns: Option<&str>,
        name: &str,
        change: impl Fn(&mut Value) -> Result<(), ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let paths = target
            .kind
            .scale
            .as_ref()
            .ok_or_else(ApiError::unknown_path)?;
        let after = self
            .modify(info, target, ns, name, None, |current| {
                let mut scale = super::scale::read(paths, current);
                change(&mut scale)?;
                let rv = meta::text(&scale, "resourceVersion").to_owned();
                let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
                if wanted < 0 {
                    let cause = super::error::Cause::invalid(
                        "spec.replicas",
                        &wanted.into(),
                        "must be greater than or equal to 0",
                    );
                    return Err(ApiError::invalid("autoscaling", "Scale", name, &[cause]));
                }
                let mut next = (**current).clone();
                super::scale::write(paths, &mut next, wanted);
                if !rv.is_empty() {
                    next["metadata"]["resourceVersion"] = rv.into();
                }
                Ok(next)
            })
            .await?;
        Ok(Arc::new(super::scale::read(paths, &after)))
    }
}

/// Why a replace did not happen.
enum Lost {
    /// Another write was faster.
    Race,
    /// For good.
    For(Box<ApiError>),
}

impl From<ApiError> for Lost {
    fn from(e: ApiError) -> Self {
        Self::For(Box::new(e))
    }
}

fn writer<'a>(info: &'a RequestInfo, api_version: &'a str, sub: Option<&'a str>) -> Writer<'a> {
    Writer {
        manager: &info.field_manager,
        api_version,
        subresource: sub.unwrap_or_default(),
    }
}
