//! Workloads steered by the real kubectl: rollouts, history, scaling, deletion, and a pod's
//! streams through the API server. Every `kubectl` on PATH is tried.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_cluster::api::resource::{PODS, REPLICA_SETS};
use tokio::process::Command;

use super::cluster::{Cluster, eventually};
use super::{fake, programs};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {kubernetes.io/change-cause: the first}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "example.com/one:1", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;

struct Kubectl<'a> {
    program: &'a Path,
    home: &'a Path,
}

impl Kubectl<'_> {
    /// Runs a command line; returns the exit code, stdout and stderr.
    async fn try_run(&self, line: &str) -> (i32, String, String) {
        let run = Command::new(self.program)
            .args(line.split_whitespace())
            .env("HOME", self.home)
            .env("KUBECONFIG", self.home.join("config"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(200), run)
            .await
            .unwrap_or_else(|_| panic!("{} {line} hangs", self.program.display()))
            .expect("kubectl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Runs a command line that must succeed; returns stdout.
    async fn run(&self, line: &str) -> String {
        let (code, out, errors) = self.try_run(line).await;
        assert_eq!(code, 0, "{} {line}\n{out}{errors}", self.program.display());
        out
    }

    /// Repeats a command line until it tells something.
    async fn comes_to_tell(&self, line: &str, text: &str) {
        eventually(&format!("{text:?} of `{line}`"), async || {
            self.run(line).await.contains(text).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn workloads_are_steered_by_kubectl() {
    for program in programs::kubectls() {
        let cluster = Cluster::start().await;
        cluster.handle.set_runtime(Arc::new(fake::Host));
        let home = tempfile::tempdir().expect("a folder");
        let config = cluster
            .handle
            .kubeconfig("admin", "system:masters", SystemTime::now());
        std::fs::write(home.path().join("config"), config.expect("signed")).expect("written");
        std::fs::write(home.path().join("web.yaml"), WEB).expect("written");
        let kubectl = Kubectl {
            program: &program,
            home: home.path(),
        };
        rollouts(&kubectl).await;
        scaling(&kubectl, &cluster).await;
        streams(&kubectl).await;
        deletion(&kubectl, &cluster).await;
        generators(&kubectl).await;
    }
}

async fn rollouts(kubectl: &Kubectl<'_>) {
    let file = kubectl.home.join("web.yaml");
    let applied = kubectl.run(&format!("apply -f {}", file.display())).await;
    assert!(applied.contains("deployment.apps/web created"), "{applied}");
    let done = "deployment \"web\" successfully rolled out";
    assert!(
        kubectl
            .run("rollout status deployment/web --timeout=180s")
            .await
            .contains(done)
    );
    kubectl
        .run("wait --for=condition=Available deployment/web --timeout=180s")
        .await;
    kubectl
        .run("wait --for=condition=Ready pod -l app=web --timeout=180s")
        .await;
    kubectl
        .run("set image deployment/web c=example.com/two:2")
        .await;
    kubectl
        .run("annotate deployment/web kubernetes.io/change-cause=second --overwrite")
        .await;
    assert!(
        kubectl
            .run("rollout status deployment/web --timeout=180s")
            .await
            .contains(done)
    );
    let history = kubectl.run("rollout history deployment/web").await;
    assert!(
        history.contains("1         the first") && history.contains("2         second"),
        "{history}"
    );
    let first = kubectl
        .run("rollout history deployment/web --revision=1")
        .await;
    assert!(first.contains("example.com/one:1"), "{first}");
    let undone = kubectl.run("rollout undo deployment/web").await;
    assert!(
        undone.contains("deployment.apps/web rolled back"),
        "{undone}"
    );
    kubectl
        .run("rollout status deployment/web --timeout=180s")
        .await;
    let image = "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(kubectl.run(image).await, "example.com/one:1");
    let history = kubectl.run("rollout history deployment/web").await;
    assert!(
        history.contains("3         the first") && !history.contains("\n1 "),
        "{history}"
    );
    let restarted = kubectl.run("rollout restart deployment/web").await;
    assert!(
        restarted.contains("deployment.apps/web restarted"),
        "{restarted}"
    );
    kubectl
        .run("rollout status deployment/web --timeout=180s")
        .await;
    kubectl.run("rollout pause deployment/web").await;
    kubectl.run("rollout resume deployment/web").await;
    kubectl
        .run("rollout status deployment/web --timeout=180s")
        .await;
    let described = kubectl.run("describe deployment web").await;
    for needle in [
        "2 desired | 2 updated | 2 total | 2 available | 0 unavailable",
        "NewReplicaSetAvailable",
        "ScalingReplicaSet",
        "deployment-controller",
    ] {
        assert!(described.contains(needle), "{needle}: {described}");
    }
    let table = kubectl.run("get deployments web").await;
    assert!(table.contains("2/2     2            2"), "{table}");
}

async fn scaling(kubectl: &Kubectl<'_>, cluster: &Cluster) {
    let scaled = kubectl
        .run("scale deployment web --replicas=4 --timeout=180s")
        .await;
    assert!(scaled.contains("deployment.apps/web scaled"), "{scaled}");
    kubectl
        .run("rollout status deployment/web --timeout=180s")
        .await;
    assert_eq!(cluster.pods(("app", "web")).await.len(), 4);
    let service = kubectl.run("describe service web").await;
    assert!(service.contains("Endpoints:"), "{service}");
    let first = kubectl
        .run("get pod -l app=web -o jsonpath={.items[0].metadata.name}")
        .await;
    let describe = format!("describe pod {first}");
    kubectl
        .comes_to_tell(&describe, "Successfully assigned default/web-")
        .await;
    kubectl
        .comes_to_tell("get events", "Scaled up replica set web-")
        .await;
}

async fn streams(kubectl: &Kubectl<'_>) {
    let (code, out, errors) = kubectl
        .try_run("exec deployment/web -- sh -c echo${IFS}out;exit${IFS}4")
        .await;
    assert_eq!((code, out.as_str()), (4, "out\n"), "{errors}");
    assert_eq!(
        kubectl.run("logs deployment/web --tail=1").await,
        "line 3\n"
    );
}

async fn deletion(kubectl: &Kubectl<'_>, cluster: &Cluster) {
    let deleted = kubectl
        .run("delete deployment web --cascade=foreground")
        .await;
    assert!(
        deleted.contains("deployment.apps \"web\" deleted"),
        "{deleted}"
    );
    assert!(
        cluster.list(&REPLICA_SETS).await.is_empty(),
        "the sets went first"
    );
    eventually("the pods are gone", async || {
        cluster.list(&PODS).await.is_empty().then_some(())
    })
    .await;
    kubectl.run("delete service web").await;
    kubectl.run("create namespace team").await;
    kubectl
        .run("-n team create deployment other --image=example.com/x:1")
        .await;
    kubectl
        .run("-n team rollout status deployment/other --timeout=180s")
        .await;
    kubectl.run("delete namespace team").await;
    let (code, _, errors) = kubectl.try_run("get namespace team").await;
    assert!(
        code == 1 && errors.contains("namespaces \"team\" not found"),
        "{errors}"
    );
}

async fn generators(kubectl: &Kubectl<'_>) {
    kubectl
        .run("create deployment gen --image=example.com/x:1 --replicas=1")
        .await;
    kubectl.run("expose deployment gen --port=80").await;
    kubectl
        .run("rollout status deployment/gen --timeout=180s")
        .await;
    let slices = "get endpointslices -l kubernetes.io/service-name=gen -o jsonpath={.items[*].metadata.name}:{.items[*].ports[*].port}";
    kubectl.comes_to_tell(slices, ":80").await;
    kubectl.run("run one --image=example.com/x:1").await;
    kubectl
        .run("wait --for=condition=Ready pod/one --timeout=180s")
        .await;
    kubectl.run("delete pod one").await;
}
