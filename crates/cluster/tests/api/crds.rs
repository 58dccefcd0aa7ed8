//! Custom resources: served at once, validated, pruned, defaulted, converted, cleaned up.

use serde_json::{Value, json};

use super::support::{ADMIN_TOKEN, cluster, kubectls};

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: routes.demo.io}
spec:
  group: demo.io
  scope: Namespaced
  names: {plural: routes, kind: Route, shortNames: [rt], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Host, type: string, jsonPath: .spec.host}
    - {name: Hosts, type: string, jsonPath: '.spec.others', priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema: &schema
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [host]
            x-kubernetes-validations:
            - {rule: "self.host != 'bad'", message: "host must not be bad"}
            properties:
              host: {type: string, minLength: 1}
              weight: {type: integer, maximum: 100, default: 1}
              replicas: {type: integer}
              others: {type: array, items: {type: string}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
  - name: v1beta1
    served: true
    storage: false
    schema: *schema
"#;

fn route(host: &str, more: &str) -> String {
    format!(
        "apiVersion: demo.io/v1\nkind: Route\nmetadata: {{name: r}}\nspec: {{host: '{host}'{more}}}\n"
    )
}

#[tokio::test]
async fn kubectl_lives_with_custom_resources() {
    let c = cluster().await;
    for k in &kubectls() {
        let ns = "default";
        c.ok(k, ns, &["apply", "-f", "-"], CRD).await;
        c.ok(
            k,
            ns,
            &[
                "wait",
                "--for=condition=Established",
                "crd/routes.demo.io",
                "--timeout=50s",
            ],
            "",
        )
        .await;
        assert_eq!(
            c.ok(
                k,
                ns,
                &["apply", "-f", "-"],
                &route("a", ", others: [p, q]")
            )
            .await,
            "route.demo.io/r created\n"
        );
        assert_eq!(
            c.ok(
                k,
                ns,
                &["apply", "-f", "-"],
                &route("a", ", others: [p, q]")
            )
            .await,
            "route.demo.io/r unchanged\n"
        );
        assert_eq!(
            c.ok(k, ns, &["apply", "-f", "-"], &route("b", "")).await,
            "route.demo.io/r configured\n"
        );
        let shown = c.ok(k, ns, &["get", "rt", "-o", "wide"], "").await;
        assert!(
            shown.starts_with("NAME   HOST   HOSTS   AGE\nr      b"),
            "{shown}"
        );
        let one = c
            .ok(
                k,
                ns,
                &[
                    "get",
                    "route",
                    "r",
                    "-o",
                    "jsonpath={.spec.weight} {.metadata.generation}",
                ],
                "",
            )
            .await;
        assert_eq!(one, "1 2");
        let e = c
            .fails(k, ns, &["apply", "-f", "-"], &route("a", ", weight: 101"))
            .await;
        assert!(
            e.contains("The Route \"r\" is invalid") && e.contains("spec.weight"),
            "{e}"
        );
        let e = c
            .fails(k, ns, &["apply", "-f", "-"], &route("bad", ""))
            .await;
        assert!(
            e.contains("spec: Invalid value: \"object\": host must not be bad"),
            "{e}"
        );
        let e = c
            .fails(k, ns, &["apply", "-f", "-"], &route("a", ", bogus: 1"))
            .await;
        assert!(
            e.contains("strict decoding error: unknown field \"spec.bogus\""),
            "{e}"
        );
        c.ok(
            k,
            ns,
            &[
                "patch",
                "route",
                "r",
                "--type=merge",
                "-p",
                r#"{"spec":{"weight":7}}"#,
            ],
            "",
        )
        .await;
        let e = c
            .fails(
                k,
                ns,
                &["patch", "route", "r", "-p", r#"{"spec":{"weight":7}}"#],
                "",
            )
            .await;
        assert!(
            e.contains("strategic-merge-patch+json is not supported"),
            "{e}"
        );
        c.ok(k, ns, &["scale", "route/r", "--replicas=3"], "").await;
        assert!(
            c.ok(k, ns, &["explain", "route.spec"], "")
                .await
                .contains("weight")
        );
        let old = c
            .ok(
                k,
                ns,
                &[
                    "get",
                    "routes.v1beta1.demo.io",
                    "r",
                    "-o",
                    "jsonpath={.apiVersion}",
                ],
                "",
            )
            .await;
        assert_eq!(old, "demo.io/v1beta1");
        c.ok(
            k,
            ns,
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &route("c", ""),
        )
        .await;
        assert!(
            c.ok(k, ns, &["get", "all"], "")
                .await
                .contains("route.demo.io/r")
        );
        c.ok(
            k,
            ns,
            &["delete", "crd", "routes.demo.io", "--timeout=50s"],
            "",
        )
        .await;
        let e = c.fails(k, ns, &["get", "routes"], "").await;
        // By the client's own list of kinds, or (while it keeps an old one) by the server.
        let gone = [
            "doesn't have a resource type",
            "could not find the requested resource",
        ];
        assert!(gone.iter().any(|g| e.contains(g)), "{e}");
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn status_is_apart_and_updates_need_a_version() {
    let c = cluster().await;
    let yaml = [("content-type", "application/yaml")];
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, _, e) = c.request("POST", crds, ADMIN_TOKEN, &yaml, CRD).await;
    assert_eq!(code, 201, "{e}");
    let base = "/apis/demo.io/v1/namespaces/default/routes";
    let made = json!({"apiVersion": "demo.io/v1", "kind": "Route", "metadata": {"name": "r"},
        "spec": {"host": "a"}, "status": {"x": 1}});
    let (code, mut o) = c.json("POST", base, &made).await;
    assert_eq!((code, &o["status"]), (201, &Value::Null));
    let (code, o2) = c
        .json(
            "PATCH",
            &format!("{base}/r/status"),
            &json!({"status": {"x": 2}, "spec": {"host": "z"}}),
        )
        .await;
    assert_eq!(
        (code, &o2["status"]["x"], &o2["spec"]["host"]),
        (200, &json!(2), &json!("a"))
    );
    assert_eq!(o2["metadata"]["generation"], 1);
    let (code, e) = c.json("PUT", &format!("{base}/r"), &o).await;
    assert_eq!((code, e["reason"].as_str()), (409, Some("Conflict")));
    o["metadata"]["resourceVersion"] = Value::Null;
    let (code, e) = c.json("PUT", &format!("{base}/r"), &o).await;
    assert_eq!(code, 422, "{e}");
    assert!(
        e["message"]
            .as_str()
            .expect("text")
            .contains("must be specified for an update"),
        "{e}"
    );
    c.server.shutdown().await;
}

#[tokio::test]
async fn a_definition_that_cannot_be_enforced_is_refused() {
    let c = cluster().await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = |spec: Value| {
        json!({"metadata": {"name": "as.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced",
            "names": {"plural": "as", "kind": "A"}, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": spec}}}}]}})
    };
    let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
    for (spec, field, why) in [
        (
            json!({"properties": {"a": {"type": "string"}}}),
            "type",
            "Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "string", "pattern": "("}),
            "pattern",
            "must be a valid regular expression",
        ),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.nope +++"}]}),
            "x-kubernetes-validations[0].rule",
            "compilation failed",
        ),
    ] {
        let (code, e) = c.json("POST", crds, &definition(spec)).await;
        assert_eq!((code, &e["reason"]), (422, &json!("Invalid")), "{e}");
        let causes = e["details"]["causes"].as_array().expect("causes");
        assert_eq!(causes.len(), 1, "{e}");
        assert_eq!(causes[0]["field"], format!("{at}.{field}"));
        assert!(
            causes[0]["message"].as_str().expect("text").contains(why),
            "{e}"
        );
    }
    let good = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"port": {"x-kubernetes-int-or-string": true}}});
    let (code, e) = c.json("POST", crds, &definition(good)).await;
    assert_eq!(code, 201, "{e}");
    let change = definition(json!({"properties": {"a": {"type": "string"}}}));
    let (code, e) = c.json("PATCH", &format!("{crds}/as.x.io"), &change).await;
    assert_eq!(code, 422, "{e}");
    c.server.shutdown().await;
}
