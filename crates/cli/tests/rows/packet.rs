//! Rows about one packet's way: listeners, routes, clusters, endpoints, as the tools show them.

use serde_json::Value;

use crate::world::{Check, World};

/// The rows of this file.
pub const ROWS: &[Check] = &[
    ("d20_the_callers_path_names_lead_on", d20),
    ("d21_the_callees_path_ends_in_the_app_port", d21),
    ("e01_meshed_pods_talk_pod_ip_to_pod_ip", e01),
    ("e03_edsz_shows_the_endpoints", e03),
    ("e06_an_unmeshed_service_is_called_without_service_nat", e06),
    ("e07_an_unknown_host_meets_the_policy", e07),
    ("e08_the_http_listener_asks_for_its_route", e08),
    ("e09_a_virtual_host_has_its_domains", e09),
    ("e11_create_from_a_here_document", e11),
    ("e12_e13_a_subset_without_and_with_its_rule", e12),
    ("e14_the_subsets_endpoints_are_its_pods", e14),
];

#[track_caller]
fn json(world: &World, args: &[&str]) -> Value {
    let text = world.lateen(args).good();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn pod_ip(world: &World, selector: &str) -> String {
    let pod = world.pod(selector, "default");
    world
        .kubectl(&["get", "pod", &pod, "-o", "jsonpath={.status.podIP}"])
        .good()
}

/// The seed's own command line against the pilot's debug page.
fn edsz(world: &World, cluster: &str, lines: &str) -> String {
    let line = format!(
        "export PILOT_SVC_IP=$(kubectl -n istio-system get svc -l app=istio-pilot -o go-template='{{{{range .items}}}}{{{{.spec.clusterIP}}}}{{{{end}}}}') && curl -s http://$PILOT_SVC_IP:8080/debug/edsz|grep \"{cluster}\" {lines}"
    );
    world.shell(&line).good()
}

fn d20(world: &World) {
    let pod = format!("{}.default", world.pod("app=productpage", "default"));
    let listeners = json(
        world,
        &[
            "proxy-config",
            "listener",
            &pod,
            "--port",
            "9080",
            "-o",
            "json",
        ],
    );
    let text = listeners.to_string();
    assert!(text.contains("\"routeConfigName\":\"9080\""), "{text}");
    let routes = json(
        world,
        &[
            "proxy-config",
            "route",
            &pod,
            "--name",
            "9080",
            "-o",
            "json",
        ],
    );
    let host = "reviews.default.svc.cluster.local";
    let cluster = routes[0]["virtualHosts"]
        .as_array()
        .expect("virtual hosts")
        .iter()
        .find(|vhost| vhost["name"] == format!("{host}:9080"))
        .map(|vhost| vhost["routes"][0]["route"]["cluster"].clone())
        .expect("reviews");
    let clusters = json(
        world,
        &[
            "proxy-config",
            "cluster",
            &pod,
            "--fqdn",
            host,
            "-o",
            "json",
        ],
    );
    assert!(
        clusters
            .as_array()
            .expect("a list")
            .iter()
            .any(|c| c["name"] == cluster)
    );
    let name = cluster.as_str().expect("a name");
    let endpoints = world
        .lateen(&["proxy-config", "endpoint", &pod, "--cluster", name])
        .good();
    assert_eq!(endpoints.lines().count(), 4, "{endpoints}");
    assert!(endpoints.contains(&pod_ip(world, "app=reviews,version=v1")));
}

fn d21(world: &World) {
    let pod = format!("{}.default", world.pod("app=reviews,version=v1", "default"));
    let ip = pod_ip(world, "app=reviews,version=v1");
    let args = [
        "pc",
        "listener",
        &pod,
        "--port",
        "9080",
        "--address",
        &ip,
        "-o",
        "json",
    ];
    let text = json(world, &args).to_string();
    assert!(text.contains("inbound|9080||"), "{text}");
    let clusters = json(
        world,
        &[
            "pc",
            "cluster",
            &pod,
            "--direction",
            "inbound",
            "-o",
            "json",
        ],
    );
    let inbound = clusters
        .as_array()
        .expect("a list")
        .iter()
        .any(|c| c["name"] == "inbound|9080||");
    assert!(inbound, "{clusters}");
}

fn e01(world: &World) {
    world.insider();
    let id = format!("row-e01-{}", std::process::id());
    let header = format!("x-request-id: {id}");
    world
        .client_exec(
            "default",
            &["curl", "-s", "-H", &header, "http://details:9080/details/0"],
        )
        .good();
    let (details, client) = (pod_ip(world, "app=details"), pod_ip(world, "app=client"));
    let pod = world.pod("app=details", "default");
    let find = |pod: &str| {
        let log = world
            .kubectl(&["logs", pod, "-c", "istio-proxy", "--tail=100"])
            .out;
        log.lines()
            .find(|line| line.contains(&id))
            .map(str::to_owned)
    };
    world.settle("both logs", || {
        find(&pod).is_some() && find("client").is_some()
    });
    let (callee, caller) = (find(&pod).expect("a line"), find("client").expect("a line"));
    assert!(
        callee.contains(&format!("{details}:9080 {client}:")),
        "{callee}"
    );
    assert!(
        caller.contains(&format!("\"{details}:9080\" outbound|9080||details")),
        "{caller}"
    );
}

fn e03(world: &World) {
    let seen = edsz(
        world,
        "outbound|9080||productpage.default.svc.cluster.local",
        "-A 27 -B 1",
    );
    let pod = world.pod("app=productpage", "default");
    let ip = pod_ip(world, "app=productpage");
    for part in [
        "  \"clusterName\": \"outbound|9080||productpage.default.svc.cluster.local\"",
        "\"endpoints\"",
        "\"lbEndpoints\"",
        &format!("\"address\": \"{ip}\""),
        "\"portValue\": 9080",
        "\"filterMetadata\"",
        &format!("\"uid\": \"kubernetes://{pod}.default\""),
    ] {
        assert!(seen.contains(part), "{part} is not in:\n{seen}");
    }
}

fn e06(world: &World) {
    world.scratch("plain", false);
    world
        .kubectl(&[
            "apply",
            "-n",
            "plain",
            "-f",
            "samples/bookinfo/platform/kube/bookinfo.yaml",
            "-l",
            "app=details",
        ])
        .good();
    world
        .kubectl(&[
            "apply",
            "-n",
            "plain",
            "-f",
            "samples/bookinfo/platform/kube/bookinfo.yaml",
            "-l",
            "account=details",
        ])
        .good();
    world
        .kubectl(&[
            "rollout",
            "status",
            "-n",
            "plain",
            "deploy/details-v1",
            "--timeout=30s",
        ])
        .good();
    let ip = world
        .kubectl(&[
            "get",
            "svc",
            "details",
            "-n",
            "plain",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ])
        .good();
    world.insider();
    // The caller's own proxy log names the pod it picked: the service address was not the kernel's
    // to translate.
    let endpoint = world
        .kubectl(&[
            "get",
            "ep",
            "details",
            "-n",
            "plain",
            "-o",
            "jsonpath={.subsets[0].addresses[0].ip}",
        ])
        .good();
    let url = format!("http://{ip}:9080/details/0");
    world.settle("the unmeshed service", || {
        world
            .client_exec("default", &["curl", "-s", &url])
            .out
            .contains("William Shakespeare")
    });
    world.settle("the pod's own address in the log", || {
        let log = world
            .kubectl(&["logs", "client", "-c", "istio-proxy", "--tail=50"])
            .out;
        log.contains(&format!(
            "\"{endpoint}:9080\" outbound|9080||details.plain.svc.cluster.local"
        ))
    });
}

fn e07(world: &World) {
    let pod = world.pod("app=productpage", "default");
    let listeners = json(
        world,
        &["pc", "listeners", &pod, "--port", "15001", "-o", "json"],
    );
    assert_eq!(listeners[0]["name"], "virtualOutbound", "{listeners}");
    assert_eq!(listeners[0]["useOriginalDst"], true);
    let text = listeners.to_string();
    assert!(
        text.contains("PassthroughCluster") && text.contains("BlackHoleCluster"),
        "{text}"
    );
    // ALLOW_ANY lets an unknown host through; REGISTRY_ONLY does not.
    world.outsider();
    let ip = world
        .kubectl(&[
            "get",
            "pod",
            "client",
            "-n",
            "outside",
            "-o",
            "jsonpath={.status.podIP}",
        ])
        .good();
    let serve = "while true; do printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok' | nc -l -p 7171 -q 0 || exit 1; done";
    world
        .client_exec(
            "outside",
            &["sh", "-c", &format!("({serve}) >/dev/null 2>&1 &")],
        )
        .good();
    world.insider();
    let url = format!("http://{ip}:7171/");
    let ask = || {
        world
            .client_exec(
                "default",
                &[
                    "curl",
                    "-s",
                    "-m",
                    "5",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    &url,
                ],
            )
            .out
    };
    world.settle("an unknown host under ALLOW_ANY", || ask() == "200");
    let policy = |mode: &str| {
        let map = world
            .kubectl(&[
                "get",
                "cm",
                "istio",
                "-n",
                "istio-system",
                "-o",
                "jsonpath={.data.mesh}",
            ])
            .good();
        let mut lines: Vec<&str> = map.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.starts_with("outboundTrafficPolicy:"));
        if let Some(at) = at {
            let end = lines[at + 1..]
                .iter()
                .position(|l| !l.starts_with(' '))
                .map_or(lines.len(), |n| at + 1 + n);
            lines.drain(at..end);
        }
        let text = format!(
            "{}\noutboundTrafficPolicy:\n  mode: {mode}\n",
            lines.join("\n")
        );
        let patch = serde_json::json!({"data": {"mesh": text}}).to_string();
        world
            .kubectl(&[
                "patch",
                "cm",
                "istio",
                "-n",
                "istio-system",
                "--type=merge",
                "-p",
                &patch,
            ])
            .good();
    };
    policy("REGISTRY_ONLY");
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.settle("an unknown address to be refused", || ask() != "200");
        let unknown = || {
            let args = [
                "curl",
                "-s",
                "-m",
                "5",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                "Host: nobody.example.org",
                "http://details:9080/",
            ];
            world.client_exec("default", &args).out
        };
        world.settle(
            "an unknown host on a known port to be refused by the proxy",
            || unknown() == "502",
        );
    }));
    policy("ALLOW_ANY");
    if let Err(why) = refused {
        std::panic::resume_unwind(why);
    }
    world.settle("ALLOW_ANY again", || ask() == "200");
}

