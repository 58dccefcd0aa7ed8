//! Rows about the edge: Gateway objects, hosts, the ingress and what it knows.

use crate::http;
use crate::world::{Check, World};

/// The rows of this file.
pub const ROWS: &[Check] = &[
    ("a02_any_host_enters_by_bare_ip", a02),
    ("a03_only_the_named_host_enters", a03),
    ("a04_the_first_matching_rule_wins", a04),
    ("a05_hosts_of_four_kinds", a05),
    ("a06_a_virtual_service_must_name_the_gateway", a06),
    ("a07_the_ingress_gateway_runs_after_install", a07),
    ("a09_no_routes_until_the_control_plane_sends_them", a09),
    ("b10_the_bookinfo_gateway_serves_its_paths", b10),
    ("b13_gateway_config_reaches_only_the_edge", b13),
    ("b18_hosts_that_do_not_meet_are_reported", b18),
];

fn gateway(hosts: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: Gateway\nmetadata:\n  name: bookinfo-gateway\nspec:\n  selector:\n    istio: ingressgateway\n  servers:\n  - port:\n      number: 80\n      name: http\n      protocol: HTTP\n    hosts:\n    - \"{hosts}\"\n"
    )
}

fn status(world: &World, path: &str, headers: &[(&str, &str)]) -> u16 {
    http::request(&world.gateway, "GET", path, headers, "").map_or(0, |answer| answer.status)
}

fn a02(world: &World) {
    let line = "curl -s -o /dev/null -w '%{http_code}' http://$GATEWAY_URL/productpage";
    assert_eq!(world.shell(line).good(), "200");
}

fn a03(world: &World) {
    world.apply(&gateway("bookinfo.com"));
    world.settle("404 for another host", || {
        status(world, "/productpage", &[]) == 404
    });
    assert_eq!(
        status(world, "/productpage", &[("Host", "bookinfo.com")]),
        200
    );
    world.apply(&gateway("*"));
    world.settle("200 for any host", || {
        status(world, "/productpage", &[]) == 200
    });
}

/// Two rules for the page, in the given order: a catch-all to nowhere and the real one.
fn ordered(catch_all_first: bool) -> String {
    let catch = "  - route:\n    - destination:\n        host: details\n        port:\n          number: 9080\n";
    let exact = "  - match:\n    - uri:\n        exact: /productpage\n    route:\n    - destination:\n        host: productpage\n        port:\n          number: 9080\n";
    let rules = if catch_all_first {
        [catch, exact]
    } else {
        [exact, catch]
    }
    .concat();
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: bookinfo\nspec:\n  hosts:\n  - \"*\"\n  gateways:\n  - bookinfo-gateway\n  http:\n{rules}"
    )
}

fn a04(world: &World) {
    world.apply(&ordered(true));
    // details knows no /productpage: the later rule never gets the request.
    world.settle("the catch-all to win", || {
        status(world, "/productpage", &[]) == 404
    });
    let said = world.lateen(&["analyze", "-n", "default"]);
    let text = format!("{}{}", said.out, said.err);
    assert!(text.contains("IST0130"), "{text}");
    world.apply(&ordered(false));
    world.settle("the exact rule to win", || {
        status(world, "/productpage", &[]) == 200
    });
    let said = world.lateen(&["analyze", "-n", "default"]);
    assert!(!format!("{}{}", said.out, said.err).contains("IST0130"));
}

fn a05(world: &World) {
    world.insider();
    let cases = [
        ("10.20.30.40", "10.20.30.40"),
        ("shop.example.org", "shop.example.org"),
        ("\"*.example.com\"", "a.example.com"),
        ("details", "details"),
    ];
    for (host, asked) in cases {
        world.apply(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: hosts\nspec:\n  hosts:\n  - {host}\n  http:\n  - match:\n    - uri:\n        exact: /row\n    rewrite:\n      uri: /ratings/5\n    route:\n    - destination:\n        host: ratings\n"
        ));
        let header = format!("Host: {asked}");
        let url = "http://details:9080/row";
        world.settle(&format!("host {host} to route"), || {
            let said = world.client_exec("default", &["curl", "-s", "-H", &header, url]);
            said.out.contains("\"id\":5")
        });
    }
}

