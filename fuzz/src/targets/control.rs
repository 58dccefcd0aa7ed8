//! The control plane's smaller doors: who a proxy says it is, what its stream's state makes of any
//! requests, reviews of API servers, headers of callers.

use lateen_control_plane::fuzz;
use lateen_xds_proto::json;

use crate::Target;
use crate::bytes::{choice, seeds, seeds_after, text};

/// A proxy's node, in JSON or as it is encoded.
pub const NODE: Target = Target {
    name: "ads_node",
    run: node,
    seeds: || {
        seeds(&[
            r#"{"id":"sidecar~10.1.0.1~a-b.default~default.svc.cluster.local","metadata":{"NAMESPACE":"default","LABELS":{"app":"a","n":1},"INSTANCE_IPS":"10.1.0.1,fd00::1","CLUSTER_ID":"Kubernetes","ISTIO_VERSION":"1.2"},"locality":{"region":"r","zone":"z","sub_zone":"s"},"extensions":[{"name":"envoy.filters.http.router"}]}"#,
            r#"{"id":"router~::1~g.istio-system~x"}"#,
        ])
    },
    words: &[
        "sidecar~",
        "router~",
        "~",
        "10.0.0.1,",
        "\"metadata\":{",
        "\"LABELS\":{",
        "\"INSTANCE_IPS\":",
        "\"NAMESPACE\":\"\"",
        "null",
        "1e300",
        "\\u0000",
        "\\n",
    ],
    rounds: 2000,
};

/// Requests of a stream, each after its length: state of the world, or delta.
pub const REQUESTS: Target = Target {
    name: "ads_requests",
    run: |data| {
        let (option, input) = choice(data);
        let taken = match option & 1 {
            0 => fuzz::sotw(input),
            _ => fuzz::delta(input),
        };
        assert!(taken <= input.len(), "more requests than bytes");
    },
    seeds: || {
        use lateen_xds_proto::Message as _;
        use lateen_xds_proto::envoy::service::discovery::v3 as pb;
        let cds = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
        let sotw = |names: &[&str], nonce: &str| pb::DiscoveryRequest {
            type_url: cds.clone(),
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        let delta = |names: &[&str], nonce: &str| pb::DeltaDiscoveryRequest {
            type_url: cds.clone(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        let asks: [(&[&str], &str); 3] = [(&["a"], ""), (&["a", "*"], "1"), (&[], "2")];
        let (mut one, mut two) = (vec![0], vec![1]);
        for (names, nonce) in asks {
            one.extend(sotw(names, nonce).encode_length_delimited_to_vec());
            two.extend(delta(names, nonce).encode_length_delimited_to_vec());
        }
        vec![one, two]
    },
    words: &[
        "*", "a", "b", "\u{1}1", "\u{1}2", "\u{12}", "\u{1a}", "\"", "2",
    ],
    rounds: 3000,
};

/// Bodies of admission reviews, and headers of callers.
pub const REVIEW: Target = Target {
    name: "admission_review",
    run: review,
    seeds: || {
        let pod = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","namespace":"n","operation":"CREATE","kind":{"group":"","version":"v1","kind":"Pod"},"object":{"metadata":{"name":"p","labels":{"app":"a"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
        let rule = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"UPDATE","object":{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"v","namespace":"n"},"spec":{"hosts":["a"],"http":[{"route":[{"destination":{"host":"a"},"weight":-1}]}]}}}}"#;
        let mut list = seeds_after(0, &[pod]);
        list.extend(seeds_after(1, &[rule, pod]));
        list.extend(seeds_after(
            2,
            &["Bearer a.b.c", "system:serviceaccount:ns:name"],
        ));
        list
    },
    words: &[
        "\"request\":null",
        "\"uid\":1",
        "\"object\":[]",
        "\"oldObject\":{}",
        "\"operation\":\"DELETE\"",
        "\"spec\":{",
        "\"http\":[",
        "{}",
        "Bearer ",
        ":",
    ],
    rounds: 300,
};

fn node(data: &[u8]) {
    let wire = if data.starts_with(b"{") {
        let value = text(data).and_then(|text| serde_json::from_str(text).ok());
        let wire = value.map(|v| json::to_wire("envoy.config.core.v3.Node", &v));
        match wire {
            Some(Ok(wire)) => wire,
            _ => return,
        }
    } else {
        data.to_vec()
    };
    let Ok(node) = fuzz::node(&wire) else {
        return;
    };
    assert!(
        !node.display_name().contains(char::is_control),
        "a name that breaks lines"
    );
    assert!(
        node.addresses.len() <= 64 && node.labels.len() <= 256,
        "without bound"
    );
}

fn review(data: &[u8]) {
    let (option, input) = choice(data);
    let answer = match option & 3 {
        0 => fuzz::inject(input),
        1 => fuzz::validate(input),
        _ => return words(input),
    };
    if let Ok(answer) = answer {
        assert!(
            answer["response"]["allowed"].is_boolean(),
            "no answer: {answer}"
        );
        assert!(answer["response"]["uid"].is_string(), "an answer to nobody");
    }
}

fn words(input: &[u8]) {
    let Some(text) = text(input) else {
        return;
    };
    if let Some(token) = fuzz::bearer(text) {
        assert!(!token.is_empty() && text.contains(token));
    }
    if let Some((namespace, name)) = fuzz::account(text) {
        assert!(!namespace.is_empty() && !name.is_empty());
        assert_eq!(text, format!("system:serviceaccount:{namespace}:{name}"));
    }
}
