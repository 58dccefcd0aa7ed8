//! Secrets that do not come over ADS: files read again once a second, streams of
//! their own, and the files that secrets of any source name. What a rotation
//! brings is taken when it is whole; until then what was there serves.
use std::collections::{BTreeMap, BTreeSet};

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::bootstrap::WatchedFile;

use super::{Incoming, Now, Refused, World, held};
use crate::decode::{self, Needs, ResourceSource, own_name};
use crate::error::DecodeError;
use crate::kind::Kind;

/// Between two looks at the files, milliseconds.
const LOOK: u64 = 1000;

/// What was last seen of files.
#[derive(Debug, Default)]
pub(super) struct Watched {
    next_look: u64,
    /// Wire bytes of secrets in files, by key; also of those that were refused.
    files: BTreeMap<Name, Vec<u8>>,
    /// Stamps of the files that secrets name, by key.
    named: BTreeMap<Name, u64>,
}

impl World {
    /// The names of a named type that some cluster or listener needs over ADS.
    #[must_use]
    pub fn wanted(&self, kind: Kind) -> BTreeSet<Name> {
        let mut names = self.needed(kind, |need| need.source == ResourceSource::Ads);
        names.retain(|name| decode::is_over_ads(name));
        names
    }

    /// The names of a named type that something needs, over what such needs go by.
    pub(super) fn needed(&self, kind: Kind, of: impl Fn(&Needs) -> bool) -> BTreeSet<Name> {
        let clusters = self
            .clusters
            .active
            .values()
            .chain(self.clusters.warming.values())
            .map(|h| &h.needs);
        let listeners = self
            .listeners
            .active
            .values()
            .chain(self.listeners.warming.values())
            .map(|h| &h.needs);
        let needs = clusters.chain(listeners).flat_map(|n| n.iter());
        let needed = needs.filter(|(k, need)| *k == kind && of(need));
        let needed = needed.map(|(_, n)| &n.name);
        let draining = self.draining.wanted().filter(|_| kind == Kind::Routes);
        needed.chain(draining).cloned().collect()
    }

    /// The secrets of one's own sources that something needs, by key.
    fn foreign_secrets(&self) -> BTreeMap<Name, ResourceSource> {
        let clusters = self.clusters.active.values().map(|h| &h.needs);
        let clusters = clusters.chain(self.clusters.warming.values().map(|h| &h.needs));
        let listeners = self.listeners.active.values().map(|h| &h.needs);
        let listeners = listeners.chain(self.listeners.warming.values().map(|h| &h.needs));
        let needs = clusters.chain(listeners).flat_map(|n| n.iter());
        needs
            .filter(|(kind, need)| *kind == Kind::Secret && need.source != ResourceSource::Ads)
            .map(|(_, need)| (need.name.clone(), need.source.clone()))
            .collect()
    }

    /// Secrets that come over streams of their own: (cluster, delta, name).
    #[must_use]
    pub fn secret_streams(&self) -> BTreeSet<(Name, bool, Name)> {
        let all = self.foreign_secrets();
        all.into_iter()
            .filter_map(|(key, source)| match source {
                ResourceSource::Grpc { cluster, delta } => {
                    Some((cluster, delta, own_name(&key).into()))
                }
                _ => None,
            })
            .collect()
    }

    /// Takes in a secret of a stream of its own.
    ///
    /// # Errors
    /// When it is not acceptable; the one before serves on.
    pub fn update_secret(
        &mut self,
        source: &ResourceSource,
        incoming: &Incoming,
        now: Now,
    ) -> Result<(), DecodeError> {
        let key = source.key(&incoming.name);
        self.take_secret(key, incoming, now)
    }

