//! The same bytes to the real Envoy and to this proxy over the same bootstrap:
//! answers and access log lines must agree. Envoy is found by LATEEN_ENVOY or on
//! PATH; without it the test says SKIPPED. What differs on purpose is not asked
//! here but written down in docs/differences.md.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::whole::*;
use support::*;

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("LATEEN_ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("envoy"));
    named.into_iter().chain(found).find(|p| p.is_file())
}

/// Ends the process that it holds.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An upstream whose answer is named by the path.
fn upstream() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    while let Some(request) = read_message(&mut stream) {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let path = path.strip_prefix("/rt").unwrap_or(path);
        let answer = match path {
            "/echo" => format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{request}",
                request.len()
            ),
            "/half-head" => "HTTP/1.1 200 OK\r\nConte".to_owned(),
            "/half-chunks" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_owned()
            }
            "/half-length" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_owned(),
            "/both-lengths" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok".to_owned()
            }
            "/until-close" => "HTTP/1.1 200 OK\r\n\r\nall".to_owned(),
            "/no-content" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "/drop" => String::new(),
            "/503" => "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno".to_owned(),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        };
        let ends = path.starts_with("/half") || matches!(path, "/drop" | "/until-close");
        if stream.write_all(answer.as_bytes()).is_err() || ends {
            return;
        }
    }
}

/// One listener that logs, with every kind of route.
fn listener(address: SocketAddr, log: &Path) -> Value {
    let retry = json!({ "retry_on": "5xx", "num_retries": 1 });
    let routes = json!([
        { "match": { "path": "/direct" }, "direct_response": { "status": 418, "body": { "inline_string": "tea" } } },
        { "match": { "path": "/redirect" }, "redirect": { "path_redirect": "/x" } },
        { "match": { "path": "/unknown" }, "route": { "cluster": "unknown" } },
        { "match": { "path": "/empty" }, "route": { "cluster": "empty" } },
        { "match": { "path": "/refused" }, "route": { "cluster": "refused", "retry_policy": retry } },
        { "match": { "prefix": "/rt" }, "route": { "cluster": "c", "retry_policy": retry } },
        { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
    ]);
    let format = "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% \
        %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %UPSTREAM_HOST% %UPSTREAM_CLUSTER_RAW%\n";
    let file = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
    let sink = json!({ "@type": url(file), "path": log,
        "log_format": { "text_format_source": { "inline_string": format } } });
    let extra = json!({ "access_log": [{ "name": "file", "typed_config": sink }] });
    let mut listener = http(address, vec![], routes, extra);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["validate_clusters"] = json!(false);
    listener
}

fn clusters(upstream: SocketAddr, refused: SocketAddr) -> Value {
    json!([
        static_cluster("c", upstream),
        static_cluster("refused", refused),
        { "name": "empty", "connect_timeout": "2s", "load_assignment": { "cluster_name": "empty" } },
    ])
}

/// Request lines with the usual rest, then whole requests.
fn requests() -> Vec<Vec<u8>> {
    let lines: &[&[u8]] = &[
        b"GET /echo HTTP/1.1",
        b"GET\t/echo\tHTTP/1.1",
        b"GET  /echo  HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET / HTTP/1.2",
        b"GET / HTTP/0.9",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1.x",
        b"GET / http/1.1",
        b"GET / ICE/1.0",
        b"GET /",
        b"GET /\xff HTTP/1.1",
        b"GET /\x01 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /a\tb HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"GET foo HTTP/1.1",
        b"GET * HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"get / HTTP/1.1",
        b"FOO / HTTP/1.1",
        b"TRACE /echo HTTP/1.1",
        b"QUERY /echo HTTP/1.1",
        b"QUERY /echo HTTP/1.1\r\nContent-Type: a/b",
        b"CONNECT x:80 HTTP/1.1",
        b"CONNECT x HTTP/1.1",
        b"CONNECT / HTTP/1.1",
        b"GET http://zz HTTP/1.1",
        b"GET http://zz/echo HTTP/1.1",
        b"GET http://u@zz/echo HTTP/1.1",
        b"GET http://zz?x=1 HTTP/1.1",
        b"GET http://zz#x HTTP/1.1",
        b"GET ftp://zz/ HTTP/1.1",
        b"GET /echo HTTP/1.1\r\nConnection: x-a\r\nX-A: 1\r\nTE: trailers\r\nKeep-Alive: 5",
        b"GET /echo HTTP/1.1\r\nX-Envoy-Max-Retries: 5\r\nX-Envoy-Hedge-On-Per-Try-Timeout: true",
        b"GET /echo HTTP/1.1\r\nX-Envoy-Foo: 1\r\nX-Envoy-Upstream-Stream-Duration-Ms: 5",
        b"GET /echo HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade",
        b"GET /echo HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade",
        b"GET /echo HTTP/1.1\r\nbad header",
        b"GET /echo HTTP/1.1\r\na: b\0c",
        b"GET /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1",
        b"GET /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"GET /echo HTTP/1.1\r\nTransfer-Encoding: gzip",
        b"GET /direct HTTP/1.1",
        b"GET /redirect HTTP/1.1",
        b"GET /unknown HTTP/1.1",
        b"GET /empty HTTP/1.1",
        b"GET /refused HTTP/1.1",
        b"GET /drop HTTP/1.1",
        b"GET /rt/drop HTTP/1.1",
        b"GET /rt/503 HTTP/1.1",
        b"GET /half-head HTTP/1.1",
        b"GET /half-chunks HTTP/1.1",
        b"GET /half-length HTTP/1.1",
        b"GET /both-lengths HTTP/1.1",
        b"GET /until-close HTTP/1.1",
        b"GET /no-content HTTP/1.1",
        b"POST /direct HTTP/1.1\r\nContent-Length: 0",
    ];
    let whole: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\r\n",
        b"POST /direct HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /direct HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /redirect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /empty HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"PUT /echo HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let lines = lines
        .iter()
        .map(|line| [line, &b"\r\nHost: x\r\n\r\n"[..]].concat());
    lines.chain(whole.iter().map(|w| w.to_vec())).collect()
}

/// Sends the bytes and reads one answer, or what there is of it at the end.
fn answer(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    let (mut bytes, mut chunk) = (Vec::new(), [0; 65536]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").and_then(|l| l.parse().ok());
            let whole = match length {
                Some(length) => rest.len() >= length,
                None if head.contains("chunked") => rest.ends_with("0\r\n\r\n"),
                None => true,
            };
            if whole {
                return text;
            }
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return text,
        }
    }
}

