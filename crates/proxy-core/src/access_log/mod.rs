//! Access-log formats: parsed once into operators, rendered from a [`Record`] into a byte buffer.
//! The same templates write header values and local reply bodies.
mod arguments;
mod command;
mod filter;
mod istio;
mod parse;
mod render;
mod time;

pub use command::{
    AddressPart, Command, DurationUnit, Field, FieldValue, GrpcStatusForm, MetadataSource, Op,
    Record, TimePoint,
};
pub use filter::FilterInput;
pub use istio::{DEFAULT_JSON, DEFAULT_TEXT, ENVOY_DEFAULT_TEXT};
pub use parse::FormatError;
pub(crate) use render::write_json_string;
pub use render::write_value as write_json_value;
pub use time::{TimeFormat, write_date, write_iso8601_ms};

use crate::config::Name;

/// Text with operators.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Template {
    pub(crate) ops: Vec<Op>,
}

/// A line format.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Text; a missing value is `-`, or nothing with `omit_empty`.
    Text {
        /// What to write.
        template: Template,
        /// Missing values are left out.
        omit_empty: bool,
    },
    /// One JSON object and a line end; a missing value is `null`, or its key is left out.
    Json {
        /// What to write.
        root: JsonNode,
        /// Keys with missing values are left out.
        omit_empty: bool,
    },
}

/// A JSON format.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonNode {
    /// Keys in the order they are printed (sorted).
    Object(Vec<(Name, JsonNode)>),
    /// List.
    List(Vec<JsonNode>),
    /// A string with operators; a lone operator keeps its type.
    Template(Template),
    /// JSON text printed as it is: number, boolean, null.
    Literal(Name),
}

impl Format {
    /// A text format.
    ///
    /// # Errors
    /// When an operator is unknown or badly formed.
    pub fn text(format: &str, omit_empty: bool) -> Result<Self, FormatError> {
        Ok(Self::Text {
            template: Template::parse(format)?,
            omit_empty,
        })
    }
}

#[cfg(test)]
mod tests;
