//! The validating webhook's answer: an AdmissionReview in, an AdmissionReview out. Errors
//! refuse, everything else is a warning; each names its field and what would be right.

use lateen_resources::{Diagnostic, Severity, check, read_value};
use serde_json::{Value, json};

/// Answers one review.
pub fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let namespace = request["namespace"].as_str().unwrap_or_default();
    let found = match &request["object"] {
        // A deletion has no new object and nothing to say about it.
        Value::Null => Vec::new(),
        object => findings(object, namespace),
    };
    let (errors, rest): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        found.iter().partition(|d| d.severity == Severity::Error);
    let mut response = json!({"uid": request["uid"], "allowed": errors.is_empty()});
    if !errors.is_empty() {
        let all: Vec<String> = errors.iter().map(|d| line(d)).collect();
        let message = format!("configuration is invalid: {}", all.join("; "));
        response["status"] = json!({"code": 400, "message": message});
    }
    let mut warnings: Vec<String> = rest.iter().map(|d| line(d)).collect();
    warnings.extend(without_effect(&request["object"]));
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    json!({
        "apiVersion": review["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1"),
        "kind": "AdmissionReview",
        "response": response,
    })
}

/// Kinds that are stored and do nothing yet: nobody should believe a policy is in force.
const WITHOUT_EFFECT: [&str; 7] = [
    "AuthorizationPolicy",
    "EnvoyFilter",
    "PeerAuthentication",
    "ProxyConfig",
    "RequestAuthentication",
    "Telemetry",
    "WasmPlugin",
];

/// False for kinds that are stored and do nothing yet.
pub(crate) fn has_effect(kind: &str) -> bool {
    !WITHOUT_EFFECT.contains(&kind)
}

fn without_effect(object: &Value) -> Option<String> {
    let kind = object["kind"].as_str()?;
    (!has_effect(kind))
        .then(|| format!("{kind} is stored, but this version does not enforce it yet"))
}

fn findings(object: &Value, namespace: &str) -> Vec<Diagnostic> {
    let read = read_value(object.clone(), namespace);
    let mut found = read.diagnostics;
    found.extend(read.objects.iter().flat_map(check::check));
    found
}

/// `field: what is wrong; what would be right`. Many messages name their field already.
fn line(d: &Diagnostic) -> String {
    let message = d
        .message
        .strip_prefix("Schema validation error: ")
        .unwrap_or(&d.message);
    let named = d.field.is_empty() || message.contains(&d.field);
    let field = if named {
        String::new()
    } else {
        format!("{}: ", d.field)
    };
    let remedy = if d.remedy.is_empty() || message.ends_with(&d.remedy) {
        String::new()
    } else {
        format!("; {}", d.remedy)
    };
    format!("{field}{message}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(object: Value) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "u1", "namespace": "default", "operation": "CREATE", "object": object},
        })
    }

    #[test]
    fn a_good_object_passes_and_a_deletion_too() {
        let good = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "reviews", "namespace": "default"},
            "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
        });
        for object in [good, Value::Null] {
            let a = answer(&review(object));
            assert_eq!(a["response"]["allowed"], true, "{a}");
            assert_eq!(a["response"]["uid"], "u1");
        }
    }

    #[test]
    fn a_policy_that_does_nothing_yet_is_said_to() {
        let policy = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": "default"},
            "spec": {"mtls": {"mode": "STRICT"}},
        });
        let a = answer(&review(policy));
        assert_eq!(a["response"]["allowed"], true, "{a}");
        let warning = a["response"]["warnings"][0].as_str().unwrap_or_default();
        assert!(warning.contains("does not enforce it yet"), "{a}");
    }

    #[test]
    fn a_remedy_is_said_once() {
        let bad = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "all", "namespace": "default"},
            "spec": {"hosts": ["*"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
        });
        let a = answer(&review(bad));
        let message = a["response"]["status"]["message"]
            .as_str()
            .unwrap_or_default();
        assert_eq!(message.matches("name the hosts").count(), 1, "{message}");
        assert_eq!(a["response"]["status"]["reason"], Value::Null, "{a}");
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_field() {
        let bad = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "reviews", "namespace": "default"},
            "spec": {"hosts": ["reviews"], "http": [{"timeout": 5, "route": [{"destination": {"host": 7}}]}]},
        });
        let a = answer(&review(bad));
        assert_eq!(a["response"]["allowed"], false, "{a}");
        let message = a["response"]["status"]["message"]
            .as_str()
            .expect("a message");
        assert!(message.contains("spec.http[0]"), "{message}");
    }
}