fn e08(world: &World) {
    let pod = world.pod("app=productpage", "default");
    let args = [
        "proxy-config",
        "listeners",
        &pod,
        "--address",
        "0.0.0.0",
        "--port",
        "9080",
        "-o",
        "json",
    ];
    let listeners = json(world, &args);
    let text = listeners.to_string();
    assert_eq!(listeners.as_array().map(Vec::len), Some(1), "{text}");
    assert!(
        text.contains("\"routeConfigName\":\"9080\"") && text.contains("\"ads\":{}"),
        "{text}"
    );
}

fn e09(world: &World) {
    let pod = world.pod("app=productpage", "default");
    let ip = world
        .kubectl(&["get", "svc", "reviews", "-o", "jsonpath={.spec.clusterIP}"])
        .good();
    let routes = json(
        world,
        &[
            "proxy-config",
            "routes",
            &pod,
            "--name",
            "9080",
            "-o",
            "json",
        ],
    );
    let hosts = routes[0]["virtualHosts"].as_array().expect("virtual hosts");
    let reviews = hosts
        .iter()
        .find(|v| v["name"] == "reviews.default.svc.cluster.local:9080");
    let reviews = reviews.expect("reviews");
    let domains: Vec<&str> = reviews["domains"]
        .as_array()
        .expect("domains")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for name in [
        "reviews.default.svc.cluster.local",
        "reviews",
        "reviews.default.svc",
        "reviews.default",
        &ip,
    ] {
        assert!(domains.contains(&name), "{name} is not in {domains:?}");
    }
    assert_eq!(reviews["routes"][0]["match"]["prefix"], "/");
    let cluster = "outbound|9080||reviews.default.svc.cluster.local";
    assert_eq!(reviews["routes"][0]["route"]["cluster"], cluster);
    assert_eq!(reviews["routes"][0]["route"]["timeout"], "0s");
    // From another namespace there is no bare name.
    let target = format!("{}.istio-system", world.ingress());
    let other = world
        .lateen(&["proxy-config", "routes", &target, "-o", "json"])
        .good();
    assert!(!other.contains("\"reviews\""), "{other}");
}

