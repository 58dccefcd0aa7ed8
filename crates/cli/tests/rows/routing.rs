//! Rows about routing inside the mesh: versions, weights, matches, subsets, unknown hosts.

use crate::http;
use crate::world::{Check, World};

/// The rows of this file.
pub const ROWS: &[Check] = &[
    ("b11_a_short_host_means_the_virtual_services_namespace", b11),
    ("b17_a_canary_gets_its_weight", b17),
    ("b19_jason_sees_v2_everyone_else_v3", b19),
    ("b20_match_on_port_header_and_uri", b20),
    ("b21_a_block_without_api_version_fails_with_it_routes", b21),
    ("b22_a_destination_must_be_in_the_registry", b22),
    ("b23_subsets_select_by_any_label", b23),
    ("d03_routing_ab_and_canary", d03),
    ("d14_an_unnamed_port_is_sniffed_and_http2_is_http", d14),
    ("d18_weights_seventy_thirty", d18),
];

const V: &str = "apiVersion: networking.istio.io/v1\n";

/// A VirtualService over a list of http rules.
fn service(name: &str, hosts: &str, rules: &str) -> String {
    format!(
        "{V}kind: VirtualService\nmetadata:\n  name: {name}\nspec:\n  hosts:\n  - {hosts}\n  http:\n{rules}"
    )
}

fn analysis(world: &World, namespace: &str) -> String {
    let said = world.lateen(&["analyze", "-n", namespace]);
    format!("{}{}", said.out, said.err)
}

/// The status that a meshed client in `namespace` gets for a URL.
fn code(world: &World, namespace: &str, headers: &[&str], url: &str) -> String {
    let mut args = vec![
        "curl",
        "-s",
        "-m",
        "10",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ];
    for header in headers {
        args.extend(["-H", header]);
    }
    args.push(url);
    world.client_exec(namespace, &args).out
}

fn b11(world: &World) {
    world.scratch("foo", true);
    let there = |name: &str| {
        format!(
            "{V}kind: VirtualService\nmetadata:\n  name: page\n  namespace: foo\nspec:\n  hosts:\n  - page.example.org\n  gateways:\n  - default/bookinfo-gateway\n  http:\n  - route:\n    - destination:\n        host: {name}\n        port:\n          number: 9080\n"
        )
    };
    world.apply(&there("productpage"));
    world.settle("IST0101 for foo's own productpage", || {
        analysis(world, "foo").contains("IST0101")
    });
    let file = "samples/bookinfo/platform/kube/bookinfo.yaml";
    world.kubectl(&["apply", "-n", "foo", "-f", file]).good();
    let headers = [("Host", "page.example.org")];
    world.settle("the page of foo", || {
        http::request(&world.gateway, "GET", "/productpage", &headers, "")
            .is_ok_and(|a| a.status == 200)
    });
    let routes = world.lateen(&[
        "pc",
        "routes",
        &format!("{}.istio-system", world.ingress()),
        "-o",
        "json",
    ]);
    assert!(
        routes
            .good()
            .contains("outbound|9080||productpage.foo.svc.cluster.local")
    );
}

/// Two details versions as a canary, by a small deployment whose answers tell them apart.
fn canary(world: &World) {
    let version = |version: &str, image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: canary-{version}\n  labels:\n    rows: scratch\nspec:\n  selector:\n    matchLabels:\n      app: canary\n      version: {version}\n  template:\n    metadata:\n      labels:\n        app: canary\n        version: {version}\n        rows: scratch\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: app\n        image: istio/examples-bookinfo-{image}:1\n---\n"
        )
    };
    world.apply(&[
        version("v1", "reviews-v1"),
        version("v2", "reviews-v1"),
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: canary\n  labels:\n    rows: scratch\nspec:\n  ports:\n  - port: 9080\n    name: http\n  selector:\n    app: canary\n---\n".to_owned(),
        format!("{V}kind: DestinationRule\nmetadata:\n  name: canary\nspec:\n  host: canary\n  subsets:\n  - name: v1\n    labels:\n      version: v1\n  - name: v2\n    labels:\n      version: v2\n---\n"),
        format!("{V}kind: Gateway\nmetadata:\n  name: canary-gateway\nspec:\n  selector:\n    istio: ingressgateway\n  servers:\n  - port:\n      number: 80\n      name: http\n      protocol: HTTP\n    hosts:\n    - canary.example.org\n"),
    ].concat());
    for version in ["v1", "v2"] {
        let name = format!("deploy/canary-{version}");
        world
            .kubectl(&["rollout", "status", &name, "--timeout=60s"])
            .good();
    }
}

