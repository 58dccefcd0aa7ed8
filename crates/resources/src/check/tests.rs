//! One object per line of the table: what the checks must say about it.

use crate::{Severity, read_yaml};

/// Findings as `E field` or `W field`.
fn findings(kind: &str, spec: &str) -> Vec<String> {
    let text = format!(
        "{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: x}}, spec: {spec}}}"
    );
    let read = read_yaml(&text, "t.yaml", "default");
    assert!(
        read.diagnostics.is_empty(),
        "{spec}: {:?}",
        read.diagnostics
    );
    let mark = |s: Severity| if s == Severity::Error { "E" } else { "W" };
    let all = read.objects.iter().flat_map(super::check);
    all.map(|d| format!("{} {}", mark(d.severity), d.field))
        .collect()
}

fn table(kind: &str, rows: &[(&str, &[&str])]) {
    for (spec, expected) in rows {
        assert_eq!(&findings(kind, spec), expected, "{spec}");
    }
}

const R: &str = "route: [{destination: {host: a}}]";

#[test]
fn virtual_services() {
    table(
        "VirtualService",
        &[
            (&format!("{{hosts: [a], http: [{{{R}}}]}}"), &[]),
            (
                &format!("{{hosts: ['*'], gateways: [g], http: [{{{R}}}]}}"),
                &[],
            ),
            (
                &format!("{{hosts: ['*'], http: [{{{R}}}]}}"),
                &["E spec.hosts[0]"],
            ),
            (
                &format!("{{hosts: ['*'], gateways: [g, mesh], http: [{{{R}}}]}}"),
                &["E spec.hosts[0]"],
            ),
            (
                &format!("{{hosts: [a, a], http: [{{{R}}}]}}"),
                &["E spec.hosts[1]"],
            ),
            (
                &format!("{{hosts: ['a b'], http: [{{{R}}}]}}"),
                &["E spec.hosts[0]"],
            ),
            ("{hosts: [a]}", &["E spec"]),
            (&format!("{{http: [{{{R}}}]}}"), &[]),
            (
                &format!("{{gateways: [g], http: [{{{R}}}]}}"),
                &["E spec.gateways"],
            ),
            (
                &format!("{{hosts: [a], exportTo: [., x_y], http: [{{{R}}}]}}"),
                &["E spec.exportTo[1]"],
            ),
            ("{hosts: [a], http: [{name: x}]}", &["E spec.http[0]"]),
            (
                &format!("{{hosts: [a], http: [{{{R}, redirect: {{uri: /x}}}}]}}"),
                &["E spec.http[0]"],
            ),
            ("{hosts: [a], http: [{delegate: {name: b}}]}", &[]),
            (
                &format!("{{hosts: [a], http: [{{delegate: {{name: b}}, {R}}}]}}"),
                &["E spec.http[0]"],
            ),
            (
                "{hosts: [a], http: [{redirect: {redirectCode: 200}}]}",
                &["E spec.http[0].redirect.redirectCode"],
            ),
            (
                "{hosts: [a], http: [{directResponse: {status: 99}}]}",
                &["E spec.http[0].directResponse.status"],
            ),
        ],
    );
}

