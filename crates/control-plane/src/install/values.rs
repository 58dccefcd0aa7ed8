//! Installation values: what the profiles set, and `--set key=value` over them.

use serde_json::{Map, Value, json};

use super::InstallError;

/// The profiles.
pub const PROFILES: [&str; 4] = ["default", "demo", "minimal", "empty"];

/// All settings of an installation, as one tree. Its roots are those of Istio's operator API:
/// `profile`, `hub`, `tag`, `revision`, `namespace`, `meshConfig`, `components`, `values`.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Value);

/// The part under `values` that injection reads as well, for images of this version.
#[must_use]
pub fn standard(version: &str) -> Value {
    json!({
        "global": {
            "hub": "docker.io/lateen",
            "tag": version,
            "imagePullPolicy": "",
            "imagePullSecrets": [],
            "istioNamespace": "istio-system",
            "logging": {"level": "default:info"},
            "meshID": "",
            "multiCluster": {"clusterName": ""},
            "network": "",
            "pilotCertProvider": "istiod",
            "proxy": {
                "image": "proxyv2",
                "clusterDomain": "cluster.local",
                "logLevel": "warning",
                "componentLogLevel": "misc:error",
                "includeIPRanges": "*",
                "excludeIPRanges": "",
                "includeInboundPorts": "*",
                "excludeInboundPorts": "",
                "includeOutboundPorts": "",
                "excludeOutboundPorts": "",
                "holdApplicationUntilProxyStarts": false,
                "readinessFailureThreshold": 4,
                "readinessInitialDelaySeconds": 0,
                "readinessPeriodSeconds": 15,
                "resources": {
                    "limits": {"cpu": "2000m", "memory": "1024Mi"},
                    "requests": {"cpu": "100m", "memory": "128Mi"}
                }
            },
            "proxy_init": {"image": "proxyv2"},
            "sds": {"token": {"aud": "istio-ca"}}
        },
        "pilot": {
            "image": "pilot",
            "replicaCount": 1,
            // An earlier version of Istio to behave as, such as "1.0"; empty: as today's.
            "compat": "",
            "traceSampling": 1,
            "env": {},
            "cni": {"enabled": false},
            "resources": {"requests": {"cpu": "500m", "memory": "2048Mi"}}
        },
        "gateways": {
            "istio-ingressgateway": gateway("ingressgateway", &[
                ("status-port", 15021, 15021),
                ("http2", 80, 8080),
                ("https", 443, 8443),
                ("tcp", 31400, 31400),
            ], "LoadBalancer"),
            "istio-egressgateway": gateway("egressgateway", &[
                ("http2", 80, 8080),
                ("https", 443, 8443),
            ], "ClusterIP"),
        },
        "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": true, "rejectProxyUser": false},
        "revision": "",
    })
}

fn gateway(role: &str, ports: &[(&str, u16, u16)], service: &str) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port, target)| {
            json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"})
        })
        .collect();
    json!({
        "labels": {"app": format!("istio-{role}"), "istio": role},
        "type": service,
        "ports": ports,
        "replicaCount": 1,
        "externalIPs": [],
        "serviceAnnotations": {},
        "podAnnotations": {},
        "env": {},
        "resources": {
            "limits": {"cpu": "2000m", "memory": "1024Mi"},
            "requests": {"cpu": "100m", "memory": "128Mi"}
        },
    })
}

const ROOTS: [&str; 8] = [
    "profile",
    "hub",
    "tag",
    "revision",
    "namespace",
    "meshConfig",
    "components",
    "values",
];

impl Values {
    /// A profile with `key=value` settings over it.
    ///
    /// # Errors
    /// An unknown profile, a setting without `=`, a key outside of the known roots, or a key
    /// that goes through something that is no object.
    pub fn build(profile: &str, sets: &[String], version: &str) -> Result<Self, InstallError> {
        let chosen = sets
            .iter()
            .rev()
            .find_map(|set| set.strip_prefix("profile="));
        let mut values = Self(profile_values(chosen.unwrap_or(profile), version)?);
        for set in sets.iter().filter(|set| !set.starts_with("profile=")) {
            values.set(set).map_err(|problem| InstallError::Set {
                setting: set.clone(),
                problem,
            })?;
        }
        values.settle();
        Ok(values)
    }

