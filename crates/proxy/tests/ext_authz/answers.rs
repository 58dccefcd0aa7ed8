//! What becomes of each thing that an authorisation service may say over gRPC, beside the real
//! Envoy: headers and queries set, added, taken out, answers of its own, flaws of all of them.

use std::net::SocketAddr;

use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::service::auth::v3::{self as auth, check_response::HttpResponse};
use lateen_xds_proto::envoy::r#type::v3::HttpStatus;
use lateen_xds_proto::google;
use serde_json::{Value, json};

use super::support::whole::{OK, Proxy, filter, http, static_cluster, wait_for};
use super::support::{Upstream, ask, free_address};
use super::{EXT_AUTHZ, envoy, h2_cluster, option, service, still};

/// Headers that every request of these tests bears beside its host.
const HEADERS: &str = "x-a: 1\r\nx-gone: 1\r\n";

/// A header with an action in the place of `append`.
fn acts(key: &str, value: &str, action: i32) -> core::HeaderValueOption {
    core::HeaderValueOption {
        append_action: action,
        ..option(key, value, None)
    }
}

fn status(code: i32) -> Option<google::rpc::Status> {
    Some(google::rpc::Status {
        code,
        ..Default::default()
    })
}

fn passes(ok: auth::OkHttpResponse) -> auth::CheckResponse {
    auth::CheckResponse {
        status: status(0),
        http_response: Some(HttpResponse::OkResponse(ok)),
        ..Default::default()
    }
}

fn sets(headers: Vec<core::HeaderValueOption>) -> auth::CheckResponse {
    passes(auth::OkHttpResponse {
        headers,
        ..Default::default()
    })
}

fn tells(response_headers_to_add: Vec<core::HeaderValueOption>) -> auth::CheckResponse {
    passes(auth::OkHttpResponse {
        response_headers_to_add,
        ..Default::default()
    })
}

fn queries(set: &[(&str, &str)], remove: &[&str]) -> auth::CheckResponse {
    let set = set.iter().map(|(key, value)| core::QueryParameter {
        key: (*key).into(),
        value: (*value).into(),
    });
    passes(auth::OkHttpResponse {
        query_parameters_to_set: set.collect(),
        query_parameters_to_remove: remove.iter().map(|name| (*name).into()).collect(),
        ..Default::default()
    })
}

fn denies(code: i32, headers: Vec<core::HeaderValueOption>, body: &str) -> auth::CheckResponse {
    auth::CheckResponse {
        status: status(7),
        http_response: Some(HttpResponse::DeniedResponse(auth::DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            headers,
            body: body.into(),
        })),
        ..Default::default()
    }
}

fn fails(code: i32, body: &str) -> auth::CheckResponse {
    let status_of = (code != 0).then_some(HttpStatus { code });
    auth::CheckResponse {
        status: status(7),
        http_response: Some(HttpResponse::ErrorResponse(auth::DeniedHttpResponse {
            status: status_of,
            headers: vec![option("x-why", "broken", None)],
            body: body.into(),
        })),
        ..Default::default()
    }
}

fn many(count: usize) -> Vec<core::HeaderValueOption> {
    let names = (0..count).map(|at| format!("x-many-{at}"));
    names.map(|name| option(&name, "v", None)).collect()
}

