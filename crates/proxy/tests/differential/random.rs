//! Cases by chance, the same for the same seed: route tables, header edits, access rules, faults
//! and options of the connection manager, with requests that meet them. What docs/differences.md
//! lists is not made here; it has cases of its own.

use serde_json::{Map, Value, json};

use super::case::File;

/// Requests over one configuration.
const REQUESTS: usize = 6;

/// So many cases of a seed, and their configurations by name.
pub fn cases(seed: u64, count: usize) -> (File, Map<String, Value>) {
    let mut dice = Dice(fastrand::Rng::with_seed(seed));
    let (mut configs, mut cases) = (Map::new(), Vec::new());
    let makers = [
        Dice::routing,
        Dice::editing,
        Dice::guarding,
        Dice::failing,
        Dice::speaking,
    ];
    while cases.len() < count {
        let at = configs.len();
        let name = format!("random{seed}x{at}");
        let (kind, config) = makers[at % makers.len()](&mut dice);
        for n in 0..REQUESTS.min(count - cases.len()) {
            let send = match kind {
                "codec" => dice.bytes(),
                _ => dice.request(),
            };
            cases.push(
                json!({ "name": format!("{kind} {at} {n}"), "config": name, "send": send,
                "upstream": dice.answer() }),
            );
        }
        configs.insert(name, config);
    }
    let file = json!({ "configs": configs, "cases": cases });
    let file = serde_json::from_value(file).unwrap_or_else(|e| panic!("{e}"));
    (file, configs)
}

/// The pieces that paths, headers and rules are made of: few, so that they meet.
const SEGMENTS: [&str; 10] = [
    "a", "b", "A", "ab", "a.b", "%61", "a%2fb", ".", "..", "a;v=1",
];
const NAMES: [&str; 5] = ["x-a", "x-b", "x-num", "x-c", "x_u"];
const VALUES: [&str; 9] = ["", "a", "b", "ab", "A", "7", "-3", "a,b", "a b"];
const METHODS: [&str; 5] = ["GET", "POST", "HEAD", "OPTIONS", "DELETE"];
const REGEXES: [&str; 7] = ["/a.*", "/[ab]+", "a", "(?i)A", ".*b", "\\d+", "/a(/.*)?"];

struct Dice(fastrand::Rng);

