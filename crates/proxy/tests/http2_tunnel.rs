//! Tunnels over HTTP/2: CONNECT and extended CONNECT (RFC 8441), to upstreams of
//! either version.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use lateen_proxy_core::config::cluster::UpstreamProtocol;
use lateen_proxy_core::config::http_connection_manager::{HttpConnectionManager, Upgrade};
use lateen_proxy_core::config::route::*;
use support::*;

fn to(cluster: &str) -> Arc<Route> {
    route("/", RouteAction::Forward(Arc::new(forward(cluster))))
}

/// Allows websocket everywhere and CONNECT, and offers extended CONNECT.
fn tunnels() -> HttpConnectionManager {
    let mut connects = Arc::unwrap_or_clone(to("c"));
    connects.matching.path = PathMatch::Connect;
    let mut manager = manager(vec![Arc::new(connects), to("c")]);
    manager.http2.allow_connect = true;
    manager.upgrades = ["connect", "websocket"]
        .map(|protocol| Upgrade {
            protocol: protocol.into(),
            enabled: true,
            connect_config: false,
        })
        .into();
    manager
}

/// An HTTP/1 upstream that answers one head with `answer` and then echoes, and
/// tells what it was asked.
fn echo(answer: &'static str) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let _ = tell.send(head(&mut stream));
                stream.write_all(answer.as_bytes()).unwrap();
                let mut chunk = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut chunk) {
                    stream.write_all(&chunk[..count]).unwrap();
                }
            });
        }
    });
    (address, told)
}

fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\n";

async fn client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    // The server's settings say whether it takes extended CONNECT.
    for _ in 0..500 {
        if send.is_extended_connect_protocol_enabled() {
            break;
        }
        send = send.ready().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    send
}

fn websocket() -> http::Request<()> {
    let mut request = http::Request::builder()
        .method("CONNECT")
        .uri("http://example/chat?x")
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let protocol = h2::ext::Protocol::from_static("websocket");
    request.extensions_mut().insert(protocol);
    request
}

/// Sends through the tunnel, reads the same back, ends it in order.
async fn talk(
    send: &mut h2::client::SendRequest<Bytes>,
    request: http::Request<()>,
) -> http::response::Parts {
    let (response, mut upward) = send.send_request(request, false).unwrap();
    // Sent before the answer: it waits for it.
    upward
        .send_data(Bytes::from_static(b"early "), false)
        .unwrap();
    let (parts, mut downward) = response.await.unwrap().into_parts();
    assert_eq!(parts.status, 200);
    upward.send_data(Bytes::from_static(b"late"), true).unwrap();
    let mut back = Vec::new();
    while let Some(data) = downward.data().await {
        back.extend_from_slice(&data.unwrap());
    }
    assert_eq!(back, b"early late");
    parts
}

#[test]
fn a_websocket_over_http2_is_an_upgrade_over_http1() {
    let (upstream, told) = echo(ACCEPTED);
    let (running, address) = http_proxy(tunnels(), vec![cluster("c", &[upstream])]);
    running.runtime.block_on(async {
        let mut send = client(address).await;
        let parts = talk(&mut send, websocket()).await;
        assert_eq!(parts.headers["x-a"], "1");
        assert!(!parts.headers.contains_key("upgrade"));
        assert!(!parts.headers.contains_key("connection"));
    });
    let asked = told.recv().unwrap();
    assert!(
        asked.starts_with("GET /chat?x HTTP/1.1\r\nhost: example\r\n"),
        "{asked}"
    );
    assert_eq!(header(&asked, "connection"), Some("upgrade"), "{asked}");
    assert_eq!(header(&asked, "upgrade"), Some("websocket"), "{asked}");
    assert_eq!(header(&asked, "transfer-encoding"), None, "{asked}");
}

#[test]
fn connect_over_http2_is_connect_over_http1() {
    let (upstream, told) = echo("HTTP/1.1 200 OK\r\n\r\n");
    let (running, address) = http_proxy(tunnels(), vec![cluster("c", &[upstream])]);
    running.runtime.block_on(async {
        let mut send = client(address).await;
        talk(&mut send, http::Request::connect("x:80").body(()).unwrap()).await;
    });
    let asked = told.recv().unwrap();
    assert!(
        asked.starts_with("CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n"),
        "{asked}"
    );
}

#[test]
fn a_refused_websocket_passes_its_status() {
    let (upstream, _told) = echo("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno");
    let (running, address) = http_proxy(tunnels(), vec![cluster("c", &[upstream])]);
    running.runtime.block_on(async {
        let mut send = client(address).await;
        let (response, _upward) = send.send_request(websocket(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 403);
    });
}

#[test]
fn tunnels_go_through_two_proxies_over_http2() {
    let (upstream, told) = echo(ACCEPTED);
    let (_behind, second) = http_proxy(tunnels(), vec![cluster("c", &[upstream])]);
    let mut between = cluster("c", &[second]);
    between.http.protocol = UpstreamProtocol::Http2;
    let (_running, address) = http_proxy(tunnels(), vec![between]);
    let mut stream = connect(address);
    let ask = "GET /chat HTTP/1.1\r\nHost: example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    stream.write_all(ask.as_bytes()).unwrap();
    let answer = head(&mut stream);
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    assert_eq!(header(&answer, "upgrade"), Some("websocket"), "{answer}");
    stream.write_all(b" late").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"early late", "{}", back.escape_ascii());
    let asked = told.recv().unwrap();
    assert!(asked.starts_with("GET /chat HTTP/1.1\r\n"), "{asked}");
}
