//! How deep an object may nest. JSON readers stop at 128 levels, that of the store among them: what
//! is deeper could be written and never read again.

use serde_json::Value;

use super::error::ApiError;

/// Deepest object taken. The server adds up to five levels of its own (field ownership).
pub(crate) const DEEPEST: usize = 100;

/// Refuses what is deeper. Goes by a list of its own: recursion is what deep values exhaust.
///
/// # Errors
/// 400.
pub(crate) fn check(value: &Value) -> Result<(), ApiError> {
    check_at(value, 0)
}

/// The same for a value that is put `above` levels down.
///
/// # Errors
/// 400.
pub(crate) fn check_at(value: &Value, above: usize) -> Result<(), ApiError> {
    let mut left = vec![(value, above + 1)];
    while let Some((value, depth)) = left.pop() {
        let inner: &mut dyn Iterator<Item = &Value> = match value {
            Value::Array(list) => &mut list.iter(),
            Value::Object(map) => &mut map.values(),
            _ => continue,
        };
        if depth > DEEPEST {
            return Err(ApiError::bad_request(format!(
                "the object nests deeper than {DEEPEST} levels"
            )));
        }
        left.extend(inner.map(|value| (value, depth + 1)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_too_many_is_refused() {
        let nested = |levels: usize| {
            let text = "[".repeat(levels) + &"]".repeat(levels);
            serde_json::from_str(&text).expect("JSON")
        };
        assert!(check(&nested(DEEPEST)).is_ok());
        assert_eq!(check(&nested(DEEPEST + 1)).map_err(|e| e.code), Err(400));
        assert!(check_at(&nested(DEEPEST - 3), 3).is_ok());
        assert!(check_at(&nested(DEEPEST - 3), 4).is_err());
    }
}
