//! `create`, `get`, `replace`, `delete`: Istio objects by the verbs of its first years, with their
//! old wording (`Created config virtual-service/default/reviews at revision 17`).

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use lateen_resources::kind::{KINDS, KindInfo};
use serde_json::Value;

use super::objects;
use crate::client::{Cluster, ClusterArgs};
use crate::exit::{BAD_INPUT, FAILED, Failure, USAGE};
use crate::style;
use crate::table::Table;

/// `create` and `replace`.
#[derive(Debug, Args)]
pub struct Write {
    /// The objects, as YAML (`-` is standard input)
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// The kind, such as virtualservices or vs; `all` is every kind
    kind: String,
    /// Only the object of this name
    name: Option<String>,
    /// In every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "short")]
    output: GetOutput,
}

/// How `get` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GetOutput {
    /// A table.
    Short,
    /// The objects as YAML.
    Yaml,
    /// The objects as JSON.
    Json,
}

/// `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The kind, such as virtualservice
    #[arg(required_unless_present = "file")]
    kind: Option<String>,
    /// The objects' names
    names: Vec<String>,
    /// Delete the objects of this file instead
    #[arg(short, long, value_name = "FILE", conflicts_with = "kind")]
    file: Option<PathBuf>,
}

/// One Istio kind.
type Kind = KindInfo;

/// Istio's kinds.
fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|info| info.kind.is_istio())
}

/// The kind that a person's word means: any case, singular or plural, dashes or none, kubectl's
/// short names, and kubectl's `plural.group`.
fn named(word: &str) -> anyhow::Result<&'static Kind> {
    let plain = word.replace('-', "").to_ascii_lowercase();
    let (plain, group) = match plain.split_once('.') {
        Some((name, group)) => (name, Some(group)),
        None => (plain.as_str(), None),
    };
    let found = kinds().find(|kind| {
        group.is_none_or(|group| group == kind.group)
            && (plain == kind.plural
                || plain == kind.name.to_ascii_lowercase()
                || kind.short_names.contains(&plain))
    });
    found.ok_or_else(|| {
        let known: Vec<String> = kinds()
            .map(|kind| match kind.short_names {
                [short, ..] if *short != "telemetry" => format!("{} ({short})", kind.plural),
                _ => kind.plural.to_owned(),
            })
            .collect();
        Failure::new(USAGE, format!("\"{word}\" is not a kind of Istio's"))
            .hint(format!("the kinds are {}", known.join(", ")))
            .into()
    })
}

/// `virtual-service`: how the first years wrote `VirtualService`.
fn dashed(kind: &Kind) -> String {
    let mut out = String::new();
    for (index, letter) in kind.name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn api_of(kind: &Kind, cluster: &Cluster, namespace: Option<&str>) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(kind.group, kind.versions[0], kind.name);
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    }
}

/// The versions in which Istio's groups were ever served; they are one object.
const VERSIONS: [&str; 4] = ["v1", "v1beta1", "v1alpha3", "v1alpha1"];

/// Refuses a document whose apiVersion is missing or not one of its kind's.
fn versioned(kind: &Kind, document: &Value) -> Result<(), String> {
    let right = || format!("apiVersion: {}", types(kind).api_version);
    match document.get("apiVersion").and_then(Value::as_str) {
        None | Some("") => Err(format!("apiVersion is missing; write \"{}\"", right())),
        Some(given) => match given.split_once('/') {
            Some((group, version)) if group == kind.group && VERSIONS.contains(&version) => Ok(()),
            _ => Err(format!(
                "apiVersion {given:?} is not a version of {}; write \"{}\"",
                kind.name,
                right()
            )),
        },
    }
}

/// The objects of a file with their kinds; every one must be Istio's.
fn read(path: &std::path::Path) -> anyhow::Result<Vec<(&'static Kind, DynamicObject)>> {
    let text = objects::read(path)?;
    let mut out = Vec::new();
    for document in objects::documents(&text, path)? {
        let name = objects::name(&document, "default");
        let word = document
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let kind = kinds().find(|kind| kind.name == word).ok_or_else(|| {
            Failure::new(
                BAD_INPUT,
                format!("{}: {name} is not an object of Istio's", path.display()),
            )
            .hint("use `kubectl create -f` for it")
        })?;
        versioned(kind, &document).map_err(|error| {
            Failure::new(BAD_INPUT, format!("{}: {name}: {error}", path.display()))
        })?;
        let object: DynamicObject = serde_json::from_value(document).map_err(|error| {
            Failure::new(BAD_INPUT, format!("{}: {name}: {error}", path.display()))
        })?;
        out.push((kind, object));
    }
    if out.is_empty() {
        return Err(Failure::new(BAD_INPUT, format!("{}: no object in it", path.display())).into());
    }
    Ok(out)
}

