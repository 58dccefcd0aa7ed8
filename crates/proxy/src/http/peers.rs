//! Istio's exchange of peer metadata over HTTP headers: who sent a request, who
//! answered it. The headers stay between proxies; applications see none.

use lateen_proxy_core::config::istio::PeerMetadata;

use super::head::Head;
use super::known::Known;
use super::record::StreamRecord;
use crate::mesh::{Mesh, Own};
use crate::upstream::ClusterState;

/// Takes the peer's name off a head; 0 when it gave none.
fn take(head: &mut Head, mesh: &Mesh) -> u32 {
    let peer = match head.known(Known::XEnvoyPeerMetadata) {
        Some(value) => mesh.peer_of_header(value),
        None => 0,
    };
    head.remove_known(Known::XEnvoyPeerMetadata);
    head.remove_known(Known::XEnvoyPeerMetadataId);
    peer
}

fn put(head: &mut Head, own: &Own) {
    for line in own.lines.iter().flatten() {
        head.set_line(line);
    }
}

/// Reads who sent a request.
pub(super) fn of_request(record: &mut StreamRecord, config: &PeerMetadata) {
    if config.downstream_headers {
        record.peer = take(&mut record.request, &record.conn.worker.mesh);
    }
}

/// Tells the upstream who sends the request.
pub(super) fn tell_upstream(
    record: &mut StreamRecord,
    config: &PeerMetadata,
    cluster: &ClusterState,
) {
    let external = || {
        let metadata = cluster.config.metadata.get("istio");
        metadata.is_some_and(|m| m.path(["external"]).is_some())
    };
    if config.propagate_upstream && !(config.skip_external_clusters && external()) {
        put(&mut record.request, &record.conn.worker.mesh.own);
    }
}

/// Reads who answered.
pub(super) fn of_response(record: &mut StreamRecord, config: &PeerMetadata) {
    if config.upstream_headers {
        record.peer = take(&mut record.response, &record.conn.worker.mesh);
    }
}

/// Tells a client who answers, if it said who asks.
pub(super) fn tell_client(record: &mut StreamRecord, config: &PeerMetadata) {
    if config.propagate_downstream && record.peer != 0 {
        put(&mut record.response, &record.conn.worker.mesh.own);
    }
}
