//! What a pod's owner writes that reaches a privileged program: annotations for injection, flags
//! of the redirection rules.

use lateen_capture::config::Config;
use lateen_capture::flags::{self, Action};
use lateen_capture::iptables;
use lateen_capture::rules::{self, System};
use lateen_control_plane::inject::{InjectConfig, review};
use serde_json::{Value, json};

use crate::Target;
use crate::bytes::{choice, seeds, text};

/// The command line of `istio-iptables`, an argument a line.
pub const IPTABLES: Target = Target {
    name: "iptables_flags",
    run: arguments,
    seeds: || {
        seeds(&[
            "\x01-p\n15001\n-z\n15006\n-u\n1337\n-g\n1337\n-m\nREDIRECT\n-i\n*\n-x\n10.0.0.0/8,::1/128\n-b\n*\n-d\n15090,15021\n-o\n22\n-q\n80",
            "\x03-m\nTPROXY\n-b\n80,443\n-k\neth0,tap1\n-c\ndocker0\n--redirect-dns\n--capture-all-dns\n--drop-invalid",
            "\x07--native-nftables\n--dual-stack\n--outbound-owner-groups=1000,2000\n-t\n1337\n-r\n133",
            "\x05--outbound-owner-groups-exclude\n5\n-u\n1337,0\n-i\n\n-q\n1,65535",
        ])
    },
    words: &[
        "\n",
        "-m\n",
        "-i\n",
        "-b\n",
        "-x\n",
        "-k\n",
        "-c\n",
        "*",
        ",",
        "0.0.0.0/0",
        "::/0",
        "65536",
        "-1",
        " -j DROP",
        "\"",
        "'",
        ";",
        "#",
        "eth0+",
        "!",
        "--dual-stack",
        "--native-nftables",
        "\t",
        "--cleanup",
    ],
    rounds: 3000,
};

/// A pod under the mutating webhook: annotations a line each, or the whole review.
pub const INJECT: Target = Target {
    name: "inject",
    run: inject,
    seeds: || {
        seeds(&[
            "\0traffic.sidecar.istio.io/includeInboundPorts: *\ntraffic.sidecar.istio.io/excludeOutboundIPRanges: 10.0.0.0/8\nsidecar.istio.io/proxyCPU: 100m\nproxy.istio.io/config: {concurrency: 1}\nproxy.istio.io/overrides: {\"containers\":[{\"name\":\"istio-proxy\",\"env\":[{\"name\":\"A\"}]}]}",
            "\0sidecar.istio.io/inject: true\nsidecar.istio.io/userVolume: [{\"name\":\"v\"}]\nsidecar.istio.io/interceptionMode: TPROXY\nstatus.sidecar.istio.io/port: 15021\nsidecar.istio.io/logLevel: debug\nproxy.istio.io/config: holdApplicationUntilProxyStarts: true",
            "\0inject.istio.io/templates: sidecar,custom\nsidecar.istio.io/nativeSidecar: true\nprometheus.io/port: 80",
            "\x01{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{\"uid\":\"u\",\"namespace\":\"n\",\"object\":{\"metadata\":{\"generateName\":\"a-\",\"labels\":{\"app\":\"a\"},\"ownerReferences\":[{\"kind\":\"ReplicaSet\",\"name\":\"a-5\",\"controller\":true}]},\"spec\":{\"containers\":[{\"name\":\"a\",\"image\":\"i\",\"ports\":[{\"containerPort\":80}],\"readinessProbe\":{\"httpGet\":{\"path\":\"/\",\"port\":80}},\"livenessProbe\":{\"grpc\":{\"port\":1}}}],\"securityContext\":{\"runAsUser\":1337}}}}}",
        ])
    },
    words: &[
        "sidecar.istio.io/",
        "traffic.sidecar.istio.io/",
        "proxy.istio.io/config: ",
        "includeOutboundPorts: ",
        "excludeInboundPorts: ",
        "kubevirtInterfaces: ",
        "proxyMemoryLimit: ",
        "bootstrapOverride: ",
        "extraStatTags: ",
        "statsInclusionPrefixes: ",
        "true",
        "*",
        "-1",
        "65536",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\n",
        "&a ",
        "*a",
        "null",
        "\"hostNetwork\":true",
        "\"initContainers\":[",
        "\"httpGet\":{\"port\":\"x\"}",
        "\"name\":\"istio-proxy\"",
    ],
    rounds: 200,
};

