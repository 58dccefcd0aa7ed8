//! The two dialects as a proxy sees them, without sockets.

use std::sync::Arc;

use lateen_xds::{Resource, ResourceSet, ResourceType};
use lateen_xds_proto::Any;
use lateen_xds_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use lateen_xds_proto::google::rpc::Status;

use super::delta::Delta;
use super::sotw::Sotw;
use super::state::{Dialect, LONGEST_NAME, MOST_NAMES, Outcome, Reason};
use super::stream::bounded;

/// More names than are taken, or longer ones, end the stream and are not kept.
fn refuses_too_much<D: Dialect>(ask: impl Fn(Vec<String>) -> D::Request) {
    let mut d = D::default();
    let long = ask(vec!["x".repeat(LONGEST_NAME + 1)]);
    let e = bounded(&mut d, EDS, &long).expect_err("too long");
    assert_eq!(e.code(), tonic::Code::InvalidArgument);
    assert!(e.message().len() < 200, "{}", e.message());
    assert_eq!(d.count(EDS), 0);
    let many = |from: usize, to: usize| (from..to).map(|i| format!("n{i}")).collect();
    let all = ask(many(0, MOST_NAMES));
    assert_eq!(bounded(&mut d, EDS, &all).expect("taken"), Outcome::Respond);
    let more = ask(many(0, MOST_NAMES + 1));
    let e = bounded(&mut d, EDS, &more).expect_err("too many");
    assert_eq!(e.code(), tonic::Code::ResourceExhausted);
}

#[test]
fn names_are_bounded_in_both_dialects() {
    refuses_too_much::<Sotw>(|names| DiscoveryRequest {
        resource_names: names,
        ..DiscoveryRequest::default()
    });
    refuses_too_much::<Delta>(|names| DeltaDiscoveryRequest {
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    });
}

#[test]
fn what_a_proxy_says_about_a_refusal_is_cut_short() {
    let mut s = Sotw::default();
    s.on_request(CDS, &ask(&[], "", None));
    let r = s
        .respond(CDS, &set(&[("a", 1)]), "v1", Reason::Asked)
        .expect("answer")
        .response;
    s.on_request(CDS, &ask(&[], &r.nonce, Some(&"é".repeat(100_000))));
    let kept = s.progress()[0].1.last_error.clone().expect("an error");
    assert_eq!(kept.chars().count(), 4096);
}

const CDS: ResourceType = ResourceType::Cluster;
const EDS: ResourceType = ResourceType::Endpoint;

fn set(items: &[(&str, u64)]) -> ResourceSet {
    ResourceSet::new(items.iter().map(|(name, version)| {
        Arc::new(Resource {
            name: (*name).into(),
            version: *version,
            body: Any::default(),
        })
    }))
}

fn ask(names: &[&str], nonce: &str, error: Option<&str>) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
        response_nonce: nonce.into(),
        error_detail: error.map(|m| Status {
            code: 13,
            message: m.into(),
            details: vec![],
        }),
        ..DiscoveryRequest::default()
    }
}

