//! The embedded cluster's API: paths, queries, selectors, bodies, patches, objects.

use std::sync::Arc;

use lateen_cluster::api::kinds::{Kind, Registry, Target as Served};
use lateen_cluster::api::selector::{self, LabelOp, Selectors};
use lateen_cluster::fuzz;
use serde_json::Value;

use crate::Target;
use crate::bytes::{choice, nested, seeds, seeds_after, text};

/// Paths and query strings: `PATH?QUERY`.
pub const URL: Target = Target {
    name: "api_url",
    run: url,
    seeds: || {
        seeds(&[
            "/api/v1/namespaces/d/pods/p/log?container=c&tailLines=5&sinceTime=2020-01-01T00:00:00Z&limitBytes=9",
            "/apis/apps/v1/deployments?labelSelector=a%3Db%2Cc+in+%28d%2Ce%29&limit=500&continue=x&watch=true",
            "/api/v1/watch/namespaces/d?fieldSelector=metadata.name%3Dx&timeoutSeconds=-1&dryRun=All",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Ax?fieldValidation=Strict",
            "/api/v1/namespaces/d/pods/p/portforward?ports=80,443&ports=0",
            "//api//v1/%2F%2e%2e/?a=%zz&=&b",
        ])
    },
    words: &[
        "/",
        "?",
        "&",
        "=",
        "%",
        "%2F",
        "%41",
        "+",
        "namespaces",
        "watch",
        "limit=",
        "ports=",
        "labelSelector=",
        "sinceSeconds=",
    ],
    rounds: 4000,
};

/// Label and field selectors.
pub const SELECTOR: Target = Target {
    name: "api_selector",
    run: selectors,
    seeds: || {
        let mut list = seeds_after(
            0,
            &[
                "app=a,b==c,d!=e",
                "x in (a, b),y notin (c),!z,w",
                "n>5,m<6",
                "k in ()",
                "a/b.c=d",
            ],
        );
        list.extend(seeds_after(
            1,
            &[
                "metadata.name=x,spec.nodeName!=y",
                "status.phase==Running",
                r"a=b\,c\=d",
            ],
        ));
        list
    },
    words: &[
        " in (", " notin (", ")", "(", ",", "=", "==", "!=", "!", ">", "<", "\\,", "a/b", " ",
    ],
    rounds: 5000,
};

/// Request bodies in all their forms.
pub const BODY: Target = Target {
    name: "api_body",
    run: body,
    seeds: body_seeds,
    words: &[
        "{",
        "}",
        "[",
        "]",
        "\"a\":",
        ",",
        ": ",
        "- ",
        "\n",
        "&a ",
        "*a",
        "!!binary",
        "k8s\0",
        "\x0a\x09\x0a\x02v1\x12\x03Pod",
        "\x12\x02\x0a\0",
        "\x1a\0",
        "\"a\":1,\"a\":2",
        "null",
        "1e999",
        "\\ud800",
    ],
    rounds: 1200,
};

/// Patches of the four kinds: object, line end, patch.
pub const PATCH: Target = Target {
    name: "api_patch",
    run: patch,
    seeds: patch_seeds,
    words: &[
        "{\"op\":\"copy\",\"from\":\"\",\"path\":\"/a\"}",
        "{\"op\":\"move\",\"from\":\"/a\",\"path\":\"/a/b\"}",
        "{\"op\":\"test\",\"path\":\"/a~1b\",\"value\":null}",
        "{\"op\":\"remove\",\"path\":\"/l/0\"}",
        "{\"op\":\"add\",\"path\":\"/l/-\",\"value\":1}",
        "\"$patch\":\"replace\"",
        "\"$patch\":\"delete\"",
        "\"$retainKeys\":[\"a\"]",
        "\"$deleteFromPrimitiveList/finalizers\":[\"x\"]",
        "\"$setElementOrder/containers\":[{\"name\":\"a\"}]",
        "null",
        "{}",
        "[]",
        "\n",
        "\"name\":\"a\"",
        "\"containerPort\":80",
        ",",
    ],
    rounds: 400,
};

