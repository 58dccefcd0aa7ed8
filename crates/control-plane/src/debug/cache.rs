//! `/debug/cachez`: what was generated and is kept for the next push or request, by type.

use serde_json::{Map, Value, json};

use crate::store::Store;

/// Names of kept resources by type URL.
pub fn names(store: &Store) -> Value {
    let mut out = Map::new();
    for (t, kept) in store.kept() {
        let mut names: Vec<String> = kept.iter().map(|r| r.name.clone()).collect();
        names.sort();
        out.insert(t.type_url().to_owned(), json!(names));
    }
    Value::Object(out)
}

/// Bytes of kept resources by type URL and in all, as Istio writes sizes. What several
/// proxies share counts once.
pub fn sizes(store: &Store) -> Value {
    let mut out = Map::new();
    let mut total = 0;
    for (t, kept) in store.kept() {
        let bytes: usize = kept.iter().map(|r| r.body.value.len()).sum();
        total += bytes;
        out.insert(t.type_url().to_owned(), json!(byte_count(bytes)));
    }
    out.insert("total".to_owned(), json!(byte_count(total)));
    Value::Object(out)
}

/// `999B`, `1.0kB`, `12.3MB`: powers of a thousand.
fn byte_count(bytes: usize) -> String {
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut units = "kMGTPE".chars();
    let mut unit = units.next().unwrap_or('k');
    for next in units {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1}{unit}B")
}

#[cfg(test)]
mod tests {
    use super::byte_count;

    #[test]
    fn sizes_read_as_istio_writes_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (12_345, "12.3kB"),
            (999_999, "1000.0kB"),
            (2_500_000, "2.5MB"),
        ] {
            assert_eq!(byte_count(bytes), text);
        }
    }
}