fn arguments(data: &[u8]) {
    let (option, rest) = choice(data);
    let Some(text) = text(rest) else {
        return;
    };
    // A line may stand for a value with a line end in it: the kernel's tools read lines.
    let words: Vec<String> = text
        .split('\n')
        .map(|word| word.replace('\x0b', "\n"))
        .collect();
    let Ok(Action::Run(config)) = flags::parse(&words, &|_| None) else {
        return;
    };
    let system = System {
        ipv6: option & 2 != 0,
        nameservers: vec![
            "10.0.0.10".parse().expect("an address"),
            "::1".parse().expect("an address"),
        ],
    };
    let sets = rules::build(&config, &system);
    assert_rules_are_lines(&config, &sets);
    let native = Config {
        native_nftables: true,
        ..(*config).clone()
    };
    let nft = lateen_capture::text(&native, &sets);
    let depth = nft.chars().fold(0_i64, |depth, c| match c {
        '{' => depth + 1,
        '}' => depth - 1,
        _ => depth,
    });
    assert_eq!(depth, 0, "unbalanced: {nft}");
}

/// The text holds the rules and nothing else, and the kernel's print of it is known as ours.
fn assert_rules_are_lines(config: &Config, sets: &[rules::RuleSet]) {
    for set in sets {
        let text = iptables::text(set);
        let wanted: usize = set
            .tables
            .iter()
            .map(|t| 2 + t.chains.len() + t.rules.len())
            .sum();
        assert_eq!(
            text.lines().count(),
            wanted,
            "a line of somebody else: {text}"
        );
        for line in text.lines() {
            assert!(
                line.starts_with(['*', ':', '-']) || line == "COMMIT",
                "{line}"
            );
            assert!(!line.contains(['"', '\'', '\\', ';', '#', '\t']), "{line}");
        }
        for table in &set.tables {
            let mut printed = format!("*{}\n", iptables::table_name(table.table));
            for chain in &table.chains {
                printed.push_str(&format!(":{chain} - [0:0]\n"));
            }
            // Inserted rules come before the others of their chain.
            for rule in table.rules.iter().filter(|rule| rule.insert.is_some()) {
                printed.push_str(&format!("{}\n", iptables::saved_line(set.family, rule)));
            }
            for rule in table.rules.iter().filter(|rule| rule.insert.is_none()) {
                printed.push_str(&format!("{}\n", iptables::saved_line(set.family, rule)));
            }
            let saved = iptables::read_saved(&printed, table.table);
            assert!(saved.holds(set.family, table), "not known again: {printed}");
        }
    }
    assert!(config.proxy_port > 0);
}

fn inject(data: &[u8]) {
    let (option, rest) = choice(data);
    let Some(text) = text(rest) else {
        return;
    };
    let review = if option & 1 == 0 {
        let annotations: Value = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({"request": {"uid": "u", "namespace": "n", "object": {
            "metadata": {"name": "p", "annotations": annotations, "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}}}})
    } else {
        match serde_json::from_str(text) {
            Ok(review) => review,
            Err(_) => return,
        }
    };
    thread_local! {
        static CONFIG: InjectConfig = InjectConfig::standard("0.1.0");
    }
    CONFIG.with(|config| answered(config, &review));
}

fn answered(config: &InjectConfig, review: &Value) {
    let answer = review::answer(config, review);
    assert_eq!(answer["kind"], "AdmissionReview");
    assert!(answer["response"]["allowed"].is_boolean());
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    let Ok((Some(patch), _)) = review::patch(config, &review["request"]) else {
        return;
    };
    // The patched pod has been through here: it is not injected twice.
    let mut pod = review["request"]["object"].clone();
    let patch: json_patch::Patch = serde_json::from_value(patch).expect("a JSON patch");
    json_patch::patch(&mut pod, &patch).expect("our patch applies");
    let mut again = review["request"].clone();
    again["object"] = pod.clone();
    let second = review::patch(config, &again);
    let nothing = |patch: &Option<Value>| patch.as_ref().is_none_or(|p| *p == json!([]));
    assert!(
        second.is_ok_and(|(patch, _)| nothing(&patch)),
        "injected twice"
    );
    redirection(&pod);
}

/// The flags that injection wrote are ones that the redirection rules take.
fn redirection(pod: &Value) {
    for container in pod["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if container["name"] != "istio-init" {
            continue;
        }
        let words: Vec<String> = container["args"]
            .as_array()
            .into_iter()
            .flatten()
            .skip(1)
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect();
        let read = flags::parse(&words, &|_| None);
        assert!(read.is_ok(), "{words:?}: {:?}", read.err());
    }
}