/// Objects of built-in kinds: cleaned, defaulted, validated, printed as a table.
pub const OBJECT: Target = Target {
    name: "api_object",
    run: object,
    seeds: object_seeds,
    words: &[
        "\"metadata\":{\"name\":\"a\",\"namespace\":\"d\"}",
        "\"spec\":{",
        "\"status\":{",
        "null",
        "[]",
        "{}",
        "-1",
        "1e30",
        "\"\"",
        "\"100m\"",
        "\"1Zi\"",
        "9223372036854775807",
        "\"containers\":[{\"name\":\"a\",\"image\":\"b\"}]",
        "\"ports\":[{\"port\":0}]",
        "\"selector\":{\"matchLabels\":{}}",
        "\"creationTimestamp\":\"0000-00-00T00:00:00Z\"",
        "\"schedule\":\"* * * * *\"",
        "\"clusterIP\":\"None\"",
        "\"replicas\":",
        "true",
        "\"conditions\":[{\"type\":\"Ready\"}]",
        "\"addresses\":[\"::1\"]",
        "\"intOrString\":\"50%\"",
    ],
    rounds: 1000,
};

/// Custom resources under definitions of anybody: definition, line end, object.
pub const CUSTOM: Target = Target {
    name: "api_custom",
    run: custom,
    seeds: || {
        seeds(&[
            concat!(
                r#"{"metadata":{"name":"as.x.y"},"spec":{"group":"x.y","scope":"Namespaced","names":{"plural":"as","kind":"A"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","required":["a"],"properties":{"a":{"type":"string","pattern":"^a+$","maxLength":5,"default":"aa"},"n":{"type":"integer","minimum":1,"multipleOf":2,"nullable":true},"l":{"type":"array","items":{"type":"string"},"maxItems":2,"uniqueItems":true},"m":{"type":"object","additionalProperties":{"type":"number"}},"e":{"enum":["x","y"],"type":"string"},"o":{"x-kubernetes-int-or-string":true},"any":{"type":"object","x-kubernetes-preserve-unknown-fields":true}},"x-kubernetes-validations":[{"rule":"self.a.size() < 4","message":"long"}]}}}}}]}}"#,
                "\n",
                r#"{"apiVersion":"x.y/v1","kind":"A","metadata":{"name":"a"},"spec":{"a":"aaaa","n":3,"l":["a","a"],"m":{"k":"v"},"e":"z","o":1.5,"any":{"b":[1]},"gone":1}}"#
            ),
            concat!(
                r#"{"metadata":{"name":"as.x.y"},"spec":{"group":"x.y","scope":"Cluster","names":{"plural":"as","kind":"A"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","anyOf":[{"required":["a"]},{"not":{"required":["b"]}}],"properties":{"a":{"format":"date-time","type":"string"}}}},"subresources":{"scale":{"specReplicasPath":".spec.replicas"}},"additionalPrinterColumns":[{"name":"A","type":"string","jsonPath":".spec.a"}]}]}}"#,
                "\n",
                r#"{"a":"x","spec":{"replicas":1}}"#
            ),
        ])
    },
    words: &[
        "\"type\":\"object\"",
        "\"properties\":{",
        "\"items\":{",
        "\"pattern\":\"(a*)*b\"",
        "\"default\":",
        "\"nullable\":true",
        "\"rule\":\"",
        "self.",
        "size()",
        "has(self.a)",
        ".all(x, x > 0)",
        "oldSelf",
        "\"format\":\"int32\"",
        "\"enum\":[",
        "\"maxLength\":-1",
        "\"multipleOf\":0",
        "null",
        "{}",
        "1e300",
        "\n",
    ],
    rounds: 600,
};