fn delta(sub: &[&str], unsub: &[&str], nonce: &str) -> DeltaDiscoveryRequest {
    let own = |l: &[&str]| l.iter().map(|n| (*n).to_owned()).collect();
    DeltaDiscoveryRequest {
        resource_names_subscribe: own(sub),
        resource_names_unsubscribe: own(unsub),
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

#[test]
fn sotw_wildcard_is_answered_acked_and_not_resent() {
    let mut s = Sotw::default();
    assert_eq!(s.on_request(CDS, &ask(&[], "", None)), Outcome::Respond);
    let a = set(&[("a", 1), ("b", 2)]);
    let first = s
        .respond(CDS, &a, "v1", Reason::Asked)
        .expect("answered")
        .response;
    assert_eq!(
        (first.resources.len(), first.version_info.as_str()),
        (2, "v1")
    );
    assert_eq!(
        s.on_request(CDS, &ask(&[], &first.nonce, None)),
        Outcome::Ack
    );
    assert!(
        s.respond(CDS, &a, "v2", Reason::Changed).is_none(),
        "unchanged is not resent"
    );
    let built = s
        .respond(CDS, &set(&[("a", 1), ("b", 3)]), "v3", Reason::Changed)
        .expect("changed");
    assert_eq!(
        built.response.resources.len(),
        2,
        "CDS carries the whole set"
    );
    assert_eq!(built.changed, ["b"]);
    let shrunk = s
        .respond(CDS, &set(&[("a", 1)]), "v4", Reason::Changed)
        .expect("removal is a change");
    assert_eq!(shrunk.response.resources.len(), 1);
}

#[test]
fn sotw_order_change_is_a_change() {
    let mut s = Sotw::default();
    s.on_request(CDS, &ask(&[], "", None));
    s.respond(CDS, &set(&[("a", 1), ("b", 2)]), "1", Reason::Asked)
        .expect("answer");
    assert!(
        s.respond(CDS, &set(&[("b", 2), ("a", 1)]), "2", Reason::Changed)
            .is_some()
    );
}

#[test]
fn sotw_nack_is_reported_and_not_answered_by_the_same_again() {
    let mut s = Sotw::default();
    s.on_request(CDS, &ask(&[], "", None));
    let bad = set(&[("a", 1)]);
    let r = s
        .respond(CDS, &bad, "v1", Reason::Asked)
        .expect("answer")
        .response;
    let outcome = s.on_request(CDS, &ask(&[], &r.nonce, Some("no such filter")));
    assert_eq!(outcome, Outcome::Nack("no such filter".into()));
    let progress = &s.progress()[0].1;
    assert_eq!(
        (progress.status(), progress.last_error.as_deref()),
        ("STALE", Some("no such filter"))
    );
    assert!(
        s.respond(CDS, &bad, "v2", Reason::Changed).is_none(),
        "no refusal loop"
    );
    let fixed = s
        .respond(CDS, &set(&[("a", 2)]), "v3", Reason::Changed)
        .expect("fixed")
        .response;
    assert_eq!(
        s.on_request(CDS, &ask(&[], &fixed.nonce, None)),
        Outcome::Ack
    );
    assert_eq!(s.progress()[0].1.last_error, None);
}

#[test]
fn sotw_answer_to_an_old_nonce_is_stale() {
    let mut s = Sotw::default();
    s.on_request(EDS, &ask(&["a"], "", None));
    let old = s
        .respond(EDS, &set(&[("a", 1)]), "1", Reason::Asked)
        .expect("answer")
        .response;
    let new = s
        .respond(EDS, &set(&[("a", 2)]), "2", Reason::Changed)
        .expect("push")
        .response;
    assert_eq!(
        s.on_request(EDS, &ask(&["a"], &old.nonce, None)),
        Outcome::Stale
    );
    assert_eq!(
        s.on_request(EDS, &ask(&["a"], &new.nonce, None)),
        Outcome::Ack
    );
}

#[test]
fn sotw_named_types_send_only_what_is_new() {
    let mut s = Sotw::default();
    s.on_request(EDS, &ask(&["a"], "", None));
    let all = set(&[("a", 1), ("b", 1), ("c", 1)]);
    let r = s
        .respond(EDS, &all, "1", Reason::Asked)
        .expect("answer")
        .response;
    assert_eq!(r.resources.len(), 1);
    assert_eq!(
        s.on_request(EDS, &ask(&["a", "b"], &r.nonce, None)),
        Outcome::Respond
    );
    let built = s.respond(EDS, &all, "1", Reason::Asked).expect("answer");
    assert_eq!(built.changed, ["b"]);
    // A cluster that changed warms again: its endpoints are due though unchanged.
    s.forget(EDS, &["a".into()]);
    assert_eq!(
        s.respond(EDS, &all, "2", Reason::Changed)
            .expect("due")
            .changed,
        ["a"]
    );
    // The last name goes: an empty list is no wildcard here.
    let nonce = s.progress()[0].1.nonce_sent.clone();
    assert_eq!(s.on_request(EDS, &ask(&[], &nonce, None)), Outcome::Ack);
    assert!(s.respond(EDS, &all, "3", Reason::Changed).is_none());
}

#[test]
fn sotw_empty_list_after_names_is_not_a_wildcard() {
    let mut s = Sotw::default();
    s.on_request(CDS, &ask(&["a"], "", None));
    let r = s
        .respond(CDS, &set(&[("a", 1), ("b", 1)]), "1", Reason::Asked)
        .expect("answer")
        .response;
    assert_eq!(r.resources.len(), 1);
    s.on_request(CDS, &ask(&[], &r.nonce, None));
    assert_eq!(s.names(CDS).map(|n| n.wildcard), Some(false));
}

#[test]
fn delta_sends_differences_and_removals() {
    let mut d = Delta::default();
    assert_eq!(d.on_request(CDS, &delta(&[], &[], "")), Outcome::Respond);
    let r = d
        .respond(CDS, &set(&[("a", 1), ("b", 1)]), "1", Reason::Asked)
        .expect("answer")
        .response;
    assert_eq!(r.resources.len(), 2);
    assert_eq!(d.on_request(CDS, &delta(&[], &[], &r.nonce)), Outcome::Ack);
    let r = d
        .respond(CDS, &set(&[("a", 2)]), "2", Reason::Changed)
        .expect("change")
        .response;
    let names: Vec<_> = r.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(
        (names, r.removed_resources),
        (vec!["a"], vec!["b".to_owned()])
    );
    assert!(
        d.respond(CDS, &set(&[("a", 2)]), "3", Reason::Changed)
            .is_none()
    );
}

#[test]
fn delta_named_subscription_learns_of_absence_once() {
    let mut d = Delta::default();
    d.on_request(EDS, &delta(&["x"], &[], ""));
    let r = d
        .respond(EDS, &set(&[]), "1", Reason::Asked)
        .expect("answer")
        .response;
    assert_eq!(r.removed_resources, ["x"]);
    assert!(d.respond(EDS, &set(&[]), "2", Reason::Changed).is_none());
    let r = d
        .respond(EDS, &set(&[("x", 5)]), "3", Reason::Changed)
        .expect("it came")
        .response;
    assert_eq!(r.resources.len(), 1);
    // Subscribing again is a wish to get it again.
    assert_eq!(
        d.on_request(EDS, &delta(&["x"], &[], &r.nonce)),
        Outcome::Respond
    );
    assert_eq!(
        d.respond(EDS, &set(&[("x", 5)]), "3", Reason::Asked)
            .expect("again")
            .changed,
        ["x"]
    );
    d.on_request(EDS, &delta(&[], &["x"], ""));
    assert!(
        d.respond(EDS, &set(&[("x", 6)]), "4", Reason::Changed)
            .is_none()
    );
}

#[test]
fn delta_reconnect_with_known_versions_gets_an_empty_answer() {
    let mut d = Delta::default();
    let mut request = delta(&[], &[], "");
    let known = set(&[("a", 0xabc)]);
    let version = known.get("a").expect("there").version_text();
    request
        .initial_resource_versions
        .insert("a".into(), version);
    request
        .initial_resource_versions
        .insert("gone".into(), "1".into());
    assert_eq!(d.on_request(CDS, &request), Outcome::Respond);
    let r = d
        .respond(CDS, &known, "1", Reason::Asked)
        .expect("answered")
        .response;
    assert!(r.resources.is_empty());
    assert_eq!(r.removed_resources, ["gone"]);
}

#[test]
fn delta_nack_keeps_the_message() {
    let mut d = Delta::default();
    d.on_request(CDS, &delta(&[], &[], ""));
    let r = d
        .respond(CDS, &set(&[("a", 1)]), "1", Reason::Asked)
        .expect("answer")
        .response;
    let mut nack = delta(&[], &[], &r.nonce);
    nack.error_detail = Some(Status {
        code: 13,
        message: "bad a".into(),
        details: vec![],
    });
    assert_eq!(d.on_request(CDS, &nack), Outcome::Nack("bad a".into()));
    assert_eq!(d.progress()[0].1.last_error.as_deref(), Some("bad a"));
}
