//! A finding about an object: what is wrong, where, and what would be right.

use crate::object::{ObjectRef, SourceRef};
use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Probably not meant; admitted.
    Warning,
    /// Refused, or certain to misbehave.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "Info",
            Severity::Warning => "Warning",
            Severity::Error => "Error",
        })
    }
}

/// A message type: Istio's code and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code {
    /// `IST0101`.
    pub id: &'static str,
    /// `ReferencedResourceNotFound`.
    pub name: &'static str,
    /// Usual severity.
    pub severity: Severity,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $konst:ident = $id:literal $name:literal $severity:ident;)*) => {
        impl Code {
            $($(#[$doc])* pub const $konst: Code =
                Code { id: $id, name: $name, severity: Severity::$severity };)*
            /// Every code known here, in order of its number.
            pub const ALL: &'static [Code] = &[$(Code::$konst),*];
        }
    };
}

codes! {
    /// A deprecated field.
    DEPRECATED = "IST0002" "Deprecated" Warning;
    /// A referenced object does not exist.
    NOT_FOUND = "IST0101" "ReferencedResourceNotFound" Error;
    /// A namespace without injection label.
    NAMESPACE_NOT_INJECTED = "IST0102" "NamespaceNotInjected" Info;
    /// A pod of an injected namespace without sidecar.
    POD_MISSING_PROXY = "IST0103" "PodMissingProxy" Warning;
    /// The object itself is wrong.
    SCHEMA = "IST0106" "SchemaValidationError" Error;
    /// Two virtual services of one host on the mesh.
    MESH_HOST_CONFLICT = "IST0109" "ConflictingMeshGatewayVirtualServiceHosts" Error;
    /// A destination of a multi-port service names no port.
    DESTINATION_PORT_REQUIRED =
        "IST0112" "VirtualServiceDestinationPortSelectorRequired" Error;
    /// A workload port shared by services of different protocols.
    MULTIPLE_SERVICES = "IST0116" "DeploymentAssociatedToMultipleServices" Warning;
    /// A port name without protocol prefix.
    PORT_NAME = "IST0118" "PortNameIsNotUnderNamingConvention" Info;
    /// Two kinds of injection labels.
    TWO_INJECTION_LABELS = "IST0123" "NamespaceMultipleInjectionLabels" Warning;
    /// A rule that never gets traffic.
    UNREACHABLE_RULE = "IST0130" "VirtualServiceUnreachableRule" Warning;
    /// A match that an earlier one covers.
    INEFFECTIVE_MATCH = "IST0131" "VirtualServiceIneffectiveMatch" Info;
    /// A host that no server of the gateway serves.
    HOST_NOT_IN_GATEWAY = "IST0132" "VirtualServiceHostNotFoundInGateway" Warning;
    /// The object is admitted but doubtful.
    SCHEMA_WARNING = "IST0133" "SchemaWarning" Warning;
    /// An application running as the proxy's user.
    PROXY_UID = "IST0144" "InvalidApplicationUID" Warning;
    /// A gateway port that the gateway's Service lacks.
    GATEWAY_PORT = "IST0162" "GatewayPortNotDefinedOnService" Warning;
    /// A subset without pods.
    EMPTY_SUBSET = "IST0173" "DestinationRuleSubsetNotSelectPods" Error;
    /// A destination rule for an unknown host.
    UNKNOWN_RULE_HOST = "IST0174" "UnknownDestinationRuleHost" Warning;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Message type.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Object it is about; `None` for unreadable input.
    pub object: Option<ObjectRef>,
    /// Field path inside the object, such as `spec.http[0].route[0].weight`; may be empty.
    pub field: String,
    /// File and line, when the object came from a file.
    pub source: Option<SourceRef>,
    /// One sentence.
    pub message: String,
    /// What would be right, one sentence; empty when the message says it.
    pub remedy: String,
}

impl Diagnostic {
    /// A finding with the code's usual severity.
    pub fn new(code: Code, object: Option<ObjectRef>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity,
            object,
            field: String::new(),
            source: None,
            message: message.into(),
            remedy: String::new(),
        }
    }

    /// Sets the field path.
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Sets the remedy.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Sets file and line.
    pub fn source(mut self, source: Option<SourceRef>) -> Self {
        self.source = source;
        self
    }
}

/// Istio's line form: `Error [IST0101] (VirtualService default/reviews file.yaml:12) message`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.severity, self.code.id)?;
        let source = self.source.as_ref();
        match (&self.object, source) {
            (Some(o), Some(s)) => write!(f, " ({o} {s})")?,
            (Some(o), None) => write!(f, " ({o})")?,
            (None, Some(s)) => write!(f, " ({s})")?,
            (None, None) => {}
        }
        write!(f, " {}", self.message)
    }
}
