//! A cluster at work in one worker: hosts with their pools, the balancer's
//! state, breakers, the TLS to use.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use hashbrown::HashMap;
use lateen_proxy_core::config::cluster::{Cluster, HealthCheck, TransportSocket};
use lateen_proxy_core::config::endpoint::{
    ClusterLoadAssignment, Endpoint, HealthStatus, Locality,
};
use lateen_proxy_core::config::{Address, ClusterDiscovery, FractionalPercent, Name};
use lateen_proxy_core::outlier::HostResult;
use rustls_pki_types::ServerName;

use super::balance::{self, Balancer, Choice};
use super::breaker::{ActiveRequest, InFlight, Limited, Permit};
use super::check::{self, CheckStats};
use super::connect::{ClientTls, ConnectOptions};
use super::health::{ClusterHealth, HealthFlags};
use super::host::Host;
use super::idle::IdleWatch;
use super::passive::{OutlierStats, Outliers};
use crate::admin::HostStats;
use crate::io::timer::now_ms;
use crate::stats::ClusterStats;
use crate::stats::rare::ClusterEvent;
use crate::tls::{TlsContexts, TlsError};

/// The hosts of a cluster at one moment.
#[derive(Debug, Default)]
pub struct HostSet {
    /// All hosts in configuration order.
    pub hosts: Vec<Rc<Host>>,
    /// What they were made from.
    pub assignment: Option<Arc<ClusterLoadAssignment>>,
}

/// A cluster in one worker.
#[derive(Debug)]
pub struct ClusterState {
    /// As configured.
    pub config: Arc<Cluster>,
    /// Statistics.
    pub stats: Rc<ClusterStats>,
    /// Counts of both priorities, shared by the workers.
    pub in_flight: [Arc<InFlight>; 2],
    /// The number of the service it stands for in the worker's
    /// [`crate::mesh::Mesh`]; 0 = not looked at yet.
    pub service: Cell<u32>,
    hosts: RefCell<Rc<HostSet>>,
    balancer: Balancer,
    /// What all workers know of its hosts; none = nothing is checked.
    pub health: Option<Arc<ClusterHealth>>,
    /// Statistics of active checks, where there are any.
    pub(super) check_stats: Option<Rc<CheckStats>>,
    outlier_stats: Option<OutlierStats>,
    seen_health: Cell<u64>,
    first_worker: bool,
    /// Hosts made on the way (original destination).
    passing: RefCell<HashMap<SocketAddr, Rc<Host>>>,
    tls: Rc<TlsContexts>,
    idle: Rc<IdleWatch>,
    me: Weak<ClusterState>,
    /// The share of requests that its endpoints say is to be dropped.
    pub drop_overload: Cell<Option<FractionalPercent>>,
    /// Set once DNS answered or there is nothing to wait for.
    pub resolved: Cell<bool>,
}

impl ClusterState {
    /// A cluster without hosts.
    pub fn new(
        config: Arc<Cluster>,
        stats: Rc<ClusterStats>,
        in_flight: [Arc<InFlight>; 2],
        tls: Rc<TlsContexts>,
        idle: Rc<IdleWatch>,
        health: Option<Arc<ClusterHealth>>,
        first_worker: bool,
    ) -> Rc<Self> {
        let check_stats = (!config.health_checks.is_empty()).then(|| CheckStats::new(&stats));
        let outlier_stats = config
            .outlier_detection
            .is_some()
            .then(|| OutlierStats::new(&stats));
        Rc::new_cyclic(|me| Self {
            service: Cell::new(0),
            balancer: Balancer::default(),
            health,
            check_stats: check_stats.map(Rc::new),
            outlier_stats,
            seen_health: Cell::new(0),
            drop_overload: Cell::default(),
            first_worker,
            config,
            stats,
            in_flight,
            hosts: RefCell::default(),
            passing: RefCell::default(),
            tls,
            idle,
            me: me.clone(),
            resolved: Cell::new(true),
        })
    }

