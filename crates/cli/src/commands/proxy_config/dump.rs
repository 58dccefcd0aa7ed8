//! A proxy's config dump: fetched or read, then its resources by type as proto JSON.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::Context as _;
use lateen_xds_proto::{json, type_url};
use serde_json::Value;

use super::{Common, need_target, target, text};
use crate::client::ClusterArgs;
use crate::exit::{BAD_INPUT, Failure};

/// A whole dump.
pub struct Dump {
    raw: Value,
}

/// Where a resource type stands inside a dump: section, its lists, and the field that holds the
/// resource (`""` where it is the entry itself).
struct Section {
    type_url: &'static str,
    lists: &'static [(&'static str, &'static str)],
}

const CLUSTERS: Section = Section {
    type_url: type_url::CLUSTER,
    lists: &[
        ("static_clusters", "/cluster"),
        ("dynamic_active_clusters", "/cluster"),
    ],
};
const LISTENERS: Section = Section {
    type_url: type_url::LISTENER,
    lists: &[
        ("static_listeners", "/listener"),
        ("dynamic_listeners", "/active_state/listener"),
    ],
};
const ROUTES: Section = Section {
    type_url: type_url::ROUTE,
    lists: &[
        ("static_route_configs", "/route_config"),
        ("dynamic_route_configs", "/route_config"),
    ],
};
const ENDPOINTS: Section = Section {
    type_url: type_url::ENDPOINT,
    lists: &[
        ("static_endpoint_configs", "/endpoint_config"),
        ("dynamic_endpoint_configs", "/endpoint_config"),
    ],
};

impl Dump {
    /// Reads the file or asks the pod that `common` names.
    pub async fn load(common: &Common, cluster: &ClusterArgs) -> anyhow::Result<Self> {
        Self::load_from(common, cluster, "/config_dump").await
    }

    /// The same with the endpoints in it.
    pub async fn load_with_endpoints(
        common: &Common,
        cluster: &ClusterArgs,
    ) -> anyhow::Result<Self> {
        Self::load_from(common, cluster, "/config_dump?include_eds").await
    }

    async fn load_from(common: &Common, cluster: &ClusterArgs, path: &str) -> anyhow::Result<Self> {
        let bytes = fetch(common, cluster, path).await?;
        Self::parse(&bytes)
    }

    /// Reads a dump's JSON.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let raw: Value = serde_json::from_slice(bytes).map_err(|error| {
            Failure::new(BAD_INPUT, format!("the config dump is not JSON: {error}"))
                .hint("a dump is what the proxy's admin port answers at /config_dump")
        })?;
        if !raw.get("configs").is_some_and(Value::is_array) {
            let message = "the config dump has no list `configs`";
            return Err(Failure::new(BAD_INPUT, message).into());
        }
        Ok(Self { raw })
    }

    /// The dump as it came.
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// The section whose `@type` ends in `name`.
    pub fn section(&self, name: &str) -> Option<&Value> {
        let configs = self.raw.get("configs")?.as_array()?;
        configs
            .iter()
            .find(|section| text(section, "/@type").ends_with(&format!(".{name}")))
    }

    /// All clusters.
    pub fn clusters(&self) -> anyhow::Result<Vec<Value>> {
        self.resources("ClustersConfigDump", &CLUSTERS)
    }

    /// All active listeners.
    pub fn listeners(&self) -> anyhow::Result<Vec<Value>> {
        self.resources("ListenersConfigDump", &LISTENERS)
    }

    /// All route configurations that stand alone.
    pub fn routes(&self) -> anyhow::Result<Vec<Value>> {
        self.resources("RoutesConfigDump", &ROUTES)
    }

    /// Clusters, listeners and routes that came from a control plane, each by name.
    pub fn dynamic(&self) -> anyhow::Result<[BTreeMap<String, Value>; 3]> {
        let of = |name: &str, section: &Section| -> anyhow::Result<BTreeMap<String, Value>> {
            let lists: Vec<_> = section
                .lists
                .iter()
                .filter(|(list, _)| list.starts_with("dynamic_"))
                .copied()
                .collect();
            let found = self.listed(name, section.type_url, &lists)?;
            let named = found.into_iter();
            Ok(named.map(|r| (text(&r, "/name").to_owned(), r)).collect())
        };
        Ok([
            of("ClustersConfigDump", &CLUSTERS)?,
            of("ListenersConfigDump", &LISTENERS)?,
            of("RoutesConfigDump", &ROUTES)?,
        ])
    }

    /// When the proxy took its newest route configuration, as the dump says it.
    pub fn routes_loaded(&self) -> Option<&str> {
        let section = self.section("RoutesConfigDump")?;
        let list = either(section, "dynamic_route_configs")?.as_array()?;
        let times = list
            .iter()
            .filter_map(|r| either(r, "last_updated")?.as_str());
        times.filter(|at| !at.is_empty()).max()
    }

    /// All endpoint sets.
    pub fn endpoints(&self) -> anyhow::Result<Vec<Value>> {
        self.resources("EndpointsConfigDump", &ENDPOINTS)
    }

    fn resources(&self, name: &str, section: &Section) -> anyhow::Result<Vec<Value>> {
        self.listed(name, section.type_url, section.lists)
    }

    fn listed(
        &self,
        name: &str,
        type_url: &'static str,
        lists: &[(&str, &str)],
    ) -> anyhow::Result<Vec<Value>> {
        let Some(found) = self.section(name) else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        for (list, inner) in lists {
            // A dump in proto JSON's own spelling has camelCase keys; both are read.
            let list = either(found, list).and_then(Value::as_array);
            for entry in list.into_iter().flatten() {
                let resource = inner.split('/').skip(1).try_fold(entry, either);
                if let Some(resource) = resource {
                    out.push(normal(resource, type_url)?);
                }
            }
        }
        Ok(out)
    }
}

