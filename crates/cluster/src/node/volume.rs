//! A pod's volumes as directories of the host: payloads of ConfigMaps, Secrets, tokens and the
//! downward API, written so that a reader sees either all old or all new files.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use serde::Deserialize;

use super::env::{self, PodFacts};
use super::host::bind;
use super::process::spec::Mount;
use crate::api::resource::{CONFIG_MAPS, SECRETS};
use crate::api::{Api, BoundPod};

/// Files of a volume: relative path, content, mode.
pub type Payload = BTreeMap<String, (Vec<u8>, u32)>;

/// Where a volume lies on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Directory or (host path) file.
    pub path: PathBuf,
    /// Only visible inside the sandbox: sub-paths cannot be checked from the host.
    pub memory: bool,
}

/// A token that was written, and when it must be renewed (seconds since 1970).
#[derive(Debug, Clone)]
struct Token {
    text: String,
    renew_at: i64,
}

/// The volumes of one pod.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    places: BTreeMap<String, Place>,
    tokens: Mutex<BTreeMap<String, Token>>,
}

/// A volume that could not be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeError {
    /// Volume name.
    pub volume: String,
    /// Why.
    pub message: String,
}

/// What volume set-up needs beside the pod.
#[derive(Clone, Copy)]
pub struct VolumeContext<'a> {
    /// The API.
    pub api: &'a Api,
    /// The pod.
    pub pod: &'a Pod,
    /// Addresses and node size, for the downward API.
    pub facts: &'a PodFacts,
}

fn default_mode(mode: Option<i32>) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644)
}

/// Whether a path stays below the directory it is joined to.
fn stays_inside(path: &str) -> bool {
    Path::new(path)
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

fn select(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .into_iter()
            .map(|(key, content)| (key, (content, mode)))
            .collect());
    };
    let mut payload = Payload::new();
    for item in items {
        if !stays_inside(&item.path) {
            return Err(format!("invalid path {:?}", item.path));
        }
        let mode = item.mode.map_or(mode, |m| default_mode(Some(m)));
        match data.get(&item.key) {
            Some(content) => {
                payload.insert(item.path.clone(), (content.clone(), mode));
            }
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(payload)
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map
        .data
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.0.clone()));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret
        .data
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.0.clone()))
        .collect()
}

