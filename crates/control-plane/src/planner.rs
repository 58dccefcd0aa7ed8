//! From object events to configurations: gathers events until they pause, compiles, and
//! publishes. Endpoint changes wait much less than configuration, since nothing is
//! compiled for them but what they touch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_compile::{Compiler, EndpointCompiler, EndpointOptions, ObjectChange};
use lateen_model::{MeshConfig, Snapshot};
use lateen_resources::{Diagnostic, ObjectSet};
use lateen_sources::Event;
use tokio::sync::mpsc;

use crate::store::{Configuration, Store};

/// How long to wait for events to pause, and how long at most.
#[derive(Debug, Clone, Copy)]
pub struct Debounce {
    /// Pause that ends gathering.
    pub quiet: Duration,
    /// Gathering ends after this in any case.
    pub longest: Duration,
}

/// Configuration objects come in handfuls (one file, several objects).
pub const CONFIGURATION: Debounce = Debounce {
    quiet: Duration::from_millis(10),
    longest: Duration::from_secs(1),
};
/// Endpoints of a rollout come one by one, and each is wanted soon.
pub const ENDPOINTS: Debounce = Debounce {
    quiet: Duration::from_millis(2),
    longest: Duration::from_millis(50),
};

/// After a compilation the next one waits this many times as long as it took: a stream of changes
/// to a large mesh is taken in few large steps, a single change is not delayed.
const REST: u32 = 10;

/// Compiles events into configurations.
pub struct Planner {
    store: Arc<Store>,
    objects: ObjectSet,
    compiler: Compiler,
    endpoints: EndpointCompiler,
    snapshot: Arc<Snapshot>,
    diagnostics: Arc<Vec<Diagnostic>>,
    unreadable: Vec<Diagnostic>,
    started: String,
    number: u64,
    synced: bool,
    mesh_changed: bool,
    pending: Vec<ObjectChange>,
    /// Configuration is not compiled again before this.
    rest_until: Option<Instant>,
}

impl Planner {
    /// A planner that publishes to a store. `started` tells the versions of this run from
    /// those of another.
    pub fn new(
        store: Arc<Store>,
        mesh: MeshConfig,
        endpoints: EndpointOptions,
        started: String,
    ) -> Self {
        Self {
            store,
            objects: ObjectSet::default(),
            compiler: Compiler::new(mesh),
            endpoints: EndpointCompiler::new(endpoints),
            snapshot: Arc::default(),
            diagnostics: Arc::default(),
            unreadable: Vec::new(),
            started,
            number: 0,
            synced: false,
            mesh_changed: false,
            pending: Vec::new(),
            rest_until: None,
        }
    }

