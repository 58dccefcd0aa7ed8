//! Role-based access control: policies against what is known of a connection and its request.
//! A connection without HTTP has no headers: rules over headers, paths and methods do not match it.
use std::net::{IpAddr, SocketAddr};

use crate::config::rbac::{Action, Permission, Policy, Principal, Rbac, Rules};
use crate::config::{Name, Value};
use crate::matcher::{Headers, StringMatcher};

/// The peer's verified certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// URI SANs.
    pub uri_sans: &'a [String],
    /// DNS SANs.
    pub dns_sans: &'a [String],
    /// Subject, RFC 2253.
    pub subject: &'a str,
}

/// What rules look at.
#[derive(Clone, Copy)]
pub struct Facts<'a, H: Headers + ?Sized> {
    /// Request headers; none on plain TCP.
    pub headers: Option<&'a H>,
    /// Path without query as the router sees it; none on plain TCP.
    pub path: Option<&'a [u8]>,
    /// Destination of the connection.
    pub destination: Option<SocketAddr>,
    /// SNI; empty = none.
    pub server_name: &'a str,
    /// The connection's peer.
    pub direct_remote: Option<IpAddr>,
    /// The client (XFF or PROXY protocol).
    pub remote: Option<IpAddr>,
    /// The peer's verified certificate; none = not authenticated.
    pub peer: Option<Peer<'a>>,
    /// Dynamic metadata by namespace.
    pub metadata: &'a dyn Fn(&str) -> Option<&'a Value>,
    /// Filter state as text by key.
    pub filter_state: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// The outcome of a set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Let through.
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<&'a Name>,
}

impl Verdict<'_> {
    /// `%RESPONSE_CODE_DETAILS%` and `%CONNECTION_TERMINATION_DETAILS%` of a refusal.
    #[must_use]
    pub fn details(&self) -> String {
        format!(
            "rbac_access_denied_matched_policy[{}]",
            self.policy.map_or("none", |p| p)
        )
    }
}

/// Judges by the enforced rules; without rules everything passes.
#[must_use]
pub fn judge<'a, H: Headers + ?Sized>(rbac: &'a Rbac, facts: &Facts<'_, H>) -> Verdict<'a> {
    rbac.rules.as_ref().map_or(
        Verdict {
            allowed: true,
            policy: None,
        },
        |r| evaluate(r, facts),
    )
}

/// Judges by the shadow rules, where there are any.
#[must_use]
pub fn shadow<'a, H: Headers + ?Sized>(
    rbac: &'a Rbac,
    facts: &Facts<'_, H>,
) -> Option<Verdict<'a>> {
    rbac.shadow_rules.as_ref().map(|r| evaluate(r, facts))
}

fn evaluate<'a, H: Headers + ?Sized>(rules: &'a Rules, facts: &Facts<'_, H>) -> Verdict<'a> {
    if let Some(tree) = &rules.tree {
        let found = tree.find(facts);
        return Verdict {
            allowed: found.is_some_and(|(_, action)| *action != Action::Deny),
            policy: found.map(|(name, _)| name),
        };
    }
    let policy = rules
        .policies
        .iter()
        .find(|(_, p)| matches(p, facts))
        .map(|(name, _)| name);
    let allowed = match rules.action {
        Action::Allow => policy.is_some(),
        Action::Deny => policy.is_none(),
        Action::Log => true,
    };
    Verdict { allowed, policy }
}

fn matches<H: Headers + ?Sized>(policy: &Policy, facts: &Facts<'_, H>) -> bool {
    policy.permissions.iter().any(|p| permits(p, facts))
        && policy.principals.iter().any(|p| is(p, facts))
}

fn permits<H: Headers + ?Sized>(rule: &Permission, facts: &Facts<'_, H>) -> bool {
    match rule {
        Permission::Any => true,
        Permission::And(rules) => rules.iter().all(|r| permits(r, facts)),
        Permission::Or(rules) => rules.iter().any(|r| permits(r, facts)),
        Permission::Not(rule) => !permits(rule, facts),
        Permission::Header(m) => facts.headers.is_some_and(|h| m.matches(h)),
        Permission::UrlPath(m) => facts.path.is_some_and(|p| m.0.matches(p)),
        Permission::UriTemplate(t) => facts.path.is_some_and(|p| t.matches(p)),
        Permission::DestinationIp(range) => {
            facts.destination.is_some_and(|d| range.contains(d.ip()))
        }
        Permission::DestinationPort(port) => facts.destination.is_some_and(|d| d.port() == *port),
        Permission::DestinationPortRange(start, end) => facts
            .destination
            .is_some_and(|d| (*start..*end).contains(&u32::from(d.port()))),
        Permission::Metadata(m) => m.matches((facts.metadata)(&m.filter)),
        Permission::RequestedServerName(m) => m.matches(facts.server_name.as_bytes()),
    }
}

