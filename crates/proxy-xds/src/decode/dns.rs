//! DNS settings of a cluster: how often names are looked up, and by whom.
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lateen_proxy_core::config::cluster::{Dns, DnsFamily, NameServers, Resolver};
use lateen_xds_proto::envoy::config::cluster::v3 as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily;
use lateen_xds_proto::envoy::extensions::clusters::dns::v3 as extension;
use lateen_xds_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use lateen_xds_proto::google::protobuf;

use super::common::{need, opt_duration, port};
use super::{type_name, typed};
use crate::error::{At, Result, list, refuse, refuse_set};

/// The port of name servers.
const PORT: u16 = 53;
/// Least interval that Envoy takes is over this.
const LEAST: Duration = Duration::from_millis(1);

pub(super) fn settings(m: &pb::Cluster) -> Result<Dns> {
    use pb::cluster::DnsLookupFamily as F;
    let failure = m.dns_failure_refresh_rate.as_ref();
    let failure = failure.map(|m| failure_rate(m.base_interval.as_ref(), m.max_interval.as_ref()));
    Ok(Dns {
        refresh_rate: refresh_rate(m.dns_refresh_rate.as_ref())?,
        respect_ttl: m.respect_dns_ttl,
        least_ttl: Duration::ZERO,
        failure_refresh_rate: failure.transpose().at("dns_failure_refresh_rate")?,
        jitter: opt_duration(m.dns_jitter.as_ref(), "dns_jitter")?.unwrap_or_default(),
        family: match F::try_from(m.dns_lookup_family) {
            Ok(F::Auto) => DnsFamily::Auto,
            Ok(F::V4Only) => DnsFamily::V4Only,
            Ok(F::V6Only) => DnsFamily::V6Only,
            Ok(F::V4Preferred) => DnsFamily::V4Preferred,
            Ok(F::All) => DnsFamily::All,
            Err(_) => return refuse("is no known family").at("dns_lookup_family"),
        },
        resolver: resolver(m)?,
    })
}

/// The same as an extension, `envoy.cluster.dns`, which takes no notice of the cluster's own fields.
pub(super) fn extension(m: &extension::DnsCluster) -> Result<Dns> {
    use DnsLookupFamily as F;
    let failure = m.dns_failure_refresh_rate.as_ref();
    let failure = failure.map(|m| failure_rate(m.base_interval.as_ref(), m.max_interval.as_ref()));
    let least_ttl = opt_duration(m.dns_min_refresh_rate.as_ref(), "dns_min_refresh_rate")?;
    if least_ttl.is_some_and(|least| least < Duration::from_secs(1)) {
        return refuse("must be at least 1 s").at("dns_min_refresh_rate");
    }
    let resolver = match &m.typed_dns_resolver_config {
        Some(config) => extended(config).at("typed_dns_resolver_config")?,
        None => Resolver::Servers(NameServers::default()),
    };
    Ok(Dns {
        refresh_rate: refresh_rate(m.dns_refresh_rate.as_ref())?,
        respect_ttl: m.respect_dns_ttl,
        least_ttl: least_ttl.unwrap_or_default(),
        failure_refresh_rate: failure.transpose().at("dns_failure_refresh_rate")?,
        jitter: opt_duration(m.dns_jitter.as_ref(), "dns_jitter")?.unwrap_or_default(),
        family: match F::try_from(m.dns_lookup_family) {
            Ok(F::Unspecified | F::Auto) => DnsFamily::Auto,
            Ok(F::V4Only) => DnsFamily::V4Only,
            Ok(F::V6Only) => DnsFamily::V6Only,
            Ok(F::V4Preferred) => DnsFamily::V4Preferred,
            Ok(F::All) => DnsFamily::All,
            Err(_) => return refuse("is no known family").at("dns_lookup_family"),
        },
        resolver,
    })
}

fn refresh_rate(m: Option<&protobuf::Duration>) -> Result<Duration> {
    match opt_duration(m, "dns_refresh_rate")? {
        Some(rate) if rate <= LEAST => refuse("must be greater than 1 ms").at("dns_refresh_rate"),
        rate => Ok(rate.unwrap_or(Duration::from_secs(5))),
    }
}

