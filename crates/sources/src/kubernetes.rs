//! Kubernetes as a source: one watch per kind, each on its own. A kind that the
//! server does not have (its definition is not installed yet) is asked for
//! again and again without holding up the others.

use crate::raw;
use crate::{Event, KubeError, Sink};
use futures_util::StreamExt;
use kube::api::{Api, DynamicObject, ListParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Error as ClientError};
use lateen_resources::kind::KINDS;
use lateen_resources::{Diagnostic, Kind, Object, ObjectKey, ObjectSet};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Kinds the control plane needs. Some of Istio's have no effect yet: the debug pages show
/// them, so that nobody has to guess what the control plane knows.
const WATCHED: [Kind; 22] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::ConfigMap,
    Kind::Secret,
    Kind::Ingress,
    Kind::Gateway,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::WorkloadGroup,
    Kind::Sidecar,
    Kind::EnvoyFilter,
    Kind::ProxyConfig,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::AuthorizationPolicy,
    Kind::Telemetry,
    Kind::WasmPlugin,
];

/// ConfigMap of the root namespace that holds the mesh settings.
const MESH_CONFIG_MAP: &str = "istio";

/// First and longest wait after a failed list or watch.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Wait between looks for a kind that the server does not have.
const MISSING_KIND: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    /// Namespace whose ConfigMap `istio` holds the mesh settings; other
    /// ConfigMaps are not watched.
    pub root_namespace: String,
    /// Watch Secrets (gateway certificates).
    pub secrets: bool,
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            root_namespace: lateen_resources::names::ROOT_NAMESPACE.to_owned(),
            secrets: true,
        }
    }
}

/// Delivers the objects of a cluster and follows their changes until
/// `shutdown`, or until the sink is closed. Failures are retried; `Synced`
/// comes when every kind was listed or is known to be missing.
pub async fn run_kubernetes(
    client: Client,
    options: KubernetesOptions,
    sink: Sink,
    shutdown: impl Future<Output = ()>,
) {
    let kinds: Vec<Kind> = WATCHED
        .into_iter()
        .filter(|k| options.secrets || *k != Kind::Secret)
        .collect();
    let (listed, mut count) = watch::channel(0usize);
    let unreadable = Arc::new(Unreadable {
        by_object: Mutex::default(),
        sink: sink.clone(),
    });
    let mut tasks = JoinSet::new();
    for kind in &kinds {
        let follow = Follow {
            kind: *kind,
            client: client.clone(),
            options: options.clone(),
            sink: sink.clone(),
            unreadable: unreadable.clone(),
            listed: listed.clone(),
            was_listed: false,
            version: 0,
            selector_refused: false,
        };
        tasks.spawn(follow.run());
    }
    let synced = sink.clone();
    let wanted = kinds.len();
    tasks.spawn(async move {
        if count.wait_for(|n| *n == wanted).await.is_ok() {
            // Fails when nobody listens any more, which ends all tasks anyway.
            let _ = synced.send(Event::Synced).await;
        }
        std::future::pending::<()>().await;
    });
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        () = sink.closed() => {}
        ended = tasks.join_next() => {
            // A task ends only with its sink; a panic is a defect worth a line.
            if let Some(Err(e)) = ended {
                tracing::error!(error = %e, "a watch ended");
            }
        }
    }
    tasks.shutdown().await;
}

/// Objects that cannot be read, told as one list whenever it changes.
struct Unreadable {
    by_object: Mutex<BTreeMap<ObjectKey, Vec<Diagnostic>>>,
    sink: Sink,
}

impl Unreadable {
    async fn note(&self, key: ObjectKey, found: Vec<Diagnostic>) {
        let all = {
            let mut map = self
                .by_object
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let changed = if found.is_empty() {
                map.remove(&key).is_some()
            } else {
                map.insert(key, found.clone()).as_ref() != Some(&found)
            };
            if !changed {
                return;
            }
            map.values().flatten().cloned().collect()
        };
        // A closed sink ends the source elsewhere.
        let _ = self.sink.send(Event::Unreadable(all)).await;
    }
}

/// The watch of one kind.
struct Follow {
    kind: Kind,
    client: Client,
    options: KubernetesOptions,
    sink: Sink,
    unreadable: Arc<Unreadable>,
    listed: watch::Sender<usize>,
    was_listed: bool,
    version: usize,
    selector_refused: bool,
}

/// Why a watch stopped.
enum Stop {
    /// Nobody listens.
    Closed,
    /// The server has no such kind (in this version).
    Missing,
    /// The server does not know the field selector.
    Selector,
}

impl Follow {
    async fn run(mut self) {
        loop {
            match self.watch().await {
                Stop::Closed => return,
                Stop::Selector => self.selector_refused = true,
                Stop::Missing => {
                    // Another version may be there, or the definition comes later.
                    self.version = (self.version + 1) % self.kind.info().versions.len();
                    let all_tried = self.version == 0;
                    if all_tried {
                        if !self.was_listed {
                            tracing::debug!(kind = %self.kind, "not known to the server yet");
                        }
                        if self
                            .send(Event::Replace(self.kind, Vec::new()))
                            .await
                            .is_err()
                        {
                            return;
                        }
                        self.note_listed();
                        tokio::time::sleep(MISSING_KIND).await;
                    }
                }
            }
        }
    }

