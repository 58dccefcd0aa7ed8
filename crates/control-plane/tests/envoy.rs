//! The real Envoy, unmodified and with a plain bootstrap, takes what this control plane
//! sends, refuses nothing, and serves Bookinfo's traffic with it: as a sidecar behind
//! redirection rules and as an ingress gateway, over both dialects of ADS.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lateen_model::MeshConfig;
use support::{Namespace, Plane, Process, Proxy, backend, greeter, wait_live};

const BOOKINFO: &str = include_str!("scenarios/bookinfo/input.yaml");
const FEATURES: &str = include_str!("scenarios/features/input.yaml");
const SIDECAR: &str = "sidecar~192.168.249.2~productpage-v1-1.default~default.svc.cluster.local";
const GATEWAY: &str =
    "router~192.168.249.3~istio-ingressgateway-1.istio-system~istio-system.svc.cluster.local";
const CONTROL_PLANE: &str = "192.168.249.1:15010";

/// Not a test: the application inside the namespace, run by this very program.
#[tokio::test]
#[ignore = "the application of another test"]
async fn application() {
    let Ok(address) = std::env::var("LATEEN_TEST_APPLICATION") else {
        return;
    };
    backend(&address, "productpage").await;
    tokio::time::sleep(Duration::from_secs(300)).await;
}

fn application_in(ns: &Namespace, address: &str) -> Process {
    let own = std::env::current_exe().expect("this program");
    let own = own.to_str().expect("text").to_owned();
    let mut c = ns.command(
        &own,
        &["application", "--exact", "--ignored", "--nocapture"],
    );
    c.env("LATEEN_TEST_APPLICATION", address)
        .stdout(std::process::Stdio::null());
    Process::spawn(c)
}

fn route(to: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: reviews, namespace: default}}\nspec:\n  hosts: [reviews]\n  http:\n{to}"
    )
}

async fn tally(ns: &Namespace, n: usize, arguments: &[&str]) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for _ in 0..n {
        let (status, body) = ns.get(arguments).await;
        *out.entry(format!("{status} {}", body.split(' ').next().unwrap_or("")))
            .or_default() += 1;
    }
    out
}

/// Both tests use the same addresses.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_envoy_serves_bookinfo() {
    if let Some(envoy) = support::envoy() {
        serves_bookinfo(&[envoy], true).await;
    }
}

/// The mesh's own proxy gives the same answers to the same configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_serves_bookinfo() {
    if let Some(lateen) = support::lateen() {
        serves_bookinfo(&[lateen, "proxy".to_owned()], false).await;
    }
}

/// `ends_tls` says whether this proxy can end TLS already.
async fn serves_bookinfo(program: &[String], ends_tls: bool) {
    if !support::may_make_namespaces() {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    let host = [
        "192.168.249.1",
        "192.168.249.11",
        "192.168.249.12",
        "192.168.249.21",
        "192.168.249.22",
        "192.168.249.23",
    ];
    let ns = Namespace::new("xds", &host, &["192.168.249.2", "192.168.249.3"]);
    ns.redirect("192.168.249.2");
    for (address, name) in [
        ("192.168.249.11:9080", "details"),
        ("192.168.249.12:9080", "ratings"),
        ("192.168.249.21:9080", "reviews-v1"),
        ("192.168.249.22:9080", "reviews-v2"),
        ("192.168.249.23:9080", "reviews-v3"),
        ("192.168.249.11:9999", "unknown"),
        ("192.168.249.12:7001", "undeclared"),
    ] {
        backend(address, name).await;
    }
    greeter("192.168.249.12:7000").await;
    let _app = application_in(&ns, "192.168.249.2:9080");

    let logs = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(logs.path(), shared()).expect("our folder");
    let path = logs
        .path()
        .join("access.log")
        .to_str()
        .expect("text")
        .to_owned();
    let mesh = MeshConfig {
        access_log_file: path.as_str().into(),
        ..MeshConfig::default()
    };
    let address = CONTROL_PLANE.parse().expect("an address");
    let plane = Plane::start(address, BOOKINFO, mesh).await;
    let sidecar = Proxy {
        node: SIDECAR,
        control_plane: address,
        admin_port: 15000,
        delta: false,
    };
    let gateway = Proxy {
        node: GATEWAY,
        control_plane: address,
        admin_port: 15100,
        delta: true,
    };
    let proxies = (sidecar.start(program, &ns), gateway.start(program, &ns));
    wait_live(&ns, 15000).await;
    wait_live(&ns, 15100).await;
    plane.wait_synced("productpage-v1-1.default", 4).await;
    plane
        .wait_synced("istio-ingressgateway-1.istio-system", 4)
        .await;

    outbound(&ns, &plane).await;
    inbound_and_gateway(&ns).await;
    tcp(&ns).await;
    push_speed(&ns, &plane).await;
    features(&ns, &plane, ends_tls).await;
    proxies.0.stop();
    proxies.1.stop();
    let lines = std::fs::read_to_string(&path).expect("readable");
    let named = lines
        .lines()
        .any(|l| l.contains("outbound|9080|v1|reviews.default.svc.cluster.local"));
    assert!(named, "the access log names the cluster:\n{lines}");
    assert!(
        !plane.metrics.page().contains("pilot_total_xds_rejects"),
        "{}",
        plane.metrics.page()
    );
}

/// The proxy runs as another user than the test.
fn shared() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::Permissions::from_mode(0o777)
}

