//! The floor: what a proxied request cannot avoid, two reads and two writes, and nothing else. Every
//! connection has one of its own towards the backend; bytes are passed on unread.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::Context as _;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const DOOR: Token = Token(usize::MAX - 1);

struct Pair {
    /// Downstream, upstream.
    sockets: [TcpStream; 2],
    /// What could not be written yet, towards each of them.
    waiting: [Vec<u8>; 2],
}

/// Serves until it is ended.
///
/// # Errors
/// When its socket cannot be had.
pub fn run(listen: SocketAddr, upstream: SocketAddr) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut door = TcpListener::bind(listen).context("the floor's socket")?;
    poll.registry()
        .register(&mut door, DOOR, Interest::READABLE)?;
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; 64 * 1024];
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() == ErrorKind::Interrupted {
                continue;
            }
            return Err(error.into());
        }
        for event in &events {
            if event.token() == DOOR {
                while let Ok((stream, _)) = door.accept() {
                    let pair = accept(&poll, stream, upstream, pairs.len());
                    pairs.push(pair.ok());
                }
                continue;
            }
            let Token(token) = event.token();
            let Some(place) = pairs.get_mut(token / 2) else {
                continue;
            };
            if let Some(pair) = place
                && !pass(pair, token % 2, &mut buffer)
            {
                *place = None;
            }
        }
    }
}

fn accept(poll: &Poll, down: TcpStream, upstream: SocketAddr, index: usize) -> io::Result<Pair> {
    let up = TcpStream::connect(upstream)?;
    let mut sockets = [down, up];
    for (side, socket) in sockets.iter_mut().enumerate() {
        socket.set_nodelay(true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(socket, Token(index * 2 + side), both)?;
    }
    Ok(Pair {
        sockets,
        waiting: [Vec::new(), Vec::new()],
    })
}

/// Serves an event of one side. False when the pair ends.
fn pass(pair: &mut Pair, side: usize, buffer: &mut [u8]) -> bool {
    let waits = |pair: &Pair| pair.waiting.get(side).is_some_and(|w| !w.is_empty());
    if waits(pair) {
        let Pair { sockets, waiting } = pair;
        let (Some(socket), Some(waiting)) = (sockets.get_mut(side), waiting.get_mut(side)) else {
            return false;
        };
        if !write(socket, waiting, &[]) {
            return false;
        }
        // The other side was left unread meanwhile, and its event is gone.
        if waiting.is_empty() && !pump(pair, 1 - side, buffer) {
            return false;
        }
    }
    pump(pair, side, buffer)
}

/// Passes on what one side sent, until it has nothing more or the other takes nothing more.
fn pump(pair: &mut Pair, side: usize, buffer: &mut [u8]) -> bool {
    let [down, up] = &mut pair.sockets;
    let [to_down, to_up] = &mut pair.waiting;
    let (from, to, waiting) = match side {
        0 => (down, up, to_up),
        _ => (up, down, to_down),
    };
    while waiting.is_empty() {
        match from.read(buffer) {
            Ok(0) => return false,
            Ok(count) => {
                let data = buffer.get(..count).unwrap_or_default();
                if !write(to, waiting, data) {
                    return false;
                }
                if count < buffer.len() {
                    return true;
                }
            }
            Err(error) => return blocked(&error),
        }
    }
    true
}

fn write(to: &mut TcpStream, waiting: &mut Vec<u8>, data: &[u8]) -> bool {
    waiting.extend_from_slice(data);
    match to.write(waiting) {
        Ok(count) => {
            waiting.drain(..count);
            true
        }
        Err(error) => blocked(&error),
    }
}

fn blocked(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}
