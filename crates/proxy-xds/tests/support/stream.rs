//! A gRPC stream as a management server holds it, over a loopback socket.

use bytes::{Bytes, BytesMut};
use lateen_xds_proto::{Any, Message, json};
use serde_json::Value;
use tokio::net::TcpListener;

use super::grpc::{frame, head, take};

/// One stream.
pub struct Stream {
    body: h2::RecvStream,
    send: h2::SendStream<Bytes>,
    buffer: BytesMut,
    /// The client's credentials, empty without any.
    pub authorization: String,
}

impl Stream {
    /// Waits for a stream to this method.
    pub async fn accept(listener: &TcpListener, path: &str) -> Self {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        assert_eq!(request.uri().path(), path);
        let authorization = request.headers().get("authorization");
        let authorization = authorization.map_or("", |v| v.to_str().unwrap()).to_owned();
        Self {
            send: respond.send_response(head(), false).unwrap(),
            body: request.into_body(),
            buffer: BytesMut::new(),
            authorization,
        }
    }

    /// The next message of the client.
    pub async fn next<M: Message + Default>(&mut self) -> M {
        loop {
            if let Some(message) = take(&mut self.buffer) {
                return M::decode(message).unwrap();
            }
            let data = self.body.data().await;
            let data = data.expect("the client ended the stream").unwrap();
            let flow = self.body.flow_control();
            flow.release_capacity(data.len()).unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Sends a message.
    pub fn send(&mut self, message: &impl Message) {
        self.send.send_data(frame(message), false).unwrap();
    }
}

/// A resource in JSON form as it travels.
pub fn any(message: &str, value: &Value) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{message}"),
        value: json::to_wire(message, value).unwrap(),
    }
}
