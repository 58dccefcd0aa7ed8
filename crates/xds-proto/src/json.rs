//! Protobuf's JSON form.
