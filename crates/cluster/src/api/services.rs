//! Addresses and node ports of Services.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::core::Core;
use super::error::{ApiError, Cause};
use super::meta;
use super::resource::SERVICES;
use crate::network::ports;

/// Random tries before a range is searched in order.
const RANDOM_TRIES: usize = 32;

struct Used {
    ips: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

fn used(core: &Core, but: &Value) -> Used {
    let (services, _) = core.store.list(&SERVICES, None);
    let mut out = Used {
        ips: HashSet::new(),
        ports: HashSet::new(),
    };
    for s in &services {
        let same = meta::name(s) == meta::name(but) && meta::namespace(s) == meta::namespace(but);
        if same {
            continue;
        }
        out.ips.extend(
            s["spec"]["clusterIP"]
                .as_str()
                .and_then(|i| i.parse::<Ipv4Addr>().ok()),
        );
        out.ports.extend(node_ports(s));
    }
    out
}

fn node_ports(service: &Value) -> impl Iterator<Item = u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let health = service["spec"]["healthCheckNodePort"].as_u64();
    ports
        .filter_map(|p| p["nodePort"].as_u64())
        .chain(health)
        .filter_map(|p| u16::try_from(p).ok())
}

fn refused(service: &Value, cause: Cause) -> ApiError {
    ApiError::invalid("", "Service", meta::name(service), &[cause])
}

/// Fills `clusterIP`, `clusterIPs` and the ports' `nodePort`; `old` is the stored Service.
pub(crate) fn allocate(
    core: &Core,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let kind = service["spec"]["type"]
        .as_str()
        .unwrap_or("ClusterIP")
        .to_owned();
    let mut taken = used(core, service);
    if kind == "ExternalName" {
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            meta::remove(&mut service["spec"], field);
        }
    } else {
        cluster_ip(core, service, old, &taken)?;
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        assign_node_ports(core, service, old, &mut taken)
    } else {
        clear_node_ports(service);
        Ok(())
    }
}

fn cluster_ip(
    core: &Core,
    service: &mut Value,
    old: Option<&Value>,
    taken: &Used,
) -> Result<(), ApiError> {
    let spec = &mut service["spec"];
    if spec["clusterIP"].as_str().unwrap_or_default().is_empty() {
        let given = spec["clusterIPs"][0].as_str().map(str::to_owned);
        let kept = old.and_then(|o| o["spec"]["clusterIP"].as_str().map(str::to_owned));
        if let Some(ip) = given.or(kept).filter(|ip| !ip.is_empty()) {
            spec["clusterIP"] = ip.into();
        }
    }
    let wanted = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
    if wanted == "None" {
        spec["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    let range = core.settings.service_cidr;
    let ip = if wanted.is_empty() {
        free_ip(core, taken)
            .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))?
    } else {
        let Ok(ip) = wanted.parse::<Ipv4Addr>() else {
            // Validation names the field.
            return Ok(());
        };
        let before = old.and_then(|o| o["spec"]["clusterIP"].as_str());
        if before.is_some_and(|b| !b.is_empty() && b != wanted) {
            // Validation says that it may not change.
            return Ok(());
        }
        if !range.contains(&ip) {
            let why = format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
            );
            return Err(refused(
                service,
                Cause::invalid("spec.clusterIPs", &json!([wanted]), &why),
            ));
        }
        if taken.ips.contains(&ip) {
            let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
            return Err(refused(
                service,
                Cause::invalid("spec.clusterIPs", &json!([wanted]), &why),
            ));
        }
        ip
    };
    let spec = &mut service["spec"];
    spec["clusterIP"] = ip.to_string().into();
    spec["clusterIPs"] = json!([ip.to_string()]);
    Ok(())
}

