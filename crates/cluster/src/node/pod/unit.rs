//! One container of a pod through all its instances: life for the planner, facts for the status.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use tokio::task::AbortHandle;

use crate::node::image;
use crate::node::live::Live;
use crate::node::log;
use crate::node::plan::{Backoff, Life, Role, Seen};
use crate::node::runtime::ExitStatus;
use crate::node::status::{ContainerFacts, Current, Terminated};

/// Wait before a container with an incomplete configuration is tried again, in milliseconds.
const CONFIG_RETRY: u64 = 5_000;

/// How long an interactive container waits for the others of its pod, in milliseconds.
const PATIENCE: u64 = 15_000;

pub(super) struct Unit {
    pub spec: Container,
    pub role: Role,
    /// The container whose processes an ephemeral one sees.
    pub target: Option<String>,
    pub life: Life,
    /// Counts starts; news of an earlier turn are old.
    pub turn: u64,
    pub current: Current,
    pub live: Option<Arc<Live>>,
    pub probes: Vec<AbortHandle>,
    /// The readiness probe's last verdict (`true` when there is no such probe).
    pub probe_ready: bool,
    /// A sidecar that was told to stop because the pod's work is done.
    pub told_to_stop: bool,
    last: Option<Terminated>,
    restarts: u32,
    /// The next instance is a restart: one has run (or failed to) before.
    ran_before: bool,
    started: bool,
    once_started: bool,
    image_id: String,
    container_id: String,
    backoff: Backoff,
    pulls: Backoff,
    since: Option<(Timestamp, u64)>,
}

fn waiting(reason: &str, message: String) -> Current {
    Current::Waiting {
        reason: reason.to_owned(),
        message,
    }
}

impl Unit {
    /// The containers of a pod: init containers in order, then main and ephemeral containers. What the status
    /// tells of earlier instances (before this agent began) is carried on.
    pub fn of_pod(pod: &Pod) -> Vec<Self> {
        let Some(spec) = &pod.spec else {
            return Vec::new();
        };
        let has_init = spec
            .init_containers
            .as_ref()
            .is_some_and(|list| !list.is_empty());
        let inits = spec.init_containers.iter().flatten().map(|c| {
            let sidecar = c.restart_policy.as_deref() == Some("Always");
            (c, if sidecar { Role::Sidecar } else { Role::Init })
        });
        let mains = spec.containers.iter().map(|c| (c, Role::Main));
        let mut units: Vec<Self> = inits
            .chain(mains)
            .map(|(c, role)| Self::new(c.clone(), role, has_init, earlier(pod, &c.name)))
            .collect();
        units.extend(Self::ephemeral(pod));
        units
    }

    /// The ephemeral containers of a pod.
    pub fn ephemeral(pod: &Pod) -> impl Iterator<Item = Self> {
        let spec = pod.spec.as_ref();
        let all = spec.into_iter().flat_map(|s| s.ephemeral_containers.iter());
        all.flatten().filter_map(|c| {
            // The same fields, and the target besides.
            let plain = serde_json::to_value(c).and_then(serde_json::from_value);
            let plain: Container = plain
                .inspect_err(|error| tracing::warn!(%error, "an ephemeral container is unreadable"))
                .ok()?;
            let mut unit = Self::new(plain, Role::Ephemeral, false, earlier(pod, &c.name));
            unit.target.clone_from(&c.target_container_name);
            Some(unit)
        })
    }

