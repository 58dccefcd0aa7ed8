//! Connections that idle between requests: one whose server closes it leaves
//! its pool when that happens, one that idles too long leaves at the sweep. An
//! idle socket wakes its host's number; a busy one wakes its request alone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};

use hashbrown::HashMap;

use super::cluster::ClusterState;
use super::host::Host;

/// The hosts of a worker that have idle connections.
#[derive(Debug, Default)]
pub struct IdleWatch {
    hosts: RefCell<HashMap<u64, Watched>>,
    numbers: Cell<u64>,
    woken: Arc<Woken>,
}

/// A host and its cluster.
type Watched = (Weak<ClusterState>, Rc<Host>);

/// Numbers of hosts to look at, and who looks. Wakers must be able to cross
/// threads, though these do not.
#[derive(Debug, Default)]
struct Woken(Mutex<(Vec<u64>, Option<Waker>)>);

/// Wakes the watch for one host.
#[derive(Debug)]
pub(super) struct HostWaker {
    number: u64,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl HostWaker {
    /// Whether nothing woke it since its host's connections were looked at.
    pub(super) fn is_quiet(&self) -> bool {
        !self.queued.load(Ordering::Acquire)
    }
}

impl Wake for HostWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = self.woken.0.lock().unwrap_or_else(PoisonError::into_inner);
        woken.0.push(self.number);
        if let Some(watcher) = woken.1.take() {
            watcher.wake();
        }
    }
}

impl IdleWatch {
    /// Has the idle connections of a host looked after.
    pub(super) fn add(&self, cluster: &Weak<ClusterState>, host: &Rc<Host>) {
        if host.watched.replace(true) {
            return;
        }
        let (waker, _) = host.waker.get_or_init(|| {
            self.numbers.set(self.numbers.get() + 1);
            let waker = Arc::new(HostWaker {
                number: self.numbers.get(),
                queued: AtomicBool::new(false),
                woken: self.woken.clone(),
            });
            (waker.clone(), waker.into())
        });
        let entry = (cluster.clone(), host.clone());
        self.hosts.borrow_mut().insert(waker.number, entry);
    }

    /// Closes connections that idled too long or were closed by their peer.
    pub fn sweep(&self) {
        self.hosts.borrow_mut().retain(|_, (cluster, host)| {
            let idle = cluster.upgrade().and_then(|c| c.config.http.idle_timeout);
            let idle_ms = idle.map_or(u64::MAX, |d| d.as_millis() as u64);
            let any = host.sweep(idle_ms);
            host.watched.set(any);
            any
        });
    }

    /// Closes connections as their servers close them; never ends.
    pub async fn watch(self: Rc<Self>) {
        poll_fn(|cx| {
            let numbers = {
                let mut woken = self.woken.0.lock().unwrap_or_else(PoisonError::into_inner);
                woken.1 = Some(cx.waker().clone());
                std::mem::take(&mut woken.0)
            };
            for number in numbers {
                self.look(number);
            }
            Poll::<()>::Pending
        })
        .await;
    }

    fn look(&self, number: u64) {
        let found = self.hosts.borrow().get(&number).map(|(_, h)| h.clone());
        let Some(host) = found else {
            return;
        };
        if let Some((waker, _)) = host.waker.get() {
            // Before the look: what comes during it is looked at again.
            waker.queued.store(false, Ordering::Release);
        }
        host.drop_dead();
    }
}
