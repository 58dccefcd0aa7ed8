//! Label and field selectors: parsing of their text forms and matching against objects.

use serde_json::Value;

use super::error::ApiError;

/// What a list or watch is narrowed to; the default selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// Label requirements, all of which must hold.
    pub label: Vec<LabelTerm>,
    /// Field requirements, all of which must hold.
    pub field: Vec<FieldTerm>,
}

/// One label requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTerm {
    /// Label key.
    pub key: String,
    /// Relation of the label's value to `values`.
    pub op: LabelOp,
    /// Values of `In`, `NotIn`, `Greater`, `Less`; empty for the others.
    pub values: Vec<String>,
}

/// Relation in a label requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOp {
    /// Present, with one of the values.
    In,
    /// Absent, or present with none of the values.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    Missing,
    /// Present and, as an integer, greater than the value.
    Greater,
    /// Present and, as an integer, less than the value.
    Less,
}

/// One field requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Field path such as `metadata.name`.
    pub path: String,
    /// Required (or, when `negated`, excluded) text of the field.
    pub value: String,
    /// `!=` instead of `=`.
    pub negated: bool,
}

impl Selectors {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Parses both texts; an empty text selects everything.
    ///
    /// # Errors
    /// 400 with the parser's complaint.
    pub fn parse(label: &str, field: &str) -> Result<Self, ApiError> {
        Ok(Self {
            label: parse_labels(label)?,
            field: parse_fields(field)?,
        })
    }

    /// Objects that carry all the given labels.
    #[must_use]
    pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let label = pairs
            .into_iter()
            .map(|(k, v)| LabelTerm {
                key: k.to_owned(),
                op: LabelOp::In,
                values: vec![v.to_owned()],
            })
            .collect();
        Self {
            label,
            field: Vec::new(),
        }
    }

    /// Objects whose field has the given text.
    #[must_use]
    pub fn field(path: &str, value: &str) -> Self {
        Self {
            label: Vec::new(),
            field: vec![FieldTerm {
                path: path.to_owned(),
                value: value.to_owned(),
                negated: false,
            }],
        }
    }

    /// Nothing is narrowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.label.is_empty() && self.field.is_empty()
    }

    /// Whether an object meets all requirements.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        matches_labels(&self.label, &object["metadata"]["labels"])
            && self.field.iter().all(|t| t.matches(object))
    }

    /// The name that the field terms pin, when they pin one.
    #[must_use]
    pub fn exact_name(&self) -> Option<&str> {
        self.field
            .iter()
            .find(|t| t.path == "metadata.name" && !t.negated)
            .map(|t| t.value.as_str())
    }
}

impl FieldTerm {
    fn matches(&self, object: &Value) -> bool {
        (field_text(object, &self.path) == self.value) != self.negated
    }
}

/// The text of a field as selectors compare it: absent is empty, `source` and
/// `reportingComponent` of Events fall back to each other as upstream does.
fn field_text(object: &Value, path: &str) -> String {
    if path == "source" {
        let s = text_at(object, "source.component");
        return if s.is_empty() {
            text_at(object, "reportingComponent")
        } else {
            s
        };
    }
    if let Some(rest) = path.strip_prefix("involvedObject.")
        && object.get("involvedObject").is_none()
    {
        return text_at(object, &format!("regarding.{rest}"));
    }
    let text = text_at(object, path);
    if text.is_empty() && path == "spec.unschedulable" {
        return "false".to_owned();
    }
    text
}

fn text_at(object: &Value, path: &str) -> String {
    let mut at = object;
    for part in path.split('.') {
        at = &at[part];
    }
    match at {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Array(_) | Value::Object(_) => String::new(),
    }
}

