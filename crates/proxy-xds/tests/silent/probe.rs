//! Walks a resource beside its schema, sets one field at a time and looks at what decoding makes
//! of it.
use std::collections::BTreeSet;

use lateen_proxy_xds::decode::{self, Context};
use lateen_xds_proto::json;
use serde_json::{Map, Value, json};

use super::table::{self, Field, Kind, Message, Type};

/// How deep messages are put into messages that no example holds.
const DEPTH: usize = 12;

/// A way from the resource's root to a value in it.
type Place = Vec<Step>;

#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// What came out.
pub struct Findings {
    /// Decoded resources.
    pub probes: usize,
    /// Fields (`message.field`) and enum values (`message.field=VALUE`) without any effect, after
    /// the field that held the message.
    pub silent: BTreeSet<(String, String)>,
    /// Refusals that do not name the field, and messages no example holds.
    pub problems: Vec<String>,
}

/// What decoding said to one value.
enum Said {
    Same,
    Differs,
    Refused(String),
}

#[derive(Default)]
pub struct Prober {
    probes: usize,
    silent: BTreeSet<(String, String)>,
    /// How many fields and enum values had an effect or were refused.
    noticed: usize,
    /// How many had none.
    passed: usize,
    unnamed: BTreeSet<String>,
    /// Fields with a message that cannot be empty, and why.
    lacking: BTreeSet<(String, String)>,
    walked: BTreeSet<String>,
    visited: BTreeSet<(String, String)>,
}

fn decoded(message: &str, resource: &Value) -> Result<String, String> {
    let wire = json::to_wire(message, resource).unwrap_or_else(|e| panic!("{e}: {resource}"));
    let context = Context {
        environment: Box::new(|name| (!["", "b"].contains(&name)).then(|| name.to_owned())),
        read_file: Box::new(|path| Ok(path.into())),
        ..Context::empty()
    };
    let text = match message.rsplit('.').next() {
        Some("Listener") => decode::listener(&wire, &context).map(|v| format!("{v:?}")),
        Some("RouteConfiguration") => decode::routes(&wire, &context).map(|v| format!("{v:?}")),
        Some("Secret") => decode::secret(&wire, &context).map(|v| format!("{v:?}")),
        _ => panic!("no decoder for {message}"),
    };
    text.map(|text| without_seeds(&text))
        .map_err(|e| e.to_string())
}

/// A print without what the hash tables drew.
fn without_seeds(text: &str) -> String {
    let mut parts = text.split("per_hasher_seed: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        out + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

fn at<'a>(root: &'a mut Value, place: &[Step]) -> &'a mut Value {
    place.iter().fold(root, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Index(index) => &mut value[*index],
    })
}

/// The fields of an object; an `Any`'s without its type.
fn object(root: &mut Value, place: &[Step]) -> Map<String, Value> {
    at(root, place).as_object().cloned().unwrap_or_default()
}

impl Prober {
    /// Probes every field that a resource has and can have.
    pub fn example(&mut self, message: &str, resource: Value) {
        let base = decoded(message, &resource).unwrap_or_else(|e| panic!("{message}: {e}"));
        let again = decoded(message, &resource);
        assert!(again.as_ref() == Ok(&base), "prints differ: {base}");
        let schema = table::find(message).unwrap_or_else(|| panic!("{message} is unknown"));
        let scene = Scene {
            message: message.to_owned(),
            resource,
            base,
        };
        self.message(&scene, schema, "", &Vec::new(), 0);
    }

    /// What was found in all examples.
    pub fn finish(self) -> Findings {
        let mut problems: Vec<_> = self.unnamed.into_iter().collect();
        let lacking = self.lacking.into_iter();
        let lacking = lacking.filter(|(field, _)| !self.walked.contains(field));
        problems.extend(lacking.map(|(f, why)| format!("{f}: no example holds it ({why})")));
        Findings {
            probes: self.probes,
            silent: self.silent,
            problems,
        }
    }

