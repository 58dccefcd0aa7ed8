//! Which node a pod goes to: the filters, the scores, and the text when none fits. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::quantity::{Requests, requests};
use crate::controllers::object::{
    condition_true, controller_uid, deleting, expression_matches, flag, int, label, list, map,
    name, namespace, pod_ended, selector_matches, text, uid,
};

/// What the choice sees of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// All nodes.
    pub nodes: &'a [Arc<Value>],
    /// All pods of all namespaces.
    pub pods: &'a [Arc<Value>],
}

/// Why a pod stays where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unschedulable(pub String);

/// What the pods of one node take.
#[derive(Debug, Default)]
struct Load<'a> {
    pods: Vec<&'a Value>,
    requests: Requests,
}

impl World<'_> {
    fn loads(&self) -> HashMap<&str, Load<'_>> {
        let mut loads: HashMap<&str, Load<'_>> = HashMap::new();
        for pod in self.pods {
            let node = text(pod, "/spec/nodeName");
            if node.is_empty() || pod_ended(pod) {
                continue;
            }
            let load = loads.entry(node).or_default();
            load.pods.push(pod);
            load.requests.add(&requests(pod));
        }
        loads
    }

    /// The values of a topology label at the nodes of pods that a pod-affinity term selects.
    fn topologies(&self, term: &Value, own_namespace: &str) -> BTreeSet<String> {
        let key = text(term, "/topologyKey");
        let spaces = list(term, "/namespaces");
        let anywhere = term.get("namespaceSelector").is_some_and(Value::is_object);
        self.pods
            .iter()
            .filter(|pod| !pod_ended(pod) && !deleting(pod))
            .filter(|pod| match spaces {
                [] => anywhere || namespace(pod) == own_namespace,
                named => anywhere || named.iter().any(|n| n == namespace(pod)),
            })
            .filter(|pod| selector_matches(term.get("labelSelector"), pod))
            .filter_map(|pod| self.node(text(pod, "/spec/nodeName")))
            .filter_map(|node| label(node, key).map(str::to_owned))
            .collect()
    }

    fn node(&self, wanted: &str) -> Option<&Value> {
        self.nodes
            .iter()
            .map(|n| &**n)
            .find(|node| name(node) == wanted)
    }
}

/// Chooses a node: among those that fit, the one that the pod's preferences, then its fellows
/// (pods of the same owner), then the requested CPU, then the number of pods speak for.
///
/// # Errors
/// The text of the FailedScheduling event when no node fits.
pub fn choose(pod: &Value, world: World<'_>) -> Result<String, Unschedulable> {
    if world.nodes.is_empty() {
        return Err(Unschedulable(
            "no nodes available to schedule pods".to_owned(),
        ));
    }
    let loads = world.loads();
    let affinity = PodAffinity::of(pod, world);
    let nothing = Load::default();
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(Score<'_>, &Value)> = None;
    for node in world.nodes {
        let load = loads.get(name(node)).unwrap_or(&nothing);
        match refusal(pod, node, load, &affinity) {
            Some(why) => *refusals.entry(why).or_insert(0) += 1,
            None => {
                let score = score(pod, node, load, &affinity);
                if best.as_ref().is_none_or(|(least, _)| score < *least) {
                    best = Some((score, node));
                }
            }
        }
    }
    best.map(|(_, node)| name(node).to_owned()).ok_or_else(|| {
        let reasons: Vec<String> = refusals
            .iter()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        let count = world.nodes.len();
        Unschedulable(format!(
            "0/{count} nodes are available: {}.",
            reasons.join(", ")
        ))
    })
}

/// Lower is better: less preferred, more fellows, more CPU asked for, more pods, name.
type Score<'a> = (i64, usize, i64, usize, &'a str);

fn score<'a>(pod: &Value, node: &'a Value, load: &Load<'_>, affinity: &PodAffinity) -> Score<'a> {
    let owner = controller_uid(pod);
    let fellow = |other: &&&Value| {
        !owner.is_empty() && controller_uid(other) == owner && uid(other) != uid(pod)
    };
    let fellows = load.pods.iter().filter(fellow).count();
    let preference = node_preference(pod, node) + affinity.preference(node);
    (
        -preference,
        fellows,
        load.requests.cpu,
        load.pods.len(),
        name(node),
    )
}

