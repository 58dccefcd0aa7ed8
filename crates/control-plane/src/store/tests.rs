//! What is kept is what would be made anew, whatever changes; and what has not changed is
//! not made anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_compile::EndpointOptions;
use lateen_model::MeshConfig;
use lateen_resources::{Kind, ObjectKey, Severity, read_yaml};
use lateen_sources::Event;
use lateen_xds::{Resource, ResourceSet, ResourceType, endpoint, listener};
use lateen_xds_proto::envoy::config::core::v3::{Locality, Node};
use lateen_xds_proto::google::protobuf::value::Kind as ValueKind;
use lateen_xds_proto::{Struct, Value};

use super::Store;
use crate::ads::{Names, NodeInfo, Source as _, View as _};
use crate::planner::Planner;
use crate::store::ProxyView;

const WHOLE: [ResourceType; 3] = [
    ResourceType::Cluster,
    ResourceType::Listener,
    ResourceType::NameTable,
];

struct Mesh {
    store: Arc<Store>,
    planner: Planner,
    nodes: Vec<NodeInfo>,
}

fn node(id: &str, zone: &str, metadata: &[(&str, &str)]) -> NodeInfo {
    let text = |v: &str| Value {
        kind: Some(ValueKind::StringValue(v.into())),
    };
    let fields = metadata.iter().map(|(k, v)| ((*k).to_owned(), text(v)));
    let node = Node {
        id: id.into(),
        locality: (!zone.is_empty()).then(|| Locality {
            region: "r1".into(),
            zone: zone.into(),
            ..Locality::default()
        }),
        metadata: Some(Struct {
            fields: fields.collect(),
        }),
        ..Node::default()
    };
    NodeInfo::parse(Some(&node)).expect("a node")
}

impl Mesh {
    fn new(objects: &str) -> Self {
        let store = Arc::new(Store::new(Default::default()));
        let options = EndpointOptions { from_pods: true };
        let planner = Planner::new(store.clone(), MeshConfig::default(), options, "t".into());
        let sidecar = |ip: &str, pod: &str, ns: &str| {
            format!("sidecar~{ip}~{pod}.{ns}~{ns}.svc.cluster.local")
        };
        let dns = [("DNS_CAPTURE", "true")];
        let nodes = vec![
            node(&sidecar("10.0.0.1", "a-1", "default"), "z1", &[]),
            node(&sidecar("10.0.0.2", "a-2", "default"), "z1", &[]),
            node(&sidecar("10.0.0.3", "b-1", "default"), "z1", &[]),
            node(&sidecar("10.0.0.4", "b-2", "default"), "z2", &[]),
            node(&sidecar("10.0.0.5", "c-1", "default"), "", &dns),
            node(&sidecar("10.0.1.1", "d-1", "other"), "z1", &[]),
            node(
                "router~10.0.9.1~gw-1.istio-system~istio-system.svc.cluster.local",
                "z1",
                &[],
            ),
            // One whose Pod nobody knows.
            node(&sidecar("10.0.7.7", "vm-1", "default"), "", &[]),
        ];
        let mut mesh = Self {
            store,
            planner,
            nodes,
        };
        mesh.planner.apply(Event::Synced);
        mesh.apply(objects);
        mesh
    }

    fn apply(&mut self, yaml: &str) {
        let read = read_yaml(yaml, "t.yaml", "default");
        assert!(!read.has_errors(), "{:?}", read.diagnostics);
        for object in read.objects {
            self.planner.apply(Event::Upsert(Arc::new(object)));
        }
        self.planner.publish(Instant::now());
        // A step that is refused would prove nothing.
        let found = &self.store.current().diagnostics;
        let refused = found.iter().find(|d| d.severity == Severity::Error);
        assert!(refused.is_none(), "{refused:?}");
    }

    fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.planner.apply(Event::Delete(ObjectKey {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }));
        self.planner.publish(Instant::now());
    }

    fn views(&self) -> Vec<Arc<ProxyView>> {
        self.nodes.iter().map(|n| self.store.view(n)).collect()
    }
}

fn all() -> Names {
    Names {
        wildcard: true,
        ..Names::default()
    }
}

fn named(names: Vec<String>) -> Names {
    Names {
        wildcard: false,
        names: names.into_iter().collect(),
    }
}

/// What a proxy would ask for: everything, and by name all that it is told to ask for.
fn asked(view: &ProxyView) -> Vec<(ResourceType, Names)> {
    let cx = view.context();
    let mut routes = listener::route_names(&cx);
    routes.push("nobody-knows-this".into());
    let mut clusters = endpoint::all_names(&cx);
    clusters.push("outbound|1||nobody.example".into());
    let mut out: Vec<_> = WHOLE.into_iter().map(|t| (t, all())).collect();
    out.push((ResourceType::Route, named(routes)));
    out.push((ResourceType::Endpoint, named(clusters)));
    out
}