    fn set(&mut self, setting: &str) -> Result<(), String> {
        let (key, text) = setting.split_once('=').ok_or("expected key=value")?;
        let path = path(key)?;
        let root = match path.first() {
            Some(Step::Key(root)) if ROOTS.contains(&root.as_str()) => root,
            _ => return Err(format!("the key begins with one of {}", ROOTS.join(", "))),
        };
        // Texts that look like numbers stay texts where a name is meant.
        let keep = matches!(root.as_str(), "hub" | "tag" | "revision" | "namespace");
        if keep && path.len() > 1 {
            return Err(format!("{root:?} is a text, nothing is below it"));
        }
        let value = if keep { text.into() } else { scalar(text) };
        let mut place = &mut self.0;
        for step in path {
            place = match step {
                Step::Key(name) => {
                    if place.is_null() {
                        *place = json!({});
                    }
                    let map = place.as_object_mut();
                    let map = map
                        .ok_or_else(|| format!("{name:?} is below something that is no object"))?;
                    map.entry(name).or_insert(Value::Null)
                }
                Step::Index(index) => {
                    if place.is_null() {
                        *place = json!([]);
                    }
                    let list = place.as_array_mut();
                    let list = list
                        .ok_or_else(|| format!("[{index}] is below something that is no list"))?;
                    if index > list.len() {
                        return Err(format!("[{index}]: the list has {} elements", list.len()));
                    }
                    if index == list.len() {
                        list.push(Value::Null);
                    }
                    &mut list[index]
                }
            };
        }
        *place = value;
        Ok(())
    }

    /// Copies the short forms (`hub`, `tag`, `revision`, `namespace`) to where they are read.
    fn settle(&mut self) {
        let root = &mut self.0;
        for (short, path) in [
            ("hub", "/values/global/hub"),
            ("tag", "/values/global/tag"),
            ("revision", "/values/revision"),
            ("namespace", "/values/global/istioNamespace"),
        ] {
            let text = root[short].as_str().filter(|text| !text.is_empty());
            if let (Some(text), Some(place)) = (text.map(str::to_owned), root.pointer_mut(path)) {
                *place = text.into();
            }
        }
        let namespace = self.namespace();
        let suffix = self.suffix();
        let mesh = &mut self.0["meshConfig"];
        if mesh["rootNamespace"].is_null() {
            mesh["rootNamespace"] = namespace.clone().into();
        }
        let config = &mut mesh["defaultConfig"];
        if config["discoveryAddress"].is_null() {
            config["discoveryAddress"] = format!("istiod{suffix}.{namespace}.svc:15012").into();
        }
    }

    /// A value by its JSON path from the root, keys joined by dots.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(&self.0, |value, key| value.get(key))
            .filter(|value| !value.is_null())
    }

    /// Whether a part is installed.
    #[must_use]
    pub fn enabled(&self, component: &str) -> bool {
        self.get(component)
            .is_some_and(|value| value["enabled"] == true)
    }

    /// The text at a path; empty where there is none.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        match self.get(path) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// The namespace of the control plane.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.text("values.global.istioNamespace")
    }

    /// The revision's name, `default` for none.
    #[must_use]
    pub fn revision(&self) -> String {
        match self.text("values.revision") {
            name if name.is_empty() => "default".to_owned(),
            name => name,
        }
    }

    /// What the revision adds to names of objects: nothing, or `-NAME`.
    #[must_use]
    pub fn suffix(&self) -> String {
        match self.revision().as_str() {
            "default" => String::new(),
            name => format!("-{name}"),
        }
    }

    /// The part under `values`.
    #[must_use]
    pub fn helm(&self) -> &Value {
        &self.0["values"]
    }

    /// MeshConfig.
    #[must_use]
    pub fn mesh(&self) -> &Value {
        &self.0["meshConfig"]
    }

    /// The gateways of a kind (`ingressGateways`, `egressGateways`) that are installed.
    pub fn gateways(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let list = self.0["components"][kind].as_array().into_iter().flatten();
        list.filter(|gateway| gateway["enabled"] == true)
    }
}

