//! The keyed work queue of a controller: one entry per key, one worker per key at a time,
//! exponential back-off after failures, delayed wake-ups.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Names one object that a controller looks after.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, empty for cluster objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key from its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of an object.
    pub fn of(object: &serde_json::Value) -> Self {
        Self::new(
            super::object::namespace(object),
            super::object::name(object),
        )
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Key>,
    /// Keys that want work: those in `ready`, and those added again while being worked on.
    wanted: HashSet<Key>,
    working: HashSet<Key>,
    failures: HashMap<Key, u32>,
    /// The earliest planned wake-up of a key; later timers of the key do nothing.
    planned: HashMap<Key, Instant>,
}

/// A queue shared by the watch side and the workers of one controller.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
}

/// The first back-off after a failure; doubles up to [`MAX_BACK_OFF`].
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
/// The longest back-off.
const MAX_BACK_OFF: Duration = Duration::from_secs(15);

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves plain collections that are still usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for work on a key as soon as possible.
    pub fn add(&self, key: Key) {
        let mut state = self.state();
        state.planned.remove(&key);
        if !state.wanted.insert(key.clone()) {
            return;
        }
        if !state.working.contains(&key) {
            state.ready.push_back(key);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Asks for work on a key after a delay, unless an earlier wake-up is planned.
    pub fn add_after(&self, key: Key, delay: Duration) {
        let at = Instant::now() + delay;
        {
            let mut state = self.state();
            if state
                .planned
                .get(&key)
                .is_some_and(|planned| *planned <= at)
            {
                return;
            }
            state.planned.insert(key.clone(), at);
        }
        let queue = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            let due = queue.state().planned.get(&key) == Some(&at);
            if due {
                queue.add(key);
            }
        });
    }

    /// Asks for work after the key's next back-off; returns the delay.
    pub fn add_failed(&self, key: Key) -> Duration {
        let failures = {
            let mut state = self.state();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count += 1;
            *count
        };
        let delay = FIRST_BACK_OFF
            .saturating_mul(1 << (failures - 1).min(16))
            .min(MAX_BACK_OFF);
        self.add_after(key, delay);
        delay
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &Key) {
        self.state().failures.remove(key);
    }

    /// The next key to work on; waits for one. Call [`Queue::done`] after.
    pub async fn next(&self) -> Key {
        loop {
            let notified = self.wake.notified();
            if let Some(key) = self.take() {
                return key;
            }
            notified.await;
        }
    }

    fn take(&self) -> Option<Key> {
        let mut state = self.state();
        let key = state.ready.pop_front()?;
        state.wanted.remove(&key);
        state.working.insert(key.clone());
        if !state.ready.is_empty() {
            self.wake.notify_one();
        }
        Some(key)
    }

    /// Ends the work on a key; it is queued again if it was added meanwhile.
    pub fn done(&self, key: &Key) {
        let mut state = self.state();
        state.working.remove(key);
        if state.wanted.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    #[tokio::test]
    async fn a_key_is_queued_once_and_worked_on_by_one() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("a"));
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("b"), "a is being worked on");
        assert!(queue.take().is_none());
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"), "added while working");
        queue.done(&key("a"));
        assert!(queue.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_an_add_overtakes_the_timer() {
        let queue = Queue::default();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let delay = queue.add_failed(key("a"));
            assert!(delay >= last && delay <= MAX_BACK_OFF);
            last = delay;
        }
        assert_eq!(last, MAX_BACK_OFF);
        queue.forget(&key("a"));
        assert_eq!(queue.add_failed(key("a")), FIRST_BACK_OFF);
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(queue.take().is_none(), "the overtaken timers do nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_planned_time_wins() {
        let queue = Queue::default();
        queue.add_after(key("a"), Duration::from_secs(10));
        queue.add_after(key("a"), Duration::from_secs(2));
        let start = Instant::now();
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&key("a"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(queue.take().is_none());
    }
}