#[test]
fn http_rules() {
    let rule = |extra: &str| format!("{{hosts: [a], http: [{{{R}, {extra}}}]}}");
    table(
        "VirtualService",
        &[
            (&rule("timeout: 5s"), &[]),
            (&rule("timeout: 0s"), &["E spec.http[0].timeout"]),
            (
                &rule("match: [{uri: {prefix: ''}}]"),
                &["E spec.http[0].match[0].uri"],
            ),
            (
                &rule("match: [{uri: {prefix: /a, exact: /b}}]"),
                &["E spec.http[0].match[0].uri"],
            ),
            (
                &rule("match: [{uri: {regex: '(a'}}]"),
                &["E spec.http[0].match[0].uri.regex"],
            ),
            (
                &rule("match: [{headers: {'a b': {exact: x}}}]"),
                &["E spec.http[0].match[0].headers[a b]"],
            ),
            (&rule("match: [{headers: {end-user: {}}}]"), &[]),
            (&rule("match: [{headers: {end-user: {regex: '*'}}}]"), &[]),
            (
                &rule("match: [{headers: {'@request.auth.claims.group': {exact: x}}}]"),
                &[],
            ),
            (
                &rule("match: [{port: 70000}]"),
                &["E spec.http[0].match[0].port"],
            ),
            (
                &rule("headers: {request: {set: {x: 100%}}}"),
                &["E spec.http[0].headers.request.set.x"],
            ),
            (
                &rule("headers: {request: {set: {':path': x}}}"),
                &["E spec.http[0].headers.request.set[:path]"],
            ),
            (
                &rule("retries: {attempts: -1}"),
                &["E spec.http[0].retries.attempts"],
            ),
            (
                &rule("retries: {attempts: 3, retryOn: '5xx,503,gateway-error'}"),
                &[],
            ),
            (
                &rule("retries: {attempts: 3, retryOn: sometimes}"),
                &["E spec.http[0].retries.retryOn"],
            ),
            (
                &rule("fault: {abort: {httpStatus: 100, percentage: {value: 101}}}"),
                &[
                    "E spec.http[0].fault.abort.httpStatus",
                    "E spec.http[0].fault.abort.percentage.value",
                ],
            ),
            (
                &rule("fault: {delay: {fixedDelay: 7s, percentage: {value: 100}}}"),
                &[],
            ),
            (&rule("fault: {}"), &["E spec.http[0].fault"]),
            (
                &rule("mirror: {host: b}, mirrors: [{destination: {host: c}}]"),
                &["E spec.http[0]"],
            ),
            (
                &rule("corsPolicy: {maxAge: 1.5s}"),
                &["E spec.http[0].corsPolicy.maxAge"],
            ),
        ],
    );
    let split = |a: i32, b: i32| {
        format!(
            "{{hosts: [a], http: [{{route: [{{destination: {{host: a}}, weight: {a}}}, {{destination: {{host: b}}, weight: {b}}}]}}]}}"
        )
    };
    table(
        "VirtualService",
        &[
            (&split(70, 30), &[]),
            (&split(1, 1), &[]),
            (&split(0, 0), &["E spec.http[0].route"]),
            (&split(-1, 5), &["E spec.http[0].route[0].weight"]),
        ],
    );
}

#[test]
fn tls_and_tcp_rules() {
    table(
        "VirtualService",
        &[
            (
                "{hosts: ['*.a.com'], tls: [{match: [{sniHosts: [b.a.com]}], route: [{destination: {host: x}}]}]}",
                &[],
            ),
            (
                "{hosts: [a.com], tls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: x}}]}]}",
                &["E spec.tls[0].match[0].sniHosts[0]"],
            ),
            (
                "{hosts: [a.com], tls: [{route: [{destination: {host: x}}]}]}",
                &["E spec.tls[0].match"],
            ),
            (
                "{hosts: [a.com], tcp: [{match: [{destinationSubnets: [x]}], route: []}]}",
                &[
                    "E spec.tcp[0].match[0].destinationSubnets[0]",
                    "E spec.tcp[0].route",
                ],
            ),
            (
                "{hosts: [a.com], tcp: [{route: [{destination: {host: x, port: {number: 0}}}]}]}",
                &["E spec.tcp[0].route[0].destination.port.number"],
            ),
        ],
    );
}