    fn new(spec: Container, role: Role, has_init: bool, earlier: Option<&ContainerStatus>) -> Self {
        let reason = if has_init {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        let mut unit = Self {
            spec,
            role,
            target: None,
            life: Life::New,
            turn: 0,
            current: waiting(reason, String::new()),
            live: None,
            probes: Vec::new(),
            probe_ready: false,
            told_to_stop: false,
            last: None,
            restarts: 0,
            ran_before: false,
            started: false,
            once_started: false,
            image_id: String::new(),
            container_id: String::new(),
            backoff: Backoff::default(),
            pulls: Backoff::default(),
            since: None,
        };
        if let Some(status) = earlier {
            unit.restarts = u32::try_from(status.restart_count).unwrap_or(0);
            unit.ran_before = unit.restarts > 0;
            if let Some(end) = earlier_end(status) {
                unit.ran_before = true;
                unit.container_id.clone_from(&end.container_id);
                // Init containers run again in the new sandbox; the others go on from here.
                if role == Role::Init {
                    unit.last = Some(end);
                } else {
                    unit.life = Life::Ended {
                        code: end.code,
                        restart_at: 0,
                    };
                    unit.current = Current::Terminated(end);
                }
            }
        }
        unit
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Number of the present instance (or the next, while none was begun).
    pub fn instance(&self) -> u32 {
        self.restarts
    }

    pub fn seen(&self) -> Seen {
        Seen {
            role: self.role,
            life: self.life,
            started: self.started,
            once_started: self.once_started,
            ready: self.is_ready(),
            hooked: self
                .spec
                .lifecycle
                .as_ref()
                .is_some_and(|l| l.post_start.is_some()),
            patient_until: (self.spec.stdin_once == Some(true)).then_some(PATIENCE),
        }
    }

    /// Images may be changed in place.
    pub fn adopt_image(&mut self, pod: &Pod) {
        let Some(spec) = &pod.spec else {
            return;
        };
        let mut all = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        if let Some(container) = all.find(|c| c.name == self.spec.name) {
            self.spec.image.clone_from(&container.image);
        }
    }

    /// A start begins.
    pub fn begin(&mut self) {
        if matches!(self.life, Life::Ended { .. }) || (self.turn == 0 && self.ran_before) {
            self.restarts += 1;
            if let Current::Terminated(end) = &self.current {
                self.last = Some(end.clone());
            }
        }
        self.turn += 1;
        self.life = Life::Starting;
        self.started = false;
        self.probe_ready = false;
    }

    pub fn running(&mut self, live: Arc<Live>, image_id: String, now: u64) {
        // The post-start hook ran since.
        let at = live.started_at;
        let ran = u64::try_from(live.started.elapsed().as_millis()).unwrap_or(0);
        let now = now.saturating_sub(ran);
        self.life = Life::Running;
        self.current = Current::Running { since: at };
        self.container_id.clone_from(&live.id);
        self.image_id = image_id;
        self.since = Some((at, now));
        self.live = Some(live);
        self.pulls = Backoff::default();
        self.ran_before = true;
        self.probe_ready = self.spec.readiness_probe.is_none();
        if self.spec.startup_probe.is_none() {
            self.pass_startup();
        }
    }

    pub fn pass_startup(&mut self) {
        self.started = true;
        self.once_started = true;
    }

    pub fn is_ready(&self) -> bool {
        match self.role {
            Role::Ephemeral => false,
            Role::Init => matches!(&self.current, Current::Terminated(end) if end.code == 0),
            _ => self.life == Life::Running && self.started && self.probe_ready,
        }
    }

    pub fn succeeded(&self) -> bool {
        matches!(self.life, Life::Ended { code: 0, .. })
    }

    /// The image is not to be had; gives the back-off message when this is not the first time.
    pub fn no_image(&mut self, reason: &str, message: String, now: u64) -> Option<String> {
        let first = self.pulls == Backoff::default();
        let delay = self.pulls.failed();
        let image = self.spec.image.clone().unwrap_or_default();
        // The failure itself is shown first, the waiting afterwards.
        self.life = Life::Stuck {
            retry_at: now + if first { 2_000 } else { delay },
        };
        if first || reason != "ErrImagePull" {
            self.current = waiting(reason, message);
            return None;
        }
        let text = format!("Back-off pulling image {image:?}");
        self.current = waiting(
            "ImagePullBackOff",
            format!("{text}: ErrImagePull: {message}"),
        );
        Some(text)
    }

    pub fn stuck(&mut self, reason: &str, message: String, now: u64) {
        self.life = Life::Stuck {
            retry_at: now + CONFIG_RETRY,
        };
        self.current = waiting(reason, message);
    }

    /// The program could not be executed (or its post-start hook failed).
    pub fn failed_to_run(&mut self, message: String, now: u64, _log: &Path) {
        let at = Timestamp::now();
        let end = Terminated {
            code: 128,
            signal: 0,
            reason: "StartError".to_owned(),
            message,
            started_at: None,
            finished_at: at,
            container_id: self.container_id.clone(),
        };
        if self.container_id.is_empty() {
            self.container_id = format!("lateen://{:064x}", fastrand::u128(..));
        }
        self.ran_before = true;
        self.close(end, now, 0);
    }

    pub fn ended(&mut self, status: &ExitStatus, now: u64, message_file: &Path, log_file: &Path) {
        let (started_at, since) = self.since.map_or((None, now), |(at, ms)| (Some(at), ms));
        let code = status.code();
        let mut message = log::message_text(message_file);
        let fallback =
            self.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if message.is_empty() && fallback && code != 0 {
            message = log::tail_text(log_file);
        }
        let end = Terminated {
            code,
            signal: 0,
            reason: match code {
                0 => "Completed",
                _ if self.live.as_ref().is_some_and(|live| live.out_of_memory()) => "OOMKilled",
                _ => "Error",
            }
            .to_owned(),
            message,
            started_at,
            finished_at: Timestamp::now(),
            container_id: self.container_id.clone(),
        };
        self.close(end, now, now.saturating_sub(since));
    }

    fn close(&mut self, end: Terminated, now: u64, ran: u64) {
        let delay = self.backoff.ended(ran);
        self.life = Life::Ended {
            code: end.code,
            restart_at: now + delay,
        };
        self.current = Current::Terminated(end);
        self.live = None;
        self.started = false;
        self.probe_ready = false;
        self.stop_probes();
    }

    /// Shows a container that will be restarted as waiting; gives the back-off message when there
    /// is a delay.
    pub fn crash_loop(&mut self, place: &str) -> Option<String> {
        let delay = self.backoff.delay();
        let Current::Terminated(end) = &self.current else {
            return None;
        };
        if delay == 0 {
            return None;
        }
        self.last = Some(end.clone());
        let name = &self.spec.name;
        let message = format!(
            "back-off {}s restarting failed container={name} pod={place}",
            delay / 1000
        );
        self.current = waiting("CrashLoopBackOff", message);
        Some(format!(
            "Back-off restarting failed container {name} in pod {place}"
        ))
    }

    /// The sandbox is gone: everything starts over, init containers too.
    pub fn lose_sandbox(&mut self, now: u64) {
        self.abandon(now);
        if self.role == Role::Ephemeral && self.ran_before {
            return;
        }
        if let Current::Terminated(end) = &self.current {
            self.last = Some(end.clone());
        }
        self.turn += 1;
        if self.ran_before {
            self.restarts += 1;
        }
        self.ran_before = false;
        self.once_started = false;
        self.life = Life::New;
        self.current = waiting("ContainerCreating", String::new());
    }

    /// Whatever still runs is over: the sandbox was destroyed.
    pub fn abandon(&mut self, now: u64) {
        self.stop_probes();
        if self.live.is_some() {
            self.ended(
                &ExitStatus::Signal(libc::SIGKILL),
                now,
                Path::new(""),
                Path::new(""),
            );
            self.turn += 1;
        }
    }

    pub fn stop_probes(&mut self) {
        for probe in self.probes.drain(..) {
            probe.abort();
        }
    }

    pub fn facts(&self, ready: bool) -> ContainerFacts {
        let image = self.spec.image.clone().unwrap_or_default();
        ContainerFacts {
            name: self.spec.name.clone(),
            image_id: if self.image_id.is_empty() {
                String::new()
            } else {
                image::normalized(&image)
            },
            image,
            container_id: self.container_id.clone(),
            role: self.role,
            current: self.current.clone(),
            last: self.last.clone(),
            restarts: i32::try_from(self.restarts).unwrap_or(i32::MAX),
            started: self.started,
            ready,
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.stop_probes();
    }
}

/// How the instance that an earlier agent knew ended; one that was running died with that agent.
fn earlier_end(status: &ContainerStatus) -> Option<Terminated> {
    let state = status.state.as_ref()?;
    let id = status.container_id.clone().unwrap_or_default();
    if let Some(running) = &state.running {
        return Some(Terminated {
            code: 137,
            signal: 0,
            reason: "Error".to_owned(),
            message: "the node agent was restarted".to_owned(),
            started_at: running.started_at.as_ref().map(|t| t.0),
            finished_at: Timestamp::now(),
            container_id: id,
        });
    }
    let end = state.terminated.as_ref()?;
    Some(Terminated {
        code: end.exit_code,
        signal: end.signal.unwrap_or(0),
        reason: end.reason.clone().unwrap_or_default(),
        message: end.message.clone().unwrap_or_default(),
        started_at: end.started_at.as_ref().map(|t| t.0),
        finished_at: end
            .finished_at
            .as_ref()
            .map_or_else(Timestamp::now, |t| t.0),
        container_id: end.container_id.clone().unwrap_or(id),
    })
}

fn earlier<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mains = status.container_statuses.iter().flatten();
    mains
        .chain(status.init_container_statuses.iter().flatten())
        .chain(status.ephemeral_container_statuses.iter().flatten())
        .find(|c| c.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn units(status: serde_json::Value) -> Vec<Unit> {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "alpine"}]
            },
            "status": status
        });
        Unit::of_pod(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn roles_and_first_states() {
        let units = units(json!({}));
        let roles: Vec<Role> = units.iter().map(|u| u.role).collect();
        assert_eq!(roles, [Role::Init, Role::Sidecar, Role::Main]);
        assert_eq!(units[2].current, waiting("PodInitializing", String::new()));
    }

    #[test]
    fn restarts_are_counted_and_delayed() {
        let mut units = units(json!({}));
        let unit = &mut units[2];
        unit.begin();
        assert_eq!((unit.restarts, unit.turn), (0, 1));
        unit.ended(&ExitStatus::Code(1), 100, Path::new(""), Path::new(""));
        assert_eq!(
            unit.life,
            Life::Ended {
                code: 1,
                restart_at: 100
            }
        );
        assert_eq!(unit.crash_loop("p"), None);
        unit.begin();
        assert_eq!(unit.restarts, 1);
        unit.ended(&ExitStatus::Signal(9), 200, Path::new(""), Path::new(""));
        assert_eq!(
            unit.life,
            Life::Ended {
                code: 137,
                restart_at: 10_200
            }
        );
        assert!(
            unit.crash_loop("p_d(u)")
                .unwrap()
                .starts_with("Back-off restarting failed container c in pod")
        );
        assert!(
            matches!(&unit.current, Current::Waiting { reason, message } if reason == "CrashLoopBackOff" && message.starts_with("back-off 10s"))
        );
        assert_eq!(unit.facts(false).last.unwrap().code, 137);
    }

    #[test]
    fn an_agent_restart_is_a_container_restart() {
        let running = json!({"name": "c", "ready": true, "restartCount": 2, "image": "alpine", "imageID": "",
            "containerID": "lateen://1", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {}});
        let mut units = units(json!({"containerStatuses": [running]}));
        let unit = &mut units[2];
        unit.begin();
        assert_eq!(unit.restarts, 3);
        assert_eq!(unit.facts(false).last.unwrap().container_id, "lateen://1");
    }

    #[test]
    fn what_had_completed_is_not_begun_by_itself() {
        // What had completed is not run again by itself: the planner decides by the policy.
        let done = json!({"name": "c", "ready": false, "restartCount": 0, "image": "alpine", "imageID": "",
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "lastState": {}});
        let units = units(json!({"containerStatuses": [done]}));
        assert!(units[2].succeeded());
    }

    #[test]
    fn missing_images_back_off() {
        let mut units = units(json!({}));
        let unit = &mut units[2];
        assert_eq!(unit.no_image("ErrImagePull", "m".into(), 0), None);
        assert!(
            matches!(&unit.current, Current::Waiting { reason, .. } if reason == "ErrImagePull")
        );
        let text = unit.no_image("ErrImagePull", "m".into(), 2_000);
        assert_eq!(text.as_deref(), Some("Back-off pulling image \"alpine\""));
        assert_eq!(unit.life, Life::Stuck { retry_at: 22_000 });
    }
}
