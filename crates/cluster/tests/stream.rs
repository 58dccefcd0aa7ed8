//! The streaming subresources with the real kubectl: a pod whose containers are processes of this
//! machine, served by a small plain-HTTP server that knows just enough discovery.
//!
//! Every `kubectl` on PATH is tried, so that both transports (SPDY of older versions, WebSocket of
//! newer ones) are met where several are installed.

#[path = "stream/fake.rs"]
mod fake;
#[path = "stream/programs.rs"]
mod programs;
#[path = "stream/server.rs"]
mod server;

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// A kubectl with a server and a home of its own.
struct Kubectl {
    program: PathBuf,
    server: server::Server,
    home: tempfile::TempDir,
    /// Forces the SPDY transport in versions that would try WebSocket first.
    spdy: bool,
}

impl Kubectl {
    async fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for program in programs::kubectls() {
            for spdy in [false, true] {
                all.push(Self {
                    program: program.clone(),
                    server: server::Server::start().await,
                    home: tempfile::tempdir().expect("a folder"),
                    spdy,
                });
            }
        }
        all
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--server=http://{}", self.server.address))
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("none"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.spdy {
            command
                .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
                .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        }
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let run = self.command(arguments).output();
        tokio::time::timeout(Duration::from_secs(120), run)
            .await
            .unwrap_or_else(|_| panic!("{} {arguments:?} hangs", self.program.display()))
            .expect("kubectl starts")
    }