/// `create -f`.
pub async fn create(args: Write, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let cluster = cluster.connect().await?;
    for (kind, mut object) in read(&args.file)? {
        object.types = Some(types(kind));
        let (name, namespace) = place(&object, &cluster);
        let api = api_of(kind, &cluster, Some(&namespace));
        let made = api.create(&PostParams::default(), &object).await;
        let made = made.map_err(|error| refused("create", kind, &namespace, &name, &error))?;
        said("Created", kind, &namespace, &name, &made)?;
    }
    Ok(())
}

/// `replace -f`.
pub async fn replace(args: Write, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let cluster = cluster.connect().await?;
    for (kind, mut object) in read(&args.file)? {
        object.types = Some(types(kind));
        let (name, namespace) = place(&object, &cluster);
        let api = api_of(kind, &cluster, Some(&namespace));
        let fail = |error: kube::Error| refused("replace", kind, &namespace, &name, &error);
        let old = api.get(&name).await.map_err(fail)?;
        object.metadata.resource_version = old.metadata.resource_version;
        let made = api
            .replace(&name, &PostParams::default(), &object)
            .await
            .map_err(fail)?;
        said("Updated", kind, &namespace, &name, &made)?;
    }
    Ok(())
}

/// `get KIND [NAME]` and `get all`.
pub async fn get(args: Get, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let kinds = match args.kind.as_str() {
        "all" if args.name.is_some() => {
            return Err(Failure::new(USAGE, "`get all` takes no name")
                .hint("name the kind as well: `lateen get virtualservices NAME`")
                .into());
        }
        "all" => kinds().collect(),
        word => vec![named(word)?],
    };
    let cluster = cluster.connect().await?;
    let scope = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let mut items = Vec::new();
    for kind in &kinds {
        let api = api_of(kind, &cluster, scope);
        let Some(name) = &args.name else {
            items.extend(list(kind, &api, kinds.len() > 1).await?);
            continue;
        };
        let found = api.get(name).await;
        let fail = |error| refused("get", kind, &cluster.namespace, name, &error);
        items.push((*kind, found.map_err(fail)?));
    }
    show(args.output, items)
}

/// The objects of a kind. One of several kinds may be unknown to the cluster: an earlier mesh's.
async fn list(
    kind: &'static Kind,
    api: &Api<DynamicObject>,
    of_several: bool,
) -> anyhow::Result<Vec<(&'static Kind, DynamicObject)>> {
    match api.list(&ListParams::default()).await {
        Ok(found) => Ok(found.items.into_iter().map(|item| (kind, item)).collect()),
        Err(kube::Error::Api(status)) if of_several && status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn show(output: GetOutput, items: Vec<(&'static Kind, DynamicObject)>) -> anyhow::Result<()> {
    let objects = || items.iter().map(|(_, object)| object);
    match output {
        GetOutput::Yaml => {
            let parts: Result<Vec<String>, _> = objects().map(serde_saphyr::to_string).collect();
            Ok(style::print(&parts?.join("---\n"))?)
        }
        GetOutput::Json => Ok(style::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&objects().collect::<Vec<_>>())?
        ))?),
        GetOutput::Short if items.is_empty() => {
            style::warning("No resources found.");
            Ok(())
        }
        GetOutput::Short => {
            let mut table = Table::new(["NAME", "KIND", "NAMESPACE", "AGE"]);
            for (kind, item) in items {
                let name = item.metadata.name.unwrap_or_default();
                let namespace = item.metadata.namespace.unwrap_or_default();
                let created = item.metadata.creation_timestamp.map(|t| t.0);
                let age = created.map_or_else(|| "<unknown>".to_owned(), age);
                table.row(vec![name, kind.name.to_owned(), namespace, age]);
            }
            Ok(style::print(&table.render())?)
        }
    }
}