/// The answers by name.
fn answers() -> Vec<(&'static str, auth::CheckResponse)> {
    vec![
        ("path", sets(vec![option(":path", "/new?x=1", None)])),
        ("authority", sets(vec![option(":authority", "other", None)])),
        ("host", sets(vec![option("Host", "other", None)])),
        (
            "host-joined",
            sets(vec![option("host", "other", Some(true))]),
        ),
        (
            "path-joined",
            sets(vec![option(":path", "/more", Some(true))]),
        ),
        ("post", sets(vec![option(":method", "POST", None)])),
        ("connect", sets(vec![option(":method", "CONNECT", None)])),
        (
            "other-pseudo",
            sets(vec![
                option(":status", "500", None),
                option(":x", "y", None),
            ]),
        ),
        ("value", sets(vec![option("x-n", "a\r\nx-evil: 1", None)])),
        ("value-nul", sets(vec![option("x-n", "a\0b", None)])),
        ("name", sets(vec![option("x n", "a", None)])),
        (
            "name-lines",
            sets(vec![option("x-n\r\nx-evil: 1", "a", None)]),
        ),
        (
            "path-lines",
            sets(vec![option(":path", "/answers/\r\nx-evil: 1", None)]),
        ),
        (
            "host-lines",
            sets(vec![option(":authority", "x\r\nx-evil: 1", None)]),
        ),
        (
            "in-turn",
            sets(vec![
                option("x-a", "2", Some(true)),
                option("x-a", "3", None),
                option("x-a", "4", Some(false)),
                option("x-new", "5", Some(true)),
            ]),
        ),
        (
            "set-and-removed",
            passes(auth::OkHttpResponse {
                headers: vec![option("x-gone", "new", None)],
                headers_to_remove: vec!["X-Gone".into(), ":method".into(), "".into()],
                ..Default::default()
            }),
        ),
        (
            "action-0",
            sets(vec![acts("x-a", "2", 0), acts("x-b", "2", 0)]),
        ),
        (
            "action-1",
            sets(vec![acts("x-a", "2", 1), acts("x-b", "2", 1)]),
        ),
        (
            "action-2",
            sets(vec![acts("x-a", "2", 2), acts("x-b", "2", 2)]),
        ),
        (
            "action-3",
            sets(vec![acts("x-a", "2", 3), acts("x-b", "2", 3)]),
        ),
        (
            "action-9",
            sets(vec![acts("x-a", "2", 9), acts("x-b", "2", 9)]),
        ),
        (
            "told-0",
            tells(vec![acts("x-up", "2", 0), acts("x-b", "2", 0)]),
        ),
        (
            "told-1",
            tells(vec![acts("x-up", "2", 1), acts("x-b", "2", 1)]),
        ),
        (
            "told-2",
            tells(vec![acts("x-up", "2", 2), acts("x-b", "2", 2)]),
        ),
        (
            "told-3",
            tells(vec![acts("x-up", "2", 3), acts("x-b", "2", 3)]),
        ),
        (
            "told-9",
            tells(vec![acts("x-up", "2", 9), acts("x-b", "2", 0)]),
        ),
        ("told-added", tells(vec![option("x-up", "2", Some(true))])),
        ("told-set", tells(vec![option("x-up", "2", Some(false))])),
        ("query-set", queries(&[("z", "9")], &[])),
        ("query-replaced", queries(&[("a", "9")], &[])),
        ("query-removed", queries(&[], &["b", "none"])),
        ("query-lines", queries(&[("a", "b\r\nc: d")], &[])),
        ("many", sets(many(200))),
        ("at-the-limit", sets(many(92))),
        ("over-the-limit", sets(many(93))),
        (
            "large",
            sets(vec![option("x-large", &"v".repeat(61_000), None)]),
        ),
        (
            "denied",
            denies(
                401,
                vec![
                    option("set-cookie", "a=1", None),
                    option("set-cookie", "b=2", None),
                    option("content-type", "text/html", Some(false)),
                    acts("x-b", "2", 3),
                ],
                "<p>",
            ),
        ),
        (
            "denied-length",
            denies(
                403,
                vec![
                    option("content-length", "7", None),
                    option("content-type", "a/b", None),
                ],
                "",
            ),
        ),
        (
            "denied-framed",
            denies(
                403,
                vec![
                    option("transfer-encoding", "chunked", None),
                    option("connection", "close", None),
                ],
                "no",
            ),
        ),
        (
            "denied-pseudo",
            denies(
                403,
                vec![option(":status", "200", None), option("x-b", "1", None)],
                "no",
            ),
        ),
        ("denied-599", denies(599, vec![], "no")),
        ("failed", fails(502, "broken")),
        ("failed-plain", fails(0, "")),
    ]
}

/// The answer of that name.
pub fn verdict(name: &str) -> auth::CheckResponse {
    let stricter = STRICTER.iter().find(|(other, ..)| *other == name);
    let stricter = stricter.map(|(_, answer, _)| answer());
    let found = answers().into_iter().find(|(other, _)| *other == name);
    let found = found.map(|(_, answer)| answer).or(stricter);
    found.unwrap_or_else(|| panic!("no answer {name}"))
}

/// A name, an answer that Envoy takes and the proxy does not, and the status that its client gets.
type Stricter = (&'static str, fn() -> auth::CheckResponse, &'static str);

