//! Objects made, shown, changed and removed.

use crate::Check;
use crate::cluster::Kubectl;

pub const CHECKS: &[Check] = &[
    ("generators", generators),
    ("apply_three_ways", apply_three_ways),
    ("apply_server_side", apply_server_side),
    ("edit_patch_label", edit_patch_label),
    ("discovery_and_explain", discovery_and_explain),
    ("access", access),
    ("custom_resources", custom_resources),
    ("namespace_with_contents", namespace_with_contents),
];

fn generators(k: &Kubectl) {
    for (line, text) in [
        ("configmap cm --from-literal=a=b", "configmap/cm created"),
        ("secret generic s --from-literal=a=b", "secret/s created"),
        ("serviceaccount sa", "serviceaccount/sa created"),
        ("service nodeport np --tcp=80:8080", "service/np created"),
        (
            "service clusterip none --clusterip=None --tcp=80",
            "service/none created",
        ),
        (
            "service externalname en --external-name=example.com",
            "service/en created",
        ),
        ("service loadbalancer lb --tcp=80", "service/lb created"),
        (
            "role r --verb=get,list --resource=pods",
            "role.rbac.authorization.k8s.io/r created",
        ),
        (
            "rolebinding rb --role=r --user=bob",
            "rolebinding.rbac.authorization.k8s.io/rb created",
        ),
        (
            "ingress ing --rule=foo.com/bar=np:80",
            "ingress.networking.k8s.io/ing created",
        ),
        ("quota q --hard=pods=100", "resourcequota/q created"),
        (
            "poddisruptionbudget p --selector=a=b --min-available=1",
            "poddisruptionbudget.policy/p created",
        ),
        (
            "cronjob cj --image=busybox --schedule='0 0 1 1 *' -- true",
            "cronjob.batch/cj created",
        ),
    ] {
        k.says(&format!("kubectl create {line}"), text);
    }
    k.says(
        "kubectl get svc en lb -o custom-columns=N:.metadata.name,T:.spec.type --no-headers",
        "en    ExternalName\nlb    LoadBalancer",
    );
    k.tells("kubectl get svc", &["<pending>", "example.com", "None "]);
    k.tells(
        "kubectl describe svc np",
        &["NodePort:", "TargetPort:", "8080/TCP"],
    );
    k.tells("kubectl describe cm cm", &["a:\n----\nb\n"]);
    k.tells(
        "kubectl describe secret s",
        &["Type:  Opaque", "a:  1 bytes"],
    );
    k.tells(
        "kubectl describe role r",
        &["pods       []                 []              [get list]"],
    );
    k.tells("kubectl describe ingress ing", &["foo.com", "/bar   np:80"]);
    k.tells(
        "kubectl get ing,role,rolebinding -o wide",
        &["<none>   foo.com", "Role/r", "bob"],
    );
    k.sh("kubectl create deployment d --image=busybox --replicas=0")
        .good();
    // One flag in the old program, another in the new one, and other versions of the API.
    k.tells(
        "kubectl autoscale deploy d --max=3 --cpu-percent=50 2>&1 || kubectl autoscale deploy d --max=3 --cpu=50%",
        &["horizontalpodautoscaler.autoscaling/d autoscaled"],
    );
    k.tells("kubectl get hpa d", &["Deployment/d", "/50%"]);
    let token = k.sh("kubectl create token sa").good();
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    k.says("kubectl get cm cm -o jsonpath='{.data.a}'", "b");
    k.says("kubectl get cm cm -o go-template='{{.data.a}}'", "b");
    // A controller puts the authority's certificate into every namespace.
    k.settle(
        "the namespace's objects",
        "kubectl get cm,secret -o name",
        |said| said.text == "configmap/cm\nconfigmap/kube-root-ca.crt\nsecret/s\n",
    );
    k.tells(
        "kubectl get cm -A --sort-by=.metadata.name --show-labels",
        &["NAMESPACE", "LABELS", "cm "],
    );
    // Each condition is met by an event, so that no time is guessed.
    k.tells(
        "$KUBECTL get cm -w -o name > watched & W=$!; until grep -q ^configmap/cm watched; do sleep 0.1; done; \
         kubectl create configmap later; until grep later watched; do sleep 0.1; done; kill $W",
        &["configmap/later created"],
    );
    k.says("kubectl delete cm --all -o name | head -1", "configmap/cm");
}

const DEPLOY: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 0
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec:
      containers:
      - {name: c, image: busybox, env: [{name: A, value: a}, {name: B, value: b}]}
";

