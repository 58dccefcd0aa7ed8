//! Role-based access control: actions, policies, permissions and principals.
use std::sync::Arc;

use super::{CidrRange, Name};
use crate::match_tree::Tree;
use crate::matcher::{HeaderMatcher, MetadataMatcher, PathMatcher, StringMatcher};

/// What a match does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets through what a policy matches, refuses the rest.
    Allow,
    /// Refuses what a policy matches.
    Deny,
    /// Only records.
    Log,
}

/// Rules of one filter.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a match does.
    pub action: Action,
    /// Policies sorted by name, as Envoy evaluates them.
    pub policies: Vec<(Name, Policy)>,
    /// In their place: a tree that leads to a name and what is done. What it leads nowhere is
    /// denied.
    pub tree: Option<Box<Tree<(Name, Action)>>>,
}

/// HTTP access control.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    /// Enforced rules; none = nothing is refused.
    pub rules: Option<Arc<Rules>>,
    /// Rules that only count.
    pub shadow_rules: Option<Arc<Rules>>,
    /// Prefix of shadow statistics and metadata.
    pub shadow_rules_stat_prefix: Name,
    /// Prefix of enforced statistics.
    pub rules_stat_prefix: Name,
}

/// Network access control.
#[derive(Clone, Debug, Default)]
pub struct NetworkRbac {
    /// The rules.
    pub rbac: Rbac,
    /// Prefix of statistics.
    pub stat_prefix: Name,
    /// Judged again for each piece of data instead of once.
    pub continuous: bool,
    /// Wait before closing, milliseconds.
    pub delay_deny_ms: Option<u64>,
}

/// A policy: one permission and one principal must match.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// What is done.
#[derive(Clone, Debug)]
pub enum Permission {
    /// Everything.
    Any,
    /// All hold.
    And(Vec<Permission>),
    /// One holds.
    Or(Vec<Permission>),
    /// Does not hold.
    Not(Box<Permission>),
    /// A request header.
    Header(Box<HeaderMatcher>),
    /// The path without query.
    UrlPath(Box<PathMatcher>),
    /// A path template (`{*}`, `{**}`).
    UriTemplate(Arc<crate::uri_template::UriTemplate>),
    /// Destination address.
    DestinationIp(CidrRange),
    /// Destination port.
    DestinationPort(u16),
    /// Destination port in `[start, end)`.
    DestinationPortRange(u32, u32),
    /// Dynamic metadata.
    Metadata(Box<MetadataMatcher>),
    /// SNI.
    RequestedServerName(Box<StringMatcher>),
}

/// Who does it.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All hold.
    And(Vec<Principal>),
    /// One holds.
    Or(Vec<Principal>),
    /// Does not hold.
    Not(Box<Principal>),
    /// The peer's certificate: URI SAN, DNS SAN, subject. None = any authenticated peer.
    Authenticated(Option<Box<StringMatcher>>),
    /// Address of the connection's peer.
    DirectRemoteIp(CidrRange),
    /// Address of the client (XFF).
    RemoteIp(CidrRange),
    /// Same as direct remote (old name).
    SourceIp(CidrRange),
    /// A request header.
    Header(Box<HeaderMatcher>),
    /// The path without query.
    UrlPath(Box<PathMatcher>),
    /// Dynamic metadata.
    Metadata(Box<MetadataMatcher>),
    /// Filter state, text form.
    FilterState(Name, Box<StringMatcher>),
}