const PINNED: &str = "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts:\n    - reviews\n  http:\n  - route:\n    - destination:\n        host: reviews\n        subset: v1\n";

fn e11(world: &World) {
    let said = world.pipe("lateen", &["create", "-f", "-"], PINNED).good();
    let number = said.strip_prefix("Created config virtual-service/default/reviews at revision ");
    assert!(number.is_some_and(|n| n.parse::<u64>().is_ok()), "{said}");
    let again = world.pipe("lateen", &["create", "-f", "-"], PINNED).bad();
    assert!(again.contains("already exists"), "{again}");
}

fn e12(world: &World) {
    world.apply(PINNED);
    world.settle("the page to say that reviews cannot be had", || {
        let page = world.page().body;
        page.contains("Error fetching product reviews!")
            && page.contains("Sorry, product reviews are currently unavailable for this book.")
    });
    let pod = world.pod("app=productpage", "default");
    let routes = world
        .lateen(&["pc", "routes", &pod, "--name", "9080", "-o", "json"])
        .good();
    assert!(routes.contains("outbound|9080|v1|reviews.default.svc.cluster.local"));
    let host = "reviews.default.svc.cluster.local";
    let clusters = world.lateen(&[
        "pc",
        "clusters",
        &pod,
        "--fqdn",
        host,
        "--subset=v1",
        "-o",
        "json",
    ]);
    assert_eq!(clusters.good(), "[]");
    let said = world.lateen(&["analyze", "-n", "default"]);
    let text = format!("{}{}", said.out, said.err);
    assert!(
        text.contains("IST0101") && text.contains("\"reviews+v1\""),
        "{text}"
    );
    world.settle("503 in the caller's log", || {
        let log = world
            .kubectl(&["logs", &pod, "-c", "istio-proxy", "--tail=50"])
            .out;
        log.lines()
            .any(|l| l.contains("/reviews/0") && (l.contains(" 503 NC ") || l.contains(" 503 NR ")))
    });
    // The rule comes, the error goes, within 2 s and without a restart.
    world.apply_sample("networking/destination-rule-all.yaml");
    let begun = std::time::Instant::now();
    world.settle("version 1's page", || world.page().stars() == "none");
    assert!(
        begun.elapsed().as_secs_f32() < 2.0,
        "it took {:?}",
        begun.elapsed()
    );
    let table = world
        .lateen(&["pc", "clusters", &pod, "--fqdn", host, "--subset=v1"])
        .good();
    let row: Vec<&str> = table
        .lines()
        .nth(1)
        .expect("a row")
        .split_whitespace()
        .collect();
    assert_eq!(row[..4], [host, "9080", "v1", "outbound"]);
    assert!((0..10).all(|_| world.page().stars() == "none"));
}