fn is<H: Headers + ?Sized>(rule: &Principal, facts: &Facts<'_, H>) -> bool {
    let within = |range: &crate::config::CidrRange, ip: Option<IpAddr>| {
        ip.is_some_and(|ip| range.contains(ip))
    };
    match rule {
        Principal::Any => true,
        Principal::And(rules) => rules.iter().all(|r| is(r, facts)),
        Principal::Or(rules) => rules.iter().any(|r| is(r, facts)),
        Principal::Not(rule) => !is(rule, facts),
        Principal::Authenticated(name) => facts
            .peer
            .is_some_and(|p| name.as_ref().is_none_or(|m| names(&p, m))),
        Principal::DirectRemoteIp(range) | Principal::SourceIp(range) => {
            within(range, facts.direct_remote)
        }
        Principal::RemoteIp(range) => within(range, facts.remote),
        Principal::Header(m) => facts.headers.is_some_and(|h| m.matches(h)),
        Principal::UrlPath(m) => facts.path.is_some_and(|p| m.0.matches(p)),
        Principal::Metadata(m) => m.matches((facts.metadata)(&m.filter)),
        Principal::FilterState(key, m) => {
            (facts.filter_state)(key).is_some_and(|v| m.matches(v.as_bytes()))
        }
    }
}

/// A name matches a URI SAN, else a DNS SAN, else the subject.
fn names(peer: &Peer<'_>, matcher: &StringMatcher) -> bool {
    let any = |list: &[String]| list.iter().any(|san| matcher.matches(san.as_bytes()));
    any(peer.uri_sans) || any(peer.dns_sans) || matcher.matches(peer.subject.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::matcher::{HeaderMatcher, HeaderRule, PathMatcher};

    type Pairs = [(&'static str, &'static str)];

    fn facts<'a>(headers: Option<&'a Pairs>, peer: Option<Peer<'a>>) -> Facts<'a, Pairs> {
        Facts {
            headers,
            path: headers.map(|_| &b"/admin/x"[..]),
            destination: Some("10.0.0.1:9080".parse().unwrap()),
            server_name: "",
            direct_remote: Some("10.1.1.1".parse().unwrap()),
            remote: Some("192.168.0.1".parse().unwrap()),
            peer,
            metadata: &|_| None,
            filter_state: &|_| None,
        }
    }

    fn rbac(action: Action, permissions: Vec<Permission>, principals: Vec<Principal>) -> Rbac {
        let policies = vec![(
            "p".into(),
            Policy {
                permissions,
                principals,
            },
        )];
        Rbac {
            rules: Some(Arc::new(Rules {
                action,
                policies,
                tree: None,
            })),
            ..Rbac::default()
        }
    }

    fn method(m: &str) -> Permission {
        Permission::Header(Box::new(HeaderMatcher {
            name: ":method".into(),
            rule: HeaderRule::String(StringMatcher::exact(m)),
            invert: false,
            missing_as_empty: false,
        }))
    }

    #[test]
    fn actions() {
        let get: &Pairs = &[(":method", "GET")];
        let f = facts(Some(get), None);
        for (action, m, allowed, policy) in [
            (Action::Allow, "GET", true, true),
            (Action::Allow, "POST", false, false),
            (Action::Deny, "GET", false, true),
            (Action::Deny, "POST", true, false),
            (Action::Log, "GET", true, true),
        ] {
            let r = rbac(action, vec![method(m)], vec![Principal::Any]);
            let v = judge(&r, &f);
            assert_eq!(
                (v.allowed, v.policy.is_some()),
                (allowed, policy),
                "{action:?} {m}"
            );
        }
        let r = rbac(Action::Allow, vec![method("POST")], vec![Principal::Any]);
        assert_eq!(
            judge(&r, &f).details(),
            "rbac_access_denied_matched_policy[none]"
        );
        assert!(judge(&Rbac::default(), &f).allowed);
    }

    #[test]
    fn principals_and_addresses() {
        let spiffe = StringMatcher::exact("spiffe://cluster.local/ns/default/sa/x");
        let rule = || Principal::Authenticated(Some(Box::new(spiffe.clone())));
        let get: &Pairs = &[];
        let peer = Peer {
            uri_sans: &["spiffe://cluster.local/ns/default/sa/x".to_owned()],
            ..Peer::default()
        };
        let r = rbac(Action::Allow, vec![Permission::Any], vec![rule()]);
        assert!(judge(&r, &facts(Some(get), Some(peer))).allowed);
        assert!(
            !judge(&r, &facts(Some(get), None)).allowed,
            "plain text is nobody"
        );
        let r = rbac(
            Action::Allow,
            vec![Permission::Any],
            vec![Principal::Authenticated(None)],
        );
        assert!(!judge(&r, &facts(None, None)).allowed);
        let cidr = |s: &str| crate::config::CidrRange(s.parse().unwrap());
        let r = rbac(
            Action::Deny,
            vec![Permission::DestinationPort(9080)],
            vec![Principal::RemoteIp(cidr("192.168.0.0/16"))],
        );
        assert!(!judge(&r, &facts(None, None)).allowed);
        let r = rbac(
            Action::Deny,
            vec![Permission::Any],
            vec![Principal::DirectRemoteIp(cidr("192.168.0.0/16"))],
        );
        assert!(judge(&r, &facts(None, None)).allowed);
    }

    #[test]
    fn paths_and_tcp() {
        let admin = || Permission::UrlPath(Box::new(PathMatcher(StringMatcher::prefix("/admin"))));
        let r = rbac(Action::Deny, vec![admin()], vec![Principal::Any]);
        let get: &Pairs = &[];
        assert!(!judge(&r, &facts(Some(get), None)).allowed);
        assert!(
            judge(&r, &facts(None, None)).allowed,
            "no path on plain TCP"
        );
        let r = rbac(
            Action::Deny,
            vec![Permission::Not(Box::new(admin()))],
            vec![Principal::Any],
        );
        assert!(judge(&r, &facts(Some(get), None)).allowed);
    }
}
