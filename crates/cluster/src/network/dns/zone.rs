//! The names of the cluster: pure, from a view of Services to answers, by the Kubernetes DNS
//! specification (service, headless, endpoint, SRV, pod and reverse names).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::network::view::{EndpointView, Key, ServiceView, View};

/// Record types that the zone can answer; others exist nowhere in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// Ports and targets.
    Srv,
    /// Reverse names.
    Ptr,
    /// Anything else: the name may exist, without such a record.
    Other,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address.
    A(Ipv4Addr),
    /// A port at a target name.
    Srv(u16, String),
    /// A name.
    Ptr(String),
}

/// What the zone says about a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Not a name of this zone.
    Foreign,
    /// No such name.
    Missing,
    /// The name exists; records of the asked type, with further records that help (name, data).
    Found {
        /// Records of the asked name.
        records: Vec<Data>,
        /// Addresses of SRV targets.
        additional: Vec<(String, Ipv4Addr)>,
    },
    /// The name is another name for this one.
    Alias(String),
}

impl Answer {
    fn records(records: Vec<Data>) -> Self {
        Self::Found {
            records,
            additional: Vec::new(),
        }
    }

    fn empty() -> Self {
        Self::records(Vec::new())
    }
}

/// The cluster's zone at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Zone<'a> {
    /// Services and endpoints.
    pub view: &'a View,
    /// Cluster domain, without dots at the ends.
    pub domain: &'a str,
    /// Pod addresses, for reverse names.
    pub pods: Ipv4Net,
    /// Service addresses, for reverse names.
    pub services: Ipv4Net,
}

/// The label of an endpoint without a host name.
fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn published<'a>(view: &'a View, key: &'a Key, service: &ServiceView) -> Vec<&'a EndpointView> {
    let all = service.publish_not_ready;
    view.endpoints(key).filter(|e| all || e.ready).collect()
}

