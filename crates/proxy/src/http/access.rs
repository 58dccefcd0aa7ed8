//! Access control of requests and connections: the judgement is `proxy-core`'s,
//! this brings the facts and answers a refusal.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use lateen_proxy_core::config::rbac::{NetworkRbac, Rbac};
use lateen_proxy_core::config::route::RouteConfiguration;
use lateen_proxy_core::config::{Fields, Name, Value};
use lateen_proxy_core::path;
use lateen_proxy_core::rbac::{Facts, Peer, Verdict, judge as judge_facts, shadow};
use lateen_proxy_core::stats::{Counter, Scope};

use super::head::Head;
use super::local::LocalReply;
use super::record::StreamRecord;
use crate::conn::{Connection, PeerCertificate};
use crate::logger::{Headers, RBAC, tells};

/// Where verdicts are found in dynamic metadata.
pub(super) const NAMESPACE: &str = "envoy.filters.http.rbac";

/// Whether rules were the enforced ones or the shadow ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Enforced,
    Shadow,
}

/// The verdicts on a request. They are metadata to whoever looks, which few do.
#[derive(Debug, Default)]
pub struct Verdicts {
    noted: Vec<Noted>,
    shown: OnceCell<Box<Value>>,
}

#[derive(Debug)]
struct Noted {
    kind: Kind,
    prefix: Name,
    policy: Option<Name>,
    allowed: bool,
}

impl Verdicts {
    /// Forgets them.
    pub fn clear(&mut self) {
        self.noted.clear();
        self.shown.take();
    }

    fn note(&mut self, kind: Kind, prefix: &Name, verdict: Verdict<'_>) {
        self.shown.take();
        self.noted.push(Noted {
            kind,
            prefix: prefix.clone(),
            policy: verdict.policy.cloned(),
            allowed: verdict.allowed,
        });
    }

    /// The verdicts as the metadata of [`NAMESPACE`]; none where nothing was judged.
    pub fn metadata(&self) -> Option<&Value> {
        let fields = || {
            let mut fields = Fields::new();
            for noted in &self.noted {
                noted.write(&mut fields);
            }
            Box::new(Value::Struct(fields))
        };
        (!self.noted.is_empty()).then(|| &**self.shown.get_or_init(fields))
    }
}

impl Noted {
    fn write(&self, fields: &mut Fields) {
        let Self { prefix, kind, .. } = self;
        let kind = match kind {
            Kind::Enforced => "enforced_",
            Kind::Shadow => "shadow_",
        };
        if let Some(policy) = &self.policy {
            let key = format!("{prefix}{kind}effective_policy_id");
            fields.insert(key.into(), Value::String(policy.clone()));
        }
        let result = if self.allowed { "allowed" } else { "denied" };
        let key = format!("{prefix}{kind}engine_result");
        fields.insert(key.into(), Value::String(result.into()));
    }
}

/// The counters of one filter's verdicts, each there from its first verdict on.
#[derive(Debug, Default)]
pub struct RbacCounters {
    /// By [`place`].
    cells: [OnceCell<Counter>; 4],
}

fn place(kind: Kind, allowed: bool) -> usize {
    usize::from(kind == Kind::Shadow) * 2 + usize::from(allowed)
}

/// The scope of a counter of verdicts under that of its filter, and its name.
fn counter_name(of: &Scope, rbac: &Rbac, kind: Kind, allowed: bool) -> (Scope, &'static str) {
    let (prefix, word) = match (kind, allowed) {
        (Kind::Enforced, true) => (&rbac.rules_stat_prefix, "allowed"),
        (Kind::Enforced, false) => (&rbac.rules_stat_prefix, "denied"),
        (Kind::Shadow, true) => (&rbac.shadow_rules_stat_prefix, "shadow_allowed"),
        (Kind::Shadow, false) => (&rbac.shadow_rules_stat_prefix, "shadow_denied"),
    };
    match prefix.trim_end_matches('.') {
        "" => (of.sub("rbac"), word),
        prefix => (of.tag("rbac", "envoy.rbac_http_prefix", prefix), word),
    }
}

