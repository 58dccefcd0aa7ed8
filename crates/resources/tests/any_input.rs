//! Whatever is read, nothing panics, and every finding has its place.

use lateen_resources::{check, read_yaml};
use proptest::prelude::*;

/// Pieces of YAML that parsers stumble over, and of our own kinds.
const PIECES: &[&str] = &[
    "apiVersion: networking.istio.io/v1\n",
    "apiVersion: v1\n",
    "kind: VirtualService\n",
    "kind: Gateway\n",
    "kind: DestinationRule\n",
    "kind: ServiceEntry\n",
    "kind: Sidecar\n",
    "kind: Service\n",
    "kind: List\nitems:\n",
    "metadata: {name: a}\n",
    "metadata: {name: a, labels: [1]}\n",
    "spec:\n",
    "spec: {hosts: [a, '*', '*.b'], http: [{route: [{destination: {host: a}}]}]}\n",
    "spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n",
    "spec: {host: a, trafficPolicy: {connectionPool: {}}, subsets: [{name: v1}]}\n",
    "spec: {hosts: [x], ports: [{number: 70000}], endpoints: [{address: '['}]}\n",
    "  http:\n",
    "  - match:\n    - uri: {prefix: /}\n",
    "  timeout: 1h-5s\n",
    "  - ",
    "---\n",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!str ",
    "? ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "|\n  text\n",
    "\t",
    "'",
    "\"",
    "%",
    "# c\n",
    "\u{0}",
    "é",
    "- a\n",
    "\n",
];

proptest! {
    #[test]
    fn pieces(indexes in prop::collection::vec(0..PIECES.len(), 0..24)) {
        let text: String = indexes.iter().map(|i| PIECES[*i]).collect();
        everything(&text);
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        everything(&text);
    }

    #[test]
    fn durations(text in "[-+]?[0-9.hmsnuµx]{0,20}") {
        if let Ok(d) = lateen_resources::proto::Duration::parse(&text) {
            let again = lateen_resources::proto::Duration::parse(&d.to_string());
            prop_assert_eq!(again, Ok(d));
        }
    }
}

fn everything(text: &str) {
    let read = read_yaml(text, "any.yaml", "default");
    for d in &read.diagnostics {
        let source = d.source.as_ref().expect("a place in the file");
        assert!(source.line as usize <= text.lines().count() + 2, "{d}");
    }
    for object in &read.objects {
        for d in check::check(object) {
            assert!(d.object.is_some() && d.source.is_some(), "{d}");
        }
    }
}
