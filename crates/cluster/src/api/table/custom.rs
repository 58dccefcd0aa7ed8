//! Tables of custom resources: the columns their definition names.

use jsonpath_rust::JsonPath;
use serde_json::Value;

use super::{Column, Printer, age, column, name, since};
use crate::api::kinds::Target;

/// A column with the path that fills it.
struct Source {
    path: String,
    kind: String,
}

pub(super) fn printer(target: &Target) -> Printer {
    let given = target
        .kind
        .version(&target.version)
        .and_then(|v| v.custom.as_ref())
        .map_or(&[][..], |c| c.columns.as_slice());
    let mut columns = vec![column("Name")];
    if given.is_empty() {
        columns.push(column("Age"));
        return Printer {
            columns,
            cells: Box::new(|o| vec![name(o), age(o)]),
        };
    }
    let mut sources = Vec::new();
    for c in given {
        let text = |f: &str| c[f].as_str().unwrap_or_default().to_owned();
        columns.push(Column {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: c["priority"].as_i64().unwrap_or(0),
        });
        sources.push(Source {
            path: format!("${}", text("jsonPath").trim_start_matches('$')),
            kind: text("type"),
        });
    }
    Printer {
        columns,
        cells: Box::new(move |o| {
            let mut cells = vec![name(o)];
            cells.extend(sources.iter().map(|s| cell(o, s)));
            cells
        }),
    }
}

fn cell(o: &Value, source: &Source) -> Value {
    // A path the library does not understand leaves the cell empty, as one that finds nothing.
    let found = o.query(&source.path).unwrap_or_default();
    let Some(first) = found.first() else {
        return match source.kind.as_str() {
            "date" => "<unknown>".into(),
            "string" => "".into(),
            _ => Value::Null,
        };
    };
    match source.kind.as_str() {
        "date" => since(first.as_str().unwrap_or_default()).into(),
        "string" => match first {
            Value::String(s) => s.as_str().into(),
            _ if found.len() == 1 => first.to_string().into(),
            _ => Value::Array(found.into_iter().cloned().collect())
                .to_string()
                .into(),
        },
        _ => (*first).clone(),
    }
}
