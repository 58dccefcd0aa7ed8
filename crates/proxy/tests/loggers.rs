//! `/logging` has effect: lines of access control, tokens and authorisation beside the real Envoy's
//! (found as in tests/differential.rs), on and off while the proxy runs, without secrets.

#[path = "differential/envoy.rs"]
mod envoy;
mod support;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use lateen_process::logs::{self, LogFile, Output};
use lateen_proxy::run::LogLevels;
use serde_json::{Value, json};
use support::whole::{
    OK, Proxy, bootstrap, eventually, everything, filter, http, socket, static_cluster, status,
    url, wait_for,
};
use support::{Upstream, ask, free_address};

/// The process's log as the admin port sees it.
struct Levels(logs::Levels);

impl LogLevels for Levels {
    fn list(&self) -> Vec<(String, String)> {
        self.0.list()
    }

    fn set(&self, logger: Option<&str>, level: &str) -> Result<(), String> {
        self.0.set(logger, level).map_err(|error| error.to_string())
    }

    fn reopen(&self) -> std::io::Result<()> {
        Ok(())
    }
}

const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";

fn policies(name: &str, prefix: &str, who: Value) -> Value {
    json!({ name: { "permissions": [{ "url_path": { "path": { "prefix": prefix } } }],
        "principals": [who] } })
}