impl VolumeContext<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: u32,
        optional: bool,
    ) -> Result<Payload, String> {
        match self
            .api
            .get(&CONFIG_MAPS, Some(self.namespace()), name)
            .await
        {
            Ok(object) => {
                let map = ConfigMap::deserialize(&*object).map_err(|e| e.to_string())?;
                select(config_map_data(&map), items, mode, optional)
            }
            Err(error) if error.code == 404 && optional => Ok(Payload::new()),
            Err(error) if error.code == 404 => Err(format!("configmap {name:?} not found")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: u32,
        optional: bool,
    ) -> Result<Payload, String> {
        match self.api.get(&SECRETS, Some(self.namespace()), name).await {
            Ok(object) => {
                let secret = Secret::deserialize(&*object).map_err(|e| e.to_string())?;
                select(secret_data(&secret), items, mode, optional)
            }
            Err(error) if error.code == 404 && optional => Ok(Payload::new()),
            Err(error) if error.code == 404 => Err(format!("secret {name:?} not found")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: u32) -> Result<Payload, String> {
        let mut payload = Payload::new();
        for item in items {
            if !stays_inside(&item.path) {
                return Err(format!("invalid path {:?}", item.path));
            }
            let text = if let Some(field) = &item.field_ref {
                env::pod_field(self.pod, &field.field_path, self.facts)?
            } else if let Some(resource) = &item.resource_field_ref {
                env::resource_field(self.pod, &Container::default(), resource, self.facts)?
            } else {
                String::new()
            };
            let mode = item.mode.map_or(mode, |m| default_mode(Some(m)));
            payload.insert(item.path.clone(), (text.into_bytes(), mode));
        }
        Ok(payload)
    }

    /// A service account token, kept until four fifths of its life are over.
    async fn token(
        &self,
        volumes: &Volumes,
        volume: &str,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<Vec<u8>, String> {
        let key = format!("{volume}/{}", wanted.path);
        let now = jiff::Timestamp::now().as_second();
        if let Some(token) = volumes.token(&key).filter(|t| now < t.renew_at) {
            return Ok(token.text.into_bytes());
        }
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let account = spec
            .and_then(|s| s.service_account_name.as_deref())
            .unwrap_or("default");
        let audiences: Vec<String> = wanted
            .audience
            .iter()
            .filter(|a| !a.is_empty())
            .cloned()
            .collect();
        let life = wanted.expiration_seconds.unwrap_or(3600);
        let bound = BoundPod {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        };
        let made = self
            .api
            .service_account_token(self.namespace(), account, &audiences, life, Some(&bound))
            .await
            .map_err(|e| format!("failed to fetch token: {e}"))?;
        let renew_at = now + (made.expires_at - now).max(0) / 5 * 4;
        volumes.keep_token(
            key,
            Token {
                text: made.token.clone(),
                renew_at,
            },
        );
        Ok(made.token.into_bytes())
    }

    async fn projection(
        &self,
        volumes: &Volumes,
        volume: &str,
        source: &VolumeProjection,
        mode: u32,
    ) -> Result<Payload, String> {
        if let Some(map) = &source.config_map {
            return self
                .config_map(
                    &map.name,
                    map.items.as_deref(),
                    mode,
                    map.optional == Some(true),
                )
                .await;
        }
        if let Some(secret) = &source.secret {
            return self
                .secret(
                    &secret.name,
                    secret.items.as_deref(),
                    mode,
                    secret.optional == Some(true),
                )
                .await;
        }
        if let Some(downward) = &source.downward_api {
            return self.downward(downward.items.as_deref().unwrap_or_default(), mode);
        }
        if let Some(token) = &source.service_account_token {
            if !stays_inside(&token.path) {
                return Err(format!("invalid path {:?}", token.path));
            }
            let text = self.token(volumes, volume, token).await?;
            return Ok([(token.path.clone(), (text, mode))].into());
        }
        Err("unsupported projection".to_owned())
    }

    /// The files of a volume whose content comes from the API; `None` for other kinds.
    async fn payload(&self, volumes: &Volumes, volume: &Volume) -> Result<Option<Payload>, String> {
        if let Some(source) = &volume.config_map {
            let mode = default_mode(source.default_mode);
            let optional = source.optional == Some(true);
            return self
                .config_map(&source.name, source.items.as_deref(), mode, optional)
                .await
                .map(Some);
        }
        if let Some(source) = &volume.secret {
            let mode = default_mode(source.default_mode);
            let optional = source.optional == Some(true);
            let name = source.secret_name.as_deref().unwrap_or_default();
            return self
                .secret(name, source.items.as_deref(), mode, optional)
                .await
                .map(Some);
        }
        if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            return self
                .downward(items, default_mode(source.default_mode))
                .map(Some);
        }
        if let Some(source) = &volume.projected {
            let mode = default_mode(source.default_mode);
            let mut all = Payload::new();
            for part in source.sources.iter().flatten() {
                all.extend(self.projection(volumes, &volume.name, part, mode).await?);
            }
            return Ok(Some(all));
        }
        Ok(None)
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

impl Volumes {
    /// Volumes below `root` (made when missing). Nothing is written yet.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            places: BTreeMap::new(),
            tokens: Mutex::default(),
        }
    }

    fn token(&self, key: &str) -> Option<Token> {
        self.tokens.lock().ok()?.get(key).cloned()
    }

    fn keep_token(&self, key: String, token: Token) {
        if let Ok(mut tokens) = self.tokens.lock() {
            tokens.insert(key, token);
        }
    }

    /// Memory file systems that the sandbox must mount: directory and options.
    pub fn memory_mounts(&self, pod: &Pod) -> Vec<(String, String)> {
        let group = fs_group(pod);
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
        let memory = volumes.into_iter().flatten().filter_map(|volume| {
            let source = volume.empty_dir.as_ref()?;
            (source.medium.as_deref() == Some("Memory")).then_some(())?;
            let mut options =
                group.map_or("mode=0777".to_owned(), |g| format!("mode=2777,gid={g}"));
            let bytes = source
                .size_limit
                .as_ref()
                .and_then(env::milli)
                .map(|m| m / 1000);
            if let Some(bytes) = bytes.filter(|b| *b > 0) {
                options.push_str(&format!(",size={bytes}"));
            }
            Some((self.root.join(&volume.name).to_str()?.to_owned(), options))
        });
        memory.collect()
    }

    /// Sets up all volumes, or refreshes those whose content comes from the API.
    ///
    /// # Errors
    /// The first volume that cannot be set up; others may have been.
    pub async fn set_up(&mut self, context: VolumeContext<'_>) -> Result<(), VolumeError> {
        let volumes = context
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.volumes.clone())
            .unwrap_or_default();
        for volume in &volumes {
            let place = self.set_up_one(context, volume).await;
            let place = place.map_err(|message| VolumeError {
                volume: volume.name.clone(),
                message,
            })?;
            self.places.insert(volume.name.clone(), place);
        }
        Ok(())
    }

    /// Writes new content into volumes whose source changed.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub async fn refresh(&self, context: VolumeContext<'_>) -> Result<(), VolumeError> {
        let volumes = context.pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
        for volume in volumes.into_iter().flatten() {
            let result = async {
                if let Some(payload) = context.payload(self, volume).await? {
                    let dir = self.root.join(&volume.name);
                    write_payload(&dir, &payload, fs_group(context.pod))
                        .map_err(|e| e.to_string())?;
                }
                Ok(())
            };
            result.await.map_err(|message| VolumeError {
                volume: volume.name.clone(),
                message,
            })?;
        }
        Ok(())
    }

    async fn set_up_one(
        &self,
        context: VolumeContext<'_>,
        volume: &Volume,
    ) -> Result<Place, String> {
        let path = self.root.join(&volume.name);
        let group = fs_group(context.pod);
        if let Some(source) = &volume.host_path {
            let path = host_path(&source.path, source.type_.as_deref().unwrap_or_default())?;
            return Ok(Place {
                path,
                memory: false,
            });
        }
        fs::create_dir_all(&path).map_err(|e| e.to_string())?;
        if let Some(source) = &volume.empty_dir {
            let memory = source.medium.as_deref() == Some("Memory");
            let mode = if group.is_some() { 0o2777 } else { 0o777 };
            chown(&path, None, group).map_err(|e| e.to_string())?;
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(|e| e.to_string())?;
            return Ok(Place { path, memory });
        }
        match context.payload(self, volume).await? {
            Some(payload) => write_payload(&path, &payload, group).map_err(|e| e.to_string())?,
            None if volume.persistent_volume_claim.is_some() => {
                return Err("persistent volume claims are not supported in this cluster".to_owned());
            }
            None => return Err("this kind of volume is not supported in this cluster".to_owned()),
        }
        Ok(Place {
            path,
            memory: false,
        })
    }

    /// A container's mounts.
    ///
    /// # Errors
    /// The message of a `CreateContainerConfigError`.
    pub fn mounts(
        &self,
        container: &Container,
        env: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, String> {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.map(|mount| self.mount(mount, env)).collect()
    }

    fn mount(&self, mount: &VolumeMount, env: &BTreeMap<String, String>) -> Result<Mount, String> {
        let place = self.places.get(&mount.name);
        let place = place.ok_or_else(|| format!("volume {:?} not found", mount.name))?;
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(sub), _) if !sub.is_empty() => sub.clone(),
            (_, Some(expression)) if !expression.is_empty() => env::expand(expression, env),
            _ => String::new(),
        };
        let path = if sub.is_empty() {
            place.path.clone()
        } else {
            sub_path(place, &sub)?
        };
        let source = path.to_str().ok_or("a volume path is not text")?;
        let target = if mount.mount_path.starts_with('/') {
            mount.mount_path.clone()
        } else {
            format!("/{}", mount.mount_path)
        };
        Ok(bind(source, &target, mount.read_only == Some(true)))
    }

    /// Removes everything the volumes hold (host paths excepted).
    ///
    /// # Errors
    /// When files cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn sub_path(place: &Place, sub: &str) -> Result<PathBuf, String> {
    if !stays_inside(sub) {
        return Err(format!("subPath {sub:?} leaves the volume"));
    }
    let path = place.path.join(sub);
    if place.memory {
        return Ok(path);
    }
    if !path.exists() {
        fs::create_dir_all(&path).map_err(|e| format!("subPath {sub:?}: {e}"))?;
    }
    // A link planted in the volume must not lead out of it.
    let real = path
        .canonicalize()
        .map_err(|e| format!("subPath {sub:?}: {e}"))?;
    let base = place.path.canonicalize().map_err(|e| e.to_string())?;
    if real.starts_with(&base) {
        Ok(real)
    } else {
        Err(format!("subPath {sub:?} leaves the volume"))
    }
}

