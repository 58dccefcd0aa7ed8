//! Protobuf request bodies of kubectl's imperative commands: a decoder driven by a table of
//! field numbers (those of the API groups' `generated.proto`).

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::meta;

/// First bytes of an encoded object.
const MAGIC: [u8; 4] = [0x6b, 0x38, 0x73, 0x00];
/// Deepest nesting read.
const MAX_DEPTH: usize = 32;

/// One line per message: `Name: number field type, ...`. Types: `str`, `bytes`, `int` and `bool`
/// (zero means absent), `int?` and `bool?` (zero is kept), `time`, `quantity`, `intstr`, `map`,
/// `mapb` (bytes), `mapq` (quantities), another message, `-` (read and ignored). `[]` before a
/// type: repeated. `*`: the message's fields are the parent's own.
const TABLE: &str = "\
ObjectMeta: 1 name str, 2 generateName str, 3 namespace str, 4 selfLink -, 5 uid str, 6 resourceVersion str, 7 generation -, 8 creationTimestamp -, 9 deletionTimestamp -, 10 deletionGracePeriodSeconds -, 11 labels map, 12 annotations map, 13 ownerReferences []OwnerReference, 14 finalizers []str, 17 managedFields -
OwnerReference: 5 apiVersion str, 1 kind str, 3 name str, 4 uid str, 6 controller bool?, 7 blockOwnerDeletion bool?
LabelSelector: 1 matchLabels map, 2 matchExpressions []LabelSelectorRequirement
LabelSelectorRequirement: 1 key str, 2 operator str, 3 values []str
LocalObjectReference: 1 name str
ObjectReference: 1 kind str, 2 namespace str, 3 name str, 4 uid str, 5 apiVersion str, 6 resourceVersion str, 7 fieldPath str
Deployment: 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status -
DeploymentSpec: 1 replicas int?, 2 selector LabelSelector, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, 5 minReadySeconds int, 6 revisionHistoryLimit int?, 7 paused bool, 9 progressDeadlineSeconds int?
DeploymentStrategy: 1 type str, 2 rollingUpdate RollingUpdate
RollingUpdate: 1 maxUnavailable intstr, 2 maxSurge intstr
PodTemplateSpec: 1 metadata ObjectMeta, 2 spec PodSpec
Pod: 1 metadata ObjectMeta, 2 spec PodSpec, 3 status -
PodSpec: 1 volumes []Volume, 2 containers []Container, 3 restartPolicy str, 4 terminationGracePeriodSeconds int?, 5 activeDeadlineSeconds int?, 6 dnsPolicy str, 7 nodeSelector map, 8 serviceAccountName str, 9 serviceAccount str, 10 nodeName str, 11 hostNetwork bool, 12 hostPID bool, 13 hostIPC bool, 14 securityContext PodSecurityContext, 15 imagePullSecrets []LocalObjectReference, 16 hostname str, 17 subdomain str, 19 schedulerName str, 20 initContainers []Container, 21 automountServiceAccountToken bool?, 22 tolerations []Toleration, 24 priorityClassName str, 25 priority int?, 30 enableServiceLinks bool?
PodSecurityContext: 2 runAsUser int?, 3 runAsNonRoot bool?, 5 fsGroup int?, 6 runAsGroup int?
Toleration: 1 key str, 2 operator str, 3 value str, 4 effect str, 5 tolerationSeconds int?
Volume: 1 name str, 2 * VolumeSource
VolumeSource: 2 emptyDir EmptyDir, 6 secret SecretSource, 19 configMap ConfigMapSource
EmptyDir: 1 medium str, 2 sizeLimit quantity
SecretSource: 1 secretName str, 3 defaultMode int?, 4 optional bool?
ConfigMapSource: 1 * LocalObjectReference, 3 defaultMode int?, 4 optional bool?
Container: 1 name str, 2 image str, 3 command []str, 4 args []str, 5 workingDir str, 6 ports []ContainerPort, 7 env []EnvVar, 8 resources Resources, 9 volumeMounts []VolumeMount, 13 terminationMessagePath str, 14 imagePullPolicy str, 16 stdin bool, 17 stdinOnce bool, 18 tty bool, 20 terminationMessagePolicy str
ContainerPort: 1 name str, 2 hostPort int, 3 containerPort int, 4 protocol str, 5 hostIP str
EnvVar: 1 name str, 2 value str
VolumeMount: 1 name str, 2 readOnly bool, 3 mountPath str, 4 subPath str
Resources: 1 limits mapq, 2 requests mapq
Namespace: 1 metadata ObjectMeta, 2 spec -, 3 status -
ConfigMap: 1 metadata ObjectMeta, 2 data map, 3 binaryData mapb, 4 immutable bool?
Secret: 1 metadata ObjectMeta, 2 data mapb, 3 type str, 4 stringData map, 5 immutable bool?
ServiceAccount: 1 metadata ObjectMeta, 2 secrets []ObjectReference, 3 imagePullSecrets []LocalObjectReference, 4 automountServiceAccountToken bool?
Service: 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status -
ServiceSpec: 1 ports []ServicePort, 2 selector map, 3 clusterIP str, 4 type str, 5 externalIPs []str, 7 sessionAffinity str, 8 loadBalancerIP str, 9 loadBalancerSourceRanges []str, 10 externalName str, 11 externalTrafficPolicy str, 12 healthCheckNodePort int, 13 publishNotReadyAddresses bool, 17 ipFamilyPolicy str, 18 clusterIPs []str, 19 ipFamilies []str, 20 allocateLoadBalancerNodePorts bool?, 21 loadBalancerClass str, 22 internalTrafficPolicy str, 23 trafficDistribution str
ServicePort: 1 name str, 2 protocol str, 3 port int, 4 targetPort intstr, 5 nodePort int, 6 appProtocol str
Ingress: 1 metadata ObjectMeta, 2 spec IngressSpec, 3 status -
IngressSpec: 4 ingressClassName str, 1 defaultBackend IngressBackend, 2 tls []IngressTls, 3 rules []IngressRule
IngressBackend: 4 service IngressServiceBackend
IngressServiceBackend: 1 name str, 2 port IngressPort
IngressPort: 1 name str, 2 number int
IngressTls: 1 hosts []str, 2 secretName str
IngressRule: 1 host str, 2 * IngressRuleValue
IngressRuleValue: 1 http IngressHttp
IngressHttp: 1 paths []IngressPath
IngressPath: 1 path str, 3 pathType str, 2 backend IngressBackend
Role: 1 metadata ObjectMeta, 2 rules []PolicyRule
ClusterRole: 1 metadata ObjectMeta, 2 rules []PolicyRule, 3 aggregationRule AggregationRule
AggregationRule: 1 clusterRoleSelectors []LabelSelector
PolicyRule: 1 verbs []str, 2 apiGroups []str, 3 resources []str, 4 resourceNames []str, 5 nonResourceURLs []str
RoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
ClusterRoleBinding: 1 metadata ObjectMeta, 2 subjects []Subject, 3 roleRef RoleRef
Subject: 1 kind str, 2 apiGroup str, 3 name str, 4 namespace str
RoleRef: 1 apiGroup str, 2 kind str, 3 name str
Job: 1 metadata ObjectMeta, 2 spec JobSpec, 3 status -
JobSpec: 1 parallelism int?, 2 completions int?, 3 activeDeadlineSeconds int?, 4 selector LabelSelector, 5 manualSelector bool?, 6 template PodTemplateSpec, 7 backoffLimit int?, 8 ttlSecondsAfterFinished int?, 9 completionMode str, 10 suspend bool?
CronJob: 1 metadata ObjectMeta, 2 spec CronJobSpec, 3 status -
CronJobSpec: 1 schedule str, 2 startingDeadlineSeconds int?, 3 concurrencyPolicy str, 4 suspend bool?, 5 jobTemplate JobTemplate, 6 successfulJobsHistoryLimit int?, 7 failedJobsHistoryLimit int?, 8 timeZone str
JobTemplate: 1 metadata ObjectMeta, 2 spec JobSpec
ResourceQuota: 1 metadata ObjectMeta, 2 spec QuotaSpec, 3 status -
QuotaSpec: 1 hard mapq, 2 scopes []str
PodDisruptionBudget: 1 metadata ObjectMeta, 2 spec BudgetSpec, 3 status -
BudgetSpec: 1 minAvailable intstr, 2 selector LabelSelector, 3 maxUnavailable intstr
PriorityClass: 1 metadata ObjectMeta, 2 value int?, 3 globalDefault bool, 4 description str, 5 preemptionPolicy str
HorizontalPodAutoscaler: 1 metadata ObjectMeta, 2 spec AutoscalerSpec, 3 status -
AutoscalerSpec: 1 scaleTargetRef CrossReference, 2 minReplicas int?, 3 maxReplicas int, 4 metrics []Metric
HorizontalPodAutoscalerV1: 1 metadata ObjectMeta, 2 spec AutoscalerSpecV1, 3 status -
AutoscalerSpecV1: 1 scaleTargetRef CrossReference, 2 minReplicas int?, 3 maxReplicas int, 4 targetCPUUtilizationPercentage int?
CrossReference: 1 kind str, 2 name str, 3 apiVersion str
Metric: 1 type str, 4 resource ResourceMetric
ResourceMetric: 1 name str, 2 target MetricTarget
MetricTarget: 1 type str, 2 value quantity, 3 averageValue quantity, 4 averageUtilization int?
TokenRequest: 1 metadata ObjectMeta, 2 spec TokenRequestSpec, 3 status -
TokenRequestSpec: 1 audiences []str, 4 expirationSeconds int?, 3 boundObjectRef BoundReference
BoundReference: 1 kind str, 2 apiVersion str, 3 name str, 4 uid str
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec AccessSpec, 3 status -
AccessSpec: 1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes PathAttributes
ResourceAttributes: 1 namespace str, 2 verb str, 3 group str, 4 version str, 5 resource str, 6 subresource str, 7 name str
PathAttributes: 1 path str, 2 verb str
SelfSubjectRulesReview: 1 metadata ObjectMeta, 2 spec RulesSpec, 3 status -
RulesSpec: 1 namespace str
SelfSubjectReview: 1 metadata ObjectMeta, 2 status -
DeleteOptions: 1 gracePeriodSeconds int?, 2 preconditions Preconditions, 3 orphanDependents bool?, 4 propagationPolicy str, 5 dryRun []str
Preconditions: 1 uid str, 2 resourceVersion str
Eviction: 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions
Scale: 1 metadata ObjectMeta, 2 spec ScaleSpec, 3 status -
ScaleSpec: 1 replicas int?
";

