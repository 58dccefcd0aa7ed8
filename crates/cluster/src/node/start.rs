//! Starting one container: image, environment, mounts, identity, process, post-start hook.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::agent::{Agent, PodEntry, locked};
use super::cgroup::Group;
use super::env::{self, EnvSources, PodFacts};
use super::event::Level;
use super::hook;
use super::identity;
use super::image::{self, Image, ImageError};
use super::live::{Live, LiveSpec};
use super::log::Log;
use super::plan::Role;
use super::process::sandbox::{Process, Sandbox, StartError};
use super::process::spec::Launch;
use super::rootfs::{self, RootInputs};
use super::runtime::ExitStatus;
use super::volume::Volumes;
use crate::api::resource::{CONFIG_MAPS, Resource, SECRETS, SERVICES};
use crate::api::{ApiError, Selectors};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that starting a container needs.
#[derive(Debug, Clone)]
pub struct StartJob {
    /// The agent.
    pub agent: Arc<Agent>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub container: Container,
    /// What it is to the pod.
    pub role: Role,
    /// The container whose processes it sees, when it is an ephemeral one with a target.
    pub target: Option<String>,
    /// Number of this instance, from 0.
    pub instance: u32,
    /// The pod's sandbox.
    pub sandbox: Arc<Sandbox>,
    /// The pod's volumes.
    pub volumes: Arc<Volumes>,
    /// Addresses.
    pub facts: PodFacts,
    /// Where streaming requests look.
    pub entry: Arc<PodEntry>,
}

/// Why a container did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartFailure {
    /// The image is not to be had; reason and message of the waiting state.
    Image(&'static str, String),
    /// The configuration is incomplete: `CreateContainerConfigError`.
    Config(String),
    /// The program could not be executed: counts as an instance that ended.
    Run(String),
    /// The post-start hook failed; the container was killed.
    Hook(String),
}

/// A started container.
#[derive(Debug)]
pub struct Started {
    /// It.
    pub live: Arc<Live>,
    /// Resolves when it ended.
    pub end: JoinHandle<ExitStatus>,
    /// Image with registry and tag.
    pub image_id: String,
}

impl StartJob {
    /// The event field of this container.
    pub fn field(&self) -> String {
        field(self.role, &self.container.name)
    }