/// Whether a `metadata.labels` map (or null) meets all terms.
#[must_use]
pub fn matches_labels(terms: &[LabelTerm], labels: &Value) -> bool {
    terms.iter().all(|t| {
        let have = labels.get(&t.key).and_then(Value::as_str);
        let number = || {
            let have = have?.parse::<i64>().ok()?;
            let want = t.values.first()?.parse::<i64>().ok()?;
            Some((have, want))
        };
        match t.op {
            LabelOp::In => have.is_some_and(|h| t.values.iter().any(|v| v == h)),
            LabelOp::NotIn => !have.is_some_and(|h| t.values.iter().any(|v| v == h)),
            LabelOp::Exists => have.is_some(),
            LabelOp::Missing => have.is_none(),
            LabelOp::Greater => number().is_some_and(|(h, w)| h > w),
            LabelOp::Less => number().is_some_and(|(h, w)| h < w),
        }
    })
}

/// Terms of a `metav1.LabelSelector` object (`matchLabels`, `matchExpressions`); null selects
/// everything, an unknown operator nothing.
#[must_use]
pub fn from_label_selector(selector: &Value) -> Vec<LabelTerm> {
    let mut terms = Vec::new();
    if let Some(map) = selector["matchLabels"].as_object() {
        for (k, v) in map {
            terms.push(LabelTerm {
                key: k.clone(),
                op: LabelOp::In,
                values: vec![v.as_str().unwrap_or_default().to_owned()],
            });
        }
    }
    for e in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let values: Vec<String> = e["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect();
        let op = match e["operator"].as_str().unwrap_or_default() {
            "NotIn" => LabelOp::NotIn,
            "Exists" => LabelOp::Exists,
            "DoesNotExist" => LabelOp::Missing,
            // Validation refuses other words; `In` with its values is the narrowest reading.
            _ => LabelOp::In,
        };
        terms.push(LabelTerm {
            key: e["key"].as_str().unwrap_or_default().to_owned(),
            op,
            values,
        });
    }
    terms
}

/// The text form of a `metav1.LabelSelector`, as table columns and `scale` status show it.
#[must_use]
pub fn label_selector_text(selector: &Value) -> String {
    let mut parts = Vec::new();
    for t in from_label_selector(selector) {
        parts.push(match t.op {
            LabelOp::In if t.values.len() == 1 => format!("{}={}", t.key, t.values[0]),
            LabelOp::In => format!("{} in ({})", t.key, t.values.join(",")),
            LabelOp::NotIn => format!("{} notin ({})", t.key, t.values.join(",")),
            LabelOp::Exists => t.key,
            LabelOp::Missing => format!("!{}", t.key),
            LabelOp::Greater => format!("{}>{}", t.key, t.values.join("")),
            LabelOp::Less => format!("{}<{}", t.key, t.values.join("")),
        });
    }
    parts.sort();
    parts.join(",")
}

fn parse_fields(text: &str) -> Result<Vec<FieldTerm>, ApiError> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (path, value, negated) = if let Some((k, v)) = part.split_once("!=") {
            (k, v, true)
        } else if let Some((k, v)) = part.split_once("==") {
            (k, v, false)
        } else if let Some((k, v)) = part.split_once('=') {
            (k, v, false)
        } else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: '{part}'; can't understand '{part}'"
            )));
        };
        out.push(FieldTerm {
            path: path.trim().to_owned(),
            value: value.trim().replace("\\,", ",").replace("\\=", "="),
            negated,
        });
    }
    Ok(out)
}

/// Parses the text form of a label selector.
///
/// # Errors
/// 400 with the parser's complaint.
pub fn parse_labels(text: &str) -> Result<Vec<LabelTerm>, ApiError> {
    let mut out = Vec::new();
    for part in split_top_level(text) {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        out.push(parse_label_term(part)?);
    }
    Ok(out)
}

