//! The everyday commands of the real kubectl, with their own messages.

use serde_json::Value;

use super::support::{Cluster, cluster, kubectls};

const APP: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {app: app}}
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - {name: a, image: 'a:1', ports: [{containerPort: 80}]}
      - {name: b, image: 'b:1'}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {selector: {app: app}, ports: [{name: http, port: 80}]}
";

async fn field(c: &Cluster, k: &str, ns: &str, what: &str, path: &str) -> String {
    let path = format!("-o=jsonpath={path}");
    c.ok(k, ns, &["get", what, &path], "").await
}

#[tokio::test]
async fn apply_patch_scale_and_delete() {
    let c = cluster().await;
    for (i, k) in kubectls().iter().enumerate() {
        let ns = &format!("n{i}");
        c.namespace(ns).await;
        let out = c.ok(k, ns, &["apply", "-f", "-"], APP).await;
        assert_eq!(out, "deployment.apps/app created\nservice/app created\n");
        let out = c.ok(k, ns, &["apply", "-f", "-"], APP).await;
        assert_eq!(
            out,
            "deployment.apps/app unchanged\nservice/app unchanged\n"
        );
        let out = c
            .ok(k, ns, &["apply", "-f", "-"], &APP.replace("a:1", "a:2"))
            .await;
        assert_eq!(
            out,
            "deployment.apps/app configured\nservice/app unchanged\n"
        );
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.metadata.generation}").await,
            "2"
        );
        let images = "{.spec.template.spec.containers[*].image}";
        assert_eq!(field(&c, k, ns, "deploy/app", images).await, "a:2 b:1");
        let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"b:9"}]}}}}"#;
        c.ok(k, ns, &["patch", "deploy", "app", "-p", patch], "")
            .await;
        assert_eq!(field(&c, k, ns, "deploy/app", images).await, "a:2 b:9");
        let patch = r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#;
        c.ok(
            k,
            ns,
            &["patch", "deploy", "app", "--type=json", "-p", patch],
            "",
        )
        .await;
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.spec.replicas}").await,
            "4"
        );
        c.ok(
            k,
            ns,
            &[
                "scale",
                "deploy/app",
                "--replicas=2",
                "--current-replicas=4",
            ],
            "",
        )
        .await;
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.spec.replicas}").await,
            "2"
        );
        c.ok(k, ns, &["label", "deploy", "app", "x=y"], "").await;
        c.ok(k, ns, &["label", "deploy", "app", "app-"], "").await;
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.metadata.labels}").await,
            r#"{"x":"y"}"#
        );
        c.ok(k, ns, &["rollout", "restart", "deploy/app"], "").await;
        c.ok(k, ns, &["set", "image", "deploy/app", "a=a:7"], "")
            .await;
        let shown = c.ok(k, ns, &["get", "deploy", "-o", "wide"], "").await;
        assert!(
            shown.contains("0/2") && shown.contains("a:7,b:9"),
            "{shown}"
        );
        let out = c.ok(k, ns, &["delete", "-f", "-"], APP).await;
        assert!(out.contains("deployment.apps \"app\" deleted"), "{out}");
        assert!(
            c.fails(k, ns, &["get", "deploy", "app"], "")
                .await
                .contains("Error from server (NotFound): deployments.apps \"app\" not found")
        );
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn imperative_commands_send_protobuf() {
    let c = cluster().await;
    for (i, k) in kubectls().iter().enumerate() {
        let ns = &format!("n{i}");
        let made = c.ok(k, "default", &["create", "namespace", ns], "").await;
        assert_eq!(made, format!("namespace/{ns} created\n"));
        for args in [
            "create serviceaccount default",
            "create deployment web --image=nginx:1 --replicas=2 --port=80",
            "create configmap cm --from-literal=a=b",
            "create secret generic sec --from-literal=a=b",
            "create service nodeport svc --tcp=80:8080",
            "create ingress ing --rule=foo.com/bar*=svc:80",
            "create role r --verb=get --resource=pods",
            "create rolebinding rb --role=r --serviceaccount=x:default",
            "create job jj --image=busybox -- echo hi",
            "create cronjob cj --image=busybox --schedule=1_*_*_*_*",
            "create quota q --hard=pods=10",
            "create poddisruptionbudget p --selector=app=web --min-available=1",
        ] {
            let args: Vec<String> = args.split(' ').map(|a| a.replace('_', " ")).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            c.ok(k, ns, &args, "").await;
        }
        assert_eq!(
            field(&c, k, ns, "deploy/web", "{.spec.replicas}").await,
            "2"
        );
        assert_eq!(field(&c, k, ns, "secret/sec", "{.data.a}").await, "Yg==");
        assert_eq!(
            field(&c, k, ns, "role/r", "{.rules[0].apiGroups}").await,
            r#"[""]"#
        );
        let path = "{.spec.rules[0].http.paths[0].backend.service.port.number}";
        assert_eq!(field(&c, k, ns, "ing/ing", path).await, "80");
        let token = c.ok(k, ns, &["create", "token", "default"], "").await;
        assert_eq!(token.trim().split('.').count(), 3);
        let can = c.ok(k, ns, &["auth", "can-i", "delete", "pods"], "").await;
        assert_eq!(can.trim(), "yes");
        let user = format!("--as=system:serviceaccount:{ns}:default");
        let can = c
            .run(k, ns, &["auth", "can-i", "delete", "pods", &user], "")
            .await;
        assert_eq!(String::from_utf8_lossy(&can.stdout).trim(), "no");
        let who = c.ok(k, ns, &["auth", "whoami"], "").await;
        assert!(who.contains("kubernetes-admin"), "{who}");
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn errors_read_as_usual() {
    let c = cluster().await;
    for k in &kubectls() {
        let bad = |spec: &str| {
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: bad}}\nspec: {spec}\n"
            )
        };
        let ns = "default";
        let e = c
            .fails(k, ns, &["apply", "-f", "-"], &bad("{replicas: two}"))
            .await;
        assert!(
            e.contains("cannot unmarshal string into Go struct field"),
            "{e}"
        );
        let e = c
            .fails(k, ns, &["apply", "-f", "-"], &bad("{foo: 1}"))
            .await;
        assert!(
            e.contains("strict decoding error: unknown field \"spec.foo\""),
            "{e}"
        );
        let e = c
            .fails(k, ns, &["apply", "-f", "-"], &bad("{template: {}}"))
            .await;
        assert!(e.starts_with("The Deployment \"bad\" is invalid:"), "{e}");
        assert!(e.contains("spec.selector: Required value"), "{e}");
        let e = c.fails(k, ns, &["create", "cm", "Bad"], "").await;
        assert!(
            e.contains("a lowercase RFC 1123 subdomain must consist of"),
            "{e}"
        );
        let e = c.fails(k, "nowhere", &["create", "cm", "a"], "").await;
        assert!(e.contains("namespaces \"nowhere\" not found"), "{e}");
        let e = c.fails(k, ns, &["get", "nosuch"], "").await;
        assert!(
            e.contains("the server doesn't have a resource type \"nosuch\""),
            "{e}"
        );
        let e = c
            .fails(k, ns, &["get", "pods", "--field-selector=a=b"], "")
            .await;
        assert!(e.contains("field label not supported: a"), "{e}");
        let e = c.fails(k, ns, &["delete", "ns", "kube-system"], "").await;
        assert!(e.contains("this namespace may not be deleted"), "{e}");
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn server_side_apply_and_its_conflicts() {
    let c = cluster().await;
    for (i, k) in kubectls().iter().enumerate() {
        let ns = &format!("n{i}");
        c.namespace(ns).await;
        let apply = ["apply", "--server-side", "-f", "-"];
        c.ok(k, ns, &apply, APP).await;
        c.ok(
            k,
            ns,
            &[
                "patch",
                "deploy",
                "app",
                "--type=merge",
                "-p",
                r#"{"spec":{"replicas":5}}"#,
            ],
            "",
        )
        .await;
        let e = c.fails(k, ns, &apply, APP).await;
        assert!(
            e.contains("conflict with \"kubectl-patch\" using apps/v1: .spec.replicas"),
            "{e}"
        );
        c.ok(
            k,
            ns,
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            APP,
        )
        .await;
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.spec.replicas}").await,
            "1"
        );
        let less = APP.replace("      - {name: b, image: 'b:1'}\n", "");
        c.ok(k, ns, &apply, &less).await;
        assert_eq!(
            field(
                &c,
                k,
                ns,
                "deploy/app",
                "{.spec.template.spec.containers[*].name}"
            )
            .await,
            "a"
        );
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn reading_in_every_form() {
    let c = cluster().await;
    for (i, k) in kubectls().iter().enumerate() {
        let ns = &format!("n{i}");
        c.namespace(ns).await;
        c.ok(k, ns, &["apply", "-f", "-"], APP).await;
        // Twice: the second answer comes from the client's cache.
        for _ in 0..2 {
            let list = c.ok(k, ns, &["api-resources"], "").await;
            assert!(
                list.contains("deployments") && list.contains("Pod"),
                "{list}"
            );
            assert!(c.ok(k, ns, &["api-versions"], "").await.contains("apps/v1"));
        }
        let all = c.ok(k, ns, &["get", "all"], "").await;
        assert!(
            all.contains("service/app") && all.contains("deployment.apps/app"),
            "{all}"
        );
        let yaml = c
            .ok(k, ns, &["get", "deploy", "app", "-o", "yaml"], "")
            .await;
        assert!(
            yaml.contains("kind: Deployment") && !yaml.contains("managedFields"),
            "{yaml}"
        );
        let json = c.ok(k, ns, &["get", "svc", "-o", "json"], "").await;
        let json: Value = serde_json::from_str(&json).expect("json");
        assert_eq!(json["items"][0]["kind"], "Service");
        let text = c
            .ok(
                k,
                ns,
                &[
                    "get",
                    "deploy",
                    "-o",
                    "go-template={{range .items}}{{.metadata.name}}{{end}}",
                ],
                "",
            )
            .await;
        assert_eq!(text, "app");
        let sorted = c
            .ok(k, ns, &["get", "svc", "-A", "--sort-by=.metadata.name"], "")
            .await;
        assert!(sorted.contains("kubernetes"), "{sorted}");
        let labels = c
            .ok(
                k,
                ns,
                &["get", "deploy", "--show-labels", "-l", "app=app"],
                "",
            )
            .await;
        assert!(labels.contains("app=app"), "{labels}");
        let d = c.ok(k, ns, &["describe", "deploy", "app"], "").await;
        assert!(d.contains("StrategyType:           RollingUpdate"), "{d}");
        assert!(
            c.ok(k, ns, &["describe", "svc", "app"], "")
                .await
                .contains("app=app")
        );
        assert!(
            c.ok(k, ns, &["describe", "ns", ns], "")
                .await
                .contains("Active")
        );
        let e = c
            .ok(
                k,
                ns,
                &["explain", "deploy.spec.strategy.rollingUpdate"],
                "",
            )
            .await;
        assert!(e.contains("maxSurge"), "{e}");
        let e = c
            .ok(
                k,
                ns,
                &["explain", "pods.spec.containers", "--recursive"],
                "",
            )
            .await;
        assert!(e.contains("imagePullPolicy"), "{e}");
        c.ok(
            k,
            ns,
            &[
                "wait",
                "--for=jsonpath={.spec.replicas}=1",
                "deploy/app",
                "--timeout=50s",
            ],
            "",
        )
        .await;
        assert!(c.ok(k, ns, &["version"], "").await.contains("+lateen"));
        c.ok(
            k,
            ns,
            &["create", "-f", "-", "--dry-run=server"],
            &APP.replace("name: app", "name: dry"),
        )
        .await;
        c.fails(k, ns, &["get", "svc", "dry"], "").await;
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn edit_and_replace() {
    let c = cluster().await;
    for (i, k) in kubectls().iter().enumerate() {
        let ns = &format!("n{i}");
        c.namespace(ns).await;
        c.ok(k, ns, &["create", "-f", "-"], APP).await;
        let script = c.file(
            "editor",
            "#!/bin/sh\nsed -i s/replicas:.1/replicas:\\ 6/ \"$1\"\n",
        );
        std::process::Command::new("chmod")
            .args(["+x", &script])
            .status()
            .expect("chmod");
        let config = c.dir.path().join("kubeconfig");
        let out = tokio::process::Command::new(k)
            .args([
                "--kubeconfig",
                &config.display().to_string(),
                "-n",
                ns,
                "edit",
                "deploy",
                "app",
            ])
            .env("KUBE_EDITOR", &script)
            .env("HOME", c.dir.path())
            .output()
            .await
            .expect("edit");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.spec.replicas}").await,
            "6"
        );
        c.ok(
            k,
            ns,
            &["replace", "-f", "-"],
            &APP.replace("replicas: 1", "replicas: 3"),
        )
        .await;
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.spec.replicas}").await,
            "3"
        );
        c.ok(k, ns, &["replace", "--force", "-f", "-"], APP).await;
        assert_eq!(
            field(&c, k, ns, "deploy/app", "{.spec.replicas}").await,
            "1"
        );
    }
    c.server.shutdown().await;
}

#[tokio::test]
async fn old_groups_are_aliases() {
    let c = cluster().await;
    let old = r"
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: old}
spec:
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: a, image: 'a:1'}]}
---
apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: gateway}
spec:
  rules:
  - http: {paths: [{path: /x, backend: {serviceName: s, servicePort: 80}}]}
";
    for k in &kubectls() {
        let out = c.ok(k, "default", &["apply", "-f", "-"], old).await;
        assert!(out.contains("deployment.extensions/old"), "{out}");
        c.ok(k, "default", &["apply", "-f", "-"], old).await;
        assert_eq!(
            field(
                &c,
                k,
                "default",
                "deploy.v1.apps/old",
                "{.spec.selector.matchLabels.app}"
            )
            .await,
            "old"
        );
        assert_eq!(
            field(
                &c,
                k,
                "default",
                "ingress.v1.networking.k8s.io/gateway",
                "{.spec.rules[0].http.paths[0].backend.service.name}"
            )
            .await,
            "s"
        );
        c.ok(k, "default", &["get", "ingress"], "").await;
        c.ok(k, "default", &["delete", "-f", "-"], old).await;
    }
    c.server.shutdown().await;
}
