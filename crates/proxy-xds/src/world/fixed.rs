//! Static resources: what is wrong with one, told by its file and place, and
//! what they may wait for.
use std::collections::HashMap;
use std::sync::Arc;

use super::World;
use crate::bootstrap::{Source, StaticResources, locate};
use crate::decode::{Needs, ResourceSource};
use crate::error::DecodeError;
use crate::kind::Kind;

/// What names the files of the bootstrap's own subscriptions.
const DYNAMIC: &str = "dynamic_resources";

/// A static resource that is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {error}", labelled("", .file, ": "), self.place())]
pub struct StaticError {
    /// The bootstrap's file or flag; may be empty.
    pub file: String,
    /// `listeners`, `clusters` or `secrets`; `dynamic_resources` for a file that these come from.
    pub list: &'static str,
    /// Position.
    pub index: usize,
    /// Name of the resource, may be empty; the field of `dynamic_resources`.
    pub name: String,
    /// What is wrong.
    pub error: DecodeError,
}

impl StaticError {
    /// The field's path from the bootstrap's root.
    #[must_use]
    pub fn path(&self) -> String {
        self.error.clone().within(&self.field()).path
    }

    /// The field that the resource, or the name of a file, stands in.
    fn field(&self) -> String {
        match self.list {
            DYNAMIC => format!("{DYNAMIC}{}", labelled(".", &self.name, "")),
            list => format!("static_resources.{list}[{}]", self.index),
        }
    }

    /// The field, with the resource's name.
    fn place(&self) -> String {
        let name = match self.list {
            DYNAMIC => String::new(),
            _ => labelled(" (", &self.name, ")"),
        };
        self.field() + &name
    }

    /// The same with the line of its field, which stands in one of these texts.
    #[must_use]
    pub fn located(mut self, sources: &[Source<'_>]) -> Self {
        if let Some((file, line)) = locate(sources, &self.path()) {
            self.file = format!("{file}:{line}");
        }
        self
    }
}

/// The text with what stands around it; nothing for no text.
fn labelled(before: &str, text: &str, after: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => format!("{before}{text}{after}"),
    }
}

impl World {
    /// Refuses static resources that wait for others over ADS, for a bootstrap
    /// without it.
    ///
    /// # Errors
    /// Names the first of them.
    pub fn needs_nothing(&self, fixed: &StaticResources) -> Result<(), StaticError> {
        let waiting = self.waiting();
        for (list, items) in [
            ("clusters", &fixed.clusters),
            ("listeners", &fixed.listeners),
        ] {
            for (index, (name, raw)) in items.iter().enumerate() {
                if let Some((kind, need)) = waiting.get(&raw.as_ptr()) {
                    let (word, missing) = (kind.word(), &need.name);
                    return Err(StaticError {
                        file: String::new(),
                        list,
                        index,
                        name: name.to_string(),
                        error: DecodeError::new(format!(
                            "{word} '{missing}' over ads needs dynamic_resources.ads_config"
                        )),
                    });
                }
            }
        }
        Ok(())
    }

    /// What each static resource waits for first over ADS, by where its bytes are.
    fn waiting<'a>(&'a self) -> HashMap<*const u8, &'a (Kind, Needs)> {
        let clusters = self.clusters.fixed().into_iter();
        let clusters = clusters.map(|(_, h)| (&h.raw, &h.needs[..]));
        let listeners = self.listeners.fixed().into_iter();
        let listeners = listeners.map(|(_, h)| (&h.raw, &h.needs[..]));
        let over_ads = |(_, need): &&(Kind, Needs)| need.source == ResourceSource::Ads;
        let first = |(raw, needs): (&'a Arc<[u8]>, &'a [(Kind, Needs)])| {
            Some((raw.as_ptr(), needs.iter().find(over_ads)?))
        };
        clusters.chain(listeners).filter_map(first).collect()
    }
}
