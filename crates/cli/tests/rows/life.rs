//! Rows about the cluster itself: nodes, services, DNS, images, and the Bookinfo that lives there.

use crate::http;
use crate::world::{Check, World};

/// The rows of this file.
pub const ROWS: &[Check] = &[
    ("a10_nodes_pods_and_one_service_over_three_pods", a10),
    ("a11_without_rules_traffic_spreads_evenly", a11),
    ("a13_a_cluster_ip_is_on_no_interface", a13),
    ("a14_service_names_resolve_to_the_cluster_ip", a14),
    ("a15_ratings_is_called_over_http_from_an_alpine_pod", a15),
    ("b06_all_manifest_fields_are_honoured", b06),
    (
        "b08_any_tag_of_an_image_runs_and_an_unknown_one_says_so",
        b08,
    ),
    ("c01_versions_differ_in_stars_and_calls", c01),
    ("c04_four_services_six_pods", c04),
];

fn a10(world: &World) {
    let nodes = world.kubectl(&["get", "nodes", "--no-headers"]).good();
    assert!(
        nodes.lines().count() >= 2 && nodes.lines().all(|l| l.contains("Ready")),
        "{nodes}"
    );
    world.kubectl(&["get", "nodes,deploy,svc,pod"]).good();
    let service = world
        .kubectl(&["get", "svc", "reviews", "--no-headers"])
        .good();
    assert_eq!(service.lines().count(), 1);
    let path = "jsonpath={.subsets[*].addresses[*].ip}";
    let ips = world.kubectl(&["get", "ep", "reviews", "-o", path]).good();
    assert_eq!(ips.split_whitespace().count(), 3, "{ips}");
}

fn a11(world: &World) {
    let (none, black, red, error) = world.stars(300);
    assert_eq!(error, 0);
    for seen in [none, black, red] {
        assert!(
            (75..=125).contains(&seen),
            "none {none}, black {black}, red {red}"
        );
    }
}

fn a13(world: &World) {
    let path = "jsonpath={.spec.clusterIP}";
    let ip = world
        .kubectl(&["get", "svc", "productpage", "-o", path])
        .good();
    world.outsider();
    let own = world
        .client_exec("outside", &["cat", "/proc/net/fib_trie"])
        .good();
    assert!(!own.contains(&ip));
    let host = std::fs::read_to_string("/proc/net/fib_trie").expect("the host's routes");
    assert!(
        !host
            .lines()
            .any(|line| line.trim().trim_start_matches("|-- ") == ip)
    );
    let url = format!("http://{ip}:9080/health");
    let said = world.client_exec("outside", &["curl", "-s", &url]).good();
    assert!(said.contains("healthy"), "{said}");
}

fn a14(world: &World) {
    let path = "jsonpath={.spec.clusterIP}";
    let ip = world.kubectl(&["get", "svc", "reviews", "-o", path]).good();
    world.insider();
    for name in ["reviews.default.svc.cluster.local", "reviews"] {
        let said = world
            .client_exec("default", &["getent", "hosts", name])
            .good();
        assert!(said.starts_with(&ip), "{name}: {said}, not {ip}");
    }
}

fn a15(world: &World) {
    // As the document types it, on a terminal of its own.
    // A pod of an earlier try may still be on its way out.
    world.shell("kubectl delete pod t --ignore-not-found --timeout=60s");
    let run = "kubectl run t --image=alpine -it --rm -- wget -qO- ratings:9080/ratings/0";
    let said = world.shell(&format!("script -qec '{run}' /dev/null </dev/null"));
    assert!(said.out.contains("{\"id\":0,"), "{said:?}");
    let reviews = world.pod("app=reviews,version=v1", "default");
    let said = world
        .exec(&reviews, "reviews", &["curl", "--version"])
        .bad();
    assert!(
        said.contains("curl") && said.contains("not found"),
        "{said}"
    );
}

