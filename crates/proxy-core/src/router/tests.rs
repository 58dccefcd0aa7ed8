//! Tables over virtual hosts and routes.
use std::sync::Arc;

use super::*;
use crate::config::route::{RequireTls, RouteAction};
use crate::config::{FractionalPercent, Metadata, Name, Rare};
use crate::matcher::{HeaderMatcher, HeaderRule, QueryMatcher, Regex, StringMatcher};

fn matching(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        case_sensitive: true,
        headers: Rare::default(),
        query: Rare::default(),
        grpc: false,
        fraction: None,
        tls_presented: None,
        tls_validated: None,
        dynamic_metadata: Rare::default(),
        cookies: Rare::default(),
    }
}

fn route(name: &str, matching: RouteMatch) -> Arc<Route> {
    Arc::new(Route {
        name: name.into(),
        matching,
        action: RouteAction::NonForwarding,
        headers: Rare::default(),
        per_filter: Rare::default(),
        metadata: Metadata::default(),
        decorator: None,
        tracing: None,
        per_request_buffer_limit: None,
        stat_prefix: Name::default(),
    })
}

fn host(name: &str, domains: &[&str], routes: Vec<Arc<Route>>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: name.into(),
        domains: domains
            .iter()
            .map(|d| d.to_ascii_lowercase().into())
            .collect(),
        index: RouteIndex::new(&routes),
        routes,
        require_tls: RequireTls::None,
        headers: Rare::default(),
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        retry_policy: None,
        mirrors: Rare::default(),
        per_filter: Rare::default(),
        per_request_buffer_limit: None,
        rate_limits: Rare::default(),
        metadata: Metadata::default(),
    })
}

fn table(hosts: Vec<Arc<VirtualHost>>, ignore_port: bool) -> RouteConfiguration {
    RouteConfiguration {
        index: VirtualHostIndex::new(&hosts).unwrap(),
        virtual_hosts: hosts,
        ignore_port_in_host_matching: ignore_port,
        ..RouteConfiguration::new("t".into())
    }
}

fn pick(routes: &[Arc<Route>], path: &str, headers: &[(&str, &str)]) -> String {
    let h = host("h", &["*"], routes.to_vec());
    let request = Request {
        path: path.as_bytes(),
        authority: b"x",
        headers,
        connect: false,
        random: 50,
        client_certificate: (false, false),
        metadata: &|_| None,
    };
    h.select(&request, false)
        .map_or_else(|| "none".into(), |r| r.name.to_string())
}

#[test]
fn virtual_hosts() {
    let hosts = vec![
        host("exact", &["reviews", "Ex.com", "ex.com:8080"], vec![]),
        host("suffix", &["*.ex.com"], vec![]),
        host("longer", &["*.a.ex.com", "*-b.ex.com"], vec![]),
        host("prefix", &["ex.*"], vec![]),
        host("any", &["*"], vec![]),
    ];
    let t = table(hosts.clone(), false);
    for (authority, want) in [
        ("EX.com", "exact"),
        ("ex.com:8080", "exact"),
        ("ex.com:80", "prefix"),
        ("x.ex.com", "suffix"),
        (".ex.com", "any"),
        ("x.a.ex.com", "longer"),
        ("a-b.ex.com", "longer"),
        ("ex.org", "prefix"),
        ("other", "any"),
        ("", "any"),
    ] {
        assert_eq!(
            &*t.virtual_host(authority.as_bytes()).unwrap().name,
            want,
            "{authority}"
        );
    }
    let t = table(hosts, true);
    assert_eq!(&*t.virtual_host(b"ex.com:80").unwrap().name, "exact");
    assert!(
        VirtualHostIndex::new(&[host("a", &["X"], vec![]), host("b", &["x"], vec![])]).is_err()
    );
    assert!(
        VirtualHostIndex::new(&[host("a", &["*"], vec![]), host("b", &["*"], vec![])]).is_err()
    );
}

#[test]
fn paths() {
    let mut nocase = matching(PathMatch::Prefix("/Case".into()));
    nocase.case_sensitive = false;
    let routes = [
        route("exact", matching(PathMatch::Exact("/exact".into()))),
        route("sep", matching(PathMatch::SeparatedPrefix("/sep".into()))),
        route(
            "regex",
            matching(PathMatch::Regex(Arc::new(Regex::new("/r/[0-9]+").unwrap()))),
        ),
        route("nocase", nocase),
        route("prefix", matching(PathMatch::Prefix("/p".into()))),
    ];
    for (path, want) in [
        ("/exact", "exact"),
        ("/exact?q=1", "exact"),
        ("/exact/", "none"),
        ("/sep", "sep"),
        ("/sep/x", "sep"),
        ("/sep?x", "sep"),
        ("/sepx", "none"),
        ("/r/12", "regex"),
        ("/r/12?a=b", "regex"),
        ("/r/12x", "none"),
        ("/cAse/x", "nocase"),
        ("/pq", "prefix"),
        ("/P", "none"),
    ] {
        assert_eq!(pick(&routes, path, &[]), want, "{path}");
    }
}

