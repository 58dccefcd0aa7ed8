//! A server whose behaviour changes: HTTP/1, HTTP/2, gRPC health, or bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// HTTP/1 answers with this status.
    Answer(u16),
    /// As 200, naming its service.
    Named(&'static str),
    /// As 200, saying that it is degraded.
    Degraded,
    /// As 200; to traffic it says that its check is to fail at once.
    FailAtOnce,
    /// Reads and never answers.
    Nothing,
    /// Ends connections at their begin.
    Close,
    /// Does not listen.
    Gone,
    /// Sends back what comes.
    Echo,
    /// HTTP/2 answers with this status.
    Http2(u16),
    /// grpc.health.v1 with this status; none = not implemented.
    Grpc(Option<u8>),
}

#[derive(Default)]
struct Shared {
    does: Option<Does>,
    checks: Vec<Vec<String>>,
}

/// A running server; its drop ends it.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(address: SocketAddr, does: Does) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            does: Some(does),
            checks: Vec::new(),
        }));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let of = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(async {
                tokio::spawn(accept(address, of, ready));
                let _ = stopped.await;
            });
        });
        is_ready.recv().unwrap();
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Behaves so from now on; connections of before end.
    pub fn does(&self, what: Does) {
        self.shared.lock().unwrap().does = Some(what);
    }

    /// The checks that came, line by line.
    pub fn checks(&self) -> Vec<Vec<String>> {
        self.shared.lock().unwrap().checks.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn now(shared: &Mutex<Shared>) -> Does {
    shared.lock().unwrap().does.unwrap()
}

async fn accept(
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    ready: std::sync::mpsc::Sender<()>,
) {
    let pause = || tokio::time::sleep(Duration::from_millis(10));
    loop {
        while now(&shared) == Does::Gone {
            pause().await;
        }
        let listener = TcpListener::bind(address).await.unwrap();
        let _ = ready.send(());
        while now(&shared) != Does::Gone {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    tokio::spawn(serve(stream, address, shared.clone()));
                }
                () = pause() => {}
            }
        }
    }
}

/// Serves until the server is to behave otherwise.
async fn serve(stream: TcpStream, address: SocketAddr, shared: Arc<Mutex<Shared>>) {
    let does = now(&shared);
    let served = async {
        match does {
            Does::Close | Does::Gone => {}
            Does::Http2(_) | Does::Grpc(_) => http2(stream, does, &shared).await,
            Does::Echo => echo(stream, &shared).await,
            _ => http1(stream, does, address, &shared).await,
        }
    };
    tokio::select! {
        () = served => {}
        () = async {
            while now(&shared) == does {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } => {}
    }
}

async fn echo(mut stream: TcpStream, shared: &Mutex<Shared>) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        let seen = bytes[..count].escape_ascii().to_string();
        shared.lock().unwrap().checks.push(vec![seen]);
        if stream.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

async fn http1(mut stream: TcpStream, does: Does, address: SocketAddr, shared: &Mutex<Shared>) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
        while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end + 4);
            let check = head.contains("Envoy/HC");
            if check {
                let lines = head.lines().map(str::to_owned).collect();
                shared.lock().unwrap().checks.push(lines);
            }
            let (status, extra) = match does {
                Does::Answer(status) => (status, ""),
                Does::Named(name) => (
                    200,
                    &*format!("x-envoy-upstream-healthchecked-cluster: {name}\r\n"),
                ),
                Does::Degraded => (200, "x-envoy-degraded: true\r\n"),
                Does::FailAtOnce if !check => {
                    (200, "x-envoy-immediate-health-check-fail: true\r\n")
                }
                Does::FailAtOnce => (200, ""),
                _ => continue,
            };
            let body = if head.starts_with("HEAD") { "" } else { "ok" };
            let answer = format!(
                "HTTP/1.1 {status} S\r\ncontent-length: 2\r\nx-host: {address}\r\n{extra}\r\n{body}"
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn http2(stream: TcpStream, does: Does, shared: &Mutex<Shared>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (parts, mut body) = request.into_parts();
        let mut lines = vec![format!("{} {}", parts.method, parts.uri)];
        for (name, value) in &parts.headers {
            lines.push(format!("{name}: {}", value.to_str().unwrap()));
        }
        lines.sort();
        let shared_checks = |lines| shared.lock().unwrap().checks.push(lines);
        match does {
            Does::Http2(status) => {
                shared_checks(lines);
                let answer = http::Response::builder().status(status).body(()).unwrap();
                let _ = respond.send_response(answer, true);
            }
            Does::Grpc(status) => {
                // The message is there with the request, or right behind it.
                let mut message = Vec::new();
                let read = async {
                    while let Some(Ok(data)) = body.data().await {
                        message.extend_from_slice(&data);
                    }
                };
                tokio::select! { () = read => {}, _ = connection.accept() => {} }
                lines.push(message.escape_ascii().to_string());
                shared_checks(lines);
                grpc(&mut respond, status);
            }
            _ => return,
        }
    }
}

fn grpc(respond: &mut h2::server::SendResponse<Bytes>, status: Option<u8>) {
    let builder = http::Response::builder().header("content-type", "application/grpc");
    let Some(status) = status else {
        let answer = builder.header("grpc-status", "12").body(()).unwrap();
        let _ = respond.send_response(answer, true);
        return;
    };
    let Ok(mut stream) = respond.send_response(builder.body(()).unwrap(), false) else {
        return;
    };
    let _ = stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}
