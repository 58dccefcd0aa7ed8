//! Request headers that the proxy reads itself: addresses, timeouts, retries, cookies, ids.

use std::net::SocketAddr;
use std::time::Duration;

use lateen_proxy::fuzz::Query;
use lateen_proxy_core::config::route::{HashPolicy, HashSource, Substitution};
use lateen_proxy_core::config::{HttpConnectionManager, NetworkFilter};
use lateen_proxy_core::forwarding::{self, Downstream};
use lateen_proxy_core::headers::HeaderList;
use lateen_proxy_core::matcher::{Headers as _, Regex, query_parameter};
use lateen_proxy_core::{hash_policy, local_reply, request_id, retry, rewrite, router};
use lateen_proxy_xds::decode::{self, Context};
use lateen_xds_proto::json;

use crate::Target;
use crate::bytes::{choice, hash, seeds, text};

/// Header lines under the rules of forwarding, retries, timeouts and hashing.
pub const REQUEST: Target = Target {
    name: "request_headers",
    run: request,
    seeds: || {
        seeds(&[
            "\0x-forwarded-for: 1.2.3.4, 10.0.0.1\nx-forwarded-proto: https\nx-request-id: 4f8c2d5e-9c1b-4d5e-8f7a-0123456789ab\nuser-agent: curl\n",
            "\x01x-forwarded-for: [::1]:80,, x\nx-envoy-upstream-rq-timeout-ms: 18446744073709551615\nx-envoy-max-retries: 4294967296\nx-envoy-retry-on: 5xx,reset,503\n",
            "\x02cookie: a=b; u=\"x\"; u=2\ncookie: c\nx-hash: abc\n:path: /p?q=%41&q=2#f\n:authority: h:80.\n",
            "\x03grpc-timeout: 99999999H\ncontent-type: application/grpc+proto\nx-forwarded-client-cert: By=a;Hash=b,URI=\"c;d\"\nx-envoy-retriable-status-codes: 1,503,70000\nretry-after: 5\n",
        ])
    },
    words: &[
        "x-forwarded-for: ",
        "x-forwarded-proto: ",
        "x-forwarded-port: ",
        "x-forwarded-host: ",
        "x-forwarded-client-cert: ",
        "x-envoy-external-address: ",
        "x-envoy-upstream-rq-per-try-timeout-ms: ",
        "x-envoy-expected-rq-timeout-ms: ",
        "grpc-timeout: ",
        "cookie: ",
        ":path: ",
        ":authority: ",
        "\n",
        ", ",
        ";",
        "=",
        "\"",
        "[::1]",
        "::ffff:1.2.3.4",
        "1H",
        "0n",
        "x-request-id: ",
        "gateway-error,",
        "retriable-4xx",
    ],
    rounds: 4000,
};

/// A regular expression, a substitution and a text: the first two are configuration, the third
/// comes from outside.
pub const REGEX: Target = Target {
    name: "regex",
    run: regex,
    seeds: || {
        seeds(&[
            "/b/(\\d+)/(.*)\n/\\2/\\1\n/b/12/x",
            "a*|b\nx\\\\\naab",
            "(?i)jason|\\p{Greek}\n\\0\nJASON",
            "(a{0,1000}){0,1000}\n\nx",
            ")(\n\n",
        ])
    },
    words: &[
        "(", ")", "*", "+", "?", "{1000}", "[", "]", "\\1", "\\", "(?P<a>", "\\pL", "|", "^", "$",
        "\n", "(?i)", ".",
    ],
    rounds: 400,
};

/// Query strings of the admin interface.
pub const ADMIN: Target = Target {
    name: "admin_query",
    run: admin,
    seeds: || {
        seeds(&[
            "filter=a%2Eb&usedonly&format=json",
            "mask=x&&=&a=b=c",
            "%=%zz&+=+%+5",
        ])
    },
    words: &["&", "=", "%", "%41", "%e9", "+", "%2", "\u{e9}"],
    rounds: 3000,
};

