//! A folder of YAML as a source: read once, then again whenever a file changes.
//! A file that cannot be read keeps its last good objects and is reported.

use crate::{Event, Sink};
use lateen_resources::kind::KINDS;
use lateen_resources::{
    Code, Diagnostic, Kind, Object, ObjectKey, Severity, SourceRef, check, read_yaml,
};
use notify::{RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes are read this long after the last of a burst: editors write a file
/// in several steps.
const QUIET: Duration = Duration::from_millis(30);
/// Files are looked at this often even when no notice comes (network file
/// systems and ConfigMap mounts do not always give one).
const POLL: Duration = Duration::from_secs(10);
/// Larger files are refused.
const MAX_FILE: u64 = 64 << 20;

/// Why a folder cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Changes cannot be noticed.
    #[error("cannot watch {path}: {source}")]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
}

/// What a file gave when it was last good.
#[derive(Debug, Default)]
struct File {
    stamp: Option<(std::time::SystemTime, u64)>,
    objects: Vec<Arc<Object>>,
    diagnostics: Vec<Diagnostic>,
}

/// The folder's state: files by path, and what was last delivered.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    namespace: String,
    files: BTreeMap<PathBuf, File>,
    delivered: HashMap<ObjectKey, Arc<Object>>,
    unreadable: Vec<Diagnostic>,
}

/// Delivers the objects of `folder` (files `*.yaml`, `*.yml`, `*.json`, subfolders
/// too) and follows its changes until `shutdown` or until the sink is closed.
/// Objects without a namespace get `namespace`.
pub async fn run_files(
    folder: PathBuf,
    namespace: String,
    sink: Sink,
    shutdown: impl Future<Output = ()>,
) -> Result<(), FilesError> {
    let (notice, mut notices) = mpsc::channel::<()>(1);
    let watch = |source| FilesError::Watch {
        path: folder.clone(),
        source,
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let read_only = event.as_ref().is_ok_and(|e| e.kind.is_access());
        if !read_only {
            // One pending notice is enough: the whole folder is looked at.
            let _ = notice.try_send(());
        }
    })
    .map_err(watch)?;
    if let Err(source) = std::fs::read_dir(&folder) {
        return Err(FilesError::Folder {
            path: folder,
            source,
        });
    }
    watcher
        .watch(&folder, RecursiveMode::Recursive)
        .map_err(watch)?;

    let mut state = Folder {
        path: folder,
        namespace,
        files: BTreeMap::new(),
        delivered: HashMap::new(),
        unreadable: Vec::new(),
    };
    for event in state.read()? {
        if sink.send(event).await.is_err() {
            return Ok(());
        }
    }
    if sink.send(Event::Synced).await.is_err() {
        return Ok(());
    }
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            () = sink.closed() => return Ok(()),
            _ = notices.recv() => {
                tokio::time::sleep(QUIET).await;
                let _ = notices.try_recv();
            }
            () = tokio::time::sleep(POLL) => {}
        }
        let events = match state.read() {
            Ok(events) => events,
            Err(e) => {
                // The folder may be in the middle of being replaced.
                tracing::warn!(error = %e, "configuration folder kept as it was");
                continue;
            }
        };
        for event in events {
            if sink.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Folder {
    /// Reads files that changed and gives the events that follow.
    fn read(&mut self) -> Result<Vec<Event>, FilesError> {
        let paths = list(&self.path).map_err(|source| FilesError::Folder {
            path: self.path.clone(),
            source,
        })?;
        self.files.retain(|p, _| paths.contains(p));
        for path in paths {
            let file = self.files.entry(path.clone()).or_default();
            let stamp = std::fs::metadata(&path)
                .and_then(|m| Ok((m.modified()?, m.len())))
                .ok();
            if stamp.is_some() && stamp == file.stamp {
                continue;
            }
            file.stamp = stamp;
            read_file(&path, &self.namespace, file);
        }
        Ok(self.events())
    }

    fn events(&mut self) -> Vec<Event> {
        let mut now: HashMap<ObjectKey, Arc<Object>> = HashMap::new();
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        for file in self.files.values() {
            diagnostics.extend(file.diagnostics.iter().cloned());
            for object in &file.objects {
                let key = ObjectKey::from(&**object);
                if let Some(first) = now.get(&key) {
                    diagnostics.push(twice(object, first));
                } else {
                    now.insert(key, object.clone());
                }
            }
        }
        let first = self.delivered.is_empty();
        let mut events = Vec::new();
        if first {
            events.extend(replacements(&now));
        } else {
            let gone = self.delivered.keys().filter(|k| !now.contains_key(*k));
            events.extend(gone.map(|k| Event::Delete(k.clone())));
            let fresh = now
                .iter()
                .filter(|(k, o)| self.delivered.get(*k) != Some(*o));
            events.extend(fresh.map(|(_, o)| Event::Upsert(o.clone())));
        }
        if diagnostics != self.unreadable {
            self.unreadable.clone_from(&diagnostics);
            events.push(Event::Unreadable(diagnostics));
        }
        self.delivered = now;
        events
    }
}

fn replacements(now: &HashMap<ObjectKey, Arc<Object>>) -> Vec<Event> {
    let mut kinds: HashMap<Kind, Vec<Arc<Object>>> = HashMap::new();
    for (key, object) in now {
        kinds.entry(key.kind).or_default().push(object.clone());
    }
    let in_order = KINDS
        .iter()
        .filter_map(|k| Some((k.kind, kinds.remove(&k.kind)?)));
    in_order
        .map(|(kind, objects)| Event::Replace(kind, objects))
        .collect()
}

fn twice(object: &Object, first: &Object) -> Diagnostic {
    let place = first
        .source("")
        .map(|s| format!(" in {s}"))
        .unwrap_or_default();
    let message = format!("Schema validation error: the object is there already{place}");
    Diagnostic::new(Code::SCHEMA, Some(object.reference()), message)
        .remedy("remove one of the two")
        .source(object.source(""))
}

/// Files of the folder and its subfolders, hidden ones left out.
fn list(folder: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut out = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let hidden = path
                .file_name()
                .is_none_or(|n| n.to_string_lossy().starts_with('.'));
            if hidden {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
            {
                out.insert(path);
            }
        }
    }
    Ok(out)
}