#[test]
fn destination_rules() {
    table(
        "DestinationRule",
        &[
            (
                "{host: a, subsets: [{name: v1, labels: {version: v1}}]}",
                &[],
            ),
            ("{host: ''}", &["E spec.host"]),
            (
                "{host: a, subsets: [{name: v1}, {name: v1}]}",
                &["E spec.subsets[1].name"],
            ),
            (
                "{host: a, subsets: [{name: v_1}]}",
                &["E spec.subsets[0].name"],
            ),
            ("{host: a, trafficPolicy: {}}", &["E spec.trafficPolicy"]),
            (
                "{host: a, trafficPolicy: {loadBalancer: {simple: LEAST_CONN}}}",
                &["W spec.trafficPolicy.loadBalancer.simple"],
            ),
            (
                "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {}}}}",
                &["E spec.trafficPolicy.loadBalancer.consistentHash"],
            ),
            (
                "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 10}}}}}",
                &["E spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize"],
            ),
            (
                "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}}",
                &[],
            ),
            (
                "{host: a, trafficPolicy: {connectionPool: {}}}",
                &["E spec.trafficPolicy.connectionPool"],
            ),
            (
                "{host: a, trafficPolicy: {outlierDetection: {interval: 0s, maxEjectionPercent: 101}}}",
                &[
                    "E spec.trafficPolicy.outlierDetection.interval",
                    "E spec.trafficPolicy.outlierDetection.maxEjectionPercent",
                ],
            ),
            (
                "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}",
                &[
                    "E spec.trafficPolicy.tls.clientCertificate",
                    "E spec.trafficPolicy.tls.privateKey",
                ],
            ),
            ("{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}", &[]),
            (
                "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, privateKey: /x}}}",
                &["E spec.trafficPolicy.tls.privateKey"],
            ),
            (
                "{host: a, trafficPolicy: {portLevelSettings: [{tls: {mode: SIMPLE}}]}}",
                &["E spec.trafficPolicy.portLevelSettings[0].port"],
            ),
            (
                "{host: a, exportTo: ['*'], workloadSelector: {matchLabels: {a: b}}}",
                &["E spec.exportTo"],
            ),
        ],
    );
}

#[test]
fn gateways() {
    let server = |s: &str| format!("{{servers: [{s}]}}");
    table(
        "Gateway",
        &[
            (
                &server("{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}"),
                &[],
            ),
            (
                &server(
                    "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}",
                ),
                &[],
            ),
            (
                &server(
                    "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: c}}",
                ),
                &[],
            ),
            (
                &server("{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}"),
                &[],
            ),
            ("{}", &["E spec.servers"]),
            (&server("{hosts: ['*']}"), &["E spec.servers[0].port"]),
            (
                &server("{port: {number: 80, name: http, protocol: HTTP}}"),
                &["E spec.servers[0].hosts"],
            ),
            (
                &server("{port: {number: 80, name: http, protocol: XYZ}, hosts: ['*']}"),
                &["E spec.servers[0].port.protocol"],
            ),
            (
                &server("{port: {number: 0, protocol: HTTP}, hosts: ['*']}"),
                &[
                    "E spec.servers[0].port.number",
                    "E spec.servers[0].port.name",
                ],
            ),
            (
                &server("{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*']}"),
                &["E spec.servers[0].tls"],
            ),
            (
                &server(
                    "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}",
                ),
                &["E spec.servers[0].tls"],
            ),
            (
                &server(
                    "{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE}}",
                ),
                &["E spec.servers[0].tls"],
            ),
            (
                &server(
                    "{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: ISTIO_MUTUAL, credentialName: c}}",
                ),
                &["E spec.servers[0].tls"],
            ),
            (
                &server("{port: {number: 80, name: http, protocol: HTTP}, hosts: ['a/b/c']}"),
                &["E spec.servers[0].hosts[0]"],
            ),
            (
                &server(
                    "{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}, {port: {number: 81, name: a, protocol: HTTP}, hosts: ['*']}",
                ),
                &["E spec.servers[1].port.name"],
            ),
        ],
    );
}

