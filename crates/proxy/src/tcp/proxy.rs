//! The TCP proxy filter: choose cluster and host, connect, move bytes, log.

use std::rc::Rc;
use std::sync::Arc;

use lateen_proxy_core::config::istio::IstioStats;
use lateen_proxy_core::config::{ClusterDiscovery, Metadata, TcpProxy};
use lateen_proxy_core::flags::ResponseFlags;
use lateen_proxy_core::hash_policy;
use lateen_proxy_core::overload::Action;
use lateen_proxy_core::stats::Scope;

use super::copy::{Ended, Limits, Moved, Side, copy};
use super::record::TcpRecord;
use super::tunnel;
use crate::conn::Connection;
use crate::http::record::now_ns;
use crate::io::{Buf, Io, Timer, timer};
use crate::upstream::host::{Connected, add_one};
use crate::upstream::{
    ActiveRequest, Choice, ClusterState, ConnectError, ConnectOptions, Host, Limited, Pending,
    Permit, connect,
};

/// Serves a connection whose chain ends in a TCP proxy.
pub async fn serve(
    conn: Rc<Connection>,
    config: Arc<TcpProxy>,
    telemetry: Option<&Arc<IstioStats>>,
) {
    let cells = conn.worker.stats.tcp(&config.stat_prefix);
    cells.downstream_cx_total.inc();
    let mut record = TcpRecord::new(conn.clone());
    let shed = conn.sheds(Action::AtTcpConnect);
    if shed {
        record.flags.set(ResponseFlags::OVERLOAD_MANAGER);
        let scope = Scope::tcp(&config.stat_prefix);
        let closed = conn
            .worker
            .stats
            .named(&scope, "downstream_cx_overload_close");
        closed.inc();
    } else {
        proxy(&conn, &config, &mut record, telemetry).await;
    }
    record.end_ns = now_ns();
    if let Some(filter) = telemetry {
        let opened = record.upstream_local.is_some();
        conn.worker.mesh.closed(&record, filter, opened);
    }
    cells.downstream_cx_rx_bytes_total.add(record.received);
    cells.downstream_cx_tx_bytes_total.add(record.sent);
    if record.cluster.is_none() && !shed {
        cells.downstream_cx_no_route.inc();
    }
    conn.flags.set(record.flags);
    conn.worker.close_tcp(&record, &config.access_logs);
    if record.upstream_local.is_none() {
        conn.end_in_order().await;
    }
}

async fn proxy(
    conn: &Rc<Connection>,
    config: &TcpProxy,
    record: &mut TcpRecord,
    telemetry: Option<&Arc<IstioStats>>,
) {
    let (name, criteria) = config.clusters.pick(fastrand::u64(..));
    let criteria = criteria.unwrap_or(&config.metadata_match);
    let name = name.clone();
    record.cluster_name = Some(name.clone());
    let Some(cluster) = conn.worker.clusters.get(&name) else {
        record.flags.set(ResponseFlags::NO_CLUSTER_FOUND);
        record.cluster_name = None;
        return;
    };
    record.cluster = Some(cluster.clone());
    let timer = Timer::new();
    let limits = Limits {
        idle: config.idle_timeout.filter(|d| !d.is_zero()),
        until: match config.max_downstream_connection_duration {
            Some(most) => timer::now_ms() + most.as_millis() as u64,
            None => 0,
        },
    };
    if let Some(tunneling) = &config.tunneling {
        let asked = tunnel::Asked {
            conn,
            cluster: &cluster,
            config,
            tunneling,
            criteria,
            telemetry,
            limits,
            timer: &timer,
        };
        // Rare: it must not be part of every connection's task.
        return Box::pin(asked.serve(record)).await;
    }
    let Some((host, upstream, _connected)) = open(conn, config, &cluster, criteria, record).await
    else {
        return;
    };
    record.upstream_local = Some(upstream.local);
    if let Some(meters) = upstream.meters() {
        record.upstream_tls = meters.session();
        meters.busy.set(true);
    }
    if let Some(filter) = telemetry {
        conn.worker.mesh.opened(record, filter);
    }
    host.active.set(host.active.get() + 1);
    cluster.stats.cells.upstream_rq_total.inc();
    add_one(&host.counts.requests);
    // As in Envoy, the limit on requests is none on connections.
    let _active = ActiveRequest::new(Permit::free(), &cluster.stats);
    let (mut down_buf, mut up_buf) = (Buf::new(), Buf::new());
    let down = Side::new(&conn.io, &mut down_buf);
    let up = Side::new(&upstream, &mut up_buf);
    let moved = copy(down, up, &timer, limits).await;
    host.active.set(host.active.get() - 1);
    if moved.ended == Ended::Downstream {
        // What one side breaks off, the other sees broken off.
        upstream.reset_on_close();
    }
    ended(conn, config, record, &moved);
}

