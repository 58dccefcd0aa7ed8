//! The manifests of every profile as data: `testdata/PROFILE.yaml` (the CRDs as names only,
//! they have their own tests). `BLESS=1` writes the files.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn sets(list: &[&str]) -> Vec<String> {
    list.iter().map(|set| (*set).to_owned()).collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn profiles_give_these_objects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/install/testdata");
    let mut wrong = Vec::new();
    for profile in PROFILES {
        let mut objects = manifests(&Values::build(profile, &[], "1.0.0").unwrap()).unwrap();
        for object in &mut objects {
            if object["kind"] == "CustomResourceDefinition" {
                *object = json!({"kind": object["kind"], "metadata": {"name": object["metadata"]["name"]}});
            }
        }
        let text = print(&objects);
        let (read, errors) = lateen_resources::yaml::documents(&text);
        assert!(errors.is_empty(), "{errors:?}");
        let read: Vec<Value> = read.into_iter().map(|document| document.value).collect();
        assert_eq!(read, objects, "{profile}: the printed form is read back");
        let golden = folder.join(format!("{profile}.yaml"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &text).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_object_can_be_applied_in_order() {
    let objects = manifests_for("demo", &[]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        assert!(object["apiVersion"].is_string(), "{kind}");
        let name = object["metadata"]["name"].as_str().unwrap();
        let namespace = object["metadata"]["namespace"].as_str();
        if let Some(namespace) = namespace {
            assert!(
                seen.contains(&format!("Namespace/{namespace}")),
                "{kind} {name}"
            );
        }
        let spec = object.pointer("/spec/template/spec");
        for account in spec
            .and_then(|spec| spec["serviceAccountName"].as_str())
            .into_iter()
        {
            assert!(
                seen.contains(&format!("ServiceAccount/{account}")),
                "{name}"
            );
        }
        assert!(
            seen.insert(format!("{kind}/{name}")),
            "{kind} {name} is there once"
        );
    }
    assert_eq!(objects[0]["kind"], "Namespace");
}

#[test]
fn the_ingress_gateway_has_its_ports_in_order() {
    let objects = manifests_for("default", &[]).unwrap();
    let service = find(&objects, "Service", "istio-ingressgateway");
    let ports: Vec<i64> = service["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["port"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, [15021, 80, 443, 31400]);
    let pod = &find(&objects, "Deployment", "istio-ingressgateway")["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["istio"], "ingressgateway");
    assert_eq!(
        pod["metadata"]["labels"]["sidecar.istio.io/inject"],
        "false"
    );
    let proxy = &pod["spec"]["containers"][0];
    assert_eq!(proxy["args"][1], "router");
    assert!(
        proxy["image"]
            .as_str()
            .unwrap()
            .starts_with("docker.io/lateen/proxyv2:")
    );
    assert!(
        !objects
            .iter()
            .any(|o| o["metadata"]["name"] == "istio-egressgateway")
    );
    let pilot = find(&objects, "Service", "istio-pilot");
    assert_eq!(pilot["metadata"]["labels"]["app"], "istio-pilot");
}

#[test]
fn settings_reach_their_places() {
    let objects = manifests_for(
        "default",
        &sets(&[
            "profile=demo",
            "hub=example.org/mesh",
            "tag=1.20",
            "meshConfig.accessLogFile=/dev/null",
            "meshConfig.defaultConfig.proxyMetadata.ISTIO_META_DNS_CAPTURE=true",
            "components.egressGateways[0].enabled=false",
            "components.ingressGateways[1].name=second",
            "components.ingressGateways[1].enabled=true",
            "values.gateways.istio-ingressgateway.type=NodePort",
            "values.gateways.istio-ingressgateway.ports[1].nodePort=31380",
            "values.gateways.istio-ingressgateway.serviceAnnotations.a\\.b/c=d",
            "values.pilot.env.ENABLE_NATIVE_SIDECARS=true",
            "values.global.imagePullSecrets={one,two}",
        ]),
    )
    .unwrap();
    let service = find(&objects, "Service", "istio-ingressgateway");
    assert_eq!(service["spec"]["type"], "NodePort");
    assert_eq!(service["spec"]["ports"][1]["nodePort"], 31380);
    assert_eq!(service["metadata"]["annotations"], json!({"a.b/c": "d"}));
    assert!(
        objects
            .iter()
            .any(|o| o["kind"] == "Deployment" && o["metadata"]["name"] == "second")
    );
    assert!(
        !objects
            .iter()
            .any(|o| o["metadata"]["name"] == "istio-egressgateway")
    );
    let istiod =
        &find(&objects, "Deployment", "istiod")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(istiod["image"], "example.org/mesh/pilot:1.20");
    let mesh = find(&objects, "ConfigMap", "istio")["data"]["mesh"]
        .as_str()
        .unwrap();
    assert!(mesh.contains("accessLogFile: /dev/null"), "{mesh}");
    let gateway = &find(&objects, "Deployment", "istio-ingressgateway")["spec"]["template"]["spec"];
    assert_eq!(
        gateway["imagePullSecrets"],
        json!([{"name": "one"}, {"name": "two"}])
    );
}

#[test]
fn wrong_settings_say_what_is_wrong() {
    let error =
        |profile: &str, set: &[&str]| manifests_for(profile, &sets(set)).unwrap_err().to_string();
    assert_eq!(
        error("nope", &[]),
        "unknown profile \"nope\"; there are: default, demo, minimal, empty"
    );
    assert_eq!(error("default", &["x"]), "--set x: expected key=value");
    assert!(error("default", &["nope.x=1"]).contains("the key begins with one of profile, hub"));
    assert!(error("default", &["hub.x=1"]).contains("nothing is below it"));
    assert!(error("default", &["values..x=1"]).contains("a part of the key is empty"));
    assert!(
        error("default", &["components.ingressGateways[9].enabled=true"])
            .contains("the list has 1 elements")
    );
    assert!(
        error("default", &["components.ingressGateways[x].enabled=true"])
            .contains("[x] is no index")
    );
}

#[test]
fn a_revision_names_its_objects() {
    let objects = manifests_for("default", &sets(&["revision=canary"])).unwrap();
    find(&objects, "Deployment", "istiod-canary");
    find(&objects, "ConfigMap", "istio-canary");
    let webhook = find(
        &objects,
        "MutatingWebhookConfiguration",
        "istio-sidecar-injector-canary",
    );
    assert_eq!(webhook["webhooks"].as_array().unwrap().len(), 2);
    assert!(
        !objects
            .iter()
            .any(|o| o["metadata"]["name"] == "istio-pilot")
    );
}

#[test]
fn an_earlier_istio_is_asked_for_by_a_value() {
    let arguments = |set: &[String]| {
        let objects = manifests_for("default", set).unwrap();
        find(&objects, "Deployment", "istiod")["spec"]["template"]["spec"]["containers"][0]["args"]
            .clone()
    };
    let today = arguments(&[]);
    assert!(!today.to_string().contains("--compat"), "{today}");
    let then = arguments(&["values.pilot.compat=1.0".to_owned()]);
    let list = then.as_array().unwrap();
    assert_eq!(list[list.len() - 2..], ["--compat", "1.0"]);
}