fn failure_rate(
    base: Option<&protobuf::Duration>,
    most: Option<&protobuf::Duration>,
) -> Result<(Duration, Duration)> {
    let base = need(base, "base_interval")?;
    let base = opt_duration(Some(base), "base_interval")?.unwrap_or_default();
    if base <= LEAST {
        return refuse("must be greater than 1 ms").at("base_interval");
    }
    let most = opt_duration(most, "max_interval")?.unwrap_or(base * 10);
    if most < base {
        return refuse("must not be less than base_interval").at("max_interval");
    }
    Ok((base, most))
}

/// The newest of the fields that say it counts.
fn resolver(m: &pb::Cluster) -> Result<Resolver> {
    if let Some(extension) = &m.typed_dns_resolver_config {
        return extended(extension).at("typed_dns_resolver_config");
    }
    let mut servers = NameServers {
        tcp: m.use_tcp_for_dns_lookups,
        ..NameServers::default()
    };
    if let Some(config) = &m.dns_resolution_config {
        servers.servers =
            list(&config.resolvers, "resolvers", address).at("dns_resolution_config")?;
        options(config.dns_resolver_options.as_ref(), &mut servers);
    } else {
        servers.servers = list(&m.dns_resolvers, "dns_resolvers", address)?;
    }
    Ok(Resolver::Servers(servers))
}

fn extended(m: &core::TypedExtensionConfig) -> Result<Resolver> {
    const PACKAGE: &str = "envoy.extensions.network.dns_resolver.";
    let any = need(m.typed_config.as_ref(), "typed_config")?;
    let name = type_name(any)?;
    match name.strip_prefix(PACKAGE).unwrap_or_default() {
        // How often and on how many threads the system is asked is the runtime's.
        "getaddrinfo.v3.GetAddrInfoDnsResolverConfig" => Ok(Resolver::System),
        "cares.v3.CaresDnsResolverConfig" => {
            cares(&typed(any).at("typed_config")?).at("typed_config")
        }
        _ => refuse(format!(
            "DNS resolver {name} ({}) is not implemented",
            m.name
        ))
        .at("typed_config"),
    }
}

/// Every question has a socket of its own here and no EDNS record, so that the
/// fields about the life of sockets and the size of answers have nothing to say.
fn cares(m: &CaresDnsResolverConfig) -> Result<Resolver> {
    let cached = m.qcache_max_ttl.as_ref().is_some_and(|v| v.value > 0);
    refuse_set(&[
        (m.filter_unroutable_families, "filter_unroutable_families"),
        (cached, "qcache_max_ttl"),
    ])?;
    let mut servers = NameServers {
        servers: list(&m.resolvers, "resolvers", address)?,
        as_fallback: m.use_resolvers_as_fallback,
        rotate: m.rotate_nameservers,
        ..NameServers::default()
    };
    if let Some(seconds) = &m.query_timeout_seconds {
        servers.timeout = match seconds.value {
            0 => return refuse("must be at least 1").at("query_timeout_seconds"),
            seconds => Duration::from_secs(seconds),
        };
    }
    if let Some(tries) = &m.query_tries {
        servers.tries = match tries.value {
            0 => return refuse("must be at least 1").at("query_tries"),
            tries => tries,
        };
    }
    options(m.dns_resolver_options.as_ref(), &mut servers);
    Ok(Resolver::Servers(servers))
}

fn options(m: Option<&core::DnsResolverOptions>, servers: &mut NameServers) {
    if let Some(m) = m {
        servers.tcp = m.use_tcp_for_dns_lookups;
        servers.search = !m.no_default_search_domain;
    }
}

fn address(m: &core::Address) -> Result<SocketAddr> {
    let Some(core::address::Address::SocketAddress(socket)) = &m.address else {
        return refuse("must be a socket address");
    };
    let number = match &socket.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(0)) | None => Ok(PORT),
        Some(core::socket_address::PortSpecifier::PortValue(number)) => port(*number),
        Some(core::socket_address::PortSpecifier::NamedPort(_)) => refuse("is not supported"),
    };
    match socket.address.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, number.at("socket_address.port_value")?)),
        Err(_) => {
            refuse(format!("`{}` is no IP address", socket.address)).at("socket_address.address")
        }
    }
}
