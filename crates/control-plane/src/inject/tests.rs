//! Injection as data: `testdata/NAME.in.yaml` through `kube-inject` gives `NAME.out.yaml`, and
//! what comes out comes out again unchanged. A line `# config: KEY=VALUE` in the input sets an
//! installation value, `# mesh: YAML` the mesh configuration. `BLESS=1` writes the outputs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::files::inject;
use super::policy::{NEVER, webhook_selects};
use super::*;

fn yaml(text: &str) -> Vec<Value> {
    let (documents, errors) = lateen_resources::yaml::documents(text);
    assert!(errors.is_empty(), "{errors:?}");
    documents
        .into_iter()
        .map(|document| document.value)
        .collect()
}

fn config_of(text: &str) -> InjectConfig {
    let mut config = InjectConfig::standard("1.0.0");
    for line in text.lines() {
        if let Some(setting) = line.strip_prefix("# config: ") {
            let sets = [format!("values.{setting}")];
            let values = crate::install::Values::build("default", &sets, "1.0.0").unwrap();
            config.values = values.helm().clone();
        }
        if let Some(mesh) = line.strip_prefix("# mesh: ") {
            config.mesh = yaml(mesh).remove(0);
        }
    }
    config
}

#[test]
fn files_are_injected_as_the_data_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inject/testdata");
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.to_str().and_then(|path| path.strip_suffix(".in.yaml")) else {
            continue;
        };
        cases += 1;
        let input = fs::read_to_string(&path).unwrap();
        let config = config_of(&input);
        let output = match inject(&config, &input, "default") {
            Ok(injected) => injected.text,
            Err(error) => format!("# error: {error}\n"),
        };
        if !output.starts_with("# error") {
            let twice = inject(&config, &output, "default").unwrap();
            assert_eq!(twice.text, output, "{name}: a second run changes nothing");
            assert!(twice.objects.is_empty(), "{name}");
        }
        let golden = format!("{name}.out.yaml");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &output).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != output {
            wrong.push(format!("{golden}:\n{output}"));
        }
    }
    assert!(cases >= 10, "the cases are there");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_webhook_gives_what_the_file_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inject/testdata");
    let text = fs::read_to_string(folder.join("bookinfo.in.yaml")).unwrap();
    let config = config_of(&text);
    let after = yaml(&inject(&config, &text, "default").unwrap().text);
    let mut seen = 0;
    for (before, after) in yaml(&text).iter().zip(&after) {
        if before["kind"] != "Deployment" {
            assert_eq!(before, after);
            continue;
        }
        seen += 1;
        let name = before["metadata"]["name"].as_str().unwrap();
        // As the API server hands over a pod of the Deployment's ReplicaSet.
        let mut pod = before["spec"]["template"].clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["labels"]["pod-template-hash"] = "5c9f8".into();
        pod["metadata"]["generateName"] = format!("{name}-5c9f8-").into();
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5c9f8"), "controller": true}]);
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u1", "namespace": "default", "object": pod}});
        let answer = review::answer(&config, &review);
        assert_eq!(answer["response"]["uid"], "u1");
        assert_eq!(answer["response"]["allowed"], true);
        use base64::Engine;
        let patch = answer["response"]["patch"].as_str().unwrap();
        let patch = base64::engine::general_purpose::STANDARD
            .decode(patch)
            .unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        let template = &after["spec"]["template"];
        assert_eq!(patched["spec"], template["spec"]);
        assert_eq!(
            patched["metadata"]["annotations"],
            template["metadata"]["annotations"]
        );
        // A pod that is in already gets no patch.
        let again = json!({"request": {"uid": "u2", "namespace": "default", "object": patched}});
        let answer = review::answer(&config, &again);
        assert_eq!(answer["response"], json!({"allowed": true, "uid": "u2"}));
    }
    assert_eq!(seen, 6);
}

