//! The bootstrap that Envoy and ours both read, and the resources that a management server sends.

use serde_json::{Value, json};

use super::{Given, Spec, file, path, service};

/// The bootstrap.
pub fn bootstrap(given: Given<'_>) -> Value {
    let spec = given.spec;
    let mut clusters: Vec<Value> = Vec::new();
    let mut root = json!({
        "admin": {"address": address(spec.admin)},
        "node": node(),
    });
    if let Some(port) = spec.ads {
        clusters.push(json!({
            "name": "xds", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": protocol_http2(),
            "load_assignment": assignment("xds", "127.0.0.1", port, 1),
        }));
        let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
        root["dynamic_resources"] = json!({
            "ads_config": {
                "api_type": "GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": ads, "lds_config": ads,
        });
        root["static_resources"] = json!({"clusters": clusters});
    } else {
        clusters.extend((0..spec.services).map(|number| cluster(given, number, "5s")));
        root["static_resources"] = json!({"clusters": clusters, "listeners": [listener(given)]});
    }
    root
}

/// Who the proxy is: what Istio's agent writes there.
fn node() -> Value {
    json!({
        "id": "sidecar~127.0.0.1~bench-1.default~default.svc.cluster.local",
        "cluster": "bench.default",
        "metadata": {
            "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.30.0", "MESH_ID": "cluster.local",
            "NAME": "bench-1", "NAMESPACE": "default", "WORKLOAD_NAME": "bench",
            "OWNER": "kubernetes://apis/apps/v1/namespaces/default/deployments/bench",
            "SERVICE_ACCOUNT": "bench",
            "LABELS": {
                "app": "bench", "version": "v1",
                "service.istio.io/canonical-name": "bench",
                "service.istio.io/canonical-revision": "v1",
            },
        },
    })
}

/// A service's cluster. Only the last one leads to the backend by TLS and with many endpoints.
pub fn cluster(Given { spec, pki }: Given<'_>, number: usize, timeout: &str) -> Value {
    let name = format!("outbound|80||{}", service(number));
    let asked = number + 1 == spec.services;
    let endpoints = if asked { spec.endpoints.max(1) } else { 1 };
    let ip = spec.backend.ip().to_string();
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": timeout,
        "load_assignment": assignment(&name, &ip, spec.backend.port(), endpoints),
        "metadata": {"filter_metadata": {"istio": {"services": [{
            "host": service(number), "name": format!("service-{number:05}"), "namespace": "default",
        }]}}},
    });
    if asked && spec.tls_up {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "backend.test",
                "common_tls_context": {
                    "tls_certificates": [certificate(pki)],
                    "validation_context": {"trusted_ca": {"filename": file(&pki.authority)}},
                },
            },
        });
    }
    cluster
}

/// So many endpoints that are all the backend: addresses of loopback lead there, whichever.
fn assignment(cluster: &str, ip: &str, port: u16, count: usize) -> Value {
    let endpoint = |number: usize| {
        let ip = match number {
            0 => ip.to_owned(),
            _ => format!(
                "127.{}.{}.{}",
                1 + number / 62_500,
                number / 250 % 250,
                1 + number % 250
            ),
        };
        json!({"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}})
    };
    let all: Vec<Value> = (0..count).map(endpoint).collect();
    json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": all}]})
}

/// The listener. With a management server its routes come from there.
pub fn listener(given: Given<'_>) -> Value {
    let Given { spec, pki } = given;
    let filter = match spec.tcp {
        true => tcp(spec),
        false => manager(spec),
    };
    let mut chain = json!({"filters": [filter]});
    if spec.tls_down {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "disable_stateless_session_resumption": true,
                "common_tls_context": {
                    "tls_certificates": [certificate(pki)],
                    "validation_context": {"trusted_ca": {"filename": file(&pki.authority)}},
                },
            },
        });
    }
    json!({
        "name": "bench",
        "address": address(spec.listen.port()),
        "traffic_direction": "OUTBOUND",
        "filter_chains": [chain],
    })
}

fn tcp(spec: &Spec) -> Value {
    let cluster = format!("outbound|80||{}", service(spec.services - 1));
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench", "cluster": cluster,
        },
    })
}

fn manager(spec: &Spec) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound_0.0.0.0_80",
        "http_filters": filters(spec),
        "normalize_path": true,
    });
    if spec.sidecar {
        // What Istio writes: the decision is made for each request, its span is for the exporter.
        config["tracing"] = json!({
            "client_sampling": {"value": 100}, "random_sampling": {"value": 1},
            "overall_sampling": {"value": 100},
        });
    }
    if let Some(log) = &spec.log {
        config["access_log"] = json!([{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": file(log),
                "log_format": {"text_format_source": {"inline_string": LOG}},
            },
        }]);
    }
    match spec.ads {
        Some(_) => {
            config["rds"] = json!({
                "route_config_name": "80",
                "config_source": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            });
        }
        None => config["route_config"] = routes(spec),
    }
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

