//! Listeners of a worker: sockets that accept, the hand-off by original
//! destination, and what becomes of listeners that change or go.

mod accept;
pub(crate) mod hello;
pub(crate) mod inspect;
mod last;
pub mod limits;
pub(crate) mod ports;
mod secure;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use lateen_proxy_core::config::{
    FilterChain, HttpConnectionManager, Listener, Name, Snapshot, TrafficDirection,
};
use tokio::sync::oneshot;

use crate::conn::Drain;
use crate::http::stream::HttpContext;
use crate::io::{Timer, timer};
use crate::stats::Stats;
use crate::worker::Worker;
use last::Last;

/// A listener in one worker.
#[derive(Debug)]
pub struct ListenerState {
    /// As configured.
    pub config: Arc<Listener>,
    drains: RefCell<Vec<(Arc<FilterChain>, Rc<Drain>)>>,
    contexts: RefCell<Vec<(Arc<HttpConnectionManager>, Rc<HttpContext>)>>,
    /// Since when it drains as a whole: connections of chains without any until now are asked to go
    /// as well.
    drains_all: Cell<Option<u64>>,
}

impl ListenerState {
    fn new(config: Arc<Listener>) -> Self {
        Self {
            config,
            drains: RefCell::default(),
            contexts: RefCell::default(),
            drains_all: Cell::new(None),
        }
    }

    /// The drain of a chain's connections.
    pub fn drain_of(&self, chain: &Arc<FilterChain>) -> Rc<Drain> {
        let mut drains = self.drains.borrow_mut();
        if let Some((_, drain)) = drains.iter().find(|(c, _)| Arc::ptr_eq(c, chain)) {
            return drain.clone();
        }
        let drain = Rc::new(Drain::default());
        if let Some(begun) = self.drains_all.get() {
            drain.begin(begun);
        }
        drains.push((chain.clone(), drain.clone()));
        drain
    }

    /// The context of a connection manager of this listener.
    pub fn context(&self, config: &Arc<HttpConnectionManager>, stats: &Stats) -> Rc<HttpContext> {
        let mut contexts = self.contexts.borrow_mut();
        if let Some((_, context)) = contexts.iter().find(|(c, _)| Arc::ptr_eq(c, config)) {
            return context.clone();
        }
        let mut context = HttpContext::new(config.clone(), stats);
        context.place = Some(stats.place(&self.config.stat_prefix, &config.stat_prefix));
        let context = Rc::new(context);
        contexts.push((config.clone(), context.clone()));
        context
    }

    /// Asks the clients of all connections to go, of those to come as well.
    fn drain(&self) {
        let now = timer::now_ms();
        self.drains_all.set(self.drains_all.get().or(Some(now)));
        for (_, drain) in self.drains.borrow().iter() {
            drain.begin(now);
        }
    }

    fn has_chain(&self, chain: &Arc<FilterChain>) -> bool {
        let mut chains = self
            .config
            .filter_chains
            .iter()
            .chain(&self.config.default_filter_chain);
        chains.any(|c| Arc::ptr_eq(c, chain))
    }
}

/// The listeners of a worker.
#[derive(Debug, Default)]
pub struct Listeners {
    by_name: RefCell<HashMap<Name, Rc<ListenerState>>>,
    by_address: RefCell<HashMap<SocketAddr, Rc<ListenerState>>>,
    /// Sockets that accept, by their address, with what tells them to end.
    sockets: RefCell<HashMap<SocketAddr, oneshot::Sender<Last>>>,
    stopped: Cell<bool>,
}

/// The addresses on which a listener opens sockets.
pub fn bound_addresses(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    let binds = listener.bind_to_port;
    listener
        .addresses()
        .filter_map(move |a| a.socket().filter(|_| binds))
}

impl Listeners {
    /// Takes the listeners of a snapshot: new sockets begin to accept, those
    /// no longer named stop, and connections of chains that are gone drain.
    pub fn set_snapshot(
        &self,
        worker: &Rc<Worker>,
        snapshot: &Snapshot,
        sockets: Vec<(SocketAddr, std::net::TcpListener)>,
    ) {
        let old = std::mem::take(&mut *self.by_name.borrow_mut());
        let mut new: HashMap<Name, Rc<ListenerState>> = HashMap::new();
        for (name, config) in snapshot.listeners.iter() {
            let state = match old.get(name) {
                Some(state) if Arc::ptr_eq(&state.config, config) => state.clone(),
                before => {
                    let state = Rc::new(ListenerState::new(config.clone()));
                    if let Some(before) = before {
                        keep_drains(before, &state);
                    }
                    state
                }
            };
            new.insert(name.clone(), state);
        }
        for (name, state) in &old {
            let now = new.get(name);
            if !now.is_some_and(|n| Rc::ptr_eq(n, state)) {
                drain_gone(worker, state, now);
            }
        }
        let mut by_address: HashMap<SocketAddr, Rc<ListenerState>> = HashMap::new();
        // Configurations with a shared address are refused; a socket would go to its owner anyway.
        let binding_last = [false, true].map(|binds| {
            let all = new.values();
            all.filter(move |state| state.config.bind_to_port == binds)
        });
        for state in binding_last.into_iter().flatten() {
            for address in state.config.addresses().filter_map(|a| a.socket()) {
                by_address.insert(address, state.clone());
            }
        }
        *self.by_name.borrow_mut() = new;
        let before = self.by_address.replace(by_address);
        self.close_unnamed(worker, &before);
        self.open(worker, sockets);
    }