fn anew(view: &ProxyView, t: ResourceType, names: &Names) -> ResourceSet {
    lateen_xds::generate(&view.context(), t, names.names.iter().map(String::as_str))
}

fn shown(set: &ResourceSet) -> Vec<(String, u64)> {
    set.iter().map(|r| (r.name.clone(), r.version)).collect()
}

/// Holds the views of before, as streams do, while the new ones are made.
fn check(mesh: &Mesh, step: &str, before: Vec<Arc<ProxyView>>) -> Vec<Arc<ProxyView>> {
    let mut after = Vec::new();
    for (i, node) in mesh.nodes.iter().enumerate() {
        let view = mesh.store.view(node);
        for (t, names) in asked(&view) {
            assert_eq!(
                shown(&view.generate(t, &names)),
                shown(&anew(&view, t, &names)),
                "{step}: {} of {}",
                t.short_name(),
                view.key.name
            );
        }
        // A stream that lags asks by its old view, after others have gone on.
        if let Some(old) = before.get(i + 1) {
            for (t, names) in asked(old) {
                assert_eq!(
                    shown(&old.generate(t, &names)),
                    shown(&anew(old, t, &names)),
                    "{step}, lagging: {} of {}",
                    t.short_name(),
                    old.key.name
                );
            }
        }
        after.push(view);
    }
    after
}

fn pod(name: &str, ns: &str, ip: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}, labels: {{{labels}}}}}\n\
         spec: {{nodeName: n-{name}, containers: [{{name: c, image: i}}]}}\n\
         status: {{podIP: {ip}, phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}\n"
    )
}

fn service(name: &str, ns: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {ns}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}, {{name: tcp, port: 3306}}, {{name: what, port: 7000}}]{rest}}}\n"
    )
}

fn entry(i: usize) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: e{i}, namespace: default}}\n\
         spec: {{hosts: [e{i}.example.com], location: MESH_EXTERNAL, resolution: DNS,\n\
         ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 443, name: tls, protocol: TLS}}]}}\n"
    )
}

fn base() -> String {
    [
        service("a", "default", ", clusterIP: 10.96.0.1"),
        service("b", "default", ", clusterIP: 10.96.0.2"),
        service("c", "default", ", clusterIP: 10.96.0.3"),
        service("d", "other", ", clusterIP: 10.96.0.4"),
        service("gw", "istio-system", ", clusterIP: 10.96.0.5"),
        pod("a-1", "default", "10.0.0.1", "app: a, version: v1"),
        pod("a-2", "default", "10.0.0.2", "app: a, version: v2"),
        pod("b-1", "default", "10.0.0.3", "app: b, version: v1"),
        pod("b-2", "default", "10.0.0.4", "app: b, version: v2"),
        pod("c-1", "default", "10.0.0.5", "app: c"),
        pod("d-1", "other", "10.0.1.1", "app: d"),
        pod(
            "gw-1",
            "istio-system",
            "10.0.9.1",
            "app: gw, istio: ingressgateway",
        ),
        entry(0),
    ]
    .concat()
}