    fn message(
        &mut self,
        scene: &Scene,
        schema: Message,
        owner: &str,
        place: &Place,
        depth: usize,
    ) {
        for field in schema.fields() {
            let name = format!("{}.{}", schema.full_name(), field.name());
            self.field(scene, schema, field, &name, owner, place, depth);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one place in a tree, told in full"
    )]
    fn field(
        &mut self,
        scene: &Scene,
        schema: Message,
        field: Field,
        name: &str,
        owner: &str,
        place: &Place,
        depth: usize,
    ) {
        let mut resource = scene.resource.clone();
        let held = object(&mut resource, place);
        if let Some(value) = held.get(field.name()) {
            self.inside(scene, field, name, place, value, depth);
        }
        if !self.visited.insert((owner.to_owned(), name.to_owned())) {
            return;
        }
        let one = field.map().map_or(field, |(_, value)| value);
        if is_plain(one) {
            let empty = wrapped(field, &json!({}));
            if held.get(field.name()) != Some(&empty) {
                self.holding(scene, schema, field, (owner, name), place, depth);
            }
        } else if one.r#type() == Type::Enum {
            for value in enum_values(one) {
                let verdict = format!("{name}={value}");
                if held.get(field.name()) == Some(&value) {
                    continue;
                }
                let said = self.say(scene, schema, field, place, &wrapped(field, &value));
                self.judge((owner, name), &verdict.replace('"', ""), vec![said]);
            }
        } else {
            let mut said = Vec::new();
            for value in scalars(one) {
                said.push(self.say(scene, schema, field, place, &wrapped(field, &value)));
                if matches!(said.last(), Some(Said::Differs)) {
                    break;
                }
            }
            self.judge((owner, name), name, said);
        }
    }

    /// A field that is there and holds messages: what they hold.
    fn inside(
        &mut self,
        scene: &Scene,
        field: Field,
        name: &str,
        place: &Place,
        value: &Value,
        depth: usize,
    ) {
        let one = field.map().map_or(field, |(_, value)| value);
        if one.r#type() != Type::Message {
            return;
        }
        self.walked.insert(name.to_owned());
        let mut there = place.clone();
        there.push(Step::Key(field.name().to_owned()));
        let parts: Vec<(Place, &Value)> = match value {
            Value::Array(items) => (items.iter().enumerate())
                .map(|(i, item)| ([there.clone(), vec![Step::Index(i)]].concat(), item))
                .collect(),
            Value::Object(map) if field.map().is_some() => (map.iter())
                .map(|(k, item)| ([there.clone(), vec![Step::Key(k.clone())]].concat(), item))
                .collect(),
            other => vec![(there, other)],
        };
        for (place, part) in parts {
            let schema = match (one.message().kind(), part.get("@type")) {
                (Kind::Plain, _) => one.message(),
                (Kind::Any, Some(Value::String(url))) => {
                    let full = url.rsplit('/').next().unwrap_or_default();
                    table::find(full).unwrap_or_else(|| panic!("{full} is unknown"))
                }
                _ => continue,
            };
            self.message(scene, schema, name, &place, depth + 1);
        }
    }

    /// A message field: empty first, then each field of it.
    fn holding(
        &mut self,
        scene: &Scene,
        schema: Message,
        field: Field,
        (owner, name): (&str, &str),
        place: &Place,
        depth: usize,
    ) {
        let empty = wrapped(field, &json!({}));
        let said = self.say(scene, schema, field, place, &empty);
        let inner = field.map().map_or(field, |(_, value)| value).message();
        match &said {
            Said::Refused(why) if !why.contains("is not implemented") => {
                self.lacking.insert((name.to_owned(), why.clone()));
            }
            Said::Refused(_) => {}
            Said::Same | Said::Differs if depth < DEPTH && inner.fields().next().is_some() => {
                let scene = scene.with(schema, field, place, &empty);
                let (silent, before) = (self.silent.clone(), (self.noticed, self.passed));
                self.inside(&scene, field, name, place, &empty, depth);
                if matches!(said, Said::Differs) {
                    self.noticed += 1;
                } else if self.noticed == before.0 && self.passed > before.1 {
                    // Nothing in it has an effect: the message as a whole has none.
                    self.silent = silent;
                    self.silent.insert((owner.to_owned(), name.to_owned()));
                }
                return;
            }
            Said::Same | Said::Differs => {}
        }
        self.judge((owner, name), name, vec![said]);
    }

    fn say(
        &mut self,
        scene: &Scene,
        schema: Message,
        field: Field,
        place: &Place,
        value: &Value,
    ) -> Said {
        self.probes += 1;
        let resource = scene.put(schema, field, place, value);
        match decoded(&scene.message, &resource) {
            Err(why) => Said::Refused(why),
            Ok(text) if text == scene.base => Said::Same,
            Ok(_) => Said::Differs,
        }
    }

    fn judge(&mut self, (owner, name): (&str, &str), verdict: &str, said: Vec<Said>) {
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        // A message of one thing may be spoken of as a whole.
        let (own, whole) = (last(name), last(owner));
        if said.iter().all(|s| matches!(s, Said::Same)) {
            self.passed += 1;
            self.silent.insert((owner.to_owned(), verdict.to_owned()));
        } else {
            self.noticed += 1;
        }
        for why in said {
            if let Said::Refused(why) = why
                && !why.contains(&own)
                && (whole.is_empty() || !why.contains(&whole))
            {
                let why = format!("{verdict}: a refusal that does not name it: {why}");
                self.unnamed.insert(why);
            }
        }
    }
}