fn host_path(path: &str, kind: &str) -> Result<PathBuf, String> {
    let wrong = |what: &str| format!("hostPath type check failed: {path} is not a {what}");
    let is = |check: fn(&fs::Metadata) -> bool| fs::metadata(path).is_ok_and(|m| check(&m));
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(path).map_err(|e| e.to_string())?,
        "FileOrCreate" if !Path::new(path).exists() => {
            fs::File::create(path).map_err(|e| e.to_string())?;
        }
        "Directory" if !is(fs::Metadata::is_dir) => return Err(wrong("directory")),
        "File" if !is(fs::Metadata::is_file) => return Err(wrong("file")),
        "" if !Path::new(path).exists() => fs::create_dir_all(path).map_err(|e| e.to_string())?,
        _ => {}
    }
    Path::new(path)
        .canonicalize()
        .map_err(|e| format!("{path}: {e}"))
}

/// Writes files behind the link `..data`, which moves from the old set to the new at once. Nothing
/// is touched when content and modes are those already there.
fn write_payload(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let data = dir.join("..data");
    if unchanged(&data, payload, group.is_some()) {
        return Ok(());
    }
    let old = fs::read_link(&data).ok();
    let name = format!("..{:016x}", fastrand::u64(..));
    let fresh = dir.join(&name);
    fs::create_dir(&fresh)?;
    for (path, (content, mode)) in payload {
        let file = fresh.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, content)?;
        chown(&file, None, group)?;
        fs::set_permissions(
            &file,
            Permissions::from_mode(file_mode(*mode, group.is_some())),
        )?;
    }
    let swap = dir.join("..data_tmp");
    symlink(&name, &swap)?;
    fs::rename(&swap, &data)?;
    link_names(dir, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

fn file_mode(mode: u32, grouped: bool) -> u32 {
    if grouped { mode | 0o440 } else { mode }
}

fn unchanged(data: &Path, payload: &Payload, grouped: bool) -> bool {
    let same = |(path, (content, mode)): (&String, &(Vec<u8>, u32))| {
        let file = data.join(path);
        let wanted = file_mode(*mode, grouped);
        fs::metadata(&file).is_ok_and(|m| m.permissions().mode() & 0o7777 == wanted)
            && fs::read(&file).is_ok_and(|now| now == *content)
    };
    data.exists() && count_files(data) == payload.len() && payload.iter().all(same)
}

fn count_files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| {
            if e.path().is_dir() {
                count_files(&e.path())
            } else {
                1
            }
        })
        .sum()
}