fn body_seeds() -> Vec<Vec<u8>> {
    let mut list = seeds_after(0, &[r#"{"kind":"Pod","spec":{"a":1,"a":2},"l":[1,null]}"#]);
    list.extend(seeds_after(
        1,
        &[
            "kind: Pod\nspec: {a: [1, 'x']}\nb: &x {c: d}\ne: *x\n",
            "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
        ],
    ));
    // A pod: its envelope and a name, an image, a quantity.
    list.push(
        [
            &b"\x02k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12"[..],
            b"\x1a\x0a\x05\x0a\x01p\x1a\0\x12\x11\x12\x0f\x0a\x01c\x12\x01i\x42\x07\x0a\x05\x0a\x01a\x12\0",
        ]
        .concat(),
    );
    for (option, open, close) in [
        (0, "[", "]"),
        (1, "{a: ", "}"),
        (1, "- ", ""),
        (0, "{\"a\":", "}"),
    ] {
        list.push([&[option][..], &nested(open, close, 2000)].concat());
    }
    list
}

fn patch_seeds() -> Vec<Vec<u8>> {
    const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"y"},"finalizers":["f"]},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"E","value":"v"}]}],"tolerations":[{"key":"k"}]}}"#;
    let with = |option: u8, patch: &str| seeds_after(option, &[&format!("{POD}\n{patch}")]);
    let mut list = with(
        0,
        r#"[{"op":"replace","path":"/metadata/labels/x","value":"z"},{"op":"copy","from":"/spec","path":"/spec/s"},{"op":"test","path":"/kind","value":"Pod"},{"op":"move","from":"/metadata/name","path":"/n"}]"#,
    );
    list.extend(with(
        1,
        r#"{"metadata":{"labels":{"x":null,"n":{"a":null}}},"spec":{"containers":[]}}"#,
    ));
    list.extend(with(2, r#"{"spec":{"containers":[{"name":"c","image":"j","ports":[{"containerPort":81},{"$patch":"delete","containerPort":80}]},{"name":"d"}],"$setElementOrder/containers":[{"name":"d"},{"name":"c"}]},"metadata":{"$deleteFromPrimitiveList/finalizers":["f"],"labels":{"$patch":"replace","b":"c"}}}"#));
    list.extend(with(3, r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"other"}},"spec":{"containers":[{"name":"c","env":[{"name":"E","value":"w"}]}]}}"#));
    // Each copy doubles the object: sixty of them would fill any memory.
    let copies = vec![r#"{"op":"copy","from":"","path":"/a"}"#; 60].join(",");
    list.extend(with(0, &format!("[{copies}]")));
    let copies: Vec<String> = (0..60)
        .map(|n| format!(r#"{{"op":"copy","from":"/l","path":"/l/n{n}"}}"#))
        .collect();
    list.extend(seeds_after(
        0,
        &[&format!("{{\"l\":{{}}}}\n[{}]", copies.join(","))],
    ));
    list
}

fn object_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"d"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m","memory":1}},"livenessProbe":{"httpGet":{"port":"x"}},"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]}],"volumes":[{"name":"v","emptyDir":{}}]},"status":{"containerStatuses":[{"name":"c","restartCount":3,"lastState":{"terminated":{"finishedAt":"2020-01-01T00:00:00Z"}},"state":{"waiting":{"reason":"X"}}}],"conditions":[{"type":"Ready","status":"False"}]}}"#,
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","namespace":"d"},"spec":{"ports":[{"port":80,"targetPort":"http","nodePort":30000}],"type":"NodePort","clusterIPs":["10.0.0.1"],"externalIPs":["1.2.3.4"]}}"#,
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","namespace":"d"},"spec":{"replicas":3,"selector":{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"x","operator":"In","values":["y"]}]},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":0}},"template":{"metadata":{"labels":{"a":"b","x":"y"}},"spec":{"containers":[{"name":"c","image":"i"}]}}},"status":{"readyReplicas":1}}"#,
        r#"{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"a"},"spec":{"schedule":"*/5 * * * 1-5","timeZone":"Etc/UTC","jobTemplate":{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i"}],"restartPolicy":"Never"}}}}},"status":{"lastScheduleTime":"2020-01-01T00:00:00Z"}}"#,
        r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"a"},"spec":{"completions":5,"parallelism":2,"template":{"spec":{"containers":[{"name":"c","image":"i"}],"restartPolicy":"OnFailure"}}},"status":{"startTime":"2020-01-01T00:00:00Z","completionTime":"2020-01-01T01:00:00Z","succeeded":5}}"#,
        r#"{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"a"},"spec":{"rules":[{"host":"*.a.b","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"s","port":{"number":80}}}}]}}],"tls":[{}]}}"#,
        r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["1.2.3.4"],"conditions":{"ready":true}}],"ports":[{"name":"p","port":80}]}"#,
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"type":"kubernetes.io/tls","data":{"tls.crt":"AA==","tls.key":"!"},"stringData":{"a":"b"}}"#,
        r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},"spec":{"maxReplicas":5,"scaleTargetRef":{"kind":"Deployment","name":"a"},"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}]}}"#,
        r#"{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration","metadata":{"name":"a"},"webhooks":[{"name":"a.b.c","clientConfig":{"service":{"name":"s","namespace":"n"},"caBundle":"AA=="},"rules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"]}],"sideEffects":"None","admissionReviewVersions":["v1"],"timeoutSeconds":31}]}"#,
        r#"{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"a"},"spec":{"minAvailable":"50%"},"status":{"disruptionsAllowed":1}}"#,
        r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"a","labels":{"node-role.kubernetes.io/x":""}},"spec":{"podCIDR":"10.0.0.0/24","taints":[{"key":"k","effect":"NoSchedule"}]},"status":{"addresses":[{"type":"InternalIP","address":"1.2.3.4"}],"nodeInfo":{"kubeletVersion":"v1"}}}"#,
        r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"a"},"involvedObject":{"kind":"Pod","name":"a"},"count":3,"firstTimestamp":"2020-01-01T00:00:00Z","lastTimestamp":null,"eventTime":"2020-01-01T00:00:00.000000Z","series":{"count":2,"lastObservedTime":"2020-01-01T00:00:00.000000Z"}}"#,
    ])
}

