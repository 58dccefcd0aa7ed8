//! Secrets that do not come over ADS: files read again once a second, streams of
//! their own, and the files that secrets of any source name. What a rotation
//! brings is taken when it is whole; until then what was there serves.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::bootstrap::WatchedFile;

use super::{Incoming, Now, Refused, World, held};
use crate::ads::Tally;
use crate::decode::{self, Needs, NotTaken, ResourceSource, own_name};
use crate::error::DecodeError;
use crate::kind::Kind;

/// Between two looks at the files, milliseconds.
const LOOK: u64 = 1000;

/// What was last seen of files.
#[derive(Debug, Default)]
pub(super) struct Watched {
    next_look: u64,
    /// Files with secrets, by the secret's key.
    files: BTreeMap<Name, Seen>,
    /// What became of the updates that do not come over ADS, by key.
    updates: BTreeMap<Name, SecretUpdates>,
    /// Stamps of the files that secrets name, by key.
    named: BTreeMap<Name, u64>,
}

/// What was last seen of a file with a secret.
#[derive(Debug)]
struct Seen {
    /// Of its bytes, or of why it cannot be read.
    stamp: u64,
    /// Its secret was refused, maybe for files it names that may yet come.
    again: bool,
}

/// What became of the updates of a secret, as Envoy counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecretUpdates {
    /// How often one was waited for or read.
    pub attempts: u64,
    /// Those that were taken.
    pub accepted: u64,
    /// Those that came and were not acceptable.
    pub rejected: u64,
    /// Files that could not be read, streams that ended or never opened.
    pub failed: u64,
    /// Waits for the first that were given up.
    pub timed_out: u64,
    /// When the last was taken, Unix milliseconds; 0 = none was.
    pub updated_ms: u64,
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
        let before = self.refused.get(&(Kind::Secret, key.clone()));
        let before = before.map(|refused| refused.error.clone());
        let taken = self.take_secret(key, incoming, now);
        if let Err(error) = &taken
            && before != Some(error.to_string())
        {
            tracing::warn!(target: "secret", secret = %incoming.name, %error, "secret refused");
        }
        taken
    }

    /// A stream brought what is not acceptable as this secret. Nobody waits for it any longer, as
    /// in Envoy: what can serve without it does.
    pub fn secret_rejected(&mut self, source: &ResourceSource, name: &str) {
        let key = source.key(name);
        self.updates_of(&key).rejected += 1;
        self.end_wait(key);
    }

    /// The stream of a secret ended or never opened.
    pub fn secret_failed(&mut self, source: &ResourceSource, name: &str) {
        self.updates_of(&source.key(name)).failed += 1;
    }

    /// The wait for a secret was given up.
    pub(super) fn secret_timed_out(&mut self, key: &Name) {
        self.updates_of(key).timed_out += 1;
    }

    /// Forgets the numbers of what is not among these.
    pub(super) fn keep_updates(&mut self, wanted: &BTreeSet<Name>) {
        self.watched.updates.retain(|key, _| wanted.contains(key));
    }

    fn updates_of(&mut self, key: &Name) -> &mut SecretUpdates {
        self.watched.updates.entry(key.clone()).or_default()
    }

    fn end_wait(&mut self, key: Name) {
        if !self.is_here(Kind::Secret, &key) {
            self.fetches.remove(&(Kind::Secret, key.clone()));
            self.missing.insert((Kind::Secret, key));
        }
    }

    /// What became of the updates of each secret that something needs, by its own name; `ads` =
    /// the numbers of those over ADS. Secrets of one name and several sources are one, as in
    /// Envoy's statistics.
    #[must_use]
    pub fn secret_updates(&self, ads: &Tally) -> BTreeMap<Name, SecretUpdates> {
        let foreign = self.foreign_secrets();
        let mut all: BTreeMap<Name, SecretUpdates> = BTreeMap::new();
        for key in self.needed(Kind::Secret, |_| true) {
            let mut one = self.watched.updates.get(&key).copied().unwrap_or_default();
            let came = one.accepted + one.rejected + one.failed;
            match foreign.get(&key) {
                Some(ResourceSource::File(_)) => one.attempts = came,
                Some(_) => one.attempts = 1 + came,
                None => {
                    let Some(found) = ads.get(Kind::Secret, &key) else {
                        continue;
                    };
                    one.attempts = found.attempts();
                    one.accepted = found.accepted;
                    one.rejected = found.rejected;
                    one.failed = found.failed;
                    one.updated_ms = found.updated_ms;
                }
            }
            let sum = all.entry(own_name(&key).into()).or_default();
            sum.attempts += one.attempts;
            sum.accepted += one.accepted;
            sum.rejected += one.rejected;
            sum.failed += one.failed;
            sum.timed_out += one.timed_out;
            sum.updated_ms = sum.updated_ms.max(one.updated_ms);
        }
        all
    }

    fn take_secret(&mut self, key: Name, incoming: &Incoming, now: Now) -> Result<(), DecodeError> {
        match decode::secret(&incoming.raw, &self.context) {
            Ok((_, secret)) => {
                self.watched.stamp(&key, &incoming.raw, &self.context);
                self.refused.remove(&(Kind::Secret, key.clone()));
                let updates = self.updates_of(&key);
                updates.accepted += 1;
                updates.updated_ms = now.unix_ms;
                let new = held(secret, incoming, now, vec![]);
                self.arrived(Kind::Secret, key, new, true, |w| &mut w.secrets.active);
                Ok(())
            }
            Err(error) => {
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
            if due || !self.watched.files.contains_key(&key) {
                self.look_at_file(key, &path, now);
            }
        }
        if due {
            self.look_at_named_files(now);
        }
    }

    /// Reads a file with a secret if it is another than before. What cannot be taken is said and
    /// counted once for each state of the file; what was there serves on, and who waited waits no
    /// longer.
    fn look_at_file(&mut self, key: Name, path: &Name, now: Now) {
        let mut hasher = DefaultHasher::new();
        match (self.context.read_file)(path) {
            Ok(bytes) => bytes.hash(&mut hasher),
            Err(error) => error.kind().to_string().hash(&mut hasher),
        }
        let stamp = hasher.finish();
        let seen = self.watched.files.get(&key);
        let same = seen.is_some_and(|seen| seen.stamp == stamp);
        if same && !seen.is_some_and(|seen| seen.again) {
            return;
        }
        let taken = match decode::secret_in_file(path, own_name(&key), &self.context) {
            Err(problem) => Err((false, problem)),
            Ok((index, raw)) => {
                let incoming = Incoming {
                    name: own_name(&key).into(),
                    version: Name::default(),
                    raw: raw.into(),
                };
                let taken = self.take_secret(key.clone(), &incoming, now);
                taken.map_err(|error| {
                    let problem = decode::in_list(path, index, &error, &self.context);
                    let rejected = true;
                    (true, NotTaken { rejected, problem })
                })
            }
        };
        let again = matches!(taken, Err((true, _)));
        self.watched
            .files
            .insert(key.clone(), Seen { stamp, again });
        if let Err((_, NotTaken { rejected, problem })) = taken {
            if !same {
                let what = if rejected { "rejected" } else { "failure" };
                let secret = own_name(&key);
                tracing::warn!(target: "config", "Filesystem config update {what}: in {problem}; of the secret `{secret}`, what was there before stays");
                let updates = self.updates_of(&key);
                match rejected {
                    true => updates.rejected += 1,
                    false => updates.failed += 1,
                }
            }
            self.end_wait(key);
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