/// `delete KIND NAME...` or `delete -f`.
pub async fn delete(args: Delete, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let cluster = cluster.connect().await?;
    let mut targets = Vec::new();
    if let Some(file) = &args.file {
        for (kind, object) in read(file)? {
            let (name, namespace) = place(&object, &cluster);
            targets.push((kind, namespace, name));
        }
    } else if let Some(word) = &args.kind {
        let kind = named(word)?;
        if args.names.is_empty() {
            return Err(Failure::new(USAGE, "name what to delete").into());
        }
        let all = args
            .names
            .iter()
            .map(|name| (kind, cluster.namespace.clone(), name.clone()));
        targets.extend(all);
    }
    for (kind, namespace, name) in targets {
        let api = api_of(kind, &cluster, Some(&namespace));
        let gone = api.delete(&name, &DeleteParams::default()).await;
        gone.map_err(|error| refused("delete", kind, &namespace, &name, &error))?;
        style::print(&format!(
            "Deleted config: {}/{namespace}/{name}\n",
            dashed(kind)
        ))?;
    }
    Ok(())
}

fn types(kind: &Kind) -> kube::core::TypeMeta {
    kube::core::TypeMeta {
        api_version: kind.kind.api_version(),
        kind: kind.name.to_owned(),
    }
}

fn place(object: &DynamicObject, cluster: &Cluster) -> (String, String) {
    let name = object.metadata.name.clone().unwrap_or_default();
    let namespace = object.metadata.namespace.clone();
    (name, namespace.unwrap_or_else(|| cluster.namespace.clone()))
}

fn said(
    verb: &str,
    kind: &Kind,
    namespace: &str,
    name: &str,
    made: &DynamicObject,
) -> anyhow::Result<()> {
    let revision = made.metadata.resource_version.as_deref().unwrap_or("0");
    let line = format!(
        "{verb} config {}/{namespace}/{name} at revision {revision}\n",
        dashed(kind)
    );
    Ok(style::print(&line)?)
}

fn refused(verb: &str, kind: &Kind, namespace: &str, name: &str, error: &kube::Error) -> Failure {
    let reason = match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    let code = if reason.contains("denied the request") {
        BAD_INPUT
    } else {
        FAILED
    };
    Failure::new(
        code,
        format!(
            "cannot {verb} {}/{namespace}/{name}: {reason}",
            dashed(kind)
        ),
    )
}

/// How long ago, in kubectl's short form.
fn age(then: jiff::Timestamp) -> String {
    let seconds = jiff::Timestamp::now().duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_any_era_name_a_kind() {
        for (word, kind) in [
            ("virtualservice", "virtual-service"),
            ("VirtualService", "virtual-service"),
            ("VirtualServices", "virtual-service"),
            ("virtual-service", "virtual-service"),
            ("virtualservices.networking.istio.io", "virtual-service"),
            ("vs", "virtual-service"),
            ("gw", "gateway"),
            ("DR", "destination-rule"),
            ("se", "service-entry"),
            ("we", "workload-entry"),
            ("wg", "workload-group"),
            ("pa", "peer-authentication"),
            ("ra", "request-authentication"),
            ("ap", "authorization-policy"),
            ("telemetry", "telemetry"),
            ("sidecars", "sidecar"),
            ("envoyfilter", "envoy-filter"),
            ("wasmplugins", "wasm-plugin"),
        ] {
            assert_eq!(
                named(word).map(dashed).ok().as_deref(),
                Some(kind),
                "{word}"
            );
        }
        for word in [
            "route-rule",
            "pods",
            "po",
            "gateways.gateway.networking.k8s.io",
            "",
        ] {
            assert!(named(word).is_err(), "{word}");
        }
    }

    #[test]
    fn every_kind_is_asked_for_in_a_version_that_is_served() {
        for crd in lateen_resources::crds() {
            let spec = &crd["spec"];
            let kind = named(spec["names"]["plural"].as_str().unwrap_or_default()).expect("known");
            let served = spec["versions"].as_array().into_iter().flatten();
            let mut names = served.filter_map(|version| version["name"].as_str());
            assert!(names.any(|name| name == kind.versions[0]), "{}", kind.name);
            assert_eq!(
                types(kind).api_version,
                format!("{}/{}", kind.group, kind.versions[0])
            );
        }
    }
}
