//! One pod's life: a task that owns its state, takes events (new spec, starts, ends, probe
//! verdicts), asks [`super::plan`] what to do and publishes the status.

mod probing;
mod publish;
mod setup;
mod stop;
mod unit;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::publish::Publisher;
use self::setup::Ground;
use self::unit::Unit;
use super::agent::{Agent, ContainerEntry, PodEntry, locked};
use super::event::Level;
use super::files::DnsFacts;
use super::plan::{self, Life, RestartPolicy, Role, Seen, Step};
use super::probe::Purpose;
use super::runtime::ExitStatus;
use super::start::{self, StartFailure, StartJob, Started, field};
use super::status::{self, Current};
use super::volume::VolumeContext;
use crate::api::DeleteOptions;
use crate::api::resource::PODS;
use crate::network::host::NodeNetwork;

/// How often volumes are compared with their sources.
const REFRESH: Duration = Duration::from_secs(15);
/// Wait before a failed set-up or deletion is tried again.
const RETRY: Duration = Duration::from_millis(RETRY_MS);
const RETRY_MS: u64 = 1_000;

/// What a pod's task is told.
#[derive(Debug)]
pub enum Notice {
    /// The object changed.
    Updated(Arc<Pod>),
    /// The object is gone from the API.
    Gone,
    /// The agent stops: end the processes, leave the object alone.
    Shutdown,
    /// The ground for containers is laid, or not.
    Ground(Result<Box<Ground>, String>),
    /// A start came to its end.
    Started(usize, u64, Result<Box<Started>, StartFailure>),
    /// A container ended.
    Ended(usize, u64, ExitStatus),
    /// A probe came to a verdict (or failed once, for the event).
    Probe(usize, u64, Purpose, Option<bool>, String),
    /// The pod's first process is gone.
    SandboxLost(u64),
    /// All containers were stopped; the news of their ends may still be on the way.
    Stopped,
    /// What was to come of those news has come.
    Settled,
}

/// Starts a pod's task; the sender reaches it.
pub fn spawn(
    agent: &Arc<Agent>,
    pod: Arc<Pod>,
    tasks: &mut JoinSet<()>,
) -> Option<mpsc::UnboundedSender<Notice>> {
    let node = agent
        .node(pod.spec.as_ref()?.node_name.as_deref()?)?
        .clone();
    let (sender, receiver) = mpsc::unbounded_channel();
    let worker = Worker::new(Arc::clone(agent), pod, node, sender.clone());
    tasks.spawn(worker.run(receiver));
    Some(sender)
}

/// What is going on with the pod as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Containers are started and kept running.
    Alive,
    /// All containers ended for good.
    Finished,
    /// Being stopped for deletion.
    Terminating,
}