/// A resource and what it is decoded into.
struct Scene {
    message: String,
    resource: Value,
    base: String,
}

impl Scene {
    /// The resource with one field set, other members of its oneof taken out.
    fn put(&self, schema: Message, field: Field, place: &Place, value: &Value) -> Value {
        let mut resource = self.resource.clone();
        let target = at(&mut resource, place);
        if let (Some(of), Some(map)) = (field.oneof(), target.as_object_mut()) {
            for other in schema.fields().filter(|f| f.oneof() == Some(of)) {
                map.remove(other.name());
            }
        }
        target[field.name()] = value.clone();
        resource
    }

    fn with(&self, schema: Message, field: Field, place: &Place, value: &Value) -> Self {
        let resource = self.put(schema, field, place, value);
        let base = decoded(&self.message, &resource).unwrap_or_default();
        Self {
            message: self.message.clone(),
            resource,
            base,
        }
    }
}

/// Whether a field holds a message that has no JSON form of its own.
fn is_plain(field: Field) -> bool {
    field.r#type() == Type::Message && field.message().kind() == Kind::Plain
}

/// One value as the field takes it.
fn wrapped(field: Field, value: &Value) -> Value {
    match field.map() {
        Some((key, _)) if key.r#type() == Type::String => json!({ "k": value }),
        Some(_) => json!({ "1": value }),
        None if field.repeated() => json!([value]),
        None => value.clone(),
    }
}

fn enum_values(field: Field) -> Vec<Value> {
    let all = (0..600).filter_map(|n| field.enumeration().name_of(n));
    let zero = field.enumeration().name_of(0);
    let members = field.oneof().is_some() || field.repeated();
    all.filter(|name| members || Some(*name) != zero)
        .map(|name| json!(name))
        .collect()
}

/// Values that a field may be set to; one of them must be noticed.
fn scalars(field: Field) -> Vec<Value> {
    let of = |kind: Type| match kind {
        Type::Bool => vec![json!(true), json!(false)],
        Type::String => ["x", "/x", "10.0.0.0", "http", "5xx"]
            .map(Value::from)
            .to_vec(),
        Type::Bytes => vec![json!("eHh4eHg=")],
        Type::Double | Type::Float => vec![json!(0.5), json!(70.0)],
        _ => [1, 3, 0, 443, 70_000].map(Value::from).to_vec(),
    };
    if field.r#type() != Type::Message {
        return of(field.r#type());
    }
    let message = field.message();
    match message.kind() {
        Kind::Wrapper => message.fields().flat_map(|f| of(f.r#type())).collect(),
        Kind::Duration => vec![json!("7s"), json!("0s")],
        Kind::Timestamp => vec![json!("2030-01-01T00:00:00Z")],
        Kind::FieldMask => vec![json!("x")],
        Kind::Struct => vec![json!({ "k": { "j": true } })],
        Kind::Value => vec![json!(true)],
        Kind::ListValue => vec![json!([true])],
        Kind::Any => vec![json!({ "@type": "type.googleapis.com/google.protobuf.Empty" })],
        Kind::Plain | Kind::MapEntry => Vec::new(),
    }
}