    fn event(&self, level: Level, reason: &'static str, message: String) {
        self.agent
            .events
            .record(&self.pod, &self.field(), level, reason, message);
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// File on the host that holds this instance's termination message.
    pub fn termination_log(&self) -> PathBuf {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        self.agent
            .pod_dir(uid)
            .join("messages")
            .join(format!("{}.{}", self.container.name, self.instance))
    }

    /// File of this instance's log.
    pub fn log_path(&self) -> PathBuf {
        log_path(&self.entry, &self.container.name, self.instance)
    }
}

/// The event field of a container.
pub fn field(role: Role, name: &str) -> String {
    match role {
        Role::Main => format!("spec.containers{{{name}}}"),
        Role::Init | Role::Sidecar => format!("spec.initContainers{{{name}}}"),
        Role::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
    }
}

/// File of an instance's log.
pub fn log_path(entry: &PodEntry, container: &str, instance: u32) -> PathBuf {
    entry
        .log_dir
        .join(container)
        .join(format!("{instance}.log"))
}

/// Starts the container.
///
/// # Errors
/// See [`StartFailure`]; events were recorded.
pub async fn start(job: &StartJob) -> Result<Started, StartFailure> {
    let image = find_image(job)?;
    let prepared = prepare(job, &image).await;
    let (launch, interactive, stdin_once) = prepared.map_err(|message| {
        job.event(Level::Warning, "Failed", format!("Error: {message}"));
        StartFailure::Config(message)
    })?;
    let beside = target(job).map_err(|message| {
        job.event(Level::Warning, "Failed", format!("Error: {message}"));
        StartFailure::Config(message)
    })?;
    job.event(
        Level::Normal,
        "Created",
        format!("Created container: {}", job.container.name),
    );
    let failed = |message: String| {
        job.event(Level::Warning, "Failed", format!("Error: {message}"));
        StartFailure::Run(message)
    };
    let log = Log::create(job.log_path()).map_err(|e| failed(format!("log: {e}")))?;
    let log = Arc::new(log);
    if let Some(entry) = locked(&job.entry.containers).get_mut(&job.container.name) {
        entry.instance = Some(job.instance);
        entry.log = Some(Arc::clone(&log));
    }
    let id = format!(
        "lateen://{:016x}{:016x}{:016x}{:016x}",
        fastrand::u64(..),
        fastrand::u64(..),
        fastrand::u64(..),
        fastrand::u64(..)
    );
    let group = memory_group(job, &id).map_err(|e| failed(format!("memory limit: {e}")))?;
    let launch = Launch {
        group: group.as_ref().map(entrance),
        ..launch
    };
    let spec = LiveSpec {
        launch,
        interactive,
        stdin_once,
        id,
        group,
        beside,
    };
    let started = Live::start(Arc::clone(&job.sandbox), spec, log).await;
    let (live, end) = started.map_err(|error| match error {
        StartError::Refused { message, .. } => {
            failed(format!("failed to start container: {message}"))
        }
        other => failed(other.to_string()),
    })?;
    if let Some(entry) = locked(&job.entry.containers).get_mut(&job.container.name) {
        entry.live = Some(Arc::clone(&live));
    }
    job.event(
        Level::Normal,
        "Started",
        format!("Started container {}", job.container.name),
    );
    if let Err(failure) = post_start(job, &live).await {
        // A copy left running would hold its ports against the next one.
        live.kill().await;
        if end.await.is_err() {
            tracing::warn!(container = %job.container.name, "its follower ended early");
        }
        return Err(failure);
    }
    Ok(Started {
        live,
        end,
        image_id: image::normalized(job.container.image.as_deref().unwrap_or_default()),
    })
}

/// The running process whose pid namespace the container joins.
fn target(job: &StartJob) -> Result<Option<Process>, String> {
    let Some(name) = job.target.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let containers = locked(&job.entry.containers);
    let live = containers.get(name).and_then(|entry| entry.live.as_ref());
    match live {
        Some(live) => Ok(Some(live.process.clone())),
        None => Err(format!("couldn't find target container {name:?}")),
    }
}

/// The control group of a container with a memory limit, where the host has such groups.
fn memory_group(job: &StartJob, id: &str) -> std::io::Result<Option<Group>> {
    let resources = job.container.resources.as_ref();
    let limit = resources
        .and_then(|r| r.limits.as_ref()?.get("memory"))
        .and_then(env::milli)
        .and_then(|milli| u64::try_from(milli / 1000).ok())
        .filter(|bytes| *bytes > 0);
    match (&job.agent.groups, limit) {
        (Some(groups), Some(limit)) => {
            let id = id.rsplit('/').next().unwrap_or(id);
            groups.limited(id, limit).map(Some)
        }
        _ => Ok(None),
    }
}

fn entrance(group: &Group) -> String {
    group.entrance().to_string_lossy().into_owned()
}

async fn post_start(job: &StartJob, live: &Arc<Live>) -> Result<(), StartFailure> {
    let handler = job
        .container
        .lifecycle
        .as_ref()
        .and_then(|l| l.post_start.as_ref());
    let Some(handler) = handler else {
        return Ok(());
    };
    let done = hook::run(
        handler,
        &job.container,
        live,
        &job.facts.pod_ip,
        hook::LONGEST,
    )
    .await;
    done.map_err(|message| {
        job.event(
            Level::Warning,
            "FailedPostStartHook",
            format!("PostStartHook failed: {message}"),
        );
        StartFailure::Hook(message)
    })?;
    Ok(())
}

fn find_image(job: &StartJob) -> Result<Image, StartFailure> {
    let name = job.container.image.as_deref().unwrap_or_default();
    let policy = job.container.image_pull_policy.as_deref();
    let always = match policy {
        Some(policy) => policy == "Always",
        None => image::is_latest(name),
    };
    match job.agent.options.images.find(name) {
        Ok(image) => {
            if always {
                job.event(Level::Normal, "Pulling", format!("Pulling image {name:?}"));
                let text = format!(
                    "Successfully pulled image {name:?} in 1ms (1ms including waiting). Image size: {} bytes.",
                    image.size
                );
                job.event(Level::Normal, "Pulled", text);
            } else {
                job.event(
                    Level::Normal,
                    "Pulled",
                    format!("Container image {name:?} already present on machine"),
                );
            }
            Ok(image.clone())
        }
        Err(ImageError::Invalid(_)) => {
            let text = format!(
                "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: invalid reference format"
            );
            job.event(Level::Warning, "InspectFailed", text.clone());
            Err(StartFailure::Image("InvalidImageName", text))
        }
        Err(ImageError::Unknown(_)) if policy == Some("Never") => {
            let text = format!("Container image {name:?} is not present with pull policy of Never");
            job.event(Level::Warning, "ErrImageNeverPull", text.clone());
            Err(StartFailure::Image("ErrImageNeverPull", text))
        }
        Err(ImageError::Unknown(_)) => {
            job.event(Level::Normal, "Pulling", format!("Pulling image {name:?}"));
            let text = format!(
                "failed to pull image {name:?}: {}",
                job.agent.options.images.hint()
            );
            job.event(
                Level::Warning,
                "Failed",
                format!(
                    "Failed to pull image {name:?}: {}",
                    job.agent.options.images.hint()
                ),
            );
            job.event(Level::Warning, "Failed", "Error: ErrImagePull".to_owned());
            Err(StartFailure::Image("ErrImagePull", text))
        }
    }
}

/// The program with its root, and whether it wants input.
async fn prepare(job: &StartJob, image: &Image) -> Result<(Launch, bool, bool), String> {
    let container = &job.container;
    let security = identity::security(&job.pod, container, image)?;
    let sources = gather(job).await.map_err(|e| e.to_string())?;
    let own = env::build(&job.pod, container, &sources, &job.facts)?;
    let tty = container.tty == Some(true);
    let environment = environment(job, image, own, security.identity.uid, tty);
    let known: BTreeMap<String, String> = environment.iter().cloned().collect();
    let argv = argv(container, image, &known);
    let termination_log = job.termination_log();
    if let Some(parent) = termination_log.parent() {
        std::fs::create_dir_all(parent).map_err(|e| e.to_string())?;
    }
    std::fs::write(&termination_log, b"").map_err(|e| e.to_string())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&termination_log, mode).map_err(|e| e.to_string())?;
    let text = |path: PathBuf| {
        path.to_str()
            .map(str::to_owned)
            .ok_or("a state path is not text")
    };
    let pod_dir = job
        .agent
        .pod_dir(job.pod.metadata.uid.as_deref().unwrap_or_default());
    let inputs = RootInputs {
        mountpoint: text(job.agent.mountpoint.clone())?,
        program: text(job.agent.options.program.clone())?,
        pod_files: text(pod_dir.join("etc"))?,
        shared_memory: text(pod_dir.join("shm"))?,
        termination_log: text(termination_log)?,
        termination_path: container
            .termination_message_path
            .clone()
            .unwrap_or_else(|| "/dev/termination-log".to_owned()),
        volumes: job.volumes.mounts(container, &known)?,
        user: (security.identity.uid, security.identity.gid),
        privileged: security.privileged,
        readonly: security.readonly_root,
    };
    let cwd = container
        .working_dir
        .clone()
        .filter(|d| !d.is_empty())
        .unwrap_or_else(|| image.working_dir.clone());
    let share_pid = job
        .pod
        .spec
        .as_ref()
        .and_then(|s| s.share_process_namespace)
        .unwrap_or(false);
    let launch = Launch {
        root: Some(rootfs::plan(image, &job.agent.host, &inputs)),
        argv,
        env: environment,
        cwd,
        identity: security.identity,
        tty,
        group: None,
        share_pid,
    };
    Ok((
        launch,
        container.stdin == Some(true),
        container.stdin_once == Some(true),
    ))
}

