//! Where a field stands in the text it came from. Only asked for when something is wrong with it, so
//! the text is read once more rather than positions kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A step of a field path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A field, in either spelling, or a key of a map.
    Key(String),
    /// A place in a list.
    Index(usize),
}

/// The line (from 1) of the field of this path, such as
/// `static_resources.listeners[0].filter_chains[1].filters`; where it does not stand in the text,
/// that of what it would stand in. `None` = none of it does.
#[must_use]
pub fn line(text: &str, path: &str) -> Option<u64> {
    let steps = steps(path);
    (1..=steps.len())
        .rev()
        .find_map(|count| find(text, &steps[..count]))
}

fn find(text: &str, steps: &[Step]) -> Option<u64> {
    let mut found = None;
    // What is wrong with the text is not asked here: what was found before it counts.
    let _ = serde_saphyr::with_deserializer_from_str(text, |reader| {
        Walk {
            steps,
            found: &mut found,
        }
        .deserialize(reader)
    });
    found
}

/// `a.b[1]["c.d"].e` taken apart.
fn steps(path: &str) -> Vec<Step> {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let end = quoted.find("\"]").unwrap_or(quoted.len());
            out.push(Step::Key(quoted[..end].to_owned()));
            rest = quoted.get(end + 2..).unwrap_or_default();
        } else if let Some(inside) = rest.strip_prefix('[') {
            let end = inside.find(']').unwrap_or(inside.len());
            if let Ok(index) = inside[..end].parse() {
                out.push(Step::Index(index));
            }
            rest = inside.get(end + 1..).unwrap_or_default();
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end > 0 {
                out.push(Step::Key(rest[..end].to_owned()));
            }
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
    }
    out
}

/// A field's name without what tells its two spellings apart.
fn bare(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

/// Follows the steps and notes where the last one leads.
struct Walk<'a> {
    steps: &'a [Step],
    found: &'a mut Option<u64>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (first, rest) = match self.steps.split_first() {
            Some((Step::Key(key), rest)) => (Some(bare(key)), rest),
            _ => (None, self.steps),
        };
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if first.as_ref() != Some(&bare(&key.value)) {
                map.next_value::<IgnoredAny>()?;
            } else if rest.is_empty() {
                *self.found = Some(key.referenced.line());
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Walk {
                    steps: rest,
                    found: self.found,
                })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (index, rest) = match self.steps.split_first() {
            Some((Step::Index(index), rest)) => (Some(*index), rest),
            _ => (None, self.steps),
        };
        for at in 0.. {
            let more = if Some(at) != index {
                list.next_element::<IgnoredAny>()?.is_some()
            } else if rest.is_empty() {
                let item = list.next_element::<Spanned<IgnoredAny>>()?;
                *self.found = item.as_ref().map(|item| item.referenced.line());
                item.is_some()
            } else {
                let walk = Walk {
                    steps: rest,
                    found: self.found,
                };
                list.next_element_seed(walk)?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "node:\n  id: x\nstatic_resources:\n  listeners:\n  - name: a\n    address:\n      socketAddress: { portValue: 1 }\n  - name: b\n    \"map\":\n      \"k.1\": v\n";

    #[test]
    fn fields_are_found_by_either_spelling() {
        for (path, want) in [
            ("node.id", 2),
            (
                "static_resources.listeners[0].address.socket_address.port_value",
                7,
            ),
            ("static_resources.listeners[1]", 8),
            ("static_resources.listeners[1].map[\"k.1\"]", 10),
            // What is missing is told by what it is missing in.
            ("static_resources.listeners[1].address.socket_address", 8),
            ("static_resources.clusters[3].name", 3),
        ] {
            assert_eq!(line(YAML, path), Some(want), "{path}");
        }
        assert_eq!(line(YAML, "admin"), None);
        let json = "{\n \"node\": {\n  \"id\": 1\n }\n}";
        assert_eq!(line(json, "node.id"), Some(3));
    }
}