    /// The hosts now.
    pub fn hosts(&self) -> Rc<HostSet> {
        self.hosts.borrow().clone()
    }

    /// Takes the endpoints as they are now. A host that stays keeps its
    /// connections and counts.
    pub fn set_assignment(&self, assignment: &Arc<ClusterLoadAssignment>) {
        let old = self.hosts();
        if old
            .assignment
            .as_ref()
            .is_some_and(|a| Arc::ptr_eq(a, assignment))
        {
            return;
        }
        let endpoints = assignment
            .endpoints()
            .map(|(group, endpoint)| (endpoint.clone(), group.locality.clone(), group.priority));
        self.replace_hosts(endpoints.collect(), Some(assignment.clone()));
    }

    /// Takes hosts found by name resolution.
    pub fn replace_hosts(
        &self,
        endpoints: Vec<(Endpoint, Locality, u32)>,
        assignment: Option<Arc<ClusterLoadAssignment>>,
    ) {
        let old = self.hosts();
        let mut kept: HashMap<&Address, &Rc<Host>> =
            old.hosts.iter().map(|h| (&h.endpoint.address, h)).collect();
        let hosts: Vec<Rc<Host>> = endpoints
            .into_iter()
            .map(
                |(endpoint, locality, priority)| match self.take_known(&mut kept, &endpoint) {
                    Some(host) if host.endpoint == endpoint && host.priority == priority => {
                        host.clone()
                    }
                    // Connections of another transport must serve no more.
                    Some(host) if !self.same_transport(&host.endpoint, &endpoint) => {
                        host.remove();
                        Rc::new(Host::new(endpoint, locality, priority))
                    }
                    Some(host) => {
                        let new = Rc::new(host.renewed(endpoint, locality, priority));
                        if new.pooled() != (0, 0) {
                            self.watch_idle(&new);
                            new.drop_dead();
                        }
                        new
                    }
                    None => Rc::new(self.host(endpoint, locality, priority)),
                },
            )
            .collect();
        for host in kept.into_values() {
            host.remove();
        }
        self.balancer
            .update(&self.config, &hosts, assignment.as_deref());
        if self.first_worker {
            self.stats.cells.membership_change.inc();
        }
        if matches!(self.config.discovery, ClusterDiscovery::Eds { .. }) {
            self.count_update();
        }
        self.count_members(&hosts);
        let dropped = assignment.as_ref().and_then(|a| a.drop_overload);
        self.drop_overload.set(dropped);
        let hosts = Rc::new(HostSet { hosts, assignment });
        *self.hosts.borrow_mut() = hosts.clone();
        if let (true, Some(me)) = (self.first_worker, self.me.upgrade()) {
            for host in hosts.hosts.iter().filter(|h| h.checker.borrow().is_none()) {
                check::start(&me, host);
            }
        }
    }