impl Dice {
    fn one<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.usize(..all.len())]
    }

    /// True once in so many times.
    fn once_in(&mut self, count: u32) -> bool {
        self.0.u32(..count) == 0
    }

    fn list<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.0.usize(..=most)).map(|_| make(self)).collect()
    }

    fn path(&mut self) -> String {
        let parts = self.list(4, |dice| match dice.once_in(9) {
            true => String::new(),
            false => dice.one(&SEGMENTS).to_owned(),
        });
        let tail = if self.once_in(4) { "/" } else { "" };
        match parts.is_empty() {
            true => "/".to_owned(),
            false => format!("/{}{tail}", parts.join("/")),
        }
    }

    fn query(&mut self) -> String {
        let pairs = self.list(3, |dice| {
            let (name, value) = (
                dice.one(&["a", "b", "A", ""]),
                dice.one(&["", "a", "7", "%61"]),
            );
            match dice.once_in(4) {
                true => name.to_owned(),
                false => format!("{name}={value}"),
            }
        });
        match pairs.is_empty() {
            true => String::new(),
            false => format!("?{}", pairs.join("&")),
        }
    }

    fn lines(&mut self) -> String {
        let all = self.list(4, |dice| {
            format!("{}: {}\r\n", dice.one(&NAMES), dice.one(&VALUES))
        });
        // Several lines of one name stay as they came; Envoy joins some names.
        all.concat()
    }

    fn request(&mut self) -> String {
        let (method, path) = (self.one(&METHODS), self.path());
        let (query, lines) = (self.query(), self.lines());
        format!("{method} {path}{query} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
    }

    fn answer(&mut self) -> String {
        let status = self.one(&["200 OK", "404 Not Found", "503 No"]);
        let lines = self.lines();
        format!("HTTP/1.1 {status}\r\n{lines}content-length: 2\r\n\r\nok")
    }

    fn string_match(&mut self) -> Value {
        let text = self.one(&["a", "b", "ab", "A", "/a", "7"]);
        let kind = self.one(&["exact", "prefix", "suffix", "contains", "safe_regex"]);
        let mut rule = match kind {
            "safe_regex" => json!({ "safe_regex": { "regex": self.one(&REGEXES) } }),
            kind => json!({ kind: text }),
        };
        if kind != "safe_regex" && self.once_in(3) {
            rule["ignore_case"] = json!(true);
        }
        rule
    }

    fn header_match(&mut self) -> Value {
        let name = self.one(&[
            "x-a",
            "x-b",
            "x-num",
            ":path",
            ":method",
            ":authority",
            "absent",
        ]);
        let mut rule = json!({ "name": name });
        match self.0.u32(..4) {
            0 => rule["present_match"] = json!(self.0.bool()),
            1 => rule["range_match"] = json!({ "start": -5, "end": self.one(&[0, 7, 8]) }),
            _ => rule["string_match"] = self.string_match(),
        }
        rule["invert_match"] = json!(self.once_in(4));
        rule["treat_missing_header_as_empty"] = json!(self.once_in(5));
        rule
    }

    fn query_match(&mut self) -> Value {
        let name = self.one(&["a", "b", "A"]);
        match self.once_in(3) {
            true => json!({ "name": name, "present_match": self.0.bool() }),
            false => json!({ "name": name, "string_match": self.string_match() }),
        }
    }

    fn route_match(&mut self) -> Value {
        let path = self.plain_path();
        let mut rule = match self.0.u32(..4) {
            0 => json!({ "path": path }),
            1 => json!({ "safe_regex": { "regex": self.one(&REGEXES) } }),
            2 if path.len() > 1 => json!({ "path_separated_prefix": path }),
            _ => json!({ "prefix": path }),
        };
        if rule.get("safe_regex").is_none() && self.once_in(3) {
            rule["case_sensitive"] = json!(false);
        }
        if self.once_in(2) {
            rule["headers"] = json!(self.list(2, Self::header_match));
        }
        if self.once_in(3) {
            rule["query_parameters"] = json!([self.query_match()]);
        }
        rule
    }

    fn plain_path(&mut self) -> String {
        let parts = self.list(2, |dice| dice.one(&["a", "b", "A", "ab"]));
        format!("/{}", parts.join("/"))
    }

    fn action(&mut self, at: usize) -> (&'static str, Value) {
        match self.0.u32(..6) {
            0 => {
                let body = format!("route {at}");
                (
                    "direct_response",
                    json!({ "status": 200 + at, "body": { "inline_string": body } }),
                )
            }
            1 => {
                let mut to = json!({ "response_code": self.one(&["FOUND", "SEE_OTHER", "PERMANENT_REDIRECT"]) });
                match self.0.u32(..3) {
                    0 => to["path_redirect"] = json!("/to?q"),
                    1 => to["host_redirect"] = json!("other"),
                    _ => to["https_redirect"] = json!(true),
                }
                to["strip_query"] = json!(self.0.bool());
                ("redirect", to)
            }
            2 => (
                "route",
                json!({ "cluster": "up", "regex_rewrite":
                { "pattern": { "regex": "^/(a|b)(.*)$" }, "substitution": "/\\2/\\1" } }),
            ),
            _ => ("route", json!({ "cluster": "up" })),
        }
    }

    fn routes(&mut self) -> Value {
        let mut all: Vec<Value> = Vec::new();
        for at in 0..self.0.usize(1..5) {
            let (kind, action) = self.action(at);
            all.push(
                json!({ "name": format!("r{at}"), "match": self.route_match(), kind: action }),
            );
        }
        json!(all)
    }

    fn routing(&mut self) -> (&'static str, Value) {
        (
            "routes",
            json!({ "log": "%ROUTE_NAME%", "routes": self.routes(), "hcm": self.path_options() }),
        )
    }

    fn path_options(&mut self) -> Value {
        let slashes = ["KEEP_UNCHANGED", "UNESCAPE_AND_FORWARD"];
        json!({ "normalize_path": self.0.bool(), "merge_slashes": self.0.bool(),
            "path_with_escaped_slashes_action": self.one(&slashes) })
    }

    fn header_edit(&mut self) -> Value {
        let actions = [
            "APPEND_IF_EXISTS_OR_ADD",
            "ADD_IF_ABSENT",
            "OVERWRITE_IF_EXISTS_OR_ADD",
            "OVERWRITE_IF_EXISTS",
        ];
        let values = [
            "v",
            "%REQ(x-a)%",
            "%RESP(x-b)%",
            "%PROTOCOL%-%%",
            "%REQ(X-B?:PATH):2%",
            "%ROUTE_NAME%",
            "",
        ];
        json!({ "header": { "key": self.one(&["x-a", "x-b", "x-new", "User-Agent"]), "value": self.one(&values) },
            "append_action": self.one(&actions), "keep_empty_value": self.once_in(3) })
    }

    fn edits(&mut self) -> Map<String, Value> {
        let mut all = Map::new();
        for side in ["request", "response"] {
            let add = self.list(2, Self::header_edit);
            all.insert(format!("{side}_headers_to_add"), json!(add));
            let remove = self.list(1, |dice| dice.one(&["x-a", "x-b", "user-agent"]));
            all.insert(format!("{side}_headers_to_remove"), json!(remove));
        }
        all
    }

    fn editing(&mut self) -> (&'static str, Value) {
        let mut route =
            json!({ "name": "r", "match": { "prefix": "/" }, "route": { "cluster": "up" } });
        route.as_object_mut().unwrap().extend(self.edits());
        let (host, mut table) = (self.edits(), self.edits());
        table.insert(
            "most_specific_header_mutations_wins".to_owned(),
            json!(self.0.bool()),
        );
        let mut config = json!({ "routes": [route], "host": host, "table": table });
        if self.once_in(2) {
            let edit = |dice: &mut Self| match dice.once_in(3) {
                true => json!({ "remove": dice.one(&["x-a", "x-b"]) }),
                false => json!({ "append": dice.header_edit() }),
            };
            let (request, response) = (self.list(2, edit), self.list(2, edit));
            config["filters"] = json!([{ "name": "m", "typed_config": {
                "@type": "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": { "request_mutations": request, "response_mutations": response } } }]);
        }
        ("edits", config)
    }

    fn permission(&mut self, depth: u32) -> Value {
        let deeper = depth > 0 && self.once_in(2);
        match self.0.u32(..4) {
            0 if deeper => json!({ "not_rule": self.permission(depth - 1) }),
            1 if deeper => {
                json!({ "and_rules": { "rules": [self.permission(depth - 1), self.permission(depth - 1)] } })
            }
            2 if deeper => {
                json!({ "or_rules": { "rules": [self.permission(depth - 1), self.permission(depth - 1)] } })
            }
            0 | 1 => json!({ "header": self.header_match() }),
            2 => json!({ "url_path": { "path": self.string_match() } }),
            _ => json!({ "any": true }),
        }
    }

    fn principal(&mut self, depth: u32) -> Value {
        let deeper = depth > 0 && self.once_in(2);
        match self.0.u32(..5) {
            0 if deeper => json!({ "not_id": self.principal(depth - 1) }),
            1 if deeper => {
                json!({ "and_ids": { "ids": [self.principal(depth - 1), self.principal(depth - 1)] } })
            }
            2 if deeper => {
                json!({ "or_ids": { "ids": [self.principal(depth - 1), self.principal(depth - 1)] } })
            }
            0 => json!({ "header": self.header_match() }),
            1 => {
                json!({ "direct_remote_ip": { "address_prefix": self.one(&["127.0.0.0", "10.0.0.0"]), "prefix_len": 8 } })
            }
            2 => json!({ "authenticated": {} }),
            _ => json!({ "any": true }),
        }
    }

    fn rules(&mut self) -> Value {
        let mut policies = Map::new();
        for name in ["p", "q"] {
            let (permission, principal) = (self.permission(2), self.principal(2));
            policies.insert(
                name.to_owned(),
                json!({ "permissions": [permission], "principals": [principal] }),
            );
        }
        json!({ "action": self.one(&["ALLOW", "DENY"]), "policies": policies })
    }

    fn guarding(&mut self) -> (&'static str, Value) {
        let mut rbac =
            json!({ "@type": "envoy.extensions.filters.http.rbac.v3.RBAC", "rules": self.rules() });
        if self.once_in(2) {
            rbac["shadow_rules"] = self.rules();
        }
        (
            "rules",
            json!({ "filters": [{ "name": "rbac", "typed_config": rbac }],
            "hcm": self.path_options(), "log": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%" }),
        )
    }

    fn failing(&mut self) -> (&'static str, Value) {
        let percent = json!({ "numerator": self.one(&[0, 100]) });
        let error = self.one(&["http_status", "grpc_status"]);
        let code = if error == "grpc_status" {
            self.one(&[0, 14])
        } else {
            self.one(&[503, 418, 200])
        };
        let fault = json!({ "@type": "envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": { error: code, "percentage": percent }, "headers": self.list(2, Self::header_match) });
        (
            "faults",
            json!({ "filters": [{ "name": "fault", "typed_config": fault }] }),
        )
    }

    fn speaking(&mut self) -> (&'static str, Value) {
        let mut hcm = self.path_options();
        hcm["common_http_protocol_options"] = json!({ "headers_with_underscores_action":
            self.one(&["ALLOW", "REJECT_REQUEST", "DROP_HEADER"]) });
        hcm["http_protocol_options"] = json!({ "enable_trailers": self.0.bool(),
            "allow_custom_methods": self.once_in(3) });
        hcm["strip_matching_host_port"] = json!(self.0.bool());
        hcm["preserve_external_request_id"] = json!(self.0.bool());
        hcm["use_remote_address"] = json!(self.0.bool());
        ("codec", json!({ "hcm": hcm }))
    }

    /// A request that is nearly one: one thing of it is odd. Of two, each proxy may meet another
    /// one first.
    fn bytes(&mut self) -> String {
        let odd = self.0.u32(..8);
        let mut pick = |at: u32, usual: &'static str, all: &[&'static str]| match odd == at {
            true => self.one(all),
            false => usual,
        };
        let method = pick(0, "POST", &["GET", "PUT", "get", "FOO", "GE T", "P\u{1}"]);
        let path = pick(1, "/a/b?c=d", &TARGETS);
        let version = pick(
            2,
            "HTTP/1.1",
            &["HTTP/2.0", "HTTP/1.10", "http/1.1", "HTTP/1,1", "HTTP"],
        );
        let host = pick(
            3,
            "x",
            &[
                "x:80", "X", "x:18080", "x y", "", "[::1]:80", "x:", "x:99999", "x/y",
            ],
        );
        let line = pick(4, "x-a: b", &LINES);
        let body = pick(5, "\r\n", &BODIES);
        let lines = if odd == 6 {
            self.lines()
        } else {
            String::new()
        };
        let text = format!("{method} {path} {version}\r\nHost: {host}\r\n{lines}{line}\r\n{body}");
        if odd == 7 { self.changed(&text) } else { text }
    }

    /// One character is another. Line ends and white space stay: what a bare CR or a folded line
    /// is, is listed as a difference.
    fn changed(&mut self, text: &str) -> String {
        let letters: Vec<char> = text.chars().collect();
        let plain = (0..letters.len()).filter(|at| !letters[*at].is_whitespace());
        let plain: Vec<usize> = plain.collect();
        let at = self.one(&plain);
        let new = self.one(&[
            'a', ':', ';', '"', '(', '\u{1}', '\u{7f}', '/', '%', '=', '\u{e9}',
        ]);
        let letters = letters.iter().enumerate();
        letters
            .map(|(n, c)| if n == at { new } else { *c })
            .collect()
    }
}

/// Targets that are no plain paths.
const TARGETS: [&str; 14] = [
    "http://y/a",
    "*",
    "y:80",
    "//a",
    "/a#b",
    "a",
    "http://y",
    "/\u{e9}",
    "/a\u{1}",
    "/%",
    "/%zz",
    "/a?b#c",
    "/..",
    "/a/%2e%2e/b",
];
/// Header lines that are unusual.
const LINES: [&str; 20] = [
    "x-a : b",
    "x-a:b",
    "x-a:\tb ",
    ":x: y",
    "x-\u{e9}: b",
    "x-a: \u{e9}",
    "connection: close",
    "connection: x-a",
    "te: trailers",
    "x-forwarded-for: 1.2.3.4",
    "x-request-id: a",
    "expect: x",
    "keep-alive: 1",
    "upgrade: h2c",
    "x-forwarded-proto: https",
    "via: a",
    "x-a: b\u{1}",
    "x a: b",
    "x-a",
    "x(a): b",
];
/// Ends of heads with bodies.
const BODIES: [&str; 12] = [
    "Content-Length: 2\r\n\r\nab",
    "Content-Length: 0\r\n\r\n",
    "Content-Length: +2\r\n\r\nab",
    "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "Content-Length: 2, 2\r\n\r\nab",
    "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nx-t: u\r\n\r\n",
    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: identity\r\n\r\n",
    "Content-Length: -1\r\n\r\n",
    "Content-Length: 99999999999999999999\r\n\r\n",
];
