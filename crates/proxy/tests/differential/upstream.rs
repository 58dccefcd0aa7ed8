//! The upstreams of a case: each answers by its script and keeps what it saw.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::framed;
use super::message::{Found, head_end, request, shown};
use super::script::Step;

/// What a probe request carries, so that it gets the probe's answer.
pub const PROBE: &str = "x-probe";
const USUAL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const PROBED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nprobed";

/// What one side of the comparison did to an upstream.
#[derive(Default)]
struct Seen {
    requests: Vec<Vec<String>>,
    connections: Vec<TcpStream>,
    answered: usize,
    serving: usize,
}

/// How long a proxy may take to close a connection that its server ended.
const LEAVING: Duration = Duration::from_millis(500);

/// A listening upstream.
pub struct Upstream {
    address: SocketAddr,
    current: Arc<Mutex<Arc<Mutex<Seen>>>>,
    ending: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens at the address until it is dropped.
    pub fn start(address: SocketAddr, script: Vec<Vec<Step>>) -> Self {
        Self::with(address, move |stream, connection, seen| {
            serve(stream, connection, seen, &script);
        })
    }

    /// Listens at the address and serves HTTP/2 frame by frame: a script for each connection, the
    /// last one again and again.
    pub fn framed(address: SocketAddr, scripts: Vec<Vec<crate::frames::script::Step>>) -> Self {
        Self::with(address, move |stream, connection, seen| {
            let at = connection.min(scripts.len()) - 1;
            let lines = framed::serve(connection, &scripts[at], stream);
            let mut seen = seen.lock().unwrap();
            // Connections end in any order; the record is in that of their begin.
            let place = seen.requests.partition_point(|r| number(r) < connection);
            seen.requests.insert(place, lines);
        })
    }

    fn with(
        address: SocketAddr,
        serve: impl Fn(TcpStream, usize, &Mutex<Seen>) + Send + Sync + 'static,
    ) -> Self {
        let socket = TcpListener::bind(address).unwrap();
        let current: Arc<Mutex<Arc<Mutex<Seen>>>> = Arc::default();
        let ending = Arc::new(AtomicBool::new(false));
        let (now, stop, serve) = (current.clone(), ending.clone(), Arc::new(serve));
        let accepting = std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let seen = now.lock().unwrap().clone();
                let connection = {
                    let mut seen = seen.lock().unwrap();
                    seen.connections.push(stream.try_clone().unwrap());
                    seen.connections.len()
                };
                let serve = serve.clone();
                seen.lock().unwrap().serving += 1;
                std::thread::spawn(move || {
                    serve(stream, connection, &seen);
                    seen.lock().unwrap().serving -= 1;
                });
            }
        });
        Self {
            address,
            current,
            ending,
            accepting: Some(accepting),
        }
    }

    /// Ends the connections of one side and returns what it sent.
    pub fn take(&self) -> Vec<Vec<String>> {
        let seen = std::mem::take(&mut *self.current.lock().unwrap());
        for connection in seen.lock().unwrap().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Write);
        }
        // The next case must not meet a connection that is about to end.
        let until = Instant::now() + LEAVING;
        while seen.lock().unwrap().serving > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut seen.lock().unwrap().requests)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}

fn serve(mut stream: TcpStream, connection: usize, seen: &Mutex<Seen>, script: &[Vec<Step>]) {
    let mut bytes = Vec::new();
    loop {
        let mut ended = false;
        while head_end(&bytes).is_none() && !ended {
            ended = !more(&mut stream, &mut bytes);
        }
        if ended && bytes.is_empty() {
            return;
        }
        let probe = bytes
            .windows(PROBE.len())
            .any(|w| w.eq_ignore_ascii_case(PROBE.as_bytes()));
        let steps = next_answer(probe, seen, script);
        if steps.first() == Some(&Step::Early) {
            // The record comes when the request is whole; the answer is already out.
            play(&mut stream, &mut bytes, &steps, seen);
        }
        let found = loop {
            match request(&bytes, ended) {
                Some(found) => break found,
                None => ended = !more(&mut stream, &mut bytes),
            }
        };
        keep(seen, connection, &found);
        bytes.drain(..found.length);
        if ended {
            return;
        }
        if steps.first() != Some(&Step::Early) && !play(&mut stream, &mut bytes, &steps, seen) {
            return;
        }
    }
}

/// The number of the connection that a record is of.
fn number(record: &[String]) -> usize {
    let number = record.first().and_then(|l| l.strip_prefix("connection "));
    number.map_or(0, |n| n.parse().unwrap())
}

fn keep(seen: &Mutex<Seen>, connection: usize, found: &Found) {
    let mut lines = found.lines.clone();
    lines.insert(0, format!("connection {connection}"));
    seen.lock().unwrap().requests.push(lines);
}

fn next_answer(probe: bool, seen: &Mutex<Seen>, script: &[Vec<Step>]) -> Vec<Step> {
    if probe {
        return vec![Step::Bytes(PROBED.to_vec())];
    }
    let mut seen = seen.lock().unwrap();
    let at = seen.answered.min(script.len().saturating_sub(1));
    seen.answered += 1;
    match script.get(at) {
        Some(steps) => steps.clone(),
        None => vec![Step::Bytes(USUAL.to_vec())],
    }
}

/// Plays an answer; false ends the connection.
fn play(stream: &mut TcpStream, bytes: &mut Vec<u8>, steps: &[Step], seen: &Mutex<Seen>) -> bool {
    for step in steps {
        match step {
            Step::Bytes(answer) => {
                if stream.write_all(answer).is_err() {
                    return false;
                }
            }
            Step::Wait(time) => std::thread::sleep(*time),
            Step::Shut => drop(stream.shutdown(Shutdown::Write)),
            Step::Close => {
                let _ = stream.shutdown(Shutdown::Both);
                return false;
            }
            Step::Reset => {
                reset(stream);
                seen.lock().unwrap().connections.clear();
                return false;
            }
            Step::Silent => while more(stream, bytes) {},
            Step::Raw(count) => {
                while bytes.len() < *count && more(stream, bytes) {}
                let line = format!("raw: {}", shown(bytes));
                bytes.clear();
                seen.lock().unwrap().requests.push(vec![line]);
            }
            Step::Early => {}
            Step::Answers(_) | Step::Tunnel(_) => panic!("{step:?} is the client's"),
        }
    }
    true
}

/// Makes the close of a connection a reset.
pub fn reset(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 65536];
    match stream.read(&mut chunk) {
        Ok(count) if count > 0 => {
            bytes.extend_from_slice(&chunk[..count]);
            true
        }
        _ => false,
    }
}
