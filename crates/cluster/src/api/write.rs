//! Creating and changing objects: the one path from a request's body to the store.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::admit::{self, Attributes, Operation, Webhooks};
use super::core::{Core, FieldValidation, RequestInfo, store_error};
use super::error::ApiError;
use super::kinds::{Kind, Target};
use super::patch::apply::{self as managed, Writer};
use super::patch::{self, PatchType};
use super::resource::{CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, PODS, Resource, SERVICES};
use super::{crd, defaults, meta, schema, services, validate};
use crate::store::{Key, StoreError, Write};

/// Attempts at a generated name, and at a write that lost a race.
const ATTEMPTS: usize = 8;

/// Fields of `metadata` that an update takes from the present state.
const KEPT: [&str; 7] = [
    "uid",
    "namespace",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

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

/// The body names the kind it is sent to; what it leaves out is filled in.
fn check_type(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request(
            "the object provided is not a JSON object",
        ));
    };
    let api_version = target.api_version();
    let given = map
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !given.is_empty() && given != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({api_version})"
        )));
    }
    let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !kind.is_empty() && kind != target.kind.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: converting (v1.{kind}) to (v1.{}): unknown conversion",
            target.version, target.kind.kind, target.kind.kind
        )));
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), target.kind.kind.as_str().into());
    let slot = map.entry("metadata").or_insert_with(|| json!({}));
    if slot.is_null() {
        *slot = json!({});
    }
    if !slot.is_object() {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    Ok(())
}

/// The body's namespace agrees with the request's, and is filled in.
fn check_place(target: &Target, ns: Option<&str>, object: &mut Value) -> Result<(), ApiError> {
    if !target.kind.namespaced {
        meta::remove(&mut object["metadata"], "namespace");
        return Ok(());
    }
    let Some(ns) = ns.filter(|n| !n.is_empty()) else {
        return Err(ApiError::bad_request(
            "an empty namespace may not be set during creation",
        ));
    };
    let given = meta::namespace(object);
    if !given.is_empty() && given != ns {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given:?} and {ns:?})"
        )));
    }
    object["metadata"]["namespace"] = ns.into();
    Ok(())
}

/// Recursively drops nulls: for built-in kinds they mean absence.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(m) => {
            m.retain(|_, v| !v.is_null());
            m.values_mut().for_each(strip_nulls);
        }
        Value::Array(a) => a.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// Whether anything but metadata and (for kinds that write it apart) status differs.
fn spec_differs(kind: &Kind, old: &Value, new: &Value) -> bool {
    let relevant = |o: &Value| -> Map<String, Value> {
        let mut m = o.as_object().cloned().unwrap_or_default();
        m.shift_remove("metadata");
        if kind.status || !kind.custom {
            m.shift_remove("status");
        }
        m
    };
    relevant(old) != relevant(new)
}