struct Worker {
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    node: NodeNetwork,
    entry: Arc<PodEntry>,
    notices: mpsc::UnboundedSender<Notice>,
    ground: Option<Box<Ground>>,
    /// What is left of a lost sandbox, to be cleared away before the next.
    lost: Option<Box<Ground>>,
    /// Counts sandboxes, so that news of an old one are known as such.
    generation: u64,
    laying: bool,
    /// Not before this time of the planner's clock.
    lay_at: u64,
    address: Option<Ipv4Addr>,
    units: Vec<Unit>,
    mode: Mode,
    /// `Some(success)` once all containers ended for good; holds through the termination.
    finished: Option<bool>,
    reason: Option<(String, String)>,
    publisher: Publisher,
    started: Instant,
    start_time: Timestamp,
    /// Times to look again, in the planner's clock.
    look_at: Option<u64>,
    grace: u64,
    stopping: Option<tokio::task::AbortHandle>,
    /// The stopping of the containers is over.
    all_stopped: bool,
    gone: bool,
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

impl Worker {
    fn new(
        agent: Arc<Agent>,
        pod: Arc<Pod>,
        node: NodeNetwork,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Self {
        let meta = &pod.metadata;
        let (namespace, name, uid) = (
            text(meta.namespace.as_ref()),
            text(meta.name.as_ref()),
            text(meta.uid.as_ref()),
        );
        let units = Unit::of_pod(&pod);
        let containers = units.iter().map(|u| {
            let entry = ContainerEntry {
                waiting: "ContainerCreating".to_owned(),
                ..ContainerEntry::default()
            };
            (u.name().to_owned(), entry)
        });
        let entry = Arc::new(PodEntry {
            log_dir: agent
                .options
                .state_dir
                .join("logs")
                .join(format!("{namespace}_{name}_{uid}")),
            uid,
            sandbox: std::sync::Mutex::default(),
            containers: std::sync::Mutex::new(containers.collect()),
        });
        agent.publish(&namespace, &name, &entry);
        let finished = match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
            Some("Succeeded") => Some(true),
            Some("Failed") => Some(false),
            _ => None,
        };
        let start_time = pod
            .status
            .as_ref()
            .and_then(|s| s.start_time.as_ref())
            .map(|t| t.0);
        Self {
            publisher: Publisher::new(agent.api.clone(), &namespace, &name, &entry.uid),
            agent,
            node,
            entry,
            notices,
            ground: None,
            lost: None,
            generation: 0,
            laying: false,
            lay_at: 0,
            address: None,
            units,
            mode: if finished.is_some() {
                Mode::Finished
            } else {
                Mode::Alive
            },
            finished,
            reason: None,
            started: Instant::now(),
            start_time: start_time.unwrap_or_else(Timestamp::now),
            look_at: None,
            grace: 0,
            stopping: None,
            all_stopped: false,
            gone: false,
            pod,
        }
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// The planner's clock: milliseconds since this task began.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn policy(&self) -> RestartPolicy {
        match self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.restart_policy.as_deref())
        {
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            _ => RestartPolicy::Always,
        }
    }

