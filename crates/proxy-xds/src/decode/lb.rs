//! Balancing policies of a cluster, in its own fields and in the extension form.
use lateen_proxy_core::config::ClusterDiscovery;
use lateen_proxy_core::config::cluster::{LbCommon, LbPolicy, LocalityLb, SlowStart};
use lateen_xds_proto::envoy::config::cluster::v3 as pb;
use lateen_xds_proto::envoy::extensions::load_balancing_policies as lb;

use super::common::{opt_duration, percent, u32_of};
use super::{type_name, typed};
use crate::error::{At, Result, refuse, refuse_set};

fn slow_start(m: Option<&pb::cluster::SlowStartConfig>) -> Result<SlowStart> {
    let Some(m) = m else {
        return Ok(SlowStart::default());
    };
    Ok(SlowStart {
        window: opt_duration(m.slow_start_window.as_ref(), "slow_start_window")?
            .unwrap_or_default(),
        aggression: m.aggression.as_ref().map_or(1.0, |a| a.default_value),
        min_weight_percent: percent(m.min_weight_percent.as_ref(), "min_weight_percent", 10.0)?,
    })
}

/// The policy of a cluster with what all policies share.
pub(super) fn policy(
    m: &pb::Cluster,
    discovery: &ClusterDiscovery,
) -> Result<(LbPolicy, LbCommon)> {
    use pb::cluster::{LbConfig as C, LbPolicy as P};
    let kind = match P::try_from(m.lb_policy) {
        Ok(kind) => kind,
        Err(_) => return refuse(format!("{} is no known policy", m.lb_policy)).at("lb_policy"),
    };
    let original = matches!(discovery, ClusterDiscovery::OriginalDst(_));
    if original != (kind == P::ClusterProvided) && m.load_balancing_policy.is_none() {
        let problem = if original {
            "ORIGINAL_DST clusters need CLUSTER_PROVIDED"
        } else {
            "CLUSTER_PROVIDED needs an ORIGINAL_DST cluster"
        };
        return refuse(problem).at("lb_policy");
    }
    let mut common = common(m)?;
    let by_name = common.use_hostname_for_hashing;
    if by_name && !matches!(discovery, ClusterDiscovery::StrictDns(_)) {
        return refuse("needs a STRICT_DNS cluster")
            .at("common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing");
    }
    if let Some(list) = m.load_balancing_policy.as_ref().filter(|_| !original) {
        let policy = extension(list, &mut common).at("load_balancing_policy")?;
        return Ok((policy, common));
    }
    let policy = match kind {
        P::RoundRobin => LbPolicy::RoundRobin(match &m.lb_config {
            Some(C::RoundRobinLbConfig(r)) => {
                slow_start(r.slow_start_config.as_ref()).at("round_robin_lb_config")?
            }
            _ => SlowStart::default(),
        }),
        P::LeastRequest => match &m.lb_config {
            Some(C::LeastRequestLbConfig(l)) => LbPolicy::LeastRequest {
                choice_count: u32_of(l.choice_count.as_ref()).unwrap_or(2).max(2),
                active_request_bias: l
                    .active_request_bias
                    .as_ref()
                    .map_or(1.0, |b| b.default_value),
                slow_start: slow_start(l.slow_start_config.as_ref())
                    .at("least_request_lb_config")?,
            },
            _ => LbPolicy::LeastRequest {
                choice_count: 2,
                active_request_bias: 1.0,
                slow_start: SlowStart::default(),
            },
        },
        P::Random => LbPolicy::Random,
        P::RingHash => {
            let config = match &m.lb_config {
                Some(C::RingHashLbConfig(r)) => *r,
                _ => pb::cluster::RingHashLbConfig::default(),
            };
            let murmur = config.hash_function
                == pb::cluster::ring_hash_lb_config::HashFunction::MurmurHash2 as i32;
            let sizes = [
                config.minimum_ring_size.as_ref(),
                config.maximum_ring_size.as_ref(),
            ];
            ring(sizes.map(|v| v.map(|v| v.value)), murmur).at("ring_hash_lb_config")?
        }
        P::Maglev => {
            let size = match &m.lb_config {
                Some(C::MaglevLbConfig(g)) => g.table_size.as_ref().map(|v| v.value),
                _ => None,
            };
            maglev(size).at("maglev_lb_config.table_size")?
        }
        P::ClusterProvided => LbPolicy::ClusterProvided,
        P::LoadBalancingPolicyConfig => return refuse("is required").at("load_balancing_policy"),
    };
    Ok((policy, common))
}