/// Changes one after another, each of another kind of input.
fn steps() -> Vec<(&'static str, String)> {
    let istio = "apiVersion: networking.istio.io/v1";
    vec![
        ("a service entry", entry(1)),
        ("a headless service", service("a", "default", ", clusterIP: None")),
        ("a pod of it", pod("a-3", "default", "10.0.0.9", "app: a")),
        ("a service for clients of its node", service("b", "default", ", clusterIP: 10.96.0.2, internalTrafficPolicy: Local")),
        ("other labels", pod("a-2", "default", "10.0.0.2", "app: b, version: v9")),
        ("subsets", format!("{istio}\nkind: DestinationRule\nmetadata: {{name: b, namespace: default}}\n\
            spec: {{host: b, subsets: [{{name: v1, labels: {{version: v1}}}}]}}\n")),
        ("a rule for some clients", format!("{istio}\nkind: DestinationRule\nmetadata: {{name: c, namespace: default}}\n\
            spec: {{host: c, workloadSelector: {{matchLabels: {{app: a}}}}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7}}}}}}}}\n")),
        ("shares by locality", format!("{istio}\nkind: DestinationRule\nmetadata: {{name: far, namespace: default}}\n\
            spec: {{host: a, trafficPolicy: {{loadBalancer: {{localityLbSetting: {{enabled: true, distribute: [{{from: 'r1/z1/*', to: {{'r1/z1/*': 80, 'r1/z2/*': 20}}}}]}}}}}}}}\n")),
        ("failover by labels", format!("{istio}\nkind: DestinationRule\nmetadata: {{name: d, namespace: other}}\n\
            spec: {{host: d, trafficPolicy: {{outlierDetection: {{consecutive5xxErrors: 3}}, loadBalancer: {{localityLbSetting: {{enabled: true, failoverPriority: [version]}}}}}}}}\n")),
        ("failover on one port", format!("{istio}\nkind: DestinationRule\nmetadata: {{name: b, namespace: default}}\n\
            spec: {{host: b, trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{enabled: true, failoverPriority: [app]}}}}}}]}}}}\n")),
        ("a route for some clients", format!("{istio}\nkind: VirtualService\nmetadata: {{name: b, namespace: default}}\n\
            spec: {{hosts: [b], http: [{{match: [{{sourceLabels: {{version: v1}}}}], route: [{{destination: {{host: c}}}}]}}, {{route: [{{destination: {{host: b}}}}]}}],\n\
            tcp: [{{match: [{{port: 3306, sourceLabels: {{app: a}}}}], route: [{{destination: {{host: c, port: {{number: 3306}}}}}}]}}]}}\n")),
        ("a gateway", format!("{istio}\nkind: Gateway\nmetadata: {{name: g, namespace: istio-system}}\n\
            spec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']}}]}}\n---\n\
            {istio}\nkind: VirtualService\nmetadata: {{name: edge, namespace: default}}\n\
            spec: {{hosts: ['*'], gateways: [istio-system/g], http: [{{route: [{{destination: {{host: c}}}}]}}]}}\n")),
        ("a sidecar object for some", format!("{istio}\nkind: Sidecar\nmetadata: {{name: s, namespace: default}}\n\
            spec: {{workloadSelector: {{labels: {{version: v1}}}}, egress: [{{hosts: ['./b.default.svc.cluster.local']}}]}}\n")),
        ("mesh settings", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
            data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}\n".to_owned()),
        ("a service that changes its ports", "apiVersion: v1\nkind: Service\nmetadata: {name: c, namespace: default}\n\
            spec: {clusterIP: 10.96.0.3, selector: {app: c}, ports: [{name: grpc, port: 80, targetPort: 8080}]}\n".to_owned()),
    ]
}

#[test]
fn what_is_kept_is_what_would_be_made_anew() {
    let mut mesh = Mesh::new(&base());
    let mut views = check(&mesh, "the start", Vec::new());
    for (what, yaml) in steps() {
        mesh.apply(&yaml);
        views = check(&mesh, what, views);
    }
    for (kind, ns, name) in [
        (Kind::Sidecar, "default", "s"),
        (Kind::ServiceEntry, "default", "e0"),
        (Kind::DestinationRule, "default", "c"),
        (Kind::Pod, "default", "a-3"),
        (Kind::VirtualService, "default", "b"),
        (Kind::Service, "default", "b"),
    ] {
        mesh.delete(kind, ns, name);
        views = check(&mesh, &format!("without {kind} {name}"), views);
    }
    // Nothing is made twice for those who are alike: asked again, it is the same value.
    let again = mesh.views();
    for (old, new) in views.iter().zip(&again) {
        let clusters = |v: &ProxyView| v.generate(ResourceType::Cluster, &all());
        assert!(Arc::ptr_eq(&clusters(old), &clusters(new)));
    }
}

fn find(view: &ProxyView, t: ResourceType, name: &str) -> Arc<Resource> {
    let set = match t {
        ResourceType::Cluster | ResourceType::Listener => view.generate(t, &all()),
        _ => view.generate(t, &named(vec![name.to_owned()])),
    };
    set.get(name)
        .unwrap_or_else(|| panic!("{name} is there"))
        .clone()
}

#[test]
fn alike_proxies_share_and_unchanged_clusters_stay() {
    const B: &str = "outbound|80||b.default.svc.cluster.local";
    let mut mesh = Mesh::new(&base());
    let before = mesh.views();
    let shared = [
        (ResourceType::Cluster, B),
        (ResourceType::Listener, "0.0.0.0_80"),
        (ResourceType::Route, "80"),
        (ResourceType::Endpoint, B),
    ];
    // Nothing asks for labels of a-1, a-2, b-1 and b-2, nor where they stand.
    for (t, name) in shared {
        let first = find(&before[0], t, name);
        for other in &before[1..4] {
            assert!(Arc::ptr_eq(&first, &find(other, t, name)), "{name}");
        }
        let elsewhere = find(&before[5], t, name);
        assert!(!Arc::ptr_eq(&first, &elsewhere), "another namespace");
    }
    // What leads to the own workload is each one's own.
    let inbound = |v: &ProxyView| find(v, ResourceType::Listener, "virtualInbound");
    assert!(!Arc::ptr_eq(&inbound(&before[0]), &inbound(&before[1])));

    mesh.apply(&entry(1));
    let after = mesh.views();
    let kept = [(ResourceType::Cluster, B), (ResourceType::Endpoint, B)];
    for (old, new) in before.iter().zip(&after) {
        for (t, name) in kept {
            let (old, new) = (find(old, t, name), find(new, t, name));
            assert_eq!(old.version, new.version);
        }
    }
    for (t, name) in kept {
        let made_before = find(&before[0], t, name);
        // The old view lost it to the new one; what the new one has is what was there.
        assert_eq!(made_before.version, find(&after[0], t, name).version);
    }
    assert!(Arc::ptr_eq(
        &inbound(&after[0]),
        &find(&after[0], ResourceType::Listener, "virtualInbound")
    ));
}

