//! The annotations and labels that steer injection, and reading them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::InjectError;

/// Label and annotation: `true` or `false` beats all but the namespaces never injected.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// What was injected, as JSON; its presence means that the pod has been through here.
pub const STATUS: &str = "sidecar.istio.io/status";
/// Label of namespaces and pods: the control plane's revision.
pub const REVISION: &str = "istio.io/rev";
/// Label of namespaces: `enabled` or `disabled`.
pub const NAMESPACE_INJECTION: &str = "istio-injection";
/// Which templates to use.
pub const TEMPLATES: &str = "inject.istio.io/templates";
/// The user's own changes to injected containers, as JSON.
pub const OVERRIDES: &str = "proxy.istio.io/overrides";
/// Proxy configuration of this pod, as YAML.
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// Whether the proxy is an init container that stays.
pub const NATIVE_SIDECAR: &str = "sidecar.istio.io/nativeSidecar";

/// Annotations of a pod, read-only.
#[derive(Debug, Clone, Default)]
pub struct Annotations(BTreeMap<String, String>);

impl Annotations {
    /// The annotations of an object with `metadata`.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        Self(text_map(&object["metadata"]["annotations"]))
    }

    /// The text of an annotation.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A yes or no.
    ///
    /// # Errors
    /// Another word.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, InjectError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "True" | "TRUE" | "1" | "t" | "T") => Ok(Some(true)),
            Some("false" | "False" | "FALSE" | "0" | "f" | "F") => Ok(Some(false)),
            Some(other) => Err(wrong(name, other, "true or false")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// Another text, or a negative number.
    pub fn number(&self, name: &str) -> Result<Option<u32>, InjectError> {
        self.get(name)
            .map(|text| {
                text.trim()
                    .parse()
                    .map_err(|_| wrong(name, text, "a number"))
            })
            .transpose()
    }

    /// A port; 0 stands for none.
    ///
    /// # Errors
    /// Another text or number.
    pub fn port(&self, name: &str) -> Result<Option<u16>, InjectError> {
        self.get(name)
            .map(|text| {
                text.trim()
                    .parse()
                    .map_err(|_| wrong(name, text, "a port (0 to 65535)"))
            })
            .transpose()
    }

    /// Names of network interfaces, as text in the form the redirection rules take.
    ///
    /// # Errors
    /// A name that the kernel or those rules would not take.
    pub fn interfaces(&self, name: &str) -> Result<Option<String>, InjectError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+@:".contains(c);
        let names: Vec<&str> = words(text).collect();
        if names.iter().all(|n| n.len() < 16 && n.chars().all(plain)) {
            Ok(Some(names.join(",")))
        } else {
            Err(wrong(name, text, "a list of network interfaces"))
        }
    }

    /// Ports, as text in the form the redirection rules take.
    ///
    /// # Errors
    /// A port that is none.
    pub fn ports(&self, name: &str, star: bool) -> Result<Option<String>, InjectError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        if star && text.trim() == "*" {
            return Ok(Some("*".to_owned()));
        }
        let ports: Vec<&str> = words(text).collect();
        let valid = |port: &&str| port.parse::<u16>().is_ok_and(|port| port > 0);
        if ports.iter().all(valid) {
            Ok(Some(ports.join(",")))
        } else {
            Err(wrong(name, text, "a list of ports"))
        }
    }

    /// Address ranges, as text in the form the redirection rules take.
    ///
    /// # Errors
    /// A range that is none.
    pub fn ranges(&self, name: &str, star: bool) -> Result<Option<String>, InjectError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        if star && text.trim() == "*" {
            return Ok(Some("*".to_owned()));
        }
        let ranges: Vec<&str> = words(text).collect();
        if ranges.iter().all(|range| is_range(range)) {
            Ok(Some(ranges.join(",")))
        } else {
            Err(wrong(name, text, "a list of address ranges"))
        }
    }

    /// JSON.
    ///
    /// # Errors
    /// Text that is none.
    pub fn json(&self, name: &str) -> Result<Option<Value>, InjectError> {
        self.get(name)
            .map(|text| serde_json::from_str(text).map_err(|_| wrong(name, text, "JSON")))
            .transpose()
    }

    /// A YAML mapping.
    ///
    /// # Errors
    /// Text that is none.
    pub fn yaml(&self, name: &str) -> Result<Option<Value>, InjectError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let (documents, errors) = lateen_resources::yaml::documents(text);
        match documents.into_iter().next().map(|document| document.value) {
            None if errors.is_empty() => Ok(None),
            Some(value) if value.is_object() && errors.is_empty() => Ok(Some(value)),
            _ => Err(wrong(name, text, "a YAML mapping")),
        }
    }
}

/// The error for an annotation that holds something else.
#[must_use]
pub fn wrong(name: &str, value: &str, what: &str) -> InjectError {
    InjectError::Annotation {
        name: name.to_owned(),
        value: value.to_owned(),
        what: what.to_owned(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn is_range(text: &str) -> bool {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        return false;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let number = |bits: &str| bits.bytes().all(|b| b.is_ascii_digit()) && bits.len() < 4;
    bits.is_none_or(|bits| number(bits) && bits.parse::<u8>().is_ok_and(|bits| bits <= most))
}

/// A JSON object of texts.
#[must_use]
pub fn text_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
