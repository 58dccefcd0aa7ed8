//! How far each overload action is taken, as the workers see it: written by the one task that reads
//! the resources, drawn from at accepts, requests and answers. Where no manager is configured there
//! is none of this and a worker finds a null pointer.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lateen_proxy_core::config::bootstrap::ScaledTimeout;
use lateen_proxy_core::overload::{Action, Degree, Least, hits};
use lateen_proxy_core::stats::{Counter, Registry, Scope, StatName};

/// A series of an action or of a resource monitor.
pub fn stat(of: &str, name: &str) -> StatName {
    Scope::group("overload").sub(of).stat(name)
}

/// How far the actions are taken, for all workers.
#[derive(Debug, Default)]
pub struct Overload {
    chances: [AtomicU32; Action::ALL.len()],
    timeouts: Vec<(ScaledTimeout, Least)>,
}

impl Overload {
    /// Nothing is done yet; these timeouts may become shorter.
    pub fn new(timeouts: Vec<(ScaledTimeout, Least)>) -> Self {
        Self {
            chances: Default::default(),
            timeouts,
        }
    }

    /// An action is taken so far from now on.
    pub fn set(&self, action: Action, degree: Degree) {
        // Each stands for itself: no order among them is kept.
        self.chances[action.number()].store(degree.chance(), Ordering::Relaxed);
    }

    fn chance(&self, action: Action) -> u32 {
        self.chances[action.number()].load(Ordering::Relaxed)
    }
}

/// The manager as one worker sees it, with that worker's counts.
#[derive(Debug)]
pub struct Shedding {
    overload: Arc<Overload>,
    registry: Registry,
    counts: [OnceCell<Counter>; Action::ALL.len()],
}

impl Shedding {
    /// Of a worker with these statistics.
    pub fn new(overload: Arc<Overload>, registry: Registry) -> Self {
        Self {
            overload,
            registry,
            counts: Default::default(),
        }
    }

    /// Whether the action is taken this time; a load shed point counts it then.
    pub fn takes(&self, action: Action) -> bool {
        let chance = self.overload.chance(action);
        let taken = chance > 0 && hits(chance, fastrand::u32(..));
        if taken && action.is_point() {
            let make = || {
                self.registry
                    .counter(&stat(action.name(), "shed_load_count"))
            };
            self.counts[action.number()].get_or_init(make).inc();
        }
        taken
    }

    /// What a timeout is now.
    pub fn shortened(&self, which: ScaledTimeout, timeout: Duration) -> Duration {
        let chance = self.overload.chance(Action::ReduceTimeouts);
        let mut all = self.overload.timeouts.iter();
        match all.find(|(timeout, _)| *timeout == which) {
            Some((_, least)) if chance > 0 => Degree::of_chance(chance).shortened(timeout, *least),
            _ => timeout,
        }
    }
}

/// Whether a worker accepts connections.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    /// Nobody is accepted from now on, or all who came meanwhile and come.
    pub fn set_closed(&self, closed: bool) {
        self.closed.set(closed);
        if !closed {
            for waker in self.waiting.take() {
                waker.wake();
            }
        }
    }

    /// Ready where connections are accepted.
    pub fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closed.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