/// Splits at commas outside parentheses.
fn split_top_level(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0usize);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_label_term(part: &str) -> Result<LabelTerm, ApiError> {
    let term = |key: &str, op, values: Vec<String>| {
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) || key.contains(['(', ')']) {
            return Err(ApiError::bad_request(format!(
                "unable to parse requirement: found '{part}', expected: identifier"
            )));
        }
        if let Some(bad) = values.iter().find(|v| !is_label_value(v)) {
            return Err(ApiError::bad_request(format!(
                "unable to parse requirement: values[0][{key}]: Invalid value: {bad:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )));
        }
        Ok(LabelTerm {
            key: key.to_owned(),
            op,
            values,
        })
    };
    let one = |v: &str| vec![v.trim().to_owned()];
    if let Some(key) = part.strip_prefix('!') {
        return term(key, LabelOp::Missing, vec![]);
    }
    if let Some(open) = part.find('(') {
        let head = part[..open].trim();
        let Some(list) = part[open + 1..].trim_end().strip_suffix(')') else {
            return Err(ApiError::bad_request(
                "unable to parse requirement: found '', expected: ',' or ')'",
            ));
        };
        let values = list.split(',').map(|v| v.trim().to_owned()).collect();
        if let Some(key) = head.strip_suffix(" notin") {
            return term(key, LabelOp::NotIn, values);
        }
        if let Some(key) = head.strip_suffix(" in") {
            return term(key, LabelOp::In, values);
        }
        return Err(ApiError::bad_request(format!(
            "unable to parse requirement: found '{head}', expected: in, notin, =, ==, !=, gt, lt"
        )));
    }
    if let Some((k, v)) = part.split_once("!=") {
        return term(k, LabelOp::NotIn, one(v));
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return term(k, LabelOp::In, one(v));
    }
    if let Some((k, v)) = part.split_once('>') {
        return term(k, LabelOp::Greater, one(v));
    }
    if let Some((k, v)) = part.split_once('<') {
        return term(k, LabelOp::Less, one(v));
    }
    term(part, LabelOp::Exists, vec![])
}

fn is_label_value(v: &str) -> bool {
    let b = v.as_bytes();
    v.is_empty()
        || (v.len() <= 63
            && b[0].is_ascii_alphanumeric()
            && b[b.len() - 1].is_ascii_alphanumeric()
            && b.iter()
                .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(sel: &str, labels: &Value) -> bool {
        matches_labels(&parse_labels(sel).expect(sel), labels)
    }

    #[test]
    fn label_selectors_follow_the_rules() {
        let l = json!({"app": "web", "tier": "front", "n": "5"});
        for yes in [
            "",
            "app=web",
            "app==web,tier=front",
            "app in (web,db)",
            "x!=1",
            "x notin (a,b)",
            "!x",
            "app",
            "n>4",
            "n<6",
            "app in (web, db),!x",
        ] {
            assert!(matches(yes, &l), "{yes}");
        }
        for no in ["app=db", "app!=web", "!app", "x", "app notin (web)", "n>5"] {
            assert!(!matches(no, &l), "{no}");
        }
        let open = parse_labels("a in (b").expect_err("no end");
        assert_eq!(
            (open.code, open.message.as_str()),
            (
                400,
                "unable to parse requirement: found '', expected: ',' or ')'"
            )
        );
        assert!(parse_labels("a foo (b)").is_err());
        assert!(parse_labels("=b").is_err());
    }

    #[test]
    fn field_selectors_compare_text() {
        let o = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}});
        assert!(
            Selectors::parse("", "metadata.name=a,spec.nodeName!=n2")
                .expect("ok")
                .matches(&o)
        );
        assert!(
            Selectors::parse("", "status.phase!=Failed")
                .expect("ok")
                .matches(&o)
        );
        assert!(
            !Selectors::parse("", "metadata.name==b")
                .expect("ok")
                .matches(&o)
        );
        assert!(Selectors::parse("", "nonsense").is_err());
    }

    #[test]
    fn label_selector_objects_print() {
        let s = json!({"matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]}]});
        assert_eq!(label_selector_text(&s), "a=1,b=2,c in (x,y)");
    }
}
