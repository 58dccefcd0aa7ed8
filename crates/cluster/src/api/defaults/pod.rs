//! Defaults of pods and pod templates.

use serde_json::{Map, Value, json};

use super::{items, set};

/// A Pod.
pub(super) fn pod(object: &mut Value) {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    pod_spec(spec);
    set(spec, "enableServiceLinks", true);
    for list in ["initContainers", "containers"] {
        for c in items(spec, list) {
            requests_from_limits(c);
        }
    }
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    set(&mut object["status"], "phase", "Pending");
    let class = qos_class(&object["spec"]);
    set(&mut object["status"], "qosClass", class);
}

/// The template of a workload.
pub(super) fn template(template: &mut Value) {
    if !template.is_object() {
        return;
    }
    if let Some(spec) = template.get_mut("spec").filter(|s| s.is_object()) {
        pod_spec(spec);
    }
}

fn requests_from_limits(container: &mut Value) {
    let limits = container["resources"]["limits"].clone();
    let Value::Object(limits) = limits else {
        return;
    };
    let slot = &mut container["resources"]["requests"];
    if slot.is_null() {
        *slot = json!({});
    }
    for (k, v) in limits {
        if slot[&k].is_null() {
            slot[&k] = v;
        }
    }
}

/// Quality of service: requests equal limits for cpu and memory everywhere, none at all, or
/// something between.
fn qos_class(spec: &Value) -> &'static str {
    let (mut any, mut all_equal) = (false, true);
    let empty = Map::new();
    for c in ["initContainers", "containers"]
        .iter()
        .flat_map(|l| spec[*l].as_array().into_iter().flatten())
    {
        let get = |what: &str| c["resources"][what].as_object().unwrap_or(&empty);
        let (requests, limits) = (get("requests"), get("limits"));
        for r in ["cpu", "memory"] {
            any |= requests.contains_key(r) || limits.contains_key(r);
            all_equal &= limits.contains_key(r) && requests.get(r) == limits.get(r);
        }
    }
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn pod_spec(spec: &mut Value) {
    set(spec, "restartPolicy", "Always");
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "schedulerName", "default-scheduler");
    set(spec, "securityContext", json!({}));
    let account = spec["serviceAccountName"].clone();
    if account.is_string() {
        set(spec, "serviceAccount", account);
    } else if spec["serviceAccount"].is_string() {
        spec["serviceAccountName"] = spec["serviceAccount"].clone();
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for c in items(spec, list) {
            container(c, host_network);
        }
    }
    for v in items(spec, "volumes") {
        volume(v);
    }
}

fn container(c: &mut Value, host_network: bool) {
    set(c, "terminationMessagePath", "/dev/termination-log");
    set(c, "terminationMessagePolicy", "File");
    set(c, "resources", json!({}));
    if let Some(image) = c["image"].as_str() {
        let policy = pull_policy(image);
        set(c, "imagePullPolicy", policy);
    }
    for p in items(c, "ports") {
        set(p, "protocol", "TCP");
        if host_network {
            let port = p["containerPort"].clone();
            set(p, "hostPort", port);
        }
    }
    for p in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = c.get_mut(p).filter(|p| p.is_object()) {
            probe(p);
        }
    }
    for hook in ["postStart", "preStop"] {
        http_get(&mut c["lifecycle"][hook]["httpGet"]);
        strip_empty_lifecycle(c, hook);
    }
    for e in items(c, "env") {
        field_ref(&mut e["valueFrom"]["fieldRef"]);
        strip_null(e, "valueFrom", "fieldRef");
    }
}

/// Indexing for a default makes empty slots: take them away again.
fn strip_null(object: &mut Value, outer: &str, inner: &str) {
    if let Some(o) = object.get_mut(outer).and_then(Value::as_object_mut) {
        if o.get(inner).is_some_and(Value::is_null) {
            o.shift_remove(inner);
        }
        if o.is_empty()
            && let Some(m) = object.as_object_mut()
        {
            m.shift_remove(outer);
        }
    }
}

fn strip_empty_lifecycle(c: &mut Value, hook: &str) {
    if let Some(l) = c.get_mut("lifecycle") {
        strip_null(l, hook, "httpGet");
        if l.as_object().is_some_and(Map::is_empty)
            && let Some(m) = c.as_object_mut()
        {
            m.shift_remove("lifecycle");
        }
    }
}

/// `Always` for the tag `latest` or none, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn probe(p: &mut Value) {
    set(p, "timeoutSeconds", 1);
    set(p, "periodSeconds", 10);
    set(p, "successThreshold", 1);
    set(p, "failureThreshold", 3);
    if let Some(h) = p.get_mut("httpGet") {
        http_get(h);
    }
    if let Some(g) = p.get_mut("grpc") {
        set(g, "service", "");
    }
}

fn http_get(h: &mut Value) {
    set(h, "path", "/");
    set(h, "scheme", "HTTP");
}

fn field_ref(f: &mut Value) {
    set(f, "apiVersion", "v1");
}

fn volume(v: &mut Value) {
    let sources = v.as_object().map_or(0, Map::len);
    if sources <= 1 && v["name"].is_string() {
        v["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(s) = v.get_mut(source).filter(|s| s.is_object()) {
            set(s, "defaultMode", 420);
            downward_items(s);
        }
    }
    if let Some(p) = v.get_mut("projected") {
        for s in items(p, "sources") {
            if let Some(t) = s.get_mut("serviceAccountToken") {
                set(t, "expirationSeconds", 3600);
            }
            if let Some(d) = s.get_mut("downwardAPI") {
                downward_items(d);
            }
        }
    }
    if let Some(h) = v.get_mut("hostPath") {
        set(h, "type", "");
    }
}

fn downward_items(source: &mut Value) {
    for item in items(source, "items") {
        if let Some(f) = item.get_mut("fieldRef") {
            field_ref(f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pod_gets_the_usual_defaults() {
        let mut p = json!({"spec": {"containers": [
            {"name": "c", "image": "a/b:1", "ports": [{"containerPort": 80}],
             "env": [{"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
             "readinessProbe": {"httpGet": {"port": 80}},
             "resources": {"limits": {"cpu": "1", "memory": "1Mi"}}}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}]}});
        pod(&mut p);
        let c = &p["spec"]["containers"][0];
        assert_eq!(c["imagePullPolicy"], "IfNotPresent");
        assert_eq!(c["ports"][0]["protocol"], "TCP");
        assert_eq!(c["readinessProbe"]["httpGet"]["path"], "/");
        assert_eq!(c["readinessProbe"]["periodSeconds"], 10);
        assert_eq!(c["resources"]["requests"]["cpu"], "1");
        assert_eq!(c["env"][0], json!({"name": "A", "value": "1"}));
        assert_eq!(c["env"][1]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert!(c.get("lifecycle").is_none());
        assert_eq!(p["spec"]["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(p["spec"]["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(p["status"]["qosClass"], "Guaranteed");
        let once = p.clone();
        pod(&mut p);
        assert_eq!(p, once);
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        assert_eq!(pull_policy("nginx"), "Always");
        assert_eq!(pull_policy("r:5000/nginx"), "Always");
        assert_eq!(pull_policy("nginx:latest"), "Always");
        assert_eq!(pull_policy("r:5000/nginx:1"), "IfNotPresent");
        assert_eq!(pull_policy("nginx@sha256:00"), "IfNotPresent");
    }
}
