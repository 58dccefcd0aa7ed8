//! The overload manager's task: reads every resource once an interval, sets how far each action is
//! taken, and counts both as Envoy does.

use std::sync::Arc;
use std::time::Duration;

use lateen_process::footprint;
use lateen_proxy_core::config::bootstrap::Monitor;
use lateen_proxy_core::config::bootstrap::Overload as Config;
use lateen_proxy_core::overload::{Action, Degree, Rule};
use lateen_proxy_core::stats::{Counter, Gauge, Histogram, Registry, Scope};
use tokio::time::{Instant, MissedTickBehavior};

use super::pressure::Source;
use crate::engine::EngineHandle;
use crate::overload::{Overload, stat};

/// A resource at work.
struct Resource {
    monitor: Monitor,
    source: Source,
    pressure: Gauge,
    failed: Counter,
    /// What it said when it failed last; logged once.
    problem: Option<String>,
}

/// An action at work.
struct Watched {
    rule: Rule,
    degree: Degree,
    /// Load shed points have no such gauge.
    active: Option<Gauge>,
    percent: Gauge,
}

/// The manager.
pub(super) struct Manager {
    refresh: Duration,
    shrink_interval: Duration,
    resources: Vec<Resource>,
    pressures: Vec<Option<f64>>,
    actions: Vec<Watched>,
    overload: Arc<Overload>,
    engine: EngineHandle,
    delay: Histogram,
    /// None = memory is never given back.
    shrunk: Option<Counter>,
    shrink_at: Instant,
}

impl Manager {
    /// Of a configuration; its series are shown from now on.
    pub(super) fn new(
        config: &Config,
        overload: Arc<Overload>,
        engine: EngineHandle,
        registry: &Registry,
    ) -> Self {
        let resource = |monitor: &Monitor| {
            let name = &*monitor.name;
            registry.counter(&stat(name, "skipped_updates")).add(0);
            Resource {
                monitor: monitor.clone(),
                source: Source::new(&monitor.source),
                pressure: registry.gauge(&stat(name, "pressure")),
                failed: registry.counter(&stat(name, "failed_updates")),
                problem: None,
            }
        };
        let action = |rule: &Rule| {
            let name = rule.action.name();
            let active = match rule.action.is_point() {
                true => {
                    registry.counter(&stat(name, "shed_load_count")).add(0);
                    None
                }
                false => Some(registry.gauge(&stat(name, "active"))),
            };
            Watched {
                rule: rule.clone(),
                degree: Degree::NONE,
                active,
                percent: registry.gauge(&stat(name, "scale_percent")),
            }
        };
        let shrink = Action::ShrinkHeap.name();
        let shrinks = config.rules.iter().any(|r| r.action == Action::ShrinkHeap);
        Self {
            refresh: config.refresh_interval,
            shrink_interval: config.shrink_interval,
            resources: config.monitors.iter().map(resource).collect(),
            pressures: vec![None; config.monitors.len()],
            actions: config.rules.iter().map(action).collect(),
            overload,
            engine,
            delay: registry.histogram(&Scope::group("overload").stat("refresh_interval_delay")),
            shrunk: shrinks.then(|| registry.counter(&stat(shrink, "shrink_count"))),
            shrink_at: Instant::now(),
        }
    }

    /// Reads and acts for as long as the process lives.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.refresh);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<Instant> = None;
        loop {
            let now = ticks.tick().await;
            if let Some(last) = last.replace(now) {
                let passed = now.duration_since(last).as_millis();
                self.delay.record(u64::try_from(passed).unwrap_or(u64::MAX));
            }
            self.refresh(now);
        }
    }

    fn refresh(&mut self, now: Instant) {
        for (resource, pressure) in self.resources.iter_mut().zip(&mut self.pressures) {
            // One that cannot be read keeps its last pressure.
            if let Some(new) = resource.read() {
                *pressure = Some(new);
            }
        }
        for at in 0..self.actions.len() {
            let watched = &mut self.actions[at];
            let degree = watched.rule.degree(&self.pressures);
            if degree != watched.degree {
                let before = std::mem::replace(&mut watched.degree, degree);
                watched.show();
                let action = watched.rule.action;
                self.overload.set(action, degree);
                self.changed(action, before, degree);
            }
        }
        self.shrink(now);
    }

    /// Does what is not drawn for.
    fn changed(&mut self, action: Action, before: Degree, now: Degree) {
        if action == Action::ReduceTimeouts {
            self.engine.look_again();
        }
        if before.is_full() == now.is_full() {
            return;
        }
        let word = match now.is_full() {
            true => "active",
            false => "inactive",
        };
        tracing::info!(target: crate::logger::MAIN, action = action.name(), "overload action became {word}");
        match action {
            Action::StopAcceptingConnections => self.engine.accept(!now.is_full()),
            Action::ShrinkHeap => self.shrink_at = Instant::now(),
            _ => {}
        }
    }

    /// Gives memory back while that is to be done.
    fn shrink(&mut self, now: Instant) {
        let shrinks = |a: &Watched| a.rule.action == Action::ShrinkHeap && a.degree.is_full();
        let Some(count) = &self.shrunk else { return };
        if now >= self.shrink_at && self.actions.iter().any(shrinks) {
            footprint::release_heap();
            self.engine.give_back();
            count.inc();
            self.shrink_at = now + self.shrink_interval;
        }
    }
}

impl Resource {
    fn read(&mut self) -> Option<f64> {
        match self.source.read() {
            Ok(pressure) => {
                // As Envoy shows it: whole percent, above 100 as well.
                self.pressure.set((pressure * 100.0) as i64);
                self.problem = None;
                Some(pressure)
            }
            Err(problem) => {
                self.failed.inc();
                if self.problem.as_ref() != Some(&problem) {
                    let name = &*self.monitor.name;
                    tracing::warn!(target: crate::logger::MAIN, %problem, "resource monitor {name}");
                    self.problem = Some(problem);
                }
                None
            }
        }
    }
}

impl Watched {
    fn show(&self) {
        if let Some(active) = &self.active {
            active.set(self.degree.is_full().into());
        }
        self.percent.set(self.degree.percent());
    }
}