/// A connection manager with one option of each kind on.
fn manager(option: u8) -> HttpConnectionManager {
    let on = |bit: u8| option & bit != 0;
    let json = format!(
        r#"{{"name":"l","address":{{"socket_address":{{"address":"0.0.0.0","port_value":80}}}},
        "filter_chains":[{{"filters":[{{"name":"h","typed_config":{{
        "@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix":"s","route_config":{{"name":"r"}},"use_remote_address":{},"xff_num_trusted_hops":{},
        "skip_xff_append":{},"preserve_external_request_id":{},
        "internal_address_config":{{"cidr_ranges":[{{"address_prefix":"10.0.0.0","prefix_len":8}}]}},
        "forward_client_cert_details":"{}","strip_any_host_port":{},"strip_trailing_host_dot":{},
        "http_filters":[{{"name":"r","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]
        }}}}]}}]}}"#,
        on(1),
        u8::from(on(2)) * 2,
        on(4),
        on(8),
        if on(16) {
            "APPEND_FORWARD"
        } else {
            "ALWAYS_FORWARD_ONLY"
        },
        on(32),
        on(64),
    );
    let value = serde_json::from_str(&json).expect("JSON");
    let wire = json::to_wire("envoy.config.listener.v3.Listener", &value).expect("a listener");
    let mut listener = decode::listener(&wire, &Context::empty())
        .expect("accepted")
        .listener;
    let chain = listener.filter_chains.remove(0);
    match &chain.filters[0] {
        NetworkFilter::HttpConnectionManager(manager) => (**manager).clone(),
        _ => unreachable!("the filter above"),
    }
}

fn request(data: &[u8]) {
    let (option, rest) = choice(data);
    let mut headers = HeaderList::default();
    for line in rest.split(|byte| *byte == b'\n') {
        let Some(at) = line.windows(2).position(|pair| pair == b": ") else {
            continue;
        };
        if let Ok(name) = std::str::from_utf8(&line[..at]) {
            headers
                .0
                .push((name.to_ascii_lowercase(), line[at + 2..].to_vec()));
        }
    }
    thread_local! {
        static MANAGERS: Vec<HttpConnectionManager> = (0..128).map(manager).collect();
    }
    MANAGERS.with(|managers| forwarded(&managers[usize::from(option & 127)], &mut headers, option));
    numbers(&headers);
    hashes(&headers, hash(data));
}

fn forwarded(manager: &HttpConnectionManager, headers: &mut HeaderList, option: u8) {
    let down = Downstream {
        peer: Some(SocketAddr::from(([10, 0, 0, 9], 1234))),
        local: Some(SocketAddr::from(([10, 0, 0, 1], 80))),
        tls: option & 128 != 0,
        peer_certificate: None,
        node_ip: None,
    };
    let before = headers.0.len();
    let origin = forwarding::sanitize(headers, manager, &down);
    assert!(!(origin.internal && origin.edge));
    assert_eq!(
        headers.first("x-envoy-internal").is_some(),
        origin.internal,
        "who is inside"
    );
    assert!(headers.0.len() <= before + 8, "headers out of nothing");
    if manager.use_remote_address && manager.xff_num_trusted_hops == 0 {
        assert_eq!(
            origin.client.map(|a| a.ip()),
            down.peer.map(|a| a.ip()),
            "a client of their choice"
        );
    }
    let host = headers.first(":authority").unwrap_or_default().to_vec();
    let stripped = rewrite::strip_host(manager, &host, Some(80));
    assert!(stripped.len() <= host.len(), "a host that grows");
}

fn numbers(headers: &HeaderList) {
    if let Some(told) = headers.first("grpc-timeout").and_then(retry::grpc_timeout) {
        assert!(told <= Duration::from_secs(99_999_999 * 3600));
    }
    for trusted in [false, true] {
        let mut retry = retry::Retry::new(None, headers, trusted);
        assert!(trusted || !retry.enabled(), "a stranger asks for retries");
        for round in 0..3 {
            let wait = retry.back_off(round);
            assert!(wait <= Duration::from_millis(250));
            retry.take();
        }
    }
    if let Some(id) = headers.first("x-request-id") {
        let mut id = id.to_vec();
        let number = request_id::number(&id);
        let _ = request_id::trace_reason(&id);
        let before = id.len();
        request_id::set_trace_reason(&mut id, request_id::TraceReason::Sampling);
        assert_eq!(id.len(), before);
        assert_eq!(request_id::number(&id).is_some(), number.is_some());
    }
    let mut out = Vec::new();
    local_reply::write_grpc_message(headers.first("cookie").unwrap_or_default(), &mut out);
    assert!(
        out.iter().all(|b| (b' '..=b'~').contains(b)),
        "not a header value"
    );
    if let Some(kind) = headers.first("content-type") {
        assert_eq!(router::is_grpc(headers), router::is_grpc_content_type(kind));
    }
}

fn hashes(headers: &HeaderList, draw: u64) {
    if let Some(value) = hash_policy::cookie(headers, "u") {
        assert!(!value.contains(&b';'));
    }
    let policy = |source| HashPolicy {
        source,
        terminal: false,
    };
    let cookie = HashSource::Cookie {
        name: "u".into(),
        ttl: Some(Duration::from_secs(1)),
        path: "/".into(),
        attributes: Vec::new(),
    };
    let policies = [
        policy(HashSource::Header("x-hash".into(), None)),
        policy(HashSource::QueryParameter("q".into())),
        policy(cookie),
    ];
    let hashed = hash_policy::compute(&policies, headers, None, &mut || draw);
    assert!(hashed.hash.is_some(), "a cookie is always there or made");
    // What was set is what is read at the next request.
    if let [set] = hashed.cookies.as_slice() {
        let pair = set.split(';').next().unwrap_or_default();
        let mut next = headers.clone();
        // It takes the place of what the client had.
        next.0.retain(|(name, _)| name != "cookie");
        next.0.push(("cookie".to_owned(), pair.as_bytes().to_vec()));
        let again = hash_policy::compute(&policies, &next, None, &mut || !draw);
        assert_eq!(again.hash, hashed.hash, "affinity is lost");
    }
    let query = headers
        .first(":path")
        .and_then(lateen_proxy_core::path::query);
    if let Some(value) = query.and_then(|query| query_parameter(query, b"q")) {
        assert!(!value.contains(&b'&'));
    }
}

fn regex(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (pattern, substitution, input) = (part(), part(), part());
    let Ok(regex) = Regex::new(pattern) else {
        return;
    };
    assert_eq!(&**regex.source(), pattern);
    let full = regex.is_full_match(input.as_bytes());
    let Ok(with) = Substitution::parse(substitution, regex.groups()) else {
        return;
    };
    let replaced = regex.replace_all(input.as_bytes(), &with);
    if !full && replaced == input.as_bytes() {
        return;
    }
    // Nothing grows beyond one substitution a byte, each of which holds the input at most once a
    // group.
    let most = (input.len() + 1) * (substitution.len() + 1) * (input.len() + 1);
    assert!(replaced.len() <= input.len() + most);
}

fn admin(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let query = Query::parse(text);
    let parts = text.split('&').filter(|part| !part.is_empty()).count();
    assert_eq!(query.pairs().len(), parts);
    for (name, value) in query.pairs() {
        assert!(name.len() + value.len() <= 3 * text.len());
        assert!(query.has(name) && query.get(name).is_some());
    }
    // Escaped by the rule and read again, the pairs are the same.
    let escape = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02X}")).collect() };
    let pair = |(name, value): &(String, String)| format!("{}={}", escape(name), escape(value));
    let again: Vec<String> = query.pairs().iter().map(pair).collect();
    assert_eq!(Query::parse(&again.join("&")), query);
    let plain = |byte: u8| byte != b'%' && byte != b'+';
    if let [(name, value)] = query.pairs()
        && text.bytes().all(plain)
    {
        let pair = text.trim_matches('&');
        assert_eq!(
            pair.split_once('=').unwrap_or((pair, "")),
            (&**name, &**value)
        );
    }
}