/// Puts what was moved, and how it ended, into the record.
pub(super) fn ended(conn: &Connection, config: &TcpProxy, record: &mut TcpRecord, moved: &Moved) {
    let cells = conn.worker.stats.tcp(&config.stat_prefix);
    record.received = moved.upward;
    record.sent = moved.downward;
    match moved.ended {
        Ended::Finished | Ended::Downstream => {}
        Ended::Idle => cells.idle_timeout.inc(),
        Ended::TooOld => {
            cells.max_downstream_connection_duration.inc();
            record.flags.set(ResponseFlags::DURATION_TIMEOUT);
        }
        Ended::Upstream => conn.io.reset_on_close(),
    }
}

/// Connects, over to other hosts as often as configured.
async fn open(
    conn: &Rc<Connection>,
    config: &TcpProxy,
    cluster: &Rc<ClusterState>,
    criteria: &Metadata,
    record: &mut TcpRecord,
) -> Option<(Rc<Host>, Io, Connected)> {
    let options = ConnectOptions {
        origin: conn.origin(&cluster.config),
        ..ConnectOptions::default()
    };
    let mut tried: Vec<Rc<Host>> = Vec::new();
    let none: &[(&str, &str)] = &[];
    let client = Some(conn.remote.ip());
    let hash = hash_policy::compute(&config.hash_policy, none, client, &mut || fastrand::u64(..));
    let Some(permit) = cluster.permit(0, Limited::Connections) else {
        cluster.stats.cells.upstream_cx_overflow.inc();
        record.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
        return None;
    };
    let Some(pending) = cluster.permit(0, Limited::Pending) else {
        // Envoy counts it as its one try, which failed.
        cluster.stats.cells.upstream_rq_pending_overflow.inc();
        record.attempts = 1;
        let flag = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        record.flags.set(flag);
        return None;
    };
    let _pending = Pending::new(pending, &cluster.stats);
    for attempt in 1..=config.max_connect_attempts.max(1) {
        let Some(host) = choose(conn, cluster, &tried, hash.hash, criteria) else {
            cluster.stats.cells.upstream_cx_none_healthy.inc();
            record.flags.set(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return None;
        };
        record.attempts = attempt;
        record.host = Some(host.clone());
        record.connect.0 = now_ns();
        match connect::open(cluster, &host, &options).await {
            Ok(io) => {
                let connected = Connected::new(&host, &cluster.stats, permit);
                record.connect.1 = now_ns();
                record.reached.push((host.clone(), connected.id));
                return Some((host, io, connected));
            }
            Err(error) => {
                host.note_failure(cluster);
                record.transport_failure = match &error {
                    ConnectError::Timeout => "connection_timeout".to_owned(),
                    error => connect::failure_details(error),
                };
                tried.push(host);
            }
        }
    }
    record.flags.set(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    record
        .flags
        .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
    None
}

pub(super) fn choose(
    conn: &Connection,
    cluster: &Rc<ClusterState>,
    tried: &[Rc<Host>],
    hash: Option<u64>,
    criteria: &Metadata,
) -> Option<Rc<Host>> {
    if let ClusterDiscovery::OriginalDst(options) = &cluster.config.discovery {
        let mut addr = conn.original_destination()?;
        if let Some(port) = options.upstream_port_override {
            addr.set_port(port);
        }
        return Some(cluster.passing_host(addr));
    }
    cluster.choose(&Choice {
        hash,
        criteria: Some(criteria),
        avoid: tried,
        attempts: 2,
    })
}
