//! The controllers against the real API server and store, with an agent that pretends to run pods.

#[path = "controllers/cluster.rs"]
mod cluster;
#[path = "stream/fake.rs"]
mod fake;
#[path = "controllers/kubectl.rs"]
mod kubectl;
#[path = "stream/programs.rs"]
mod programs;

use std::collections::BTreeSet;
use std::time::Instant;

use lateen_cluster::api::resource::{
    CONFIG_MAPS, CONTROLLER_REVISIONS, CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES,
    ENDPOINTS, EVENTS, JOBS, NAMESPACES, NODES, PODS, REPLICA_SETS, SERVICE_ACCOUNTS, SERVICES,
    STATEFUL_SETS,
};
use lateen_cluster::api::{DeleteOptions, Propagation, Selectors};
use serde_json::{Value, json};

use self::cluster::{Cluster, eventually};

fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default",
            "annotations": {"kubernetes.io/change-cause": "the first"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "containers": [{"name": "c", "image": "one", "ports": [
                    {"name": "http", "containerPort": 8080}]}]}}},
    })
}

fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn reason(object: &Value, condition: &str) -> String {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions.iter().find(|c| c["type"] == condition);
    found
        .and_then(|c| c["reason"].as_str())
        .unwrap_or("")
        .to_owned()
}

/// Waits until a deployment is wholly on its present template.
async fn rolled_out(cluster: &Cluster, name: &str) -> std::sync::Arc<Value> {
    eventually("the rollout ends", async || {
        let found = cluster.get(&DEPLOYMENTS, name).await?;
        let wanted = int(&found, "/spec/replicas");
        let done = int(&found, "/status/observedGeneration") == int(&found, "/metadata/generation")
            && int(&found, "/status/updatedReplicas") == wanted
            && int(&found, "/status/replicas") == wanted
            && int(&found, "/status/availableReplicas") == wanted
            && reason(&found, "Progressing") == "NewReplicaSetAvailable";
        done.then_some(found)
    })
    .await
}

fn revision(object: &Value) -> &str {
    let pointer = "/metadata/annotations/deployment.kubernetes.io~1revision";
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

#[tokio::test]
async fn a_deployment_rolls_out_and_back() {
    let cluster = Cluster::start().await;
    cluster.create(&DEPLOYMENTS, deployment("web", 3)).await;
    let first = rolled_out(&cluster, "web").await;
    assert_eq!(revision(&first), "1");
    assert_eq!(reason(&first, "Available"), "MinimumReplicasAvailable");
    let pods = cluster.pods(("app", "web")).await;
    let nodes: BTreeSet<_> = pods
        .iter()
        .map(|p| p["spec"]["nodeName"].to_string())
        .collect();
    assert_eq!((pods.len(), nodes.len()), (3, 2), "spread over the nodes");

    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster.patch(&DEPLOYMENTS, "web", image("two")).await;
    let second = rolled_out(&cluster, "web").await;
    assert_eq!(revision(&second), "2");
    for pod in cluster.pods(("app", "web")).await {
        assert_eq!(pod["spec"]["containers"][0]["image"], "two");
    }
    let sets = cluster.list(&REPLICA_SETS).await;
    assert_eq!(sets.len(), 2);
    let old = sets
        .iter()
        .find(|set| revision(set) == "1")
        .expect("the old set");
    assert_eq!(int(old, "/spec/replicas"), 0);
    assert_eq!(
        old["metadata"]["annotations"]["kubernetes.io/change-cause"],
        "the first"
    );

    // Undo is a patch of the template: the old set comes back under a new number.
    let template = json!({"spec": {"template": deployment("web", 3)["spec"]["template"]}});
    cluster.patch(&DEPLOYMENTS, "web", template).await;
    let third = rolled_out(&cluster, "web").await;
    assert_eq!(revision(&third), "3");
    let sets = cluster.list(&REPLICA_SETS).await;
    assert_eq!(sets.len(), 2);
    let back = sets
        .iter()
        .find(|set| revision(set) == "3")
        .expect("the set");
    let history = "/metadata/annotations/deployment.kubernetes.io~1revision-history";
    assert_eq!(back.pointer(history), Some(&json!("1")));

    let said = eventually("events", async || {
        let events = cluster.list(&EVENTS).await;
        let said: Vec<String> = events
            .iter()
            .map(|e| format!("{} {}", e["reason"], e["message"]).replace('"', ""))
            .collect();
        (said
            .iter()
            .filter(|s| s.starts_with("ScalingReplicaSet"))
            .count()
            >= 9)
            .then_some(said)
    })
    .await;
    let any = |needle: &str| said.iter().any(|s| s.contains(needle));
    assert!(
        any("ScalingReplicaSet Scaled up replica set web-"),
        "{said:#?}"
    );
    assert!(
        any("from 0 to 3") && any("Scheduled Successfully assigned default/web-"),
        "{said:#?}"
    );
    assert!(any("SuccessfulCreate Created pod: web-") && any("SuccessfulDelete Deleted pod: web-"));
}

#[tokio::test]
async fn scaling_and_lost_pods_are_followed() {
    let cluster = Cluster::start().await;
    cluster.create(&DEPLOYMENTS, deployment("web", 2)).await;
    rolled_out(&cluster, "web").await;
    cluster
        .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 5}}))
        .await;
    rolled_out(&cluster, "web").await;
    assert_eq!(cluster.pods(("app", "web")).await.len(), 5);
    cluster
        .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 1}}))
        .await;
    rolled_out(&cluster, "web").await;
    let pods = cluster.pods(("app", "web")).await;
    assert_eq!(pods.len(), 1);
    let lost = pods[0]["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    cluster.delete(&PODS, &lost, DeleteOptions::now()).await;
    eventually("the pod is replaced", async || {
        let pods = cluster.pods(("app", "web")).await;
        (pods.len() == 1 && pods[0]["metadata"]["name"] != lost.as_str()).then_some(())
    })
    .await;
    cluster
        .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 0}}))
        .await;
    rolled_out(&cluster, "web").await;
}