fn apply_three_ways(k: &Kubectl) {
    assert_eq!(k.apply(DEPLOY).trim(), "deployment.apps/d created");
    assert_eq!(k.apply(DEPLOY).trim(), "deployment.apps/d unchanged");
    // What another made stays; what the file no longer says goes.
    k.sh("kubectl set env deploy/d C=c").good();
    let less = DEPLOY.replace(", {name: B, value: b}", "");
    let diff = k.feed("diff", &less);
    assert_eq!(diff.code, 1, "{}", diff.text);
    assert!(diff.text.contains("-        - name: B"), "{}", diff.text);
    assert_eq!(
        k.feed("apply --dry-run=server", &less).good().trim(),
        "deployment.apps/d configured (server dry run)"
    );
    assert_eq!(k.apply(&less).trim(), "deployment.apps/d configured");
    k.says(
        "kubectl get deploy d -o jsonpath='{.spec.template.spec.containers[0].env[*].name}'",
        "A C",
    );
    k.tells("kubectl apply view-last-applied deploy d", &["replicas: 0"]);
}

fn apply_server_side(k: &Kubectl) {
    assert_eq!(
        k.feed("apply --server-side", DEPLOY).good().trim(),
        "deployment.apps/d serverside-applied"
    );
    let other = DEPLOY.replace("replicas: 0", "replicas: 1");
    let conflict = k
        .feed("apply --server-side --field-manager=other", &other)
        .bad();
    assert!(
        conflict
            .contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"),
        "{conflict}"
    );
    k.feed(
        "apply --server-side --field-manager=other --force-conflicts",
        &other,
    )
    .good();
    k.says("kubectl get deploy d -o jsonpath='{.spec.replicas}'", "1");
    k.tells(
        "kubectl get deploy d -o yaml --show-managed-fields",
        &["manager: other", "operation: Apply"],
    );
}

fn edit_patch_label(k: &Kubectl) {
    k.apply(DEPLOY);
    k.says(
        "EDITOR='sed -i s/paused:.*//' kubectl edit deploy d",
        "Edit cancelled, no changes made.",
    );
    k.says(
        "EDITOR='sed -i s/value:.b/value:\\ z/' kubectl edit deploy d",
        "deployment.apps/d edited",
    );
    k.says(
        "kubectl get deploy d -o jsonpath='{.spec.template.spec.containers[0].env[1].value}'",
        "z",
    );
    k.says(
        "kubectl patch deploy d -p '{\"spec\":{\"minReadySeconds\":1}}'",
        "deployment.apps/d patched",
    );
    unchanged(
        k,
        "kubectl patch deploy d -p '{\"spec\":{\"minReadySeconds\":1}}'",
    );
    k.says(
        "kubectl patch deploy d --type=merge -p '{\"spec\":{\"minReadySeconds\":null}}'",
        "deployment.apps/d patched",
    );
    let json = |op: &str, path: &str| {
        format!(
            "kubectl patch deploy d --type=json -p '[{{\"op\":\"{op}\",\"path\":\"{path}\",\"value\":0}}]'"
        )
    };
    unchanged(k, &json("test", "/spec/replicas"));
    k.refuses(
        &json("replace", "/spec/nope/x"),
        &["The request is invalid: the server rejected our request due to an error in our request"],
    );
    k.says("kubectl label deploy d x=y", "deployment.apps/d labeled");
    k.refuses(
        "kubectl label deploy d x=z",
        &["already has a value (y), and --overwrite is false"],
    );
    k.says("kubectl get deploy -l x=y -o name", "deployment.apps/d");
    k.says("kubectl label deploy d x-", "deployment.apps/d unlabeled");
    k.tells(
        "kubectl annotate deploy d n=1",
        &["deployment.apps/d annotate"],
    );
    k.says(
        "kubectl get deploy d -o jsonpath='{.metadata.annotations.n}'",
        "1",
    );
}

fn discovery_and_explain(k: &Kubectl) {
    k.tells(
        "kubectl api-resources",
        &[
            "deploy       apps/v1",
            "po           v1",
            "crd,crds     apiextensions.k8s.io/v1",
        ],
    );
    k.tells(
        "kubectl api-versions",
        &["apps/v1", "networking.k8s.io/v1", "\nv1\n"],
    );
    k.tells(
        "kubectl explain pod.spec.containers.image",
        &["FIELD: image <string>"],
    );
    k.tells("kubectl version", &["Server Version: v1."]);
    k.says("kubectl get --raw /readyz", "ok");
    k.refuses(
        "kubectl get --raw /nope",
        &["(NotFound): the server could not find the requested resource"],
    );
    k.tells(
        "kubectl describe node lateen-1",
        &["KubeletReady", "PodCIDR:", "HolderIdentity:  lateen-1"],
    );
    k.tells(
        "kubectl get node -o wide",
        &["lateen-1   Ready", "lateen-2   Ready", "CONTAINER-RUNTIME"],
    );
}