#[derive(Clone, Debug)]
struct Field {
    name: &'static str,
    kind: &'static str,
    repeated: bool,
}

type Message = HashMap<u32, Field>;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    for line in TABLE.lines() {
        let Some((name, fields)) = line.split_once(": ") else {
            continue;
        };
        let mut message = Message::new();
        for field in fields.split(", ") {
            let mut words = field.split(' ');
            if let (Some(number), Some(name), Some(kind)) =
                (words.next(), words.next(), words.next())
                && let Ok(number) = number.parse()
            {
                let plain = kind.trim_start_matches("[]");
                message.insert(
                    number,
                    Field {
                        name,
                        kind: plain,
                        repeated: plain.len() != kind.len(),
                    },
                );
            }
        }
        all.insert(name, message);
    }
    all
});

/// One value on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

fn truncated() -> String {
    "the protobuf body ends early".to_owned()
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut out = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or_else(truncated)?;
            self.0 = rest;
            out |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err("a protobuf number is too long".to_owned())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        if self.0.len() < n {
            return Err(truncated());
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }

    /// The next field's number and value; `None` at the end.
    fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "bad protobuf field number".to_owned())?;
        let value = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Bytes(self.take(8)?),
            5 => Wire::Bytes(self.take(4)?),
            2 => {
                let n = usize::try_from(self.varint()?).map_err(|_| truncated())?;
                Wire::Bytes(self.take(n)?)
            }
            other => return Err(format!("protobuf wire type {other} is not used here")),
        };
        Ok(Some((number, value)))
    }
}

