//! gRPC probes: one `grpc.health.v1.Health/Check` call over plain HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// `HealthCheckResponse.status` of a server that serves.
const SERVING: u64 = 1;

/// The request message: field 1 is the service's name.
fn message(service: &str) -> Result<Bytes, String> {
    let mut body = Vec::new();
    if !service.is_empty() {
        let length = u8::try_from(service.len()).ok().filter(|n| *n < 128);
        body.extend([0x0a, length.ok_or("the probe's service name is too long")?]);
        body.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(body.len()).map_err(|e| e.to_string())?;
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(body);
    Ok(frame.into())
}

/// The status in a response frame; `None` when it is malformed. An empty message is status 0.
fn status(frame: &[u8]) -> Option<u64> {
    let body = frame.get(5..)?;
    match body {
        [] => Some(0),
        [0x08, value] => Some(u64::from(*value)),
        _ => None,
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status")?.to_str().ok()
}

/// Asks the server whether it serves.
///
/// # Errors
/// The text of the failure.
pub(super) async fn check(address: SocketAddr, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!(
            "timeout: failed to connect service {:?}: {error}",
            address.to_string()
        )
    };
    let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(message(service)?))
        .map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let headers = response.headers().clone();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| e.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let code = grpc_status(&trailers)
            .or_else(|| grpc_status(&headers))
            .unwrap_or("2");
        if code != "0" {
            return Err(format!(
                "error: health rpc failed: rpc error: code = {code}"
            ));
        }
        match status(&body.to_bytes()) {
            Some(SERVING) => Ok(()),
            Some(other) => Err(format!("service unhealthy (responded with {other})")),
            None => Err("error: health rpc failed: malformed response".to_owned()),
        }
    }
    .await;
    connection.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    async fn answer(
        request: Request<Incoming>,
        value: u8,
    ) -> Result<
        Response<
            StreamBody<
                futures_util::stream::Iter<
                    std::vec::IntoIter<Result<Frame<Bytes>, std::io::Error>>,
                >,
            >,
        >,
        String,
    > {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request
            .into_body()
            .collect()
            .await
            .map_err(|e| e.to_string())?
            .to_bytes();
        assert_eq!(&asked[..], b"\0\0\0\0\x04\x0a\x02ab");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = vec![
            Ok(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, value]))),
            Ok(Frame::trailers(trailers)),
        ];
        Ok(Response::new(StreamBody::new(futures_util::stream::iter(
            frames,
        ))))
    }

    #[tokio::test]
    async fn only_serving_passes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for value in [1, 2] {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(move |request| answer(request, value));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            }
        });
        assert_eq!(check(address, "ab").await, Ok(()));
        let unhealthy = check(address, "ab").await;
        assert_eq!(
            unhealthy,
            Err("service unhealthy (responded with 2)".to_owned())
        );
        let refused = check(([127, 0, 0, 1], 1).into(), "").await.unwrap_err();
        assert!(refused.contains("failed to connect service"), "{refused}");
    }

    #[test]
    fn messages() {
        assert_eq!(&message("").unwrap()[..], [0; 5]);
        assert!(message(&"x".repeat(200)).is_err());
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[1]), None);
    }
}
