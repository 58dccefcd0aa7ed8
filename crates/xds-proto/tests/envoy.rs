//! The JSON of the real Envoy: what its `/config_dump` prints is read into wire bytes and
//! printed again, and both agree. Envoy is found by LATEEN_ENVOY or on PATH; without it the
//! test says SKIPPED.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lateen_xds_proto::json::{self, ParseOptions};
use serde_json::{Value, json};

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("LATEEN_ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    named
        .into_iter()
        .chain(on_path())
        .find(|file| file.is_file())
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The process may be gone already; there is nothing else to do about it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bootstrap() -> Value {
    let listener = json!({
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{
            "filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]},
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": lateen_xds_proto::type_url::HTTP_CONNECTION_MANAGER,
                    "stat_prefix": "web",
                    "route_config": {
                        "name": "r",
                        "virtual_hosts": [{
                            "name": "all", "domains": ["*"],
                            "routes": [{
                                "name": "one",
                                "match": {"prefix": "/", "headers": [{"name": "x", "string_match": {"exact": "y"}}]},
                                "route": {
                                    "cluster": "c", "timeout": "0.250s", "idle_timeout": "3s",
                                    "retry_policy": {"retry_on": "5xx", "num_retries": 2},
                                    "hash_policy": [{"cookie": {"name": "k", "ttl": "0s"}}]
                                },
                                "metadata": {"filter_metadata": {"istio": {"config": "x", "n": 1.5, "list": [true, null]}}},
                                "typed_per_filter_config": {"envoy.filters.http.fault": {
                                    "@type": lateen_xds_proto::type_url::HTTP_FAULT,
                                    "abort": {"http_status": 555, "percentage": {"numerator": 1, "denominator": "TEN_THOUSAND"}}}}
                            }, {
                                "match": {"safe_regex": {"regex": "/a.*"}},
                                "direct_response": {"status": 418, "body": {"inline_bytes": "AQID"}}
                            }]
                        }]
                    },
                    "http_filters": [
                        {"name": "envoy.filters.http.fault", "typed_config": {"@type": lateen_xds_proto::type_url::HTTP_FAULT}},
                        {"name": "envoy.filters.http.router", "typed_config": {"@type": lateen_xds_proto::type_url::ROUTER}}
                    ]
                }
            }]
        }]
    });
    json!({
        "node": {"id": "n", "cluster": "c", "metadata": {"LABELS": {"a": "b"}}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [listener],
            "clusters": [{
                "name": "c", "type": "STATIC", "connect_timeout": "1s", "lb_policy": "RING_HASH",
                "ring_hash_lb_config": {"minimum_ring_size": "1024"},
                "circuit_breakers": {"thresholds": [{"max_connections": 4294967295u32, "retry_budget": {"budget_percent": {"value": 20.5}}}]},
                "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 9}}}, "load_balancing_weight": 7}]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": lateen_xds_proto::type_url::HTTP_PROTOCOL_OPTIONS,
                    "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 100}}}}
            }]
        }
    })
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, mut body) = answer.split_once("\r\n\r\n")?;
    if !head.contains("200 OK") {
        return None;
    }
    if !head.contains("transfer-encoding: chunked") {
        return Some(body.to_owned());
    }
    let mut joined = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(joined);
        }
        joined.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

fn wait<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < end, "{what} in 30 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn start(program: &Path, folder: &Path) -> (Running, String) {
    let config = folder.join("bootstrap.json");
    let admin = folder.join("admin");
    std::fs::write(&config, bootstrap().to_string()).unwrap();
    let child = Command::new(program)
        .arg("-c")
        .arg(&config)
        .arg("--admin-address-path")
        .arg(&admin)
        .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let address = wait("Envoy has an admin address", || {
        let text = std::fs::read_to_string(&admin).ok()?;
        (!text.is_empty()).then_some(text)
    });
    (running, address)
}

/// Both are JSON values; numbers compare by value.
fn assert_same(path: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs {
                let mine = ours.get(key);
                let mine = mine.unwrap_or_else(|| panic!("{path}.{key} is missing: {value}"));
                assert_same(&format!("{path}.{key}"), mine, value);
            }
            for (key, value) in ours {
                assert!(
                    theirs.contains_key(key),
                    "{path}.{key} is too much: {value}"
                );
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{path}");
            for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                assert_same(&format!("{path}[{index}]"), ours, theirs);
            }
        }
        (Value::Number(ours), Value::Number(theirs)) => {
            assert_eq!(ours.as_f64(), theirs.as_f64(), "{path}");
        }
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}

#[test]
fn what_envoy_prints_we_read_and_print_alike() {
    let Some(program) = envoy() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY)");
        return;
    };
    let folder = std::env::temp_dir().join(format!("lateen-envoy-json-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (running, address) = start(&program, &folder);
    let dump = wait("a config dump", || {
        let ready = get(&address, "/ready")?;
        ready
            .contains("LIVE")
            .then(|| get(&address, "/config_dump?include_eds"))?
    });
    let dump: Value = serde_json::from_str(&dump).unwrap();
    let name = "envoy.admin.v3.ConfigDump";
    // A newer Envoy may know fields that the table does not.
    let options = ParseOptions {
        allow_unknown: true,
        ..ParseOptions::default()
    };
    let parsed = json::to_wire_with(name, &dump, &options).unwrap();
    assert_eq!(parsed.unknown, Vec::<String>::new());
    let printed = json::from_wire(name, &parsed.wire).unwrap();
    assert_same("", &printed, &dump);
    assert!(dump["configs"].as_array().unwrap().len() >= 4);
    let clusters: Value =
        serde_json::from_str(&get(&address, "/clusters?format=json").unwrap()).unwrap();
    let wire = json::to_wire("envoy.admin.v3.Clusters", &clusters).unwrap();
    let printed = json::from_wire("envoy.admin.v3.Clusters", &wire).unwrap();
    assert_same("", &printed, &clusters);
    drop(running);
    std::fs::remove_dir_all(&folder).unwrap();
}
