//! Where a compiled item comes from: the user's object and the field in it.

use crate::Str;
use std::fmt;

/// The object and field that decided a compiled item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Origin {
    /// Kind as the user wrote it, such as `VirtualService`.
    pub kind: Str,
    /// Namespace of the object; empty for cluster-scoped ones.
    pub namespace: Str,
    /// Name of the object.
    pub name: Str,
    /// Field path inside the object such as `spec.http[0].route[1]`; empty for the whole object.
    pub field: Str,
}

impl Origin {
    /// The whole object.
    pub fn new(kind: impl Into<Str>, namespace: impl Into<Str>, name: impl Into<Str>) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
            field: "".into(),
        }
    }

    /// The same object, at a field path.
    pub fn at(&self, field: impl Into<Str>) -> Self {
        Self {
            field: field.into(),
            ..self.clone()
        }
    }

    /// The value of Istio's `istio.config` metadata for this object, such as
    /// `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`.
    pub fn istio_config(&self) -> String {
        format!(
            "/apis/networking.istio.io/v1/namespaces/{}/{}/{}",
            self.namespace,
            kebab(&self.kind),
            self.name
        )
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}", self.name)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        Ok(())
    }
}

fn kebab(kind: &str) -> String {
    let mut out = String::with_capacity(kind.len() + 2);
    for (i, c) in kind.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_config_path() {
        let o = Origin::new("VirtualService", "default", "reviews");
        assert_eq!(
            o.istio_config(),
            "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"
        );
        assert_eq!(
            o.at("spec.http[0]").to_string(),
            "VirtualService default/reviews spec.http[0]"
        );
    }
}
