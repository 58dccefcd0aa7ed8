//! Keys that are fetched: one fetch at a time for all who wait for it, kept as long as the
//! configuration says. Without keys nothing passes: a fetch that fails is an answer too.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::jwt::RemoteKeys;
use lateen_proxy_core::jwt::{Failure, JwkSet};
use lateen_proxy_core::stats::Counter;
use tokio::sync::watch;

use super::super::call::{Call, CallError, own_request};
use crate::io::{Timer, timer};
use crate::worker::Worker;

/// Longest key set, bytes.
const LONGEST: usize = 1 << 20;
/// Longest wait between tries of a fetch, as a multiple of the first.
const MOST_BACK_OFF: u32 = 10;

/// Why a try gave no keys.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// No answer.
    #[error("{0}")]
    Call(#[from] CallError),
    /// Another status than 200.
    #[error("answered with {0}")]
    Status(u16),
    /// An answer that is no key set.
    #[error("{0}")]
    Content(String),
}

impl Fault {
    /// Whether another try may do better, as Envoy's fetches see it: `retry_on` 5xx, reset and
    /// connect-failure.
    fn may_pass(&self) -> bool {
        match self {
            Self::Call(error) => matches!(error, CallError::Broken),
            Self::Status(status) => *status >= 500,
            Self::Content(_) => false,
        }
    }
}

/// What the statistics of fetches are counted in.
#[derive(Debug)]
pub struct FetchCounters {
    /// Fetches that gave keys.
    pub success: Counter,
    /// Those that did not.
    pub failed: Counter,
}

/// A remote key set in one worker.
#[derive(Debug)]
pub struct Keys {
    config: Arc<RemoteKeys>,
    counters: Rc<FetchCounters>,
    /// The keys and the moment of [`timer::now_ms`] at which they are old.
    kept: RefCell<Option<(Arc<JwkSet>, u64)>>,
    /// Says when the fetch under way has ended.
    under_way: RefCell<Option<watch::Receiver<()>>>,
    begun: Cell<bool>,
}

impl Keys {
    /// Keys that nobody has fetched yet.
    pub fn new(config: Arc<RemoteKeys>, counters: Rc<FetchCounters>) -> Rc<Self> {
        Rc::new(Self {
            config,
            counters,
            kept: RefCell::default(),
            under_way: RefCell::default(),
            begun: Cell::new(false),
        })
    }

    fn fresh(&self) -> Option<Arc<JwkSet>> {
        let kept = self.kept.borrow();
        let (keys, until) = kept.as_ref()?;
        (timer::now_ms() < *until).then(|| keys.clone())
    }

    /// The keys, fetched first if need be.
    pub async fn get(self: &Rc<Self>, worker: &Rc<Worker>) -> Result<Arc<JwkSet>, Failure> {
        if let Some(keys) = self.fresh() {
            return Ok(keys);
        }
        let mut ended = self.fetch(worker);
        // Ready when the fetch sends, or is gone.
        let _ = ended.changed().await;
        self.fresh().ok_or(Failure::FetchFailed)
    }

    /// Begins a fetch, unless one is under way. It does not depend on who asked.
    fn fetch(self: &Rc<Self>, worker: &Rc<Worker>) -> watch::Receiver<()> {
        if let Some(ended) = &*self.under_way.borrow() {
            return ended.clone();
        }
        let (end, ended) = watch::channel(());
        *self.under_way.borrow_mut() = Some(ended.clone());
        let (this, worker) = (self.clone(), worker.clone());
        tokio::task::spawn_local(async move {
            let fetched = this.tries(&worker).await;
            this.take(fetched);
            *this.under_way.borrow_mut() = None;
            drop(end);
        });
        ended
    }

    fn take(&self, fetched: Option<JwkSet>) {
        match fetched {
            Some(keys) => {
                self.counters.success.inc();
                // Keys that are fetched ahead serve until there are others: a server that is
                // away for a while turns nobody away.
                let life = Some(self.config.cache_duration).filter(|_| self.config.ahead.is_none());
                let until = timer::deadline(timer::now_ms(), life);
                *self.kept.borrow_mut() = Some((Arc::new(keys), until));
            }
            None => {
                self.counters.failed.inc();
            }
        }
    }

    async fn tries(&self, worker: &Rc<Worker>) -> Option<JwkSet> {
        let (retries, first) = self.config.retries;
        for turn in 0..=retries {
            if turn > 0 {
                let wait = first * 2u32.saturating_pow(turn - 1).min(MOST_BACK_OFF);
                Timer::new().sleep(wait).await;
            }
            match self.once(worker).await {
                Ok(keys) => return Some(keys),
                Err(fault) => {
                    let uri = crate::logger::Path(self.config.uri.path.as_bytes());
                    let why = fault.to_string();
                    tracing::warn!(target: crate::logger::JWT, uri = %uri, why, "key set");
                    if !fault.may_pass() {
                        return None;
                    }
                }
            }
        }
        None
    }

    async fn once(&self, worker: &Rc<Worker>) -> Result<JwkSet, Fault> {
        let uri = &self.config.uri;
        let mut call = Call {
            head: own_request(worker, b"GET", uri),
            body: Vec::new(),
            tail: Vec::new(),
            timeout: uri.timeout,
            longest: Some(LONGEST),
            repeatable: true,
        };
        let answer = call.send(worker, &uri.cluster).await;
        let answer = answer?;
        match answer.head.status {
            200 => JwkSet::parse(&answer.body).map_err(Fault::Content),
            status => Err(Fault::Status(status)),
        }
    }

    /// Begins to fetch ahead of requests, where the configuration says so.
    pub fn begin(self: &Rc<Self>, worker: &Rc<Worker>) {
        let Some(after_failure) = self.config.ahead else {
            return;
        };
        if self.begun.replace(true) {
            return;
        }
        let (this, worker) = (Rc::downgrade(self), Rc::downgrade(worker));
        tokio::task::spawn_local(refresh(this, worker, after_failure));
    }
}

/// Keeps keys fresh as long as somebody has them: fetched again before they are old.
async fn refresh(keys: Weak<Keys>, worker: Weak<Worker>, after_failure: Duration) {
    let timer = Timer::new();
    loop {
        let wait = {
            let (Some(keys), Some(worker)) = (keys.upgrade(), worker.upgrade()) else {
                return;
            };
            let fetched = keys.tries(&worker).await;
            let good = fetched.is_some();
            keys.take(fetched);
            match good {
                true => keys.config.cache_duration.mul_f64(0.9),
                false => after_failure,
            }
        };
        timer.sleep(wait.max(Duration::from_millis(10))).await;
    }
}
