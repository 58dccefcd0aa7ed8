//! Series names: the flat dotted name of Envoy's `/stats`, and the name with tags taken out for
//! Prometheus. Both are made together, so that nothing has to be taken apart by patterns later.
use std::sync::Arc;

/// A series name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatName {
    /// Flat name, `cluster.x.upstream_rq_total`.
    pub flat: Arc<str>,
    /// Name without tags, `cluster.upstream_rq_total`; Prometheus prints it with `envoy_` before it
    /// and `_` for other characters.
    pub base: Arc<str>,
    /// Tags: (name with dots, value).
    pub tags: Arc<[(Arc<str>, Arc<str>)]>,
    /// Not one of Envoy's own: Prometheus prints it as it is.
    pub custom: bool,
}

/// A prefix for the series of one thing: cluster, listener, connection manager.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    flat: String,
    base: String,
    tags: Vec<(Arc<str>, Arc<str>)>,
}

impl Scope {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// `cluster.<name>`.
    #[must_use]
    pub fn cluster(name: &str) -> Self {
        Self::tagged("cluster", "envoy.cluster_name", name)
    }

    /// `http.<stat prefix>`.
    #[must_use]
    pub fn http(prefix: &str) -> Self {
        Self::tagged("http", "envoy.http_conn_manager_prefix", prefix)
    }

    /// `tcp.<stat prefix>`.
    #[must_use]
    pub fn tcp(prefix: &str) -> Self {
        Self::tagged("tcp", "envoy.tcp_prefix", prefix)
    }

    /// `listener.<address>`, the address with `_` for `:`.
    #[must_use]
    pub fn listener(address: &str) -> Self {
        Self::tagged(
            "listener",
            "envoy.listener_address",
            &address.replace(':', "_"),
        )
    }

    /// A group without tag: `server`, `listener_manager`, `cluster_manager`.
    #[must_use]
    pub fn group(name: &str) -> Self {
        Self {
            flat: name.to_owned(),
            base: name.to_owned(),
            tags: vec![],
        }
    }

    fn tagged(group: &str, tag: &str, value: &str) -> Self {
        Self {
            flat: format!("{group}.{value}"),
            base: group.to_owned(),
            tags: vec![(tag.into(), value.into())],
        }
    }

    /// The prefix as flat names begin with it, without the dot.
    #[must_use]
    pub fn flat(&self) -> &str {
        &self.flat
    }

    /// A deeper prefix that is a tag: `<group>.<value>`.
    #[must_use]
    pub fn tag(&self, group: &str, tag: &str, value: &str) -> Self {
        let mut tags = self.tags.clone();
        tags.push((tag.into(), value.into()));
        let flat = if group.is_empty() {
            join(&self.flat, value)
        } else {
            join(&self.flat, &format!("{group}.{value}"))
        };
        Self {
            flat,
            base: if group.is_empty() {
                self.base.clone()
            } else {
                join(&self.base, group)
            },
            tags,
        }
    }

    /// A deeper prefix that is no tag.
    #[must_use]
    pub fn sub(&self, name: &str) -> Self {
        Self {
            flat: join(&self.flat, name),
            base: join(&self.base, name),
            tags: self.tags.clone(),
        }
    }

    /// A series of this scope.
    #[must_use]
    pub fn stat(&self, name: &str) -> StatName {
        self.make(name, name, None)
    }

    /// `<prefix>_200`: a series by response code.
    #[must_use]
    pub fn code(&self, prefix: &str, code: u16) -> StatName {
        self.make(
            &format!("{prefix}_{code}"),
            prefix,
            Some(("envoy.response_code", &code.to_string())),
        )
    }

    /// `<prefix>_2xx`: a series by class of response code (1 to 5).
    #[must_use]
    pub fn code_class(&self, prefix: &str, class: u16) -> StatName {
        let value = class.to_string();
        self.make(
            &format!("{prefix}_{class}xx"),
            &format!("{prefix}_xx"),
            Some(("envoy.response_code_class", &value)),
        )
    }

    /// `worker_<n>.<name>`: a series by worker.
    #[must_use]
    pub fn worker(&self, worker: usize, name: &str) -> StatName {
        let id = worker.to_string();
        self.make(
            &format!("worker_{id}.{name}"),
            &format!("worker_{name}"),
            Some(("envoy.worker_id", &id)),
        )
    }

    /// `<prefix>.<value>`: a series by what one tag says.
    #[must_use]
    pub fn valued(&self, prefix: &str, tag: &str, value: &str) -> StatName {
        self.make(&format!("{prefix}.{value}"), prefix, Some((tag, value)))
    }

    fn make(&self, flat: &str, base: &str, tag: Option<(&str, &str)>) -> StatName {
        let mut tags = self.tags.clone();
        tags.extend(tag.map(|(k, v)| (Arc::from(k), Arc::from(v))));
        StatName {
            flat: join(&self.flat, flat).into(),
            base: join(&self.base, base).into(),
            tags: tags.into(),
            custom: false,
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

impl StatName {
    /// A series with its own labels, printed by Prometheus under its own name (Istio's metrics).
    /// The flat form is `name.;.k.=.v` pairs, as Istio's filter makes it unique.
    #[must_use]
    pub fn custom(name: &str, tags: Arc<[(Arc<str>, Arc<str>)]>) -> Self {
        let mut flat = format!("istiocustom.{name}");
        for (k, v) in &*tags {
            flat.push_str(".;.");
            flat.push_str(k);
            flat.push_str(".=.");
            flat.push_str(v);
        }
        Self {
            flat: flat.into(),
            base: name.into(),
            tags,
            custom: true,
        }
    }

    /// The name as Prometheus prints it.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let clean = |s: &str| -> String {
            s.chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || c == '_' {
                        c
                    } else {
                        '_'
                    }
                })
                .collect()
        };
        if self.custom {
            clean(&self.base)
        } else {
            format!("envoy_{}", clean(&self.base))
        }
    }
}
