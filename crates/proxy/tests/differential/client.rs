//! A raw client: plays a script, then asks once more to see whether the
//! connection is kept.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::expand::Instance;
use super::framed;
use super::message::{answer, shown};
use super::script::Step;
use super::upstream::{PROBE, reset};

const LONGEST: Duration = Duration::from_secs(8);
/// How long nothing must come for `answers: 0`.
const QUIET: Duration = Duration::from_millis(250);

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
    methods: Vec<String>,
    lines: Vec<String>,
    answers: usize,
    tunnel: Option<Vec<u8>>,
    ended: bool,
}

/// Plays the case against the address; record lines.
pub fn play(case: &Instance, from: SocketAddr, address: SocketAddr) -> Vec<String> {
    let stream = connect(from, address);
    if !case.frames.is_empty() {
        return framed::play(case, stream);
    }
    let mut client = Client {
        stream,
        bytes: Vec::new(),
        methods: methods(&case.client),
        lines: Vec::new(),
        answers: 0,
        tunnel: None,
        ended: false,
    };
    for step in &case.client {
        match step {
            Step::Bytes(bytes) => drop(client.stream.write_all(bytes)),
            Step::Wait(time) => std::thread::sleep(*time),
            Step::Answers(count) => client.read_until(LONGEST, |c| c.answers >= *count),
            Step::Tunnel(count) => client.read_until(LONGEST, |c| {
                c.tunnel.as_ref().is_some_and(|t| t.len() >= *count)
            }),
            Step::Shut => drop(client.stream.shutdown(Shutdown::Write)),
            Step::Close => return client.lines,
            Step::Reset => {
                reset(&client.stream);
                return client.lines;
            }
            _ => panic!("{}: {step:?} is the upstream's", case.name),
        }
    }
    client.finish(
        case.case.answers.unwrap_or(1),
        case.case.probe != Some(false),
    );
    client.lines
}

/// Connects; with many listeners the last ones open a little later.
fn connect(from: SocketAddr, address: SocketAddr) -> TcpStream {
    let until = Instant::now() + LONGEST;
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&from.into()).unwrap();
        match socket.connect(&address.into()) {
            Ok(()) => return socket.into(),
            Err(error) if Instant::now() > until => panic!("{address}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The methods of the requests, guessed from the beginnings of lines.
fn methods(steps: &[Step]) -> Vec<String> {
    let mut all = Vec::new();
    for step in steps {
        let Step::Bytes(bytes) = step else { continue };
        for line in bytes.split(|b| *b == b'\n') {
            let text = String::from_utf8_lossy(line);
            if text.trim_end().contains(" HTTP/") {
                all.extend(text.split(' ').next().map(str::to_owned));
            }
        }
    }
    all
}

impl Client {
    fn finish(&mut self, answers: usize, probe: bool) {
        let time = if answers == 0 { QUIET } else { LONGEST };
        self.read_until(time, |c| answers > 0 && c.answers >= answers);
        if let Some(tunnel) = self.tunnel.take() {
            self.lines.push(format!("tunnel: {}", shown(&tunnel)));
            return;
        }
        if answers > 0 && self.answers < answers && !self.ended {
            self.lines.push("no answer in time".to_owned());
            return;
        }
        if probe && !self.ended && answers > 0 {
            let probe = format!("GET /probe HTTP/1.1\r\nhost: probe\r\n{PROBE}: 1\r\n\r\n");
            self.methods.truncate(self.answers);
            self.methods.push("GET".to_owned());
            let _ = self.stream.write_all(probe.as_bytes());
            let before = self.answers;
            self.read_until(LONGEST, |c| c.answers > before);
        }
        let end = if self.ended { "closed" } else { "open" };
        self.lines.push(end.to_owned());
    }

    fn read_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) {
        let until = Instant::now() + time;
        while !done(self) && !self.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
            self.take();
        }
    }

    /// Moves whole answers from the bytes to the record.
    fn take(&mut self) {
        loop {
            if let Some(tunnel) = &mut self.tunnel {
                tunnel.append(&mut self.bytes);
                return;
            }
            let method = self.methods.get(self.answers).cloned().unwrap_or_default();
            let Some(found) = answer(&self.bytes, &method, self.ended) else {
                return;
            };
            self.bytes.drain(..found.length);
            self.lines.push("answer".to_owned());
            self.lines
                .extend(found.lines.iter().map(|l| format!("  {l}")));
            self.answers += usize::from(found.last);
            if found.tunnel {
                self.tunnel = Some(Vec::new());
            }
        }
    }
}