fn e14(world: &World) {
    world.apply_sample("networking/destination-rule-all.yaml");
    let wide = world
        .kubectl(&[
            "get",
            "pod",
            "-l",
            "app=reviews,version=v1",
            "-o",
            "wide",
            "--no-headers",
        ])
        .good();
    let ip = wide
        .split_whitespace()
        .find(|word| word.split('.').count() == 4)
        .expect("an IP")
        .to_owned();
    assert!(wide.contains("lateen-"), "no node in {wide}");
    let cluster = "outbound|9080|v1|reviews.default.svc.cluster.local";
    world.settle("the subset on the debug page", || {
        let seen = edsz(
            world,
            "outbound|9080|v1|reviews.default",
            "-A 27 -B 2 || true",
        );
        seen.contains(&format!("\"address\": \"{ip}\""))
    });
    let seen = edsz(world, cluster, "-A 27 -B 2");
    let others = [
        pod_ip(world, "app=reviews,version=v2"),
        pod_ip(world, "app=reviews,version=v3"),
    ];
    // The lines of this one cluster end where the next begins.
    let own = seen.split("\"clusterName\"").nth(1).unwrap_or_default();
    assert!(
        own.contains(&ip) && others.iter().all(|other| !own.contains(other.as_str())),
        "{seen}"
    );
}
