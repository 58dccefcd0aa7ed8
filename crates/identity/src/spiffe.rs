//! SPIFFE names as Istio forms them: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.

use std::fmt;
use std::str::FromStr;

use crate::IdentityError;

/// The name of a workload: a trust domain, a namespace and a service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// Trust domain, usually `cluster.local`.
    pub trust_domain: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
}

impl SpiffeId {
    /// A name from its parts.
    #[must_use]
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || IdentityError::BadName(s.to_owned());
        let rest = s.strip_prefix("spiffe://").ok_or_else(bad)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [domain, "ns", ns, "sa", sa]
                if !domain.is_empty() && !ns.is_empty() && !sa.is_empty() =>
            {
                Ok(Self::new(domain, ns, sa))
            }
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_bad_ones_are_refused() {
        let text = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        let id: SpiffeId = text.parse().expect("parses");
        assert_eq!(id.service_account, "bookinfo-reviews");
        assert_eq!(id.to_string(), text);
        for bad in [
            "",
            "spiffe://a",
            "spiffe:///ns/a/sa/b",
            "https://a/ns/b/sa/c",
            "spiffe://a/ns/b/sa/c/d",
            "spiffe://a/ns//sa/c",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }
}
