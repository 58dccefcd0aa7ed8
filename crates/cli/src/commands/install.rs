//! `install`: the mesh's manifests applied to a cluster, and the wait until they run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;

use super::objects as files;
use crate::client::ClusterArgs;
use crate::exit::{Failure, USAGE};
use crate::style;

/// `install`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lateen install\n  lateen install --set profile=demo -y")]
pub struct Install {
    /// Installation profile: default, demo, minimal or empty
    #[arg(long, default_value = "default", value_name = "NAME")]
    profile: String,
    /// Override an installation value (key=value)
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Do not ask
    #[arg(short = 'y', long)]
    skip_confirmation: bool,
    /// Print what would be applied and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// How long the control plane and gateways may take.
const READY: Duration = Duration::from_secs(300);

/// Runs the command.
pub async fn run(args: Install, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let all = objects(&args.profile, &args.set)?;
    if args.dry_run {
        return super::manifest::print(&all);
    }
    if !args.skip_confirmation && !confirmed(&args.profile)? {
        style::warning("nothing was changed");
        return Ok(());
    }
    let cluster = cluster.connect().await?;
    let count = all.len();
    apply(&cluster.client, all).await?;
    style::done(&format!("{count} objects applied"));
    wait_ready(&cluster.client, &cluster.istio_namespace, READY).await?;
    style::done("the mesh is installed");
    Ok(())
}

/// Asks on a terminal; elsewhere -y must say it.
fn confirmed(profile: &str) -> anyhow::Result<bool> {
    use std::io::IsTerminal as _;
    if !std::io::stdin().is_terminal() {
        let why = "standard input is no terminal to ask on";
        return Err(Failure::new(USAGE, why).hint("say yes with -y").into());
    }
    eprint!("This installs the profile \"{profile}\" into the cluster. Proceed? (y/N) ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// The manifests of a profile with values set; `profile=NAME` among the values wins.
pub fn objects(profile: &str, values: &[String]) -> anyhow::Result<Vec<Value>> {
    lateen_control_plane::install::manifests_for(profile, values)
        .map_err(|error| Failure::new(USAGE, error.to_string()).into())
}

/// Applies objects in their order: what is missing is created, what is there is merged into.
pub async fn apply(client: &Client, objects: Vec<Value>) -> anyhow::Result<()> {
    for object in objects {
        let name = files::name(&object, "");
        apply_one(client, object)
            .await
            .with_context(|| format!("applying {name}"))?;
    }
    Ok(())
}

/// A fresh CRD is served a moment after it is made, a namespace's account likewise.
const SOON: Duration = Duration::from_secs(10);

async fn apply_one(client: &Client, value: Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(value.clone())?;
    let types = object
        .types
        .clone()
        .context("the object has no apiVersion and kind")?;
    let gvk = GroupVersionKind::try_from(&types)?;
    let resource = ApiResource::from_gvk(&gvk);
    let name = object
        .metadata
        .name
        .clone()
        .context("the object has no name")?;
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let begun = Instant::now();
    loop {
        // Asking first costs a fresh cluster little and spares a kept one most of the work: the
        // definitions of our kinds are large to write and rarely new.
        let made = match api.get_opt(&name).await {
            Ok(None) => api.create(&PostParams::default(), &object).await.map(drop),
            Ok(Some(old)) => {
                let mut value = value.clone();
                keep_bundles(&mut value, &old.data);
                update(&api, &name, &value, &old).await
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => return Ok(()),
            Err(kube::Error::Api(status)) if retriable(status.code) && begun.elapsed() < SOON => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn update(
    api: &Api<DynamicObject>,
    name: &str,
    new: &Value,
    old: &DynamicObject,
) -> Result<(), kube::Error> {
    let old = serde_json::to_value(old).map_err(kube::Error::SerdeError)?;
    if !changes(new, &old) {
        return Ok(());
    }
    api.patch(name, &PatchParams::default(), &Patch::Merge(new))
        .await
        .map(drop)
}

/// Whether a merge patch (RFC 7386) of `new` would change `old`.
fn changes(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => new.iter().any(|(key, value)| {
            let known = old.get(key).unwrap_or(&Value::Null);
            changes(value, known)
        }),
        _ => new != old,
    }
}

/// What the control plane has put into its webhooks stays: without its authority's certificate and
/// its word to fail closed, nothing would be validated until it looks again.
fn keep_bundles(new: &mut Value, old: &Value) {
    let known = old["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    for webhook in new["webhooks"].as_array_mut().into_iter().flatten() {
        let same = known.iter().find(|w| w["name"] == webhook["name"]);
        let bundle = same.and_then(|w| w["clientConfig"]["caBundle"].as_str());
        if let (Some(same), Some(bundle)) = (same, bundle.filter(|b| !b.is_empty())) {
            webhook["clientConfig"]["caBundle"] = bundle.into();
            webhook["failurePolicy"] = same["failurePolicy"].clone();
        }
    }
}

/// Answers of a server that is not ready for the object yet, or whose object another has just made.
fn retriable(code: u16) -> bool {
    matches!(code, 404 | 409 | 500 | 503)
}

/// Waits until every Deployment of a namespace has all its replicas available.
pub async fn wait_ready(client: &Client, namespace: &str, limit: Duration) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let begun = Instant::now();
    loop {
        let all = api.list(&ListParams::default()).await?.items;
        let waiting: Vec<String> = all.iter().filter_map(not_ready).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > limit {
            bail!(
                "not ready in {} s: {}; see `kubectl get pods -n {namespace}`",
                limit.as_secs(),
                waiting.join(", ")
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The name of a Deployment whose newest template is not fully available, with how far it is.
fn not_ready(deployment: &Deployment) -> Option<String> {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= deployment.metadata.generation;
    let available = status.available_replicas.unwrap_or(0);
    let updated = status.updated_replicas.unwrap_or(0);
    let ready = seen && available >= wanted && updated >= wanted;
    let name = deployment.metadata.name.clone().unwrap_or_default();
    (!ready).then(|| format!("{name} ({available}/{wanted})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_second_installation_keeps_the_webhooks_armed() {
        let webhook = |name: &str, policy: &str| json!({"name": name, "failurePolicy": policy, "clientConfig": {"service": {"name": "istiod"}}});
        let mut new = json!({"webhooks": [webhook("a", "Ignore"), webhook("b", "Ignore")]});
        let mut old = json!({"webhooks": [webhook("b", "Ignore"), webhook("a", "Fail")]});
        old["webhooks"][1]["clientConfig"]["caBundle"] = "QQ==".into();
        keep_bundles(&mut new, &old);
        assert_eq!(new["webhooks"][0]["clientConfig"]["caBundle"], "QQ==");
        assert_eq!(new["webhooks"][0]["failurePolicy"], "Fail");
        assert_eq!(new["webhooks"][1], webhook("b", "Ignore"));
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let old = json!({"metadata": {"name": "a", "uid": "1"}, "data": {"k": "v", "l": [1]}});
        assert!(!changes(
            &json!({"metadata": {"name": "a"}, "data": {"l": [1]}}),
            &old
        ));
        assert!(!changes(&json!({"data": {"gone": null}}), &old));
        assert!(changes(&json!({"data": {"k": null}}), &old));
        assert!(changes(&json!({"data": {"l": [1, 2]}}), &old));
        assert!(changes(&json!({"spec": {"k": "v"}}), &old));
    }
}
