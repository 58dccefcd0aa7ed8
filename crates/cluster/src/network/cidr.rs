//! Choosing address ranges that do not collide with the host's routes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Ranges a cluster may use, in order of preference; all /16. As many as clusters may be on one
/// machine at a time.
const POD_CANDIDATES: [Ipv4Addr; 12] = [
    Ipv4Addr::new(10, 244, 0, 0),
    Ipv4Addr::new(10, 245, 0, 0),
    Ipv4Addr::new(10, 202, 0, 0),
    Ipv4Addr::new(10, 86, 0, 0),
    Ipv4Addr::new(10, 204, 0, 0),
    Ipv4Addr::new(10, 206, 0, 0),
    Ipv4Addr::new(10, 226, 0, 0),
    Ipv4Addr::new(10, 228, 0, 0),
    Ipv4Addr::new(172, 29, 0, 0),
    Ipv4Addr::new(172, 27, 0, 0),
    Ipv4Addr::new(100, 116, 0, 0),
    Ipv4Addr::new(100, 118, 0, 0),
];
const SERVICE_CANDIDATES: [Ipv4Addr; 12] = [
    Ipv4Addr::new(10, 96, 0, 0),
    Ipv4Addr::new(10, 97, 0, 0),
    Ipv4Addr::new(10, 203, 0, 0),
    Ipv4Addr::new(10, 87, 0, 0),
    Ipv4Addr::new(10, 205, 0, 0),
    Ipv4Addr::new(10, 207, 0, 0),
    Ipv4Addr::new(10, 227, 0, 0),
    Ipv4Addr::new(10, 229, 0, 0),
    Ipv4Addr::new(172, 30, 0, 0),
    Ipv4Addr::new(172, 28, 0, 0),
    Ipv4Addr::new(100, 117, 0, 0),
    Ipv4Addr::new(100, 119, 0, 0),
];

/// The address ranges of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// Pod addresses; each node has a /24 of it.
    pub pods: Ipv4Net,
    /// Cluster addresses of Services.
    pub services: Ipv4Net,
}

/// Destinations of the host's IPv4 routes from the text of `/proc/net/route`, without default
/// routes and without those of the interface `own` (what an earlier run of this cluster left).
pub fn parse_routes(text: &str, own: &str) -> Vec<Ipv4Net> {
    let hex = |field: Option<&str>| u32::from_str_radix(field?, 16).ok().map(u32::from_be);
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let interface = fields.next()?;
            let destination = hex(fields.next())?;
            let mask = hex(fields.nth(5))?;
            (interface != own && mask != 0).then_some(())?;
            let length = u8::try_from(mask.leading_ones()).ok()?;
            Ipv4Net::new(Ipv4Addr::from(destination), length).ok()
        })
        .collect()
}

/// The first pair of ranges that touches none of `taken`; `None` when all do.
pub fn choose(taken: &[Ipv4Net]) -> Option<Ranges> {
    let free = |candidates: [Ipv4Addr; 12]| {
        candidates
            .into_iter()
            .filter_map(|base| Ipv4Net::new(base, 16).ok())
            .find(|range| !taken.iter().any(|net| overlap(*net, *range)))
    };
    Some(Ranges {
        pods: free(POD_CANDIDATES)?,
        services: free(SERVICE_CANDIDATES)?,
    })
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The addresses of a node: /24 number `index` (from 1) of the pod range.
pub fn node_range(pods: Ipv4Net, index: u8) -> Option<Ipv4Net> {
    let base = u32::from(pods.network()).checked_add(u32::from(index) << 8)?;
    let range = Ipv4Net::new(Ipv4Addr::from(base), 24).ok()?;
    pods.contains(&range).then_some(range)
}

/// The `n`-th address of a range.
pub fn nth_address(range: Ipv4Net, n: u32) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(u32::from(range.network()).checked_add(n)?);
    range.contains(&address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
lateen0\t0000F40A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
";

    #[test]
    fn routes_are_read_without_default_and_own() {
        let routes = parse_routes(TABLE, "lateen0");
        assert_eq!(routes, ["192.0.2.0/24".parse::<Ipv4Net>().unwrap()]);
        assert_eq!(parse_routes(TABLE, "br1").len(), 2);
    }

    #[test]
    fn colliding_ranges_are_passed_over() {
        let default = choose(&[]).unwrap();
        assert_eq!(default.pods.to_string(), "10.244.0.0/16");
        assert_eq!(default.services.to_string(), "10.96.0.0/16");
        let wide = choose(&["10.0.0.0/8".parse().unwrap()]).unwrap();
        assert_eq!(wide.pods.to_string(), "172.29.0.0/16");
        let inner = choose(&["10.244.7.0/24".parse().unwrap()]).unwrap();
        assert_eq!(inner.pods.to_string(), "10.245.0.0/16");
        let all = ["10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10"].map(|n| n.parse().unwrap());
        assert_eq!(choose(&all), None);
    }

    #[test]
    fn nodes_have_ranges_of_their_own() {
        let pods = "10.244.0.0/16".parse().unwrap();
        let second = node_range(pods, 2).unwrap();
        assert_eq!(second.to_string(), "10.244.2.0/24");
        assert_eq!(nth_address(second, 1).unwrap().to_string(), "10.244.2.1");
        assert_eq!(nth_address(second, 256), None);
    }
}
