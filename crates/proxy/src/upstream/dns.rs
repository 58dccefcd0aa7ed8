//! Hosts of DNS clusters: the names are looked up again and again by the
//! system's resolver; a failed look-up keeps the hosts that were there.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use lateen_proxy_core::config::Address;
use lateen_proxy_core::config::cluster::{ClusterDiscovery, Dns, DnsFamily};
use lateen_proxy_core::config::endpoint::{ClusterLoadAssignment, Endpoint, Locality};

use super::cluster::ClusterState;
use crate::io::Timer;
use crate::stats::rare::ClusterEvent;

/// Begins to resolve a cluster's names; ends with the cluster.
pub fn start(cluster: &Rc<ClusterState>) {
    let Some(assignment) = cluster.config.load_assignment.clone() else {
        return;
    };
    let (dns, all) = match &cluster.config.discovery {
        ClusterDiscovery::StrictDns(dns) => (dns.clone(), true),
        ClusterDiscovery::LogicalDns(dns) => (dns.clone(), false),
        _ => return,
    };
    cluster.resolved.set(false);
    let weak = Rc::downgrade(cluster);
    tokio::task::spawn_local(refresh(weak, assignment, dns, all));
}

async fn refresh(
    cluster: Weak<ClusterState>,
    assignment: Arc<ClusterLoadAssignment>,
    dns: Arc<Dns>,
    all: bool,
) {
    let timer = Timer::new();
    let mut failures = 0;
    loop {
        let found = look_up(&assignment, &dns, all).await;
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        cluster.resolved.set(true);
        cluster.count_update(match &found {
            Ok(_) => None,
            Err(_) => Some(ClusterEvent::update_failure),
        });
        let wait = match found {
            Ok(hosts) => {
                failures = 0;
                let current = cluster.hosts();
                let same = current.hosts.len() == hosts.len()
                    && current
                        .hosts
                        .iter()
                        .zip(&hosts)
                        .all(|(h, new)| h.endpoint == new.0);
                match same {
                    true => cluster.count_no_rebuild(),
                    false => cluster.replace_hosts(hosts, Some(assignment.clone())),
                }
                dns.refresh_rate
            }
            Err(error) => {
                tracing::debug!(cluster = %cluster.config.name, %error, "name resolution");
                failures += 1;
                back_off(&dns, failures)
            }
        };
        drop(cluster);
        timer
            .sleep(wait.max(Duration::from_millis(1)) + jitter(dns.jitter))
            .await;
    }
}

fn back_off(dns: &Dns, failures: u32) -> Duration {
    match dns.failure_refresh_rate {
        Some((base, most)) => {
            let wait = base.saturating_mul(1 << failures.min(16)).min(most);
            wait.mul_f64(fastrand::f64())
        }
        None => dns.refresh_rate,
    }
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

async fn look_up(
    assignment: &ClusterLoadAssignment,
    dns: &Dns,
    all: bool,
) -> std::io::Result<Vec<(Endpoint, Locality, u32)>> {
    let mut hosts = Vec::new();
    for (group, endpoint) in assignment.endpoints() {
        let place = |endpoint: Endpoint| (endpoint, group.locality.clone(), group.priority);
        let Address::Host { host, port } = &endpoint.address else {
            hosts.push(place(endpoint.clone()));
            continue;
        };
        let found = tokio::net::lookup_host((&**host, *port)).await?;
        let mut addresses = by_family(found.collect(), dns.family);
        addresses.truncate(if all { usize::MAX } else { 1 });
        for address in addresses {
            let mut endpoint = endpoint.clone();
            if endpoint.hostname.is_empty() {
                endpoint.hostname = host.clone();
            }
            endpoint.address = Address::Socket(address);
            hosts.push(place(endpoint));
        }
    }
    Ok(hosts)
}

/// The addresses of the wanted families, sorted so that an unchanged answer is
/// an unchanged host list.
fn by_family(mut found: Vec<SocketAddr>, family: DnsFamily) -> Vec<SocketAddr> {
    found.sort_unstable();
    found.dedup();
    let of = |v4: bool| -> Vec<SocketAddr> {
        found
            .iter()
            .filter(|a| a.is_ipv4() == v4)
            .copied()
            .collect()
    };
    let or = |first: Vec<SocketAddr>, second: Vec<SocketAddr>| {
        if first.is_empty() { second } else { first }
    };
    match family {
        DnsFamily::V4Only => of(true),
        DnsFamily::V6Only => of(false),
        DnsFamily::Auto => or(of(false), of(true)),
        DnsFamily::V4Preferred => or(of(true), of(false)),
        DnsFamily::All => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        let v4: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        let both = vec![v6, v4, v4];
        assert_eq!(by_family(both.clone(), DnsFamily::V4Only), [v4]);
        assert_eq!(by_family(both.clone(), DnsFamily::Auto), [v6]);
        assert_eq!(by_family(vec![v4], DnsFamily::Auto), [v4]);
        assert_eq!(by_family(both, DnsFamily::All), [v4, v6]);
    }
}
