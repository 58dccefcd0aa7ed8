//! `TypedStruct`, which carries a message as JSON with the URL of its type. Two packages hold
//! the same shape: `udpa.type.v1` (Istio sends this one) and `xds.type.v3`.

use crate::Struct;

/// A `prost::Name` for a message of ours: package, then the name inside it.
macro_rules! named {
    ($type:ty, $package:literal, $name:literal) => {
        impl prost::Name for $type {
            const NAME: &'static str = $name;
            const PACKAGE: &'static str = $package;
            fn full_name() -> String {
                concat!($package, ".", $name).to_owned()
            }
            fn type_url() -> String {
                concat!("type.googleapis.com/", $package, ".", $name).to_owned()
            }
        }
    };
}
pub(crate) use named;

/// `udpa.type.v1.TypedStruct`.
pub mod udpa {
    use super::Struct;

    /// A message as JSON, with the URL of its type.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TypedStruct {
        /// Type URL of the message that `value` describes.
        #[prost(string, tag = "1")]
        pub type_url: String,
        /// The message's JSON form.
        #[prost(message, optional, tag = "2")]
        pub value: Option<Struct>,
    }
    named!(TypedStruct, "udpa.type.v1", "TypedStruct");
}

/// `xds.type.v3.TypedStruct`.
pub mod xds {
    use super::Struct;

    /// A message as JSON, with the URL of its type.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TypedStruct {
        /// Type URL of the message that `value` describes.
        #[prost(string, tag = "1")]
        pub type_url: String,
        /// The message's JSON form.
        #[prost(message, optional, tag = "2")]
        pub value: Option<Struct>,
    }
    named!(TypedStruct, "xds.type.v3", "TypedStruct");
}
