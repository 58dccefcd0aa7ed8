//! Objects in files: reading multi-document YAML into plain values, and naming them.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::exit::{BAD_INPUT, FAILED, Failure};

/// Reads a file, or standard input for `-`.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|found| text = found)
    };
    read.map_err(|error| Failure::new(FAILED, format!("reading {}: {error}", path.display())))?;
    Ok(text)
}

/// The YAML documents of a text, empty ones left out; `file` is for the message.
pub fn documents(text: &str, file: &Path) -> anyhow::Result<Vec<Value>> {
    let bad = |error: &dyn std::fmt::Display| {
        Failure::new(BAD_INPUT, format!("{}: {error}", file.display()))
    };
    let found: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| bad(&error))?;
    let mut out = Vec::new();
    for document in found {
        match document {
            Value::Null => {}
            Value::Object(ref fields) if fields.get("kind").is_some_and(|k| k == "List") => {
                let items = document.get("items").and_then(Value::as_array).cloned();
                out.extend(items.unwrap_or_default());
            }
            Value::Object(_) => out.push(document),
            other => {
                let what = format!("a document is {other}, not an object with apiVersion and kind");
                return Err(bad(&what).into());
            }
        }
    }
    Ok(out)
}

/// `Kind namespace/name` as messages say it.
pub fn name(object: &Value, namespace: &str) -> String {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let own = text("/metadata/namespace");
    let namespace = if own.is_empty() { namespace } else { own };
    format!("{} {namespace}/{}", text("/kind"), text("/metadata/name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_flattened() {
        let text = "---\nkind: A\nmetadata: {name: x}\n---\n---\nkind: List\nitems: [{kind: B}]\n";
        let all = documents(text, Path::new("f")).expect("documents");
        assert_eq!(all.len(), 2);
        assert_eq!(name(&all[0], "default"), "A default/x");
        assert!(documents("- 1\n", Path::new("f")).is_err());
    }
}
