//! What to do next with a pod: pure, from its containers' states to steps.
//!
//! Init containers run one after the other, each to exit 0; native sidecars (init containers that
//! always restart) must only have started; then the main containers run together. When no main
//! container will run again, sidecars are stopped in reverse order and the pod is done.

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the next begins.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// A container of `spec.containers`.
    Main,
    /// One for looking into the pod while it runs: started once, and no part of the pod's work.
    Ephemeral,
}

/// The pod's `restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    /// Restart whatever ends.
    #[default]
    Always,
    /// Restart what fails.
    OnFailure,
    /// Restart nothing.
    Never,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Never started, or to be started again from the beginning.
    New,
    /// Being started; `retry_at` (milliseconds) when the last try failed.
    Starting,
    /// Could not be started; may be tried again at this time.
    Stuck {
        /// Milliseconds of the planner's clock.
        retry_at: u64,
    },
    /// Runs.
    Running,
    /// Ended.
    Ended {
        /// Exit code; signals count as 128 + n.
        code: i32,
        /// When back-off allows a restart.
        restart_at: u64,
    },
}

/// One container as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub role: Role,
    /// Where it is.
    pub life: Life,
    /// Startup probe passed (or there is none) since it last started.
    pub started: bool,
    /// Takes traffic.
    pub ready: bool,
    /// Waits for the other main containers to be ready, but not beyond this time: an interactive
    /// program whose client wants to find a pod that is ready while the program still runs.
    pub patient_until: Option<u64>,
    /// Has been `started` at least once in this sandbox: later containers need not wait again.
    pub once_started: bool,
    /// Has a post-start hook: main containers behind it begin only when its hook is done.
    pub hooked: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Start container number `n`.
    Start(usize),
    /// Look again at this time.
    LookAt(u64),
    /// Stop container number `n` (a sidecar without work left).
    Stop(usize),
    /// Nothing runs and nothing will: the pod succeeded or failed.
    Finish {
        /// Whether all main containers ended with 0 and no init container failed.
        success: bool,
    },
}

/// The next steps. `containers` is init containers in order, then main containers, then ephemeral
/// ones.
pub fn next(policy: RestartPolicy, containers: &[Seen], now: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let first_main = containers
        .iter()
        .position(|c| c.role == Role::Main)
        .unwrap_or(containers.len());
    let finished = outcome(policy, containers);
    if let Some(success) = finished {
        stop_sidecars(&containers[..first_main], success, &mut steps);
        return steps;
    }
    let first_ephemeral = containers
        .iter()
        .position(|c| c.role == Role::Ephemeral)
        .unwrap_or(containers.len());
    for (n, container) in containers.iter().enumerate().skip(first_ephemeral) {
        if !matches!(container.life, Life::Ended { .. }) {
            advance(n, container.life, now, &mut steps);
        }
    }
    for (n, container) in containers[..first_main].iter().enumerate() {
        let passed = match container.role {
            Role::Sidecar => container.once_started,
            _ => matches!(container.life, Life::Ended { code: 0, .. }),
        };
        if container.role == Role::Sidecar || !passed {
            advance(n, container.life, now, &mut steps);
        }
        if !passed {
            return steps;
        }
    }
    let mains = &containers[first_main..first_ephemeral];
    for (n, container) in mains.iter().enumerate() {
        if ended_for_good(policy, container) {
            continue;
        }
        let patience = container
            .patient_until
            .filter(|until| container.life == Life::New && now < *until && !others_ready(mains, n));
        match patience {
            Some(until) => steps.push(Step::LookAt(until)),
            None => advance(first_main + n, container.life, now, &mut steps),
        }
        if container.hooked && matches!(container.life, Life::New | Life::Starting) {
            break;
        }
    }
    steps
}

/// Whether all main containers but number `n` are ready (those that wait themselves aside).
fn others_ready(mains: &[Seen], n: usize) -> bool {
    let mut others = mains
        .iter()
        .enumerate()
        .filter(|(other, c)| *other != n && c.patient_until.is_none());
    others.all(|(_, c)| c.ready)
}

