//! Envoy, xDS and Istio wire types and type URLs, JSON form included.
//!
//! Envoy's and xDS's own messages come from `envoy-types` and are re-exported under their
//! package names ([`envoy`], [`google`], [`xds`], ...). The messages it lacks are written here
//! by hand ([`typed_struct`], [`istio`]). [`json`] translates between the wire form and
//! protobuf's JSON form without reflection.

pub mod any;
pub mod istio;
pub mod json;
pub mod type_url;
pub mod typed_struct;

pub use envoy_types::pb::{cel, envoy, google, io as prometheus, udpa, xds};
pub use google::protobuf::{
    Any, BoolValue, BytesValue, DoubleValue, Duration, Empty, FloatValue, Int32Value, Int64Value,
    ListValue, NullValue, StringValue, Struct, Timestamp, UInt32Value, UInt64Value, Value,
};
pub use prost::{Message, Name};
