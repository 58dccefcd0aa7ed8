//! What changes when one thing changes: snapshots share what stayed the same,
//! and the endpoint road touches only the services concerned.

use lateen_compile::{Compiler, EndpointCompiler, EndpointOptions};
use lateen_model::{Health, MeshConfig, Service, ServiceKey};
use lateen_resources::{Kind, ObjectKey, ObjectSet, read_yaml};
use std::sync::Arc;

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: "default".into(),
        name: name.into(),
    }
}

fn put(objects: &mut ObjectSet, yaml: &str) -> Vec<ObjectKey> {
    let read = read_yaml(yaml, "t.yaml", "default");
    assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
    let mut changed = Vec::new();
    for o in read.objects {
        let key = ObjectKey::from(&o);
        if objects.insert(Arc::new(o)) {
            changed.push(key);
        }
    }
    changed
}

fn service(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{clusterIP: 10.96.0.1, \
         selector: {{app: {name}}}, ports: [{{port: 80, name: http, targetPort: web}}]}}}}\n---\n"
    )
}

fn pod(app: &str, name: &str, ip: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {app}}}}}, \
         spec: {{containers: [{{name: a, ports: [{{name: web, containerPort: 8080}}]}}]}}, \
         status: {{phase: Running, podIP: {ip}}}}}\n---\n"
    )
}

fn slice(app: &str, name: &str, endpoints: &[(&str, &str, &str)]) -> String {
    let list: Vec<String> = endpoints
        .iter()
        .map(|(ip, pod, conditions)| {
            format!(
                "{{addresses: [{ip}], conditions: {conditions}, targetRef: {{kind: Pod, name: {pod}}}}}"
            )
        })
        .collect();
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}, \
         labels: {{kubernetes.io/service-name: {app}}}}}, addressType: IPv4, \
         ports: [{{name: http, port: 8080}}], endpoints: [{}]}}\n---\n",
        list.join(",")
    )
}

fn service_key(name: &str) -> ServiceKey {
    ServiceKey {
        hostname: format!("{name}.default.svc.cluster.local").into(),
        namespace: "default".into(),
    }
}

#[test]
fn endpoints_follow_pods_and_slices() {
    let mut objects = ObjectSet::default();
    put(
        &mut objects,
        &(service("a") + &service("b") + &pod("a", "a1", "10.0.0.1")),
    );
    put(
        &mut objects,
        &slice("a", "a-1", &[("10.0.0.1", "a1", "{ready: true}")]),
    );
    let mut compiler = Compiler::new(MeshConfig::default());
    let snapshot = compiler.compile(&objects).snapshot;
    let mut road = EndpointCompiler::new(EndpointOptions::default());
    let touched = road.rebuild(&objects, &snapshot);
    assert_eq!(touched.into_iter().collect::<Vec<_>>(), [service_key("a")]);
    let first = road.table();

    // A second slice of the same service, one endpoint terminating.
    let changes = put(
        &mut objects,
        &slice(
            "a",
            "a-2",
            &[
                (
                    "10.0.0.2",
                    "a2",
                    "{ready: false, serving: true, terminating: true}",
                ),
                ("10.0.0.3", "a3", "{ready: false}"),
            ],
        ),
    );
    let touched = road.update(&objects, &snapshot, &changes);
    assert_eq!(touched.len(), 1);
    let table = road.table();
    let health: Vec<Health> = table
        .endpoints(&service_key("a"), 80)
        .iter()
        .map(|e| e.health)
        .collect();
    assert_eq!(
        health,
        [Health::Healthy, Health::Draining, Health::Unhealthy]
    );
    assert_eq!(
        first.endpoints(&service_key("a"), 80).len(),
        1,
        "tables are immutable"
    );
    assert_eq!(
        table.instances_at("10.0.0.3".parse().unwrap())[0].target_port,
        8080
    );

    // The same again is no change.
    assert!(road.update(&objects, &snapshot, &changes).is_empty());

    // Labels of a pod are labels of its endpoint.
    let relabelled = pod("a", "a1", "10.0.0.1").replace("app: a}", "app: a, version: v2}");
    let changes = put(&mut objects, &relabelled);
    assert_eq!(road.update(&objects, &snapshot, &changes).len(), 1);
    let table = road.table();
    let labels = &table.endpoints(&service_key("a"), 80)[0].labels;
    assert_eq!(labels.get("version").map(|v| &**v), Some("v2"));

    objects.remove(Kind::EndpointSlice, "default", "a-1");
    objects.remove(Kind::EndpointSlice, "default", "a-2");
    let gone = [
        key(Kind::EndpointSlice, "a-1"),
        key(Kind::EndpointSlice, "a-2"),
    ];
    assert_eq!(road.update(&objects, &snapshot, &gone).len(), 1);
    assert!(road.table().endpoints(&service_key("a"), 80).is_empty());
    assert!(
        road.table()
            .instances_at("10.0.0.3".parse().unwrap())
            .is_empty()
    );
}

