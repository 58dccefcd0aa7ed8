//! The API without its transport: the store, the kinds served now, reads and watches.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::auth::TokenSigner;
use super::error::ApiError;
use super::handle::{UserInfo, WatchEvent, WatchKind, WatchStream};
use super::kinds::{Kind, Registry, Target};
use super::resource::{CUSTOM_RESOURCE_DEFINITIONS, Resource};
use super::selector::Selectors;
use super::{crd, meta};
use crate::store::{Change, ChangeKind, Store, StoreError};

/// What to do about fields that a schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them with a warning.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// What a write request brings beside its object.
#[derive(Clone, Debug, Default)]
pub struct RequestInfo {
    /// Who asks.
    pub user: Arc<UserInfo>,
    /// Name under which changed fields are owned.
    pub field_manager: String,
    /// Ownership of fields is recorded: requests from outside.
    pub tracked: bool,
    /// Full checks, no write.
    pub dry_run: bool,
    /// Treatment of unknown fields.
    pub validation: FieldValidation,
    /// The object is the result of a patch, which is then what is refused.
    pub(crate) patched: Option<Arc<Patched>>,
    /// Warnings for the client, in order.
    pub warnings: Arc<Mutex<Vec<String>>>,
}

/// How a patch that led to a wrong object is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Patched {
    /// Strategic merge: this text of the patch.
    Fields(String),
    /// JSON patch, merge patch: the object it led to.
    Whole,
}

impl RequestInfo {
    /// The server's own requests.
    pub(crate) fn internal() -> Self {
        Self {
            user: Arc::new(UserInfo {
                name: "system:apiserver".to_owned(),
                groups: vec!["system:masters".to_owned()],
                ..UserInfo::default()
            }),
            field_manager: "lateen".to_owned(),
            validation: FieldValidation::Ignore,
            ..Self::default()
        }
    }

    /// Adds a warning for the client.
    pub fn warn(&self, text: &str) {
        let mut list = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.is_empty() && !list.iter().any(|w| w == text) {
            list.push(text.to_owned());
        }
    }
}

/// Settings of the core.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) service_cidr: ipnet::Ipv4Net,
    pub(crate) node_ports: RangeInclusive<u16>,
    pub(crate) dns_ip: Option<std::net::IpAddr>,
    pub(crate) advertise: SocketAddr,
    pub(crate) version: String,
}

/// The API without its transport.
pub struct Core {
    pub(crate) store: Store,
    registry: ArcSwap<Registry>,
    pub(crate) settings: Settings,
    pub(crate) signer: TokenSigner,
    /// Held while addresses and ports of a Service are chosen and written.
    pub(crate) service_lock: tokio::sync::Mutex<()>,
    /// Held while the set of kinds is rebuilt.
    registry_lock: Mutex<()>,
    /// Definitions whose objects are being removed.
    cleaning: Mutex<HashSet<String>>,
}

pub(crate) fn store_error(res: &Resource, name: &str, e: &StoreError) -> ApiError {
    match e {
        StoreError::Conflict => ApiError::modified(res, name),
        StoreError::Exists => ApiError::already_exists(res, name),
        StoreError::Missing => ApiError::not_found(res, name),
        StoreError::Expired { .. } => ApiError::expired(e.to_string()),
        StoreError::Disk(_) => ApiError::internal(e),
        StoreError::Closed => ApiError::unavailable("the API server is shutting down"),
    }
}

impl Core {
    pub(crate) fn new(store: Store, settings: Settings, signer: TokenSigner) -> Self {
        let (crds, _) = store.list(&CUSTOM_RESOURCE_DEFINITIONS, None);
        Self {
            registry: ArcSwap::from_pointee(Registry::build(&crds)),
            store,
            settings,
            signer,
            service_lock: tokio::sync::Mutex::new(()),
            registry_lock: Mutex::new(()),
            cleaning: Mutex::new(HashSet::new()),
        }
    }

    /// The kinds served now.
    pub(crate) fn registry(&self) -> arc_swap::Guard<Arc<Registry>> {
        self.registry.load()
    }

    /// Takes up the stored definitions.
    pub(crate) fn refresh_registry(&self) {
        let _held = self
            .registry_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (crds, _) = self.store.list(&CUSTOM_RESOURCE_DEFINITIONS, None);
        let next = Registry::rebuild(&crds, &self.registry.load());
        self.registry.store(Arc::new(next));
    }

