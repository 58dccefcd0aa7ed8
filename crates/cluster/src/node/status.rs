//! A pod's status from what is known of its containers: pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::Role;

/// How one instance of a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// Exit code; signals count as 128 + n.
    pub code: i32,
    /// Signal number, or 0.
    pub signal: i32,
    /// `Completed`, `Error`, `StartError`, ...
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// Start of the instance; `None` when it never started.
    pub started_at: Option<Timestamp>,
    /// End of the instance.
    pub finished_at: Timestamp,
    /// Its id.
    pub container_id: String,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Current {
    /// Not running, for this reason.
    Waiting {
        /// `ContainerCreating`, `CrashLoopBackOff`, ...
        reason: String,
        /// Details; may be empty.
        message: String,
    },
    /// Running.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Ended; a restart, where one follows, is a state of its own.
    Terminated(Terminated),
}

/// A container as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Name.
    pub name: String,
    /// Image as written.
    pub image: String,
    /// Image with registry and tag; empty before the image is known.
    pub image_id: String,
    /// Id of the present or last instance; empty before the first.
    pub container_id: String,
    /// What it is to the pod.
    pub role: Role,
    /// What it does.
    pub current: Current,
    /// The instance before.
    pub last: Option<Terminated>,
    /// Restarts.
    pub restarts: i32,
    /// Started and past its startup probe.
    pub started: bool,
    /// Takes traffic.
    pub ready: bool,
}

/// A pod as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Init containers in order, then main containers, then ephemeral ones.
    pub containers: Vec<ContainerFacts>,
    /// Node address.
    pub host_ip: String,
    /// Pod address, once there is one.
    pub pod_ip: Option<String>,
    /// When the agent took the pod on.
    pub start_time: Timestamp,
    /// Namespaces and network are there.
    pub sandbox_ready: bool,
    /// `Some(success)` when the pod is done.
    pub finished: Option<bool>,
    /// Reason and message of a pod that failed as a whole (`DeadlineExceeded`, `Evicted`).
    pub reason: Option<(String, String)>,
    /// Main containers have been started once: init containers are behind.
    pub initialized: bool,
}

fn time(at: Timestamp) -> Time {
    Time(at)
}

fn state(current: &Current) -> ContainerState {
    match current {
        Current::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: Some(message.clone()).filter(|m| !m.is_empty()),
            }),
            ..ContainerState::default()
        },
        Current::Running { since } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time(*since)),
            }),
            ..ContainerState::default()
        },
        Current::Terminated(end) => terminated(end),
    }
}

fn terminated(end: &Terminated) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(end.container_id.clone()).filter(|id| !id.is_empty()),
            exit_code: end.code,
            signal: (end.signal != 0).then_some(end.signal),
            reason: Some(end.reason.clone()),
            message: Some(end.message.clone()).filter(|m| !m.is_empty()),
            started_at: Some(time(end.started_at.unwrap_or(end.finished_at))),
            finished_at: Some(time(end.finished_at)),
        }),
        ..ContainerState::default()
    }
}

