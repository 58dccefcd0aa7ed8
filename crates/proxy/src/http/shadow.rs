//! Request mirroring: a copy of a request goes to another cluster, and its
//! answer to nobody. A body is copied once it arrived whole, up to the buffer
//! limit of the route; a longer one is not mirrored.

use std::rc::Rc;
use std::time::Duration;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::route::{Forward, Mirror};

use super::call::Call;
use super::head::Head;
use super::known::Known;
use super::record::StreamRecord;
use super::stream::Chosen;
use crate::worker::Worker;

/// How long a copy may take where the route sets no timeout.
const LONGEST: Duration = Duration::from_secs(300);

/// A copy that is to be sent.
pub(super) struct Shadow {
    cluster: Name,
    head: Head,
    h2: bool,
}

/// The copies a request gets: of the route, else the virtual host, else the
/// table (the most specific that names any).
pub(super) fn wanted(record: &StreamRecord, forward: &Forward, chosen: &Chosen) -> Vec<Shadow> {
    let levels = [
        &forward.mirrors,
        &chosen.host.mirrors,
        &chosen.table.mirrors,
    ];
    let Some(mirrors) = levels.into_iter().find(|m| !m.is_empty()) else {
        return Vec::new();
    };
    let mut shadows = Vec::new();
    for (mirror, turn) in mirrors.iter().zip(1..) {
        // Each mirror draws for itself.
        if !mirror.fraction.hit(record.random.rotate_left(turn * 7)) {
            continue;
        }
        let by_header = || {
            let value = record.request.first(mirror.cluster_header.as_bytes())?;
            std::str::from_utf8(value).ok().map(Name::from)
        };
        let cluster = match mirror.cluster.is_empty() {
            true => by_header(),
            false => Some(mirror.cluster.clone()),
        };
        if let Some(cluster) = cluster {
            let mut head = record.request.clone();
            let host = host(mirror, head.authority());
            head.set_authority(&host);
            head.remove_known(Known::Expect);
            shadows.push(Shadow {
                cluster,
                head,
                h2: record.protocol == super::record::Protocol::Http2,
            });
        }
    }
    shadows
}

/// The copy's host: as configured, or with `-shadow` before a port.
fn host(mirror: &Mirror, host: &[u8]) -> Vec<u8> {
    if !mirror.host_rewrite.is_empty() {
        return mirror.host_rewrite.as_bytes().to_vec();
    }
    if mirror.disable_shadow_host_suffix {
        return host.to_vec();
    }
    let digits = |port: &[u8]| !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    let end = match memchr::memrchr(b':', host) {
        Some(at) if digits(&host[at + 1..]) => at,
        _ => host.len(),
    };
    [&host[..end], b"-shadow", &host[end..]].concat()
}

/// Sends copies on their way; nobody waits for them.
pub(super) fn send(
    worker: &Rc<Worker>,
    shadows: &[Shadow],
    body: &[u8],
    timeout: Option<Duration>,
) {
    for shadow in shadows {
        let Some(cluster) = worker.clusters.get(&shadow.cluster) else {
            tracing::debug!(target: crate::logger::ROUTER, cluster = %shadow.cluster, "mirror to an unknown cluster");
            continue;
        };
        let mut call = Call {
            head: shadow.head.clone(),
            body: body.to_vec(),
            tail: Vec::new(),
            timeout: timeout.filter(|t| !t.is_zero()).unwrap_or(LONGEST),
            longest: None,
            repeatable: false,
        };
        let h2 = shadow.h2;
        tokio::task::spawn_local(async move {
            if let Err(error) = call.send_to(&cluster, h2).await {
                tracing::debug!(target: crate::logger::ROUTER, cluster = %cluster.config.name, %error, "mirrored request");
            }
        });
    }
}