    fn close_unnamed(&self, worker: &Rc<Worker>, before: &HashMap<SocketAddr, Rc<ListenerState>>) {
        let by_address = self.by_address.borrow();
        self.close_sockets(worker, |address| {
            let now = by_address.get(address);
            let goes = now.is_none_or(|listener| !listener.config.bind_to_port);
            goes.then(|| before.get(address).or(now))
        });
    }

    /// Closes the sockets for which there is an answer, when the last connections for the listener
    /// that it names are accepted.
    fn close_sockets<'l>(
        &self,
        worker: &Rc<Worker>,
        goes: impl Fn(&SocketAddr) -> Option<Option<&'l Rc<ListenerState>>>,
    ) {
        let gone = |address: &SocketAddr, _: &mut oneshot::Sender<Last>| goes(address).is_some();
        for (address, tell) in self.sockets.borrow_mut().extract_if(gone) {
            if let Some(listener) = goes(&address).flatten() {
                // A loop that is gone has no socket any more.
                let _ = tell.send((listener.clone(), worker.arrival()));
            }
        }
    }

    fn open(&self, worker: &Rc<Worker>, sockets: Vec<(SocketAddr, std::net::TcpListener)>) {
        for (address, socket) in sockets {
            if self.stopped.get() {
                continue;
            }
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    let (tell, told) = oneshot::channel();
                    let task = accept::accept_loop(worker.clone(), address, socket, told);
                    tokio::task::spawn_local(task);
                    // Who was there before ends as it is told nothing.
                    self.sockets.borrow_mut().insert(address, tell);
                }
                Err(error) => {
                    tracing::error!(target: crate::logger::MAIN, %address, %error, "listening socket")
                }
            }
        }
    }

    /// The listener that serves an address of its own.
    pub fn at(&self, address: SocketAddr) -> Option<Rc<ListenerState>> {
        self.by_address.borrow().get(&address).cloned()
    }

    /// The listener for an original destination: its exact address, then any
    /// address with its port.
    pub fn for_destination(&self, destination: SocketAddr) -> Option<Rc<ListenerState>> {
        let by_address = self.by_address.borrow();
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let found = by_address
            .get(&destination)
            .or_else(|| by_address.get(&SocketAddr::new(any, destination.port())));
        found.cloned()
    }

    /// Tells clients to go, and accepts no more if asked.
    pub fn drain(&self, worker: &Rc<Worker>, stop_accepting: bool, inbound_only: bool) {
        let meant = |l: &ListenerState| {
            !inbound_only || l.config.traffic_direction == TrafficDirection::Inbound
        };
        for state in self.by_name.borrow().values().filter(|l| meant(l)) {
            state.drain();
        }
        if !stop_accepting {
            return;
        }
        self.stopped.set(self.stopped.get() || !inbound_only);
        let by_address = self.by_address.borrow();
        self.close_sockets(worker, |address| {
            let listener = by_address.get(address);
            listener.is_none_or(|l| meant(l)).then_some(listener)
        });
    }

    /// Names and local addresses that accept now.
    pub fn accepting(&self) -> Vec<SocketAddr> {
        self.sockets.borrow().keys().copied().collect()
    }
}

/// A chain that is in the old and the new configuration keeps its connections.
fn keep_drains(before: &ListenerState, now: &ListenerState) {
    let kept = before.drains.borrow();
    let kept = kept
        .iter()
        .filter(|(chain, _)| now.has_chain(chain))
        .cloned();
    now.drains.borrow_mut().extend(kept);
}

/// Connections of chains that are gone end with their request, and after the
/// drain time in any case.
fn drain_gone(worker: &Rc<Worker>, before: &ListenerState, now: Option<&Rc<ListenerState>>) {
    let config = &before.config;
    let chains = config
        .filter_chains
        .iter()
        .chain(&config.default_filter_chain);
    let gone: Vec<Rc<Drain>> = chains
        .filter(|chain| !now.is_some_and(|n| n.has_chain(chain)))
        .map(|chain| before.drain_of(chain))
        .collect();
    for drain in &gone {
        drain.begin(timer::now_ms());
    }
    // The last connections of a listener that is gone are still to come.
    if now.is_some() && gone.iter().all(|d| Rc::strong_count(d) <= 2) {
        return;
    }
    worker.tell_idle();
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        Timer::new().sleep(worker.options.drain_time).await;
        for drain in &gone {
            drain.over.set(true);
        }
        worker.wake_connections();
    });
}
