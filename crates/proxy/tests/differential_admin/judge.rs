//! What may differ: `left_out.yaml`, whose every line must be needed.

use std::collections::BTreeSet;

use regex_automata::meta::Regex;
use serde::Deserialize;

use super::page::Keys;
use super::scene::data;

/// Keys that may differ for one reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Patterns of whole keys, the page in front.
    keys: Vec<String>,
    /// Why.
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What Envoy shows and this proxy does not.
    missing: Vec<Group>,
    /// What both show, with another value.
    differing: Vec<Group>,
    /// What this proxy shows and Envoy does not.
    more: Vec<Group>,
}

struct Pattern {
    text: String,
    regex: Regex,
}

/// The lists, with which of their lines were needed.
pub struct Judge {
    lists: [Vec<Pattern>; 3],
    needed: BTreeSet<(usize, usize)>,
    /// What is wrong.
    pub wrong: Vec<String>,
}

impl Judge {
    /// With the lists as they are.
    pub fn new() -> Self {
        let file: File = serde_saphyr::from_str(&data("left_out.yaml")).unwrap();
        let patterns = |groups: Vec<Group>| {
            let of = |group: Group| {
                assert!(group.why.len() > 10, "a reason for {:?}", group.keys);
                group.keys
            };
            let keys = groups.into_iter().flat_map(of);
            keys.map(|text| {
                let regex = Regex::new(&format!("^(?:{text})$")).unwrap();
                Pattern { text, regex }
            })
            .collect()
        };
        Self {
            lists: [file.missing, file.differing, file.more].map(patterns),
            needed: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    fn known(&mut self, list: usize, key: &str) -> bool {
        let hits: Vec<usize> = (0..self.lists[list].len())
            .filter(|at| self.lists[list][*at].regex.is_match(key))
            .collect();
        self.needed.extend(hits.iter().map(|at| (list, *at)));
        !hits.is_empty()
    }

    /// Compares the keys of a page; `values` = their values as well.
    pub fn compare(&mut self, page: &str, theirs: &Keys, ours: &Keys, values: bool) {
        for (key, value) in theirs {
            let key_of_page = format!("{page} {key}");
            match ours.get(key) {
                None if !self.known(0, &key_of_page) => {
                    self.wrong.push(format!("missing: {key_of_page}: {value}"));
                }
                Some(own) if values && own != value && !self.known(1, &key_of_page) => {
                    self.wrong
                        .push(format!("differs: {key_of_page}: {value}, here {own}"));
                }
                _ => {}
            }
        }
        for (key, value) in ours {
            let key_of_page = format!("{page} {key}");
            if !theirs.contains_key(key) && !self.known(2, &key_of_page) {
                self.wrong.push(format!("more: {key_of_page}: {value}"));
            }
        }
    }

    /// Two values that must be the same.
    pub fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, theirs: &T, ours: &T) {
        if theirs != ours {
            self.wrong
                .push(format!("{what}: {theirs:?}, here {ours:?}"));
        }
    }

    /// Lines of the lists that nothing needed.
    pub fn unneeded(&self) -> Vec<String> {
        let names = ["missing", "differing", "more"];
        let mut out = Vec::new();
        for (list, patterns) in self.lists.iter().enumerate() {
            for (at, pattern) in patterns.iter().enumerate() {
                if !self.needed.contains(&(list, at)) {
                    out.push(format!("not needed: {}: {}", names[list], pattern.text));
                }
            }
        }
        out
    }
}
