//! Which container of a pod a streaming request means. Pure.

use serde_json::Value;

use crate::api::ApiError;
use crate::controllers::object::{list, name, text};

fn names<'a>(pod: &'a Value, field: &str) -> Vec<&'a str> {
    list(pod, &format!("/spec/{field}"))
        .iter()
        .map(|c| text(c, "/name"))
        .collect()
}

/// The container by name, or the only one of the pod.
///
/// # Errors
/// 400 when the name is not in the pod, or several containers leave a choice.
pub fn choose(pod: &Value, wanted: Option<&str>) -> Result<String, ApiError> {
    let (main, init, ephemeral) = (
        names(pod, "containers"),
        names(pod, "initContainers"),
        names(pod, "ephemeralContainers"),
    );
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        if main
            .iter()
            .chain(&init)
            .chain(&ephemeral)
            .any(|known| *known == wanted)
        {
            return Ok(wanted.to_owned());
        }
        let why = format!("container {wanted} is not valid for pod {}", name(pod));
        return Err(ApiError::bad_request(why));
    }
    match main.as_slice() {
        [only] if init.is_empty() && ephemeral.is_empty() => Ok((*only).to_owned()),
        [] => Err(ApiError::bad_request(format!(
            "pod {} has no containers",
            name(pod)
        ))),
        several => {
            let mut why = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                name(pod),
                several.join(" ")
            );
            if !init.is_empty() {
                why.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            if !ephemeral.is_empty() {
                let all = ephemeral.join(" ");
                why.push_str(&format!(" or one of the ephemeral containers: [{all}]"));
            }
            Err(ApiError::bad_request(why))
        }
    }
}

/// Whether the pod spec gives this container a terminal.
pub fn has_terminal(pod: &Value, container: &str) -> bool {
    [
        "/spec/containers",
        "/spec/initContainers",
        "/spec/ephemeralContainers",
    ]
    .iter()
    .flat_map(|field| list(pod, field))
    .find(|c| text(c, "/name") == container)
    .is_some_and(|c| crate::controllers::object::flag(c, "/tty"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_container_needs_no_name_several_do() {
        let pod = |containers: &[&str], init: &[&str]| {
            let named = |names: &[&str]| -> Vec<Value> {
                names.iter().map(|n| json!({"name": n})).collect()
            };
            json!({"metadata": {"name": "p"},
                "spec": {"containers": named(containers), "initContainers": named(init)}})
        };
        assert_eq!(choose(&pod(&["a"], &[]), None).expect("a"), "a");
        assert_eq!(
            choose(&pod(&["a", "b"], &["i"]), Some("i")).expect("i"),
            "i"
        );
        let text = |error: Result<String, ApiError>| error.expect_err("an error").message;
        assert_eq!(
            text(choose(&pod(&["a", "b"], &[]), None)),
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(
            text(choose(&pod(&["a"], &["i"]), None)),
            "a container name must be specified for pod p, choose one of: [a] or one of the init \
             containers: [i]"
        );
        assert_eq!(
            text(choose(&pod(&["a"], &[]), Some("z"))),
            "container z is not valid for pod p"
        );
    }
}