#[test]
fn a_change_makes_only_its_own_clusters() {
    let mut mesh = Mesh::new(&base());
    let before = mesh.views();
    let clusters = |views: &[Arc<ProxyView>]| -> Vec<Arc<ResourceSet>> {
        let all = all();
        let sets = views
            .iter()
            .map(|v| v.generate(ResourceType::Cluster, &all));
        sets.collect()
    };
    let first = clusters(&before);
    mesh.apply(&entry(1));
    for (old, new) in first.iter().zip(clusters(&mesh.views())) {
        let made = |r: &&Arc<Resource>| !old.get(&r.name).is_some_and(|o| Arc::ptr_eq(o, r));
        let made: Vec<&str> = new.iter().filter(made).map(|r| r.name.as_str()).collect();
        let of_entry = |n: &&&str| n.ends_with("e1.example.com");
        assert_eq!(made.iter().filter(of_entry).count(), 2, "{made:?}");
        // And those of no service, which cost nothing.
        assert!(made.len() <= 4, "{made:?}");
    }
}

/// Streams run on several threads, and configurations come while they look.
#[test]
fn proxies_alike_share_whoever_looks_first() {
    let mut mesh = Mesh::new(&base());
    let last = 60;
    let (store, nodes) = (mesh.store.clone(), mesh.nodes[..3].to_vec());
    let looking = nodes.into_iter().map(|node| {
        let store = store.clone();
        std::thread::spawn(move || {
            // As a stream does: a view is held until the next one is there.
            let mut view = store.view(&node);
            while store.current().number < last || view.configuration.number < last {
                view = store.view(&node);
                view.generate(ResourceType::Cluster, &all());
            }
            view
        })
    });
    let looking: Vec<_> = looking.collect();
    let mut i = 0;
    while mesh.store.current().number < last {
        i += 1;
        mesh.apply(&entry(i));
    }
    let views: Vec<_> = looking
        .into_iter()
        .map(|t| t.join().expect("ends"))
        .collect();
    let shared = |v: &ProxyView| Arc::as_ptr(&v.generated.shared);
    assert!(views.iter().all(|v| shared(v) == shared(&views[0])));
}

/// Prints what one more service entry costs six sidecars of one namespace and a gateway,
/// made anew for each of them and with what is kept.
#[test]
#[ignore = "a measurement: run it with --nocapture and read"]
fn cost_of_one_entry_in_a_large_mesh() {
    const ENTRIES: u32 = 100;
    let mut mesh = Mesh::new(&base());
    mesh.nodes.truncate(7);
    for (i, n) in mesh.nodes.iter_mut().enumerate().take(6) {
        let id = format!(
            "sidecar~10.0.0.{}~p-{i}.default~default.svc.cluster.local",
            i + 1
        );
        *n = node(&id, "z1", &[]);
    }
    let mut compile = Duration::ZERO;
    // Streams hold the views of before: without them nothing would be kept.
    let mut held = mesh.views();
    let mut costs: BTreeMap<ResourceType, (Duration, Duration)> = BTreeMap::new();
    for i in 1..=ENTRIES {
        let begun = Instant::now();
        mesh.apply(&entry(i as usize));
        compile += begun.elapsed();
        let begun = Instant::now();
        let views = mesh.views();
        compile += begun.elapsed();
        for view in &views {
            for (t, names) in asked(view) {
                let begun = Instant::now();
                view.generate(t, &names);
                let kept = begun.elapsed();
                anew(view, t, &names);
                let cost = costs.entry(t).or_default();
                cost.0 += kept;
                cost.1 += begun.elapsed() - kept;
            }
        }
        held = views;
    }
    drop(held);
    println!(
        "{} proxies, {ENTRIES} entries; each costs",
        mesh.nodes.len()
    );
    println!("  compile and views {:?}", compile / ENTRIES);
    for (t, (kept, fresh)) in costs {
        let (kept, fresh) = (kept / ENTRIES, fresh / ENTRIES);
        println!("  {}: {kept:?}, anew {fresh:?}", t.short_name());
    }
}
