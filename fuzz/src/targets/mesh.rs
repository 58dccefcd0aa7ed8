//! What users write: YAML to objects, their checks, and the whole way from objects to what a proxy
//! accepts. A bad object costs itself, never the rest, and our own proxy takes all we send.

use std::net::IpAddr;
use std::sync::Arc;

use lateen_compile::{Compiler, EndpointCompiler, EndpointOptions, analyze, mesh_config_from_yaml};
use lateen_model::proxy::InterceptionMode;
use lateen_model::{Locality, MeshConfig, ProxyKey, ProxyType};
use lateen_proxy_xds::decode::{self, Context as DecodeContext};
use lateen_resources::{Body, ObjectSet, check, proto::Duration, read_value, read_yaml, yaml};
use lateen_xds::{Context, Features, ResourceSet, ResourceType, endpoint, generate, listener};
use serde_json::json;

use super::xds::{use_listener, use_routes};
use crate::Target;
use crate::bytes::{hash, nested, seeds, text};

const WORDS: &[&str] = &[
    "---\n",
    "\n  ",
    "\n- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!str ",
    "? ",
    "|\n",
    "'",
    "\"",
    "apiVersion: networking.istio.io/v1\n",
    "apiVersion: v1\n",
    "kind: VirtualService\n",
    "kind: Gateway\n",
    "kind: DestinationRule\n",
    "kind: ServiceEntry\n",
    "kind: Sidecar\n",
    "kind: Service\n",
    "kind: Ingress\n",
    "kind: List\nitems:\n",
    "metadata: {name: a}\n",
    "spec:\n",
    "hosts: ['*']",
    "gateways: [mesh, a]",
    "http:\n",
    "tcp:\n",
    "tls:\n",
    "match:\n",
    "route:\n",
    "uri: {regex: '",
    "prefix: /",
    "exact: ",
    "destination: {host: a, subset: v1, port: {number: 80}}",
    "weight: 101",
    "timeout: 1h-5s",
    "timeout: 1000000h",
    "perTryTimeout: 0s",
    "attempts: -1",
    "fault: {delay: {percentage: {value: 1e300}, fixedDelay: 1s}}",
    "abort: {httpStatus: 99}",
    "mirror: {host: a}",
    "rewrite: {uri: /}",
    "redirect: {uri: '\\1', redirectCode: 302}",
    "headers: {request: {set: {\"a\\nb\": c}}}",
    "corsPolicy: {allowOrigins: [{regex: '('}]}",
    "delegate: {name: a}",
    "subsets: [{name: v1, labels: {version: v1}}]",
    "trafficPolicy:\n",
    "loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: 0s}, minimumRingSize: 99999999}}",
    "outlierDetection: {baseEjectionTime: 1us, maxEjectionPercent: 200}",
    "resolution: DNS",
    "location: MESH_EXTERNAL",
    "addresses: [10.0.0.0/33, '::/0']",
    "endpoints: [{address: '['}]",
    "number: 70000",
    "number: -1",
    "targetPort: 0",
    "protocol: HTTPS",
    "mode: MUTUAL",
    "true",
    "null",
    "port: {name: http}",
    "exportTo: [., '~']",
    "workloadSelector: {labels: {a: b}}",
    "1e999",
    "~",
    "egress: [{hosts: ['./*', '~/*']}]",
    "defaultEndpoint: 127.0.0.1:80",
    "credentialName: a/b",
    "- a\n",
    "# c\n",
    "|\n  text\n",
    "\t",
    "\0",
    "%",
    "\u{e9}",
];

/// Objects of users: read, checked, printed and read again.
pub const YAML: Target = Target {
    name: "istio_yaml",
    run: objects,
    seeds: object_seeds,
    words: WORDS,
    rounds: 400,
};

/// Objects to snapshot, to xDS, to the proxy's values.
pub const MESH: Target = Target {
    name: "mesh",
    run: mesh,
    seeds: object_seeds,
    words: WORDS,
    rounds: 120,
};

/// Mesh configuration.
pub const MESH_CONFIG: Target = Target {
    name: "mesh_config",
    run: mesh_config,
    seeds: || {
        seeds(&[
            "accessLogFile: /dev/stdout\naccessLogFormat: '%REQ(A)%'\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\ndefaultConfig: {concurrency: 2, proxyMetadata: {A: b}, tracing: {sampling: 1}}\nconnectTimeout: 10s\ndefaultHttpRetryPolicy: {attempts: 2, retryOn: 5xx}\n",
            "trustDomain: a\ntrustDomainAliases: [b]\nlocalityLbSetting: {enabled: false}\nprotocolDetectionTimeout: -1s\n",
        ])
    },
    words: WORDS,
    rounds: 500,
};

/// Durations of users.
pub const DURATION: Target = Target {
    name: "duration",
    run: duration,
    seeds: || {
        seeds(&[
            "1h2m3.5s",
            "0s",
            "-1ms",
            "1us",
            "+5\u{b5}s",
            ".5s",
            "9223372036s",
            "1.000000001s",
        ])
    },
    words: &[
        "h",
        "m",
        "s",
        "ms",
        "us",
        "ns",
        ".",
        "-",
        "+",
        "9999999999999999999",
    ],
    rounds: 5000,
};

