//! The small files of a pod: `hosts`, `resolv.conf`, `hostname`. Contents are pure; one function
//! writes them.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// What name resolution in pods depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsFacts {
    /// Cluster domain.
    pub domain: String,
    /// Cluster DNS.
    pub cluster: IpAddr,
    /// The host's resolvers.
    pub host: Vec<IpAddr>,
    /// The host's search domains.
    pub host_search: Vec<String>,
}

/// Most search domains and name servers that `resolv.conf` readers take.
const MAX_SEARCH: usize = 32;
const MAX_SERVERS: usize = 3;

/// The pod's host name: `spec.hostname`, else its name, cut to 63 letters.
pub fn host_name(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec
        .and_then(|s| s.hostname.as_deref())
        .filter(|h| !h.is_empty());
    let name = name.or(pod.metadata.name.as_deref()).unwrap_or("localhost");
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// `/etc/hosts`.
pub fn hosts(pod: &Pod, address: Option<IpAddr>, domain: &str, host_file: &str) -> String {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
    let mut text = if host_network {
        host_file.to_owned()
    } else {
        "# Managed by the node agent.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned()
    };
    if let Some(address) = address.filter(|_| !host_network) {
        let name = host_name(pod);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        match spec
            .and_then(|s| s.subdomain.as_deref())
            .filter(|s| !s.is_empty())
        {
            Some(sub) => text.push_str(&format!(
                "{address}\t{name}.{sub}.{namespace}.svc.{domain}\t{name}\n"
            )),
            None => text.push_str(&format!("{address}\t{name}\n")),
        }
    }
    for alias in spec
        .and_then(|s| s.host_aliases.as_ref())
        .into_iter()
        .flatten()
    {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// `/etc/resolv.conf` by `dnsPolicy` and `dnsConfig`.
pub fn resolv_conf(pod: &Pod, facts: &DnsFacts) -> String {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let host_network = spec.host_network.unwrap_or(false);
    let policy = match spec.dns_policy.as_deref() {
        Some("Default") => "Default",
        Some("None") => "None",
        Some("ClusterFirstWithHostNet") => "ClusterFirst",
        _ if host_network => "Default",
        _ => "ClusterFirst",
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = &facts.domain;
    let (mut servers, mut search, mut options): (Vec<String>, Vec<String>, Vec<String>) =
        match policy {
            "ClusterFirst" => (
                vec![facts.cluster.to_string()],
                vec![
                    format!("{namespace}.svc.{domain}"),
                    format!("svc.{domain}"),
                    domain.clone(),
                ]
                .into_iter()
                .chain(facts.host_search.iter().cloned())
                .collect(),
                vec!["ndots:5".to_owned()],
            ),
            "Default" => (
                facts.host.iter().map(ToString::to_string).collect(),
                facts.host_search.clone(),
                Vec::new(),
            ),
            _ => (Vec::new(), Vec::new(), Vec::new()),
        };
    if let Some(config) = &spec.dns_config {
        let add = |list: &mut Vec<String>, more: Option<&Vec<String>>| {
            for item in more.into_iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut servers, config.nameservers.as_ref());
        add(&mut search, config.searches.as_ref());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            options.retain(|o| o.split(':').next() != Some(name));
            match &option.value {
                Some(value) => options.push(format!("{name}:{value}")),
                None => options.push(name.to_owned()),
            }
        }
    }
    servers.truncate(MAX_SERVERS);
    search.truncate(MAX_SEARCH);
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// Search domains in the text of a `resolv.conf`.
pub fn parse_search(text: &str) -> Vec<String> {
    let last = text
        .lines()
        .rev()
        .find_map(|l| l.trim().strip_prefix("search"));
    last.unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Writes the files into `dir`.
///
/// # Errors
/// When the disk refuses.
pub fn write(dir: &Path, pod: &Pod, address: Option<IpAddr>, facts: &DnsFacts) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let host_file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    std::fs::write(
        dir.join("hosts"),
        hosts(pod, address, &facts.domain, &host_file),
    )?;
    std::fs::write(dir.join("resolv.conf"), resolv_conf(pod, facts))?;
    std::fs::write(dir.join("hostname"), format!("{}\n", host_name(pod)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(
            json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}),
        )
        .unwrap()
    }

    fn facts() -> DnsFacts {
        DnsFacts {
            domain: "cluster.local".into(),
            cluster: [10, 96, 0, 10].into(),
            host: vec![[192, 0, 2, 53].into()],
            host_search: vec!["example.org".into()],
        }
    }

    #[test]
    fn cluster_names_first() {
        let text = resolv_conf(&pod(json!({})), &facts());
        assert_eq!(
            text,
            "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        let host = resolv_conf(&pod(json!({"hostNetwork": true})), &facts());
        assert_eq!(host, "search example.org\nnameserver 192.0.2.53\n");
        let own = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(
            resolv_conf(&pod(own), &facts()),
            "nameserver 1.1.1.1\noptions ndots:2 edns0\n"
        );
        let more = json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}});
        assert!(resolv_conf(&pod(more), &facts()).ends_with("options ndots:1\n"));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let spec = json!({"subdomain": "web", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let text = hosts(
            &pod(spec),
            Some([10, 244, 1, 2].into()),
            "cluster.local",
            "",
        );
        assert!(
            text.contains("10.244.1.2\tweb-0.web.shop.svc.cluster.local\tweb-0\n"),
            "{text}"
        );
        assert!(text.contains("1.2.3.4\ta\tb\n"));
        let host = hosts(
            &pod(json!({"hostNetwork": true})),
            Some([10, 0, 0, 1].into()),
            "c",
            "9.9.9.9 x\n",
        );
        assert_eq!(host, "9.9.9.9 x\n");
        assert_eq!(parse_search("nameserver x\nsearch a b\n"), ["a", "b"]);
    }
}
