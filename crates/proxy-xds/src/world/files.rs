//! Resources from files with discovery responses: all clusters and listeners where the bootstrap says
//! so, endpoints and routes where their users do. A file is read when it is first needed and whenever
//! it, or something in its watched directory, is moved into place; one that is not acceptable is said
//! in the log and counted, and what was there stays.
use std::collections::BTreeSet;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::bootstrap::WatchedFile;
use lateen_xds_proto::envoy::service::discovery::v3::DiscoveryResponse;

use super::{Incoming, Now, World};
use crate::ads::{Outcomes, resources_of};
use crate::decode::{self, ResourceSource, own_name};
use crate::error::DecodeError;
use crate::kind::Kind;
use crate::watch::Watch;

/// Between two looks at what was moved, milliseconds.
const LOOK: u64 = 200;

/// A file that something comes from: its kind, its key (empty for all clusters or listeners), itself.
type Source = (Kind, Name, WatchedFile);

/// Files and what became of them.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Set by [`World::open_files`]: nothing is read before.
    open: bool,
    watch: Watch,
    /// When to look what was moved, monotonic milliseconds.
    next_look: u64,
    clusters: Option<WatchedFile>,
    listeners: Option<WatchedFile>,
    /// Clusters come over ADS and have not come yet; listeners wait for them.
    clusters_awaited: bool,
    /// What was read and has not been moved since.
    read: BTreeSet<(Kind, Name)>,
    /// All listeners were read once.
    listeners_read: bool,
    outcomes: [Outcomes; 5],
}

/// Why a file changes nothing.
struct Unread {
    /// It could be read, and something in it is not acceptable.
    rejected: bool,
    problem: String,
}

impl World {
    /// Where all clusters and all listeners come from; `clusters_over_ads` = the former from the
    /// management server.
    pub fn set_files(
        &mut self,
        clusters: Option<WatchedFile>,
        listeners: Option<WatchedFile>,
        clusters_over_ads: bool,
    ) {
        self.files.clusters_awaited = clusters_over_ads && listeners.is_some();
        self.files.clusters = clusters;
        self.files.listeners = listeners;
    }

    /// Has files read and watched from the next [`World::settle`] on.
    ///
    /// # Errors
    /// When what the bootstrap names is not there or cannot be watched; (its field, why).
    pub fn open_files(&mut self) -> Result<(), (&'static str, DecodeError)> {
        let files = &mut self.files;
        for (field, file) in [
            ("cds_config", &files.clusters),
            ("lds_config", &files.listeners),
        ] {
            let Some(file) = file else { continue };
            let wrong = |problem| (field, DecodeError::new(problem));
            if let Err(e) = (self.context.read_file)(&file.path) {
                return Err(wrong(format!("{}: {e}", file.path)));
            }
            files.watch.add(file).map_err(wrong)?;
        }
        files.open = true;
        Ok(())
    }

    /// What became of the files of each kind.
    #[must_use]
    pub fn file_outcomes(&self) -> [Outcomes; 5] {
        self.files.outcomes
    }

    /// Clusters over ADS have come; listeners of a file need not wait for them any longer.
    pub(crate) fn clusters_came(&mut self) {
        self.files.clusters_awaited = false;
    }

    /// Whether all that the bootstrap names was read.
    pub(crate) fn files_were_read(&self) -> bool {
        let of = |file: &Option<WatchedFile>, kind: Kind| {
            file.is_none() || self.files.read.contains(&(kind, Name::default()))
        };
        of(&self.files.clusters, Kind::Cluster)
            && (self.files.listeners.is_none() || self.files.listeners_read)
    }

    /// Notes what was moved.
    pub(super) fn notice_moves(&mut self, now: Now) {
        if !self.files.watch.any() {
            return;
        }
        self.files.next_look = now.mono_ms.saturating_add(LOOK);
        let moved = self.files.watch.moved();
        if moved.is_empty() {
            return;
        }
        for (kind, key, file) in self.sources() {
            if moved.concerns(&file) {
                self.files.read.remove(&(kind, key));
            }
        }
    }

    /// Reads what is needed and was not read yet; false where there was nothing to read.
    pub(super) fn read_files(&mut self, now: Now) -> bool {
        if !self.files.open {
            return false;
        }
        let mut any = false;
        for (kind, key, file) in self.sources() {
            if self.files.read.contains(&(kind, key.clone())) || !self.may_read(kind) {
                continue;
            }
            any = true;
            self.files.listeners_read |= kind == Kind::Listener;
            self.files.read.insert((kind, key.clone()));
            self.read_one(kind, &key, &file, now);
        }
        any
    }

    /// The first listeners wait for the first clusters, as Envoy's do.
    fn may_read(&self, kind: Kind) -> bool {
        kind != Kind::Listener
            || self.files.listeners_read
            || !(self.files.clusters_awaited || self.is_warming(Kind::Cluster))
    }

    /// Forgets files that nobody needs any more.
    pub(super) fn forget_files(&mut self) {
        if !self.files.watch.any() {
            return;
        }
        let sources = self.sources();
        let files = &mut self.files;
        let keys: BTreeSet<_> = sources.iter().map(|(k, key, _)| (*k, key)).collect();
        files
            .read
            .retain(|(kind, key)| keys.contains(&(*kind, key)));
        files.watch.keep(sources.iter().map(|(_, _, file)| file));
    }

    /// When to look what was moved; none = nothing is watched.
    pub(super) fn next_files_look(&self) -> Option<u64> {
        self.files.watch.any().then_some(self.files.next_look)
    }