const REVIEWS: &str = "apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default, labels: {app: reviews}}
spec: {clusterIP: 10.0.0.5, ports: [{name: http, port: 9080}, {name: tcp-db, port: 3306}], selector: {app: reviews}}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, namespace: default, labels: {app: reviews, version: v1}}
spec: {nodeName: n, serviceAccountName: s, containers: [{name: c, ports: [{containerPort: 9080}]}]}
status: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
";

const RULES: [&str; 7] = [
    "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - name: a
    match:
    - {uri: {prefix: /a}, headers: {end-user: {exact: jason}}, queryParams: {q: {regex: 'a+'}}, method: {exact: GET}}
    fault: {delay: {percentage: {value: 10}, fixedDelay: 5s}, abort: {httpStatus: 500, percentage: {value: 1}}}
    rewrite: {uri: /b, authority: x}
    route:
    - {destination: {host: reviews, subset: v1, port: {number: 9080}}, weight: 75, headers: {request: {set: {a: b}}}}
    - {destination: {host: reviews.default.svc.cluster.local, subset: v2}, weight: 25}
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,503'}
    timeout: 10s
    mirror: {host: reviews}
    mirrorPercentage: {value: 50}
    corsPolicy: {allowOrigins: [{prefix: 'https://a'}], allowMethods: [GET], maxAge: 24h}
  - match: [{uri: {regex: '/x/[0-9]+'}, ignoreUriCase: true}]
    redirect: {uri: /y, authority: z, redirectCode: 302}
  - route: [{destination: {host: reviews}}]
",
    "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 1, connectTimeout: 1s}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}
    loadBalancer: {consistentHash: {httpCookie: {name: u, ttl: 0s}}}
    portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: LEAST_REQUEST}}]
    tls: {mode: SIMPLE, sni: a.b}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
",
    "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*', 'a/b.c'], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['x.y'], tls: {mode: SIMPLE, credentialName: c}}
  - {port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: g, namespace: default}
spec: {hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: reviews}}]}], tcp: [{match: [{port: 31400}], route: [{destination: {host: reviews, port: {number: 3306}}}]}]}
",
    "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: default}
spec:
  hosts: [www.example.com, '*.example.org']
  addresses: [240.0.0.1, 10.9.0.0/16]
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  location: MESH_EXTERNAL
  resolution: DNS
  endpoints: [{address: a.b, ports: {http: 81}, labels: {x: y}, locality: r/z/s, weight: 2}]
",
    "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s, namespace: default}
spec:
  workloadSelector: {labels: {app: reviews}}
  ingress: [{port: {number: 9080, protocol: HTTP, name: h}, defaultEndpoint: '127.0.0.1:8080'}]
  egress: [{port: {number: 3306, protocol: TCP, name: t}, hosts: ['./*']}, {hosts: ['istio-system/*', '*/reviews']}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
",
    "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: default, annotations: {kubernetes.io/ingress.class: istio}}
spec:
  tls: [{hosts: [a.b], secretName: s}]
  rules: [{host: a.b, http: {paths: [{path: /p, pathType: Prefix, backend: {service: {name: reviews, port: {name: http}}}}]}}]
  defaultBackend: {service: {name: reviews, port: {number: 9080}}}
",
    "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: t}
spec:
  hosts: [reviews]
  tls: [{match: [{port: 443, sniHosts: [a.b, '*.c']}], route: [{destination: {host: reviews}, weight: 100}]}]
  tcp: [{match: [{port: 3306, sourceLabels: {app: reviews}, destinationSubnets: [10.0.0.0/8]}], route: [{destination: {host: reviews}}]}]
  http: [{match: [{uri: {prefix: /d}}], delegate: {name: d, namespace: x}}, {directResponse: {status: 503, body: {string: x}}}]
  exportTo: [., x]
",
];

/// A service with its pod, then objects of each kind.
pub fn texts() -> Vec<&'static str> {
    let reviews = REVIEWS.trim_end_matches("---\n");
    std::iter::once(reviews).chain(RULES).collect()
}

fn object_seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = RULES
        .iter()
        .map(|rule| format!("{REVIEWS}{rule}").into_bytes())
        .collect();
    all.extend(seeds(&RULES));
    all.push(RULES.join("---\n").into_bytes());
    all.push(b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\n".to_vec());
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
        all.push(nested(open, close, 3000));
    }
    all.push(
        b"kind: List\napiVersion: v1\nitems:\n- {kind: List, items: [{kind: List}]}\n".to_vec(),
    );
    all
}

