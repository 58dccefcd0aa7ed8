//! JSON values as YAML text: block style, keys in their order, texts quoted where a reader
//! would take them for something else.

use serde_json::Value;

/// One document, without the leading `---`.
#[must_use]
pub fn print(value: &Value) -> String {
    let mut out = String::new();
    node(&mut out, value, 0, false);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Several documents, each after a line `---` but the first.
#[must_use]
pub fn print_all<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    let documents: Vec<String> = values.into_iter().map(print).collect();
    documents.join("---\n")
}

/// Writes a node. `inline` says that the line has its first characters (`- ` of a list).
fn node(out: &mut String, value: &Value, indent: usize, inline: bool) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (at, (key, inner)) in map.iter().enumerate() {
                if at > 0 || !inline {
                    pad(out, indent);
                }
                out.push_str(&scalar(key, indent));
                out.push(':');
                child(out, inner, indent, matches!(inner, Value::Array(_)));
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (at, inner) in list.iter().enumerate() {
                if at > 0 || !inline {
                    pad(out, indent);
                }
                out.push_str("- ");
                match inner {
                    Value::Object(map) if !map.is_empty() => node(out, inner, indent + 2, true),
                    Value::Array(list) if !list.is_empty() => node(out, inner, indent + 2, true),
                    _ => {
                        leaf(out, inner, indent + 2);
                        out.push('\n');
                    }
                }
            }
        }
        _ => {
            if !inline {
                pad(out, indent);
            }
            leaf(out, value, indent);
            out.push('\n');
        }
    }
}

/// The value of a key: on the same line if it is a leaf. A list stays at its key's indent.
fn child(out: &mut String, value: &Value, indent: usize, list: bool) {
    let block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if block {
        out.push('\n');
        node(out, value, if list { indent } else { indent + 2 }, false);
    } else {
        out.push(' ');
        leaf(out, value, indent + 2);
        out.push('\n');
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn leaf(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) => out.push_str(&scalar(text, indent)),
        // Empty containers, numbers, booleans and null read the same in YAML.
        other => out.push_str(&other.to_string()),
    }
}

/// A text: plain, quoted, or as a literal block where it has lines.
fn scalar(text: &str, indent: usize) -> String {
    if block_safe(text) {
        let keep = if text.ends_with('\n') { "" } else { "-" };
        let mut out = format!("|{keep}");
        let pad = " ".repeat(indent.max(2));
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            out.push('\n');
            if !line.is_empty() {
                out.push_str(&pad);
                out.push_str(line);
            }
        }
        return out;
    }
    if plain(text) {
        return text.to_owned();
    }
    // JSON's quoting is YAML's double quoting.
    Value::String(text.to_owned()).to_string()
}

/// Whether a literal block gives the text back as it is.
fn block_safe(text: &str) -> bool {
    let lines = text.trim_end_matches('\n');
    lines.contains('\n')
        && text.len() - lines.len() <= 1
        && !text.starts_with([' ', '\n'])
        && text
            .chars()
            .all(|c| c == '\n' || (c >= ' ' && c != '\u{7f}' && !c.is_control()))
}

/// Whether the text, unquoted, is read as this text by YAML 1.1 and 1.2 readers alike.
fn plain(text: &str) -> bool {
    const WORDS: [&str; 12] = [
        "true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ".nan", ".inf",
    ];
    let Some(first) = text.chars().next() else {
        return false;
    };
    // Dashes begin a list item or a document only before a space or at the end.
    let after = text.trim_start_matches('-').chars().next();
    let flag = text.len() > 1 && after.is_some_and(|c| c.is_ascii_alphabetic());
    let starts_plain = first.is_ascii_alphabetic()
        || matches!(first, '/' | '_' | '$' | '.')
        || (first == '-' && flag);
    let inner = |c: char| c.is_ascii_alphanumeric() || " /_-.$()+@=,:;<>^".contains(c);
    // Sixty-based numbers and dates start with a digit, so no text that does is left plain.
    starts_plain
        && text.chars().all(inner)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
        && text.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_printed_is_read_back() {
        let value = json!({
            "apiVersion": "v1", "on": "off", "empty": "", "n": 5, "f": 0.5, "t": true, "z": null,
            "list": [{"a": 1, "b": [1, [2, 3], []]}, "x", {}, {"c": {"d": {}}}, [["y"]]],
            "texts": ["a: b", "- x", "#c", "1", "1.5", "0x10", "1:30", "2024-01-01", "yes", "~", "null",
                "-", "-.inf", "-inf", "--", "---", "-x", "--x y", "a #b", "tail:", " lead", "trail ", "quote\"s", "it's", "*", "&a", "!t", "%p", "@x", "`y",
                "{a}", "[b]", "a\tb", "\u{e9}t\u{e9}", "x, y", "?", "|", ">", "=", "<<", ".5", "+1", "--log=a:b"],
            "script": "line one\n  two\n\nthree\n", "noend": "a\nb", "ends": "a\nb\n\n", "lead": " a\nb\n", "tab": "a\n\tb\n",
            "nested": {"deep": {"text": "x\ny\n", "list": ["p\nq\n"]}},
            "weird key: yes": 1, "true": 2, "": 3
        });
        let text = print(&value);
        let (documents, errors) = lateen_resources::yaml::documents(&text);
        assert!(errors.is_empty(), "{errors:?}\n{text}");
        assert_eq!(documents[0].value, value, "{text}");
        let several = print_all([&value, &json!({"a": "b"})]);
        assert_eq!(lateen_resources::yaml::documents(&several).0.len(), 2);
    }

    #[test]
    fn ordinary_texts_stay_plain() {
        let text = print(
            &json!({"kind": "List", "image": "docker.io/x/y:1.2", "args": ["--a=b", "$(POD).svc"]}),
        );
        assert_eq!(
            text,
            "kind: List\nimage: docker.io/x/y:1.2\nargs:\n- --a=b\n- $(POD).svc\n"
        );
    }
}