    /// The host that an endpoint was before. The one host of a LOGICAL_DNS
    /// cluster stays itself wherever it moves: its connections go on.
    fn take_known<'h>(
        &self,
        kept: &mut HashMap<&'h Address, &'h Rc<Host>>,
        endpoint: &Endpoint,
    ) -> Option<&'h Rc<Host>> {
        let same = kept.remove(&endpoint.address);
        let logical = matches!(self.config.discovery, ClusterDiscovery::LogicalDns(_));
        match (same, logical) {
            (None, true) => kept.drain().next().map(|(_, host)| host),
            (same, _) => same,
        }
    }

    fn host(&self, endpoint: Endpoint, locality: Locality, priority: u32) -> Host {
        let mut host = Host::new(endpoint, locality, priority);
        if let Some(health) = &self.health {
            let pending = self.config.lb_common.ignore_new_hosts_until_first_hc;
            let checked = self.check_stats.is_some() && !host.endpoint.is_unchecked();
            let marks = match (checked, pending) {
                (false, _) => HealthFlags::default(),
                (true, false) => HealthFlags::FAILED_ACTIVE,
                (true, true) => HealthFlags::FAILED_ACTIVE.and(HealthFlags::PENDING_ACTIVE),
            };
            host.health = Some(health.host(&host.text, marks));
        }
        host
    }

    /// The health of a host changed: all workers are to look.
    pub fn health_changed(&self) {
        if let Some(health) = &self.health {
            health.changed();
            self.follow_health();
        }
    }

    /// Takes what changed in the health of hosts since the last look.
    pub fn follow_health(&self) {
        let Some(health) = &self.health else {
            return;
        };
        let changes = health.changes();
        if self.seen_health.replace(changes) != changes {
            let hosts = self.hosts();
            self.balancer.refresh(&hosts.hosts);
            self.count_members(&hosts.hosts);
        }
    }

    /// Whether traffic ever went to it, from any worker.
    pub fn is_used(&self) -> bool {
        self.health.as_ref().is_none_or(|h| h.is_used())
    }

    /// Whether names are resolved and every host was checked once.
    pub fn is_warm(&self) -> bool {
        let checked =
            |h: &Rc<Host>| h.flags().has(HealthFlags::CHECKED) || h.endpoint.is_unchecked();
        let hosts = self.hosts();
        if !self.config.wait_for_warm {
            return true;
        }
        self.resolved.get() && (self.check_stats.is_none() || hosts.hosts.iter().all(checked))
    }

    fn same_transport(&self, one: &Endpoint, other: &Endpoint) -> bool {
        let of = |endpoint: &Endpoint| self.config.transport_for(&endpoint.metadata);
        std::ptr::eq(of(one), of(other))
    }

    /// Counts an update of the members: every worker gets it, one counts it.
    fn count_update(&self) {
        if self.first_worker {
            self.stats.events.inc(ClusterEvent::update_attempt);
            self.stats.cells.update_success.inc();
        }
    }

    /// The gauges of members; every worker sees the same hosts, so only the
    /// count of the one is kept that uses the cluster first.
    fn count_members(&self, hosts: &[Rc<Host>]) {
        if !self.first_worker {
            return;
        }
        let healthy = hosts.iter().filter(|h| h.is_healthy()).count();
        let degraded = hosts.iter().filter(|h| h.is_degraded()).count();
        let left_out = HealthFlags::PENDING_ACTIVE.and(HealthFlags::EXCLUDED);
        let excluded =
            |h: &&Rc<Host>| h.flags().has(left_out) || h.endpoint.health == HealthStatus::Draining;
        let excluded = hosts.iter().filter(excluded).count();
        self.stats.cells.membership_degraded.set(degraded as i64);
        self.stats.cells.membership_excluded.set(excluded as i64);
        if let Some(stats) = &self.check_stats {
            let passes = |h: &&Rc<Host>| !h.flags().has(HealthFlags::FAILED_ACTIVE);
            stats
                .healthy
                .set(hosts.iter().filter(passes).count() as i64);
            let degraded = |h: &&Rc<Host>| h.flags().has(HealthFlags::DEGRADED_ACTIVE);
            stats
                .degraded
                .set(hosts.iter().filter(degraded).count() as i64);
        }
        self.stats.cells.membership_total.set(hosts.len() as i64);
        self.stats.cells.membership_healthy.set(healthy as i64);
        let events = &self.stats.events;
        let found = self.config.discovery != ClusterDiscovery::Static;
        let most = hosts.iter().map(|h| h.endpoint.weight).max();
        if let Some(most) = most.filter(|_| found) {
            events.set(ClusterEvent::max_host_weight, most.into());
        }
    }

    /// Chooses a host.
    pub fn choose(&self, choice: &Choice<'_>) -> Option<Rc<Host>> {
        self.follow_health();
        let hosts = self.hosts();
        self.balancer.choose(&hosts.hosts, choice)
    }

    /// Counts how a request to a host ended.
    pub fn note(&self, host: &Host, result: HostResult) {
        let hosts = self.hosts();
        let Some(outliers) = self.outliers(&hosts.hosts) else {
            return;
        };
        if outliers.note(host, result) {
            tracing::debug!(target: crate::logger::UPSTREAM, cluster = %self.config.name, host = %host.text, "ejected");
            self.health_changed();
        }
    }

    fn outliers<'a>(&'a self, hosts: &'a [Rc<Host>]) -> Option<Outliers<'a>> {
        Some(Outliers {
            config: self.config.outlier_detection.as_deref()?,
            stats: &self.stats,
            cells: self.outlier_stats.as_ref()?,
            hosts,
        })
    }

    /// An answer of this host tells it to fail its active check.
    pub fn fail_at_once(&self, host: &Host) {
        if let (Some(health), Some(stats)) = (&host.health, &self.check_stats)
            && check::fail_at_once(health, stats)
        {
            self.health_changed();
        }
    }

    /// A good active check ends an ejection, where so configured.
    pub(super) fn passed_check(&self, host: &Host) {
        let hosts = self.hosts();
        let Some(outliers) = self.outliers(&hosts.hosts) else {
            return;
        };
        let wanted = outliers.config.successful_active_health_check_uneject_host;
        if wanted && outliers.uneject(host) {
            self.health_changed();
        }
    }

    /// Weights of hosts that are being warmed up grow.
    pub fn sweep_slow_start(&self) {
        let hosts = self.hosts();
        if balance::warming(&self.config, &hosts.hosts) {
            let assignment = hosts.assignment.as_deref();
            self.balancer.update(&self.config, &hosts.hosts, assignment);
        }
    }

    /// The periodic look of passive health checks; one worker does it for all.
    pub fn sweep_outliers(&self) {
        self.follow_health();
        let (Some(config), Some(health)) = (&self.config.outlier_detection, &self.health) else {
            return;
        };
        let interval = config.interval.as_millis() as u64;
        if !health.takes_sweep(now_ms(), interval) {
            return;
        }
        let hosts = self.hosts();
        if self.outliers(&hosts.hosts).is_some_and(|o| o.sweep()) {
            self.health_changed();
        }
    }

    /// The host for an address that no discovery knows (original destination).
    pub fn passing_host(&self, addr: SocketAddr) -> Rc<Host> {
        if let Some(host) = self.passing.borrow().get(&addr) {
            return host.clone();
        }
        let host = Rc::new(Host::new(Endpoint::at(addr), Locality::default(), 0));
        self.passing.borrow_mut().insert(addr, host.clone());
        host
    }

    /// Drops passing hosts that nobody uses.
    pub fn clean_passing(&self) {
        self.passing
            .borrow_mut()
            .retain(|_, h| h.connections.get() > 0 || Rc::strong_count(h) > 1);
    }

    /// Asks a breaker.
    pub fn permit(&self, priority: usize, what: Limited) -> Option<Permit> {
        let limits = &self.config.circuit_breakers[priority];
        Permit::take(&self.in_flight[priority], limits, what)
    }

    /// Begins a request on a connection; counts what a breaker stops. None = as many as may be are
    /// served.
    pub fn active_request(&self, priority: usize) -> Option<ActiveRequest> {
        match self.permit(priority, Limited::Requests) {
            Some(permit) => Some(ActiveRequest::new(permit, &self.stats)),
            None => {
                self.stats.cells.upstream_rq_active_overflow.inc();
                None
            }
        }
    }

    /// Has the idle connections of a host looked after.
    pub fn watch_idle(&self, host: &Rc<Host>) {
        self.idle.add(&self.me, host);
    }

    /// The TLS configuration towards a host and the name to send; `None` =
    /// plain.
    pub fn client_tls(
        &self,
        host: &Host,
        options: &ConnectOptions,
    ) -> Result<Option<ClientTls>, String> {
        let transport = self.config.transport_for(&host.endpoint.metadata);
        self.tls_over(transport, host, options, None)
    }

    /// The same for an active check of the host.
    pub(super) fn check_tls(
        &self,
        host: &Host,
        check: &HealthCheck,
    ) -> Result<Option<ClientTls>, String> {
        let criteria = check.transport_criteria.as_ref();
        let transport = self
            .config
            .transport_for(criteria.unwrap_or(&host.endpoint.metadata));
        let alpn = check.alpn.as_deref();
        self.tls_over(transport, host, &ConnectOptions::default(), alpn)
    }

    fn tls_over(
        &self,
        transport: &TransportSocket,
        host: &Host,
        options: &ConnectOptions,
        alpn: Option<&[Name]>,
    ) -> Result<Option<ClientTls>, String> {
        let context = match transport {
            TransportSocket::RawBuffer => return Ok(None),
            TransportSocket::Tls(context) => context,
        };
        let authority = std::str::from_utf8(&options.authority).unwrap_or_default();
        let authority = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let sni: Name = if context.auto_host_sni && !host.endpoint.hostname.is_empty() {
            host.endpoint.hostname.clone()
        } else if self.config.http.auto_sni && !authority.is_empty() {
            authority.into()
        } else {
            context.sni.clone()
        };
        let checked = self.config.http.auto_san_validation || context.auto_sni_san_validation;
        let san = Some(&sni).filter(|sni| checked && !sni.is_empty());
        let alpn: Vec<Name> = match alpn {
            Some(own) => own.to_vec(),
            None if context.common.alpn_protocols.is_empty() => {
                options.alpn.iter().map(|p| (*p).into()).collect()
            }
            None => context.common.alpn_protocols.clone(),
        };
        let config = self
            .tls
            .client(context, san, Some(&alpn))
            .map_err(|e| match e {
                // Envoy's words.
                TlsError::MissingSecret(_) => "Secret is not supplied by SDS".to_owned(),
                e => e.to_string(),
            })?;
        let name = match ServerName::try_from(sni.to_string()) {
            Ok(name) => name,
            // Without a name to send, the address stands in: rustls sends no
            // SNI for one.
            Err(_) => {
                let ip = host
                    .addr
                    .map_or(std::net::Ipv4Addr::LOCALHOST.into(), |a| a.ip());
                ServerName::IpAddress(ip.into())
            }
        };
        Ok(Some((config, name)))
    }

    /// What is known of each host, by address.
    pub fn host_stats(&self) -> Vec<(String, HostStats)> {
        let hosts = self.hosts();
        let passing = self.passing.borrow();
        let all = hosts.hosts.iter().chain(passing.values());
        let found = matches!(
            self.config.discovery,
            ClusterDiscovery::StrictDns(_)
                | ClusterDiscovery::LogicalDns(_)
                | ClusterDiscovery::OriginalDst(_)
        );
        let found = |host: &Host| {
            let place = || {
                let mut endpoint = host.endpoint.clone();
                if let ClusterDiscovery::OriginalDst(_) = self.config.discovery {
                    endpoint.hostname = format!("{}{}", self.config.name, host.text).into();
                }
                (endpoint, host.locality.clone(), host.priority)
            };
            found.then(|| Box::new(place()))
        };
        all.map(|host| {
            let counts = &host.counts;
            let stats = HostStats {
                found: found(host),
                cx_active: host.connections.get().into(),
                cx_connect_fail: counts.connect_failures.get(),
                cx_total: counts.connections.get(),
                rq_active: host.active.get().into(),
                rq_error: counts.errors.get(),
                rq_success: counts.successes.get(),
                rq_timeout: counts.timeouts.get(),
                rq_total: counts.requests.get(),
                flags: host.flags(),
            };
            (host.text.to_string(), stats)
        })
        .collect()
    }

    /// Closes all idle connections; those in use end with their request.
    pub fn retire(&self) {
        for host in self.hosts().hosts.iter() {
            host.remove();
        }
        for host in self.passing.borrow().values() {
            host.remove();
        }
    }
}
