//! The pages that list things.

use lateen_model::Service;
use lateen_model::mesh::{AccessLogEncoding, OutboundPolicy};
use lateen_model::service::{ServiceAddress, TargetPort};
use lateen_resources::Kind;
use lateen_xds::ResourceType;
use serde_json::{Map, Value, json};

use super::DebugState;
use crate::ads::{Connection, Progress, Source as _};

/// Stem of the keys of `syncz` for a type.
fn stem(t: ResourceType) -> &'static str {
    match t {
        ResourceType::Cluster => "cluster",
        ResourceType::Endpoint => "endpoint",
        ResourceType::Listener => "listener",
        ResourceType::Route => "route",
        ResourceType::Secret => "secret",
        ResourceType::Extension => "extensionconfig",
        ResourceType::NameTable => "nametable",
    }
}

/// One row per proxy: nonces sent and accepted per type, under Istio's keys, with the
/// proxy's words about a refusal.
pub fn syncz(s: &DebugState) -> Value {
    s.connections.all().iter().map(|c| sync_row(c)).collect()
}

fn sync_row(c: &Connection) -> Value {
    let mut row = Map::new();
    let cluster = match c.node.meta("CLUSTER_ID") {
        "" => "Kubernetes",
        id => id,
    };
    row.insert("cluster_id".into(), json!(cluster));
    row.insert("proxy".into(), json!(c.node.display_name()));
    row.insert("proxy_type".into(), json!(c.node.kind.as_str()));
    row.insert("istio_version".into(), json!(c.node.meta("ISTIO_VERSION")));
    for (t, p) in c.progress() {
        let stem = stem(t);
        row.insert(format!("{stem}_sent"), json!(p.nonce_sent));
        row.insert(format!("{stem}_acked"), json!(p.nonce_acked));
        row.insert(format!("{stem}_status"), json!(p.status()));
        if let Some(error) = p.last_error {
            row.insert(format!("{stem}_error"), json!(error));
        }
    }
    Value::Object(row)
}

fn watches(c: &Connection) -> Map<String, Value> {
    let watch = |(t, p): (ResourceType, Progress)| {
        let v = json!({
            "nonceSent": p.nonce_sent,
            "nonceAcked": p.nonce_acked,
            "nonceNacked": p.nonce_nacked,
            "versionSent": p.version_sent,
            "versionAcked": p.version_acked,
            "lastError": p.last_error,
        });
        (t.type_url().to_owned(), v)
    };
    c.progress().into_iter().map(watch).collect()
}

fn client(c: &Connection) -> Value {
    json!({
        "connectionId": c.id,
        "connectedAt": c.since.to_string(),
        "address": c.peer,
        "dialect": c.dialect,
        "labels": c.node.labels,
        "locality": c.node.locality,
        "warnings": c.node.warnings,
        "watches": watches(c),
    })
}

/// Everything about every stream.
pub fn adsz(s: &DebugState) -> Value {
    connections(s)
}

/// Who is connected.
pub fn connections(s: &DebugState) -> Value {
    let all = s.connections.all();
    let clients: Vec<Value> = all.iter().map(|c| client(c)).collect();
    json!({"totalClients": clients.len(), "clients": clients})
}

/// Istio's objects as they are understood: kind, names and whether anything is wrong.
pub fn configz(s: &DebugState) -> Value {
    let c = s.store.current();
    let own = c.objects.iter().filter(|o| o.kind.is_istio());
    own.map(|o| {
        json!({
            "apiVersion": o.api_version,
            "kind": o.kind.name(),
            "metadata": {
                "namespace": o.meta.namespace,
                "name": o.meta.name,
                "labels": o.meta.labels,
                "annotations": o.meta.annotations,
                "creationTimestamp": o.meta.creation_timestamp,
                "resourceVersion": o.meta.resource_version,
            },
            "spec": o.body.to_json(),
        })
    })
    .collect()
}

/// Services as the mesh sees them.
pub fn registryz(s: &DebugState) -> Value {
    let c = s.store.current();
    c.snapshot.services().iter().map(|s| service(s)).collect()
}