/// HTTP from the application: spread, pinned, by header, weighted, faulted, unknown.
async fn outbound(ns: &Namespace, plane: &Plane) {
    let reviews = "http://10.96.0.13:9080/reviews/0";
    let (status, body) = ns.get(&["http://10.96.0.11:9080/details/0"]).await;
    assert_eq!((status, body.as_str()), (200, "details /details/0"));
    // By name, in every form that DNS search would complete.
    for host in [
        "ratings",
        "ratings.default",
        "ratings.default.svc",
        "ratings.default.svc.cluster.local:9080",
    ] {
        let header = format!("Host: {host}");
        let (status, body) = ns.get(&["-H", &header, "http://10.96.0.13:9080/r"]).await;
        assert_eq!((status, body.as_str()), (200, "ratings /r"), "{host}");
    }
    let spread = tally(ns, 30, &[reviews]).await;
    assert_eq!(spread.len(), 3, "all versions answer: {spread:?}");

    change(
        ns,
        plane,
        &route("  - route: [{destination: {host: reviews, subset: v1}}]\n"),
        "v1",
    )
    .await;
    let pinned = tally(ns, 10, &[reviews]).await;
    assert_eq!(pinned, BTreeMap::from([("200 reviews-v1".to_owned(), 10)]));

    change(
        ns,
        plane,
        &route(concat!(
            "  - match: [{headers: {end-user: {exact: jason}}}]\n",
            "    route: [{destination: {host: reviews, subset: v2}}]\n",
            "  - route: [{destination: {host: reviews, subset: v3}}]\n",
        )),
        "v3",
    )
    .await;
    let jason = tally(ns, 5, &["-H", "end-user: jason", reviews]).await;
    assert_eq!(jason, BTreeMap::from([("200 reviews-v2".to_owned(), 5)]));

    // A subset that no rule declares: the route names a cluster that does not exist.
    plane
        .apply(&route(
            "  - route: [{destination: {host: reviews, subset: v9}}]\n",
        ))
        .await;
    wait_for(ns, reviews, |status, _| status == 503).await;

    // Everything a rule can say, taken without complaint.
    plane.apply(&route(concat!(
        "  - name: all\n",
        "    match:\n",
        "    - {name: m, uri: {prefix: /old}, method: {exact: GET}, queryParams: {q: {regex: '[a-z]+'}}, withoutHeaders: {x-no: {exact: a}}, headers: {x-yes: {}}}\n",
        "    rewrite: {uri: /new, authority: other.example}\n",
        "    timeout: 3s\n",
        "    retries: {attempts: 3, perTryTimeout: 1s, retryOn: 'gateway-error,503', retryRemoteLocalities: true}\n",
        "    mirror: {host: ratings}\n",
        "    mirrorPercentage: {value: 10}\n",
        "    corsPolicy: {allowOrigins: [{exact: 'http://a.example'}], allowMethods: [GET], maxAge: 24h}\n",
        "    headers: {request: {set: {x-set: a}, add: {x-add: b}, remove: [x-gone]}, response: {add: {x-from: c}}}\n",
        "    route:\n",
        "    - {destination: {host: reviews, subset: v1}, weight: 90, headers: {response: {set: {x-w: d}}}}\n",
        "    - {destination: {host: reviews, subset: v2}, weight: 10}\n",
        "  - match: [{uri: {exact: /moved}}]\n",
        "    redirect: {uri: /there, authority: new.example, redirectCode: 302}\n",
        "  - match: [{uri: {exact: /teapot}}]\n",
        "    directResponse: {status: 418, body: {string: short}}\n",
        "  - match: [{uri: {regex: '/broken.*'}}]\n",
        "    fault: {abort: {percentage: {value: 100}, httpStatus: 555}}\n",
        "    route: [{destination: {host: reviews, subset: v1}}]\n",
        "  - route: [{destination: {host: reviews, subset: v3}}]\n",
    ))).await;
    wait_for(ns, "http://10.96.0.13:9080/teapot", |status, body| {
        status == 418 && body == "short"
    })
    .await;
    let (status, body) = ns
        .get(&["-H", "x-yes: 1", "http://10.96.0.13:9080/old/x?q=abc"])
        .await;
    assert_eq!(status, 200);
    assert!(body.ends_with(" /new/x?q=abc"), "{body}");
    assert_eq!(ns.get(&["http://10.96.0.13:9080/moved"]).await.0, 302);
    assert_eq!(ns.get(&["http://10.96.0.13:9080/broken/1"]).await.0, 555);
    // A destination nobody declared passes through.
    let (status, body) = ns.get(&["http://192.168.249.11:9999/x"]).await;
    assert_eq!((status, body.as_str()), (200, "unknown /x"));
}