impl Zone<'_> {
    /// Answers a question. `name` is in lower case without the final dot.
    pub fn answer(&self, name: &str, kind: Kind) -> Answer {
        if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
            return self.reverse(reversed, kind);
        }
        let Some(rest) = name.strip_suffix(self.domain) else {
            return Answer::Foreign;
        };
        if rest.is_empty() {
            return Answer::empty();
        }
        let Some(rest) = rest.strip_suffix('.') else {
            return Answer::Foreign;
        };
        let labels: Vec<&str> = rest.split('.').collect();
        match labels.as_slice() {
            ["svc" | "pod"] => Answer::empty(),
            [namespace, "svc" | "pod"] => self.namespace(namespace),
            [service, namespace, "svc"] => self.service(service, namespace, kind),
            [label, service, namespace, "svc"] => self.endpoint(label, service, namespace, kind),
            [port, protocol, service, namespace, "svc"] => {
                self.port(port, protocol, service, namespace, kind)
            }
            [address, _, "pod"] => Self::pod(address, kind),
            _ => Answer::Missing,
        }
    }

    fn namespace(&self, namespace: &str) -> Answer {
        if self.view.services.keys().any(|(ns, _)| ns == namespace) {
            Answer::empty()
        } else {
            Answer::Missing
        }
    }

    fn find(&self, service: &str, namespace: &str) -> Option<(&Key, &ServiceView)> {
        self.view
            .services
            .get_key_value(&(namespace.to_owned(), service.to_owned()))
    }

    fn service(&self, service: &str, namespace: &str, kind: Kind) -> Answer {
        let Some((key, view)) = self.find(service, namespace) else {
            return Answer::Missing;
        };
        if let Some(target) = &view.external_name {
            return Answer::Alias(target.trim_end_matches('.').to_lowercase());
        }
        match kind {
            Kind::A if view.headless => {
                let mut found: Vec<Ipv4Addr> = published(self.view, key, view)
                    .iter()
                    .map(|e| e.address)
                    .collect();
                found.sort_unstable();
                found.dedup();
                Answer::records(found.into_iter().map(Data::A).collect())
            }
            Kind::A => Answer::records(view.cluster_ips.iter().copied().map(Data::A).collect()),
            Kind::Srv => self.srv(key, view, |_, _| true),
            Kind::Ptr | Kind::Other => Answer::empty(),
        }
    }

    /// `hostname.service.namespace.svc` and the dashed-address form.
    fn endpoint(&self, label: &str, service: &str, namespace: &str, kind: Kind) -> Answer {
        let Some((key, view)) = self.find(service, namespace) else {
            return Answer::Missing;
        };
        let ours = |e: &&EndpointView| {
            e.hostname
                .as_deref()
                .map_or_else(|| dashed(e.address) == label, |h| h == label)
        };
        let found: Vec<Ipv4Addr> = published(self.view, key, view)
            .into_iter()
            .filter(ours)
            .map(|e| e.address)
            .collect();
        match (found.is_empty(), kind) {
            (true, _) if label.starts_with('_') => Answer::empty(),
            (true, _) => Answer::Missing,
            (false, Kind::A) => Answer::records(found.into_iter().map(Data::A).collect()),
            (false, _) => Answer::empty(),
        }
    }

    fn port(&self, port: &str, protocol: &str, service: &str, ns: &str, kind: Kind) -> Answer {
        let (Some((key, view)), Some(port), Some(protocol)) = (
            self.find(service, ns),
            port.strip_prefix('_'),
            protocol.strip_prefix('_'),
        ) else {
            return Answer::Missing;
        };
        match self.srv(key, view, |name, proto| name == port && proto == protocol) {
            Answer::Found { records, .. } if records.is_empty() => Answer::Missing,
            found if kind == Kind::Srv => found,
            _ => Answer::empty(),
        }
    }

    fn srv(&self, key: &Key, view: &ServiceView, wanted: impl Fn(&str, &str) -> bool) -> Answer {
        let base = format!("{}.{}.svc.{}", key.1, key.0, self.domain);
        let mut records = Vec::new();
        let mut additional = Vec::new();
        if view.headless {
            for endpoint in published(self.view, key, view) {
                let label = endpoint
                    .hostname
                    .clone()
                    .unwrap_or_else(|| dashed(endpoint.address));
                let target = format!("{label}.{base}");
                let before = records.len();
                for (name, protocol, port) in &endpoint.ports {
                    if !name.is_empty() && wanted(name, protocol.name()) {
                        records.push(Data::Srv(*port, target.clone()));
                    }
                }
                if records.len() > before {
                    additional.push((target, endpoint.address));
                }
            }
        } else {
            for port in &view.ports {
                if !port.name.is_empty() && wanted(&port.name, port.protocol.name()) {
                    records.push(Data::Srv(port.port, base.clone()));
                }
            }
            if !records.is_empty() {
                additional.extend(view.cluster_ips.iter().map(|ip| (base.clone(), *ip)));
            }
        }
        Answer::Found {
            records,
            additional,
        }
    }

    fn pod(label: &str, kind: Kind) -> Answer {
        match (label.replace('-', ".").parse::<Ipv4Addr>(), kind) {
            (Ok(address), Kind::A) => Answer::records(vec![Data::A(address)]),
            (Ok(_), _) => Answer::empty(),
            (Err(_), _) => Answer::Missing,
        }
    }

    fn reverse(&self, reversed: &str, kind: Kind) -> Answer {
        let forward: Vec<&str> = reversed.split('.').rev().collect();
        let Ok(address) = forward.join(".").parse::<Ipv4Addr>() else {
            return Answer::Foreign;
        };
        if !self.pods.contains(&address) && !self.services.contains(&address) {
            return Answer::Foreign;
        }
        let names = self.names_of(address);
        match (names.is_empty(), kind) {
            (true, _) => Answer::Missing,
            (false, Kind::Ptr) => Answer::records(names.into_iter().map(Data::Ptr).collect()),
            (false, _) => Answer::empty(),
        }
    }

    fn names_of(&self, address: Ipv4Addr) -> Vec<String> {
        let mut names = Vec::new();
        for (key, service) in &self.view.services {
            let base = format!("{}.{}.svc.{}", key.1, key.0, self.domain);
            if service.cluster_ips.contains(&address) {
                names.push(base);
            } else if service.headless {
                let endpoints = self.view.endpoints(key).filter(|e| e.address == address);
                names.extend(endpoints.map(|e| {
                    let label = e.hostname.clone().unwrap_or_else(|| dashed(e.address));
                    format!("{label}.{base}")
                }));
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::view::{Protocol, ServicePort};

    fn view() -> View {
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let port = |name: &str, port| ServicePort {
            name: name.into(),
            protocol: Protocol::Tcp,
            port,
            node_port: None,
        };
        let mut view = View::default();
        view.services.insert(
            key("web"),
            ServiceView {
                cluster_ips: vec![[10, 96, 0, 7].into()],
                ports: vec![port("http", 80)],
                ..ServiceView::default()
            },
        );
        view.services.insert(
            key("db"),
            ServiceView {
                headless: true,
                ports: vec![port("sql", 5432)],
                ..ServiceView::default()
            },
        );
        view.services.insert(
            key("out"),
            ServiceView {
                external_name: Some("Example.COM.".into()),
                ..ServiceView::default()
            },
        );
        let endpoint = |last, ready, hostname: Option<&str>| EndpointView {
            address: [10, 244, 1, last].into(),
            ports: vec![("sql".into(), Protocol::Tcp, 5432)],
            ready,
            serving: ready,
            terminating: false,
            node: None,
            hostname: hostname.map(str::to_owned),
        };
        view.slices.insert(
            key("db-1"),
            (
                key("db"),
                vec![
                    endpoint(5, true, Some("db-0")),
                    endpoint(6, true, None),
                    endpoint(7, false, None),
                ],
            ),
        );
        view
    }

    fn ask(name: &str, kind: Kind) -> Answer {
        let view = view();
        let zone = Zone {
            view: &view,
            domain: "cluster.local",
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/16".parse().unwrap(),
        };
        zone.answer(name, kind)
    }

    fn addresses(name: &str) -> Vec<String> {
        match ask(name, Kind::A) {
            Answer::Found { records, .. } => records
                .into_iter()
                .map(|r| match r {
                    Data::A(a) => a.to_string(),
                    other => panic!("{other:?}"),
                })
                .collect(),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn service_names() {
        assert_eq!(addresses("web.default.svc.cluster.local"), ["10.96.0.7"]);
        assert_eq!(
            addresses("db.default.svc.cluster.local"),
            ["10.244.1.5", "10.244.1.6"]
        );
        assert_eq!(
            addresses("db-0.db.default.svc.cluster.local"),
            ["10.244.1.5"]
        );
        assert_eq!(
            addresses("10-244-1-6.db.default.svc.cluster.local"),
            ["10.244.1.6"]
        );
        assert_eq!(
            addresses("10-244-9-9.any.pod.cluster.local"),
            ["10.244.9.9"]
        );
        assert_eq!(
            ask("out.default.svc.cluster.local", Kind::A),
            Answer::Alias("example.com".into())
        );
    }

    #[test]
    fn missing_names_and_missing_types_differ() {
        assert_eq!(
            ask("web.default.svc.cluster.local", Kind::Other),
            Answer::empty()
        );
        assert_eq!(ask("default.svc.cluster.local", Kind::A), Answer::empty());
        assert_eq!(ask("cluster.local", Kind::A), Answer::empty());
        for name in [
            "nope.default.svc.cluster.local",
            "other.svc.cluster.local",
            "db-9.db.default.svc.cluster.local",
            "a.b.c.d.e.svc.cluster.local",
            "web.cluster.local",
        ] {
            assert_eq!(ask(name, Kind::A), Answer::Missing, "{name}");
        }
        assert_eq!(ask("example.com", Kind::A), Answer::Foreign);
        assert_eq!(ask("notcluster.local", Kind::A), Answer::Foreign);
    }

    #[test]
    fn ports_have_srv_records() {
        let web = ask("_http._tcp.web.default.svc.cluster.local", Kind::Srv);
        let target = "web.default.svc.cluster.local".to_owned();
        let expected = Answer::Found {
            records: vec![Data::Srv(80, target.clone())],
            additional: vec![(target, [10, 96, 0, 7].into())],
        };
        assert_eq!(web, expected);
        let Answer::Found {
            records,
            additional,
        } = ask("_sql._tcp.db.default.svc.cluster.local", Kind::Srv)
        else {
            panic!("no SRV");
        };
        assert_eq!(records.len(), 2);
        assert_eq!(additional[1].0, "10-244-1-6.db.default.svc.cluster.local");
        assert_eq!(
            ask("_no._tcp.db.default.svc.cluster.local", Kind::Srv),
            Answer::Missing
        );
    }

    #[test]
    fn reverse_names() {
        let ptr = |name| ask(name, Kind::Ptr);
        assert_eq!(
            ptr("7.0.96.10.in-addr.arpa"),
            Answer::records(vec![Data::Ptr("web.default.svc.cluster.local".into())])
        );
        assert_eq!(
            ptr("5.1.244.10.in-addr.arpa"),
            Answer::records(vec![Data::Ptr("db-0.db.default.svc.cluster.local".into())])
        );
        assert_eq!(ptr("9.0.96.10.in-addr.arpa"), Answer::Missing);
        assert_eq!(ptr("1.2.0.192.in-addr.arpa"), Answer::Foreign);
    }
}