fn access(k: &Kubectl) {
    k.says("kubectl auth can-i get pods", "yes");
    k.refuses("kubectl auth can-i get pods --as=joe", &["no"]);
    k.sh("kubectl create role r --verb=get --resource=pods; kubectl create rolebinding rb --role=r --user=joe").good();
    k.says("kubectl auth can-i get pods --as=joe", "yes");
    k.tells(
        "kubectl auth can-i --list --as=joe",
        &["pods  ", "[/version]"],
    );
    k.tells(
        "kubectl auth whoami --as=joe --as-group=dev",
        &["joe", "[dev system:authenticated]"],
    );
}

/// A patch that changes nothing. kubectl compares whole objects, so that a status which the
/// controller writes in between counts as a change.
fn unchanged(k: &Kubectl, line: &str) {
    k.settle("a patch without effect", line, |said| {
        said.text.trim() == "deployment.apps/d patched (no change)"
    });
}

const CRD: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [SHORT]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.num, statusReplicasPath: .status.num}}
    additionalPrinterColumns: [{name: Num, type: integer, jsonPath: .spec.num}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [num]
            properties: {num: {type: integer, maximum: 9}, max: {type: integer, default: 3}, e: {type: string, enum: [a, b]}}
            x-kubernetes-validations: [{rule: self.num <= self.max, message: num over max}]
          status: {type: object, properties: {num: {type: integer}}}
";

fn custom_resources(k: &Kubectl) {
    // Definitions belong to no namespace: each kubectl makes one of its own.
    let group = format!("{}.lateen.dev", k.namespace);
    k.apply(&CRD.replace("GROUP", &group).replace("SHORT", &k.namespace));
    k.tells(
        &format!("kubectl wait --for=condition=Established crd/widgets.{group} --timeout=180s"),
        &["condition met"],
    );
    let widget = |spec: &str| {
        format!("{{apiVersion: {group}/v1, kind: Widget, metadata: {{name: w}}, spec: {spec}}}")
    };
    assert_eq!(
        k.apply(&widget("{num: 2}")).trim(),
        format!("widget.{group}/w created")
    );
    k.tells(
        &format!("kubectl get {}", k.namespace),
        &["NAME   NUM\nw      2"],
    );
    k.refused(
        &widget("{num: 5}"),
        &[
            "The Widget \"w\" is invalid: spec: Invalid value:",
            "num over max",
        ],
    );
    k.refused(
        &widget("{num: 50, e: c}"),
        &[
            "spec.e: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            "spec.num: Invalid value: 50: spec.num in body should be less than or equal to 9",
        ],
    );
    k.refused(
        &widget("{num: 1, q: 1}"),
        &["strict decoding error: unknown field \"spec.q\""],
    );
    k.says(
        &format!("kubectl scale widgets.{group} w --replicas=3"),
        &format!("widget.{group}/w scaled"),
    );
    k.refuses(
        &format!("kubectl patch widgets.{group} w -p '{{}}'"),
        &["application/strategic-merge-patch+json is not supported"],
    );
    k.says(
        &format!("kubectl patch widgets.{group} w --type=merge --subresource=status -p '{{\"status\":{{\"num\":7}}}}'"),
        &format!("widget.{group}/w patched"),
    );
    k.says(
        &format!("kubectl get widgets.{group} w -o jsonpath='{{.spec.num}} {{.spec.max}} {{.status.num}}'"),
        "3 3 7",
    );
    k.tells(
        &format!("kubectl explain widgets.spec --api-version={group}/v1"),
        &["num\t<integer> -required-"],
    );
    k.tells(&format!("kubectl delete crd widgets.{group}"), &["deleted"]);
    k.refuses(
        &format!("kubectl get widgets.{group}"),
        &["the server doesn't have a resource type"],
    );
}

fn namespace_with_contents(k: &Kubectl) {
    let other = format!("{}-more", k.namespace);
    k.sh(&format!("kubectl create namespace {other} && kubectl create deployment d -n {other} --image=busybox -- sh -c 'trap exit TERM; sleep 100 & wait'")).good();
    k.sh(&format!(
        "kubectl rollout status deploy/d -n {other} --timeout=180s"
    ))
    .good();
    k.tells(&format!("kubectl delete namespace {other}"), &["deleted"]);
    k.tells(
        &format!("kubectl get all -n {other}"),
        &["No resources found"],
    );
    k.refuses(&format!("kubectl get namespace {other}"), &["not found"]);
}