/// What must agree: lines in any order, without what time and chance put in.
fn essence(answer: &str) -> Vec<String> {
    let keep = |line: &str| {
        let changing = [
            "date: ",
            "x-request-id: ",
            "x-envoy-upstream-service-time: ",
        ];
        match changing.iter().find(|name| line.starts_with(**name)) {
            Some(name) => (*name).to_owned(),
            None => line.to_owned(),
        }
    };
    let mut lines: Vec<String> = answer.split("\r\n").map(keep).collect();
    lines.sort();
    lines
}

fn log_lines(path: &Path, count: usize) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count || Instant::now() > until {
            lines.sort();
            return lines;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start_envoy(program: &Path, dir: &Path, listeners: Value, clusters: Value) -> Running {
    let bootstrap = json!({ "static_resources": { "listeners": listeners, "clusters": clusters } });
    let file = dir.join("envoy.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    command.args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]);
    command.args(["--file-flush-interval-msec", "50"]);
    command.stdin(Stdio::null());
    Running(command.spawn().unwrap())
}

#[test]
fn answers_and_log_lines_agree_with_envoys() {
    let Some(program) = envoy() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (free_address(), free_address());
    let logs = [dir.path().join("theirs"), dir.path().join("ours")];
    let upstream = upstream();
    let shared = clusters(upstream, free_address());
    let _envoy = start_envoy(
        &program,
        dir.path(),
        json!([listener(theirs, &logs[0])]),
        shared.clone(),
    );
    let _proxy = Proxy::start(json!([listener(ours, &logs[1])]), shared, None);
    wait_for(theirs);
    wait_for(ours);
    let requests = requests();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let asks: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(move || (answer(theirs, request), answer(ours, request))))
            .collect();
        let answers = asks.into_iter().map(|ask| ask.join().unwrap());
        let pairs = requests.iter().zip(answers);
        pairs
            .filter(|(_, (theirs, ours))| essence(theirs) != essence(ours))
            .map(|(request, (theirs, ours))| {
                let request = request.escape_ascii();
                format!("{request}\n  Envoy: {theirs:?}\n  ours:  {ours:?}")
            })
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Connections that only waited for the port have no line.
    let lines = logs.map(|log| log_lines(&log, requests.len()));
    assert_eq!(lines[0].len(), requests.len());
    assert_eq!(lines[0], lines[1]);
}