    fn take_secret(&mut self, key: Name, incoming: &Incoming, now: Now) -> Result<(), DecodeError> {
        match decode::secret(&incoming.raw, &self.context) {
            Ok((_, secret)) => {
                self.watched.stamp(&key, &incoming.raw, &self.context);
                self.refused.remove(&(Kind::Secret, key.clone()));
                let new = held(secret, incoming, now, vec![]);
                self.arrived(Kind::Secret, key, new, true, |w| &mut w.secrets.active);
                Ok(())
            }
            Err(error) => {
                let before = self.refused.get(&(Kind::Secret, key.clone()));
                if before.is_none_or(|before| before.error != error.to_string()) {
                    tracing::warn!(target: "secret", secret = %own_name(&key), %error, "secret refused");
                }
                let refused = Refused {
                    raw: incoming.raw.clone(),
                    version: incoming.version.clone(),
                    at_ms: now.unix_ms,
                    error: error.to_string(),
                };
                self.refused.insert((Kind::Secret, key), refused);
                Err(error)
            }
        }
    }

    /// Reads files that are new, or all of them when a look is due.
    pub(super) fn look_at_files(&mut self, now: Now) {
        let due = self.watched.next_look <= now.mono_ms;
        if due {
            self.watched.next_look = now.mono_ms.saturating_add(LOOK);
        }
        let wanted = self.foreign_secrets();
        self.watched.files.retain(|key, _| wanted.contains_key(key));
        for (key, source) in wanted {
            let ResourceSource::File(WatchedFile { path, .. }) = source else {
                continue;
            };
            let known = self.watched.files.contains_key(&key);
            if known && !due {
                continue;
            }
            // What cannot be read now may be half way into place.
            let raw = match decode::secret_in_file(&path, own_name(&key), &self.context) {
                Ok(raw) => raw,
                Err(error) => {
                    if !known {
                        tracing::warn!(target: "secret", %path, %error, "secret");
                        self.watched.files.insert(key, Vec::new());
                    }
                    continue;
                }
            };
            if self.watched.files.get(&key) == Some(&raw) {
                continue;
            }
            let incoming = Incoming {
                name: own_name(&key).into(),
                version: Name::default(),
                raw: raw.into(),
            };
            // A refusal is logged, and tried again: files it names may yet come.
            let seen = match self.take_secret(key.clone(), &incoming, now) {
                Ok(()) => incoming.raw.to_vec(),
                Err(_) => Vec::new(),
            };
            self.watched.files.insert(key, seen);
        }
        if due {
            self.look_at_named_files(now);
        }
    }

    /// Decodes secrets again whose files changed.
    fn look_at_named_files(&mut self, now: Now) {
        let active = &self.secrets.active;
        self.watched.named.retain(|key, _| active.contains_key(key));
        let mut changed = Vec::new();
        for (key, held) in active {
            let Some(stamp) = decode::files_stamp(&held.raw, &self.context) else {
                continue;
            };
            if self.watched.named.insert(key.clone(), stamp) != Some(stamp) {
                changed.push((key.clone(), held.raw.clone(), held.version.clone()));
            }
        }
        for (key, raw, version) in changed {
            match decode::secret(&raw, &self.context) {
                Ok((_, secret)) => {
                    let incoming = Incoming {
                        name: own_name(&key).into(),
                        version,
                        raw,
                    };
                    let new = held(secret, &incoming, now, vec![]);
                    self.secrets.active.insert(key, new);
                    self.dirty.insert(Kind::Secret);
                }
                // A key may be in place before its certificate.
                Err(error) => {
                    tracing::warn!(target: "secret", secret = %own_name(&key), %error, "files of a secret");
                }
            }
        }
    }

    /// When files are to be looked at next; none = there are none.
    pub(super) fn next_look(&self) -> Option<u64> {
        let any = !self.watched.files.is_empty() || !self.watched.named.is_empty();
        any.then_some(self.watched.next_look)
    }
}

impl Watched {
    /// Notes the files that a secret names as they are now.
    pub(super) fn stamp(&mut self, key: &Name, raw: &[u8], context: &decode::Context) {
        match decode::files_stamp(raw, context) {
            Some(stamp) => self.named.insert(key.clone(), stamp),
            None => self.named.remove(key),
        };
    }
}