    pub(crate) fn begin_cleanup(&self, name: &str) -> bool {
        self.cleaning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned())
    }

    pub(crate) fn end_cleanup(&self, name: &str) {
        self.cleaning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }

    /// A resource in its stored version.
    pub(crate) fn target(&self, res: &Resource) -> Result<Target, ApiError> {
        let registry = self.registry();
        let kind = registry.kind(res).ok_or_else(ApiError::unknown_path)?;
        let (_, stored) = meta::split_api_version(&kind.storage_api_version);
        let version = kind.version(stored).map_or(kind.preferred(), |v| &v.name);
        Ok(Target {
            version: version.to_owned(),
            kind: Arc::clone(kind),
        })
    }

    /// The stored object behind a served kind.
    pub(crate) fn stored(
        &self,
        kind: &Kind,
        ns: Option<&str>,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        let ns = if kind.namespaced {
            ns.unwrap_or_default()
        } else {
            ""
        };
        self.store
            .get(&kind.store, ns, name)
            .ok_or_else(|| ApiError::not_found(&kind.res, name))
    }

    /// One object in the target's version.
    pub(crate) fn get_in(
        &self,
        target: &Target,
        ns: Option<&str>,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        let object = self.stored(&target.kind, ns, name)?;
        Ok(target.kind.present(&object, &target.version))
    }

    pub(crate) fn get(
        &self,
        res: &Resource,
        ns: Option<&str>,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        self.get_in(&self.target(res)?, ns, name)
    }

    /// Refuses field selectors that the kind does not have.
    pub(crate) fn check_selectors(kind: &Kind, selectors: &Selectors) -> Result<(), ApiError> {
        for term in &selectors.field {
            let known = matches!(term.path.as_str(), "metadata.name" | "metadata.namespace")
                || kind.fields.contains(&term.path);
            if !known {
                return Err(ApiError::bad_request(
                    if kind.custom || kind.fields.is_empty() {
                        format!(
                            "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                            term.path
                        )
                    } else {
                        format!("field label not supported: {}", term.path)
                    },
                ));
            }
        }
        Ok(())
    }

    /// Matching objects in the target's version, and the snapshot's version.
    pub(crate) fn list_in(
        &self,
        target: &Target,
        ns: Option<&str>,
        selectors: &Selectors,
    ) -> Result<(Vec<Arc<Value>>, u64), ApiError> {
        let kind = &target.kind;
        Self::check_selectors(kind, selectors)?;
        let ns = ns.filter(|_| kind.namespaced);
        if let (Some(name), true) = (selectors.exact_name(), ns.is_some() || !kind.namespaced) {
            let rv = self.store.revision();
            let found = self.store.get(&kind.store, ns.unwrap_or_default(), name);
            let found = found.map(|o| kind.present(&o, &target.version));
            return Ok((
                found.into_iter().filter(|o| selectors.matches(o)).collect(),
                rv,
            ));
        }
        let (all, rv) = self.store.list(&kind.store, ns);
        let found = all
            .iter()
            .map(|o| kind.present(o, &target.version))
            .filter(|o| selectors.is_empty() || selectors.matches(o))
            .collect();
        Ok((found, rv))
    }

    pub(crate) fn list(
        &self,
        res: &Resource,
        ns: Option<&str>,
        selectors: &Selectors,
    ) -> Result<(Vec<Arc<Value>>, u64), ApiError> {
        self.list_in(&self.target(res)?, ns, selectors)
    }

    /// Changes after `since`, without anything before them.
    pub(crate) fn changes(
        &self,
        target: &Target,
        ns: Option<&str>,
        selectors: &Selectors,
        since: u64,
    ) -> Result<Changes, ApiError> {
        Self::check_selectors(&target.kind, selectors)?;
        let sub = self
            .store
            .watch(&target.kind.store, since)
            .map_err(|e| store_error(&target.kind.res, "", &e))?;
        Ok(Changes {
            sub,
            filter: Filter {
                target: target.clone(),
                ns: ns.filter(|_| target.kind.namespaced).map(str::to_owned),
                selectors: selectors.clone(),
            },
        })
    }

    pub(crate) fn watch(
        &self,
        res: &Resource,
        ns: Option<&str>,
        selectors: &Selectors,
        since: u64,
    ) -> Result<WatchStream, ApiError> {
        let target = self.target(res)?;
        let mut ready = std::collections::VecDeque::new();
        let mut since = since;
        if since == 0 {
            let (objects, rv) = self.list_in(&target, ns, selectors)?;
            for object in objects {
                let rv = meta::version(&object);
                ready.push_back(WatchEvent {
                    kind: WatchKind::Added,
                    object,
                    rv,
                });
            }
            ready.push_back(WatchEvent {
                kind: WatchKind::Bookmark,
                object: Arc::new(Value::Null),
                rv,
            });
            since = rv;
        }
        let changes = self.changes(&target, ns, selectors, since)?;
        let stream = futures_util::stream::unfold(Some((ready, changes)), |state| async move {
            let (mut ready, mut changes) = state?;
            while ready.is_empty() {
                match changes.next().await {
                    Ok(events) => ready.extend(events),
                    Err(e) if e.code == 503 => return None,
                    Err(e) => return Some((Err(e), None)),
                }
            }
            let event = ready.pop_front()?;
            Some((Ok(event), Some((ready, changes))))
        });
        Ok(WatchStream::new(stream))
    }

    pub(crate) fn served_resources(&self) -> Vec<(Resource, bool)> {
        self.registry()
            .kinds()
            .iter()
            .filter(|k| k.res == k.store)
            .map(|k| (k.res.clone(), k.namespaced))
            .collect()
    }

    pub(crate) fn resource_for(&self, api_version: &str, kind: &str) -> Option<(Resource, bool)> {
        let registry = self.registry();
        let (group, _) = meta::split_api_version(api_version);
        let found = registry
            .target_of(api_version, kind)
            .map(|t| t.kind)
            .or_else(|| {
                let same = |k: &&Arc<Kind>| k.res.group == group && k.kind == kind;
                registry.kinds().iter().find(same).cloned()
            })?;
        Some((found.store.clone(), found.namespaced))
    }

    /// After a definition was written: serve it, then say that it is served.
    pub(crate) async fn definition_changed(&self, name: &str) {
        self.refresh_registry();
        let Some(current) = self.store.get(&CUSTOM_RESOURCE_DEFINITIONS, "", name) else {
            return;
        };
        let mut next = (*current).clone();
        crd::set_status(&mut next, true);
        if next["status"] == current["status"] {
            return;
        }
        let key = crate::store::Key {
            res: CUSTOM_RESOURCE_DEFINITIONS.clone(),
            ns: String::new(),
            name: name.to_owned(),
        };
        let write = crate::store::Write::Replace {
            rv: meta::version(&current),
            object: next,
        };
        // On conflict another writer is at work, and comes through here after its own write.
        if let Err(e) = self.store.write(key, write).await
            && !matches!(e, StoreError::Conflict | StoreError::Missing)
        {
            tracing::error!(name, error = %e, "cannot write the status of a definition");
        }
    }
}