#[tokio::test]
async fn a_broken_rollout_keeps_the_old_pods_and_can_be_paused() {
    let cluster = Cluster::start().await;
    cluster.create(&DEPLOYMENTS, deployment("web", 4)).await;
    rolled_out(&cluster, "web").await;
    let mut broken = deployment("web", 4)["spec"]["template"].clone();
    broken["metadata"]["labels"]["test"] = json!("broken");
    cluster
        .patch(&DEPLOYMENTS, "web", json!({"spec": {"template": broken}}))
        .await;
    // 25 % of 4: one above, one unavailable. So 3 old ones stay and 2 broken ones wait.
    let state = async || {
        let pods = cluster.pods(("app", "web")).await;
        let broken = pods
            .iter()
            .filter(|p| p["metadata"]["labels"]["test"] == "broken")
            .count();
        (pods.len() - broken, broken)
    };
    eventually("the rollout stops at its limits", async || {
        (state().await == (3, 2)).then_some(())
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(state().await, (3, 2));
    // Scaled in the middle of it, both sets grow in proportion.
    cluster
        .patch(&DEPLOYMENTS, "web", json!({"spec": {"replicas": 8}}))
        .await;
    eventually("proportional scaling", async || {
        let (old, new) = state().await;
        (old + new == 10 && old >= 6).then_some(())
    })
    .await;
    cluster
        .patch(&DEPLOYMENTS, "web", json!({"spec": {"paused": true}}))
        .await;
    eventually("it says it is paused", async || {
        let found = cluster.get(&DEPLOYMENTS, "web").await?;
        (reason(&found, "Progressing") == "DeploymentPaused").then_some(())
    })
    .await;
    let good = deployment("web", 8)["spec"]["template"].clone();
    let resume = json!({"spec": {"paused": false, "template": good}});
    let resume = {
        let mut resume = resume;
        resume["spec"]["template"]["metadata"]["labels"]["test"] = Value::Null;
        resume
    };
    cluster.patch(&DEPLOYMENTS, "web", resume).await;
    rolled_out(&cluster, "web").await;
}

#[tokio::test]
async fn recreate_waits_for_the_old_pods() {
    let cluster = Cluster::start().await;
    let mut web = deployment("web", 3);
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create(&DEPLOYMENTS, web).await;
    rolled_out(&cluster, "web").await;
    let mut stream = cluster
        .api
        .watch(&PODS, Some("default"), &Selectors::all(), 0)
        .await
        .expect("a watch");
    let watching = tokio::spawn(async move {
        let (mut images, mut mixed) = (std::collections::BTreeMap::new(), false);
        while let Some(Ok(event)) = stream.next_event().await {
            let (name, image) = (
                event.object["metadata"]["name"].to_string(),
                event.object["spec"]["containers"][0]["image"].to_string(),
            );
            match event.kind {
                lateen_cluster::api::WatchKind::Bookmark => {}
                lateen_cluster::api::WatchKind::Deleted => drop(images.remove(&name)),
                _ => drop(images.insert(name, image)),
            }
            mixed |= images.values().collect::<BTreeSet<_>>().len() > 1;
            if images.len() == 3 && images.values().all(|image| image == "\"two\"") {
                break;
            }
        }
        mixed
    });
    let mut template = deployment("web", 3)["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = json!("two");
    cluster
        .patch(&DEPLOYMENTS, "web", json!({"spec": {"template": template}}))
        .await;
    rolled_out(&cluster, "web").await;
    assert!(
        !watching.await.expect("no panic"),
        "old and new pods were there together"
    );
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [
            {"name": "http", "port": 80, "targetPort": "http"}]}})
}

