//! HTTP/2 on either side and both, with gRPC's trailers and flow control.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use lateen_proxy_core::config::cluster::UpstreamProtocol;
use lateen_proxy_core::config::route::*;
use support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Up: 1\r\n\r\nhello";

fn everything_to(cluster: &str) -> Vec<Arc<Route>> {
    vec![route("/", RouteAction::Forward(Arc::new(forward(cluster))))]
}

/// An HTTP/2 upstream that echoes bodies and ends with trailers.
fn echo_upstream() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let socket = tokio::net::TcpListener::from_std(socket).unwrap();
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(echo(request, respond));
                    }
                });
            }
        });
    });
    address
}

async fn echo(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let path = request.uri().path().to_owned();
    if path == "/refuse" {
        return respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    let response = http::Response::builder()
        .header("content-type", "application/grpc")
        .header("x-path", path)
        .body(())
        .unwrap();
    let mut send = respond.send_response(response, false).unwrap();
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        let _ = body.flow_control().release_capacity(data.len());
        send.reserve_capacity(data.len());
        let mut data = data;
        while !data.is_empty() {
            let room = std::future::poll_fn(|cx| send.poll_capacity(cx))
                .await
                .unwrap()
                .unwrap();
            let piece = data.split_to(room.min(data.len()));
            send.send_data(piece, false).unwrap();
        }
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Vec<u8>,
    trailers: Option<http::HeaderMap>,
}

async fn ask_h2(
    address: SocketAddr,
    requests: Vec<(http::Request<()>, Vec<u8>)>,
) -> Vec<Result<Answer, h2::Error>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    let mut tasks = Vec::new();
    for (request, body) in requests {
        send = send.ready().await.unwrap();
        let (response, mut upload) = send.send_request(request, body.is_empty()).unwrap();
        tasks.push(tokio::spawn(async move {
            if !body.is_empty() {
                let mut data = Bytes::from(body);
                while !data.is_empty() {
                    upload.reserve_capacity(data.len());
                    let room = std::future::poll_fn(|cx| upload.poll_capacity(cx))
                        .await
                        .unwrap()?;
                    let piece = data.split_to(room.min(data.len()));
                    upload.send_data(piece, data.is_empty())?;
                }
            }
            let (parts, mut download) = response.await?.into_parts();
            let mut body = Vec::new();
            while let Some(data) = download.data().await {
                let data = data?;
                let _ = download.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            Ok(Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
                trailers: download.trailers().await?,
            })
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

fn request(method: &str, path: &str) -> http::Request<()> {
    http::Request::builder()
        .method(method)
        .uri(format!("http://example{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

#[test]
fn streams_of_one_connection_go_to_http1() {
    let upstream = Upstream::new(&[OK]);
    let (running, address) = http_proxy(
        manager(everything_to("c")),
        vec![cluster("c", &[upstream.address])],
    );
    let asks = (0..20)
        .map(|_| (request("POST", "/a?b"), b"abc".to_vec()))
        .collect();
    for answer in running.runtime.block_on(ask_h2(address, asks)) {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, b"hello");
        assert_eq!(answer.headers["x-up"], "1");
        assert_eq!(answer.headers["server"], "envoy");
    }
    let seen = upstream.requests();
    assert_eq!(seen.len(), 20);
    assert!(
        seen[0].starts_with("POST /a?b HTTP/1.1\r\nhost: example\r\n"),
        "{}",
        seen[0]
    );
    assert_eq!(header(&seen[0], "transfer-encoding"), Some("chunked"));
    assert!(seen[0].contains("abc"));
}

#[test]
fn http1_goes_to_http2() {
    let mut to = cluster("c", &[echo_upstream()]);
    to.http.protocol = UpstreamProtocol::Http2;
    let (_running, address) = http_proxy(manager(everything_to("c")), vec![to]);
    let answer = ask(
        address,
        "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(header(&answer, "x-path"), Some("/x"));
    assert!(answer.contains("4\r\nbody\r\n"), "{answer}");
}

#[test]
fn grpc_both_ways_with_trailers_and_large_messages() {
    let mut to = cluster("c", &[echo_upstream()]);
    to.http.protocol = UpstreamProtocol::Http2;
    let (running, address) = http_proxy(manager(everything_to("c")), vec![to]);
    let large = vec![7_u8; 2 << 20];
    let asks = vec![
        (request("POST", "/s/m"), large.clone()),
        (request("POST", "/s/n"), b"small".to_vec()),
        (request("POST", "/s/o"), large.clone()),
    ];
    let answers = running.runtime.block_on(ask_h2(address, asks));
    let sizes: Vec<_> = answers
        .into_iter()
        .map(|answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
            answer.body.len()
        })
        .collect();
    assert_eq!(sizes, [large.len(), 5, large.len()]);
}

#[test]
fn a_refused_stream_is_a_reset_of_the_upstream() {
    let mut to = cluster("c", &[echo_upstream()]);
    to.http.protocol = UpstreamProtocol::Http2;
    let (running, address) = http_proxy(manager(everything_to("c")), vec![to]);
    let plain = http::Request::get("http://example/refuse")
        .body(())
        .unwrap();
    let answers = running
        .runtime
        .block_on(ask_h2(address, vec![(plain, vec![])]));
    let answer = answers.into_iter().next().unwrap().unwrap();
    assert_eq!(answer.status, 503);
    let text = String::from_utf8(answer.body).unwrap();
    assert!(
        text.ends_with("reset reason: remote refused stream reset"),
        "{text}"
    );
}

#[test]
fn a_local_reply_to_grpc_is_headers_only() {
    let (running, address) = http_proxy(manager(vec![]), vec![]);
    let asks = vec![(request("POST", "/s/m"), vec![])];
    let answer = running
        .runtime
        .block_on(ask_h2(address, asks))
        .into_iter()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["grpc-status"], "12");
    assert!(answer.body.is_empty());
}

#[test]
fn requests_that_two_readers_could_take_differently_are_refused() {
    let upstream = Upstream::new(&[OK]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let (running, address) = http_proxy(manager(everything_to("c")), clusters);
    let post = || http::Request::post("http://x/a");
    for (what, request) in [
        (
            "two lengths",
            post()
                .header("content-length", "2")
                .header("content-length", "2"),
        ),
        ("two hosts", post().header("host", "a").header("host", "b")),
        ("user in host", post().header("host", "u@a")),
        ("user in authority", http::Request::post("http://u@x/a")),
    ] {
        let request = request.body(()).unwrap();
        let asks = ask_h2(address, vec![(request, b"ab".to_vec())]);
        let answers = running.runtime.block_on(asks);
        let error = answers.into_iter().next().unwrap().err();
        let reason = error.and_then(|e| e.reason());
        assert_eq!(reason, Some(h2::Reason::PROTOCOL_ERROR), "{what}");
    }
    assert_eq!(upstream.requests().len(), 0, "{:?}", upstream.requests());
}

#[test]
fn connect_over_http2_is_no_business_of_an_ordinary_route() {
    let upstream = Upstream::new(&[OK]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let (running, address) = http_proxy(manager(everything_to("c")), clusters);
    let request = http::Request::connect("x:80").body(()).unwrap();
    let asks = ask_h2(address, vec![(request, vec![])]);
    let answers = running.runtime.block_on(asks);
    let answer = answers.into_iter().next().unwrap().unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn what_came_of_a_broken_answer_reaches_an_http2_client() {
    let half = "!closeHTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let upstream = Upstream::new(&[half]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let (running, address) = http_proxy(manager(everything_to("c")), clusters);
    running.runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move { connection.await.ok() });
        for _ in 0..20 {
            let mut send = send.clone().ready().await.unwrap();
            let (response, _) = send.send_request(request("GET", "/"), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            let first = body.data().await.unwrap().unwrap();
            assert_eq!(&first[..], b"half");
            let error = body.data().await.unwrap().unwrap_err();
            assert!(error.is_reset(), "{error}");
        }
    });
}
