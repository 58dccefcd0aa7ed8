//! Objects to snapshot, as data: each folder of `scenarios/` holds `input.yaml`
//! and what is expected of it: `snapshot.txt` and `diagnostics.txt`.
//! `LATEEN_BLESS=1 cargo test -p lateen-compile --test scenarios` writes them anew.

use lateen_compile::{analyze, compile_once};
use lateen_model::{EndpointTable, MeshConfig, Snapshot};
use lateen_resources::{ObjectSet, read_yaml};
use std::fmt::Write;
use std::fs;
use std::path::Path;

#[test]
fn scenarios() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut folders: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    let wrong: Vec<String> = folders.iter().filter_map(|f| check(f).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(folder: &Path) -> Result<(), String> {
    let text = fs::read_to_string(folder.join("input.yaml")).unwrap();
    let read = read_yaml(&text, "input.yaml", "default");
    let mut lines: Vec<String> = read.diagnostics.iter().map(ToString::to_string).collect();
    let objects: ObjectSet = read.objects.into_iter().collect();
    let (compiled, endpoints) = compile_once(&objects, MeshConfig::default());
    lines.extend(compiled.diagnostics.iter().map(ToString::to_string));
    lines.extend(analyze(&objects).iter().map(ToString::to_string));
    lines.dedup();
    let diagnostics = lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    compare(&folder.join("diagnostics.txt"), &diagnostics)?;
    compare(
        &folder.join("snapshot.txt"),
        &dump(&compiled.snapshot, &endpoints),
    )
}

fn compare(file: &Path, now: &str) -> Result<(), String> {
    if std::env::var_os("LATEEN_BLESS").is_some() {
        fs::write(file, now).unwrap();
        return Ok(());
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected == now {
        return Ok(());
    }
    let line = expected.lines().zip(now.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(expected.lines().count().min(now.lines().count()));
    Err(format!(
        "{}:{}\n  expected: {}\n  now:      {}",
        file.display(),
        line + 1,
        expected.lines().nth(line).unwrap_or("(end)"),
        now.lines().nth(line).unwrap_or("(end)"),
    ))
}

fn dump(snapshot: &Snapshot, endpoints: &EndpointTable) -> String {
    let mut out = String::new();
    for s in snapshot.services() {
        writeln!(
            out,
            "service {} ({}) {:?} {:?}{}",
            s.hostname,
            s.origin,
            s.resolution,
            s.addresses,
            s.auto_address
                .map(|a| format!(" auto {a}"))
                .unwrap_or_default(),
        )
        .unwrap();
        for p in &s.ports {
            writeln!(
                out,
                "  port {} {:?} {} -> {:?}",
                p.number, p.name, p.protocol, p.target
            )
            .unwrap();
            for e in endpoints.endpoints(&s.key(), p.number) {
                let labels: Vec<String> =
                    e.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                writeln!(
                    out,
                    "    {:?}:{} {:?} {}/{} pod={} workload={} sa={} {}:{} [{}]",
                    e.address,
                    e.port,
                    e.health,
                    e.locality.region,
                    e.locality.zone,
                    e.pod,
                    e.workload,
                    e.service_account,
                    e.canonical_name,
                    e.canonical_revision,
                    labels.join(","),
                )
                .unwrap();
            }
        }
    }
    for g in snapshot.gateways() {
        writeln!(out, "gateway {} {:?}", g.reference(), g.selector.0).unwrap();
        for s in &g.servers {
            writeln!(
                out,
                "  {} {} {:?} tls={:?}",
                s.port, s.protocol, s.hosts, s.tls
            )
            .unwrap();
        }
    }
    for v in snapshot.virtual_services() {
        writeln!(
            out,
            "virtual service {}/{} hosts={:?} gateways={:?} {:?}",
            v.namespace, v.name, v.hosts, v.gateways, v.export_to
        )
        .unwrap();
        for h in &v.http {
            writeln!(out, "  http {:?} {}", h.name, h.origin.field).unwrap();
            for m in &h.matches {
                writeln!(out, "    match {m:?}").unwrap();
            }
            writeln!(out, "    {:?}", h.action).unwrap();
        }
        for t in &v.tls {
            writeln!(out, "  tls {:?} -> {:?}", t.matches, t.destinations).unwrap();
        }
        for t in &v.tcp {
            writeln!(out, "  tcp {:?} -> {:?}", t.matches, t.destinations).unwrap();
        }
    }
    for r in snapshot.destination_rules() {
        writeln!(
            out,
            "destination rule {}/{} {} {:?}",
            r.namespace, r.name, r.host, r.export_to
        )
        .unwrap();
        writeln!(out, "  policy {:?}", r.policy).unwrap();
        for s in &r.subsets {
            writeln!(out, "  subset {} {:?} {:?}", s.name, s.labels.0, s.policy).unwrap();
        }
    }
    out
}