fn pod(labels: Value, annotations: Value) -> Value {
    json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

#[test]
fn who_is_injected() {
    let mut config = InjectConfig::standard("1.0.0");
    let decide = |config: &InjectConfig, pod: &Value, ns: &str| {
        let decision = policy::decide(config, pod, ns);
        (decision.inject, decision.reason)
    };
    let (yes, no) = (
        json!({"sidecar.istio.io/inject": "true"}),
        json!({"sidecar.istio.io/inject": "false"}),
    );
    let plain = pod(json!({}), json!({}));
    assert_eq!(decide(&config, &plain, "default"), (true, Reason::Policy));
    for namespace in NEVER {
        assert_eq!(
            decide(&config, &pod(yes.clone(), json!({})), namespace),
            (false, Reason::SystemNamespace)
        );
    }
    let mut host = pod(yes.clone(), json!({}));
    host["spec"]["hostNetwork"] = true.into();
    assert_eq!(
        decide(&config, &host, "default"),
        (false, Reason::HostNetwork)
    );
    assert_eq!(
        decide(&config, &pod(no.clone(), json!({})), "default"),
        (false, Reason::PodSays)
    );
    assert_eq!(
        decide(&config, &pod(json!({}), no.clone()), "default"),
        (false, Reason::PodSays)
    );
    // The label beats the annotation; any word but yes is no; an empty one says nothing.
    assert_eq!(
        decide(&config, &pod(yes.clone(), no.clone()), "default"),
        (true, Reason::PodSays)
    );
    for word in ["y", "YES", "True", "on"] {
        assert!(
            decide(
                &config,
                &pod(json!({"sidecar.istio.io/inject": word}), json!({})),
                "default"
            )
            .0
        );
    }
    assert!(
        !decide(
            &config,
            &pod(json!({"sidecar.istio.io/inject": "enable"}), json!({})),
            "default"
        )
        .0
    );
    assert_eq!(
        decide(
            &config,
            &pod(json!({"sidecar.istio.io/inject": ""}), json!({})),
            "default"
        ),
        (true, Reason::Policy)
    );

    config.enabled = false;
    assert_eq!(decide(&config, &plain, "default"), (false, Reason::Policy));
    assert_eq!(
        decide(&config, &pod(yes, json!({})), "default"),
        (true, Reason::PodSays)
    );
    config.always_inject = vec![
        json!({}),
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}),
    ];
    assert_eq!(
        decide(
            &config,
            &pod(json!({"a": "b", "c": "d"}), json!({})),
            "default"
        ),
        (true, Reason::Selector)
    );
    assert_eq!(
        decide(&config, &pod(json!({"a": "b"}), json!({})), "default"),
        (false, Reason::Policy)
    );
    config.never_inject =
        vec![json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]})];
    assert_eq!(
        decide(
            &config,
            &pod(json!({"a": "b", "c": "d"}), json!({})),
            "default"
        ),
        (false, Reason::Selector)
    );
}