fn profile_values(profile: &str, version: &str) -> Result<Value, InstallError> {
    let (base, ingress, egress) = match profile {
        "default" => (true, true, false),
        "demo" => (true, true, true),
        "minimal" => (true, false, false),
        "empty" => (false, false, false),
        other => return Err(InstallError::Profile(other.to_owned())),
    };
    let mut values = standard(version);
    let mut mesh = json!({
        "trustDomain": "cluster.local",
        "enablePrometheusMerge": true,
        "defaultProviders": {"metrics": ["prometheus"]},
        "defaultConfig": {},
    });
    if profile == "demo" {
        mesh["accessLogFile"] = "/dev/stdout".into();
        values["pilot"]["traceSampling"] = 100.into();
        // Small requests, as everything runs on one machine.
        let small = json!({"requests": {"cpu": "10m", "memory": "40Mi"}});
        values["global"]["proxy"]["resources"]["requests"] = small["requests"].clone();
        values["pilot"]["resources"] = json!({"requests": {"cpu": "10m", "memory": "100Mi"}});
        for gateway in ["istio-ingressgateway", "istio-egressgateway"] {
            values["gateways"][gateway]["resources"] = small.clone();
        }
        let tls = json!({"name": "tls", "port": 15443, "targetPort": 15443, "protocol": "TCP"});
        if let Some(ports) = values["gateways"]["istio-ingressgateway"]["ports"].as_array_mut() {
            ports.push(tls);
        }
    }
    Ok(json!({
        "profile": profile,
        "meshConfig": mesh,
        "components": {
            "base": {"enabled": base},
            "pilot": {"enabled": base},
            "ingressGateways": [{"name": "istio-ingressgateway", "enabled": ingress}],
            "egressGateways": [{"name": "istio-egressgateway", "enabled": egress}],
        },
        "values": values,
    }))
}

enum Step {
    Key(String),
    Index(usize),
}

/// `a.b[0].c\.d` to its steps; a backslash keeps a dot.
fn path(key: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut word = String::new();
    let mut letters = key.chars();
    let mut after_index = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.extend(letters.next()),
            '.' if word.is_empty() && after_index => after_index = false,
            '.' if word.is_empty() => return Err("a part of the key is empty".to_owned()),
            '.' => steps.push(Step::Key(std::mem::take(&mut word))),
            '[' => {
                if !word.is_empty() {
                    steps.push(Step::Key(std::mem::take(&mut word)));
                }
                let number: String = letters.by_ref().take_while(|c| *c != ']').collect();
                let number = number
                    .parse()
                    .map_err(|_| format!("[{number}] is no index"))?;
                steps.push(Step::Index(number));
                after_index = true;
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        steps.push(Step::Key(word));
    } else if !after_index {
        return Err("a part of the key is empty".to_owned());
    }
    Ok(steps)
}

/// A text as the value it spells: boolean, number, null, `{a,b}` list, else text.
fn scalar(text: &str) -> Value {
    if let Some(list) = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    {
        let items = list.split(',').filter(|item| !item.is_empty());
        return items.map(scalar).collect();
    }
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_) | Value::Null)) => value,
        _ => text.into(),
    }
}

/// An object of texts as a list of environment variables.
pub(super) fn variables(map: Option<&Value>) -> Vec<Value> {
    let empty = Map::new();
    let map = map.and_then(Value::as_object).unwrap_or(&empty);
    map.iter()
        .map(|(name, value)| {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            json!({"name": name, "value": text})
        })
        .collect()
}
