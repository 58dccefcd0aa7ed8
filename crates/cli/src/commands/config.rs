//! `create`, `get`, `replace`, `delete`: Istio objects by the verbs of its first years, with their
//! old wording (`Created config virtual-service/default/reviews at revision 17`).

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
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
    /// The kind, such as virtualservices
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

/// One Istio kind: its API group and the plural that paths use.
struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        group: "networking.istio.io",
        kind: "VirtualService",
        plural: "virtualservices",
    },
    Kind {
        group: "networking.istio.io",
        kind: "DestinationRule",
        plural: "destinationrules",
    },
    Kind {
        group: "networking.istio.io",
        kind: "Gateway",
        plural: "gateways",
    },
    Kind {
        group: "networking.istio.io",
        kind: "ServiceEntry",
        plural: "serviceentries",
    },
    Kind {
        group: "networking.istio.io",
        kind: "WorkloadEntry",
        plural: "workloadentries",
    },
    Kind {
        group: "networking.istio.io",
        kind: "WorkloadGroup",
        plural: "workloadgroups",
    },
    Kind {
        group: "networking.istio.io",
        kind: "Sidecar",
        plural: "sidecars",
    },
    Kind {
        group: "networking.istio.io",
        kind: "EnvoyFilter",
        plural: "envoyfilters",
    },
    Kind {
        group: "security.istio.io",
        kind: "PeerAuthentication",
        plural: "peerauthentications",
    },
    Kind {
        group: "security.istio.io",
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
    },
    Kind {
        group: "security.istio.io",
        kind: "RequestAuthentication",
        plural: "requestauthentications",
    },
    Kind {
        group: "telemetry.istio.io",
        kind: "Telemetry",
        plural: "telemetries",
    },
];

impl Kind {
    /// The kind that a person's word means: any case, singular or plural, dashes or none.
    fn named(word: &str) -> anyhow::Result<&'static Self> {
        let plain = word.replace('-', "").to_ascii_lowercase();
        let found = KINDS
            .iter()
            .find(|kind| plain == kind.plural || plain == kind.kind.to_ascii_lowercase());
        found.ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.plural).collect();
            Failure::new(USAGE, format!("\"{word}\" is not a kind of Istio's"))
                .hint(format!("the kinds are {}", known.join(", ")))
                .into()
        })
    }

    /// `virtual-service`: how the first years wrote `VirtualService`.
    fn dashed(&self) -> String {
        let mut out = String::new();
        for (index, letter) in self.kind.char_indices() {
            if letter.is_ascii_uppercase() && index > 0 {
                out.push('-');
            }
            out.push(letter.to_ascii_lowercase());
        }
        out
    }

    fn api(&self, cluster: &Cluster, namespace: Option<&str>) -> Api<DynamicObject> {
        let version = if self.group == "networking.istio.io" {
            "v1"
        } else {
            "v1beta1"
        };
        let gvk = GroupVersionKind::gvk(self.group, version, self.kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, self.plural);
        match namespace {
            Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
            None => Api::all_with(cluster.client.clone(), &resource),
        }
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
                kind.kind,
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
        let kind = KINDS.iter().find(|kind| kind.kind == word).ok_or_else(|| {
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
        let api = kind.api(&cluster, Some(&namespace));
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
        let api = kind.api(&cluster, Some(&namespace));
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

/// `get KIND [NAME]`.
pub async fn get(args: Get, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let kind = Kind::named(&args.kind)?;
    let cluster = cluster.connect().await?;
    let scope = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let api = kind.api(&cluster, scope);
    let items = match &args.name {
        Some(name) => vec![
            api.get(name)
                .await
                .map_err(|error| refused("get", kind, &cluster.namespace, name, &error))?,
        ],
        None => api.list(&ListParams::default()).await?.items,
    };
    match args.output {
        GetOutput::Yaml => {
            let parts: Result<Vec<String>, _> = items.iter().map(serde_saphyr::to_string).collect();
            Ok(style::print(&parts?.join("---\n"))?)
        }
        GetOutput::Json => Ok(style::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&items)?
        ))?),
        GetOutput::Short if items.is_empty() => {
            style::warning("No resources found.");
            Ok(())
        }
        GetOutput::Short => {
            let mut table = Table::new(["NAME", "KIND", "NAMESPACE", "AGE"]);
            for item in items {
                let name = item.metadata.name.unwrap_or_default();
                let namespace = item.metadata.namespace.unwrap_or_default();
                let created = item.metadata.creation_timestamp.map(|t| t.0);
                let age = created.map_or_else(|| "<unknown>".to_owned(), age);
                table.row(vec![name, kind.kind.to_owned(), namespace, age]);
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
        let kind = Kind::named(word)?;
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
        let api = kind.api(&cluster, Some(&namespace));
        let gone = api.delete(&name, &DeleteParams::default()).await;
        gone.map_err(|error| refused("delete", kind, &namespace, &name, &error))?;
        style::print(&format!(
            "Deleted config: {}/{namespace}/{name}\n",
            kind.dashed()
        ))?;
    }
    Ok(())
}

fn types(kind: &Kind) -> kube::core::TypeMeta {
    let version = if kind.group == "networking.istio.io" {
        "v1"
    } else {
        "v1beta1"
    };
    kube::core::TypeMeta {
        api_version: format!("{}/{version}", kind.group),
        kind: kind.kind.to_owned(),
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
        kind.dashed()
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
            kind.dashed()
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
        for word in ["virtualservice", "VirtualServices", "virtual-service"] {
            assert_eq!(
                Kind::named(word).map(|k| k.dashed()).ok().as_deref(),
                Some("virtual-service")
            );
        }
        assert!(Kind::named("route-rule").is_err());
    }
}
