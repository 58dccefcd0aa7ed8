//! Asks the clients of draining HTTP connections to go although they ask for nothing: each at a
//! moment of its own in the last third of the drain time, so that they do not all connect anew at
//! once.

use std::rc::Weak;
use std::time::Duration;

use lateen_proxy_core::config::NetworkFilter;
use lateen_proxy_core::drain;

use crate::conn::{Connection, Parting};
use crate::io::Timer;
use crate::worker::Worker;

/// How often the connections are looked over: so many times within the last third of the drain time.
const LOOKS: u32 = 100;

/// Runs as long as something drains that has connections to tell, and tells them.
pub async fn tell(worker: Weak<Worker>) {
    let timer = Timer::new();
    let time = match worker.upgrade() {
        Some(worker) => worker.options.drain_time,
        None => return,
    };
    timer.sleep(time / 3 * 2).await;
    let wait = (time / 3 / LOOKS).clamp(Duration::from_millis(10), Duration::from_secs(1));
    while let Some(worker) = worker.upgrade() {
        let mut more = false;
        for conn in worker.connections() {
            more |= look(&conn, time);
        }
        if !more && worker.told() {
            return;
        }
        drop(worker);
        timer.sleep(wait).await;
    }
}

/// Asks a connection's client to go where it is time. True = that, or its end, is still to come.
fn look(conn: &Connection, time: Duration) -> bool {
    let Some(NetworkFilter::HttpConnectionManager(config)) = conn.chain.filters.last() else {
        return false;
    };
    let timeout = config.drain_timeout;
    let (Some(elapsed), Some(at)) = (
        conn.draining().max(),
        drain::asks_unanswered(time, timeout, spread(conn.id)),
    ) else {
        return false;
    };
    if elapsed >= at + timeout {
        conn.parting.set(Parting::Over);
        conn.wake();
    } else if elapsed >= at {
        conn.ask_to_go();
    }
    conn.parting.get() < Parting::Over
}

/// A connection's own number, spread over all: it picks the same moment at every look.
fn spread(id: u64) -> u64 {
    let mixed = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}
