//! Rules as values, whichever tool writes them: matches, targets, chains, tables.

use ipnet::IpNet;

/// Address family of a rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A table of netfilter, by iptables' name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `nat`
    Nat,
    /// `mangle`
    Mangle,
    /// `raw`
    Raw,
}

/// All rules of one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// The family.
    pub family: Family,
    /// Tables that have rules.
    pub tables: Vec<TableRules>,
    /// TPROXY's policy route: packets with this mark are local, by this routing table.
    pub local_route: Option<(u32, u32)>,
}

/// The rules of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRules {
    /// The table.
    pub table: Table,
    /// Chains of our own, in order of creation.
    pub chains: Vec<&'static str>,
    /// Rules in order, per chain.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `PREROUTING`, `OUTPUT` or a chain of ours.
    pub chain: &'static str,
    /// Whether it must come before rules of others, at this place (from 1).
    pub insert: Option<usize>,
    /// Which packets.
    pub when: Match,
    /// What happens to them.
    pub then: Target,
}

/// Conditions, all of which must hold; the flag of a pair says that the condition is negated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "each field is the iptables option of its name")]
pub struct Match {
    pub source: Option<(bool, IpNet)>,
    pub destination: Option<(bool, IpNet)>,
    pub input: Option<(bool, String)>,
    pub output: Option<(bool, String)>,
    pub protocol: Option<Protocol>,
    pub source_port: Option<(bool, u16)>,
    pub destination_port: Option<(bool, u16)>,
    pub uid: Option<(bool, u32)>,
    pub gids: Vec<(bool, u32)>,
    pub mark: Option<(bool, u32)>,
    pub connection_mark: Option<u32>,
    pub state: Option<State>,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Connection tracking state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `RELATED,ESTABLISHED`
    Known,
    /// `INVALID`
    Invalid,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the iptables target of its name")]
pub enum Target {
    Return,
    Accept,
    Drop,
    Jump(&'static str),
    Redirect(u16),
    Tproxy { port: u16, mark: u32 },
    Mark(u32),
    SaveMark,
    RestoreMark,
    Zone(u16),
}

impl Match {
    pub(crate) fn tcp() -> Self {
        Self::protocol(Protocol::Tcp)
    }

    pub(crate) fn protocol(protocol: Protocol) -> Self {
        Self {
            protocol: Some(protocol),
            ..Self::default()
        }
    }

    pub(crate) fn dport(mut self, port: u16) -> Self {
        self.destination_port = Some((false, port));
        self
    }

    pub(crate) fn without_dport(mut self, port: u16) -> Self {
        self.destination_port = Some((true, port));
        self
    }

    pub(crate) fn sport(mut self, port: u16) -> Self {
        self.source_port = Some((false, port));
        self
    }

    pub(crate) fn to(mut self, net: IpNet) -> Self {
        self.destination = Some((false, net));
        self
    }

    pub(crate) fn not_to(mut self, net: IpNet) -> Self {
        self.destination = Some((true, net));
        self
    }

    pub(crate) fn from(mut self, net: IpNet) -> Self {
        self.source = Some((false, net));
        self
    }

    pub(crate) fn into_interface(mut self, name: &str) -> Self {
        self.input = Some((false, name.to_owned()));
        self
    }

    pub(crate) fn out_of(mut self, name: &str) -> Self {
        self.output = Some((false, name.to_owned()));
        self
    }

    pub(crate) fn mark(mut self, negated: bool, mark: u32) -> Self {
        self.mark = Some((negated, mark));
        self
    }

    pub(crate) fn owned_by(mut self, negated: bool, owner: Owner) -> Self {
        match owner {
            Owner::User(uid) => self.uid = Some((negated, uid)),
            Owner::Group(gid) => self.gids.push((negated, gid)),
        }
        self
    }
}

/// Whose socket a packet comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    User(u32),
    Group(u32),
}
