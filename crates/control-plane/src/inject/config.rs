//! What injection is configured with: ConfigMap `istio-sidecar-injector` (`config`, `values`)
//! and the mesh configuration.

use serde_json::{Map, Value, json};

use super::InjectError;

/// The settings of one revision of the control plane.
#[derive(Debug, Clone, PartialEq)]
pub struct InjectConfig {
    /// Whether pods that say nothing are injected, once a webhook's selector has let them in.
    pub enabled: bool,
    /// Label selectors of pods that are injected though they say nothing.
    pub always_inject: Vec<Value>,
    /// Label selectors of pods that are not injected though others would be.
    pub never_inject: Vec<Value>,
    /// Annotations that every injected pod gets.
    pub injected_annotations: Map<String, Value>,
    /// Templates used when a pod names none.
    pub default_templates: Vec<String>,
    /// Templates besides the built-in ones: name to a partial pod that is merged in.
    pub templates: Map<String, Value>,
    /// Installation values (`global.hub`, `global.proxy.resources`, ...).
    pub values: Value,
    /// MeshConfig as JSON.
    pub mesh: Value,
    /// Name of the revision.
    pub revision: String,
    /// Whether every node's kubelet starts init containers that stay, without a feature gate:
    /// what `ENABLE_NATIVE_SIDECARS: auto` goes by.
    pub native_kubelets: bool,
}

/// The first minor version of Kubernetes 1 whose sidecar containers are stable.
const NATIVE_SINCE: u32 = 33;

impl InjectConfig {
    /// The settings that an installation of this version starts with.
    #[must_use]
    pub fn standard(version: &str) -> Self {
        Self {
            enabled: true,
            always_inject: Vec::new(),
            never_inject: Vec::new(),
            injected_annotations: Map::new(),
            default_templates: vec!["sidecar".to_owned()],
            templates: Map::new(),
            values: crate::install::values::standard(version),
            mesh: json!({}),
            revision: "default".to_owned(),
            native_kubelets: false,
        }
    }

    /// The settings for files on a machine without a cluster: this version's, with a mesh
    /// configuration (YAML) and for a revision.
    ///
    /// # Errors
    /// YAML that cannot be read.
    pub fn for_files(mesh: Option<&str>, revision: &str) -> Result<Self, InjectError> {
        let mut config = Self::standard(env!("CARGO_PKG_VERSION"));
        config.mesh = mapping("mesh", mesh.unwrap_or_default())?;
        if !revision.is_empty() {
            revision.clone_into(&mut config.revision);
        }
        Ok(config)
    }

    /// Reads the data of ConfigMap `istio-sidecar-injector` and the text of the mesh
    /// configuration (`mesh` of ConfigMap `istio`).
    ///
    /// # Errors
    /// YAML or JSON that cannot be read, or of another shape.
    pub fn read(config: &str, values: &str, mesh: &str) -> Result<Self, InjectError> {
        let config = mapping("config", config)?;
        let values: Value = match values.trim() {
            "" => json!({}),
            text => serde_json::from_str(text)
                .map_err(|error| InjectError::Config(format!("values: {error}")))?,
        };
        let list = |name: &str| config[name].as_array().cloned().unwrap_or_default();
        let map = |name: &str| config[name].as_object().cloned().unwrap_or_default();
        let mut templates = Map::new();
        for (name, text) in map("templates") {
            let body = match &text {
                Value::String(text) => mapping(&format!("template {name}"), text)?,
                other => other.clone(),
            };
            templates.insert(name, body);
        }
        let defaults: Vec<String> = list("defaultTemplates")
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        let revision = values["revision"].as_str().filter(|name| !name.is_empty());
        Ok(Self {
            enabled: config["policy"].as_str() != Some("disabled"),
            always_inject: list("alwaysInjectSelector"),
            never_inject: list("neverInjectSelector"),
            injected_annotations: map("injectedAnnotations"),
            default_templates: if defaults.is_empty() {
                vec!["sidecar".to_owned()]
            } else {
                defaults
            },
            templates,
            revision: revision.unwrap_or("default").to_owned(),
            mesh: mapping("mesh", mesh)?,
            values,
            native_kubelets: false,
        })
    }

    /// The same settings for a cluster with these nodes (Node objects). A cluster whose nodes are
    /// not known gets the containers that every kubelet starts.
    #[must_use]
    pub fn for_nodes(mut self, nodes: &[Value]) -> Self {
        let native = |node: &Value| {
            let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str()?;
            let (major, rest) = version.trim_start_matches('v').split_once('.')?;
            let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?) >= (1, NATIVE_SINCE))
        };
        self.native_kubelets =
            !nodes.is_empty() && nodes.iter().all(|node| native(node) == Some(true));
        self
    }

    /// Whether the proxy is an init container that stays, where a pod does not say it itself.
    /// Any value but a yes or a no (`auto`) asks the nodes.
    #[must_use]
    pub fn native(&self) -> bool {
        self.flag("pilot.env.ENABLE_NATIVE_SIDECARS")
            .unwrap_or(self.native_kubelets)
    }

    /// A value by its dotted path.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(&self.values, |value, key| value.get(key))
            .filter(|value| !value.is_null())
    }

    /// A text value; numbers are written out, the empty text is none.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A yes or no; installation flags may have made it a text.
    #[must_use]
    pub fn flag(&self, path: &str) -> Option<bool> {
        match self.value(path)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Whether a pod whose application runs as the proxy's user is refused instead of warned of.
    #[must_use]
    pub fn reject_proxy_user(&self) -> bool {
        self.flag("sidecarInjectorWebhook.rejectProxyUser")
            .unwrap_or(false)
    }

    /// The full name of an image: a name with a slash or a colon is taken as it is.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        if name.contains(['/', ':']) {
            return name.to_owned();
        }
        let hub = self.text("global.hub").unwrap_or("docker.io/lateen".into());
        let tag = self.text("global.tag").unwrap_or("latest".into());
        format!("{hub}/{name}:{tag}")
    }

    /// The namespace of the control plane.
    #[must_use]
    pub fn istio_namespace(&self) -> String {
        self.text("global.istioNamespace")
            .unwrap_or("istio-system".into())
    }

    /// The mesh's trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> String {
        let mesh = self.mesh["trustDomain"].as_str().map(str::to_owned);
        mesh.filter(|name| !name.is_empty())
            .unwrap_or("cluster.local".into())
    }

    /// The domain of services.
    #[must_use]
    pub fn cluster_domain(&self) -> String {
        self.text("global.proxy.clusterDomain")
            .unwrap_or("cluster.local".into())
    }
}

fn mapping(what: &str, text: &str) -> Result<Value, InjectError> {
    let (documents, errors) = lateen_resources::yaml::documents(text);
    if let Some(error) = errors.first() {
        return Err(InjectError::Config(format!("{what}: {error}")));
    }
    match documents.into_iter().next().map(|document| document.value) {
        None => Ok(json!({})),
        Some(value) if value.is_object() => Ok(value),
        Some(_) => Err(InjectError::Config(format!("{what}: expected a mapping"))),
    }
}