    fn pod_ip(&self) -> Option<Ipv4Addr> {
        let host = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.host_network)
            .unwrap_or(false);
        if host {
            Some(self.node.address)
        } else {
            self.address
        }
    }

    fn facts(&self) -> super::env::PodFacts {
        super::env::PodFacts {
            pod_ip: self.pod_ip().map(|ip| ip.to_string()).unwrap_or_default(),
            host_ip: self.node.address.to_string(),
            node_milli_cpu: i64::try_from(self.agent.cpus)
                .unwrap_or(i64::MAX)
                .saturating_mul(1000),
            node_memory: i64::try_from(self.agent.memory).unwrap_or(i64::MAX),
        }
    }

    fn dns_facts(&self) -> DnsFacts {
        let options = &self.agent.options;
        DnsFacts {
            domain: options.cluster_domain.clone(),
            cluster: options.dns_ip.into(),
            host: self.agent.resolvers.clone(),
            host_search: self.agent.host_search.clone(),
        }
    }

    fn event(&self, field: &str, level: Level, reason: &'static str, message: String) {
        self.agent
            .events
            .record(&self.pod, field, level, reason, message);
    }

    async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Notice>) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.begin_termination();
        }
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        refresh.reset();
        loop {
            self.act();
            self.publish();
            let wake = self.wake_after();
            tokio::select! {
                notice = receiver.recv() => match notice {
                    None | Some(Notice::Shutdown) => break,
                    Some(Notice::Settled) => {
                        if self.complete_deletion().await {
                            break;
                        }
                    }
                    Some(Notice::Gone) => {
                        self.gone = true;
                        break;
                    }
                    Some(notice) => self.take(notice),
                },
                () = tokio::time::sleep(wake) => {}
                _ = refresh.tick() => self.refresh_volumes().await,
            }
        }
        self.tear_down().await;
    }

    fn wake_after(&self) -> Duration {
        let next = [self.look_at, self.deadline()].into_iter().flatten().min();
        let wait = next.map_or(3_600_000, |at| at.saturating_sub(self.now()).max(1));
        Duration::from_millis(wait)
    }

    /// When `activeDeadlineSeconds` is over, in the planner's clock.
    fn deadline(&self) -> Option<u64> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        (self.mode == Mode::Alive).then_some(())?;
        let end = self.start_time.as_second().saturating_add(seconds);
        let left = end.saturating_sub(Timestamp::now().as_second());
        Some(
            self.now()
                .saturating_add(u64::try_from(left).unwrap_or(0).saturating_mul(1000)),
        )
    }

    /// Does whatever is due.
    fn act(&mut self) {
        self.look_at = None;
        if self.mode != Mode::Alive {
            return;
        }
        if self.deadline().is_some_and(|at| at <= self.now()) {
            self.reason = Some((
                "DeadlineExceeded".to_owned(),
                "Pod was active on the node longer than the specified deadline".to_owned(),
            ));
            self.finish(false);
            return;
        }
        if self.ground.is_none() {
            if !self.laying && self.lay_at <= self.now() {
                self.lay_ground();
            } else if !self.laying {
                self.look_at = Some(self.lay_at);
            }
            return;
        }
        let seen: Vec<Seen> = self.units.iter().map(Unit::seen).collect();
        for step in plan::next(self.policy(), &seen, self.now()) {
            match step {
                Step::Start(n) => self.start(n),
                Step::LookAt(at) => self.look_at = Some(self.look_at.map_or(at, |old| old.min(at))),
                Step::Stop(n) => self.stop_sidecar(n),
                Step::Finish { success } => self.finish(success),
            }
        }
    }

    fn lay_ground(&mut self) {
        self.laying = true;
        self.generation += 1;
        let job = setup::Job {
            agent: Arc::clone(&self.agent),
            pod: Arc::clone(&self.pod),
            node: self.node.clone(),
            address: self.address,
            facts: self.facts(),
            dns: self.dns_facts(),
            lost: self.lost.take(),
        };
        let notices = self.notices.clone();
        tokio::spawn(async move {
            let ground = setup::lay(job).await;
            // The task may have ended meanwhile; then the ground is dropped and cleared away.
            drop(notices.send(Notice::Ground(ground.map(Box::new))));
        });
    }

    fn start(&mut self, n: usize) {
        let Some(ground) = &self.ground else {
            return;
        };
        let unit = &mut self.units[n];
        unit.begin();
        let job = StartJob {
            agent: Arc::clone(&self.agent),
            pod: Arc::clone(&self.pod),
            container: unit.spec.clone(),
            role: unit.role,
            target: unit.target.clone(),
            instance: unit.instance(),
            sandbox: Arc::clone(&ground.sandbox),
            volumes: Arc::clone(&ground.volumes),
            facts: super::env::PodFacts::default(),
            entry: Arc::clone(&self.entry),
        };
        let job = StartJob {
            facts: self.facts(),
            ..job
        };
        let (notices, turn) = (self.notices.clone(), self.units[n].turn);
        tokio::spawn(async move {
            let result = start::start(&job).await;
            drop(notices.send(Notice::Started(n, turn, result.map(Box::new))));
        });
    }

    /// Sees to a sandbox that is gone before news from its containers are taken for their own.
    fn notice_lost_sandbox(&mut self) {
        if self.ground.as_ref().is_some_and(|g| g.sandbox.is_gone()) {
            self.sandbox_lost(self.generation);
        }
    }

    fn take(&mut self, notice: Notice) {
        self.notice_lost_sandbox();
        match notice {
            Notice::Updated(pod) => self.updated(pod),
            Notice::Ground(result) => self.grounded(result),
            Notice::Started(n, turn, result) => self.started(n, turn, result),
            Notice::Ended(n, turn, status) => self.ended(n, turn, &status),
            Notice::Probe(n, turn, purpose, verdict, message) => {
                self.probed(n, turn, purpose, verdict, &message);
            }
            Notice::SandboxLost(generation) => self.sandbox_lost(generation),
            Notice::Stopped => self.stopped(),
            Notice::Gone | Notice::Shutdown | Notice::Settled => {}
        }
    }

    fn updated(&mut self, pod: Arc<Pod>) {
        let deleting = pod.metadata.deletion_timestamp.is_some();
        self.pod = pod;
        for unit in &mut self.units {
            unit.adopt_image(&self.pod);
        }
        self.adopt_ephemeral();
        if deleting {
            self.begin_termination();
        }
    }

    /// Takes on the ephemeral containers that are new; the others keep their numbers.
    fn adopt_ephemeral(&mut self) {
        for unit in Unit::ephemeral(&self.pod) {
            if self.units.iter().any(|known| known.name() == unit.name()) {
                continue;
            }
            let entry = ContainerEntry {
                waiting: "ContainerCreating".to_owned(),
                ..ContainerEntry::default()
            };
            locked(&self.entry.containers).insert(unit.name().to_owned(), entry);
            self.units.push(unit);
        }
    }

    fn grounded(&mut self, result: Result<Box<Ground>, String>) {
        self.laying = false;
        match result {
            Ok(ground) => {
                self.address = ground.address;
                *locked(&self.entry.sandbox) = Some(Arc::clone(&ground.sandbox));
                let (sandbox, notices, generation) = (
                    Arc::clone(&ground.sandbox),
                    self.notices.clone(),
                    self.generation,
                );
                tokio::spawn(async move {
                    sandbox.gone().await;
                    drop(notices.send(Notice::SandboxLost(generation)));
                });
                self.ground = Some(ground);
            }
            Err(message) => {
                tracing::debug!(pod = self.name(), %message, "pod set-up failed; trying again");
                self.lay_at = self.now() + RETRY_MS;
            }
        }
    }

    fn started(&mut self, n: usize, turn: u64, result: Result<Box<Started>, StartFailure>) {
        let now = self.now();
        let field = field(self.units[n].role, self.units[n].name());
        if self.units[n].turn != turn {
            return;
        }
        match result {
            Ok(started) => {
                let Started {
                    live,
                    end,
                    image_id,
                } = *started;
                let notices = self.notices.clone();
                tokio::spawn(async move {
                    // A panic of the follower would be a bug there; the container counts as killed.
                    let status = end.await.unwrap_or(ExitStatus::Signal(libc::SIGKILL));
                    drop(notices.send(Notice::Ended(n, turn, status)));
                });
                self.units[n].running(live, image_id, now);
                self.start_probes(n);
            }
            Err(StartFailure::Image(reason, message)) => {
                if let Some(message) = self.units[n].no_image(reason, message, now) {
                    self.event(&field, Level::Normal, "BackOff", message);
                }
            }
            Err(StartFailure::Config(message)) => {
                self.units[n].stuck("CreateContainerConfigError", message, now);
            }
            Err(StartFailure::Run(message)) => {
                let log =
                    start::log_path(&self.entry, self.units[n].name(), self.units[n].instance());
                self.units[n].failed_to_run(message, now, &log);
                self.after_end(n);
            }
            Err(StartFailure::Hook(message)) => {
                self.units[n].failed_to_run(message, now, &std::path::PathBuf::new());
                self.after_end(n);
            }
        }
    }

    fn ended(&mut self, n: usize, turn: u64, status: &ExitStatus) {
        let now = self.now();
        let instance = self.units[n].instance();
        let uid = self.entry.uid.clone();
        let unit = &mut self.units[n];
        if unit.turn != turn {
            return;
        }
        let message_file = self
            .agent
            .pod_dir(&uid)
            .join("messages")
            .join(format!("{}.{instance}", unit.name()));
        let log = start::log_path(&self.entry, unit.name(), instance);
        let interactive = unit.spec.stdin_once == Some(true);
        if let Some(entry) = locked(&self.entry.containers).get_mut(unit.name()) {
            // In one step: who finds no live instance finds how it ended.
            let live = entry
                .live
                .take()
                .filter(|live| interactive && !live.is_attached());
            entry.ended = live.map(|live| (status.clone(), Arc::clone(&live.log)));
        }
        unit.ended(status, now, &message_file, &log);
        self.after_end(n);
        if self.all_stopped && self.units.iter().all(|unit| unit.live.is_none()) {
            drop(self.notices.send(Notice::Settled));
        }
    }

    /// Bookkeeping after an instance is over, however it got there.
    fn after_end(&mut self, n: usize) {
        let policy = self.policy();
        let unit = &mut self.units[n];
        if let Some(entry) = locked(&self.entry.containers).get_mut(unit.name()) {
            entry.live = None;
        }
        let role_restarts = match unit.role {
            Role::Sidecar => true,
            Role::Ephemeral => false,
            Role::Init => policy != RestartPolicy::Never && !unit.succeeded(),
            Role::Main => {
                policy == RestartPolicy::Always
                    || (policy == RestartPolicy::OnFailure && !unit.succeeded())
            }
        };
        if self.mode != Mode::Alive || !role_restarts {
            return;
        }
        let (namespace, name) = (self.namespace().to_owned(), self.name().to_owned());
        let place = format!("{name}_{namespace}({})", self.entry.uid);
        let unit = &mut self.units[n];
        if let Some(message) = unit.crash_loop(&place) {
            let field = field(unit.role, unit.name());
            self.event(&field, Level::Warning, "BackOff", message);
        }
    }

    fn probed(
        &mut self,
        n: usize,
        turn: u64,
        purpose: Purpose,
        verdict: Option<bool>,
        message: &str,
    ) {
        let unit = &self.units[n];
        if unit.turn != turn || unit.live.is_none() {
            return;
        }
        let field = field(unit.role, unit.name());
        if !message.is_empty() {
            let text = format!("{} probe failed: {message}", purpose.title());
            self.event(&field, Level::Warning, "Unhealthy", text);
        }
        match (purpose, verdict) {
            (_, None) => {}
            (Purpose::Readiness, Some(ready)) => self.units[n].probe_ready = ready,
            (Purpose::Startup, Some(true)) => {
                self.units[n].pass_startup();
                self.start_probes(n);
            }
            (Purpose::Liveness, Some(true)) => {}
            (Purpose::Startup | Purpose::Liveness, Some(false)) => {
                let name = self.units[n].name();
                let what = if purpose == Purpose::Startup {
                    "startup"
                } else {
                    "liveness"
                };
                let text = format!("Container {name} failed {what} probe, will be restarted");
                self.event(&field, Level::Normal, "Killing", text);
                self.units[n].stop_probes();
                self.stop_one(n);
            }
        }
    }

    fn sandbox_lost(&mut self, generation: u64) {
        if generation != self.generation || self.mode != Mode::Alive {
            return;
        }
        self.event(
            "",
            Level::Normal,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.".to_owned(),
        );
        self.lost = self.ground.take();
        *locked(&self.entry.sandbox) = None;
        for entry in locked(&self.entry.containers).values_mut() {
            entry.live = None;
        }
        let now = self.now();
        for unit in &mut self.units {
            unit.lose_sandbox(now);
        }
    }

    fn finish(&mut self, success: bool) {
        self.mode = Mode::Finished;
        self.finished = Some(success);
        for unit in &mut self.units {
            unit.stop_probes();
        }
        // Ends whatever a deadline left running; otherwise nothing runs any more.
        self.release();
    }

    /// Ends the sandbox and frees the address.
    fn release(&mut self) {
        *locked(&self.entry.sandbox) = None;
        for entry in locked(&self.entry.containers).values_mut() {
            entry.live = None;
        }
        let now = self.now();
        for unit in &mut self.units {
            unit.abandon(now);
        }
        if let Some(ground) = self.ground.take() {
            let (agent, node, address) = (
                Arc::clone(&self.agent),
                self.node.name.clone(),
                self.address,
            );
            tokio::spawn(async move {
                ground.clear(&agent).await;
                if let Some(address) = address {
                    agent.free_address(&node, address);
                }
            });
        }
    }

    async fn refresh_volumes(&self) {
        let Some(ground) = self.ground.as_ref().filter(|_| self.mode == Mode::Alive) else {
            return;
        };
        let facts = self.facts();
        let context = VolumeContext {
            api: &self.agent.api,
            pod: &self.pod,
            facts: &facts,
        };
        if let Err(error) = ground.volumes.refresh(context).await {
            let text = format!(
                "MountVolume.SetUp failed for volume {:?} : {}",
                error.volume, error.message
            );
            self.event("", Level::Warning, "FailedMount", text);
        }
    }

    fn publish(&mut self) {
        if self.mode == Mode::Terminating && self.gone {
            return;
        }
        // A pod that was done before this agent began keeps the status it has.
        if self.finished.is_some() && self.generation == 0 && self.reason.is_none() {
            return;
        }
        let facts = self.status_facts();
        for unit in &self.units {
            if let Some(entry) = locked(&self.entry.containers).get_mut(unit.name()) {
                entry.waiting = match &unit.current {
                    Current::Waiting { reason, .. } => reason.clone(),
                    _ => String::new(),
                };
            }
        }
        let status = status::build(&self.pod, &facts, Timestamp::now());
        self.publisher.publish(&status);
    }

    fn status_facts(&self) -> status::PodFacts {
        let ready = |u: &Unit| {
            u.is_ready() && self.mode == Mode::Alive
                || (u.is_ready() && self.mode == Mode::Terminating)
        };
        let containers = self.units.iter().map(|u| u.facts(ready(u))).collect();
        let mains_begun = self
            .units
            .iter()
            .any(|u| u.role == Role::Main && u.turn > 0);
        status::PodFacts {
            containers,
            host_ip: self.node.address.to_string(),
            pod_ip: self.pod_ip().map(|ip| ip.to_string()),
            start_time: self.start_time,
            sandbox_ready: self.ground.is_some(),
            finished: self.finished,
            reason: self.reason.clone(),
            initialized: mains_begun,
        }
    }

    /// Deletes the object for good; `true` when it is gone.
    async fn complete_deletion(&mut self) -> bool {
        self.release();
        self.publish();
        self.publisher.flush().await;
        let options = DeleteOptions::now().with_uid(self.entry.uid.clone());
        match self
            .agent
            .api
            .delete(&PODS, Some(self.namespace()), self.name(), options)
            .await
        {
            Ok(None) => {}
            // Finalizers of others keep the object; the containers are gone all the same.
            Ok(Some(_)) => return false,
            Err(error) if matches!(error.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(%error, pod = self.name(), "pod could not be deleted; trying again");
                let notices = self.notices.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(RETRY).await;
                    drop(notices.send(Notice::Settled));
                });
                return false;
            }
        }
        self.gone = true;
        true
    }

    async fn tear_down(mut self) {
        if let Some(stopping) = self.stopping.take() {
            stopping.abort();
        }
        for unit in &mut self.units {
            unit.stop_probes();
        }
        *locked(&self.entry.sandbox) = None;
        if let Some(lost) = self.lost.take() {
            lost.clear(&self.agent).await;
        }
        if let Some(ground) = self.ground.take() {
            ground.clear(&self.agent).await;
            if let Some(address) = self.address {
                self.agent.free_address(&self.node.name, address);
            }
        }
        self.agent
            .withdraw(self.namespace(), self.name(), &self.entry.uid);
        if self.gone {
            for dir in [
                self.agent.pod_dir(&self.entry.uid),
                self.entry.log_dir.clone(),
            ] {
                match std::fs::remove_dir_all(&dir) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!(%error, dir = %dir.display(), "pod files were left behind");
                    }
                    _ => {}
                }
            }
        }
    }

    fn life(&self, n: usize) -> Life {
        self.units[n].life
    }
}
