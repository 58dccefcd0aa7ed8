//! Configured texts that are written into request and response heads: none may begin a line of its
//! own, and what becomes part of a target may not end it.
use lateen_proxy_core::config::Name;

use crate::error::{Result, refuse};

/// The value of a header, or a part of one: no NUL, carriage return or line feed.
pub(super) fn value(text: &str) -> Result<Name> {
    match text.bytes().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
        true => refuse("must hold no control characters"),
        false => Ok(text.into()),
    }
}

/// A scheme, host or path, or a part of one: no control character and no space, which ends the
/// target of a request line (RFC 9112 section 3).
pub(super) fn target(text: &str) -> Result<Name> {
    match text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        true => refuse("must hold no space or control character"),
        false => Ok(text.into()),
    }
}

/// Whether a header is the codec's to write and no rule's (Envoy's "`:`-prefixed or host headers").
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

#[cfg(test)]
mod tests {
    use lateen_xds_proto::json::to_wire;
    use serde_json::{Value, json};

    use crate::decode::Context;

    #[test]
    fn texts_of_heads_hold_no_lines_of_their_own() {
        let refused = |action: Value, extra: Value, want: &str| {
            let mut route = json!({ "match": { "prefix": "/" } });
            for part in [action, extra] {
                for (key, value) in part.as_object().unwrap() {
                    route[key] = value.clone();
                }
            }
            let table = json!({ "name": "t", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [route] }] });
            let error = crate::decode::routes(
                &to_wire("envoy.config.route.v3.RouteConfiguration", &table).unwrap(),
                &Context::empty(),
            );
            let text = error.expect_err(want).to_string();
            let want = format!("virtual_hosts[0].routes[0].{want}");
            assert!(text.starts_with(&want), "\n got {text}\nwant {want}");
        };
        let forward = |m: Value| {
            let mut m = m;
            m["cluster"] = json!("c");
            json!({ "route": m })
        };
        for bad in ["/a\r\nx: y", "/a\n", "/a\0", "/a b", "/a\u{1}", "/a\u{7f}"] {
            let none = json!({});
            let regex = json!({ "pattern": { "regex": "a" }, "substitution": bad });
            for (action, want) in [
                (
                    forward(json!({ "prefix_rewrite": bad })),
                    "route.prefix_rewrite: must hold no",
                ),
                (
                    forward(json!({ "host_rewrite_literal": bad })),
                    "route.host_rewrite_literal: must hold no",
                ),
                (
                    forward(json!({ "regex_rewrite": regex.clone() })),
                    "route.regex_rewrite.substitution: must hold no",
                ),
                (
                    forward(json!({ "host_rewrite_path_regex": regex.clone() })),
                    "route.host_rewrite_path_regex.substitution: must hold no",
                ),
                (
                    json!({ "redirect": { "host_redirect": bad } }),
                    "redirect.host_redirect: must hold no",
                ),
                (
                    json!({ "redirect": { "path_redirect": bad } }),
                    "redirect.path_redirect: must hold no",
                ),
                (
                    json!({ "redirect": { "prefix_rewrite": bad } }),
                    "redirect.prefix_rewrite: must hold no",
                ),
                (
                    json!({ "redirect": { "regex_rewrite": regex.clone() } }),
                    "redirect.regex_rewrite.substitution: must hold no",
                ),
                (
                    json!({ "redirect": { "scheme_redirect": bad } }),
                    "redirect.scheme_redirect: must hold no",
                ),
            ] {
                refused(action, none.clone(), want);
            }
        }
        let cookie = json!({ "hash_policy": [{ "cookie": { "name": "n", "path": "/\r\nx: y", "ttl": "1s" } }] });
        refused(
            forward(cookie),
            json!({}),
            "route.hash_policy[0].cookie.path: must hold no",
        );
        let decorator = json!({ "decorator": { "operation": "a\nb" } });
        refused(
            forward(json!({})),
            decorator,
            "decorator.operation: must hold no",
        );
        for key in [":path", ":authority", ":x", "host", "Host"] {
            for side in ["request", "response"] {
                let add = json!([{ "header": { "key": key, "value": "x" } }]);
                let want =
                    format!("{side}_headers_to_add[0].header.key: :-prefixed or host headers");
                refused(
                    forward(json!({})),
                    json!({ format!("{side}_headers_to_add"): add }),
                    &want,
                );
                let want = format!("{side}_headers_to_remove[0]: :-prefixed or host headers");
                refused(
                    forward(json!({})),
                    json!({ format!("{side}_headers_to_remove"): [key] }),
                    &want,
                );
            }
        }
    }

    #[test]
    fn names_of_unix_sockets_fit() {
        let at = |path: String| {
            let value = json!({ "cluster_name": "c", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": { "pipe": { "path": path } } } }] }] });
            let name = "envoy.config.endpoint.v3.ClusterLoadAssignment";
            crate::decode::endpoints(&to_wire(name, &value).unwrap())
        };
        assert!(at("/".repeat(107)).is_ok());
        let error = at("/".repeat(108)).unwrap_err().to_string();
        let want = "endpoints[0].lb_endpoints[0].endpoint.address.pipe.path: is 108 bytes";
        assert!(error.starts_with(want), "{error}");
        assert!(at("/a\0b".into()).is_err());
    }
}