async fn ready_addresses(cluster: &Cluster, service: &str) -> BTreeSet<String> {
    let selectors = Selectors::labels([("kubernetes.io/service-name", service)]);
    let slices = cluster
        .api
        .list(&ENDPOINT_SLICES, Some("default"), &selectors)
        .await;
    let slices = slices.expect("listed").0;
    let endpoints = slices
        .iter()
        .flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints
        .filter(|e| e["conditions"]["ready"] == true)
        .filter_map(|e| e["addresses"][0].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn endpoints_follow_pods() {
    let cluster = Cluster::start().await;
    cluster.create(&SERVICES, service("web")).await;
    eventually("an empty slice", async || {
        (cluster
            .list(&ENDPOINT_SLICES)
            .await
            .iter()
            .any(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web"))
        .then_some(())
    })
    .await;
    let start = Instant::now();
    cluster.create(&DEPLOYMENTS, deployment("web", 3)).await;
    eventually("three endpoints", async || {
        (ready_addresses(&cluster, "web").await.len() == 3).then_some(())
    })
    .await;
    println!(
        "from the deployment to its endpoints: {:?}",
        start.elapsed()
    );
    let selectors = Selectors::labels([("kubernetes.io/service-name", "web")]);
    let slices = cluster
        .api
        .list(&ENDPOINT_SLICES, Some("default"), &selectors)
        .await;
    let slice = slices.expect("listed").0[0].clone();
    assert_eq!(slice["ports"][0]["port"], 8080);
    assert!(
        ["a", "b"]
            .iter()
            .any(|zone| slice["endpoints"][0]["zone"] == *zone)
    );
    let legacy = eventually("Endpoints", async || {
        let found = cluster.get(&ENDPOINTS, "web").await?;
        (found["subsets"][0]["addresses"].as_array()?.len() == 3).then_some(found)
    })
    .await;
    assert_eq!(legacy["subsets"][0]["ports"][0]["port"], 8080);

    let pod = cluster.pods(("app", "web")).await[0].clone();
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let patched = cluster
        .api
        .merge_patch(&PODS, Some("default"), name, &unready, Some("status"));
    patched.await.expect("patched");
    eventually("an unready pod leaves", async || {
        (ready_addresses(&cluster, "web").await.len() == 2).then_some(())
    })
    .await;
    cluster
        .patch(
            &PODS,
            name,
            json!({"metadata": {"labels": {"app": "other"}}}),
        )
        .await;
    eventually("a released pod is replaced", async || {
        (ready_addresses(&cluster, "web").await.len() == 3).then_some(())
    })
    .await;
    cluster
        .delete(&SERVICES, "web", DeleteOptions::default())
        .await;
    eventually("slices and Endpoints go with the Service", async || {
        let slices = cluster.list(&ENDPOINT_SLICES).await;
        let left = slices
            .iter()
            .any(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
        (!left && cluster.get(&ENDPOINTS, "web").await.is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn hand_made_endpoints_are_mirrored() {
    let cluster = Cluster::start().await;
    let mut db = service("db");
    db["spec"] = json!({"ports": [{"name": "tcp", "port": 5432}]});
    cluster.create(&SERVICES, db).await;
    let made = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"name": "tcp", "port": 5432}]}]});
    cluster.create(&ENDPOINTS, made).await;
    eventually("a mirrored slice", async || {
        ready_addresses(&cluster, "db")
            .await
            .contains("192.0.2.7")
            .then_some(())
    })
    .await;
    cluster
        .delete(&ENDPOINTS, "db", DeleteOptions::default())
        .await;
    eventually("its end", async || {
        ready_addresses(&cluster, "db")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn namespaces_get_their_defaults_and_go_with_their_content() {
    let cluster = Cluster::start().await;
    let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    cluster
        .api
        .create(&NAMESPACES, None, made)
        .await
        .expect("created");
    let there =
        async |resource, name: &str| cluster.api.get(resource, Some("team"), name).await.ok();
    eventually("the account", async || {
        there(&SERVICE_ACCOUNTS, "default").await
    })
    .await;
    let ca = eventually("the CA", async || {
        there(&CONFIG_MAPS, "kube-root-ca.crt").await
    })
    .await;
    assert!(
        ca["data"]["ca.crt"]
            .as_str()
            .is_some_and(|pem| pem.contains("BEGIN CERTIFICATE"))
    );
    let deleted = cluster.api.delete(
        &SERVICE_ACCOUNTS,
        Some("team"),
        "default",
        DeleteOptions::now(),
    );
    deleted.await.expect("deleted");
    eventually("the account comes back", async || {
        there(&SERVICE_ACCOUNTS, "default").await
    })
    .await;

    let mut web = deployment("web", 2);
    web["metadata"]["namespace"] = json!("team");
    cluster
        .api
        .create(&DEPLOYMENTS, Some("team"), web)
        .await
        .expect("created");
    let pods = async || {
        cluster
            .api
            .list(&PODS, Some("team"), &Selectors::all())
            .await
            .expect("listed")
            .0
            .len()
    };
    eventually("pods", async || (pods().await == 2).then_some(())).await;
    let deleted = cluster
        .api
        .delete(&NAMESPACES, None, "team", DeleteOptions::default());
    deleted.await.expect("deleted");
    eventually("the namespace is gone", async || {
        let found = cluster.api.get(&NAMESPACES, None, "team").await;
        found.is_err_and(|error| error.is_not_found()).then_some(())
    })
    .await;
    assert_eq!(pods().await, 0);
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let cluster = Cluster::start().await;
    for (name, propagation) in [
        ("background", Propagation::Background),
        ("foreground", Propagation::Foreground),
        ("orphan", Propagation::Orphan),
    ] {
        cluster.create(&DEPLOYMENTS, deployment(name, 2)).await;
        rolled_out(&cluster, name).await;
        let options = DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        cluster.delete(&DEPLOYMENTS, name, options).await;
        eventually("the deployment is gone", async || {
            cluster
                .get(&DEPLOYMENTS, name)
                .await
                .is_none()
                .then_some(())
        })
        .await;
        let sets = async || {
            let selectors = Selectors::labels([("app", name)]);
            let found = cluster
                .api
                .list(&REPLICA_SETS, Some("default"), &selectors)
                .await;
            found.expect("listed").0
        };
        if propagation == Propagation::Foreground {
            assert!(sets().await.is_empty(), "dependents go first");
        }
        if propagation == Propagation::Orphan {
            let left = sets().await;
            assert_eq!(left.len(), 1);
            let owners = left[0]["metadata"]["ownerReferences"]
                .as_array()
                .map_or(0, Vec::len);
            assert_eq!((owners, cluster.pods(("app", name)).await.len()), (0, 2));
            continue;
        }
        eventually("its sets and pods are gone", async || {
            let gone = sets().await.is_empty() && cluster.pods(("app", name)).await.is_empty();
            gone.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_waits() {
    let cluster = Cluster::start().await;
    eventually("the account", async || {
        cluster.get(&SERVICE_ACCOUNTS, "default").await
    })
    .await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "i"}]}});
    cluster.create(&PODS, pod).await;
    let event = eventually("the event", async || {
        let events = cluster.list(&EVENTS).await;
        events
            .iter()
            .find(|e| e["reason"] == "FailedScheduling")
            .cloned()
    })
    .await;
    assert_eq!(
        event["message"],
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    );
    assert!(event["involvedObject"]["uid"].is_string() && event["type"] == "Warning");
    let pod = cluster.get(&PODS, "p").await.expect("the pod");
    assert_eq!(reason(&pod, "PodScheduled"), "Unschedulable");
    let label = json!({"metadata": {"labels": {"disk": "ssd"}}});
    cluster
        .api
        .merge_patch(&NODES, None, "node-2", &label, None)
        .await
        .expect("patched");
    eventually("it is placed", async || {
        let pod = cluster.get(&PODS, "p").await?;
        (pod["spec"]["nodeName"] == "node-2").then_some(())
    })
    .await;
    let done = cluster.get(&PODS, "p").await.expect("the pod");
    let scheduled = done["status"]["conditions"].as_array().expect("conditions");
    assert!(
        scheduled
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
}

#[tokio::test]
async fn stateful_sets_keep_names_and_order() {
    let cluster = Cluster::start().await;
    let mut set = deployment("db", 3);
    set["kind"] = json!("StatefulSet");
    set["spec"]["serviceName"] = json!("db");
    cluster.create(&STATEFUL_SETS, set).await;
    let ready = async |image: &str| {
        let found = cluster.get(&STATEFUL_SETS, "db").await?;
        let pods = cluster.pods(("app", "db")).await;
        let settled = int(&found, "/status/readyReplicas") == 3
            && int(&found, "/status/updatedReplicas") == 3
            && found["status"]["currentRevision"] == found["status"]["updateRevision"]
            && pods
                .iter()
                .all(|p| p["spec"]["containers"][0]["image"] == image);
        settled.then_some(pods)
    };
    let pods = eventually("three pods", async || ready("one").await).await;
    let names: Vec<&str> = pods
        .iter()
        .filter_map(|p| p["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    let mut template = deployment("db", 3)["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = json!("two");
    cluster
        .patch(
            &STATEFUL_SETS,
            "db",
            json!({"spec": {"template": template}}),
        )
        .await;
    eventually("all renewed", async || ready("two").await).await;
    assert_eq!(cluster.list(&CONTROLLER_REVISIONS).await.len(), 2);
}

#[tokio::test]
async fn daemon_sets_and_jobs_run() {
    let cluster = Cluster::start().await;
    let mut set = deployment("each", 1);
    set["kind"] = json!("DaemonSet");
    set["spec"]
        .as_object_mut()
        .expect("a map")
        .remove("replicas");
    cluster.create(&DAEMON_SETS, set).await;
    let covered = async |count: usize| {
        let pods = cluster.pods(("app", "each")).await;
        let nodes: BTreeSet<_> = pods
            .iter()
            .map(|p| p["spec"]["nodeName"].to_string())
            .collect();
        let found = cluster.get(&DAEMON_SETS, "each").await?;
        let ready = int(&found, "/status/numberAvailable") == count as i64;
        (ready && nodes.len() == count && pods.len() == count).then_some(())
    };
    eventually("a pod on both nodes", async || covered(2).await).await;
    cluster.add_node("node-3", "a").await;
    eventually("a pod on the third", async || covered(3).await).await;

    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "work", "namespace": "default"},
        "spec": {"completions": 3, "parallelism": 2, "template": {
            "metadata": {"labels": {"test": "ends"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    cluster.create(&JOBS, job).await;
    let done = eventually("the job is complete", async || {
        let found = cluster.get(&JOBS, "work").await?;
        (reason(&found, "Complete") == "CompletionsReached").then_some(found)
    })
    .await;
    assert_eq!(int(&done, "/status/succeeded"), 3);
    assert!(done["status"]["completionTime"].is_string());
}

#[tokio::test]
async fn cron_jobs_make_the_job_that_is_due() {
    let cluster = Cluster::start().await;
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {
            "metadata": {"labels": {"test": "ends"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
    cluster.create(&CRON_JOBS, cron).await;
    // As if it had last run an hour ago: one job is due, not sixty.
    let earlier = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let status = json!({"status": {"lastScheduleTime": earlier.to_string()}});
    let patched =
        cluster
            .api
            .merge_patch(&CRON_JOBS, Some("default"), "tick", &status, Some("status"));
    patched.await.expect("patched");
    eventually("a job is made, done and noted", async || {
        let cron = cluster.get(&CRON_JOBS, "tick").await?;
        let jobs = cluster.list(&JOBS).await;
        let done = jobs
            .iter()
            .filter(|job| reason(job, "Complete") == "CompletionsReached");
        (done.count() >= 1 && cron["status"]["lastSuccessfulTime"].is_string()).then_some(())
    })
    .await;
    assert!(
        cluster.list(&JOBS).await.len() <= 2,
        "at most one more if the minute turned"
    );
}