/// The rules in code and the selectors in the manifest say the same about all combinations.
#[test]
fn webhook_selectors_agree_with_the_rules() {
    let expression = |item: &Value, labels: &Value| {
        let found = labels.get(item["key"].as_str().unwrap());
        let values = item["values"].as_array();
        let listed = found.is_some_and(|v| values.is_some_and(|values| values.contains(v)));
        match item["operator"].as_str().unwrap() {
            "DoesNotExist" => found.is_none(),
            "In" => listed,
            "NotIn" => found.is_none() || !listed,
            other => panic!("{other}"),
        }
    };
    let words = |key: &str, options: &[&str]| -> Vec<Option<(String, String)>> {
        let mut all = vec![None];
        all.extend(
            options
                .iter()
                .map(|word| Some((key.to_owned(), (*word).to_owned()))),
        );
        all
    };
    for revision in ["default", "canary"] {
        let sets = [format!("revision={revision}")];
        let objects = crate::install::manifests_for("minimal", &sets).unwrap();
        let webhooks = objects
            .iter()
            .find(|o| o["kind"] == "MutatingWebhookConfiguration")
            .unwrap();
        for a in words("istio-injection", &["enabled", "disabled", "enable"]) {
            for b in words("istio.io/rev", &["default", "canary"]) {
                for c in words("istio.io/rev", &["default", "canary"]) {
                    for d in words("sidecar.istio.io/inject", &["true", "false"]) {
                        let namespace: Value =
                            [a.clone(), b.clone()].into_iter().flatten().collect();
                        let labels: Value = [c.clone(), d].into_iter().flatten().collect();
                        let selected =
                            webhooks["webhooks"]
                                .as_array()
                                .unwrap()
                                .iter()
                                .filter(|webhook| {
                                    let all = |selector: &str, labels: &Value| {
                                        let list = webhook[selector]["matchExpressions"]
                                            .as_array()
                                            .unwrap();
                                        list.iter().all(|item| expression(item, labels))
                                    };
                                    all("namespaceSelector", &namespace)
                                        && all("objectSelector", &labels)
                                });
                        let selected = selected.count();
                        assert!(selected < 2, "rules exclude each other");
                        assert_eq!(
                            selected == 1,
                            webhook_selects(revision, &namespace, &labels),
                            "{revision} {namespace} {labels}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn workloads_are_found_behind_pods() {
    let owned = |kind: &str, name: &str, hash: &str| {
        json!({"metadata": {"labels": {"pod-template-hash": hash}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true}]}})
    };
    let name = |pod: &Value| {
        let workload = Workload::of_pod(pod, "ns");
        (workload.kind, workload.name)
    };
    let is = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(
        name(&owned("ReplicaSet", "a-b-77f", "77f")),
        is("Deployment", "a-b")
    );
    assert_eq!(
        name(&owned("ReplicaSet", "own", "77f")),
        is("ReplicaSet", "own")
    );
    assert_eq!(
        name(&owned("StatefulSet", "db", "")),
        is("StatefulSet", "db")
    );
    assert_eq!(
        name(&owned("Job", "night-28473920", "")),
        is("CronJob", "night")
    );
    assert_eq!(name(&owned("Job", "once", "")), is("Job", "once"));
    assert_eq!(name(&json!({"metadata": {"name": "p"}})), is("Pod", "p"));
    let workload = Workload::of_pod(&owned("ReplicaSet", "a-1", "1"), "ns");
    assert_eq!(
        workload.owner(),
        "kubernetes://apis/apps/v1/namespaces/ns/deployments/a"
    );
}

#[test]
fn bad_annotations_are_refused_with_their_name() {
    let config = InjectConfig::standard("1.0.0");
    for (name, value, message) in [
        (
            "traffic.sidecar.istio.io/excludeOutboundPorts",
            "80,x",
            "is not a list of ports",
        ),
        (
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            "10.0.0.0/40",
            "is not a list of address ranges",
        ),
        (
            "sidecar.istio.io/interceptionMode",
            "MAGIC",
            "is not REDIRECT, TPROXY or NONE",
        ),
        (
            "sidecar.istio.io/nativeSidecar",
            "perhaps",
            "is not true or false",
        ),
        ("sidecar.istio.io/userVolume", "{", "is not JSON"),
        (
            "status.sidecar.istio.io/port",
            "150211",
            "is not a port (0 to 65535)",
        ),
        (
            "traffic.sidecar.istio.io/kubevirtInterfaces",
            "eth0,a b",
            "is not a list of network interfaces",
        ),
        (
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            "10.0.0.0/+8",
            "is not a list of address ranges",
        ),
        ("proxy.istio.io/config", "- a", "is not a YAML mapping"),
        ("sidecar.istio.io/proxyCPU", "much", "is not a quantity"),
        (
            "readiness.status.sidecar.istio.io/periodSeconds",
            "-1",
            "is not a number",
        ),
    ] {
        let pod = pod(json!({}), json!({name: value}));
        let error = inject_pod(&config, &pod, &Workload::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(name) && error.contains(message), "{error}");
    }
    let pod = pod(json!({}), json!({"inject.istio.io/templates": "nope"}));
    let error = inject_pod(&config, &pod, &Workload::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "no injection template \"nope\"; there are: sidecar, gateway"
    );
    let review = json!({"request": {"uid": "u", "namespace": "default", "object": pod}});
    let response = &review::answer(&config, &review)["response"];
    assert_eq!(response["allowed"], false);
    assert!(
        response["status"]["message"]
            .as_str()
            .unwrap()
            .contains("nope")
    );
}

#[test]
fn an_application_with_the_proxys_user_is_warned_of_or_refused() {
    let mut config = InjectConfig::standard("1.0.0");
    let mut pod = pod(json!({}), json!({}));
    pod["spec"]["securityContext"]["runAsUser"] = 1337.into();
    let Ok(Outcome::Injected { warnings, .. }) = inject_pod(&config, &pod, &Workload::default())
    else {
        panic!("injected with a warning");
    };
    assert!(warnings[0].contains("IST0144"), "{warnings:?}");
    config.values["sidecarInjectorWebhook"]["rejectProxyUser"] = true.into();
    assert!(inject_pod(&config, &pod, &Workload::default()).is_err());
    pod["spec"]["containers"][0]["securityContext"]["runAsUser"] = 1000.into();
    assert!(inject_pod(&config, &pod, &Workload::default()).is_ok());
}

#[test]
fn untouched_documents_keep_every_byte() {
    let text = "# a comment\r\n---  \n\nkind: Service # odd   spacing\napiVersion: \"v1\"\n--- # next\n\n---\nkind: ConfigMap\ndata:\n  x: |\n    --- not a marker\n...\n";
    let config = InjectConfig::standard("1.0.0");
    assert_eq!(inject(&config, text, "default").unwrap().text, text);
    let error = inject(&config, "a: 1\n---\nb: [\n", "default")
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("line "), "{error}");
}

#[test]
fn new_kubelets_everywhere_make_the_proxy_an_init_container_that_stays() {
    let node = |version: &str| json!({"status": {"nodeInfo": {"kubeletVersion": version}}});
    let config = || InjectConfig::standard("1.0.0");
    for (nodes, native) in [
        (vec![], false),
        (vec![node("v1.33.1"), node("v1.34.0-eks-1")], true),
        (vec![node("v1.33.1"), node("v1.32.9")], false),
        (vec![node("v2.0.0")], true),
        (vec![node("v1.33+"), json!({})], false),
    ] {
        let config = config().for_nodes(&nodes);
        assert_eq!(config.native(), native, "{nodes:?}");
        let Ok(Outcome::Injected { pod, .. }) =
            inject_pod(&config, &pod(json!({}), json!({})), &Workload::default())
        else {
            panic!("injected");
        };
        let list = if native {
            "initContainers"
        } else {
            "containers"
        };
        let there = pod["spec"][list].as_array().unwrap();
        assert!(there.iter().any(|c| c["name"] == "istio-proxy"), "{pod}");
    }
    let mut told = config().for_nodes(&[node("v1.33.1")]);
    told.values["pilot"]["env"]["ENABLE_NATIVE_SIDECARS"] = "false".into();
    assert!(!told.native(), "the installation says no");
}

#[test]
fn config_maps_are_read_back() {
    let objects = crate::install::manifests_for("demo", &["revision=canary".to_owned()]).unwrap();
    let map = |name: &str| {
        let found = objects
            .iter()
            .find(|o| o["kind"] == "ConfigMap" && o["metadata"]["name"] == name);
        found.unwrap()["data"].clone()
    };
    let (injector, mesh) = (map("istio-sidecar-injector-canary"), map("istio-canary"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let config = InjectConfig::read(
        &text(&injector["config"]),
        &text(&injector["values"]),
        &text(&mesh["mesh"]),
    )
    .unwrap();
    assert_eq!(config.revision, "canary");
    assert_eq!(config.mesh["accessLogFile"], "/dev/stdout");
    assert_eq!(config.default_templates, ["sidecar"]);
    assert!(config.enabled);
    let custom = InjectConfig::read("templates:\n  labels: |\n    metadata:\n      labels: {x: y}\ndefaultTemplates: [sidecar, labels]\n", "", "").unwrap();
    let Ok(Outcome::Injected { pod, .. }) =
        inject_pod(&custom, &pod(json!({}), json!({})), &Workload::default())
    else {
        panic!("injected");
    };
    assert_eq!(pod["metadata"]["labels"]["x"], "y");
    assert!(InjectConfig::read("policy: [", "", "").is_err());
    assert!(InjectConfig::read("", "{", "").is_err());
}
