//! Ingress in its v1 and v1beta1 forms.

use super::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An Ingress.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// Spec.
    pub spec: IngressSpec,
}

/// Spec of an Ingress.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    /// Class.
    pub ingress_class_name: Option<String>,
    /// Backend of requests that no rule takes.
    pub default_backend: Option<IngressBackend>,
    /// The v1beta1 name of `defaultBackend`.
    pub backend: Option<IngressBackend>,
    /// Rules.
    pub rules: Vec<IngressRule>,
    /// TLS.
    pub tls: Vec<IngressTls>,
}

/// A rule of an Ingress.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressRule {
    /// Host; empty is all.
    pub host: String,
    /// Paths.
    pub http: Option<IngressHttp>,
}

/// Paths of a rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressHttp {
    /// Paths.
    pub paths: Vec<IngressPath>,
}

/// A path of a rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressPath {
    /// Path; empty is `/`.
    pub path: String,
    /// `Exact`, `Prefix` or `ImplementationSpecific`.
    pub path_type: String,
    /// Where to.
    pub backend: IngressBackend,
}

/// A backend: `service` in v1, `serviceName` and `servicePort` in v1beta1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressBackend {
    /// The v1 form.
    pub service: Option<IngressService>,
    /// The v1beta1 service name.
    pub service_name: String,
    /// The v1beta1 port.
    pub service_port: Option<IntOrString>,
}

/// A service backend.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressService {
    /// Service name.
    pub name: String,
    /// Port.
    pub port: IngressServicePort,
}

/// A port of a service backend: number or name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressServicePort {
    /// Number.
    pub number: Option<i32>,
    /// Name.
    pub name: String,
}

impl IngressBackend {
    /// Service name and port in either form.
    pub fn service_and_port(&self) -> Option<(&str, IntOrString)> {
        if let Some(s) = &self.service {
            let port = match s.port.number {
                Some(n) => IntOrString::Int(n),
                None => IntOrString::String(s.port.name.clone()),
            };
            return Some((&s.name, port));
        }
        let port = self.service_port.clone()?;
        (!self.service_name.is_empty()).then_some((self.service_name.as_str(), port))
    }
}

/// TLS of an Ingress.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressTls {
    /// Hosts.
    pub hosts: Vec<String>,
    /// Secret.
    pub secret_name: String,
}