    /// All files that something comes from now, clusters before endpoints before listeners.
    fn sources(&self) -> BTreeSet<Source> {
        let clusters = self.clusters.active.values().map(|h| &h.needs);
        let clusters = clusters.chain(self.clusters.warming.values().map(|h| &h.needs));
        let listeners = self.listeners.active.values().map(|h| &h.needs);
        let listeners = listeners.chain(self.listeners.warming.values().map(|h| &h.needs));
        let needs = clusters.chain(listeners).flat_map(|needs| needs.iter());
        let named = needs.filter_map(|(kind, need)| match &need.source {
            // Secrets of files are looked at by their own rules.
            ResourceSource::File(file) if *kind != Kind::Secret => {
                Some((*kind, need.name.clone(), file.clone()))
            }
            _ => None,
        });
        let all = |kind, file: &Option<WatchedFile>| Some((kind, Name::default(), file.clone()?));
        named
            .chain(all(Kind::Cluster, &self.files.clusters))
            .chain(all(Kind::Listener, &self.files.listeners))
            .collect()
    }

    fn read_one(&mut self, kind: Kind, key: &Name, file: &WatchedFile, now: Now) {
        let outcome = self.watch_and_take(kind, key, file, now);
        let counts = &mut self.files.outcomes[kind as usize];
        let path = &file.path;
        match outcome {
            Ok(()) => counts.accepted += 1,
            Err(Unread {
                rejected: true,
                problem,
            }) => {
                counts.rejected += 1;
                tracing::warn!(target: "config", "Filesystem config update rejected: in {path}{problem}; what is acceptable beside it is taken, what was there before stays");
            }
            Err(Unread { problem, .. }) => {
                counts.failed += 1;
                tracing::warn!(target: "config", "Filesystem config update failure: in {problem}; what was there before stays");
            }
        }
        // Who waited for what a file does not have need not wait for anything else.
        if !kind.is_wildcard() && !self.is_here(kind, key) {
            self.fetches.remove(&(kind, key.clone()));
            self.missing.insert((kind, key.clone()));
        }
    }

    fn watch_and_take(
        &mut self,
        kind: Kind,
        key: &Name,
        file: &WatchedFile,
        now: Now,
    ) -> Result<(), Unread> {
        let failed = |problem| Unread {
            rejected: false,
            problem,
        };
        // Watched first: what is moved while it is read is read again.
        let watched = self.files.watch.add(file);
        watched.map_err(|problem| failed(format!("{}: {problem}", file.path)))?;
        let response = decode::discovery_file(&file.path, &self.context).map_err(failed)?;
        let rejected = |problem: String| Unread {
            rejected: true,
            problem: format!(": {problem}"),
        };
        let resources = resources_of(kind, &response).map_err(rejected)?;
        match kind.is_wildcard() {
            true => self.take_all(kind, file, &resources, &response, now),
            false => self.take_named(kind, key, file, &resources, now),
        }
    }

    fn take_all(
        &mut self,
        kind: Kind,
        file: &WatchedFile,
        resources: &[Incoming],
        response: &DiscoveryResponse,
        now: Now,
    ) -> Result<(), Unread> {
        let refused = self.update(kind, resources, &[], true, now);
        if refused.is_empty() {
            self.set_version(kind, &response.version_info);
            return Ok(());
        }
        let place = |(name, error): &(Name, String)| {
            let at = resources
                .iter()
                .position(|r| self.name_of(kind, r) == *name);
            match at {
                Some(index) => self.placed(file, index, name, error),
                None => format!(": {name}: {error}"),
            }
        };
        let all: Vec<String> = refused.iter().map(place).collect();
        Err(Unread {
            rejected: true,
            problem: all.join(", and"),
        })
    }

    /// `:line: resources[index] (name): error`.
    fn placed(&self, file: &WatchedFile, index: usize, name: &str, error: &str) -> String {
        let resource = format!("resources[{index}]");
        let field = match error.split_once(": ") {
            Some((path, _)) => format!("{resource}.{path}"),
            None => resource.clone(),
        };
        let line = decode::discovery_line(&file.path, &field, &self.context);
        format!("{line}: {resource} ({name}): {error}")
    }

    /// A file of endpoints or routes has one resource, of the name that is asked for, or none yet.
    fn take_named(
        &mut self,
        kind: Kind,
        key: &Name,
        file: &WatchedFile,
        resources: &[Incoming],
        now: Now,
    ) -> Result<(), Unread> {
        let rejected = |problem| Unread {
            rejected: true,
            problem,
        };
        let incoming = match resources {
            [] => return Ok(()),
            [one] => one,
            more => {
                let count = more.len();
                return Err(rejected(format!(
                    ": resources: has {count} {}s; one is expected, '{}'",
                    kind.word(),
                    own_name(key)
                )));
            }
        };
        let name = self.name_of(kind, incoming);
        if *name != *own_name(key) {
            let expected = own_name(key);
            let problem = format!("is named '{name}'; '{expected}' is expected");
            return Err(rejected(self.placed(file, 0, &name, &problem)));
        }
        let wrong = |world: &Self, error: DecodeError| {
            rejected(world.placed(file, 0, &name, &error.to_string()))
        };
        match self.decode(kind, incoming, now, true) {
            Ok(super::Decoded::Endpoints(_, h)) => {
                self.arrived(kind, key.clone(), h, true, |w| &mut w.endpoints);
            }
            Ok(super::Decoded::Routes(_, h)) => {
                self.arrived(kind, key.clone(), h, true, |w| &mut w.routes);
            }
            Ok(_) => {}
            Err(error) => return Err(wrong(self, error)),
        }
        Ok(())
    }
}