fn url(data: &[u8]) {
    let Some(text) = text(data) else {
        return;
    };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let named = fuzz::path(path);
    if !named.starts_with("Other") {
        let slash = fuzz::path(&format!("{path}/"));
        assert_eq!(named, slash, "a slash at the end names another thing");
    }
    let _ = fuzz::query(query);
    let (_, ports) = fuzz::stream_query(query);
    assert!(ports.is_none_or(|ports| (1..=127).contains(&ports.len()) && !ports.contains(&0)));
    for name in ["ports", "labelSelector", "limit", ""] {
        // The API and the streams read a query the same way.
        let (one, two) = fuzz::parameter(query, name);
        assert_eq!(one, two, "two readings of {name}");
    }
}

fn selectors(data: &[u8]) {
    let (option, rest) = choice(data);
    let Some(text) = text(rest) else {
        return;
    };
    let object: Value = serde_json::json!({"metadata": {"name": "x", "labels": {"app": "a", "n": "6", "w": ""}},
        "spec": {"nodeName": "y"}, "status": {"phase": "Running"}});
    let parsed = if option & 1 == 0 {
        Selectors::parse(text, "")
    } else {
        Selectors::parse("", text)
    };
    let Ok(parsed) = parsed else {
        return;
    };
    let found = parsed.matches(&object);
    let _ = parsed.exact_name();
    if parsed.is_empty() {
        assert!(found, "nothing selects everything");
    }
    // Printed as text and read again, the terms are the same.
    let print = |term: &selector::LabelTerm| match term.op {
        LabelOp::In => format!("{} in ({})", term.key, term.values.join(",")),
        LabelOp::NotIn => format!("{} notin ({})", term.key, term.values.join(",")),
        LabelOp::Exists => term.key.clone(),
        LabelOp::Missing => format!("!{}", term.key),
        LabelOp::Greater => format!("{}>{}", term.key, term.values.join("")),
        LabelOp::Less => format!("{}<{}", term.key, term.values.join("")),
    };
    let text: Vec<String> = parsed.label.iter().map(print).collect();
    let again = selector::parse_labels(&text.join(","));
    assert_eq!(again.ok().as_ref(), Some(&parsed.label), "{text:?}");
}

fn depth(value: &Value) -> usize {
    let mut deepest = 0;
    let mut left = vec![(value, 1)];
    while let Some((value, depth)) = left.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Array(list) => left.extend(list.iter().map(|v| (v, depth + 1))),
            Value::Object(map) => left.extend(map.values().map(|v| (v, depth + 1))),
            _ => {}
        }
    }
    deepest
}

/// What is taken must come back from the disk: JSON readers stop at some depth.
pub fn assert_can_be_stored(value: &Value) {
    assert!(depth(value) <= 110, "{} levels", depth(value));
    let bytes = serde_json::to_vec(value).expect("JSON");
    let back: Value = serde_json::from_slice(&bytes).expect("what is stored is read again");
    assert_eq!(&back, value);
}

fn body(data: &[u8]) {
    let (option, rest) = choice(data);
    let kind = match option & 3 {
        0 => "application/json",
        1 => "application/yaml",
        2 => "application/vnd.kubernetes.protobuf",
        _ => "application/apply-patch+yaml; charset=utf-8",
    };
    if let Ok(value) = fuzz::decode_body(kind, rest) {
        assert_can_be_stored(&value);
        if option & 3 == 0 {
            assert!(fuzz::duplicates(rest).len() <= 10);
        }
    }
}