/// `Some(success)` when no main container will run again, or an init container failed for good.
pub fn outcome(policy: RestartPolicy, containers: &[Seen]) -> Option<bool> {
    let init_failed = containers.iter().any(|c| {
        c.role == Role::Init
            && policy == RestartPolicy::Never
            && matches!(c.life, Life::Ended { code, .. } if code != 0)
    });
    if init_failed {
        return Some(false);
    }
    let mut mains = containers
        .iter()
        .filter(|c| c.role == Role::Main)
        .peekable();
    mains.peek()?;
    let mut success = true;
    for container in mains {
        if !ended_for_good(policy, container) {
            return None;
        }
        success &= matches!(container.life, Life::Ended { code: 0, .. });
    }
    Some(success)
}

fn ended_for_good(policy: RestartPolicy, container: &Seen) -> bool {
    match (container.life, policy) {
        (Life::Ended { .. }, RestartPolicy::Never) => true,
        (Life::Ended { code, .. }, RestartPolicy::OnFailure) => code == 0,
        _ => false,
    }
}

fn advance(n: usize, life: Life, now: u64, steps: &mut Vec<Step>) {
    match life {
        Life::New => steps.push(Step::Start(n)),
        Life::Starting | Life::Running => {}
        Life::Stuck { retry_at: at } | Life::Ended { restart_at: at, .. } => {
            steps.push(if at <= now {
                Step::Start(n)
            } else {
                Step::LookAt(at)
            });
        }
    }
}

/// The last sidecar still running is stopped; when none runs, the pod is finished.
fn stop_sidecars(init: &[Seen], success: bool, steps: &mut Vec<Step>) {
    let alive = |c: &Seen| matches!(c.life, Life::Running | Life::Starting);
    match init.iter().rposition(alive) {
        Some(n) => steps.push(Step::Stop(n)),
        None => steps.push(Step::Finish { success }),
    }
}

/// Restart delays: at once, then 10 s doubling to 300 s; forgotten after 10 minutes of running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

const FIRST_DELAY: u64 = 10_000;
const LONGEST_DELAY: u64 = 300_000;
const FORGET_AFTER: u64 = 600_000;

impl Backoff {
    /// Notes an end after running for `ran` milliseconds and gives the delay before the next start.
    pub fn ended(&mut self, ran: u64) -> u64 {
        if ran >= FORGET_AFTER {
            self.failures = 0;
        }
        self.failures += 1;
        self.delay()
    }

    /// Like [`Self::ended`] for something that has no "at once" try: image pulls.
    pub fn failed(&mut self) -> u64 {
        self.failures = self.failures.max(1) + 1;
        self.delay()
    }