fn a06(world: &World) {
    let route = |gateways: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: bookinfo\nspec:\n  hosts:\n  - productpage\n  - shop.example.org\n{gateways}  http:\n  - match:\n    - uri:\n        exact: /row\n    rewrite:\n      uri: /health\n    route:\n    - destination:\n        host: productpage\n        port:\n          number: 9080\n"
        )
    };
    world.insider();
    let asked = [("Host", "shop.example.org")];
    world.apply(&route(""));
    world.settle("the unbound route to leave the edge", || {
        status(world, "/row", &asked) == 404
    });
    world.settle("the unbound route to serve the mesh", || {
        let url = "http://productpage:9080/row";
        world
            .client_exec("default", &["curl", "-s", url])
            .out
            .contains("healthy")
    });
    world.apply(&route("  gateways:\n  - bookinfo-gateway\n"));
    world.settle("the bound route to serve the edge", || {
        status(world, "/row", &asked) == 200
    });
}

fn a07(world: &World) {
    let said = world
        .kubectl(&["get", "po,svc", "-n", "istio-system"])
        .good();
    let pod = said
        .lines()
        .find(|line| line.starts_with("pod/istio-ingressgateway"));
    assert!(pod.is_some_and(|line| line.contains("Running")), "{said}");
    let service = said
        .lines()
        .find(|line| line.starts_with("service/istio-ingressgateway"));
    let service = service.unwrap_or_else(|| panic!("{said}"));
    for port in ["15021:", "80:", "443:"] {
        assert!(service.contains(port), "{service}");
    }
}

fn a09(world: &World) {
    world
        .kubectl(&["delete", "virtualservice", "bookinfo"])
        .good();
    world.settle("the route to go", || {
        status(world, "/productpage", &[]) == 404
    });
    let target = format!("{}.istio-system", world.ingress());
    let routes = world.lateen(&["proxy-config", "routes", &target]).good();
    assert!(!routes.contains("productpage"), "{routes}");
    world.apply_sample("networking/bookinfo-gateway.yaml");
    world.settle("the route to come", || {
        status(world, "/productpage", &[]) == 200
    });
    let routes = world.lateen(&["proxy-config", "routes", &target]).good();
    let matches: Vec<&str> = routes
        .lines()
        .filter(|line| line.contains("*:80"))
        .collect();
    assert_eq!(matches.len(), 5, "{routes}");
}

fn b10(world: &World) {
    for (path, expected) in [
        ("/productpage", 200),
        ("/static/bookinfo.css", 200),
        ("/logout", 302),
        ("/api/v1/products", 200),
        ("/productionpage", 404),
        ("/other", 404),
    ] {
        assert_eq!(status(world, path, &[]), expected, "{path}");
    }
    assert!(world.page_as("jason").body.contains("jason"));
}

fn b13(world: &World) {
    let listeners = || {
        world
            .lateen(&["pc", "listeners", "deploy/productpage-v1"])
            .good()
    };
    let before = listeners();
    world.apply(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata:\n  name: more\nspec:\n  selector:\n    istio: ingressgateway\n  servers:\n  - port:\n      number: 31400\n      name: http-more\n      protocol: HTTP\n    hosts:\n    - \"*\"\n",
    );
    let target = format!("{}.istio-system", world.ingress());
    world.settle("the edge to listen on 31400", || {
        world
            .lateen(&["pc", "listeners", &target])
            .out
            .contains("31400")
    });
    assert_eq!(listeners(), before);
}

fn b18(world: &World) {
    world.apply(&gateway("bookinfo.com"));
    world.apply(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: astray\nspec:\n  hosts:\n  - other.org\n  gateways:\n  - bookinfo-gateway\n  http:\n  - route:\n    - destination:\n        host: productpage\n",
    );
    world.settle("IST0132", || {
        let said = world.lateen(&["analyze", "-n", "default"]);
        format!("{}{}", said.out, said.err).contains("IST0132")
    });
    assert_eq!(status(world, "/", &[("Host", "other.org")]), 404);
}