async fn change(ns: &Namespace, plane: &Plane, yaml: &str, version: &str) {
    plane.apply(yaml).await;
    let want = format!("reviews-{version} ");
    wait_for(ns, "http://10.96.0.13:9080/", |_, body| {
        body.starts_with(&want)
    })
    .await;
}

async fn wait_for(ns: &Namespace, url: &str, done: impl Fn(u16, &str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (status, body) = ns.get(&[url]).await;
        if done(status, &body) {
            return;
        }
        assert!(Instant::now() < deadline, "{url}: still {status} {body}");
    }
}

/// To the application through its own sidecar, and from outside through the gateway.
async fn inbound_and_gateway(ns: &Namespace) {
    let (status, body) = support::get(&["http://192.168.249.2:9080/productpage"]).await;
    assert_eq!((status, body.as_str()), (200, "productpage /productpage"));
    for (path, want) in [
        ("/productpage", 200),
        ("/static/x.css", 200),
        ("/login", 200),
        ("/other", 404),
    ] {
        let url = format!("http://192.168.249.3:8080{path}");
        let (status, body) = support::get(&[&url]).await;
        assert_eq!(status, want, "{path}: {body}");
    }
    let routes = ns
        .get(&["http://127.0.0.1:15100/config_dump?resource=dynamic_route_configs"])
        .await
        .1;
    assert!(
        routes.contains("\"http.8080\"") && routes.contains("\"*:80\""),
        "{routes}"
    );
}

/// TCP by service address: declared, with the server speaking first, and undeclared.
async fn tcp(ns: &Namespace) {
    let talk = "exec 3<>/dev/tcp/10.96.0.15/7000; read -r -t 5 a <&3; echo ping >&3; read -r -t 5 b <&3; echo $a $b";
    assert_eq!(ns.must("bash", &["-c", talk]).trim(), "hello ping");
    let (status, body) = ns.get(&["http://10.96.0.15:7001/u"]).await;
    assert_eq!((status, body.as_str()), (200, "undeclared /u"));
}

/// A changed rule reaches the proxy within a blink: reported, and bounded loosely.
async fn push_speed(ns: &Namespace, plane: &Plane) {
    let mut worst = Duration::ZERO;
    for i in 0..10 {
        let version = if i % 2 == 0 { "v1" } else { "v2" };
        let rule = route(&format!(
            "  - route: [{{destination: {{host: reviews, subset: {version}}}}}]\n"
        ));
        let began = Instant::now();
        change(ns, plane, &rule, version).await;
        worst = worst.max(began.elapsed());
    }
    eprintln!("apply to first request, worst of 10: {worst:?}");
    assert!(worst < Duration::from_secs(2), "{worst:?}");
}

/// Every field there is, taken; then HTTPS, redirect and TCP through the gateway.
async fn features(ns: &Namespace, plane: &Plane, ends_tls: bool) {
    plane.apply(FEATURES).await;
    plane.apply(&credential()).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (status, _) = support::get(&["http://192.168.249.3:31400/"]).await;
        // The TCP echo greets with what is no HTTP answer: the port is open.
        if status == 0 && support::tcp_line("192.168.249.3:31400").await == Some("hello".to_owned())
        {
            break;
        }
        assert!(Instant::now() < deadline, "TCP through the gateway");
    }
    plane.wait_synced("productpage-v1-1.default", 4).await;
    plane
        .wait_synced("istio-ingressgateway-1.istio-system", 5)
        .await;
    if ends_tls {
        let to = "secure.example:8443:192.168.249.3";
        let (status, body) = support::get(&[
            "-k",
            "--resolve",
            to,
            "https://secure.example:8443/productpage",
        ])
        .await;
        assert_eq!((status, body.as_str()), (200, "productpage /productpage"));
    }
    let (status, _) = support::get(&[
        "-H",
        "Host: secure.example",
        "http://192.168.249.3:8080/productpage",
    ])
    .await;
    assert_eq!(status, 301, "plain HTTP is redirected");
    let (status, body) = ns
        .get(&["-H", "x-user: a", "http://10.96.0.12:9080/r"])
        .await;
    assert_eq!((status, body.as_str()), (200, "ratings /r"));
}

/// The Secret of the gateway's HTTPS server.
fn credential() -> String {
    use base64::Engine as _;
    let now = std::time::SystemTime::now();
    let ca = lateen_identity::CertificateAuthority::self_signed("test", "", now).expect("a root");
    let names = ["secure.example".to_owned()];
    let subject = lateen_identity::Subject::Server {
        common_name: "secure.example",
        names: &names,
    };
    let issued = ca
        .issue(&subject, Duration::from_secs(3600), now)
        .expect("a certificate");
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: secure-credential, namespace: istio-system}}\n\
         type: kubernetes.io/tls\ndata: {{tls.crt: {}, tls.key: {}}}\n",
        encode(&issued.cert_pem),
        encode(&issued.key_pem),
    )
}
