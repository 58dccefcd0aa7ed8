//! Deployments rolled, scaled and undone; jobs; removal with its cascades; nodes emptied.

use crate::Check;
use crate::cluster::Kubectl;

pub const CHECKS: &[Check] = &[
    ("rollouts", rollouts),
    ("jobs", jobs),
    ("cascades", cascades),
];

/// What disturbs every pod of the cluster: run when nothing else runs.
pub const ALONE: &[Check] = &[("nodes_drained", nodes_drained)];

/// A deployment whose program ends at once when told to.
fn deploy(k: &Kubectl, replicas: u32) {
    k.says(
        &format!("kubectl create deployment d --image=busybox:1 --replicas={replicas} -- sh -c 'trap exit TERM; echo up; sleep 1000 & wait'"),
        "deployment.apps/d created",
    );
    done(k);
}

fn done(k: &Kubectl) {
    k.tells(
        "kubectl rollout status deploy/d --timeout=180s",
        &["deployment \"d\" successfully rolled out"],
    );
}

fn rollouts(k: &Kubectl) {
    deploy(k, 2);
    k.comes_to_tell(
        "kubectl get deploy,rs -o wide",
        &["2/2     2            2", "busybox:1", "pod-template-hash="],
    );
    k.comes_to_tell(
        "kubectl describe deploy d",
        &[
            "Replicas:               2 desired | 2 updated | 2 total | 2 available | 0 unavailable",
            "NewReplicaSetAvailable",
            "Scaled up replica set d-",
        ],
    );
    k.says(
        "kubectl set image deploy/d busybox=busybox:2",
        "deployment.apps/d image updated",
    );
    done(k);
    k.tells(
        "kubectl rollout history deploy/d",
        &["REVISION  CHANGE-CAUSE\n1         <none>\n2         <none>"],
    );
    k.tells(
        "kubectl rollout history deploy/d --revision=1",
        &["busybox:1"],
    );
    k.says(
        "kubectl rollout undo deploy/d",
        "deployment.apps/d rolled back",
    );
    done(k);
    k.says(
        "kubectl get deploy d -o jsonpath='{.spec.template.spec.containers[0].image}'",
        "busybox:1",
    );
    k.refuses(
        "kubectl rollout undo deploy/d --to-revision=99",
        &["unable to find specified revision 99 in history"],
    );
    k.says("kubectl rollout pause deploy/d", "deployment.apps/d paused");
    k.refuses(
        "kubectl rollout restart deploy/d",
        &["can't restart paused deployment"],
    );
    k.says(
        "kubectl rollout resume deploy/d",
        "deployment.apps/d resumed",
    );
    k.says(
        "kubectl rollout restart deploy/d",
        "deployment.apps/d restarted",
    );
    done(k);
    k.says(
        "kubectl scale deploy d --replicas=3 --timeout=180s",
        "deployment.apps/d scaled",
    );
    k.refuses(
        "kubectl scale deploy d --replicas=1 --current-replicas=9",
        &["Expected replicas to be 9, was 3"],
    );
    k.says(
        "kubectl set env deploy/d Q=1",
        "deployment.apps/d env updated",
    );
    done(k);
}

fn jobs(k: &Kubectl) {
    k.says(
        "kubectl create job j --image=busybox -- echo hi",
        "job.batch/j created",
    );
    k.says(
        "kubectl wait --for=condition=complete job/j --timeout=180s",
        "job.batch/j condition met",
    );
    k.says("kubectl logs job/j", "hi");
    k.tells("kubectl get job j", &["Complete", "1/1"]);
    k.comes_to_tell(
        "kubectl describe job j",
        &[
            "0 Active (0 Ready) / 1 Succeeded / 0 Failed",
            "Job completed",
        ],
    );
    k.tells("kubectl delete job j", &["job.batch \"j\" deleted"]);
    k.settle("the job's pod to go", "kubectl get pod -o name", |said| {
        !said.text.contains("pod/j")
    });
}

fn cascades(k: &Kubectl) {
    deploy(k, 1);
    k.sh("kubectl delete deploy d --cascade=orphan").good();
    let set = k.sh("kubectl get rs -l app=d -o name").good();
    assert!(set.contains("replicaset.apps/d-"), "{set}");
    k.sh("kubectl delete rs -l app=d --cascade=foreground")
        .good();
    k.tells("kubectl get rs,pod -l app=d", &["No resources found"]);
    k.refuses(
        "kubectl delete deploy d",
        &["deployments.apps \"d\" not found"],
    );
    k.says("kubectl delete deploy d --ignore-not-found", "");
}

fn nodes_drained(k: &Kubectl) {
    deploy(k, 1);
    k.says("kubectl cordon lateen-1", "node/lateen-1 cordoned");
    k.tells("kubectl get node lateen-1", &["Ready,SchedulingDisabled"]);
    let drained = k.sh(
        "kubectl drain lateen-1 --ignore-daemonsets --force --delete-emptydir-data --timeout=180s",
    );
    k.sh("kubectl uncordon lateen-1").good();
    assert!(
        drained.code == 0 && drained.text.contains("node/lateen-1 drained"),
        "{}",
        drained.text
    );
    // The deployment's status may still be the one from before the drain.
    k.settle(
        "a pod on the other node",
        "kubectl get pod -l app=d --field-selector=status.phase=Running -o jsonpath='{.items[*].spec.nodeName}'",
        |said| said.text == "lateen-2",
    );
    done(k);
}