/// Istio's default format.
const LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
    %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// A virtual host for each service.
pub fn routes(spec: &Spec) -> Value {
    let host = |number: usize| {
        let name = service(number);
        let cluster = format!("outbound|80||{name}");
        let short = name.split('.').next().unwrap_or_default().to_owned();
        let timeout = json!({"cluster": cluster, "timeout": "0s"});
        let list: Vec<Value> = match spec.routes {
            0 | 1 => vec![json!({"name": "default", "match": {"prefix": "/"}, "route": timeout})],
            many => (0..many)
                .map(|number| {
                    let all = path(number + 1);
                    let end = all.find("/some").unwrap_or(all.len());
                    let prefix = match number {
                        0 => "/route-00000",
                        _ => all.get(..end).unwrap_or_default(),
                    };
                    json!({"match": {"prefix": prefix}, "route": timeout})
                })
                .collect(),
        };
        json!({
            "name": format!("{name}:80"),
            "domains": [name, format!("{name}:80"), short.clone(), format!("{short}:80")],
            "routes": list, "include_request_attempt_count": true,
        })
    };
    let hosts: Vec<Value> = (0..spec.services).map(host).collect();
    json!({"name": "80", "virtual_hosts": hosts, "validate_clusters": false})
}

/// A sidecar's filters in Istio's order.
fn filters(spec: &Spec) -> Vec<Value> {
    let filter = |name: &str, kind: &str, config: Value| {
        let mut config = config;
        config["@type"] = format!("type.googleapis.com/{kind}").into();
        json!({"name": name, "typed_config": config})
    };
    let mut out = Vec::new();
    if spec.istio {
        out.push(filter(
            "istio.metadata_exchange",
            "udpa.type.v1.TypedStruct",
            json!({
                "type_url": "type.googleapis.com/io.istio.http.peer_metadata.Config",
                "value": {
                    "upstream_discovery": [{"istio_headers": {}}, {"workload_discovery": {}}],
                    "upstream_propagation": [{"istio_headers": {}}],
                },
            }),
        ));
    }
    if spec.sidecar {
        let rbac = "envoy.extensions.filters.http.rbac.v3.RBAC";
        let anyone = json!([{"any": true}]);
        out.push(filter(
            "envoy.filters.http.rbac.deny",
            rbac,
            json!({"rules": {"action": "DENY", "policies": {"ns[default]-policy[admin]-rule[0]": {
                "permissions": [{"url_path": {"path": {"prefix": "/admin"}}}],
                "principals": anyone,
            }}}}),
        ));
        out.push(filter(
            "envoy.filters.http.rbac",
            rbac,
            json!({"rules": {"policies": {
                "ns[default]-policy[write]-rule[0]": {
                    "permissions": [{"header": {"name": ":method", "string_match": {"exact": "POST"}}}],
                    "principals": anyone,
                },
                "ns[default]-policy[read]-rule[0]": {
                    "permissions": [{"and_rules": {"rules": [
                        {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                        {"url_path": {"path": {"prefix": "/"}}},
                    ]}}],
                    "principals": anyone,
                },
            }}}),
        ));
        out.push(filter(
            "envoy.filters.http.grpc_stats",
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
            json!({"emit_filter_state": true, "stats_for_all_methods": false}),
        ));
    }
    if spec.istio {
        let names = |protocol: &str, first: &str, last: &str| {
            json!({
                "upstream_protocol": protocol, "alpn_override": [first, "istio", last],
            })
        };
        out.push(filter(
            "istio.alpn",
            "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
            json!({"alpn_override": [
                names("HTTP10", "istio-http/1.0", "http/1.0"),
                names("HTTP11", "istio-http/1.1", "http/1.1"),
                names("HTTP2", "istio-h2", "h2"),
            ]}),
        ));
    }
    if spec.sidecar {
        let kind = |name: &str| format!("envoy.extensions.filters.http.{name}");
        out.push(filter(
            "envoy.filters.http.fault",
            &kind("fault.v3.HTTPFault"),
            json!({}),
        ));
        out.push(filter(
            "envoy.filters.http.cors",
            &kind("cors.v3.Cors"),
            json!({}),
        ));
    }
    if spec.istio {
        out.push(filter("istio.stats", "stats.PluginConfig", json!({})));
    }
    out.push(filter(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        json!({}),
    ));
    out
}

fn certificate(pki: &crate::pki::Pki) -> Value {
    json!({
        "certificate_chain": {"filename": file(&pki.certificate)},
        "private_key": {"filename": file(&pki.key)},
    })
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn protocol_http2() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}