thread_local! {
    static KINDS: Registry = Registry::build(&[]);
}

fn kind(api_version: &str, kind: &str) -> Option<Served> {
    KINDS.with(|kinds| kinds.target_of(api_version, kind))
}

fn served(object: &Value) -> Option<Served> {
    kind(object["apiVersion"].as_str()?, object["kind"].as_str()?)
}

fn patch(data: &[u8]) {
    let (option, rest) = choice(data);
    let Some((object, patch)) = text(rest).and_then(|text| text.split_once('\n')) else {
        return;
    };
    let decode = |text: &str| fuzz::decode_body("application/json", text.as_bytes()).ok();
    let (Some(before), Some(patch)) = (decode(object), decode(patch)) else {
        return;
    };
    let Some(target) = served(&before).or_else(|| kind("v1", "Pod")) else {
        return;
    };
    let kind = &target.kind;
    match option & 3 {
        0 => json_patch(kind, &patch, &before),
        1 => {
            let mut after = before.clone();
            fuzz::merge(&mut after, &patch);
            assert_can_be_stored(&after);
            let mut again = after.clone();
            fuzz::merge(&mut again, &patch);
            assert_eq!(again, after, "a merge is the same twice");
        }
        2 => {
            let how = "application/strategic-merge-patch+json";
            let mut after = before.clone();
            if fuzz::patch(kind, how, &patch, &mut after).is_ok() {
                assert_can_be_stored(&after);
            }
            let mut same = before.clone();
            if before.is_object()
                && fuzz::patch(kind, how, &serde_json::json!({}), &mut same).is_ok()
            {
                assert_eq!(same, before, "an empty patch changes nothing");
            }
        }
        _ => server_side(kind, &before, &patch),
    }
}

fn json_patch(kind: &Arc<Kind>, patch: &Value, before: &Value) {
    let mut after = before.clone();
    match fuzz::patch(kind, "application/json-patch+json", patch, &mut after) {
        Ok(()) => assert_can_be_stored(&after),
        Err(_) => assert_eq!(&after, before, "a patch that fails changes nothing"),
    }
}

fn server_side(kind: &Arc<Kind>, before: &Value, patch: &Value) {
    if !before.is_object() || !patch.is_object() {
        return;
    }
    let Ok(first) = fuzz::apply(kind, before, patch, "m", true) else {
        return;
    };
    assert_can_be_stored(&first);
    // Who applied it owns it: the same again is no conflict and no change.
    let second = fuzz::apply(kind, &first, patch, "m", false);
    let mut second = second.expect("no conflict with oneself");
    let mut first = first;
    for object in [&mut first, &mut second] {
        object["metadata"]["managedFields"] = Value::Null;
    }
    assert_eq!(second, first, "applied twice, another object");
}

fn object(data: &[u8]) {
    let Ok(mut object) = fuzz::decode_body("application/json", data) else {
        return;
    };
    let Some(target) = served(&object) else {
        return;
    };
    if !object.is_object() {
        return;
    }
    if fuzz::intake(&target.kind, &mut object).is_none() {
        return;
    }
    assert_can_be_stored(&object);
    let mut again = object.clone();
    assert!(
        fuzz::intake(&target.kind, &mut again).is_some(),
        "our own defaults are refused"
    );
    assert_eq!(again, object, "defaults of defaults");
    let table = fuzz::table(&target, object);
    let columns = table["columnDefinitions"].as_array().map_or(0, Vec::len);
    let cells = table["rows"][0]["cells"].as_array().map_or(0, Vec::len);
    assert_eq!(columns, cells, "a table with gaps");
}

fn custom(data: &[u8]) {
    let Some((definition, object)) = text(data).and_then(|text| text.split_once('\n')) else {
        return;
    };
    let decode = |text: &str| fuzz::decode_body("application/json", text.as_bytes()).ok();
    let (Some(mut definition), Some(mut object)) = (decode(definition), decode(object)) else {
        return;
    };
    if !definition.is_object() || !object.is_object() {
        return;
    }
    if fuzz::custom(&mut definition.clone(), &mut object).is_some() {
        let mut again = object.clone();
        fuzz::custom(&mut definition, &mut again);
        assert_eq!(again, object, "pruned and defaulted twice, another object");
    }
}