/// Image and runtime variables first, the pod's own over them.
fn environment(
    job: &StartJob,
    image: &Image,
    own: Vec<(String, String)>,
    uid: u32,
    tty: bool,
) -> Vec<(String, String)> {
    let home = if uid == 0 { "/root" } else { "/home/app" };
    let mut all = vec![
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOSTNAME".to_owned(), super::files::host_name(&job.pod)),
        ("HOME".to_owned(), home.to_owned()),
    ];
    if tty {
        all.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    for (name, value) in image.env.iter().cloned().chain(own) {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => all.push((name, value)),
        }
    }
    all
}

fn argv(container: &Container, image: &Image, env: &BTreeMap<String, String>) -> Vec<String> {
    let expanded = |list: Option<&Vec<String>>| {
        list.map(|list| {
            list.iter()
                .map(|word| env::expand(word, env))
                .collect::<Vec<_>>()
        })
        .filter(|list| !list.is_empty())
    };
    match (
        expanded(container.command.as_ref()),
        expanded(container.args.as_ref()),
    ) {
        (Some(mut command), args) => {
            command.extend(args.unwrap_or_default());
            command
        }
        (None, Some(args)) => image.entrypoint.iter().cloned().chain(args).collect(),
        (None, None) => image
            .entrypoint
            .iter()
            .chain(&image.command)
            .cloned()
            .collect(),
    }
}

