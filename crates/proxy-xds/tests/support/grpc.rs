//! The frame of gRPC over HTTP/2, seen from a server.

use bytes::{Buf, Bytes, BytesMut};
use lateen_xds_proto::Message;

/// The head of an answer.
pub fn head() -> http::Response<()> {
    let head = http::Response::builder().header("content-type", "application/grpc");
    head.body(()).unwrap()
}

/// Takes a whole message out of what has come.
pub fn take(buffer: &mut BytesMut) -> Option<BytesMut> {
    let length = buffer.get(1..5)?;
    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
    (buffer.len() >= 5 + length).then(|| {
        buffer.advance(5);
        buffer.split_to(length)
    })
}

/// A message with its prefix (gRPC over HTTP/2, "Length-Prefixed-Message").
pub fn frame(message: &impl Message) -> Bytes {
    let mut frame = vec![0];
    let length = u32::try_from(message.encoded_len()).unwrap();
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    frame.into()
}