impl Core {
    /// Removes or refuses what the schema does not allow; `object` is in its stored form.
    fn clean(
        &self,
        info: &RequestInfo,
        target: &Target,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let kind = &target.kind;
        let cannot = |why: &str| {
            ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {why}",
                kind.kind, target.version, kind.kind
            ))
        };
        let unknown = if let Some(definition) = &kind.definition {
            let found = schema::check_builtin(definition, object);
            if let Some(why) = found.type_error {
                return Err(cannot(&why));
            }
            found.unknown
        } else if let Some(version) = kind.storage_schema() {
            let found = schema::check_metadata(&mut object["metadata"]);
            if let Some(why) = found.type_error {
                return Err(cannot(&why));
            }
            let mut unknown = found.unknown;
            unknown.extend(crd::prune(&version.schema, object));
            unknown
        } else {
            Vec::new()
        };
        let texts: Vec<String> = unknown
            .iter()
            .map(|p| format!("unknown field {p:?}"))
            .collect();
        match info.validation {
            FieldValidation::Strict if !texts.is_empty() => Err(cannot(&format!(
                "strict decoding error: {}",
                texts.join(", ")
            ))),
            FieldValidation::Warn => {
                texts.iter().for_each(|t| info.warn(t));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fill_defaults(kind: &Kind, object: &mut Value) {
        if let Some(version) = kind.storage_schema() {
            crd::apply_defaults(&version.schema, object);
        } else {
            defaults::apply(kind, object);
            strip_nulls(object);
        }
    }

    fn validate(&self, kind: &Kind, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        let causes = match kind.storage_schema() {
            Some(version) => {
                let mut causes = validate::check_metadata(kind, object, old);
                causes.extend(crd::validate(version, object, old));
                causes
            }
            None => validate::check(kind, object, old),
        };
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(
            &kind.res.group,
            &kind.kind,
            meta::name(object),
            &causes,
        ))
    }

    /// New objects need a namespace that is there and stays.
    fn check_namespace(&self, kind: &Kind, ns: Option<&str>, name: &str) -> Result<(), ApiError> {
        let Some(ns) = ns.filter(|_| kind.namespaced) else {
            return Ok(());
        };
        let Some(found) = self.store.get(&NAMESPACES, "", ns) else {
            return Err(ApiError::not_found(&NAMESPACES, ns));
        };
        if meta::deleting(&found) {
            let why = format!(
                "unable to create new content in namespace {ns} because it is being terminated"
            );
            let mut e = ApiError::forbidden(&kind.res, name, &why);
            if let Some(d) = &mut e.details {
                d["causes"] = json!([{"reason": "NamespaceTerminating",
                    "message": format!("namespace {ns} is being terminated"), "field": "metadata.namespace"}]);
            }
            return Err(e);
        }
        Ok(())
    }

    fn deprecation(info: &RequestInfo, target: &Target) {
        if let Some(w) = target
            .kind
            .version(&target.version)
            .and_then(|v| v.deprecation.as_ref())
        {
            info.warn(w);
        }
    }

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
        let _services;
        if kind.is(&SERVICES) {
            _services = self.service_lock.lock().await;
            services::allocate(self, &mut object, None)?;
        }
        if kind.is(&CUSTOM_RESOURCE_DEFINITIONS) {
            let causes = crd::prepare(&mut object, true);
            if !causes.is_empty() {
                return Err(ApiError::invalid(
                    &kind.res.group,
                    &kind.kind,
                    &name,
                    &causes,
                ));
            }
            crd::set_status(&mut object, false);
        }
        self.validate(kind, &object, None)?;
        let hooks = Webhooks { store: &self.store };
        admit::run_validating(&hooks, &at, &object, None).await?;
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

    /// Built-in admission and the mutating webhooks.
    async fn admit(
        &self,
        at: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let new_pod = at.kind.is(&PODS) && at.operation == Operation::Create && at.sub.is_none();
        let ns = at.ns.unwrap_or_default();
        if new_pod {
            admit::defaults_of_pod(&self.store, ns, object)?;
        }
        let hooks = Webhooks { store: &self.store };
        let uid = object["metadata"]["uid"].clone();
        if admit::run_mutating(&hooks, at, object, old).await? {
            // A hook may add what the schema does not know, and fields that have defaults.
            object["metadata"]["uid"] = uid;
            let target = Target {
                kind: Arc::clone(at.kind),
                version: at.version.to_owned(),
            };
            let quiet = RequestInfo {
                validation: FieldValidation::Ignore,
                ..at.info.clone()
            };
            self.clean(&quiet, &target, object)?;
            Self::fill_defaults(at.kind, object);
            if new_pod {
                admit::defaults_of_pod(&self.store, ns, object)?;
            }
        }
        Ok(())
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
        let _services;
        if kind.is(&SERVICES) && sub.is_none() {
            _services = self.service_lock.lock().await;
            services::allocate(self, &mut next, Some(current))?;
        }
        if kind.is(&CUSTOM_RESOURCE_DEFINITIONS) && sub.is_none() {
            let causes = crd::prepare(&mut next, false);
            if !causes.is_empty() {
                return Err(ApiError::invalid(&kind.res.group, &kind.kind, name, &causes).into());
            }
        }
        self.validate(kind, &next, Some(current))?;
        let hooks = Webhooks { store: &self.store };
        admit::run_validating(&hooks, &at, &next, Some(current)).await?;
        self.number_generation(kind, current, &mut next);
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

    fn number_generation(&self, kind: &Kind, current: &Value, next: &mut Value) {
        if !kind.generation {
            return;
        }
        let now = current["metadata"]["generation"].as_i64().unwrap_or(1);
        let changed = spec_differs(kind, current, next);
        next["metadata"]["generation"] = (now + i64::from(changed)).into();
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

/// Sets what the server owns in a new object.
fn prepare_create(kind: &Kind, object: &mut Value, applied: bool) {
    let m = meta::metadata_mut(object);
    for field in [
        "resourceVersion",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        m.shift_remove(field);
    }
    if !applied {
        m.shift_remove("managedFields");
    }
    m.insert("uid".to_owned(), meta::new_uid().into());
    m.insert("creationTimestamp".to_owned(), meta::now_text().into());
    if kind.generation {
        m.insert("generation".to_owned(), 1.into());
    }
    // The status of a new object is nobody's claim; nodes register with theirs.
    if kind.status && !kind.is(&NODES) {
        meta::remove(object, "status");
        if !kind.custom {
            object["status"] = json!({});
        }
    }
    if kind.is(&NAMESPACES) {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
    }
}

fn check_identity(kind: &Kind, name: &str, current: &Value, next: &Value) -> Result<(), ApiError> {
    let given = meta::name(next);
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let uid = meta::text(next, "uid");
    if !uid.is_empty() && uid != meta::text(current, "uid") {
        return Err(ApiError::conflict(
            &kind.res,
            name,
            &format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                meta::text(current, "uid")
            ),
        ));
    }
    let rv = meta::text(next, "resourceVersion");
    if !rv.is_empty() && rv != meta::text(current, "resourceVersion") {
        return Err(ApiError::modified(&kind.res, name));
    }
    Ok(())
}

/// Takes from the present state what the request may not change.
fn carry_over(kind: &Kind, sub: Option<&str>, current: &Value, next: &mut Value) {
    match sub {
        Some("status") => {
            let status = meta::remove(next, "status");
            let managed = next["metadata"]["managedFields"].take();
            let mut whole = current.clone();
            match status {
                Some(s) => whole["status"] = s,
                None => drop(meta::remove(&mut whole, "status")),
            }
            if !managed.is_null() {
                whole["metadata"]["managedFields"] = managed;
            }
            *next = whole;
        }
        Some("finalize") => {
            let finalizers = next["spec"]["finalizers"].take();
            let mut whole = current.clone();
            whole["spec"]["finalizers"] = if finalizers.is_null() {
                json!([])
            } else {
                finalizers
            };
            *next = whole;
        }
        _ => {
            if kind.status {
                match current.get("status") {
                    Some(s) => next["status"] = s.clone(),
                    None => drop(meta::remove(next, "status")),
                }
            }
            if kind.is(&NAMESPACES) {
                next["spec"] = current["spec"].clone();
            }
        }
    }
    for field in KEPT {
        match current["metadata"].get(field) {
            Some(v) => next["metadata"][field] = v.clone(),
            None => drop(meta::remove(&mut next["metadata"], field)),
        }
    }
    next["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    if next["metadata"]["managedFields"].is_null() {
        if let Some(m) = current["metadata"].get("managedFields") {
            next["metadata"]["managedFields"] = m.clone();
        }
    } else if next["metadata"]["managedFields"] == json!([{}])
        || next["metadata"]["managedFields"] == json!([])
    {
        meta::remove(&mut next["metadata"], "managedFields");
    }
    // Order of the body decides nothing: keep the stored one, so that equal stays equal.
}

/// Whether a changed object has nothing that keeps it: it was waiting for its last finalizer.
fn is_gone(kind: &Kind, object: &Value) -> bool {
    if !meta::deleting(object) || meta::finalizers(object).next().is_some() {
        return false;
    }
    if kind.is(&NAMESPACES) {
        return object["spec"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty);
    }
    object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0)
        == 0
}