fn maglev(size: Option<u64>) -> Result<LbPolicy> {
    let size = size.unwrap_or(65_537);
    if size > 5_000_011 || !is_prime(size) {
        return refuse("must be a prime of at most 5000011");
    }
    Ok(LbPolicy::Maglev { table_size: size })
}

/// A ring of at least and at most so many points.
fn ring([least, most]: [Option<u64>; 2], murmur: bool) -> Result<LbPolicy> {
    const MOST: u64 = 8 << 20;
    let least = least.unwrap_or(1024);
    let most = most.unwrap_or(MOST);
    if least > most || most > MOST {
        return refuse(
            "minimum_ring_size must not be over maximum_ring_size, nor that over 8388608",
        );
    }
    Ok(LbPolicy::RingHash {
        minimum_ring_size: least,
        maximum_ring_size: most,
        murmur,
    })
}

fn is_prime(n: u64) -> bool {
    n >= 2
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
}

/// The policies of the extension form; the first known one is used.
fn extension(m: &pb::LoadBalancingPolicy, common: &mut LbCommon) -> Result<LbPolicy> {
    const PACKAGE: &str = "envoy.extensions.load_balancing_policies.";
    let mut unknown = Vec::new();
    for policy in &m.policies {
        let Some(any) = policy
            .typed_extension_config
            .as_ref()
            .and_then(|e| e.typed_config.as_ref())
        else {
            continue;
        };
        let name = type_name(any)?;
        match name.strip_prefix(PACKAGE).unwrap_or_default() {
            "round_robin.v3.RoundRobin" => {
                let r: lb::round_robin::v3::RoundRobin = typed(any)?;
                locality(r.locality_lb_config.as_ref(), common)?;
                return Ok(LbPolicy::RoundRobin(typed_slow_start(
                    r.slow_start_config.as_ref(),
                )?));
            }
            "least_request.v3.LeastRequest" => {
                let l: lb::least_request::v3::LeastRequest = typed(any)?;
                let full = l.enable_full_scan.as_ref().is_some_and(|v| v.value)
                    || l.selection_method
                        == lb::least_request::v3::least_request::SelectionMethod::FullScan as i32;
                refuse_set(&[(full, "selection_method")])?;
                locality(l.locality_lb_config.as_ref(), common)?;
                return Ok(LbPolicy::LeastRequest {
                    choice_count: u32_of(l.choice_count.as_ref()).unwrap_or(2).max(2),
                    active_request_bias: l
                        .active_request_bias
                        .as_ref()
                        .map_or(1.0, |b| b.default_value),
                    slow_start: typed_slow_start(l.slow_start_config.as_ref())?,
                });
            }
            "random.v3.Random" => {
                let r: lb::random::v3::Random = typed(any)?;
                locality(r.locality_lb_config.as_ref(), common)?;
                return Ok(LbPolicy::Random);
            }
            "ring_hash.v3.RingHash" => {
                let r: lb::ring_hash::v3::RingHash = typed(any)?;
                let old = r.hash_balance_factor.is_some();
                refuse_set(&[(old, "hash_balance_factor")])?;
                hashing(r.consistent_hashing_lb_config.as_ref(), common)?;
                common.use_hostname_for_hashing |= r.use_hostname_for_hashing;
                weigh(r.locality_weighted_lb_config.is_some(), common);
                let murmur = r.hash_function
                    == lb::ring_hash::v3::ring_hash::HashFunction::MurmurHash2 as i32;
                let sizes = [r.minimum_ring_size.as_ref(), r.maximum_ring_size.as_ref()];
                return ring(sizes.map(|v| v.map(|v| v.value)), murmur);
            }
            "maglev.v3.Maglev" => {
                let g: lb::maglev::v3::Maglev = typed(any)?;
                hashing(g.consistent_hashing_lb_config.as_ref(), common)?;
                weigh(g.locality_weighted_lb_config.is_some(), common);
                return maglev(g.table_size.as_ref().map(|v| v.value)).at("table_size");
            }
            _ => unknown.push(name),
        }
    }
    refuse(format!("no known policy among [{}]", unknown.join(", ")))
}