/// Which changes of a resource a watcher sees.
struct Filter {
    target: Target,
    ns: Option<String>,
    selectors: Selectors,
}

/// A filtered cursor in the changes of a resource.
pub(crate) struct Changes {
    sub: crate::store::Subscription,
    filter: Filter,
}

impl Changes {
    /// The next events that pass the filter; may be empty. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<WatchEvent>, ApiError> {
        let changes = self
            .sub
            .next()
            .await
            .map_err(|e| store_error(&self.filter.target.kind.res, "", &e))?;
        Ok(changes
            .iter()
            .filter_map(|c| self.filter.event(c))
            .collect())
    }

    /// A version up to which everything was reported.
    pub(crate) fn progress(&self) -> u64 {
        self.sub.progress()
    }
}

impl Filter {
    fn event(&self, change: &Change) -> Option<WatchEvent> {
        if let Some(ns) = &self.ns
            && meta::namespace(&change.object) != ns
        {
            return None;
        }
        let kind = &self.target.kind;
        let object = kind.present(&change.object, &self.target.version);
        let what = if self.selectors.is_empty() {
            match change.kind {
                ChangeKind::Added => WatchKind::Added,
                ChangeKind::Modified => WatchKind::Modified,
                ChangeKind::Deleted => WatchKind::Deleted,
            }
        } else {
            let before = change.previous.as_ref().is_some_and(|p| {
                self.selectors
                    .matches(&kind.present(p, &self.target.version))
            });
            let after = change.kind != ChangeKind::Deleted && self.selectors.matches(&object);
            match (before, after) {
                (false, false) => return None,
                (false, true) => WatchKind::Added,
                (true, true) => WatchKind::Modified,
                (true, false) => WatchKind::Deleted,
            }
        };
        let left = what == WatchKind::Deleted && change.kind != ChangeKind::Deleted;
        let object = match (&change.previous, left) {
            (Some(p), true) => {
                // The last state that matched, with the version of the change that ended it.
                let mut last = (*kind.present(p, &self.target.version)).clone();
                last["metadata"]["resourceVersion"] = json!(change.rv.to_string());
                Arc::new(last)
            }
            _ => object,
        };
        Some(WatchEvent {
            kind: what,
            object,
            rv: change.rv,
        })
    }
}
