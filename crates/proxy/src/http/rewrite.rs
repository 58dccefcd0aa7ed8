//! Applies the rewrites that a route asks for to the request.

use lateen_proxy_core::config::route::{Forward, HostRewrite};
use lateen_proxy_core::rewrite;

use super::head::Head;
use super::known::Known;
use super::record::StreamRecord;
use super::stream::Chosen;
use crate::upstream::Host;

/// Path and host rewrites that need no endpoint; the old ones are kept in
/// headers where `keep` says so.
pub fn request(record: &mut StreamRecord, forward: &Forward, chosen: &Chosen, keep: bool) {
    let head = &mut record.request;
    if let Some(path) = rewrite::path(
        forward.path_rewrite.as_deref(),
        &chosen.route.matching,
        head.path(),
    ) {
        if keep {
            let old = head.path().to_vec();
            head.set_known(Known::XEnvoyOriginalPath, &old);
        }
        head.set_path(&path);
    }
    let literal = chosen
        .weighted
        .as_ref()
        .and_then(|w| w.host_rewrite.clone());
    let host = match literal {
        // Of a weighted cluster: the old host is not kept.
        Some(host) => return head.set_authority(host.as_bytes()),
        None if matches!(forward.host_rewrite.as_deref(), Some(HostRewrite::Auto)) => None,
        None => rewrite::host(forward, head, ""),
    };
    if let Some(host) = host {
        set_host(head, forward, &host, keep);
    }
}

/// `auto_host_rewrite`: the endpoint's host name, known once it was chosen.
pub fn host_of_endpoint(record: &mut StreamRecord, forward: &Forward, host: &Host, keep: bool) {
    if !matches!(forward.host_rewrite.as_deref(), Some(HostRewrite::Auto)) {
        return;
    }
    let head = &mut record.request;
    let name = rewrite::host(forward, head, &host.endpoint.hostname);
    if let Some(name) = name.filter(|name| name != head.authority()) {
        set_host(head, forward, &name, keep);
    }
}

fn set_host(head: &mut Head, forward: &Forward, host: &[u8], keep: bool) {
    let old = head.authority().to_vec();
    if keep {
        head.set_known(Known::XEnvoyOriginalHost, &old);
    }
    if forward.append_x_forwarded_host {
        head.join_known(Known::XForwardedHost, b",", &old);
    }
    head.set_authority(host);
}
