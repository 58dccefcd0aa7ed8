//! YAML documents to JSON values with the position of every field.
//!
//! Scalars follow Kubernetes' reading of YAML: plain `true`/`yes`-like words of
//! YAML 1.1 become booleans as kubectl makes them; quoted ones stay text.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;

/// A place in a file; line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// Positions by field path (`spec.http[0].match`), the whole document under "".
#[derive(Debug, Clone, Default)]
pub struct Positions(HashMap<String, Position>);

impl Positions {
    /// The position of a field, or of its nearest ancestor that is in the text.
    pub fn find(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(p) = self.0.get(path) {
                return Some(*p);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// One document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its content.
    pub value: Value,
    /// Where its fields are.
    pub positions: Positions,
}

/// A document that is no YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {message}", .position.line, .position.column)]
pub struct YamlError {
    /// Where.
    pub position: Position,
    /// Why.
    pub message: String,
}

/// Most nodes that aliases may expand to in one document.
const MAX_ALIAS_NODES: usize = 100_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 200;

/// Appends a field to a path, in brackets when it is no plain word.
pub fn child(path: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '$');
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key}]"),
    }
}

/// Reads every document. A broken document is reported and reading goes on at
/// the next `---`. Empty documents are left out.
pub fn documents(text: &str) -> (Vec<Document>, Vec<YamlError>) {
    let mut parser = Parser::new_from_str(text);
    let (mut docs, mut errors) = (Vec::new(), Vec::new());
    loop {
        match Reader::new(&mut parser).document() {
            Ok(Some(doc)) => {
                if !doc.value.is_null() {
                    docs.push(doc);
                }
            }
            Ok(None) => return (docs, errors),
            Err(e) => {
                errors.push(e);
                match parser.proceed_next_document() {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return (docs, errors),
                }
            }
        }
    }
}

type Events<'p, 'i> = &'p mut dyn Iterator<Item = Result<(Event<'i>, Span), ScanError>>;

struct Reader<'p, 'i> {
    events: Events<'p, 'i>,
    anchors: HashMap<usize, Value>,
    positions: HashMap<String, Position>,
    expanded: usize,
}

fn position(span: &Span) -> Position {
    Position {
        line: span.start.line() as u32,
        column: span.start.col() as u32 + 1,
    }
}

fn fail<T>(position: Position, message: impl Into<String>) -> Result<T, YamlError> {
    Err(YamlError {
        position,
        message: message.into(),
    })
}

