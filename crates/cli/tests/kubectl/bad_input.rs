//! What is wrong is refused, with the texts of a real cluster.

use crate::Check;
use crate::cluster::Kubectl;

pub const CHECKS: &[Check] = &[
    ("bad_pods", bad_pods),
    ("bad_names", bad_names),
    ("bad_services", bad_services),
    ("bad_workloads", bad_workloads),
    ("immutable_fields", immutable_fields),
    ("malformed_requests", malformed_requests),
    ("missing_things", missing_things),
];

fn bad_pods(k: &Kubectl) {
    let pod = |name: &str, spec: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {spec}}}")
    };
    k.refused(&pod("Bad_Name", "{containers: [{name: c, image: b}]}"), &[
        "The Pod \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of",
    ]);
    k.refused(
        &pod("p", "{containers: []}"),
        &["spec.containers: Required value"],
    );
    k.refused(
        &pod(
            "p",
            "{containers: [{name: c, image: b}, {name: c, image: b}]}",
        ),
        &["The Pod \"p\" is invalid: spec.containers[1].name: Duplicate value: \"c\""],
    );
    k.refused(
        &pod(
            "p",
            "{foo: 1, containers: [{name: c, image: b, imagee: x}]}",
        ),
        &[
            "Error from server (BadRequest): error when creating",
            "strict decoding error: unknown field",
            "\"spec.foo\"",
            "\"spec.containers[0].imagee\"",
        ],
    );
    k.refused(&pod("p", "{restartPolicy: Sometimes, containers: [{name: c}]}"), &[
        "* spec.containers[0].image: Required value",
        "* spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    ]);
    k.refused(
        &pod("p", "{containers: [{name: c, image: b, ports: [{containerPort: 99999}], volumeMounts: [{name: gone, mountPath: /x}]}]}"),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
            "spec.containers[0].volumeMounts[0].name: Not found: \"gone\"",
        ],
    );
    k.refused(
        &pod(
            "p",
            "{containers: [{name: c, image: b, resources: {limits: {cpu: lots}}}]}",
        ),
        &["quantities must match the regular expression"],
    );
}

fn bad_names(k: &Kubectl) {
    k.refused(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: b, env: [{name: a=b, value: c}]}]}}",
        &["The Pod \"p\" is invalid: spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='"],
    );
    let map = |finalizers: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: f, finalizers: [{finalizers}]}}}}"
        )
    };
    k.refused(
        &map("a.dev/b, mine"),
        &["The ConfigMap \"f\" is invalid: metadata.finalizers[1]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"],
    );
    k.refused(
        &map("a.dev/"),
        &["metadata.finalizers: Invalid value: \"a.dev/\": name part must be non-empty"],
    );
    k.apply(&map("a.dev/b"));
    k.refuses(
        "kubectl patch cm f -p '{\"metadata\":{\"finalizers\":[\"mine\"]}}'",
        &["name is neither a standard finalizer name nor is it fully qualified"],
    );
    k.sh("kubectl patch cm f --type=merge -p '{\"metadata\":{\"finalizers\":null}}'")
        .good();
}

fn bad_services(k: &Kubectl) {
    let service = |name: &str, spec: &str| {
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {spec}}}")
    };
    k.refused(
        &service("1bad", "{ports: [{port: 80}]}"),
        &["a DNS-1035 label must consist of"],
    );
    k.refused(
        &service("s", "{ports: []}"),
        &["spec.ports: Required value"],
    );
    k.refused(
        &service("s", "{ports: [{port: 80}, {port: 81}]}"),
        &[
            "* spec.ports[0].name: Required value",
            "* spec.ports[1].name: Required value",
        ],
    );
    k.refused(&service("s", "{type: Foo, ports: [{port: 80}]}"), &[
        "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
    ]);
    k.refused(
        &service("s", "{type: NodePort, ports: [{port: 80, nodePort: 80}]}"),
        &["provided port is not in the valid range. The range of valid ports is 30000-32767"],
    );
}

fn bad_workloads(k: &Kubectl) {
    let deploy = |spec: &str| {
        format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d}}, spec: {spec}}}")
    };
    let template =
        "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: b}]}}";
    k.refused(&deploy(&format!("{{selector: {{matchLabels: {{app: z}}}}, {template}}}")), &[
        "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
    ]);
    k.refused(
        &deploy(&format!("{{{template}}}")),
        &[
            "* spec.selector: Required value",
            "* spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
        ],
    );
    k.refused(&deploy(&format!("{{replicas: two, selector: {{matchLabels: {{app: x}}}}, {template}}}")), &[
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    ]);
    let job = "{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: {spec: {containers: [{name: c, image: b}]}}}}";
    k.refused(job, &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]);
}