fn weigh(weighted: bool, common: &mut LbCommon) {
    common.locality = match weighted {
        true => LocalityLb::Weighted,
        false => LocalityLb::None,
    };
}

fn hashing(
    m: Option<&lb::common::v3::ConsistentHashingLbConfig>,
    common: &mut LbCommon,
) -> Result<()> {
    let Some(m) = m else {
        return Ok(());
    };
    refuse_set(&[
        (m.hash_balance_factor.is_some(), "hash_balance_factor"),
        (!m.hash_policy.is_empty(), "hash_policy"),
    ])
    .at("consistent_hashing_lb_config")?;
    common.use_hostname_for_hashing = m.use_hostname_for_hashing;
    Ok(())
}

fn locality(m: Option<&lb::common::v3::LocalityLbConfig>, common: &mut LbCommon) -> Result<()> {
    use lb::common::v3::locality_lb_config::LocalityConfigSpecifier as L;
    common.locality = match m.and_then(|m| m.locality_config_specifier.as_ref()) {
        Some(L::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        Some(L::ZoneAwareLbConfig(z)) => {
            refuse_set(&[
                (
                    z.force_locality_direct_routing,
                    "force_locality_direct_routing",
                ),
                (z.force_local_zone.is_some(), "force_local_zone"),
                (z.locality_basis != 0, "locality_basis"),
            ])
            .at("locality_lb_config.zone_aware_lb_config")?;
            common.fail_traffic_on_panic = z.fail_traffic_on_panic;
            percent(z.routing_enabled.as_ref(), "routing_enabled", 100.0)?;
            LocalityLb::ZoneAware
        }
        None => LocalityLb::None,
    };
    Ok(())
}

fn typed_slow_start(m: Option<&lb::common::v3::SlowStartConfig>) -> Result<SlowStart> {
    slow_start(
        m.map(|m| pb::cluster::SlowStartConfig {
            slow_start_window: m.slow_start_window,
            aggression: m.aggression.clone(),
            min_weight_percent: m.min_weight_percent,
        })
        .as_ref(),
    )
}

fn common(m: &pb::Cluster) -> Result<LbCommon> {
    use pb::cluster::common_lb_config::LocalityConfigSpecifier as L;
    let d = LbCommon::default();
    let Some(c) = &m.common_lb_config else {
        return Ok(d);
    };
    let hashing = c.consistent_hashing_lb_config.as_ref();
    let mut fail = false;
    let locality = match c.locality_config_specifier.as_ref() {
        Some(L::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        Some(L::ZoneAwareLbConfig(z)) => {
            fail = z.fail_traffic_on_panic;
            percent(z.routing_enabled.as_ref(), "routing_enabled", 100.0)?;
            LocalityLb::ZoneAware
        }
        None => LocalityLb::None,
    };
    let balance = hashing
        .and_then(|h| u32_of(h.hash_balance_factor.as_ref()))
        .unwrap_or(0);
    if balance > 0 {
        return refuse("is not implemented")
            .at("common_lb_config.consistent_hashing_lb_config.hash_balance_factor");
    }
    Ok(LbCommon {
        healthy_panic_threshold: percent(
            c.healthy_panic_threshold.as_ref(),
            "healthy_panic_threshold",
            d.healthy_panic_threshold,
        )?,
        ignore_new_hosts_until_first_hc: c.ignore_new_hosts_until_first_hc,
        fail_traffic_on_panic: fail,
        locality,
        close_connections_on_host_set_change: c.close_connections_on_host_set_change,
        use_hostname_for_hashing: hashing.is_some_and(|h| h.use_hostname_for_hashing),
        hash_balance_factor: 0,
    })
}
