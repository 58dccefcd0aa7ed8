//! Why a resource is refused: the field path and what is wrong there.
use std::fmt;

/// A refused message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DecodeError {
    /// Field path from the resource, such as `filter_chains[0].filters[1].typed_config`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.problem)
        } else {
            write!(f, "{}: {}", self.path, self.problem)
        }
    }
}

impl DecodeError {
    /// An error at the current place.
    pub fn new(problem: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            problem: problem.into(),
        }
    }

    /// The error seen from one level up.
    #[must_use]
    pub fn within(mut self, segment: &str) -> Self {
        self.path = match self.path.as_bytes().first() {
            None => segment.to_owned(),
            Some(b'[') => format!("{segment}{}", self.path),
            Some(_) => format!("{segment}.{}", self.path),
        };
        self
    }
}

/// Result of a decoding step.
pub type Result<T> = std::result::Result<T, DecodeError>;

/// Fails at the current place.
pub(crate) fn refuse<T>(problem: impl Into<String>) -> Result<T> {
    Err(DecodeError::new(problem))
}

/// Names the place an error comes from.
pub(crate) trait At<T> {
    /// A field.
    fn at(self, field: &str) -> Result<T>;
    /// An element of a list.
    fn item(self, field: &str, index: usize) -> Result<T>;
}

impl<T, E: Into<DecodeError>> At<T> for std::result::Result<T, E> {
    fn at(self, field: &str) -> Result<T> {
        self.map_err(|e| e.into().within(field))
    }

    fn item(self, field: &str, index: usize) -> Result<T> {
        self.map_err(|e| e.into().within(&format!("{field}[{index}]")))
    }
}

impl From<String> for DecodeError {
    fn from(problem: String) -> Self {
        Self::new(problem)
    }
}

impl From<lateen_proxy_core::matcher::RegexError> for DecodeError {
    fn from(error: lateen_proxy_core::matcher::RegexError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<lateen_proxy_core::access_log::FormatError> for DecodeError {
    fn from(error: lateen_proxy_core::access_log::FormatError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<lateen_xds_proto::any::UnpackError> for DecodeError {
    fn from(error: lateen_xds_proto::any::UnpackError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<lateen_xds_proto::json::JsonError> for DecodeError {
    fn from(error: lateen_xds_proto::json::JsonError) -> Self {
        Self {
            path: error.path,
            problem: error.problem.to_string(),
        }
    }
}

/// Refuses the first field of the list that is set: what the engine does not do is not accepted.
pub(crate) fn refuse_set(fields: &[(bool, &str)]) -> Result<()> {
    match fields.iter().find(|(set, _)| *set) {
        Some((_, field)) => refuse("is not implemented").at(field),
        None => Ok(()),
    }
}

/// Decodes every element of a list, naming the one that fails.
pub(crate) fn list<A, B>(items: &[A], field: &str, f: impl Fn(&A) -> Result<B>) -> Result<Vec<B>> {
    items
        .iter()
        .enumerate()
        .map(|(i, item)| f(item).item(field, i))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_grow_outwards() {
        let e = DecodeError::new("bad").within("port").within("address");
        assert_eq!(e.to_string(), "address.port: bad");
        let r: Result<Vec<()>> = list(
            &[1, 2],
            "x",
            |n| if *n == 2 { refuse("bad") } else { Ok(()) },
        );
        assert_eq!(r.unwrap_err().within("y").to_string(), "y.x[1]: bad");
    }
}