/// A field by its snake_case name, in either spelling.
fn either<'a>(value: &'a Value, snake: &str) -> Option<&'a Value> {
    value.get(snake).or_else(|| value.get(camel(snake)))
}

fn camel(snake: &str) -> String {
    let mut parts = snake.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

/// A resource through its schema: proto JSON's names, enums and numbers.
pub fn normal(resource: &Value, type_url: &str) -> anyhow::Result<Value> {
    let message = type_url.trim_start_matches(type_url::PREFIX);
    let mut resource = resource.clone();
    if let Some(fields) = resource.as_object_mut() {
        fields.shift_remove("@type");
    }
    let bad = |error: &dyn std::fmt::Display| {
        Failure::new(BAD_INPUT, format!("a {message} in the dump: {error}"))
    };
    let wire = json::to_wire(message, &resource).map_err(|error| bad(&error))?;
    Ok(
        json::from_wire_with(message, &wire, &json::PrintOptions::camel())
            .map_err(|error| bad(&error))?,
    )
}

/// The bytes of an admin page, or of the file that stands for it.
pub async fn fetch(common: &Common, cluster: &ClusterArgs, path: &str) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = &common.file {
        let mut bytes = Vec::new();
        if file.as_os_str() == "-" {
            std::io::stdin().read_to_end(&mut bytes)?;
        } else {
            bytes = std::fs::read(file)
                .with_context(|| format!("reading the dump {}", file.display()))?;
        }
        return Ok(bytes);
    }
    let name = common.target.as_deref().ok_or_else(need_target)?;
    let cluster = cluster.connect().await?;
    let pod = target::resolve(&cluster, name).await?;
    let answer = cluster
        .pod_request(
            &pod.namespace,
            &pod.name,
            common.proxy_admin_port,
            "GET",
            path,
        )
        .await?;
    if answer.status != 200 {
        anyhow::bail!(
            "the proxy of {}.{} answered {} to {path}",
            pod.name,
            pod.namespace,
            answer.status
        );
    }
    Ok(answer.body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_what_is_no_dump_is_refused() {
        let text = r#"{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamicActiveClusters":[{"cluster":{"name":"a","type":"EDS"}}],
            "static_clusters":[{"cluster":{"name":"b","connect_timeout":"1s"}}]}]}"#;
        let dump = Dump::parse(text.as_bytes()).expect("a dump");
        let clusters = dump.clusters().expect("clusters");
        assert_eq!(clusters[0]["connectTimeout"], "1s");
        assert_eq!(clusters[1]["type"], "EDS");
        assert!(Dump::parse(b"{}").is_err());
        assert!(Dump::parse(b"<html>").is_err());
    }
}
