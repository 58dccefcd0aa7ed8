//! From settings to rule sets: which chains, which rules, in which order. Pure.
//!
//! The chains and their order are those of Istio's sidecar: outbound traffic goes through
//! `ISTIO_OUTPUT` to port 15001, inbound through `ISTIO_INBOUND` to 15006; the proxy's own
//! traffic (by user and group) passes, and what it sends to its own pod comes in again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::{Config, Mode, Selection};
use crate::rule::Owner;
pub use crate::rule::{Family, Match, Protocol, Rule, RuleSet, State, Table, TableRules, Target};

/// The source address that marks a connection from the inbound side to the application.
const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
/// Packet mark for what the proxy sends to its own pod, in TPROXY mode.
const SELF_MARK: u32 = 1338;
/// Where the agent answers DNS.
const AGENT_DNS_PORT: u16 = 15053;

/// What the rules depend on besides the flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct System {
    /// Whether the namespace has an IPv6 address beyond loopback and link-local.
    pub ipv6: bool,
    /// The servers of `resolv.conf`.
    pub nameservers: Vec<IpAddr>,
}

/// The rule sets that the settings ask for: IPv4, and IPv6 where the system has it.
#[must_use]
pub fn build(config: &Config, system: &System) -> Vec<RuleSet> {
    let mut sets = vec![Builder::new(config, system, Family::V4).build()];
    if system.ipv6 || config.dual_stack {
        sets.push(Builder::new(config, system, Family::V6).build());
    }
    sets
}

struct Builder<'a> {
    config: &'a Config,
    family: Family,
    nameservers: Vec<IpNet>,
    tables: Vec<TableRules>,
}

impl<'a> Builder<'a> {
    fn new(config: &'a Config, system: &System, family: Family) -> Self {
        let mut builder = Self {
            config,
            family,
            nameservers: Vec::new(),
            tables: Vec::new(),
        };
        let servers = system.nameservers.iter().copied().map(IpNet::from);
        builder.nameservers = servers.filter(|net| builder.is_ours(*net)).collect();
        builder
    }

    fn build(mut self) -> RuleSet {
        self.drop_invalid();
        self.nat_inbound();
        self.nat_outbound();
        self.virtual_interfaces();
        self.dns_zones();
        let tproxy = self.config.mode == Mode::Tproxy && !self.config.inbound_ports.is_none();
        if tproxy {
            self.tproxy();
        }
        RuleSet {
            family: self.family,
            tables: self.tables,
            local_route: tproxy
                .then_some((self.config.tproxy_mark, self.config.tproxy_route_table)),
        }
    }

    fn is_ours(&self, net: IpNet) -> bool {
        matches!(net, IpNet::V4(_)) == (self.family == Family::V4)
    }

    fn loopback(&self) -> IpNet {
        match self.family {
            Family::V4 => IpAddr::from(Ipv4Addr::LOCALHOST).into(),
            Family::V6 => IpAddr::from(Ipv6Addr::LOCALHOST).into(),
        }
    }

    fn passthrough(&self) -> IpNet {
        match self.family {
            Family::V4 => IpAddr::from(PASSTHROUGH_V4).into(),
            Family::V6 => IpAddr::from(PASSTHROUGH_V6).into(),
        }
    }

    fn owners(&self) -> Vec<Owner> {
        let users = self.config.proxy_uids.iter().map(|uid| Owner::User(*uid));
        let groups = self.config.proxy_gids.iter().map(|gid| Owner::Group(*gid));
        users.chain(groups).collect()
    }

