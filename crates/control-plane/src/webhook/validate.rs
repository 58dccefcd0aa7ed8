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
        response["status"] = json!({"code": 400, "reason": "Invalid", "message": message});
    }
    let warnings: Vec<String> = rest.iter().map(|d| line(d)).collect();
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    json!({
        "apiVersion": review["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1"),
        "kind": "AdmissionReview",
        "response": response,
    })
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
    let remedy = if d.remedy.is_empty() {
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