/// The visible names: a link per first path segment, none for names that are gone.
fn link_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: std::collections::BTreeSet<String> = payload.keys().map(|p| first(p)).collect();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        match symlink(format!("..data/{name}"), dir.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn payload(items: &[(&str, &str)]) -> Payload {
        items
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (v.as_bytes().to_vec(), 0o640)))
            .collect()
    }

    #[test]
    fn files_change_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        write_payload(path, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(path.join("sub/b")).unwrap(), "2");
        assert_eq!(
            fs::metadata(path.join("a")).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let first = fs::read_link(path.join("..data")).unwrap();
        write_payload(path, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(path.join("..data")).unwrap(), first);
        write_payload(path, &payload(&[("a", "9"), ("c", "3")]), None).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "9");
        assert!(!path.join("sub").exists() && fs::symlink_metadata(path.join("sub")).is_err());
        assert!(!path.join(first).exists());
    }

    #[test]
    fn items_choose_and_rename() {
        let data: BTreeMap<String, Vec<u8>> = [("k".to_owned(), b"v".to_vec())].into();
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "k", "path": "d/x", "mode": 0o400}])).unwrap();
        let chosen = select(data.clone(), Some(&items), 0o644, false).unwrap();
        assert_eq!(chosen["d/x"], (b"v".to_vec(), 0o400));
        let missing: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "no", "path": "x"}])).unwrap();
        assert!(
            select(data.clone(), Some(&missing), 0o644, false)
                .unwrap_err()
                .contains("non-existent config key: no")
        );
        assert!(
            select(data.clone(), Some(&missing), 0o644, true)
                .unwrap()
                .is_empty()
        );
        let escaping: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "k", "path": "../x"}])).unwrap();
        assert!(select(data, Some(&escaping), 0o644, false).is_err());
    }

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            path: dir.path().canonicalize().unwrap(),
            memory: false,
        };
        symlink("/etc", dir.path().join("out")).unwrap();
        assert!(sub_path(&place, "a/b").unwrap().ends_with("a/b"));
        assert!(sub_path(&place, "../x").is_err());
        assert!(sub_path(&place, "/etc").is_err());
        assert!(
            sub_path(&place, "out")
                .unwrap_err()
                .contains("leaves the volume")
        );
    }
}
