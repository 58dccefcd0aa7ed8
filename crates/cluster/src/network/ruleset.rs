//! Service addresses as one nftables table: pure, from a view of Services to rule text.
//!
//! Each Service port is a chain that translates to one of its endpoints; two verdict maps lead
//! there, one by cluster address and one by node port. What stays addressed to the service range
//! has no endpoint and is refused.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::view::{EndpointView, Locality, Protocol, ServicePort, ServiceView, View, index};

/// Packet mark bit that asks for masquerading.
const MASQUERADE: &str = "0x08000000";

/// What the rules need to know about the cluster's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Table name.
    pub table: String,
    /// Bridge of the pods.
    pub bridge: String,
    /// Pod addresses.
    pub pods: Ipv4Net,
    /// Service addresses.
    pub services: Ipv4Net,
    /// Nodes with their share of the pod addresses.
    pub nodes: Vec<(String, Ipv4Net)>,
}

/// An endpoint of one port.
#[derive(Clone, Copy)]
struct Backend<'a> {
    address: Ipv4Addr,
    port: u16,
    node: Option<&'a str>,
}

#[derive(Default)]
struct Parts {
    by_address: BTreeSet<String>,
    by_node_port: BTreeSet<String>,
    refused: BTreeSet<String>,
    hairpin: BTreeSet<String>,
    chains: String,
}

/// The whole table as one transaction that replaces what was there.
pub fn render(layout: &Layout, view: &View) -> String {
    let endpoints = index(view);
    let mut parts = Parts::default();
    for (key, service) in &view.services {
        let endpoints = endpoints.get(key).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            let name = format!("{}/{}/{}/{}", key.0, key.1, port.protocol.name(), port.port);
            let backends = backends(endpoints, port);
            add_port(&mut parts, layout, service, port, &name, &backends);
        }
    }
    table(layout, &parts)
}

/// Ready endpoints of the port; without any, those that still serve while they terminate.
fn backends<'a>(endpoints: &[&'a EndpointView], port: &ServicePort) -> Vec<Backend<'a>> {
    let pick = |wanted: fn(&EndpointView) -> bool| -> Vec<Backend<'a>> {
        let mut found: Vec<Backend<'a>> = endpoints
            .iter()
            .filter(|e| wanted(e))
            .flat_map(|e| {
                let ports = e.ports.iter();
                let ours = ports.filter(|(n, p, _)| *n == port.name && *p == port.protocol);
                ours.map(|(_, _, number)| Backend {
                    address: e.address,
                    port: *number,
                    node: e.node.as_deref(),
                })
            })
            .collect();
        found.sort_by_key(|b| (b.address, b.port));
        found.dedup_by_key(|b| (b.address, b.port));
        found
    };
    let ready = pick(|e| e.ready);
    if ready.is_empty() {
        pick(|e| e.serving && e.terminating)
    } else {
        ready
    }
}