/// See docs/differences.md.
const STRICTER: &[Stricter] = &[
    (
        "told-lines",
        || tells(vec![option("x-b", "a\r\nx-evil: 1", None)]),
        "503",
    ),
    (
        "told-status",
        || tells(vec![option(":status", "500", None)]),
        "503",
    ),
    ("no-name", || sets(vec![option("", "a", None)]), "503"),
    (
        "path-space",
        || sets(vec![option(":path", "/a b", None)]),
        "503",
    ),
    (
        "path-relative",
        || sets(vec![option(":path", "a", None)]),
        "503",
    ),
    (
        "path-empty",
        || sets(vec![option(":path", "", None)]),
        "503",
    ),
    (
        "host-space",
        || sets(vec![option(":authority", "a b", None)]),
        "503",
    ),
    (
        "method-space",
        || sets(vec![option(":method", "G E T", None)]),
        "503",
    ),
    ("query-space", || queries(&[("a", "b c")], &[]), "503"),
    (
        "denied-lines",
        || denies(401, vec![option("x-b", "a\r\nx-evil: 1", None)], "no"),
        "401",
    ),
    ("denied-100", || denies(100, vec![], "no"), "403"),
    ("denied-600", || denies(600, vec![], "no"), "403"),
    ("denied-no-status", || denies(-1, vec![], "no"), "403"),
];

/// The filters that are asked: plain, with a new route, open where the service fails, strict.
fn filters() -> Vec<Value> {
    let with = |extra: Value| {
        let mut config = json!({ "transport_api_version": "V3",
            "grpc_service": { "envoy_grpc": { "cluster_name": "authz" }, "timeout": "10s" } });
        for (key, value) in extra.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        filter("envoy.filters.http.ext_authz", EXT_AUTHZ, config)
    };
    vec![
        with(json!({})),
        with(json!({ "clear_route_cache": true })),
        with(json!({ "failure_mode_allow": true })),
        with(json!({ "validate_mutations": true, "failure_mode_allow": true })),
    ]
}

fn routes() -> Value {
    // What an answer is said to be, where it is one of the proxy's own.
    let told = json!([{ "header": { "key": "x-details", "value": "%RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%" } }]);
    json!([
        { "match": { "prefix": "/new" }, "direct_response": { "status": 418 }, "response_headers_to_add": told },
        { "match": { "prefix": "/answers/" }, "route": { "cluster": "c" }, "response_headers_to_add": told },
    ])
}

/// Listeners with the filters, at these places.
fn listeners(places: &[SocketAddr]) -> Value {
    let all = places.iter().zip(filters());
    let all = all.map(|(at, filter)| http(*at, vec![filter], routes(), Value::Null));
    all.collect()
}

fn places() -> Vec<SocketAddr> {
    filters().iter().map(|_| free_address()).collect()
}

const UP: &str = "HTTP/1.1 200 OK\r\nx-up: 1\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn what_a_service_says_is_done_as_envoy_does_it() {
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let upstream = Upstream::new(&[UP]);
    let (service, _) = service();
    let clusters = json!([
        static_cluster("c", upstream.address),
        h2_cluster("authz", service)
    ]);
    let (theirs, ours) = (places(), places());
    let folder = tempfile::tempdir().unwrap();
    let bootstrap =
        json!({ "static_resources": { "listeners": listeners(&theirs), "clusters": clusters } });
    let mut envoy = envoy::Envoy::start(&program, folder.path(), &bootstrap);
    let _proxy = Proxy::start(listeners(&ours), clusters, None);
    theirs.iter().for_each(|at| envoy.wait_for(*at));
    ours.iter().for_each(|at| wait_for(*at));
    let mut wrong = Vec::new();
    for (name, _) in answers() {
        let text = format!("GET /answers/{name}?a=1&b=2 HTTP/1.1\r\nHost: h\r\n{HEADERS}\r\n");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let side = |at: &SocketAddr| {
                upstream.seen.lock().unwrap().clear();
                let answer = still(&ask(*at, &text));
                let requests = upstream.requests();
                let requests: Vec<String> = requests.iter().map(|r| still(r)).collect();
                (answer, requests)
            };
            let (ours, theirs) = (side(ours), side(theirs));
            if ours != theirs {
                wrong.push(format!("{name}: ours {ours:?}\n  Envoy's {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_would_split_a_message_is_refused_whatever_may_pass() {
    let upstream = Upstream::new(&[OK]);
    let (service, _) = service();
    let clusters = json!([
        static_cluster("c", upstream.address),
        h2_cluster("authz", service)
    ]);
    let ours = places();
    let _proxy = Proxy::start(listeners(&ours), clusters, None);
    ours.iter().for_each(|at| wait_for(*at));
    for (name, _, status) in STRICTER {
        for (at, validates) in ours.iter().zip([false, false, false, true]) {
            let text = format!("GET /answers/{name}?a=1 HTTP/1.1\r\nHost: h\r\n\r\n");
            let answer = ask(*at, &text);
            let split = *status == "503" || *name == "denied-lines";
            let status = if validates && split { "500" } else { status };
            let begin = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&begin), "{name}: {answer}");
            assert!(!answer.contains("\r\nx-evil"), "{name}: {answer}");
        }
    }
    assert!(upstream.requests().is_empty());
}