/// Why a pod cannot go to a node, in the scheduler's words; `None` when it can.
fn refusal(pod: &Value, node: &Value, load: &Load<'_>, affinity: &PodAffinity) -> Option<String> {
    if flag(node, "/spec/unschedulable") && !tolerates(pod, &unschedulable_taint()) {
        return Some("node(s) were unschedulable".to_owned());
    }
    if !condition_true(node, "Ready") || deleting(node) {
        return Some("node(s) were not ready".to_owned());
    }
    for taint in list(node, "/spec/taints") {
        let hard = matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute");
        if hard && !tolerates(pod, taint) {
            let (key, value) = (text(taint, "/key"), text(taint, "/value"));
            return Some(format!("node(s) had untolerated taint {{{key}: {value}}}"));
        }
    }
    if !selects(pod, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if ports_clash(pod, load) {
        return Some("node(s) didn't have free ports for the requested pod ports".to_owned());
    }
    affinity.refusal(node).or_else(|| lacking(pod, node, load))
}

/// Whether a node's labels, taints and cordon let the pod on, whatever its load and state.
pub fn admits(pod: &Value, node: &Value) -> bool {
    let hard = |taint: &&Value| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute");
    (!flag(node, "/spec/unschedulable") || tolerates(pod, &unschedulable_taint()))
        && list(node, "/spec/taints")
            .iter()
            .filter(hard)
            .all(|taint| tolerates(pod, taint))
        && selects(pod, node)
}

fn unschedulable_taint() -> Value {
    serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
}

fn tolerates(pod: &Value, taint: &Value) -> bool {
    list(pod, "/spec/tolerations").iter().any(|toleration| {
        let effect = text(toleration, "/effect");
        let key = text(toleration, "/key");
        let exists = text(toleration, "/operator") == "Exists";
        (effect.is_empty() || effect == text(taint, "/effect"))
            && (key == text(taint, "/key") || (key.is_empty() && exists))
            && (exists || text(toleration, "/value") == text(taint, "/value"))
    })
}

fn selects(pod: &Value, node: &Value) -> bool {
    let selector = map(pod, "/spec/nodeSelector");
    let labelled = selector.is_none_or(|wanted| {
        wanted
            .iter()
            .all(|(key, value)| label(node, key) == value.as_str())
    });
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    labelled
        && match pod.pointer(required).and_then(Value::as_array) {
            None => true,
            Some(terms) => terms.iter().any(|term| term_matches(term, node)),
        }
}

/// One node selector term: all its expressions; an empty term matches nothing.
fn term_matches(term: &Value, node: &Value) -> bool {
    let (labels, fields) = (list(term, "/matchExpressions"), list(term, "/matchFields"));
    (!labels.is_empty() || !fields.is_empty())
        && labels
            .iter()
            .all(|e| expression_matches(e, label(node, text(e, "/key"))))
        && fields.iter().all(|e| {
            let value = (text(e, "/key") == "metadata.name").then(|| name(node));
            expression_matches(e, value)
        })
}

fn node_preference(pod: &Value, node: &Value) -> i64 {
    let preferred = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
    list(pod, preferred)
        .iter()
        .filter(|term| term_matches(&term["preference"], node))
        .filter_map(|term| int(term, "/weight"))
        .sum()
}

fn host_ports(pod: &Value) -> impl Iterator<Item = (i64, &str)> {
    list(pod, "/spec/containers")
        .iter()
        .flat_map(|c| list(c, "/ports"))
        .filter_map(|port| {
            let number = int(port, "/hostPort").filter(|port| *port > 0)?;
            let protocol = text(port, "/protocol");
            Some((number, if protocol.is_empty() { "TCP" } else { protocol }))
        })
}

fn ports_clash(pod: &Value, load: &Load<'_>) -> bool {
    host_ports(pod).any(|port| {
        load.pods
            .iter()
            .any(|other| host_ports(other).any(|p| p == port))
    })
}

fn lacking(pod: &Value, node: &Value, load: &Load<'_>) -> Option<String> {
    let room = Requests::of_map(&node["status"]["allocatable"]);
    let wants = requests(pod);
    let max_pods = text(node, "/status/allocatable/pods")
        .parse::<usize>()
        .unwrap_or(110);
    if load.pods.len() >= max_pods {
        return Some("Too many pods".to_owned());
    }
    let over = |room: i64, used: i64, wants: i64| wants > 0 && room > 0 && used + wants > room;
    if over(room.cpu, load.requests.cpu, wants.cpu) {
        return Some("Insufficient cpu".to_owned());
    }
    over(room.memory, load.requests.memory, wants.memory).then(|| "Insufficient memory".to_owned())
}

/// Pod affinity and anti-affinity, resolved to topology label values once per pod.
#[derive(Debug, Default)]
struct PodAffinity {
    /// (topology key, values where the pod may go)
    near: Vec<(String, BTreeSet<String>)>,
    /// (topology key, values where the pod may not go)
    away: Vec<(String, BTreeSet<String>)>,
    /// Values that existing pods keep this pod away from.
    repelled: Vec<(String, String)>,
    /// (weight, topology key, values), weight negative for anti-affinity
    liked: Vec<(i64, String, BTreeSet<String>)>,
}

impl PodAffinity {
    fn of(pod: &Value, world: World<'_>) -> Self {
        let mut found = Self::default();
        let ns = namespace(pod);
        let hard = "requiredDuringSchedulingIgnoredDuringExecution";
        let soft = "preferredDuringSchedulingIgnoredDuringExecution";
        let key = |term: &Value| text(term, "/topologyKey").to_owned();
        for term in list(pod, &format!("/spec/affinity/podAffinity/{hard}")) {
            let values = world.topologies(term, ns);
            // The first of a group that wants to be near itself may go anywhere.
            let first = values.is_empty() && selector_matches(term.get("labelSelector"), pod);
            if !first {
                found.near.push((key(term), values));
            }
        }
        for term in list(pod, &format!("/spec/affinity/podAntiAffinity/{hard}")) {
            found.away.push((key(term), world.topologies(term, ns)));
        }
        for (kind, sign) in [("podAffinity", 1), ("podAntiAffinity", -1)] {
            for entry in list(pod, &format!("/spec/affinity/{kind}/{soft}")) {
                let term = &entry["podAffinityTerm"];
                let weight = sign * int(entry, "/weight").unwrap_or(0);
                found
                    .liked
                    .push((weight, key(term), world.topologies(term, ns)));
            }
        }
        for other in world.pods.iter().filter(|other| !pod_ended(other)) {
            for term in list(other, &format!("/spec/affinity/podAntiAffinity/{hard}")) {
                if namespace(other) == ns && selector_matches(term.get("labelSelector"), pod) {
                    let node = world.node(text(other, "/spec/nodeName"));
                    let value = node.and_then(|node| label(node, text(term, "/topologyKey")));
                    found
                        .repelled
                        .extend(value.map(|value| (key(term), value.to_owned())));
                }
            }
        }
        found
    }

    fn refusal(&self, node: &Value) -> Option<String> {
        let at = |(key, values): &(String, BTreeSet<String>)| {
            label(node, key).is_some_and(|value| values.contains(value))
        };
        if !self.near.iter().all(at) {
            return Some("node(s) didn't match pod affinity rules".to_owned());
        }
        if self.away.iter().any(at) {
            return Some("node(s) didn't match pod anti-affinity rules".to_owned());
        }
        let repelled = self
            .repelled
            .iter()
            .any(|(key, v)| label(node, key) == Some(v));
        repelled.then(|| "node(s) didn't satisfy existing pods anti-affinity rules".to_owned())
    }

    fn preference(&self, node: &Value) -> i64 {
        self.liked
            .iter()
            .filter(|(_, key, values)| label(node, key).is_some_and(|v| values.contains(v)))
            .map(|(weight, ..)| weight)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, zone: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"},
                "conditions": [{"type": "Ready", "status": "True"}]},
        }))
    }

    fn placed(name: &str, node: &str, owner: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": owner},
                "ownerReferences": [{"uid": owner, "controller": true}]},
            "spec": {"nodeName": node},
        }))
    }

    fn wanted(owner: &str, spec: Value) -> Value {
        json!({"metadata": {"name": "new", "namespace": "n", "uid": "new",
            "labels": {"app": owner}, "ownerReferences": [{"uid": owner, "controller": true}]},
            "spec": spec})
    }

    fn two() -> Vec<Arc<Value>> {
        vec![node("node-1", "a"), node("node-2", "b")]
    }

    #[test]
    fn pods_of_an_owner_and_then_all_pods_spread() {
        let nodes = two();
        let go = |pods: &[Arc<Value>]| {
            choose(
                &wanted("x", json!({})),
                World {
                    nodes: &nodes,
                    pods,
                },
            )
            .expect("a node")
        };
        assert_eq!(go(&[]), "node-1");
        assert_eq!(go(&[placed("1", "node-1", "x")]), "node-2");
        let others = [placed("1", "node-2", "y"), placed("2", "node-2", "y")];
        assert_eq!(go(&others), "node-1");
        let mixed = [
            placed("1", "node-1", "x"),
            placed("2", "node-2", "y"),
            placed("3", "node-2", "y"),
        ];
        assert_eq!(go(&mixed), "node-2", "a fellow weighs more than strangers");
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let mut nodes = two();
        let mut cordoned = (*nodes[1]).clone();
        cordoned["spec"] = json!({"unschedulable": true});
        nodes[1] = Arc::new(cordoned);
        let pod = wanted("x", json!({"nodeSelector": {"disk": "ssd"}}));
        let error = choose(
            &pod,
            World {
                nodes: &nodes,
                pods: &[],
            },
        )
        .expect_err("none fits");
        assert_eq!(
            error.0,
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
             1 node(s) were unschedulable."
        );
    }

    #[test]
    fn taints_need_tolerations() {
        let mut tainted = (*node("node-1", "a")).clone();
        tainted["spec"] = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        let nodes = [Arc::new(tainted)];
        let world = World {
            nodes: &nodes,
            pods: &[],
        };
        assert!(choose(&wanted("x", json!({})), world).is_err());
        for toleration in [
            json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}),
            json!({"key": "k", "operator": "Exists"}),
            json!({"operator": "Exists"}),
        ] {
            assert!(choose(&wanted("x", json!({"tolerations": [toleration]})), world).is_ok());
        }
    }

    #[test]
    fn affinity_and_anti_affinity_hold() {
        let nodes = two();
        let pods = [placed("1", "node-1", "db")];
        let world = World {
            nodes: &nodes,
            pods: &pods,
        };
        let term = json!({"topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": {"matchLabels": {"app": "db"}}});
        let hard = "requiredDuringSchedulingIgnoredDuringExecution";
        let near = wanted("x", json!({"affinity": {"podAffinity": {hard: [term]}}}));
        let away = wanted(
            "x",
            json!({"affinity": {"podAntiAffinity": {hard: [term]}}}),
        );
        assert_eq!(choose(&near, world).as_deref(), Ok("node-1"));
        assert_eq!(choose(&away, world).as_deref(), Ok("node-2"));
        let zone = json!({"affinity": {"nodeAffinity": {hard: {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In",
                "values": ["b"]}]}]}}}});
        assert_eq!(choose(&wanted("x", zone), world).as_deref(), Ok("node-2"));
    }

    #[test]
    fn requests_and_host_ports_need_room() {
        let nodes = [node("node-1", "a")];
        let big = json!({"containers": [{"resources": {"requests": {"cpu": "1500m"}},
            "ports": [{"hostPort": 80}]}]});
        let mut there = (*placed("1", "node-1", "y")).clone();
        there["spec"]["containers"] = big["containers"].clone();
        let pods = [Arc::new(there)];
        let world = World {
            nodes: &nodes,
            pods: &pods,
        };
        let error = |spec: Value| choose(&wanted("x", spec), world).expect_err("no room").0;
        assert!(error(big).contains("free ports"));
        let cpu = json!({"containers": [{"resources": {"requests": {"cpu": "501m"}}}]});
        assert!(error(cpu).contains("1 Insufficient cpu."));
    }
}