/// Judges a request by the path its routes see; a reply refuses it. `counters` are those of the
/// filter whose own rules these are; a route's rules are counted by name.
pub(super) fn judge(
    record: &mut StreamRecord,
    rbac: Option<&Rbac>,
    counters: Option<&RbacCounters>,
    table: Option<&RouteConfiguration>,
    stat_prefix: &str,
) -> Option<LocalReply<'static>> {
    let rbac = rbac?;
    let ignored = table.is_some_and(|t| t.ignore_path_parameters_in_path_matching);
    let seen = path::without_parameters_if(ignored, record.request.bare_path());
    let conn = &*record.conn;
    let facts = Facts {
        headers: Some(&record.request),
        path: Some(&seen),
        destination: Some(conn.local),
        server_name: &conn.server_name,
        direct_remote: Some(conn.io.peer.ip()),
        remote: Some(record.remote.ip()),
        peer: peer(conn),
        metadata: &|namespace| record.dynamic_metadata(namespace),
        filter_state: &|_| None,
    };
    let verdict = judge_facts(rbac, &facts);
    let shadowed = shadow(rbac, &facts);
    if tells!(RBAC) {
        say(conn, Some(record), rbac, shadowed, verdict);
    }
    drop(seen); // it borrows the request's record, which is written to below
    let stats = &conn.worker.stats;
    let count = |kind, allowed| {
        let make = || {
            let (scope, name) = counter_name(&Scope::http(stat_prefix), rbac, kind, allowed);
            stats.named(&scope, name)
        };
        match counters {
            Some(counters) => counters.cells[place(kind, allowed)].get_or_init(make).inc(),
            None => make().inc(),
        }
    };
    if let Some(shadowed) = shadowed {
        count(Kind::Shadow, shadowed.allowed);
        let prefix = &rbac.shadow_rules_stat_prefix;
        record.verdicts.note(Kind::Shadow, prefix, shadowed);
    }
    if rbac.rules.is_some() {
        count(Kind::Enforced, verdict.allowed);
        let prefix = &rbac.rules_stat_prefix;
        record.verdicts.note(Kind::Enforced, prefix, verdict);
    }
    let details = (!verdict.allowed).then(|| verdict.details());
    Some(LocalReply::new(403, "RBAC: access denied", details?))
}

/// Judges a connection.
pub fn admits(conn: &Rc<Connection>, rbac: &NetworkRbac) -> bool {
    let facts = Facts::<'_, Head> {
        headers: None,
        path: None,
        destination: Some(conn.local),
        server_name: &conn.server_name,
        direct_remote: Some(conn.io.peer.ip()),
        remote: Some(conn.remote.ip()),
        peer: peer(conn),
        metadata: &|_| None,
        filter_state: &|_| None,
    };
    let verdict = judge_facts(&rbac.rbac, &facts);
    let prefix = rbac.stat_prefix.trim_end_matches('.');
    let scope = Scope::root().tag("", "envoy.rbac_prefix", prefix);
    let count = |kind, allowed| {
        let (scope, name) = counter_name(&scope, &rbac.rbac, kind, allowed);
        conn.worker.stats.named(&scope, name).inc();
    };
    let shadowed = shadow(&rbac.rbac, &facts);
    if tells!(RBAC) {
        say(conn, None, &rbac.rbac, shadowed, verdict);
    }
    if rbac.rbac.rules.is_some() {
        count(Kind::Enforced, verdict.allowed);
    }
    if let Some(shadowed) = shadowed {
        count(Kind::Shadow, shadowed.allowed);
    }
    if !verdict.allowed {
        *conn.termination.borrow_mut() = Some(verdict.details());
    }
    verdict.allowed
}

/// Tells what was judged and how, in Envoy's words: Istio's pages have people look for them.
#[cold]
fn say(
    conn: &Connection,
    record: Option<&StreamRecord>,
    rbac: &Rbac,
    shadowed: Option<Verdict<'_>>,
    verdict: Verdict<'_>,
) {
    let (direct, local) = (conn.io.peer, conn.local);
    let remote = record.map_or(conn.remote, |record| record.remote);
    let name = conn.server_name.as_bytes().escape_ascii();
    let about = format!(
        "requestedServerName: {name}, sourceIP: {direct}, directRemoteIP: {direct}, remoteIP: {remote}, localAddress: {local}, ssl: {}",
        Certificate(conn.peer.as_ref())
    );
    match record.map(|record| Headers(&record.request)) {
        Some(headers) => {
            tracing::debug!(target: RBAC, "checking request: {about}, headers: {headers}");
        }
        None => tracing::debug!(target: RBAC, "checking connection: {about}"),
    }
    let say = |kind: &str, verdict: Verdict<'_>| {
        let result = if verdict.allowed { "allowed" } else { "denied" };
        let policy = verdict.policy.map_or("none", |name| name).as_bytes();
        let policy = policy.escape_ascii();
        tracing::debug!(target: RBAC, "{kind} {result}, matched policy {policy}");
    };
    if let Some(shadowed) = shadowed {
        say("shadow", shadowed);
    }
    match rbac.rules {
        Some(_) => say("enforced", verdict),
        None => tracing::debug!(target: RBAC, "allowed by default or by policy"),
    }
}

/// What rules may know of a client's certificate.
struct Certificate<'a>(Option<&'a PeerCertificate>);

impl fmt::Display for Certificate<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(certificate) = self.0 else {
            return to.write_str("none");
        };
        let (uris, dns) = (certificate.uris.join(","), certificate.dns.join(","));
        write!(
            to,
            "uriSanPeerCertificate: {}, dnsSanPeerCertificate: {}, subjectPeerCertificate: {}",
            uris.as_bytes().escape_ascii(),
            dns.as_bytes().escape_ascii(),
            certificate.subject.as_bytes().escape_ascii()
        )
    }
}

fn peer(conn: &Connection) -> Option<Peer<'_>> {
    let certificate = conn.peer.as_ref()?;
    Some(Peer {
        uri_sans: &certificate.uris,
        dns_sans: &certificate.dns,
        subject: &certificate.subject,
    })
}