#[test]
fn conditions() {
    let mut header = matching(PathMatch::Prefix("/".into()));
    header.headers = Rare::from(vec![HeaderMatcher {
        name: "end-user".into(),
        rule: HeaderRule::String(StringMatcher::exact("jason")),
        invert: false,
        missing_as_empty: false,
    }]);
    let mut query = matching(PathMatch::Prefix("/".into()));
    query.query = Rare::from(vec![QueryMatcher {
        name: "v".into(),
        value: Some(StringMatcher::exact("2")),
        present: None,
    }]);
    let mut grpc = matching(PathMatch::Prefix("/".into()));
    grpc.grpc = true;
    let mut never = matching(PathMatch::Prefix("/".into()));
    never.fraction = Some(FractionalPercent {
        numerator: 50,
        denominator: 100,
    });
    let routes = [
        route("header", header),
        route("query", query),
        route("grpc", grpc),
        route("fraction", never),
        route("rest", matching(PathMatch::Prefix("/".into()))),
    ];
    assert_eq!(pick(&routes, "/", &[("end-user", "jason")]), "header");
    assert_eq!(pick(&routes, "/?v=2", &[]), "query");
    assert_eq!(
        pick(&routes, "/", &[("content-type", "application/grpc+proto")]),
        "grpc"
    );
    assert_eq!(
        pick(&routes, "/", &[("content-type", "application/grpc-web")]),
        "rest"
    );
    assert_eq!(pick(&routes, "/", &[]), "rest");
}

#[test]
fn index_agrees_with_a_walk() {
    // The same routes with and without index give the same answer for every path.
    let mut routes = Vec::new();
    for i in 0..40 {
        let path = match i % 5 {
            0 => PathMatch::Exact(format!("/a/{}", i / 2).into()),
            1 => PathMatch::Prefix(format!("/a/{}", i % 7).into()),
            2 => PathMatch::SeparatedPrefix(format!("/b/{}", i % 3).into()),
            3 => PathMatch::Regex(Arc::new(Regex::new(&format!("/[ab]/{i}.*")).unwrap())),
            _ => PathMatch::Prefix(if i == 39 {
                "/".into()
            } else {
                format!("/c{i}").into()
            }),
        };
        let mut m = matching(path);
        m.case_sensitive = i % 11 != 0;
        if i % 4 == 0 {
            m.query = Rare::from(vec![QueryMatcher {
                name: "q".into(),
                value: None,
                present: None,
            }]);
        }
        routes.push(route(&i.to_string(), m));
    }
    for seg in ["a", "b", "c", "A"] {
        for n in 0..45 {
            for tail in ["", "/x", "?q"] {
                let path = format!("/{seg}/{n}{tail}");
                let walk = routes
                    .chunks(WALK)
                    .map(|c| pick(c, &path, &[]))
                    .find(|r| r != "none");
                assert_eq!(
                    pick(&routes, &path, &[]),
                    walk.unwrap_or_else(|| "none".into()),
                    "{path}"
                );
            }
        }
    }
}

#[test]
fn only_a_connect_matcher_takes_connect() {
    let tunnel = route("tunnel", matching(PathMatch::Connect));
    let ordinary = || {
        let paths = [
            PathMatch::Prefix("/".into()),
            PathMatch::Prefix("".into()),
            PathMatch::Exact("".into()),
            PathMatch::SeparatedPrefix("".into()),
        ];
        let routes = paths
            .into_iter()
            .map(|path| route("ordinary", matching(path)));
        routes.collect::<Vec<_>>()
    };
    let mut many = ordinary();
    many.extend(ordinary());
    many.extend(ordinary());
    let headers: &[(&str, &str)] = &[];
    for (routes, want) in [
        (ordinary(), None),
        (many.clone(), None),
        ([many, vec![tunnel]].concat(), Some("tunnel")),
    ] {
        let request = Request {
            path: b"",
            authority: b"x:80",
            headers,
            connect: true,
            random: 0,
            client_certificate: (false, false),
            metadata: &|_| None,
        };
        let host = host("h", &["*"], routes);
        let chosen = host.select(&request, false).map(|r| r.name.to_string());
        assert_eq!(chosen.as_deref(), want);
    }
}