#[test]
fn service_entries() {
    let p = "ports: [{number: 80, name: http, protocol: HTTP}]";
    table(
        "ServiceEntry",
        &[
            (&format!("{{hosts: [a.com], {p}, resolution: DNS}}"), &[]),
            (&format!("{{hosts: ['*.a.com'], {p}}}"), &[]),
            (&format!("{{hosts: ['*'], {p}}}"), &["E spec.hosts[0]"]),
            (&format!("{{{p}}}"), &["E spec.hosts"]),
            (
                &format!("{{hosts: ['*.a.com'], {p}, resolution: DNS}}"),
                &["E spec.hosts[0]"],
            ),
            (
                &format!(
                    "{{hosts: [a.com], {p}, resolution: STATIC, endpoints: [{{address: x.com}}]}}"
                ),
                &["E spec.endpoints[0].address"],
            ),
            (
                &format!("{{hosts: [a.com], {p}, endpoints: [{{address: 1.1.1.1}}]}}"),
                &["E spec.endpoints"],
            ),
            (
                &format!("{{hosts: [a.com], {p}, resolution: DNS, addresses: [10.0.0.0/8]}}"),
                &["E spec.addresses"],
            ),
            (
                &format!(
                    "{{hosts: [a.com], {p}, resolution: STATIC, workloadSelector: {{labels: {{a: b}}}}, endpoints: [{{address: 1.1.1.1}}]}}"
                ),
                &["E spec.endpoints"],
            ),
            (
                "{hosts: [a.com], ports: [{number: 80, name: a}, {number: 80, name: a}]}",
                &["E spec.ports[1].name", "E spec.ports[1].number"],
            ),
        ],
    );
}

#[test]
fn sidecars() {
    table(
        "Sidecar",
        &[
            ("{egress: [{hosts: ['./*', 'istio-system/*']}]}", &[]),
            (
                "{egress: [{hosts: ['a.com']}]}",
                &["E spec.egress[0].hosts[0]"],
            ),
            (
                "{egress: [{hosts: ['./*']}, {port: {number: 80, name: a, protocol: HTTP}, hosts: ['*/*']}]}",
                &["E spec.egress[0]"],
            ),
            (
                "{ingress: [{port: {number: 80, name: a, protocol: HTTP}, defaultEndpoint: '127.0.0.1:8080'}]}",
                &[],
            ),
            (
                "{ingress: [{defaultEndpoint: '10.0.0.1:8080'}]}",
                &["E spec.ingress[0].port"],
            ),
        ],
    );
}

#[test]
fn line_and_wording() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\n\
                spec:\n  hosts:\n  - reviews\n  http:\n  - route:\n    - destination:\n        host: reviews\n      weight: -1\n";
    let read = read_yaml(text, "vs.yaml", "default");
    let found = super::check(&read.objects[0]);
    assert_eq!(
        found[0].to_string(),
        "Error [IST0106] (VirtualService default/reviews vs.yaml:12) Schema validation error: \
         spec.http[0].route[0].weight: weight -1 is below 0; use 0 or more"
    );
}

#[test]
fn a_refusal_says_what_would_be_right() {
    for (kind, spec, said) in [
        (
            "DestinationRule",
            "{host: a, subsets: [{name: v1}, {name: v1}]}",
            "subset \"v1\" is there twice; use another name",
        ),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}}",
            "a limit is not below 0; use 1 or more",
        ),
        (
            "VirtualService",
            "{hosts: [a], http: [{route: [{destination: {subset: v1}}]}]}",
            "destination must have a host; use the name of a service",
        ),
        (
            "VirtualService",
            "{hosts: [a, a], http: [{route: [{destination: {host: a}}]}]}",
            "host \"a\" is there twice; remove one",
        ),
        (
            "VirtualService",
            "{hosts: [a], http: [{fault: {}, route: [{destination: {host: a}}]}]}",
            "must have an abort and/or a delay; use delay",
        ),
        (
            "Gateway",
            "{servers: [{hosts: ['*']}]}",
            "port is required; use port with number",
        ),
        (
            "ServiceEntry",
            "{hosts: [], ports: [{number: 80, name: a}], resolution: NONE}",
            "must have at least one host; use the names",
        ),
        (
            "Sidecar",
            "{ingress: [{defaultEndpoint: '127.0.0.1:80'}]}",
            "port is required for ingress listeners; use port",
        ),
    ] {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"
        );
        let read = read_yaml(&text, "x.yaml", "default");
        let found = super::check(&read.objects[0]);
        assert!(
            found.iter().any(|d| d.message.contains(said)),
            "{spec}: {found:?}"
        );
    }
}