fn weights(first: u32) -> String {
    format!(
        "{V}kind: VirtualService\nmetadata:\n  name: canary\nspec:\n  hosts:\n  - \"*\"\n  gateways:\n  - canary-gateway\n  http:\n  - route:\n    - destination:\n        host: canary.default.svc.cluster.local\n        subset: v1\n      weight: {first}\n    - destination:\n        host: canary.default.svc.cluster.local\n        subset: v2\n      weight: {}\n",
        100 - first
    )
}

/// How many of 1,000 requests the canary's second version served.
fn second_of_thousand(world: &World) -> usize {
    let headers = [("Host", "canary.example.org")];
    let ask = || http::request(&world.gateway, "GET", "/reviews/0", &headers, "");
    world.settle("the canary to answer", || {
        ask().is_ok_and(|answer| answer.status == 200)
    });
    let answers = (0..1000).map(|_| ask().expect("an answer"));
    answers
        .filter(|answer| answer.body.contains("canary-v2"))
        .count()
}

fn b17(world: &World) {
    canary(world);
    world.apply(&weights(90));
    let seen = second_of_thousand(world);
    assert!((70..=130).contains(&seen), "{seen} of 1000, not 100");
    let target = format!("{}.istio-system", world.ingress());
    let routes = world
        .lateen(&["pc", "routes", &target, "-o", "json"])
        .good();
    let routes: serde_json::Value = serde_json::from_str(&routes).expect("JSON");
    let text = routes.to_string();
    assert!(text.contains("\"weightedClusters\""), "{text}");
    for part in ["\"weight\":90", "\"weight\":10"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

fn d18(world: &World) {
    canary(world);
    world.apply(&weights(70));
    let seen = second_of_thousand(world);
    assert!((255..=345).contains(&seen), "{seen} of 1000, not 300");
}

fn b19(world: &World) {
    world.apply_sample("networking/destination-rule-all.yaml");
    world.apply_sample("networking/virtual-service-reviews-jason-v2-v3.yaml");
    world.settle("everyone on v3", || {
        (0..6).all(|_| world.page().stars() == "red")
    });
    for _ in 0..10 {
        assert_eq!(world.page_as("jason").stars(), "black");
        assert_eq!(world.page_as("ann").stars(), "red");
    }
}

fn d03(world: &World) {
    world.apply_sample("networking/destination-rule-all.yaml");
    world.apply_sample("networking/virtual-service-all-v1.yaml");
    world.settle("everyone on v1", || {
        (0..6).all(|_| world.page().stars() == "none")
    });
    world.apply_sample("networking/virtual-service-reviews-test-v2.yaml");
    world.settle("jason on v2", || world.page_as("jason").stars() == "black");
    assert_eq!(world.page().stars(), "none");
    world.apply_sample("networking/virtual-service-reviews-50-v3.yaml");
    world.settle("v3 to appear", || world.page().stars() == "red");
    let (none, _, red, _) = world.stars(100);
    assert!(
        none + red == 100 && (30..=70).contains(&red),
        "none {none}, red {red}"
    );
}

fn b20(world: &World) {
    world.insider();
    // What matches goes to details, the rest stays with ratings, which knows no /details.
    let rules = |matched: &str| {
        format!(
            "  - match:\n    - {matched}\n    route:\n    - destination:\n        host: details\n  - route:\n    - destination:\n        host: ratings\n"
        )
    };
    let ask = |headers: &[&str], path: &str| {
        code(
            world,
            "default",
            headers,
            &format!("http://ratings:9080{path}"),
        )
    };
    let settle = |what: &str, status: &str, headers: &[&str], path: &str| {
        world.settle(what, || ask(headers, path) == status);
    };
    world.apply(&service(
        "row",
        "ratings",
        &rules("uri:\n        prefix: /details"),
    ));
    settle("the path that matches", "200", &[], "/details/0");
    settle("the path that does not", "200", &[], "/ratings/0");
    let by_header = "headers:\n        end-user:\n          exact: jason";
    world.apply(&service("row", "ratings", &rules(by_header)));
    settle(
        "the header that matches",
        "200",
        &["end-user: jason"],
        "/details/0",
    );
    settle(
        "the header that does not",
        "404",
        &["end-user: ann"],
        "/details/0",
    );
    world.apply(&service("row", "ratings", &rules("port: 9080")));
    settle("the port that matches", "200", &[], "/details/0");
    world.apply(&service("row", "ratings", &rules("port: 9081")));
    settle("the port that does not", "404", &[], "/details/0");
}

fn b21(world: &World) {
    let block = "kind: VirtualService\nmetadata:\n  name: bookinfo-com\nspec:\n  hosts:\n  - bookinfo.com\n  http:\n  - match:\n    - uri:\n        prefix: /reviews\n    route:\n    - destination:\n        host: reviews\n  - match:\n    - uri:\n        prefix: /ratings\n    route:\n    - destination:\n        host: ratings\n";
    let said = world.pipe("kubectl", &["apply", "-f", "-"], block).bad();
    assert!(said.contains("apiVersion"), "{said}");
    world.apply(&format!("{V}{block}"));
    world.insider();
    let url = "http://reviews:9080/ratings/0";
    world.settle("bookinfo.com to reach ratings", || {
        let args = ["curl", "-s", "-H", "Host: bookinfo.com", url];
        world
            .client_exec("default", &args)
            .out
            .contains("\"ratings\"")
    });
}

fn b22(world: &World) {
    world.insider();
    world.apply(&service(
        "row",
        "ratings",
        "  - route:\n    - destination:\n        host: nowhere.example.org\n",
    ));
    world.settle("IST0101", || analysis(world, "default").contains("IST0101"));
    let url = "http://ratings:9080/ratings/0";
    world.settle("503", || code(world, "default", &[], url) == "503");
    let ip = world
        .kubectl(&[
            "get",
            "pod",
            &world.pod("app=ratings", "default"),
            "-o",
            "jsonpath={.status.podIP}",
        ])
        .good();
    world.apply(&format!("{V}kind: ServiceEntry\nmetadata:\n  name: nowhere\nspec:\n  hosts:\n  - nowhere.example.org\n  ports:\n  - number: 9080\n    name: http\n    protocol: HTTP\n  resolution: STATIC\n  endpoints:\n  - address: {ip}\n"));
    world.settle("200", || code(world, "default", &[], url) == "200");
}

fn b23(world: &World) {
    world.insider();
    canary(world);
    let rule = |label: &str| {
        format!(
            "{V}kind: DestinationRule\nmetadata:\n  name: canary\nspec:\n  host: canary\n  subsets:\n  - name: picked\n    labels:\n      {label}\n"
        )
    };
    world.apply(&rule("track: blue"));
    world.apply(&service(
        "canary",
        "canary",
        "  - route:\n    - destination:\n        host: canary\n        subset: picked\n",
    ));
    let url = "http://canary:9080/reviews/0";
    world.settle("IST0173 for the empty subset", || {
        analysis(world, "default").contains("IST0173")
    });
    world.settle("503 for the empty subset", || {
        code(world, "default", &[], url) == "503"
    });
    let log = || world.kubectl(&["logs", "client", "-c", "istio-proxy"]).out;
    world.settle("UH in the log", || {
        log()
            .lines()
            .any(|l| l.contains("/reviews/0") && l.contains(" 503 UH "))
    });
    let pod = world.pod("app=canary,version=v2", "default");
    world.kubectl(&["label", "pod", &pod, "track=blue"]).good();
    world.settle("the labelled pod to be picked", || {
        world
            .client_exec("default", &["curl", "-s", url])
            .out
            .contains("canary-v2")
    });
    for _ in 0..10 {
        assert!(
            world
                .client_exec("default", &["curl", "-s", url])
                .out
                .contains("canary-v2")
        );
    }
}

fn d14(world: &World) {
    world.insider();
    let ports = |name: &str| {
        let patch = format!(
            "[{{\"op\":\"replace\",\"path\":\"/spec/ports/0/name\",\"value\":\"{name}\"}}]"
        );
        world
            .kubectl(&["patch", "svc", "ratings", "--type=json", "-p", &patch])
            .good();
    };
    world.apply(&service("row", "ratings", "  - fault:\n      abort:\n        httpStatus: 418\n        percentage:\n          value: 100\n    route:\n    - destination:\n        host: ratings\n"));
    let url = "http://ratings:9080/ratings/0";
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.settle("the rule on a named port", || {
            code(world, "default", &[], url) == "418"
        });
        // Sniffed: it is HTTP, so the rule applies; analyze says the port has no name.
        ports("");
        world.settle("IST0118", || analysis(world, "default").contains("IST0118"));
        world.settle("the rule on a sniffed port", || {
            code(world, "default", &[], url) == "418"
        });
        ports("tcp-plain");
        world.settle("a TCP port to pass the rule by", || {
            code(world, "default", &[], url) == "200"
        });
        ports("http2-foo");
        world.settle("http2 to be HTTP", || {
            code(world, "default", &[], url) == "418"
        });
    }));
    ports("http");
    if let Err(why) = outcome {
        std::panic::resume_unwind(why);
    }
}