/// One service, for all pages that show services.
pub fn service(s: &Service) -> Value {
    let ports: Vec<Value> = s
        .ports
        .iter()
        .map(|p| {
            let target = match &p.target {
                TargetPort::Number(n) => json!(n),
                TargetPort::Name(n) => json!(&**n),
            };
            json!({
                "name": &*p.name,
                "port": p.number,
                "protocol": p.protocol.as_str(),
                "targetPort": target,
            })
        })
        .collect();
    let addresses: Vec<String> = s
        .addresses
        .iter()
        .map(|a| match a {
            ServiceAddress::Ip(ip) => ip.to_string(),
            ServiceAddress::Cidr(ip, len) => format!("{ip}/{len}"),
        })
        .collect();
    let labels: Map<String, Value> = s
        .labels
        .iter()
        .map(|(k, v)| (k.to_string(), json!(&**v)))
        .collect();
    json!({
        "hostname": &*s.hostname,
        "ports": ports,
        "addresses": addresses,
        "resolution": format!("{:?}", s.resolution),
        "meshExternal": s.mesh_external,
        "Attributes": {
            "Name": &*s.name,
            "Namespace": &*s.namespace,
            "ServiceRegistry": format!("{:?}", s.registry),
            "Labels": labels,
        },
    })
}

/// The word for what happens to destinations nobody declared.
pub fn outbound_mode(policy: OutboundPolicy) -> &'static str {
    match policy {
        OutboundPolicy::AllowAny => "ALLOW_ANY",
        OutboundPolicy::RegistryOnly => "REGISTRY_ONLY",
    }
}

/// Service ports by connected proxy.
pub fn instances(s: &DebugState) -> Value {
    let mut out = Map::new();
    for c in s.connections.all() {
        let view = s.store.view(&c.node);
        let serves: Vec<Value> = view
            .context()
            .serves()
            .iter()
            .map(|i| {
                json!({
                    "service": &*i.service.hostname,
                    "port": i.port.number,
                    "targetPort": i.target_port,
                })
            })
            .collect();
        out.insert(c.node.display_name(), json!(serves));
    }
    Value::Object(out)
}

/// How many objects of each kind are known.
pub fn resources(s: &DebugState) -> Value {
    let c = s.store.current();
    let kinds = lateen_resources::kind::KINDS.iter();
    let counts: Map<String, Value> = kinds
        .map(|k| (k.name.to_owned(), json!(c.objects.of(k.kind).count())))
        .filter(|(_, n)| *n != json!(0))
        .collect();
    Value::Object(counts)
}

/// The one cluster this control plane watches.
pub fn clusterz(s: &DebugState) -> Value {
    let synced = s.store.current().number > 0;
    json!([{"id": "Kubernetes", "syncStatus": if synced { "synced" } else { "syncing" }}])
}

/// What is wrong with the configuration in force.
pub fn push_status(s: &DebugState) -> Value {
    let c = s.store.current();
    let found: Vec<String> = c.diagnostics.iter().map(ToString::to_string).collect();
    json!({"version": c.version, "diagnostics": found})
}

/// The mesh settings in force, under Istio's names.
pub fn mesh(s: &DebugState) -> Value {
    let c = s.store.current();
    let m = &c.snapshot.mesh;
    let seconds = |d: std::time::Duration| format!("{}s", d.as_secs_f64());
    let namespaces = c.objects.of(Kind::Namespace).count();
    json!({
        "accessLogFile": &*m.access_log_file,
        "accessLogFormat": &*m.access_log_format,
        "accessLogEncoding": match m.access_log_encoding {
            AccessLogEncoding::Text => "TEXT",
            AccessLogEncoding::Json => "JSON",
        },
        "outboundTrafficPolicy": {"mode": outbound_mode(m.outbound_policy)},
        "enableAutoMtls": m.enable_auto_mtls,
        "enableTracing": m.enable_tracing,
        "rootNamespace": &*m.root_namespace,
        "trustDomain": &*m.trust_domain,
        "clusterDomain": &*m.cluster_domain,
        "connectTimeout": seconds(m.connect_timeout),
        "protocolDetectionTimeout": seconds(m.protocol_detection_timeout),
        "dnsRefreshRate": seconds(m.dns_refresh_rate),
        "enablePrometheusMerge": m.enable_prometheus_merge,
        "ingressClass": &*m.ingress_class,
        "ingressService": &*m.ingress_service,
        "defaultConfig": {
            "discoveryAddress": &*m.default_config.discovery_address,
            "concurrency": m.default_config.concurrency,
            "drainDuration": seconds(m.default_config.drain_duration),
            "terminationDrainDuration": seconds(m.default_config.termination_drain_duration),
            "statusPort": m.default_config.status_port,
            "holdApplicationUntilProxyStarts":
                m.default_config.hold_application_until_proxy_starts,
        },
        "namespacesKnown": namespaces,
    })
}
