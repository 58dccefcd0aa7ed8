//! Clusters that route tables name: where `validate_clusters` asks for it, a
//! table with a cluster that is not there is refused when it is taken in.
use lateen_proxy_core::config::route::{ClusterSpecifier, Forward, Mirror, RouteAction};
use lateen_proxy_core::config::{
    FilterChain, Listener, Name, NetworkFilter, RouteConfiguration, RouteSource, VirtualHost,
};

use crate::error::{At, Result, refuse};

/// Tells whether a cluster is there, serving or warming.
pub(crate) type IsThere<'a> = &'a dyn Fn(&Name) -> bool;

/// Checks the tables inside a listener.
pub(crate) fn of_listener(listener: &Listener, there: IsThere<'_>) -> Result<()> {
    for (i, chain) in listener.filter_chains.iter().enumerate() {
        of_chain(chain, there).item("filter_chains", i)?;
    }
    match &listener.default_filter_chain {
        Some(chain) => of_chain(chain, there).at("default_filter_chain"),
        None => Ok(()),
    }
}

fn of_chain(chain: &FilterChain, there: IsThere<'_>) -> Result<()> {
    for (i, filter) in chain.filters.iter().enumerate() {
        if let NetworkFilter::HttpConnectionManager(manager) = filter
            && let RouteSource::Inline(table) = &manager.routes
        {
            of_table(table, there)
                .at("typed_config.route_config")
                .item("filters", i)?;
        }
    }
    Ok(())
}

/// Checks a table.
pub(crate) fn of_table(table: &RouteConfiguration, there: IsThere<'_>) -> Result<()> {
    if !table.validate_clusters {
        return Ok(());
    }
    of_mirrors(&table.mirrors, there)?;
    for (i, host) in table.virtual_hosts.iter().enumerate() {
        of_host(host, there).item("virtual_hosts", i)?;
    }
    Ok(())
}

fn of_host(host: &VirtualHost, there: IsThere<'_>) -> Result<()> {
    of_mirrors(&host.mirrors, there)?;
    for (i, route) in host.routes.iter().enumerate() {
        if let RouteAction::Forward(forward) = &route.action {
            of_forward(forward, there).at("route").item("routes", i)?;
        }
    }
    Ok(())
}

fn of_forward(forward: &Forward, there: IsThere<'_>) -> Result<()> {
    match &forward.cluster {
        ClusterSpecifier::Named(name) => known(name, there).at("cluster")?,
        // The header tells it with every request.
        ClusterSpecifier::Header(_) => {}
        ClusterSpecifier::Weighted(weighted) => {
            for (i, cluster) in weighted.clusters.iter().enumerate() {
                known(&cluster.name, there)
                    .at("name")
                    .item("clusters", i)
                    .at("weighted_clusters")?;
            }
        }
    }
    of_mirrors(&forward.mirrors, there)
}

fn of_mirrors(mirrors: &[Mirror], there: IsThere<'_>) -> Result<()> {
    for (i, mirror) in mirrors.iter().enumerate() {
        known(&mirror.cluster, there)
            .at("cluster")
            .item("request_mirror_policies", i)?;
    }
    Ok(())
}

/// An empty name is one that a header tells.
fn known(name: &Name, there: IsThere<'_>) -> Result<()> {
    if name.is_empty() || there(name) {
        return Ok(());
    }
    refuse(format!("unknown cluster '{name}'"))
}