fn add_port(
    parts: &mut Parts,
    layout: &Layout,
    service: &ServiceView,
    port: &ServicePort,
    name: &str,
    backends: &[Backend<'_>],
) {
    let protocol = port.protocol.name();
    let target = |ip: &Ipv4Addr| format!("{ip} . {protocol} . {}", port.port);
    if backends.is_empty() {
        parts
            .refused
            .extend(service.external_ips.iter().map(target));
        return;
    }
    for backend in backends {
        parts.hairpin.insert(format!("{0} . {0}", backend.address));
    }
    let chain = format!("svc/{name}");
    let policy = service.internal;
    write_chain(
        parts,
        layout,
        &chain,
        port.protocol,
        service,
        policy,
        backends,
        false,
    );
    for ip in &service.cluster_ips {
        parts
            .by_address
            .insert(format!("{} : goto {chain}", target(ip)));
    }
    if port.node_port.is_none() && service.external_ips.is_empty() {
        return;
    }
    let outer = format!("ext/{name}");
    let policy = service.external;
    write_chain(
        parts,
        layout,
        &outer,
        port.protocol,
        service,
        policy,
        backends,
        true,
    );
    for ip in &service.external_ips {
        parts
            .by_address
            .insert(format!("{} : goto {outer}", target(ip)));
    }
    if let Some(node_port) = port.node_port {
        parts
            .by_node_port
            .insert(format!("{protocol} . {node_port} : goto {outer}"));
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site per chain kind; a struct would only rename the arguments"
)]
fn write_chain(
    parts: &mut Parts,
    layout: &Layout,
    chain: &str,
    protocol: Protocol,
    service: &ServiceView,
    policy: Locality,
    backends: &[Backend<'_>],
    external: bool,
) {
    let out = &mut parts.chains;
    let _ = writeln!(out, "  chain {chain} {{");
    // "Cluster" hides a client from outside behind the node; "Local" shows it to the endpoint.
    if external && policy == Locality::Cluster {
        let _ = writeln!(out, "    meta mark set meta mark or {MASQUERADE}");
    }
    if !external && policy == Locality::Local {
        for (node, range) in &layout.nodes {
            let own = |b: &&Backend<'_>| b.node == Some(node.as_str());
            let local: Vec<Backend<'_>> = backends.iter().filter(own).copied().collect();
            let from = format!("ip saddr {range} ");
            if local.is_empty() {
                // Not translated, so it stays in the service range and is refused.
                let _ = writeln!(out, "    {from}return");
            } else {
                write_dnat(out, &from, protocol, service.client_ip_affinity, &local);
            }
        }
    }
    write_dnat(out, "", protocol, service.client_ip_affinity, backends);
    out.push_str("  }\n");
}

fn write_dnat(
    out: &mut String,
    condition: &str,
    protocol: Protocol,
    affinity: bool,
    backends: &[Backend<'_>],
) {
    let protocol = protocol.name();
    let _ = write!(out, "    {condition}meta l4proto {protocol} dnat ");
    if let [only] = backends {
        let _ = writeln!(out, "to {}:{}", only.address, only.port);
        return;
    }
    // A hash of the client's address keeps it at one endpoint without state that a rule
    // replacement would lose.
    let number = if affinity {
        "jhash ip saddr"
    } else {
        "numgen random"
    };
    let seed = if affinity { " seed 0x1a7ee" } else { "" };
    let targets: Vec<String> = backends
        .iter()
        .enumerate()
        .map(|(i, b)| format!("{i} : {} . {}", b.address, b.port))
        .collect();
    let _ = writeln!(
        out,
        "ip addr . port to {number} mod {}{seed} map {{ {} }}",
        backends.len(),
        targets.join(", ")
    );
}

fn elements(items: &BTreeSet<String>) -> String {
    if items.is_empty() {
        return String::new();
    }
    let list: Vec<&str> = items.iter().map(String::as_str).collect();
    format!("    elements = {{ {} }}\n", list.join(",\n      "))
}

fn table(layout: &Layout, parts: &Parts) -> String {
    let Layout {
        table,
        bridge,
        pods,
        services,
        ..
    } = layout;
    let by_address = elements(&parts.by_address);
    let by_node_port = elements(&parts.by_node_port);
    let hairpin = elements(&parts.hairpin);
    let refused = elements(&parts.refused);
    let chains = &parts.chains;
    format!(
        "add table ip {table}
delete table ip {table}
table ip {table} {{
  map services {{
    type ipv4_addr . inet_proto . inet_service : verdict
{by_address}  }}
  map nodeports {{
    type inet_proto . inet_service : verdict
{by_node_port}  }}
  set hairpin {{
    type ipv4_addr . ipv4_addr
{hairpin}  }}
  set refused {{
    type ipv4_addr . inet_proto . inet_service
{refused}  }}
{chains}  chain dispatch {{
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local meta l4proto . th dport vmap @nodeports
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    jump dispatch
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump dispatch
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    meta mark and {MASQUERADE} == {MASQUERADE} masquerade
    ip saddr . ip daddr @hairpin masquerade
    oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade
    oifname != \"{bridge}\" ip saddr {pods} ip daddr != {pods} masquerade
  }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmp type port-unreachable
  }}
  chain unanswered {{
    ip daddr {services} goto refuse
    ip daddr . meta l4proto . th dport @refused goto refuse
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    jump unanswered
  }}
  chain local {{
    type filter hook output priority 0; policy accept;
    jump unanswered
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            table: "t".into(),
            bridge: "br0".into(),
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/16".parse().unwrap(),
            nodes: vec![
                ("n1".into(), "10.244.1.0/24".parse().unwrap()),
                ("n2".into(), "10.244.2.0/24".parse().unwrap()),
            ],
        }
    }

    fn endpoint(address: [u8; 4], ready: bool, node: &str) -> EndpointView {
        EndpointView {
            address: address.into(),
            ports: vec![("http".into(), Protocol::Tcp, 9080)],
            ready,
            serving: true,
            terminating: !ready,
            node: Some(node.into()),
            hostname: None,
        }
    }

    fn view(service: ServiceView, endpoints: Vec<EndpointView>) -> View {
        let key = ("default".to_owned(), "web".to_owned());
        let mut view = View::default();
        view.services.insert(key.clone(), service);
        view.slices
            .insert(("default".into(), "web-1".into()), (key, endpoints));
        view
    }

    fn service() -> ServiceView {
        ServiceView {
            cluster_ips: vec![[10, 96, 0, 7].into()],
            ports: vec![ServicePort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
            }],
            ..ServiceView::default()
        }
    }

    #[test]
    fn connections_spread_over_ready_endpoints() {
        let endpoints = vec![
            endpoint([10, 244, 1, 2], true, "n1"),
            endpoint([10, 244, 2, 2], true, "n2"),
            endpoint([10, 244, 2, 3], false, "n2"),
        ];
        let text = render(&layout(), &view(service(), endpoints));
        assert!(text.contains("10.96.0.7 . tcp . 80 : goto svc/default/web/tcp/80"));
        assert!(text.contains(
            "dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.1.2 . 9080, 1 : 10.244.2.2 . 9080 }"
        ));
        assert!(!text.contains("10.244.2.3"));
        assert!(!text.contains("ext/default/web"));
    }

    #[test]
    fn terminating_endpoints_serve_when_nothing_else_does() {
        let text = render(
            &layout(),
            &view(service(), vec![endpoint([10, 244, 2, 3], false, "n2")]),
        );
        assert!(text.contains("meta l4proto tcp dnat to 10.244.2.3:9080"));
    }

    #[test]
    fn a_service_without_endpoints_is_not_translated() {
        let mut service = service();
        service.external_ips = vec![[192, 0, 2, 9].into()];
        let text = render(&layout(), &view(service, vec![]));
        assert!(!text.contains("goto svc/"));
        assert!(text.contains("192.0.2.9 . tcp . 80"));
        assert!(text.contains("ip daddr 10.96.0.0/16 goto refuse"));
    }

    #[test]
    fn node_ports_and_policies() {
        let mut service = service();
        service.ports[0].node_port = Some(30080);
        service.external_ips = vec![[192, 0, 2, 9].into()];
        service.internal = Locality::Local;
        service.client_ip_affinity = true;
        let endpoints = vec![
            endpoint([10, 244, 1, 2], true, "n1"),
            endpoint([10, 244, 1, 3], true, "n1"),
        ];
        let text = render(&layout(), &view(service.clone(), endpoints.clone()));
        assert!(text.contains("tcp . 30080 : goto ext/default/web/tcp/80"));
        assert!(text.contains("192.0.2.9 . tcp . 80 : goto ext/default/web/tcp/80"));
        assert!(text.contains("ip saddr 10.244.1.0/24 meta l4proto tcp dnat ip addr . port to jhash ip saddr mod 2 seed"));
        assert!(text.contains("ip saddr 10.244.2.0/24 return"));
        assert!(text.contains("meta mark set meta mark or"));
        service.external = Locality::Local;
        let text = render(&layout(), &view(service, endpoints));
        assert!(!text.contains("meta mark set meta mark or"));
    }
}