    async fn send(&self, event: Event) -> Result<(), Stop> {
        self.sink.send(event).await.map_err(|_| Stop::Closed)
    }

    fn note_listed(&mut self) {
        if !self.was_listed {
            self.was_listed = true;
            self.listed.send_modify(|n| *n += 1);
        }
    }

    fn api(&self, resource: &kube::api::ApiResource) -> Api<DynamicObject> {
        if self.kind == Kind::ConfigMap {
            Api::namespaced_with(self.client.clone(), &self.options.root_namespace, resource)
        } else {
            Api::all_with(self.client.clone(), resource)
        }
    }

    fn selection(&self) -> watcher::Config {
        match self.kind {
            _ if self.selector_refused => watcher::Config::default(),
            Kind::ConfigMap => watcher::Config::default().fields("metadata.name=istio"),
            // Tokens and releases of package managers are many and never ours.
            Kind::Secret => watcher::Config::default()
                .fields("type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"),
            _ => watcher::Config::default(),
        }
    }

    async fn watch(&mut self) -> Stop {
        let info = self.kind.info();
        let resource = raw::resource(info, info.versions[self.version]);
        let mut stream = watcher(self.api(&resource), self.selection()).boxed();
        let mut gathered: Vec<Arc<Object>> = Vec::new();
        let mut wait = RETRY.0;
        while let Some(event) = stream.next().await {
            let done = match event {
                Ok(watcher::Event::Init) => {
                    gathered.clear();
                    Ok(())
                }
                Ok(watcher::Event::InitApply(o)) => {
                    gathered.extend(self.read(&resource, o).await);
                    Ok(())
                }
                Ok(watcher::Event::InitDone) => {
                    wait = RETRY.0;
                    let all = std::mem::take(&mut gathered);
                    let sent = self.send(Event::Replace(self.kind, all)).await;
                    self.note_listed();
                    sent
                }
                Ok(watcher::Event::Apply(o)) => match self.read(&resource, o).await {
                    Some(o) => self.send(Event::Upsert(o)).await,
                    None => Ok(()),
                },
                Ok(watcher::Event::Delete(o)) => {
                    let key = self.key(&o);
                    self.unreadable.note(key.clone(), Vec::new()).await;
                    self.send(Event::Delete(key)).await
                }
                Err(e) if status(&e) == Some(404) => return Stop::Missing,
                Err(e) if status(&e) == Some(400) && !self.selector_refused => {
                    return Stop::Selector;
                }
                Err(e) => {
                    tracing::warn!(kind = %self.kind, error = %e, "watch failed, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY.1);
                    Ok(())
                }
            };
            if let Err(stop) = done {
                return stop;
            }
        }
        Stop::Missing
    }

    fn key(&self, o: &DynamicObject) -> ObjectKey {
        ObjectKey {
            kind: self.kind,
            namespace: o.metadata.namespace.clone().unwrap_or_default(),
            name: o.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Reads an object. One that cannot be read is reported and the last good
    /// one stays in force.
    async fn read(
        &self,
        resource: &kube::api::ApiResource,
        mut object: DynamicObject,
    ) -> Option<Arc<Object>> {
        raw::trim(&mut object);
        let key = self.key(&object);
        if self.kind == Kind::ConfigMap && key.name != MESH_CONFIG_MAP {
            return None;
        }
        match raw::typed(self.kind, resource, object) {
            Ok(o) => {
                self.unreadable.note(key, Vec::new()).await;
                Some(Arc::new(o))
            }
            Err(found) => {
                let first = found.first().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(kind = %self.kind, "{first}");
                self.unreadable.note(key, found).await;
                None
            }
        }
    }
}

/// The server's status when it refused a list or a watch.
fn status(e: &watcher::Error) -> Option<u16> {
    match e {
        watcher::Error::InitialListFailed(ClientError::Api(s))
        | watcher::Error::WatchStartFailed(ClientError::Api(s)) => Some(s.code),
        _ => None,
    }
}

/// Lists every known kind once, for tools. Kinds that the server does not have
/// are left out; objects that cannot be read are logged and left out.
pub async fn load_once(client: Client) -> Result<ObjectSet, KubeError> {
    let mut out = ObjectSet::default();
    for info in KINDS {
        for version in info.versions {
            let resource = raw::resource(info, version);
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let list = match api.list(&ListParams::default()).await {
                Ok(list) => list,
                Err(ClientError::Api(s)) if s.code == 404 => continue,
                Err(e) => return Err(e.into()),
            };
            for mut object in list {
                raw::trim(&mut object);
                match raw::typed(info.kind, &resource, object) {
                    Ok(o) => {
                        out.insert(Arc::new(o));
                    }
                    Err(found) => {
                        for d in found {
                            tracing::warn!("{d}");
                        }
                    }
                }
            }
            break;
        }
    }
    Ok(out)
}