fn container_status(facts: &ContainerFacts) -> ContainerStatus {
    ContainerStatus {
        name: facts.name.clone(),
        image: facts.image.clone(),
        image_id: facts.image_id.clone(),
        container_id: Some(facts.container_id.clone()).filter(|id| !id.is_empty()),
        ready: facts.ready,
        started: Some(facts.started),
        restart_count: facts.restarts,
        state: Some(state(&facts.current)),
        last_state: Some(facts.last.as_ref().map(terminated).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

/// The phase.
pub fn phase(facts: &PodFacts) -> &'static str {
    match facts.finished {
        Some(true) => return "Succeeded",
        Some(false) => return "Failed",
        None => {}
    }
    let mains = facts.containers.iter().filter(|c| c.role == Role::Main);
    let begun = |c: &ContainerFacts| !c.container_id.is_empty() || c.restarts > 0;
    if facts.initialized && mains.clone().count() > 0 && mains.into_iter().all(begun) {
        "Running"
    } else {
        "Pending"
    }
}

fn names<'a>(containers: impl Iterator<Item = &'a ContainerFacts>) -> String {
    containers
        .map(|c| c.name.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

struct Verdict {
    name: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn verdicts(facts: &PodFacts) -> Vec<Verdict> {
    let done = facts.finished == Some(true);
    let yes = |name| Verdict {
        name,
        status: true,
        reason: None,
        message: None,
    };
    let no = |name, reason, message: String| Verdict {
        name,
        status: false,
        reason: Some(reason),
        message: Some(message).filter(|m| !m.is_empty()),
    };
    let sandbox = facts.sandbox_ready && facts.finished.is_none();
    let mut list = vec![Verdict {
        name: "PodReadyToStartContainers",
        status: sandbox,
        reason: None,
        message: None,
    }];
    let incomplete = |c: &&ContainerFacts| match c.role {
        Role::Init => !matches!(&c.current, Current::Terminated(end) if end.code == 0),
        Role::Sidecar => !c.started,
        Role::Main | Role::Ephemeral => false,
    };
    let waiting: Vec<&ContainerFacts> = if facts.initialized || done {
        Vec::new()
    } else {
        facts.containers.iter().filter(incomplete).collect()
    };
    list.push(if waiting.is_empty() {
        let reason = done.then_some("PodCompleted");
        Verdict {
            reason,
            ..yes("Initialized")
        }
    } else {
        let text = format!(
            "containers with incomplete status: [{}]",
            names(waiting.into_iter())
        );
        no("Initialized", "ContainersNotInitialized", text)
    });
    let works = |c: &&ContainerFacts| matches!(c.role, Role::Main | Role::Sidecar);
    let counted = facts.containers.iter().filter(works);
    let unready: Vec<&ContainerFacts> = counted.filter(|c| !c.ready).collect();
    for name in ["Ready", "ContainersReady"] {
        list.push(match facts.finished {
            Some(true) => no(name, "PodCompleted", String::new()),
            Some(false) => no(name, "PodFailed", String::new()),
            None if unready.is_empty() => yes(name),
            None => {
                let list = names(unready.iter().copied());
                no(
                    name,
                    "ContainersNotReady",
                    format!("containers with unready status: [{list}]"),
                )
            }
        });
    }
    list
}

/// Conditions with the times of their last changes, taken from `previous` where nothing changed.
/// Conditions of others (scheduler, readiness gates) are kept.
fn conditions(pod: &Pod, facts: &PodFacts, now: Timestamp) -> Vec<PodCondition> {
    let previous = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    let mut verdicts = verdicts(facts);
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref());
    let open = gates.into_iter().flatten().find(|gate| {
        !previous
            .iter()
            .any(|c| c.type_ == gate.condition_type && c.status == "True")
    });
    if let (Some(gate), Some(ready)) = (
        open,
        verdicts.iter_mut().find(|v| v.name == "Ready" && v.status),
    ) {
        ready.status = false;
        ready.reason = Some("ReadinessGatesNotReady");
        ready.message = Some(format!(
            "the status of pod readiness gate {:?} is not \"True\", but \"False\"",
            gate.condition_type
        ));
    }
    let mut list: Vec<PodCondition> = Vec::new();
    for verdict in verdicts {
        let status = if verdict.status { "True" } else { "False" };
        let same = previous
            .iter()
            .find(|c| c.type_ == verdict.name && c.status == status);
        list.push(PodCondition {
            type_: verdict.name.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            last_transition_time: same
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(time(now))),
            ..PodCondition::default()
        });
    }
    let foreign: Vec<PodCondition> = previous
        .into_iter()
        .filter(|p| !list.iter().any(|c| c.type_ == p.type_))
        .collect();
    if !foreign.iter().any(|c| c.type_ == "PodScheduled") {
        list.push(PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(time(facts.start_time)),
            ..PodCondition::default()
        });
    }
    list.extend(foreign);
    list
}

/// The quality of service class.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else {
        return "BestEffort";
    };
    let all = || {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in all() {
        let resources = container.resources.as_ref();
        for name in ["cpu", "memory"] {
            let limit = resources.and_then(|r| r.limits.as_ref()?.get(name));
            let request = resources.and_then(|r| r.requests.as_ref()?.get(name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The whole status.
pub fn build(pod: &Pod, facts: &PodFacts, now: Timestamp) -> PodStatus {
    let of = |wanted: fn(Role) -> bool| -> Vec<ContainerStatus> {
        facts
            .containers
            .iter()
            .filter(|c| wanted(c.role))
            .map(container_status)
            .collect()
    };
    let mut mains = of(|role| role == Role::Main);
    mains.sort_by(|a, b| a.name.cmp(&b.name));
    let inits = of(|role| matches!(role, Role::Init | Role::Sidecar));
    let ephemeral = of(|role| role == Role::Ephemeral);
    PodStatus {
        phase: Some(phase(facts).to_owned()),
        reason: facts.reason.as_ref().map(|r| r.0.clone()),
        message: facts.reason.as_ref().map(|r| r.1.clone()),
        conditions: Some(conditions(pod, facts, now)),
        container_statuses: Some(mains),
        ephemeral_container_statuses: Some(ephemeral).filter(|list| !list.is_empty()),
        init_container_statuses: Some(inits).filter(|list| !list.is_empty()),
        host_ip: Some(facts.host_ip.clone()),
        host_ips: Some(vec![HostIP {
            ip: facts.host_ip.clone(),
        }]),
        pod_ip: facts.pod_ip.clone(),
        pod_ips: facts.pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        start_time: Some(time(facts.start_time)),
        qos_class: Some(qos_class(pod).to_owned()),
        ..PodStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(name: &str, role: Role) -> ContainerFacts {
        ContainerFacts {
            name: name.into(),
            image: "alpine".into(),
            image_id: String::new(),
            container_id: String::new(),
            role,
            current: Current::Waiting {
                reason: "PodInitializing".into(),
                message: String::new(),
            },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
        }
    }

    fn facts() -> PodFacts {
        PodFacts {
            containers: vec![
                container("init", Role::Init),
                container("b", Role::Main),
                container("a", Role::Main),
            ],
            host_ip: "10.244.1.1".into(),
            pod_ip: Some("10.244.1.2".into()),
            start_time: Timestamp::UNIX_EPOCH,
            sandbox_ready: true,
            finished: None,
            reason: None,
            initialized: false,
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T00:00:00Z"}]}
        }))
        .unwrap()
    }

    fn condition(status: &PodStatus, name: &str) -> PodCondition {
        status
            .conditions
            .as_ref()
            .unwrap()
            .iter()
            .find(|c| c.type_ == name)
            .unwrap()
            .clone()
    }

    #[test]
    fn an_initializing_pod() {
        let status = build(&pod(), &facts(), Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        let initialized = condition(&status, "Initialized");
        assert_eq!(
            initialized.message.as_deref(),
            Some("containers with incomplete status: [init]")
        );
        let ready = condition(&status, "Ready");
        assert_eq!(
            ready.message.as_deref(),
            Some("containers with unready status: [b a]")
        );
        assert_eq!(
            ready.last_transition_time.unwrap().0.to_string(),
            "2026-01-02T00:00:00Z"
        );
        assert_eq!(condition(&status, "PodScheduled").status, "True");
        let names: Vec<_> = status
            .container_statuses
            .unwrap()
            .into_iter()
            .map(|c| c.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn running_and_done() {
        let mut facts = facts();
        facts.initialized = true;
        for c in &mut facts.containers {
            c.container_id = "lateen://x".into();
            c.current = Current::Running {
                since: Timestamp::UNIX_EPOCH,
            };
            c.started = true;
            c.ready = true;
        }
        let status = build(&pod(), &facts, Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let ready = condition(&status, "Ready");
        assert_eq!(ready.status, "True");
        assert_eq!(ready.last_transition_time.unwrap().0, Timestamp::UNIX_EPOCH);
        facts.finished = Some(true);
        let status = build(&pod(), &facts, Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase.as_deref(), Some("Succeeded"));
        assert_eq!(
            condition(&status, "Ready").reason.as_deref(),
            Some("PodCompleted")
        );
    }

    #[test]
    fn a_closed_readiness_gate_keeps_the_pod_unready() {
        let mut pod = pod();
        pod.spec.as_mut().unwrap().readiness_gates =
            serde_json::from_value(json!([{"conditionType": "x/y"}])).unwrap();
        let mut facts = facts();
        facts.initialized = true;
        facts.containers.iter_mut().for_each(|c| c.ready = true);
        let status = build(&pod, &facts, Timestamp::UNIX_EPOCH);
        assert_eq!(
            condition(&status, "Ready").reason.as_deref(),
            Some("ReadinessGatesNotReady")
        );
        assert_eq!(condition(&status, "ContainersReady").status, "True");
    }

    #[test]
    fn classes() {
        let with = |resources| {
            let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": resources}]}});
            qos_class(&serde_json::from_value(pod).unwrap())
        };
        assert_eq!(with(json!({})), "BestEffort");
        assert_eq!(with(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            with(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            "Guaranteed"
        );
    }
}