    /// The present delay in milliseconds.
    pub fn delay(self) -> u64 {
        match self.failures {
            0 | 1 => 0,
            n => FIRST_DELAY
                .saturating_mul(1 << (n - 2).min(10))
                .min(LONGEST_DELAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: fn(i32) -> Life = |code| Life::Ended {
        code,
        restart_at: 0,
    };

    fn seen(role: Role, life: Life, started: bool) -> Seen {
        Seen {
            role,
            life,
            started,
            once_started: started,
            ready: started,
            patient_until: None,
            hooked: false,
        }
    }

    #[test]
    fn a_post_start_hook_holds_the_containers_behind_it() {
        let mut all = [
            seen(Role::Main, Life::New, false),
            seen(Role::Main, Life::New, false),
        ];
        all[0].hooked = true;
        let go = |all: &[Seen]| next(RestartPolicy::Always, all, 0);
        assert_eq!(go(&all), [Step::Start(0)]);
        all[0].life = Life::Starting;
        assert_eq!(go(&all), []);
        all[0].life = Life::Running;
        assert_eq!(go(&all), [Step::Start(1)]);
        // A hook that failed holds nobody: its container waits for its restart alone.
        all[0].life = Life::Ended {
            code: 128,
            restart_at: 500,
        };
        assert_eq!(go(&all), [Step::LookAt(500), Step::Start(1)]);
    }

    #[test]
    fn init_containers_run_in_order_before_the_main_ones() {
        let mut all = [
            seen(Role::Init, Life::New, false),
            seen(Role::Sidecar, Life::New, false),
            seen(Role::Init, Life::New, false),
            seen(Role::Main, Life::New, false),
            seen(Role::Main, Life::New, false),
        ];
        let go = |all: &[Seen]| next(RestartPolicy::Always, all, 100);
        assert_eq!(go(&all), [Step::Start(0)]);
        all[0].life = Life::Running;
        assert_eq!(go(&all), []);
        all[0].life = Life::Ended {
            code: 1,
            restart_at: 500,
        };
        assert_eq!(go(&all), [Step::LookAt(500)]);
        all[0].life = ENDED(1);
        assert_eq!(go(&all), [Step::Start(0)]);
        all[0].life = ENDED(0);
        assert_eq!(go(&all), [Step::Start(1)]);
        all[1].life = Life::Running;
        assert_eq!(go(&all), []);
        all[1].started = true;
        all[1].once_started = true;
        assert_eq!(go(&all), [Step::Start(2)]);
        all[2].life = ENDED(0);
        assert_eq!(go(&all), [Step::Start(3), Step::Start(4)]);
        // A sidecar that falls over is restarted without holding up the others.
        all[1] = Seen {
            role: Role::Sidecar,
            life: ENDED(0),
            started: false,
            once_started: true,
            ready: false,
            patient_until: None,
            hooked: false,
        };
        assert_eq!(go(&all), [Step::Start(1), Step::Start(3), Step::Start(4)]);
    }

    #[test]
    fn an_interactive_container_waits_for_the_others() {
        let mut all = [
            seen(Role::Main, Life::New, false),
            seen(Role::Main, Life::Running, false),
        ];
        all[0].patient_until = Some(500);
        assert_eq!(next(RestartPolicy::Never, &all, 100), [Step::LookAt(500)]);
        assert_eq!(next(RestartPolicy::Never, &all, 500), [Step::Start(0)]);
        all[1].ready = true;
        assert_eq!(next(RestartPolicy::Never, &all, 100), [Step::Start(0)]);
        assert_eq!(next(RestartPolicy::Never, &all[..1], 100), [Step::Start(0)]);
    }

    #[test]
    fn restart_policies() {
        let go = |policy, code| next(policy, &[seen(Role::Main, ENDED(code), true)], 0);
        assert_eq!(go(RestartPolicy::Always, 0), [Step::Start(0)]);
        assert_eq!(go(RestartPolicy::OnFailure, 1), [Step::Start(0)]);
        assert_eq!(
            go(RestartPolicy::OnFailure, 0),
            [Step::Finish { success: true }]
        );
        assert_eq!(
            go(RestartPolicy::Never, 2),
            [Step::Finish { success: false }]
        );
    }

    #[test]
    fn sidecars_stop_in_reverse_when_the_work_is_done() {
        let mut all = [
            seen(Role::Sidecar, Life::Running, true),
            seen(Role::Sidecar, Life::Running, true),
            seen(Role::Main, ENDED(0), true),
            seen(Role::Main, Life::Running, true),
        ];
        let go = |all: &[Seen]| next(RestartPolicy::Never, all, 0);
        assert_eq!(go(&all), []);
        all[3].life = ENDED(0);
        assert_eq!(go(&all), [Step::Stop(1)]);
        all[1].life = ENDED(143);
        assert_eq!(go(&all), [Step::Stop(0)]);
        all[0].life = ENDED(143);
        assert_eq!(go(&all), [Step::Finish { success: true }]);
    }

    #[test]
    fn a_failed_init_container_fails_a_pod_that_never_restarts() {
        let all = [
            seen(Role::Init, ENDED(3), false),
            seen(Role::Main, Life::New, false),
        ];
        assert_eq!(
            next(RestartPolicy::Never, &all, 0),
            [Step::Finish { success: false }]
        );
        assert_eq!(next(RestartPolicy::OnFailure, &all, 0), [Step::Start(0)]);
    }

    #[test]
    fn delays_double_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..8).map(|_| backoff.ended(5) / 1000).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.ended(600_000), 0);
        assert_eq!(Backoff::default().failed(), 10_000);
    }
}