/// Decodes an object with its envelope.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, ApiError> {
    decode_inner(bytes).map_err(|e| ApiError::bad_request(format!("error decoding protobuf: {e}")))
}

fn decode_inner(bytes: &[u8]) -> Result<Value, String> {
    let body = bytes
        .strip_prefix(&MAGIC[..])
        .ok_or("the body does not begin with the mark of an encoded object")?;
    let mut reader = Reader(body);
    let (mut api_version, mut kind, mut raw): (String, String, &[u8]) = Default::default();
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Wire::Bytes(b)) => {
                let mut types = Reader(b);
                while let Some((n, v)) = types.field()? {
                    match (n, v) {
                        (1, Wire::Bytes(b)) => api_version = text(b)?,
                        (2, Wire::Bytes(b)) => kind = text(b)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    if !MESSAGES.contains_key(kind.as_str()) {
        return Err(format!(
            "{api_version} {kind} is not understood in protobuf; send JSON"
        ));
    }
    // The one kind whose versions number their fields differently.
    let old_autoscaler = api_version == "autoscaling/v1" && kind == "HorizontalPodAutoscaler";
    let name = if old_autoscaler {
        "HorizontalPodAutoscalerV1"
    } else {
        kind.as_str()
    };
    let mut object = message(name, raw, 0)?;
    let map = meta::map_mut_of(&mut object);
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), kind.into());
    Ok(object)
}