/// The ConfigMaps, Secrets and Services that the environment refers to.
async fn gather(job: &StartJob) -> Result<EnvSources, ApiError> {
    let mut sources = EnvSources::default();
    let mut maps: Vec<&str> = Vec::new();
    let mut secrets: Vec<&str> = Vec::new();
    for from in job.container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.as_str()));
    }
    for variable in job.container.env.iter().flatten() {
        if let Some(from) = &variable.value_from {
            maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
            secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.as_str()));
        }
    }
    for name in maps {
        if let Some(map) = fetch::<ConfigMap>(job, &CONFIG_MAPS, name).await? {
            sources.config_maps.insert(name.to_owned(), map);
        }
    }
    for name in secrets {
        if let Some(secret) = fetch::<Secret>(job, &SECRETS, name).await? {
            sources.secrets.insert(name.to_owned(), secret);
        }
    }
    let namespace = job.namespace();
    let (services, _) = job
        .agent
        .api
        .list(&SERVICES, Some(namespace), &Selectors::all())
        .await?;
    let read =
        |object: &serde_json::Value| <Service as serde::Deserialize>::deserialize(object).ok();
    sources.services = services.iter().filter_map(|object| read(object)).collect();
    if namespace != "default" {
        let api = job
            .agent
            .api
            .get(&SERVICES, Some("default"), "kubernetes")
            .await;
        sources
            .services
            .extend(api.ok().and_then(|object| read(&object)));
    }
    Ok(sources)
}

async fn fetch<T: DeserializeOwned>(
    job: &StartJob,
    resource: &Resource,
    name: &str,
) -> Result<Option<T>, ApiError> {
    match job
        .agent
        .api
        .get(resource, Some(job.namespace()), name)
        .await
    {
        Ok(object) => Ok(T::deserialize(&*object).ok()),
        Err(error) if error.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(container: Value) -> Vec<String> {
        let container: Container = serde_json::from_value(container).unwrap();
        let image = Image {
            entrypoint: vec!["e".into()],
            command: vec!["c".into()],
            ..Image::default()
        };
        argv(
            &container,
            &image,
            &[("A".to_owned(), "1".to_owned())].into(),
        )
    }

    #[test]
    fn commands_and_arguments_replace_the_image() {
        assert_eq!(of(json!({"name": "x"})), ["e", "c"]);
        assert_eq!(of(json!({"name": "x", "args": ["$(A)"]})), ["e", "1"]);
        assert_eq!(of(json!({"name": "x", "command": ["k"]})), ["k"]);
        assert_eq!(
            of(json!({"name": "x", "command": ["k"], "args": ["$$(A)", "$(B)"]})),
            ["k", "$(A)", "$(B)"]
        );
    }
}