fn b06(world: &World) {
    let uid = world
        .kubectl(&["exec", "deploy/reviews-v1", "--", "id", "-u"])
        .good();
    assert_eq!(uid, "1000");
    let pod = world.pod("app=reviews,version=v1", "default");
    let env = world.exec(&pod, "reviews", &["env"]).good();
    assert!(env.lines().any(|line| line == "LOG_DIR=/tmp/logs"), "{env}");
    for folder in ["/tmp", "/opt/ibm/wlp/output"] {
        let line = format!("echo x > {folder}/row && cat {folder}/row && rm {folder}/row");
        assert_eq!(
            world.exec(&pod, "reviews", &["sh", "-c", &line]).good(),
            "x"
        );
    }
    let port = "jsonpath={.spec.ports[0].name}";
    assert_eq!(
        world.kubectl(&["get", "svc", "reviews", "-o", port]).good(),
        "http"
    );
}

fn b08(world: &World) {
    world.scratch("images", false);
    let pod = |name: &str, image: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: images\nspec:\n  containers:\n  - name: app\n    image: {image}\n---\n"
        )
    };
    let old = "istio/examples-bookinfo-details-v1:0.2.3";
    let texts = [
        pod("old", old),
        pod("new", "docker.io/istio/examples-bookinfo-ratings-v1:1.17.0"),
        pod(
            "odd",
            "registry.istio.io/release/examples-bookinfo-reviews-v3:9.9.9",
        ),
        pod("unknown", "example.org/nobody/knows:1"),
    ];
    world.apply(&texts.concat());
    for name in ["old", "new", "odd"] {
        let condition = "--for=condition=Ready";
        world
            .kubectl(&[
                "wait",
                "-n",
                "images",
                condition,
                &format!("pod/{name}"),
                "--timeout=20s",
            ])
            .good();
    }
    let said = world
        .kubectl(&["describe", "pod", "old", "-n", "images"])
        .good();
    assert!(said.contains(old), "{said}");
    world.settle("ErrImagePull", || {
        let row = world
            .kubectl(&["get", "pod", "unknown", "-n", "images", "--no-headers"])
            .out;
        row.contains("ErrImagePull") || row.contains("ImagePullBackOff")
    });
    let said = world
        .kubectl(&["describe", "pod", "unknown", "-n", "images"])
        .good();
    assert!(
        said.contains("example.org/nobody/knows:1") && said.contains("examples-bookinfo"),
        "{said}"
    );
}

/// Lines of the ratings sidecar's inbound log.
fn ratings_calls(world: &World) -> usize {
    let pod = world.pod("app=ratings", "default");
    let log = world.kubectl(&["logs", &pod, "-c", "istio-proxy"]).good();
    log.lines()
        .filter(|line| line.contains("\"GET /ratings/0 "))
        .count()
}

fn c01(world: &World) {
    world.apply_sample("networking/destination-rule-all.yaml");
    for (version, stars, calls) in [("v1", "none", 0), ("v2", "black", 10), ("v3", "red", 10)] {
        world.apply(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts:\n  - reviews\n  http:\n  - route:\n    - destination:\n        host: reviews\n        subset: {version}\n"
        ));
        world.settle(&format!("reviews {version}"), || {
            (0..6).all(|_| world.page().stars() == stars)
        });
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let before = ratings_calls(world);
        for _ in 0..10 {
            assert_eq!(world.page().stars(), stars);
        }
        // One call a page for v2 and v3: v2's and v3's reviews ask ratings once for both reviewers.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        assert_eq!(ratings_calls(world) - before, calls, "{version}");
    }
    let page = http::get(&world.gateway, "/productpage", &[]);
    assert_eq!(
        page.body
            .matches("class=\"glyphicon glyphicon-star\"")
            .count(),
        9
    );
}

fn c04(world: &World) {
    let services = world.kubectl(&["get", "svc", "--no-headers"]).good();
    let rows: Vec<Vec<&str>> = services
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    for name in ["details", "productpage", "ratings", "reviews"] {
        let row = rows
            .iter()
            .find(|row| row[0] == name)
            .unwrap_or_else(|| panic!("{services}"));
        assert_eq!(
            (row[1], row[3], row[4]),
            ("ClusterIP", "<none>", "9080/TCP"),
            "{row:?}"
        );
    }
    let pods = world.kubectl(&["get", "pod", "--no-headers"]).good();
    assert_eq!(pods.lines().count(), 6, "{pods}");
    for line in pods.lines() {
        let row: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((row[1], row[2], row[3]), ("2/2", "Running", "0"), "{line}");
    }
}