fn text(b: &[u8]) -> Result<String, String> {
    String::from_utf8(b.to_vec()).map_err(|_| "a protobuf text is not UTF-8".to_owned())
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("the protobuf body is nested too deeply".to_owned());
    }
    let fields = MESSAGES
        .get(name)
        .ok_or_else(|| format!("message {name} is not in the table"))?;
    let mut out = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        let Some(field) = fields.get(&number) else {
            let empty =
                matches!(wire, Wire::Bytes(b) if b.is_empty()) || matches!(wire, Wire::Number(0));
            if empty {
                continue;
            }
            return Err(format!(
                "field {number} of {name} is not understood in protobuf; send JSON"
            ));
        };
        add(field, wire, &mut out, depth)?;
    }
    Ok(Value::Object(out))
}

fn add(
    field: &Field,
    wire: Wire<'_>,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    let value = match (field.kind, wire) {
        ("-", _) => return Ok(()),
        ("int", Wire::Number(0)) | ("bool", Wire::Number(0)) => return Ok(()),
        ("int" | "int?", Wire::Number(n)) => json!(n.cast_signed()),
        ("bool" | "bool?", Wire::Number(n)) => json!(n != 0),
        ("str", Wire::Bytes(b)) => {
            // Repeated texts may be empty (the core group in a rule); single ones are absent.
            if b.is_empty() && !field.repeated {
                return Ok(());
            }
            text(b)?.into()
        }
        ("map" | "mapb" | "mapq", Wire::Bytes(b)) => {
            let (k, v) = entry(field.kind, b)?;
            let slot = out.entry(field.name).or_insert_with(|| json!({}));
            meta::map_mut_of(slot).insert(k, v);
            return Ok(());
        }
        ("quantity", Wire::Bytes(b)) => quantity(b)?,
        ("intstr", Wire::Bytes(b)) => int_or_string(b)?,
        (name, Wire::Bytes(b)) => {
            let inner = message(name, b, depth + 1)?;
            if field.name == "*" {
                if let Value::Object(m) = inner {
                    out.extend(m);
                }
                return Ok(());
            }
            inner
        }
        (kind, Wire::Number(_)) => {
            return Err(format!(
                "field {} has a number where {kind} is due",
                field.name
            ));
        }
    };
    if field.repeated {
        let slot = out.entry(field.name).or_insert_with(|| json!([]));
        if let Some(list) = slot.as_array_mut() {
            list.push(value);
        }
    } else {
        out.insert(field.name.to_owned(), value);
    }
    Ok(())
}

fn entry(kind: &str, b: &[u8]) -> Result<(String, Value), String> {
    let mut reader = Reader(b);
    let (mut key, mut value): (String, &[u8]) = (String::new(), &[]);
    while let Some((n, v)) = reader.field()? {
        match (n, v) {
            (1, Wire::Bytes(b)) => key = text(b)?,
            (2, Wire::Bytes(b)) => value = b,
            _ => {}
        }
    }
    let value = match kind {
        "mapb" => base64::engine::general_purpose::STANDARD
            .encode(value)
            .into(),
        "mapq" => quantity(value)?,
        _ => text(value)?.into(),
    };
    Ok((key, value))
}