fn immutable_fields(k: &Kubectl) {
    k.sh("kubectl create deployment d --image=busybox --replicas=0")
        .good();
    let path = "'[{\"op\":\"replace\",\"path\":\"/spec/selector/matchLabels/app\",\"value\":\"e\"},{\"op\":\"replace\",\"path\":\"/spec/template/metadata/labels/app\",\"value\":\"e\"}]'";
    k.refuses(
        &format!("kubectl patch deploy d --type=json -p {path}"),
        &["spec.selector", "field is immutable"],
    );
    k.refuses(
        "kubectl patch deploy d -p '{\"spec\":{\"replicas\":\"two\"}}'",
        &["The request is invalid: patch: Invalid value: \"map[spec:map[replicas:two]]\": unrecognized type: int32"],
    );
    k.sh("kubectl create service clusterip s --tcp=80").good();
    k.refuses(
        "kubectl patch svc s -p '{\"spec\":{\"clusterIP\":\"10.9.9.9\"}}'",
        &["may not change once set"],
    );
    k.apply(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: im}, immutable: true, data: {a: b}}",
    );
    k.refused(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: im}, immutable: true, data: {a: c}}",
        &["The ConfigMap \"im\" is invalid: data: Forbidden: field is immutable when `immutable` is set"],
    );
    k.sh("kubectl run p --image=busybox --command -- sleep 100")
        .good();
    k.refuses(
        "kubectl patch pod p -p '{\"spec\":{\"hostNetwork\":true}}'",
        &["Forbidden: pod updates may not change fields other than"],
    );
    k.sh("kubectl delete pod p --grace-period=0 --force").good();
}

fn malformed_requests(k: &Kubectl) {
    k.sh(&format!(
        "kubectl create rolebinding a --clusterrole=cluster-admin --serviceaccount={}:default",
        k.namespace
    ))
    .good();
    let token = k.sh("kubectl create token default").good();
    let server = "kubectl config view --raw -o jsonpath='{.clusters[0].cluster.server}'";
    let server = k.sh(server).good();
    let path = format!("{server}/api/v1/namespaces/{}/configmaps", k.namespace);
    let curl = |rest: &str| {
        let token = token.trim();
        k.sh(&format!(
            "P={path}; curl -sk -H 'Authorization: Bearer {token}' {rest}"
        ))
        .good()
    };
    for (rest, texts) in [
        (
            "-H content-type:application/json -d '{bad' $P",
            ["\"reason\":\"BadRequest\"", "\"code\":400"],
        ),
        (
            "-H content-type:application/json -d '[]' $P",
            ["\"reason\":\"BadRequest\"", "\"code\":400"],
        ),
        (
            "-H content-type:text/plain -d '{}' $P",
            ["\"reason\":\"UnsupportedMediaType\"", "\"code\":415"],
        ),
        (
            "-XFOO $P",
            ["\"reason\":\"MethodNotAllowed\"", "\"code\":405"],
        ),
        (
            "-XFOO $P/kube-root-ca.crt",
            ["\"reason\":\"MethodNotAllowed\"", "\"code\":405"],
        ),
        (
            "-XPATCH -H content-type:application/json -d '{}' $P/x",
            ["\"reason\":\"UnsupportedMediaType\"", "\"code\":415"],
        ),
        (
            "\"$P?limit=abc\"",
            ["\"reason\":\"BadRequest\"", "\"code\":400"],
        ),
        (
            "\"$P?continue=zzz\"",
            ["continue key is not valid", "\"code\":400"],
        ),
        (
            "-H accept:text/html $P",
            ["\"reason\":\"NotAcceptable\"", "\"code\":406"],
        ),
    ] {
        let said = curl(rest);
        assert!(
            texts.iter().all(|text| said.contains(text)),
            "{rest}: {said}"
        );
    }
    let big = "head -c 1200000 /dev/zero | tr '\\0' a > big; kubectl create configmap big --from-file=big";
    k.refuses(
        big,
        &["ConfigMap \"big\" is invalid: []: Too long: may not be more than 1048576 bytes"],
    );
    k.refused(
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: no!}}",
        &["(BadRequest): error when creating", "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 2"],
    );
    k.refuses(
        "kubectl get --raw '/api/v1/pods?resourceVersion=999999999'",
        &["(Timeout): Timeout: Too large resource version: 999999999, current: "],
    );
    let huge = "head -c 4000000 /dev/zero | tr '\\0' a > big; kubectl create configmap big --from-file=big";
    k.refuses(huge, &["Request entity too large: limit is 3145728"]);
}

fn missing_things(k: &Kubectl) {
    k.refuses(
        "kubectl get pod zz",
        &["Error from server (NotFound): pods \"zz\" not found"],
    );
    k.refuses(
        "kubectl get zz",
        &["the server doesn't have a resource type \"zz\""],
    );
    k.tells("kubectl get pod", &["No resources found in "]);
    k.refuses(
        "kubectl get pod --field-selector=bad=x",
        &["field label not supported: bad"],
    );
    k.refuses("kubectl get pod -l 'a in (b'", &["expected: ',' or ')'"]);
    k.refuses("kubectl top pod", &["error: Metrics API not available"]);
    k.refuses(
        "kubectl create configmap c -n nosuch",
        &["namespaces \"nosuch\" not found"],
    );
    k.refuses(
        "kubectl delete namespace default",
        &["(Forbidden): namespaces \"default\" is forbidden: this namespace may not be deleted"],
    );
    k.refuses("kubectl get pod --as=joe", &["pods is forbidden: User \"joe\" cannot list resource \"pods\" in API group \"\" in the namespace"]);
    k.sh("kubectl create configmap c").good();
    k.refuses(
        "kubectl create configmap c",
        &["configmaps \"c\" already exists"],
    );
    k.refuses(
        "kubectl rollout status deploy/zz",
        &["deployments.apps \"zz\" not found"],
    );
}