fn objects(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let lines = text.lines().count() + 2;
    let read = read_yaml(text, "any.yaml", "default");
    for found in &read.diagnostics {
        let source = found.source.as_ref().expect("a place in the file");
        assert!(source.line as usize <= lines, "{found}");
        assert!(!found.message.is_empty());
    }
    for object in &read.objects {
        assert!(!object.meta.namespace.is_empty() || !object.kind.info().namespaced);
        for found in check::check(object) {
            assert!(found.object.is_some() && found.source.is_some(), "{found}");
        }
        // What was understood is understood again from its own print.
        let body = object.body.to_json();
        if matches!(object.body, Body::Opaque(_)) || !object.kind.is_istio() {
            continue;
        }
        let again = read_value(
            json!({
                "apiVersion": object.kind.api_version(),
                "kind": object.kind.name(),
                "metadata": {"name": object.meta.name, "namespace": object.meta.namespace},
                "spec": body,
            }),
            "default",
        );
        let back = again.objects.first().map(|object| object.body.to_json());
        assert_eq!(back.as_ref(), Some(&body), "{:?}", again.diagnostics);
    }
    let (documents, errors) = yaml::documents(text);
    for error in errors {
        assert!(error.position.line as usize <= lines, "{error}");
    }
    for document in documents {
        assert!(
            document.positions.find("spec.http[3].route").is_some(),
            "no place at all"
        );
    }
}

fn key(kind: ProxyType) -> ProxyKey {
    let router = kind == ProxyType::Router;
    let labels = if router {
        [("istio", "ingressgateway"), ("app", "istio-ingressgateway")]
    } else {
        [("app", "reviews"), ("version", "v1")]
    };
    ProxyKey {
        kind,
        namespace: "default".into(),
        name: "reviews-v1".into(),
        labels: labels
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
        ips: vec![IpAddr::from([10, 1, 0, 1])],
        dns_domain: "default.svc.cluster.local".into(),
        service_account: "s".into(),
        workload: "reviews-v1".into(),
        node: "n".into(),
        locality: Locality::default(),
        cluster_id: "Kubernetes".into(),
        network: "".into(),
        interception: InterceptionMode::Redirect,
        dns_capture: false,
        http10: false,
        extensions: None,
        ipv6: false,
    }
}

fn mesh(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let mut objects = ObjectSet::default();
    for object in read_yaml(text, "any.yaml", "default").objects {
        // The webhook and the compiler refuse what has errors.
        objects.insert(Arc::new(object));
    }
    if objects.is_empty() {
        return;
    }
    let compiled = Compiler::new(MeshConfig::default()).compile(&objects);
    let snapshot = compiled.snapshot;
    let mut endpoints = EndpointCompiler::new(EndpointOptions { from_pods: true });
    endpoints.rebuild(&objects, &snapshot);
    let table = endpoints.table();
    for found in analyze(&objects) {
        assert!(!found.message.is_empty());
    }
    for kind in [ProxyType::Sidecar, ProxyType::Router] {
        let key = key(kind);
        let context = Context::new(&snapshot, &table, &key, Features::default());
        send(&context, hash(data));
    }
}

/// A root that is its own certificate, and its key: made for this, trusted by nobody.
const IDENTITY: &[u8] = include_bytes!("seeds/identity.pem");

/// Generates everything for a proxy; our own proxy must take all of it.
fn send(context: &Context<'_>, salt: u64) {
    // Roots, certificates and keys are named by their files on the proxy's side.
    let files = DecodeContext {
        read_file: Box::new(|_| Ok(IDENTITY.to_vec())),
        ..DecodeContext::empty()
    };
    for resource in resources(&generate(context, ResourceType::Cluster, [])) {
        let taken = decode::cluster(&resource.1, &files, true);
        assert!(taken.is_ok(), "cluster {}: {:?}", resource.0, taken.err());
    }
    for resource in resources(&generate(context, ResourceType::Listener, [])) {
        match decode::listener(&resource.1, &files) {
            Ok(taken) => use_listener(&taken.listener, salt),
            Err(error) => panic!("listener {}: {error}", resource.0),
        }
    }
    let names = listener::route_names(context);
    let names = names.iter().map(String::as_str);
    for resource in resources(&generate(context, ResourceType::Route, names)) {
        match decode::routes(&resource.1, &files) {
            Ok(taken) => use_routes(&taken, salt),
            Err(error) => panic!("routes {}: {error}", resource.0),
        }
    }
    let names = endpoint::all_names(context);
    let names = names.iter().map(String::as_str);
    for resource in resources(&generate(context, ResourceType::Endpoint, names)) {
        let taken = decode::endpoints(&resource.1);
        assert!(taken.is_ok(), "endpoints {}: {:?}", resource.0, taken.err());
    }
    generate(context, ResourceType::NameTable, []);
}

fn resources(set: &ResourceSet) -> Vec<(String, Vec<u8>)> {
    set.iter()
        .map(|resource| (resource.name.clone(), resource.body.value.clone()))
        .collect()
}

fn mesh_config(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let (config, _) = mesh_config_from_yaml(text, "any.yaml");
    let (again, _) = mesh_config_from_yaml(text, "any.yaml");
    assert_eq!(config, again);
    assert!(!config.root_namespace.is_empty());
}

fn duration(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    if let Ok(read) = Duration::parse(text) {
        assert_eq!(Duration::parse(&read.to_string()), Ok(read));
        let _ = read.to_std();
    }
}
