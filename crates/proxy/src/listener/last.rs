//! The end of a listening socket: newcomers are kept out, whoever is connected already is still
//! accepted, and only then the socket is closed, which resets what its queue holds.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};

use super::ListenerState;
use crate::io::{Timer, timer};
use crate::logger;
use crate::worker::Arrival;

/// How long handshakes under way have to end, once no new one begins: a long way's round trip.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// What an accept loop is told at its end: for whom it accepts the last connections, and the
/// arrival that they are until they are counted themselves.
pub(super) type Last = (Rc<ListenerState>, Arrival);

/// Keeps newcomers out: their SYN is dropped, and the one that TCP sends a second later finds no
/// socket any more and is refused. Handshakes under way end as ever.
fn keep_out(socket: &TcpListener) -> std::io::Result<()> {
    // Classic BPF over the segment, its TCP header first: byte 13 holds the flags, bit 1 is SYN.
    let program = [
        SockFilter::new(0x30, 0, 0, 13),          // load the byte
        SockFilter::new(0x45, 0, 1, 0x02),        // SYN?
        SockFilter::new(0x06, 0, 0, 0),           // drop
        SockFilter::new(0x06, 0, 0, 0x0004_0000), // take
    ];
    SockRef::from(socket).attach_filter(&program)
}

/// Accepts whoever is connected to the socket, or about to be, and closes it.
pub(super) async fn calls(
    socket: TcpListener,
    address: SocketAddr,
    backlog: usize,
    mut taken: impl FnMut(TcpStream),
) {
    if let Err(error) = keep_out(&socket) {
        // Who connects until the socket is closed is accepted all the same.
        tracing::debug!(target: logger::CONN_HANDLER, %address, %error, "newcomers are not kept out");
    }
    let timer = Timer::new();
    let until = timer::deadline(timer::now_ms(), Some(HANDSHAKES));
    timer.set(until);
    while timer::now_ms() < until {
        match timer.race(socket.accept()).await {
            Some(Ok((stream, _))) => taken(stream),
            // Out of descriptors or the like: some may be back at the end.
            Some(Err(_)) => timer.sleep(HANDSHAKES).await,
            None => break,
        }
    }
    // What the queue holds at last; it may be refilled only where newcomers are not kept out.
    for _ in 0..=backlog {
        let next = poll_fn(|cx| Poll::Ready(socket.poll_accept(cx)));
        match next.await {
            Poll::Ready(Ok((stream, _))) => taken(stream),
            _ => break,
        }
    }
}
