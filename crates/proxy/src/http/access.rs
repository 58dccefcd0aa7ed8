//! Access control of requests and connections: the judgement is `proxy-core`'s,
//! this brings the facts and answers a refusal.

use std::rc::Rc;

use lateen_proxy_core::config::Value;
use lateen_proxy_core::config::rbac::{NetworkRbac, Rbac};
use lateen_proxy_core::config::route::RouteConfiguration;
use lateen_proxy_core::path;
use lateen_proxy_core::rbac::{Facts, Peer, Verdict, judge as judge_facts, shadow};
use lateen_proxy_core::stats::Scope;

use super::head::Head;
use super::local::LocalReply;
use super::record::StreamRecord;
use crate::conn::Connection;

/// Where verdicts are kept in dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// Judges a request by the path its routes see; a reply refuses it.
pub(super) fn judge(
    record: &mut StreamRecord,
    rbac: Option<&Rbac>,
    table: Option<&RouteConfiguration>,
    stat_prefix: &str,
) -> Option<LocalReply<'static>> {
    let rbac = rbac?;
    let ignored = table.is_some_and(|t| t.ignore_path_parameters_in_path_matching);
    let seen = path::matched(record.request.path(), ignored);
    let conn = record.conn.clone();
    let (uris, dns) = names(&conn);
    let facts = Facts {
        headers: Some(&record.request),
        path: Some(&seen),
        destination: Some(conn.local),
        server_name: &conn.server_name,
        direct_remote: Some(conn.io.peer.ip()),
        remote: Some(record.remote.ip()),
        peer: peer(&conn, &uris, &dns),
        metadata: &|namespace| record.dynamic_metadata(namespace),
        filter_state: &|_| None,
    };
    let verdict = judge_facts(rbac, &facts);
    let shadowed = shadow(rbac, &facts);
    let scope = Scope::http(stat_prefix);
    count(
        &conn,
        &scope,
        rbac,
        verdict.allowed,
        shadowed.map(|v| v.allowed),
    );
    let details = (!verdict.allowed).then(|| verdict.details());
    drop(seen); // it borrows the request, which is written to below
    if let Some(shadowed) = shadowed {
        let prefix = &rbac.shadow_rules_stat_prefix;
        note(record, prefix, "shadow_", shadowed);
    }
    if rbac.rules.is_some() {
        note(record, &rbac.rules_stat_prefix, "enforced_", verdict);
    }
    Some(LocalReply::new(403, "RBAC: access denied", details?))
}

/// Leaves a verdict in the request's metadata, for filters behind and for the log.
fn note(record: &mut StreamRecord, prefix: &str, kind: &str, verdict: Verdict<'_>) {
    let text = |text: &str| Value::String(text.into());
    if let Some(policy) = verdict.policy {
        let key = format!("{prefix}{kind}effective_policy_id");
        record.set_metadata(NAMESPACE, &key, text(policy));
    }
    let key = format!("{prefix}{kind}engine_result");
    let result = if verdict.allowed { "allowed" } else { "denied" };
    record.set_metadata(NAMESPACE, &key, text(result));
}

/// Judges a connection.
pub fn admits(conn: &Rc<Connection>, rbac: &NetworkRbac) -> bool {
    let (uris, dns) = names(conn);
    let facts = Facts::<'_, Head> {
        headers: None,
        path: None,
        destination: Some(conn.local),
        server_name: &conn.server_name,
        direct_remote: Some(conn.io.peer.ip()),
        remote: Some(conn.remote.ip()),
        peer: peer(conn, &uris, &dns),
        metadata: &|_| None,
        filter_state: &|_| None,
    };
    let verdict = judge_facts(&rbac.rbac, &facts);
    let shadowed = shadow(&rbac.rbac, &facts).map(|v| v.allowed);
    let scope = Scope::group(rbac.stat_prefix.trim_end_matches('.'));
    count(conn, &scope, &rbac.rbac, verdict.allowed, shadowed);
    if !verdict.allowed {
        *conn.termination.borrow_mut() = Some(verdict.details());
    }
    verdict.allowed
}

fn names(conn: &Connection) -> (Vec<&str>, Vec<&str>) {
    match &conn.peer {
        None => (Vec::new(), Vec::new()),
        Some(peer) => (
            peer.uris.iter().map(String::as_str).collect(),
            peer.dns.iter().map(String::as_str).collect(),
        ),
    }
}

fn count(conn: &Connection, scope: &Scope, rbac: &Rbac, allowed: bool, shadowed: Option<bool>) {
    let dotted = |prefix: &str| match prefix.trim_end_matches('.') {
        "" => String::new(),
        prefix => format!("{prefix}."),
    };
    let stats = &conn.worker.stats;
    if rbac.rules.is_some() {
        let prefix = dotted(&rbac.rules_stat_prefix);
        let word = if allowed { "allowed" } else { "denied" };
        stats.named(scope, &format!("rbac.{prefix}{word}")).inc();
    }
    if let Some(allowed) = shadowed {
        let prefix = dotted(&rbac.shadow_rules_stat_prefix);
        let word = if allowed {
            "shadow_allowed"
        } else {
            "shadow_denied"
        };
        stats.named(scope, &format!("rbac.{prefix}{word}")).inc();
    }
}

fn peer<'a>(conn: &'a Connection, uris: &'a [&'a str], dns: &'a [&'a str]) -> Option<Peer<'a>> {
    let certificate = conn.peer.as_ref()?;
    Some(Peer {
        uri_sans: uris,
        dns_sans: dns,
        subject: &certificate.subject,
    })
}