    fn table(&mut self, table: Table) -> &mut TableRules {
        let at = self.tables.iter().position(|rules| rules.table == table);
        let at = at.unwrap_or_else(|| {
            self.tables.push(TableRules {
                table,
                chains: Vec::new(),
                rules: Vec::new(),
            });
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    fn chain(&mut self, table: Table, chain: &'static str) {
        let rules = self.table(table);
        if !rules.chains.contains(&chain) {
            rules.chains.push(chain);
        }
    }

    fn add(&mut self, table: Table, chain: &'static str, when: Match, then: Target) {
        if chain.starts_with("ISTIO_") {
            self.chain(table, chain);
        }
        let rule = Rule {
            chain,
            insert: None,
            when,
            then,
        };
        self.table(table).rules.push(rule);
    }

    fn drop_invalid(&mut self) {
        if !self.config.drop_invalid {
            return;
        }
        let invalid = Match {
            state: Some(State::Invalid),
            ..Match::default()
        };
        self.add(
            Table::Mangle,
            "PREROUTING",
            invalid,
            Target::Jump("ISTIO_DROP"),
        );
        self.add(Table::Mangle, "ISTIO_DROP", Match::default(), Target::Drop);
    }

    fn nat_inbound(&mut self) {
        let config = self.config;
        let (proxy, inbound) = (config.proxy_port, config.inbound_capture_port);
        self.chain(Table::Nat, "ISTIO_INBOUND");
        self.add(
            Table::Nat,
            "ISTIO_REDIRECT",
            Match::tcp(),
            Target::Redirect(proxy),
        );
        self.add(
            Table::Nat,
            "ISTIO_IN_REDIRECT",
            Match::tcp(),
            Target::Redirect(inbound),
        );
        for name in &config.exclude_interfaces {
            self.add(
                Table::Nat,
                "PREROUTING",
                Match::default().into_interface(name),
                Target::Return,
            );
            self.add(
                Table::Nat,
                "OUTPUT",
                Match::default().out_of(name),
                Target::Return,
            );
        }
        if config.mode != Mode::Redirect || config.inbound_ports.is_none() {
            return;
        }
        self.add(
            Table::Nat,
            "PREROUTING",
            Match::tcp(),
            Target::Jump("ISTIO_INBOUND"),
        );
        self.inbound_ports(Table::Nat, Target::Jump("ISTIO_IN_REDIRECT"));
    }

    /// `ISTIO_INBOUND`: ports left out, then what is captured.
    fn inbound_ports(&mut self, table: Table, capture: Target) {
        let config = self.config;
        let tunnel = Match::tcp().dport(config.inbound_tunnel_port);
        self.add(table, "ISTIO_INBOUND", tunnel, Target::Return);
        match &config.inbound_ports {
            Selection::All => {
                for port in &config.inbound_exclude {
                    let port = Match::tcp().dport(*port);
                    self.add(table, "ISTIO_INBOUND", port, Target::Return);
                }
                if table == Table::Mangle {
                    self.divert_known(Match::tcp());
                }
                self.add(table, "ISTIO_INBOUND", Match::tcp(), capture);
            }
            Selection::Some(ports) => {
                for port in ports {
                    let port = Match::tcp().dport(*port);
                    if table == Table::Mangle {
                        self.divert_known(port.clone());
                    }
                    self.add(table, "ISTIO_INBOUND", port, capture);
                }
            }
        }
    }

    /// Packets of a connection that is already the proxy's.
    fn divert_known(&mut self, when: Match) {
        let when = Match {
            state: Some(State::Known),
            ..when
        };
        self.add(
            Table::Mangle,
            "ISTIO_INBOUND",
            when,
            Target::Jump("ISTIO_DIVERT"),
        );
    }

    fn nat_outbound(&mut self) {
        let config = self.config;
        let output = |this: &mut Self, when: Match, then: Target| {
            this.add(Table::Nat, "ISTIO_OUTPUT", when, then);
        };
        self.add(
            Table::Nat,
            "OUTPUT",
            Match::default(),
            Target::Jump("ISTIO_OUTPUT"),
        );
        for port in &config.outbound_exclude_ports {
            output(self, Match::tcp().dport(*port), Target::Return);
            let udp = Match::protocol(Protocol::Udp).dport(*port);
            output(self, udp, Target::Return);
        }
        let back = Match::default().out_of("lo").from(self.passthrough());
        output(self, back, Target::Return);
        for owner in self.owners() {
            self.own_traffic(owner);
        }
        self.owner_groups();
        if config.redirect_dns {
            self.dns_redirect();
        }
        output(self, Match::default().to(self.loopback()), Target::Return);
        for net in &config.outbound_exclude_ranges {
            if self.is_ours(*net) {
                output(self, Match::default().to(*net), Target::Return);
            }
        }
        let redirect = Target::Jump("ISTIO_REDIRECT");
        for port in &config.outbound_ports {
            output(self, Match::tcp().dport(*port), redirect);
        }
        match &config.outbound_ranges {
            Selection::All => output(self, Match::default(), redirect),
            Selection::Some(list) => {
                for net in list {
                    if self.is_ours(*net) {
                        output(self, Match::default().to(*net), redirect);
                    }
                }
            }
        }
    }

    /// What the proxy sends to its own pod comes in again; what the application sends over
    /// loopback and all else that the proxy sends stays as it is.
    fn own_traffic(&mut self, owner: Owner) {
        let config = self.config;
        let to_self = Match::tcp()
            .out_of("lo")
            .not_to(self.loopback())
            .without_dport(config.inbound_tunnel_port)
            .owned_by(false, owner);
        let application = if config.redirect_dns {
            Match::tcp().without_dport(53)
        } else {
            Match::default()
        };
        let application = application.out_of("lo").owned_by(true, owner);
        let rules = [
            (to_self, Target::Jump("ISTIO_IN_REDIRECT")),
            (application, Target::Return),
            (Match::default().owned_by(false, owner), Target::Return),
        ];
        for (when, then) in rules {
            self.add(Table::Nat, "ISTIO_OUTPUT", when, then);
        }
    }

    fn owner_groups(&mut self) {
        let config = self.config;
        if let Selection::Some(groups) = &config.owner_groups {
            let others = Match {
                gids: groups.iter().map(|gid| (true, *gid)).collect(),
                ..Match::default()
            };
            self.add(Table::Nat, "ISTIO_OUTPUT", others, Target::Return);
            return;
        }
        for gid in &config.owner_groups_exclude {
            let group = Match::default().owned_by(false, Owner::Group(*gid));
            self.add(Table::Nat, "ISTIO_OUTPUT", group, Target::Return);
        }
    }

    /// The destinations whose DNS is captured; `None` stands for all.
    fn dns_servers(&self) -> Vec<Option<IpNet>> {
        if self.config.capture_all_dns {
            return vec![None];
        }
        self.nameservers.iter().copied().map(Some).collect()
    }

    fn dns_redirect(&mut self) {
        let jump = Target::Jump("ISTIO_OUTPUT_DNS");
        self.add(Table::Nat, "ISTIO_OUTPUT", Match::default(), jump);
        self.chain(Table::Nat, "ISTIO_OUTPUT_DNS");
        for server in self.dns_servers() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let mut when = Match::protocol(protocol).dport(53);
                when.destination = server.map(|net| (false, net));
                let then = Target::Redirect(AGENT_DNS_PORT);
                self.add(Table::Nat, "ISTIO_OUTPUT_DNS", when, then);
            }
        }
    }

    /// Zones of connection tracking: without them, a query of the agent to the real server and
    /// one of the application to the agent may share a tuple, and one of them is lost.
    fn dns_zones(&mut self) {
        if !self.config.redirect_dns {
            return;
        }
        let udp = || Match::protocol(Protocol::Udp);
        let out = "ISTIO_OUTPUT_DNS";
        self.add(
            Table::Raw,
            "PREROUTING",
            Match::default(),
            Target::Jump("ISTIO_INBOUND"),
        );
        self.add(Table::Raw, "OUTPUT", Match::default(), Target::Jump(out));
        for owner in self.owners() {
            let query = udp().dport(53).owned_by(false, owner);
            self.add(Table::Raw, out, query, Target::Zone(1));
            let answer = udp().sport(AGENT_DNS_PORT).owned_by(false, owner);
            self.add(Table::Raw, out, answer, Target::Zone(2));
        }
        self.chain(Table::Raw, "ISTIO_INBOUND");
        for server in self.dns_servers() {
            let mut query = udp().dport(53);
            query.destination = server.map(|net| (false, net));
            self.add(Table::Raw, out, query, Target::Zone(2));
            let mut answer = udp().sport(53);
            answer.source = server.map(|net| (false, net));
            self.add(Table::Raw, "ISTIO_INBOUND", answer, Target::Zone(1));
        }
    }

    /// Traffic that comes in from a virtual machine is that machine's outbound traffic.
    fn virtual_interfaces(&mut self) {
        let config = self.config;
        let mut rules = Vec::new();
        for name in &config.virtual_interfaces {
            let from = || Match::default().into_interface(name);
            for net in &config.outbound_exclude_ranges {
                if self.is_ours(*net) {
                    rules.push((from().to(*net), Target::Return));
                }
            }
            let redirect = Target::Jump("ISTIO_REDIRECT");
            match &config.outbound_ranges {
                Selection::All => rules.push((from(), redirect)),
                Selection::Some(list) => {
                    for net in list.iter().filter(|net| self.is_ours(**net)) {
                        rules.push((from().to(*net), redirect));
                    }
                }
            }
        }
        for (place, (when, then)) in rules.into_iter().enumerate() {
            let rule = Rule {
                chain: "PREROUTING",
                insert: Some(place + 1),
                when,
                then,
            };
            self.table(Table::Nat).rules.push(rule);
        }
    }

    fn tproxy(&mut self) {
        let config = self.config;
        let mark = config.tproxy_mark;
        let mangle = |this: &mut Self, chain: &'static str, when: Match, then: Target| {
            this.add(Table::Mangle, chain, when, then);
        };
        mangle(self, "ISTIO_DIVERT", Match::default(), Target::Mark(mark));
        mangle(self, "ISTIO_DIVERT", Match::default(), Target::Accept);
        let capture = Target::Tproxy {
            port: config.inbound_capture_port,
            mark,
        };
        mangle(
            self,
            "ISTIO_TPROXY",
            Match::tcp().not_to(self.loopback()),
            capture,
        );
        for name in &config.exclude_interfaces {
            mangle(
                self,
                "PREROUTING",
                Match::default().into_interface(name),
                Target::Return,
            );
        }
        mangle(
            self,
            "PREROUTING",
            Match::tcp(),
            Target::Jump("ISTIO_INBOUND"),
        );
        let marked = || Match::tcp().mark(false, mark);
        mangle(self, "ISTIO_INBOUND", marked(), Target::Return);
        let back = Match::tcp().from(self.passthrough()).into_interface("lo");
        mangle(self, "ISTIO_INBOUND", back, Target::Return);
        let local = Match::tcp().into_interface("lo").mark(true, SELF_MARK);
        mangle(self, "ISTIO_INBOUND", local, Target::Return);
        self.inbound_ports(Table::Mangle, Target::Jump("ISTIO_TPROXY"));
        mangle(self, "PREROUTING", marked(), Target::SaveMark);
        mangle(self, "OUTPUT", marked().out_of("lo"), Target::Return);
        for owner in self.owners() {
            let to_self = Match::tcp()
                .out_of("lo")
                .not_to(self.loopback())
                .owned_by(false, owner);
            mangle(self, "OUTPUT", to_self, Target::Mark(SELF_MARK));
        }
        let known = Match {
            connection_mark: Some(mark),
            ..Match::tcp()
        };
        mangle(self, "OUTPUT", known, Target::RestoreMark);
    }
}