    /// Takes an event in.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Upsert(object) => {
                let change = ObjectChange {
                    kind: object.kind,
                    namespace: object.meta.namespace.clone(),
                    name: object.meta.name.clone(),
                };
                if self.objects.insert(object) {
                    self.pending.push(change);
                }
            }
            Event::Delete(change) => {
                let gone = self
                    .objects
                    .remove(change.kind, &change.namespace, &change.name);
                if gone.is_some() {
                    self.pending.push(change);
                }
            }
            Event::Replace(kind, objects) => {
                let changed = self.objects.replace(kind, objects);
                let change = |(namespace, name)| ObjectChange {
                    kind,
                    namespace,
                    name,
                };
                self.pending.extend(changed.into_iter().map(change));
            }
            Event::Unreadable(found) => {
                self.mesh_changed |= self.unreadable != found;
                self.unreadable = found;
            }
            // Before this nothing is published, lest proxies be told that services are gone
            // which were not listed yet.
            Event::Synced => {
                self.mesh_changed |= !self.synced;
                self.synced = true;
            }
        }
    }

    /// Takes new base mesh settings in.
    pub fn set_mesh(&mut self, mesh: MeshConfig) {
        self.compiler.set_mesh(mesh);
        self.mesh_changed = true;
    }

    /// True when nothing happened since the last publication, or nothing may be published.
    pub fn is_idle(&self) -> bool {
        !self.synced || (self.pending.is_empty() && !self.mesh_changed)
    }

    /// True when only endpoints changed.
    pub fn is_endpoints_only(&self) -> bool {
        !self.mesh_changed && self.pending.iter().all(ObjectChange::is_endpoint_only)
    }

    /// Compiles what changed and publishes it.
    pub fn publish(&mut self, noticed: Instant) {
        let only_endpoints = self.is_endpoints_only();
        let changes = std::mem::take(&mut self.pending);
        self.mesh_changed = false;
        let begun = Instant::now();
        if !only_endpoints {
            let compiled = self.compiler.compile(&self.objects);
            if !compiled.changed.is_empty() {
                self.snapshot = compiled.snapshot;
            }
            let mut all = self.unreadable.clone();
            all.extend(compiled.diagnostics);
            self.diagnostics = Arc::new(all);
        }
        self.endpoints
            .update(&self.objects, &self.snapshot, &changes);
        self.number += 1;
        let took = noticed.elapsed();
        tracing::debug!(
            number = self.number,
            changes = changes.len(),
            only_endpoints,
            ?took,
            "publish"
        );
        self.store.publish(Configuration {
            number: self.number,
            version: format!("{}/{}", self.started, self.number),
            snapshot: self.snapshot.clone(),
            endpoints: self.endpoints.table(),
            objects: Arc::new(self.objects.clone()),
            diagnostics: self.diagnostics.clone(),
            noticed,
        });
        if !only_endpoints {
            self.rest_until = Some(Instant::now() + begun.elapsed() * REST);
        }
    }

    /// How long to wait for the next event, when the first of this handful came `noticed`.
    fn patience(&self, noticed: Instant) -> Duration {
        let (rule, rest) = if self.is_endpoints_only() {
            (ENDPOINTS, Duration::ZERO)
        } else {
            let rest = self
                .rest_until
                .map(|at| at.saturating_duration_since(Instant::now()));
            (CONFIGURATION, rest.unwrap_or_default())
        };
        let left = rule.longest.saturating_sub(noticed.elapsed());
        rule.quiet.max(rest).min(left)
    }

    /// Follows events to their end, and new mesh settings meanwhile.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut meshes: mpsc::Receiver<MeshConfig>,
    ) {
        while self.next(&mut events, &mut meshes).await {
            if self.is_idle() {
                continue;
            }
            let noticed = Instant::now();
            loop {
                let patience = self.patience(noticed);
                let more = self.next(&mut events, &mut meshes);
                // A pause, or the end of events: what came so far counts in any case.
                if !matches!(tokio::time::timeout(patience, more).await, Ok(true)) {
                    break;
                }
            }
            self.publish(noticed);
        }
    }

    /// Takes the next thing in; false at the end of events.
    async fn next(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        meshes: &mut mpsc::Receiver<MeshConfig>,
    ) -> bool {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => self.apply(event),
                None => return false,
            },
            Some(mesh) = meshes.recv() => self.set_mesh(mesh),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_resources::{Object, read_yaml};

    fn service(name: &str) -> Vec<Arc<Object>> {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{clusterIP: 10.96.0.7, ports: [{{name: http, port: 80}}], selector: {{app: a}}}}\n"
        );
        read_yaml(&text, "t.yaml", "default")
            .objects
            .into_iter()
            .map(Arc::new)
            .collect()
    }

    fn planner() -> (Arc<Store>, Planner) {
        let store = Arc::new(Store::new(Default::default()));
        let p = Planner::new(
            store.clone(),
            MeshConfig::default(),
            EndpointOptions { from_pods: true },
            "t".into(),
        );
        (store, p)
    }

    #[test]
    fn nothing_is_published_before_everything_was_listed() {
        let (store, mut p) = planner();
        service("a")
            .into_iter()
            .for_each(|o| p.apply(Event::Upsert(o)));
        assert!(p.is_idle());
        p.apply(Event::Synced);
        assert!(!p.is_idle());
        p.publish(Instant::now());
        assert_eq!(store.current().number, 1);
        assert_eq!(store.current().snapshot.services().len(), 1);
    }

    #[test]
    fn after_a_long_compilation_the_next_one_waits_and_endpoints_do_not() {
        let (_, mut p) = planner();
        let now = Instant::now();
        let far = Duration::from_secs(60);
        p.mesh_changed = true;
        assert_eq!(
            p.patience(now),
            CONFIGURATION.quiet,
            "nothing was compiled yet"
        );
        p.rest_until = Some(now + far);
        let patience = p.patience(now);
        assert!(
            patience > CONFIGURATION.quiet && patience <= CONFIGURATION.longest,
            "{patience:?}"
        );
        p.mesh_changed = false;
        assert!(p.patience(now) <= ENDPOINTS.quiet);
    }

    #[test]
    fn a_pod_leaves_the_snapshot_alone() {
        let (store, mut p) = planner();
        service("a")
            .into_iter()
            .for_each(|o| p.apply(Event::Upsert(o)));
        p.apply(Event::Synced);
        p.publish(Instant::now());
        let before = store.current().snapshot.clone();
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default, labels: {app: a}}\n\
                   spec: {containers: [{name: c, image: i}]}\n\
                   status: {podIP: 10.244.0.9, phase: Running, conditions: [{type: Ready, status: 'True'}]}\n";
        for o in read_yaml(pod, "p.yaml", "default").objects {
            p.apply(Event::Upsert(Arc::new(o)));
        }
        assert!(p.is_endpoints_only());
        p.publish(Instant::now());
        let after = store.current();
        assert!(Arc::ptr_eq(&before, &after.snapshot));
        let key = after.snapshot.services()[0].key();
        assert_eq!(after.endpoints.endpoints(&key, 80).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_becomes_one_configuration() {
        let (store, p) = planner();
        let (sender, receiver) = mpsc::channel(64);
        let (_meshes, no_mesh) = mpsc::channel(1);
        let running = tokio::spawn(p.run(receiver, no_mesh));
        sender.send(Event::Synced).await.expect("running");
        for i in 0..20 {
            for o in service(&format!("s{i}")) {
                sender.send(Event::Upsert(o)).await.expect("running");
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        drop(sender);
        running.await.expect("ends with its events");
        let c = store.current();
        assert_eq!(c.snapshot.services().len(), 20);
        assert!(c.number <= 2, "{} configurations", c.number);
    }
}