    async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let feeding = tokio::spawn(async move {
            let _ = stdin.write_all(&input).await;
        });
        let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("{} {arguments:?} hangs", self.program.display()))
            .expect("kubectl ends");
        feeding.await.expect("no panic");
        output
    }

    fn name(&self) -> String {
        format!(
            "{} ({})",
            self.program.display(),
            if self.spdy { "SPDY" } else { "default" }
        )
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn exec_gives_output_errors_and_exit_codes() {
    for kubectl in Kubectl::all().await {
        let script = "echo out; echo err >&2; exit 3";
        let output = kubectl
            .run(&["exec", "one", "--", "sh", "-c", script])
            .await;
        assert_eq!(text(&output.stdout), "out\n", "{}", kubectl.name());
        let errors = text(&output.stderr);
        assert!(errors.starts_with("err\n"), "{}: {errors}", kubectl.name());
        assert!(
            errors.contains("command terminated with exit code 3"),
            "{errors}"
        );
        assert_eq!(output.status.code(), Some(3));
        let transports = kubectl.server.transports();
        // From 1.31 on kubectl tries WebSocket first; the tests use no older one.
        let expected = if kubectl.spdy {
            "SPDY/3.1"
        } else {
            "websocket"
        };
        assert_eq!(transports, [expected], "{}", kubectl.name());
    }
}

#[tokio::test]
async fn exec_carries_megabytes_both_ways() {
    let input: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    for kubectl in Kubectl::all().await {
        let output = kubectl
            .run_with_input(&["exec", "-i", "one", "--", "cat"], &input)
            .await;
        assert!(
            output.status.success(),
            "{}: {}",
            kubectl.name(),
            text(&output.stderr)
        );
        assert!(
            output.stdout == input,
            "{}: {} bytes",
            kubectl.name(),
            output.stdout.len()
        );
    }
}

#[tokio::test]
async fn exec_of_a_missing_program_says_so() {
    for kubectl in Kubectl::all().await {
        let output = kubectl.run(&["exec", "one", "--", "no-such-program"]).await;
        assert_eq!(output.status.code(), Some(127), "{}", kubectl.name());
        assert!(
            text(&output.stderr).contains("no-such-program"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[tokio::test]
async fn refusals_come_before_the_upgrade() {
    for kubectl in Kubectl::all().await {
        let output = kubectl
            .run(&["exec", "one", "-c", "absent", "--", "true"])
            .await;
        let errors = text(&output.stderr);
        assert!(!output.status.success(), "{}", kubectl.name());
        assert!(errors.contains("absent"), "{}: {errors}", kubectl.name());
        let output = kubectl.run(&["exec", "pending", "--", "true"]).await;
        let errors = text(&output.stderr);
        assert!(
            errors.contains("pending does not have a host assigned"),
            "{errors}"
        );
        // The node's own words, not a Status: kubectl would print that one as `(NotFound)`.
        let output = kubectl.run(&["exec", "ended", "--", "true"]).await;
        let errors = text(&output.stderr);
        assert!(
            errors.contains("unable to upgrade connection: container not found (\"main\")"),
            "{}: {errors}",
            kubectl.name()
        );
    }
}

#[tokio::test]
async fn cp_works_both_ways() {
    for kubectl in Kubectl::all().await {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, "some text").expect("written");
        let inside = folder.path().join("inside");
        let pod_path = format!("one:{}", inside.display());
        let up = kubectl
            .run(&["cp", &from.display().to_string(), &pod_path])
            .await;
        assert!(
            up.status.success(),
            "{}: {}",
            kubectl.name(),
            text(&up.stderr)
        );
        assert_eq!(
            std::fs::read_to_string(&inside).expect("copied"),
            "some text"
        );
        let down = kubectl
            .run(&["cp", &pod_path, &to.display().to_string()])
            .await;
        assert!(
            down.status.success(),
            "{}: {}",
            kubectl.name(),
            text(&down.stderr)
        );
        assert_eq!(std::fs::read_to_string(&to).expect("copied"), "some text");
    }
}

#[tokio::test]
async fn attach_ends_with_the_container() {
    for kubectl in Kubectl::all().await {
        let output = kubectl
            .run_with_input(&["attach", "-i", "one", "-c", "main"], b"hello\n")
            .await;
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}: {errors}", kubectl.name());
        assert!(out.contains("attached: hello"), "{}: {out}", kubectl.name());
        assert!(
            !errors.contains("falling back"),
            "{}: {errors}",
            kubectl.name()
        );
    }
}

#[tokio::test]
async fn logs_stream_and_explain_their_errors() {
    for kubectl in Kubectl::all().await.into_iter().filter(|k| !k.spdy) {
        let output = kubectl.run(&["logs", "one", "--tail=2"]).await;
        assert_eq!(
            text(&output.stdout),
            "line 2\nline 3\n",
            "{}",
            text(&output.stderr)
        );
        let output = kubectl.run(&["logs", "one", "--previous"]).await;
        let errors = text(&output.stderr);
        assert!(
            errors.contains("previous terminated container \"main\" in pod \"one\" not found"),
            "{}: {errors}",
            kubectl.name()
        );
        let mut command = kubectl.command(&["logs", "-f", "one"]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdout = child.stdout.take().expect("piped");
        let mut seen = String::new();
        let reading = async {
            let mut buffer = [0; 256];
            // Line 4 is only written after a pause, the stream stays open behind it.
            while !seen.contains("line 4\n") {
                let read = stdout.read(&mut buffer).await.expect("readable");
                assert!(read > 0, "the stream ended: {seen}");
                seen.push_str(&text(&buffer[..read]));
            }
        };
        tokio::time::timeout(Duration::from_secs(120), reading)
            .await
            .expect("flushed lines");
    }
}

#[tokio::test]
async fn port_forward_carries_connections_at_the_same_time() {
    for kubectl in Kubectl::all().await {
        let port = kubectl.server.echo_port;
        let mut command = kubectl.command(&["port-forward", "pod/one", &format!(":{port}")]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let local = local_port(&mut child).await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8u8 {
            tasks.spawn(async move {
                let stream = tokio::net::TcpStream::connect(("127.0.0.1", local)).await;
                let mut stream = stream.expect("connected");
                let sent = vec![number; 200_000];
                let (mut from, mut to) = stream.split();
                let mut back = Vec::new();
                let writing = async {
                    to.write_all(&sent).await.expect("written");
                    to.shutdown().await.expect("closed");
                };
                let reading = async {
                    from.read_to_end(&mut back).await.expect("readable");
                };
                tokio::join!(writing, reading);
                assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
            });
        }
        let all = async {
            while let Some(done) = tasks.join_next().await {
                done.expect("echoed")
            }
        };
        let name = kubectl.name();
        tokio::time::timeout(Duration::from_secs(120), all)
            .await
            .unwrap_or_else(|_| panic!("{name}"));
        child.kill().await.expect("stopped");
    }
}

#[tokio::test]
async fn a_long_session_outlives_the_keep_alive() {
    // The client pings every 5 seconds; two rounds of it must not disturb.
    let all = Kubectl::all().await.into_iter().map(async |kubectl| {
        let output = kubectl
            .run(&["exec", "one", "--", "sh", "-c", "sleep 11; echo done"])
            .await;
        assert_eq!(
            text(&output.stdout),
            "done\n",
            "{}: {}",
            kubectl.name(),
            text(&output.stderr)
        );
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn a_closed_port_is_told_and_ends_the_command() {
    for kubectl in Kubectl::all().await {
        // A port that nobody listens at and nobody else can get.
        let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
        closed
            .bind("127.0.0.1:0".parse().expect("an address"))
            .expect("a port");
        let port = closed.local_addr().expect("an address").port();
        let mut command = kubectl.command(&["port-forward", "pod/one", &format!(":{port}")]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let local = local_port(&mut child).await;
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", local))
            .await
            .expect("connected");
        let mut back = Vec::new();
        let read = stream.read_to_end(&mut back);
        // The connection may end by a reset as well as by an orderly close.
        let _ = tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .expect("it ends");
        assert!(back.is_empty());
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
        let errors = text(&output.await.expect("it ends").expect("readable").stderr);
        let told = format!("error forwarding port {port} to pod one, uid : ");
        assert!(errors.contains(&told), "{}: {errors}", kubectl.name());
    }
}

/// Reads `Forwarding from 127.0.0.1:LOCAL -> PORT`.
async fn local_port(child: &mut tokio::process::Child) -> u16 {
    let stdout = child.stdout.as_mut().expect("piped");
    let (mut seen, mut buffer) = (String::new(), [0; 256]);
    while !seen.contains(" -> ") {
        let read = stdout.read(&mut buffer).await.expect("readable");
        assert!(read > 0, "it ended: {seen}");
        seen.push_str(&text(&buffer[..read]));
    }
    let left = seen.split(" -> ").next().unwrap_or("");
    left.rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("the local port")
}

#[tokio::test]
async fn a_terminal_sends_its_size_and_keys() {
    for kubectl in Kubectl::all().await {
        // `script` gives kubectl a terminal; the fake agent answers each new size with a line.
        let inner = kubectl.command(&["exec", "-it", "one", "--", "terminal"]);
        let inner = inner.as_std();
        let words: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut command = Command::new("script");
        let line = format!("stty cols 101 rows 31; {}", words.join(" "));
        command
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.kill_on_drop(true);
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let mut child = command.spawn().expect("script starts");
        let mut stdin = child.stdin.take().expect("piped");
        let mut stdout = child.stdout.take().expect("piped");
        let mut seen = String::new();
        let talk = async {
            let (mut buffer, mut typed) = ([0; 256], false);
            while !seen.contains("typed: q") {
                let read = stdout.read(&mut buffer).await.expect("readable");
                assert!(read > 0, "{}: it ended: {seen}", kubectl.name());
                seen.push_str(&text(&buffer[..read]));
                if !typed && seen.contains("size 101x31") {
                    stdin.write_all(b"q").await.expect("written");
                    typed = true;
                }
            }
        };
        let name = kubectl.name();
        tokio::time::timeout(Duration::from_secs(120), talk)
            .await
            .unwrap_or_else(|_| panic!("{name}"));
        child.wait().await.expect("it ends");
    }
}

#[tokio::test]
async fn port_forward_by_plain_channels() {
    let server = server::Server::start().await;
    let path = "/api/v1/namespaces/default/pods/one/portforward";
    let port = server.echo_port;
    let mut request = format!("ws://{}{path}?ports={port}", server.address)
        .into_client_request()
        .expect("a request");
    let offers = http::HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offers);
    let (mut socket, _) = tokio_tungstenite::connect_async(request)
        .await
        .expect("101");
    let mut next = async || match socket.next().await.expect("open").expect("well formed") {
        Message::Binary(data) => data,
        other => panic!("{other:?}"),
    };
    for channel in [0, 1] {
        let port = port.to_le_bytes();
        assert_eq!(next().await, Bytes::from(vec![channel, port[0], port[1]]));
    }
    socket
        .send(Message::Binary(Bytes::from_static(b"\0hello")))
        .await
        .expect("sent");
    let echoed = socket.next().await.expect("open").expect("well formed");
    assert_eq!(echoed, Message::Binary(Bytes::from_static(b"\0hello")));
    socket.close(None).await.expect("closed");
}