/// Reads one file; on an error its last good objects stay.
fn read_file(path: &Path, namespace: &str, file: &mut File) {
    let name = path.display().to_string();
    let text = std::fs::metadata(path).and_then(|m| {
        // Opening a pipe would wait for a writer that never comes.
        if !m.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        if m.len() > MAX_FILE {
            return Err(std::io::Error::other("larger than 64 MiB"));
        }
        std::fs::read_to_string(path)
    });
    let text = match text {
        Ok(text) => text,
        Err(e) => {
            let source = SourceRef {
                file: name.as_str().into(),
                line: 1,
            };
            let message = format!("Schema validation error: cannot read {name}: {e}");
            tracing::warn!(file = %name, error = %e, "not taken over: it cannot be read");
            let d = Diagnostic::new(Code::SCHEMA, None, message).source(Some(source));
            file.diagnostics = vec![d];
            return;
        }
    };
    let read = read_yaml(&text, &name, namespace);
    let checks = read.objects.iter().flat_map(check::check);
    let bad = read.has_errors() || checks.into_iter().any(|d| d.severity == Severity::Error);
    file.diagnostics = read.diagnostics;
    if bad {
        // What the checks say about delivered objects is repeated by the
        // compiler; about refused ones only here.
        let checks = read.objects.iter().flat_map(check::check);
        file.diagnostics.extend(checks);
        tracing::warn!(file = %name, "not taken over: {}", first_line(&file.diagnostics));
        if !file.objects.is_empty() {
            return;
        }
        // Nothing good is known yet: what can be used is used.
        file.objects = read
            .objects
            .into_iter()
            .filter(|o| {
                !check::check(o)
                    .iter()
                    .any(|d| d.severity == Severity::Error)
            })
            .map(Arc::new)
            .collect();
        return;
    }
    file.objects = read.objects.into_iter().map(Arc::new).collect();
}

fn first_line(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .first()
        .map(ToString::to_string)
        .unwrap_or_default()
}