fn filters() -> Vec<Value> {
    let any = || json!({ "any": true });
    let jwt = json!({ "providers": { "p": { "issuer": "me", "local_jwks": { "inline_string":
        r#"{"keys":[{"kty":"oct","alg":"HS256","kid":"a","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}"# } } },
        "rules": [{ "match": { "prefix": "/jwt" }, "requires": { "provider_name": "p" } }] });
    let deny = json!({
        "rules": { "action": "DENY", "policies": policies("ns[foo]-policy[bar]-rule[0]", "/secret", any()) },
        "shadow_rules": { "action": "DENY", "policies": policies("ns[foo]-policy[dry]-rule[0]", "/dry", any()) },
        "shadow_rules_stat_prefix": "istio_dry_run_deny_" });
    let known = json!({ "header": { "name": "x-who", "present_match": true } });
    let allow =
        json!({ "rules": { "policies": policies("ns[foo]-policy[ok]-rule[1]", "/", known) } });
    let check = json!({ "failure_mode_allow": true, "http_service": { "server_uri": {
        "uri": "http://127.0.0.1:1", "cluster": "nobody", "timeout": "2s" } } });
    vec![
        filter(
            "jwt",
            "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            jwt,
        ),
        filter("deny", RBAC, deny),
        filter("allow", RBAC, allow),
        filter(
            "check",
            "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            check,
        ),
    ]
}

/// What is served, and where: requests, bytes, admin pages.
struct Served {
    http: SocketAddr,
    tcp: SocketAddr,
    admin: SocketAddr,
    bootstrap: Value,
}

impl Served {
    fn new(upstream: SocketAddr, nobody: SocketAddr) -> Self {
        let [web, tcp, admin] = [free_address(), free_address(), free_address()];
        let rules = json!({ "action": "DENY",
            "policies": policies_of_tcp() });
        let network = |message: &str, mut config: Value| {
            config["@type"] = json!(url(message));
            json!({ "name": message, "typed_config": config })
        };
        let bytes = json!({ "name": "tcp", "address": socket(tcp), "filter_chains": [{ "filters": [
            network("envoy.extensions.filters.network.rbac.v3.RBAC",
                json!({ "stat_prefix": "t", "rules": rules })),
            network("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                json!({ "stat_prefix": "t", "cluster": "c" })),
        ] }] });
        let listeners = json!([http(web, filters(), everything(), Value::Null), bytes]);
        let clusters = json!([
            static_cluster("c", upstream),
            static_cluster("nobody", nobody)
        ]);
        let admin_page = json!({ "admin": { "address": socket(admin) } });
        Self {
            http: web,
            tcp,
            admin,
            bootstrap: bootstrap(listeners, clusters, admin_page),
        }
    }

    fn set(&self, query: &str) -> String {
        let request = format!("POST /logging{query} HTTP/1.1\r\nhost: h\r\n\r\n");
        let answer = ask(self.admin, &request);
        assert_eq!(status(&answer), "200", "{answer}");
        answer
    }

    fn traffic(&self) {
        let get = |path: &str, more: &str| {
            let head = format!("GET {path} HTTP/1.1\r\nhost: h\r\n{more}\r\n");
            status(&ask(self.http, &head)).to_owned()
        };
        assert_eq!(get("/plain?token=hidden", "x-who: me\r\n"), "200");
        assert_eq!(get("/secret", "x-who: me\r\ncookie: hidden\r\n"), "403");
        assert_eq!(get("/dry", "x-who: me\r\nx-odd: a\u{9b}b\r\n"), "200");
        assert_eq!(get("/plain", ""), "403");
        assert_eq!(get("/jwt", "x-who: me\r\n"), "401");
        assert_eq!(
            get("/jwt", "x-who: me\r\nauthorization: Bearer hidden.b.c\r\n"),
            "401"
        );
        let mut stream = TcpStream::connect(self.tcp).unwrap();
        use std::io::{Read as _, Write as _};
        // It may have been closed already.
        let _ = stream.write_all(b"hello");
        let _ = stream.read(&mut [0; 8]);
    }
}

fn policies_of_tcp() -> Value {
    json!({ "ns[foo]-policy[tcp]-rule[0]": { "permissions": [{ "any": true }],
        "principals": [{ "any": true }] } })
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The lines whose words are Envoy's, from the word that they begin with.
fn common(text: &str) -> Vec<String> {
    let begins = [
        "shadow ",
        "enforced ",
        "Jwt authentication completed with",
        "ext_authz filter allowed",
        "ext_authz filter calling authorization server",
    ];
    let cut = |line: &str| {
        let at = begins.iter().find_map(|word| line.find(word))?;
        let line = &line[at..];
        // What follows an error or a question is each one's own.
        let end = line.find(". ").or(line.find(" error: "));
        let line = line[..end.unwrap_or(line.len())].trim_end_matches(['.', ' ']);
        Some(line.trim_end_matches(" error").to_owned())
    };
    text.lines().filter_map(cut).collect()
}

/// Without the TCP connection that asked whether the port is there, which may be judged late.
fn since_first_request(text: &str) -> Vec<String> {
    let all = common(text);
    let first = all.iter().position(|line| line.starts_with("Jwt"));
    all[first.unwrap_or(all.len())..].to_vec()
}

const LAST: &str = "policy[tcp]-rule[0]";
const LEVELS: &str = "?paths=rbac:debug,jwt:debug,ext_authz:trace";

/// What the real Envoy says of the same; none where there is none.
fn of_envoy(folder: &Path, upstream: SocketAddr, nobody: SocketAddr) -> Option<Vec<String>> {
    let program = envoy::find()?;
    let served = Served::new(upstream, nobody);
    let mut envoy = envoy::Envoy::start(&program, folder, &served.bootstrap);
    envoy.wait_for(served.admin);
    envoy.wait_for(served.http);
    envoy.wait_for(served.tcp);
    served.set(LEVELS);
    served.traffic();
    let log = folder.join("envoy.log");
    let ended = || {
        since_first_request(&read(&log))
            .last()
            .is_some_and(|l| l.contains(LAST))
    };
    eventually("Envoy's last line", ended);
    Some(since_first_request(&read(&log)))
}

#[test]
fn loggers_speak_while_they_are_on_and_tell_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("ours.log");
    let output = Output {
        file: Some(LogFile::open(&log).unwrap()),
        ..Output::default()
    };
    let levels = logs::start_to("warning", output).unwrap();
    let upstream = Upstream::new(&[OK]);
    let nobody = free_address();
    let served = Served::new(upstream.address, nobody);
    let _proxy = Proxy::logging(&served.bootstrap, Arc::new(Levels(levels)));
    wait_for(served.http);
    wait_for(served.tcp);
    // Off: nothing but what a filter's refusal is worth to everyone, which is nothing.
    served.traffic();
    let said = read(&log);
    assert!(!said.contains("DEBUG"), "no logger was on: {said}");
    let list = served.set("");
    assert!(
        list.contains("\n  rbac: warning\n") && list.contains("\n  websocket: warning\n"),
        "{list}"
    );
    let list = served.set(LEVELS);
    assert!(
        list.contains("\n  rbac: debug\n") && list.contains("\n  router: warning\n"),
        "{list}"
    );
    served.traffic();
    let ended = || {
        since_first_request(&read(&log))
            .last()
            .is_some_and(|l| l.contains(LAST))
    };
    eventually("the last line", ended);
    let said = read(&log);
    if let Some(theirs) = of_envoy(folder.path(), upstream.address, nobody) {
        assert_eq!(since_first_request(&said), theirs);
    }
    for wanted in [
        "DEBUG rbac: enforced denied, matched policy ns[foo]-policy[bar]-rule[0]\n",
        "DEBUG rbac: shadow denied, matched policy ns[foo]-policy[dry]-rule[0]\n",
        "DEBUG rbac: enforced denied, matched policy none\n",
        "checking request: requestedServerName: , sourceIP: 127.0.0.1:",
        "Jwt authentication completed with: Jwt is missing",
        "ext_authz filter allowed the request with error",
        r"'x-odd', 'a\xc2\x9bb'",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in {said}");
    }
    // The others speak too, and none tells what it must not.
    served.set("?level=debug");
    served.traffic();
    eventually("every logger's lines", || {
        let said = read(&log);
        ["http", "router", "conn_handler", "connection", "pool"]
            .iter()
            .all(|name| said.contains(&format!(" DEBUG {name}: ")))
    });
    let said = read(&log);
    assert!(
        said.contains(" match for URL '/plain?[redacted]'"),
        "{said}"
    );
    for wrong in ["hidden", "\x1b", "\u{9b}"] {
        assert!(!said.contains(wrong), "{wrong:?} in {said}");
    }
    // And are silent again in all workers.
    served.set("?level=off");
    let judged = || read(&log).matches("matched policy").count();
    let before = judged();
    served.traffic();
    assert_eq!(judged(), before, "every logger was off");
}
