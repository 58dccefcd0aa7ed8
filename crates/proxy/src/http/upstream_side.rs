//! What log lines say of the upstream side: of HTTP streams and of TCP
//! connections the same.

use std::rc::Rc;

use lateen_proxy_core::access_log::{Field, FieldValue};
use lateen_proxy_core::config::Name;
use lateen_proxy_core::path;

use crate::tls::session::UpstreamSession;
use crate::upstream::{ClusterState, Host};

/// The upstream side of a record.
pub struct UpstreamSide<'a> {
    /// Chosen host.
    pub host: Option<&'a Rc<Host>>,
    /// Chosen cluster.
    pub cluster: Option<&'a Rc<ClusterState>>,
    /// Its name, also where there is no such cluster.
    pub cluster_name: Option<&'a Name>,
    /// The hosts a connection was had to, with its number.
    pub reached: &'a [(Rc<Host>, u64)],
    /// Its TLS.
    pub tls: Option<&'a UpstreamSession>,
}

impl<'a> UpstreamSide<'a> {
    /// The value of a field; missing where it is none of the upstream's.
    pub fn field(&self, field: Field) -> FieldValue<'a> {
        match field {
            Field::UpstreamHost => self.host.map(|h| &*h.text).into(),
            // Only of a connection that was had.
            Field::UpstreamRemoteAddress => self.reached.last().map(|(h, _)| &*h.text).into(),
            Field::UpstreamHostName => self.host.map(name).into(),
            Field::UpstreamHostNameWithoutPort => self.host.map(|h| bare(name(h))).into(),
            Field::UpstreamClusterRaw => self.cluster_name.map(|n| &**n).into(),
            Field::UpstreamCluster => match self.cluster {
                Some(cluster) => FieldValue::Text(&cluster.config.stat_name),
                None => self.cluster_name.map(|n| &**n).into(),
            },
            Field::UpstreamConnectionId => {
                FieldValue::Number(self.reached.last().map_or(0, |(_, id)| *id))
            }
            Field::UpstreamConnectionIdsAttempted => {
                let ids = self.reached.iter().map(|(_, id)| id.to_string());
                join(ids.collect())
            }
            Field::UpstreamHostsAttempted => self.join(|h| &h.text),
            Field::UpstreamHostsAttemptedWithoutPort => self.join(|h| bare(&h.text)),
            Field::UpstreamHostNamesAttempted => self.join(name),
            Field::UpstreamHostNamesAttemptedWithoutPort => self.join(|h| bare(name(h))),
            field => match self.tls {
                Some(tls) => tls.field(field),
                None => FieldValue::Missing,
            },
        }
    }

    fn join(&self, text: impl Fn(&'a Rc<Host>) -> &'a str) -> FieldValue<'a> {
        join(
            self.reached
                .iter()
                .map(|(h, _)| text(h).to_owned())
                .collect(),
        )
    }
}

/// Each value once, in the order of their first use.
fn join(values: Vec<String>) -> FieldValue<'static> {
    let mut once: Vec<String> = Vec::with_capacity(values.len());
    for value in values {
        if !once.contains(&value) {
            once.push(value);
        }
    }
    match once.is_empty() {
        true => FieldValue::Missing,
        false => FieldValue::Owned(once.join(",")),
    }
}

/// The host's name, else its address.
fn name(host: &Rc<Host>) -> &str {
    match host.endpoint.hostname.is_empty() {
        true => &host.text,
        false => &host.endpoint.hostname,
    }
}

fn bare(host: &str) -> &str {
    &host[..path::without_port(host.as_bytes()).len()]
}