fn quantity(b: &[u8]) -> Result<Value, String> {
    let mut reader = Reader(b);
    while let Some((n, v)) = reader.field()? {
        if let (1, Wire::Bytes(b)) = (n, v) {
            return Ok(text(b)?.into());
        }
    }
    Ok("0".into())
}

fn int_or_string(b: &[u8]) -> Result<Value, String> {
    let mut reader = Reader(b);
    let (mut is_text, mut number, mut word) = (false, 0u64, String::new());
    while let Some((n, v)) = reader.field()? {
        match (n, v) {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n,
            (3, Wire::Bytes(b)) => word = text(b)?,
            _ => {}
        }
    }
    Ok(if is_text {
        word.into()
    } else {
        json!(number.cast_signed())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).expect("short")];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &types), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_decodes() {
        let metadata = [field(1, b"cm"), field(3, b"default"), field(2, b"")].concat();
        let data = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &metadata), field(2, &data)].concat();
        let v = decode(&envelope("v1", "ConfigMap", &raw)).expect("decodes");
        assert_eq!(
            v,
            json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v"}})
        );
    }

    #[test]
    fn numbers_repeats_and_inlined_messages_decode() {
        let port = [field(4, &[0x08, 0x01, 0x1a, 0x01, b'h']), vec![0x18, 80]].concat();
        let spec = [field(1, &port), field(4, b"ClusterIP")].concat();
        let raw = field(2, &spec);
        let v = decode(&envelope("v1", "Service", &raw)).expect("decodes");
        assert_eq!(
            v["spec"]["ports"][0],
            json!({"targetPort": "h", "port": 80})
        );
        let backend = field(4, &[field(1, b"s"), field(2, &[0x10, 80])].concat());
        let http = field(1, &field(1, &[field(1, b"/"), field(2, &backend)].concat()));
        let rule = [field(1, b"h"), field(2, &http)].concat();
        let raw = field(2, &field(3, &rule));
        let v = decode(&envelope("networking.k8s.io/v1", "Ingress", &raw)).expect("decodes");
        let path = &v["spec"]["rules"][0]["http"]["paths"][0];
        assert_eq!(path["backend"]["service"]["port"]["number"], 80);
    }

    #[test]
    fn both_versions_of_an_autoscaler_decode() {
        let decode = |version: &str, rest: &[u8]| {
            let reference = field(1, &[field(1, b"Deployment"), field(2, b"d")].concat());
            let spec = [reference, vec![0x18, 3], rest.to_vec()].concat();
            let body = envelope(version, "HorizontalPodAutoscaler", &field(2, &spec));
            decode(&body).expect("decodes")["spec"].clone()
        };
        let old = decode("autoscaling/v1", &[0x20, 50]);
        assert_eq!(old["targetCPUUtilizationPercentage"], 50);
        // As kubectl 1.37 sends it: type, resource {name, target {type, averageUtilization}}.
        let target = [field(1, b"Utilization"), vec![0x20, 50]].concat();
        let resource = [field(1, b"cpu"), field(2, &target)].concat();
        let metric = [field(1, b"Resource"), field(4, &resource)].concat();
        let new = decode("autoscaling/v2", &field(4, &metric));
        assert_eq!(
            new["metrics"],
            json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}])
        );
        assert_eq!(
            (&new["maxReplicas"], &old["maxReplicas"]),
            (&json!(3), &json!(3))
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(decode(b"junk").is_err());
        assert!(decode(&envelope("v1", "Unheard", b"")).is_err());
        // Field 18 (affinity) of a pod's spec is not in the table.
        let raw = field(2, &[0x92, 0x01, 0x02, 0x08, 0x01]);
        assert!(decode(&envelope("v1", "Pod", &raw)).is_err());
        let cut = envelope("v1", "ConfigMap", &field(1, b"\x0a\x05ab"));
        assert!(decode(&cut).is_err());
    }
}
