//! Reading and writing `metadata`, times, ids and random name endings.

use serde_json::{Map, Value};

/// Alphabet of generated name endings: no vowels and no look-alikes.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A string below `metadata`; empty when absent.
#[must_use]
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.resourceVersion` as the store's number; 0 when absent or foreign.
#[must_use]
pub fn version(object: &Value) -> u64 {
    text(object, "resourceVersion").parse().unwrap_or(0)
}

/// `metadata.annotations[key]`.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(key)?.as_str()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Whether the object is being deleted.
#[must_use]
pub fn deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// `metadata`, made when missing. The object is made a map when it is none.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, "metadata")
}

/// The map under `field`, made when missing or of another type.
pub fn map_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let slot = map_mut_of(object).entry(field).or_insert(Value::Null);
    map_mut_of(slot)
}

/// The map that `value` is; made one when it is something else.
pub fn map_mut_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(m) => m,
        _ => unreachable!("the value was made a map"),
    }
}

/// Removes a field of a map; nothing when the value is no map.
pub fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.shift_remove(field)
}

/// Now as an RFC 3339 text in whole seconds, the form of `Time`.
#[must_use]
pub fn now_text() -> String {
    time_text(jiff::Timestamp::now().as_second())
}

/// A time in seconds since 1970 as RFC 3339.
#[must_use]
pub fn time_text(unix: i64) -> String {
    jiff::Timestamp::from_second(unix)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// Now with six digits of fraction, the form of `MicroTime`.
#[must_use]
pub fn now_micro_text() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        .to_string()
}

/// Now, in seconds since 1970.
#[must_use]
pub fn now_unix() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Parses an RFC 3339 time to seconds since 1970.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

/// A new random UUID (version 4) in text form.
#[must_use]
pub fn new_uid() -> String {
    let mut b = fastrand::u128(..).to_be_bytes();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|x| format!("{x:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// `n` random characters for a generated name.
#[must_use]
pub fn random_ending(n: usize) -> String {
    (0..n)
        .map(|_| char::from(NAME_ALPHABET[fastrand::usize(..NAME_ALPHABET.len())]))
        .collect()
}

/// A name from `generateName`: the base cut to 58 characters, and five random ones.
#[must_use]
pub fn generated_name(base: &str) -> String {
    let cut: String = base.chars().take(58).collect();
    format!("{cut}{}", random_ending(5))
}

/// Splits `group/version`; the core group has no slash.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Joins group and version.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_and_names_have_their_forms() {
        let uid = new_uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert_ne!(uid, new_uid());
        let long = "a".repeat(70);
        assert_eq!(generated_name(&long).len(), 63);
        assert!(generated_name("web-").starts_with("web-"));
    }

    #[test]
    fn times_print_in_seconds_and_micros() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(parse_time("1970-01-01T00:01:00Z"), Some(60));
        let micro = now_micro_text();
        assert_eq!(micro.len(), "2026-01-01T00:00:00.000000Z".len());
        assert!(micro.parse::<jiff::Timestamp>().is_ok());
    }
}