fn free_ip(core: &Core, taken: &Used) -> Option<Ipv4Addr> {
    let range = core.settings.service_cidr;
    let first = u32::from(range.network());
    let last = u32::from(range.broadcast());
    let free = |n: u32| {
        let ip = Ipv4Addr::from(n);
        // The first address is default/kubernetes, whether or not it is stored yet.
        let reserved = n <= first + 1 || n >= last || core.settings.dns_ip == Some(ip.into());
        (!reserved && !taken.ips.contains(&ip)).then_some(ip)
    };
    (0..RANDOM_TRIES)
        .find_map(|_| free(fastrand::u32(first..=last)))
        .or_else(|| (first..=last).find_map(free))
}

fn assign_node_ports(
    core: &Core,
    service: &mut Value,
    old: Option<&Value>,
    taken: &mut Used,
) -> Result<(), ApiError> {
    let range = core.settings.node_ports.clone();
    let allocate = service["spec"]["allocateLoadBalancerNodePorts"] != false;
    let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    // Those asked for come first, so that random ones do not take them.
    for i in 0..count {
        let at = format!("spec.ports[{i}].nodePort");
        let port = &service["spec"]["ports"][i]["nodePort"];
        let Some(n) = port.as_u64().filter(|n| *n != 0) else {
            continue;
        };
        let ok = u16::try_from(n).ok().filter(|p| range.contains(p));
        let Some(n) = ok else {
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            );
            return Err(refused(service, Cause::invalid(at, port, &why)));
        };
        if !taken.ports.insert(n) && !shared_port(service, i, n) {
            return Err(refused(
                service,
                Cause::invalid(at, port, "provided port is already allocated"),
            ));
        }
    }
    for i in 0..count {
        let entry = &service["spec"]["ports"][i];
        if !allocate || entry["nodePort"].as_u64().is_some_and(|n| n != 0) {
            continue;
        }
        let kept = old.and_then(|o| {
            let ports = o["spec"]["ports"].as_array()?;
            let same = ports
                .iter()
                .find(|p| p["port"] == entry["port"] && p["protocol"] == entry["protocol"])?;
            u16::try_from(same["nodePort"].as_u64()?).ok()
        });
        let n = kept
            .filter(|p| *p != 0 && taken.ports.insert(*p))
            .or_else(|| free_port(&range, taken, ports::is_free))
            .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
        service["spec"]["ports"][i]["nodePort"] = n.into();
    }
    Ok(())
}

/// Two ports of one Service may share a node port when their protocols differ.
fn shared_port(service: &Value, index: usize, port: u16) -> bool {
    let ports = &service["spec"]["ports"];
    ports.as_array().is_some_and(|list| {
        list[..index].iter().any(|p| {
            p["nodePort"].as_u64() == Some(u64::from(port))
                && p["protocol"] != ports[index]["protocol"]
        })
    })
}

/// A port that no Service has, and if there is one, that nothing else on this host (`unused`) has.
fn free_port(
    range: &std::ops::RangeInclusive<u16>,
    taken: &mut Used,
    unused: impl Fn(u16) -> bool,
) -> Option<u16> {
    let free = |p: u16| !taken.ports.contains(&p);
    let random = (0..RANDOM_TRIES).map(|_| fastrand::u16(range.clone()));
    let found = random
        .chain(range.clone())
        .find(|p| free(*p) && unused(*p))
        .or_else(|| range.clone().find(|p| free(*p)))?;
    taken.ports.insert(found);
    Some(found)
}

fn clear_node_ports(service: &mut Value) {
    let ports = service["spec"]
        .get_mut("ports")
        .and_then(Value::as_array_mut);
    for p in ports.into_iter().flatten() {
        meta::remove(p, "nodePort");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_use_on_the_host_are_passed_over() {
        let range = 30000..=30003;
        let mut taken = Used {
            ips: HashSet::new(),
            ports: HashSet::from([30001]),
        };
        let unused = |p: u16| p == 30003;
        assert_eq!(free_port(&range, &mut taken, unused), Some(30003));
        // Better one that is in use elsewhere than none.
        assert_eq!(free_port(&range, &mut taken, unused), Some(30000));
        assert_eq!(free_port(&range, &mut taken, unused), Some(30002));
        assert_eq!(free_port(&range, &mut taken, unused), None);
    }
}