impl<'p, 'i> Reader<'p, 'i> {
    fn new(events: Events<'p, 'i>) -> Self {
        Self {
            events,
            anchors: HashMap::new(),
            positions: HashMap::new(),
            expanded: 0,
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'i>, Span)>, YamlError> {
        loop {
            match self.events.next() {
                None => return Ok(None),
                Some(Err(e)) => {
                    let m = e.marker();
                    let position = Position {
                        line: m.line() as u32,
                        column: m.col() as u32 + 1,
                    };
                    return fail(position, e.info());
                }
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
            }
        }
    }

    fn document(mut self) -> Result<Option<Document>, YamlError> {
        loop {
            match self.next()? {
                None | Some((Event::StreamEnd, _)) => return Ok(None),
                Some((Event::StreamStart | Event::DocumentEnd, _)) => {}
                Some((Event::DocumentStart(..), _)) => break,
                Some((_, span)) => return fail(position(&span), "content outside a document"),
            }
        }
        let Some((event, span)) = self.next()? else {
            return Ok(None);
        };
        if matches!(event, Event::DocumentEnd) {
            return Ok(Some(Document {
                value: Value::Null,
                positions: Positions::default(),
            }));
        }
        let value = self.node(event, span, String::new(), 0)?;
        match self.next()? {
            None | Some((Event::DocumentEnd, _)) => {}
            Some((_, span)) => return fail(position(&span), "more than one value in a document"),
        }
        Ok(Some(Document {
            value,
            positions: Positions(self.positions),
        }))
    }

    fn node(
        &mut self,
        event: Event<'i>,
        span: Span,
        path: String,
        depth: usize,
    ) -> Result<Value, YamlError> {
        let at = position(&span);
        if depth > MAX_DEPTH {
            return fail(at, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        // A mapping entry has its key's position already: keep that one.
        self.positions.entry(path.clone()).or_insert(at);
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|t| t.suffix() == "str");
                (anchor, scalar(text.into_owned(), style, is_text))
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.sequence(&path, depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping(&path, depth)?),
            Event::Alias(id) => {
                let Some(value) = self.anchors.get(&id).cloned() else {
                    return fail(at, "alias inside its own anchor");
                };
                self.expanded += count(&value);
                if self.expanded > MAX_ALIAS_NODES {
                    return fail(at, "aliases expand to too much");
                }
                (0, value)
            }
            _ => return fail(at, "unexpected end of a value"),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn sequence(&mut self, path: &str, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            let Some((event, span)) = self.next()? else {
                return fail(Position::default(), "unexpected end of input");
            };
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            let path = format!("{path}[{}]", items.len());
            items.push(self.node(event, span, path, depth + 1)?);
        }
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Value, YamlError> {
        let mut map = Map::new();
        let mut merges: Vec<Value> = Vec::new();
        loop {
            let Some((event, span)) = self.next()? else {
                return fail(Position::default(), "unexpected end of input");
            };
            let at = position(&span);
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return fail(at, "a key must be plain text"),
            };
            let Some((event, span)) = self.next()? else {
                return fail(at, "unexpected end of input");
            };
            if key == "<<" {
                merges.push(self.node(event, span, format!("{path}[<<]"), depth + 1)?);
                continue;
            }
            if map.contains_key(&key) {
                return fail(at, format!("key {key:?} is there twice"));
            }
            let path = child(path, &key);
            if path.contains('_') {
                // Findings name fields in their camelCase form.
                self.positions.insert(crate::schema::camel(&path), at);
            }
            self.positions.insert(path.clone(), at);
            let value = self.node(event, span, path, depth + 1)?;
            map.insert(key, value);
        }
        for merge in merges {
            let sources = match merge {
                Value::Array(list) => list,
                one => vec![one],
            };
            for source in sources {
                if let Value::Object(source) = source {
                    for (k, v) in source {
                        map.entry(k).or_insert(v);
                    }
                }
            }
        }
        Ok(Value::Object(map))
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn scalar(text: String, style: ScalarStyle, is_text: bool) -> Value {
    if style != ScalarStyle::Plain || is_text {
        return Value::String(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    match number(&text) {
        Some(n) => Value::Number(n),
        None => Value::String(text),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = digits.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    if let Some(octal) = digits.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    // YAML 1.1, which kubectl reads, takes a leading zero as octal (file modes).
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return i64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits
            .bytes()
            .all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
        || !digits.contains(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    if let Ok(n) = text.parse::<i64>() {
        return Some(n.into());
    }
    if let Ok(n) = text.parse::<u64>() {
        return Some(n.into());
    }
    text.parse::<f64>()
        .ok()
        .filter(|n| n.is_finite())
        .and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_positions() {
        let text =
            "# head\na: 1\nb:\n- x: yes\n  'k.v/w': \"1\"\n- 0644\n---\n---\nc: 1.10.1\nd: 1.5\n";
        let (docs, errors) = documents(text);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(docs.len(), 2);
        assert_eq!(
            docs[0].value,
            json!({"a": 1, "b": [{"x": true, "k.v/w": "1"}, 420]})
        );
        assert_eq!(docs[1].value, json!({"c": "1.10.1", "d": 1.5}));
        let line = |p: &str| docs[0].positions.find(p).unwrap().line;
        let snake = documents("a_b:\n  c_d: 1\n").0.remove(0);
        assert_eq!(snake.positions.find("aB.cD").unwrap().line, 2);
        assert_eq!(line("a"), 2);
        assert_eq!(line("b[0].x"), 4);
        assert_eq!(line("b[0][k.v/w]"), 5);
        assert_eq!(line("b[0].missing.deeper"), 4);
        assert_eq!(line("nothing"), 2);
    }

    #[test]
    fn broken_document_does_not_hide_the_next() {
        let (docs, errors) = documents("a: [1\n---\nb: 2\n");
        assert_eq!(errors.len(), 1);
        assert_eq!(docs.len(), 1);
        assert_eq!(docs[0].value, json!({"b": 2}));
        let (_, errors) = documents("a: 1\na: 2\n");
        assert_eq!(
            errors[0].to_string(),
            "line 2, column 1: key \"a\" is there twice"
        );
    }

    #[test]
    fn anchors_merge_and_bombs() {
        let (docs, _) = documents("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\n");
        assert_eq!(docs[0].value["y"], json!({"b": 3, "a": 1}));
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let list = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", [list.as_str(); 10].join(","));
        }
        let (docs, errors) = documents(&bomb);
        assert!(docs.is_empty());
        assert!(errors[0].message.contains("too much"));
    }
}
