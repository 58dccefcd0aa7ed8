//! Header compression (RFC 7541): a decoder with its dynamic table, and an
//! encoder that keeps none.

mod decode;
mod encode;
mod huffman;
mod integer;
mod table;

pub use decode::{Decoder, HpackError};
pub use encode::{begin_table, write_field, write_indexed, write_known, write_named};
pub use table::STATIC;

#[cfg(test)]
mod vectors;