#[test]
fn without_slices_the_selected_pods_serve() {
    let mut objects = ObjectSet::default();
    put(&mut objects, &(service("a") + &pod("a", "a1", "10.0.0.1")));
    let snapshot = Compiler::new(MeshConfig::default())
        .compile(&objects)
        .snapshot;
    let mut road = EndpointCompiler::new(EndpointOptions { from_pods: true });
    road.rebuild(&objects, &snapshot);
    let table = road.table();
    assert_eq!(
        table.endpoints(&service_key("a"), 80)[0].port,
        8080,
        "the named port is resolved"
    );

    let changes = put(&mut objects, &pod("a", "a2", "10.0.0.2"));
    assert_eq!(road.update(&objects, &snapshot, &changes).len(), 1);
    assert_eq!(road.table().endpoints(&service_key("a"), 80).len(), 2);

    // A pod that moved to another app leaves the service.
    let changes = put(&mut objects, &pod("other", "a2", "10.0.0.2"));
    assert_eq!(road.update(&objects, &snapshot, &changes).len(), 1);
    assert_eq!(road.table().endpoints(&service_key("a"), 80).len(), 1);
}

#[test]
fn listed_endpoints_of_an_entry_change_without_a_new_service() {
    let entry = |ip: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e}}, spec: \
             {{hosts: [e.com], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], \
             endpoints: [{{address: {ip}}}]}}}}"
        )
    };
    let mut objects = ObjectSet::default();
    put(&mut objects, &entry("10.0.0.1"));
    let mut compiler = Compiler::new(MeshConfig::default());
    let first = compiler.compile(&objects).snapshot;
    let mut road = EndpointCompiler::new(EndpointOptions::default());
    road.rebuild(&objects, &first);
    let changes = put(&mut objects, &entry("10.0.0.2"));
    let second = compiler.compile(&objects);
    assert!(second.changed.is_empty(), "{:?}", second.changed);
    // The road works with the old snapshot as well as with the new one.
    assert_eq!(road.update(&objects, &first, &changes).len(), 1);
}

#[test]
fn one_change_leaves_the_rest_in_place() {
    let mut objects = ObjectSet::default();
    put(&mut objects, &(service("a") + &service("b")));
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: \
                 {hosts: [e.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}}";
    put(&mut objects, entry);
    let mut compiler = Compiler::new(MeshConfig::default());
    let first = compiler.compile(&objects);
    assert!(first.changed.all);
    let vs = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v}, \
              spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}}";
    put(&mut objects, vs);
    let second = compiler.compile(&objects);
    let names: Vec<String> = second
        .changed
        .keys
        .iter()
        .map(|k| format!("{} {}", k.kind, k.name))
        .collect();
    assert_eq!(names, ["VirtualService v"]);
    assert!(second.snapshot.version > first.snapshot.version);
    let find =
        |s: &[Arc<Service>], host: &str| s.iter().find(|s| &*s.hostname == host).cloned().unwrap();
    for host in ["a.default.svc.cluster.local", "e.com"] {
        let (old, new) = (
            find(first.snapshot.services(), host),
            find(second.snapshot.services(), host),
        );
        assert!(Arc::ptr_eq(&old, &new), "{host} was converted again");
        assert_eq!(new.auto_address.is_some(), host == "e.com");
    }

    objects.remove(Kind::VirtualService, "default", "v");
    let third = compiler.compile(&objects);
    assert_eq!(third.changed.keys.len(), 1);

    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, \
               data: {mesh: 'accessLogFile: /dev/stdout'}}";
    put(&mut objects, map);
    let fourth = compiler.compile(&objects);
    assert!(fourth.changed.all);
    assert_eq!(&*fourth.snapshot.mesh.access_log_file, "/dev/stdout");
}

/// Figures for a large mesh: `cargo test --release -p lateen-compile --test incremental -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures; nothing to assert"]
fn figures() {
    const SERVICES: usize = 5_000;
    let mut objects = ObjectSet::default();
    let start = std::time::Instant::now();
    for i in 0..SERVICES {
        let (name, ip) = (format!("s{i}"), format!("10.{}.{}.1", i / 250, i % 250));
        let rules = format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}}}, \
             spec: {{hosts: [{name}], http: [{{route: [{{destination: {{host: {name}, subset: v1}}}}]}}]}}}}\n---\n\
             {{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}}}, \
             spec: {{host: {name}, subsets: [{{name: v1, labels: {{app: {name}}}}}]}}}}\n---\n"
        );
        let slice = slice(&name, &name, &[(&ip, &name, "{ready: true}")]);
        put(
            &mut objects,
            &(service(&name) + &pod(&name, &name, &ip) + &slice + &rules),
        );
    }
    println!("read {SERVICES} services: {:?}", start.elapsed());
    let mut compiler = Compiler::new(MeshConfig::default());
    let start = std::time::Instant::now();
    let snapshot = compiler.compile(&objects).snapshot;
    println!("first compilation: {:?}", start.elapsed());
    let mut road = EndpointCompiler::new(EndpointOptions::default());
    let start = std::time::Instant::now();
    road.rebuild(&objects, &snapshot);
    println!("first endpoint table: {:?}", start.elapsed());
    let table = road.table();
    let changes = put(
        &mut objects,
        &slice("s7", "s7", &[("10.250.0.1", "s7", "{ready: true}")]),
    );
    let start = std::time::Instant::now();
    assert_eq!(road.update(&objects, &snapshot, &changes).len(), 1);
    println!("one slice changed: {:?}", start.elapsed());
    drop(table);
    put(&mut objects, &service("s7").replace("port: 80", "port: 81"));
    let start = std::time::Instant::now();
    let next = compiler.compile(&objects);
    println!(
        "one service changed: {:?} ({} keys)",
        start.elapsed(),
        next.changed.keys.len()
    );
    let start = std::time::Instant::now();
    let found = lateen_compile::analyze(&objects);
    println!("analysis: {:?} ({} findings)", start.elapsed(), found.len());
}
