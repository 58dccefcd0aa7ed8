//! Packing messages into `google.protobuf.Any` and taking them out again.

use prost::{DecodeError, Message, Name};

use crate::Any;
use crate::type_url::message_name;

/// Why a message did not come out of an `Any`.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The `Any` holds another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// The full name asked for.
        expected: String,
        /// The type URL that is there.
        found: String,
    },
    /// The bytes are not a message of that type.
    #[error("{type_url}: {source}")]
    Decode {
        /// The type URL of the value.
        type_url: String,
        /// What prost says.
        source: DecodeError,
    },
}

/// Packs a message with its own type URL.
#[must_use]
pub fn pack<T: Message + Name>(message: &T) -> Any {
    Any {
        type_url: T::type_url(),
        value: message.encode_to_vec(),
    }
}

/// Packs bytes that are already in wire form.
#[must_use]
pub fn pack_wire(full_name: &str, value: Vec<u8>) -> Any {
    Any {
        type_url: format!("{}{full_name}", crate::type_url::PREFIX),
        value,
    }
}

/// Whether the `Any` holds a `T`, whatever stands before the last `/` of its type URL.
#[must_use]
pub fn is<T: Name>(any: &Any) -> bool {
    message_name(&any.type_url) == T::full_name()
}

/// Takes a `T` out.
///
/// # Errors
/// The `Any` holds another type, or bytes that are no `T`.
pub fn unpack<T: Message + Name + Default>(any: &Any) -> Result<T, UnpackError> {
    if !is::<T>(any) {
        return Err(UnpackError::WrongType {
            expected: T::full_name(),
            found: any.type_url.clone(),
        });
    }
    T::decode(any.value.as_slice()).map_err(|source| UnpackError::Decode {
        type_url: any.type_url.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::envoy::config::listener::v3::Listener;

    #[test]
    fn a_message_comes_back_and_another_type_is_refused() {
        let cluster = Cluster {
            name: "c".into(),
            ..Default::default()
        };
        let any = pack(&cluster);
        assert_eq!(unpack::<Cluster>(&any).unwrap(), cluster);
        let error = unpack::<Listener>(&any).unwrap_err().to_string();
        assert!(error.contains("expected envoy.config.listener.v3.Listener"));
        let broken = pack_wire("envoy.config.cluster.v3.Cluster", vec![0x0a, 0xff]);
        assert!(matches!(
            unpack::<Cluster>(&broken),
            Err(UnpackError::Decode { .. })
        ));
    }
}
