//! The driver: clients and backends of every scenario in one loop on one thread, so that both share
//! a core without a thread switch between them and cost as little as they can.
//!
//! Closed loop: each connection (or stream) asks again when its answer is whole. Open loop: requests
//! are due at fixed times whatever became of those before; one that finds no free connection waits,
//! and its latency counts from the time it was due, so that a slow answer is not hidden by the
//! requests it kept from being asked (coordinated omission). The loop spins meanwhile: a request is
//! sent within microseconds of its time.

mod http1;
mod http2;
mod pipe;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use pipe::Pipe;

/// Tokens from here on are listeners.
const DOORS: usize = 1 << 40;
/// Connections that are made at a time before a measurement.
const OPENED_AT_ONCE: usize = 16;
/// A turn of the open loop takes less when the driver has its core; what takes longer was somebody
/// else's time.
const GAP: Duration = Duration::from_micros(250);
/// No answer takes so long.
const STUCK: Duration = Duration::from_secs(20);

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time.
    Http1,
    /// HTTP/2 with so many streams at a time on each connection.
    Http2(usize),
    /// Nothing: it reads what comes.
    Tcp,
}

/// What is asked, of whom, and how.
#[derive(Clone, Debug)]
pub struct Load {
    /// Who is asked.
    pub target: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Connections at a time.
    pub connections: usize,
    /// TLS towards the target.
    pub tls: Option<Arc<ClientConfig>>,
    /// The `Host`.
    pub host: String,
    /// The path.
    pub path: String,
    /// Every request on a connection of its own.
    pub fresh: bool,
}

/// What a backend does with its connections.
#[derive(Clone)]
pub enum Backend {
    /// Answers each request with these bytes.
    Answer(Rc<[u8]>),
    /// Sends without end.
    Source,
}

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests with their answers.
    pub requests: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Requests without an answer.
    pub errors: u64,
    /// How long it took.
    pub time: Duration,
    /// Nanoseconds each request took from when it was due (open loop only).
    pub latencies: Vec<u64>,
}

enum Role {
    Http1(http1::Answers),
    Http2(http2::Client, VecDeque<Instant>),
    Sink,
    Answerer(http1::Requests, Rc<[u8]>),
    Source,
}

struct Conn {
    pipe: Pipe,
    role: Role,
    /// When the request on its way was due.
    due: Instant,
    busy: bool,
}

struct Door {
    socket: TcpListener,
    backend: Backend,
    tls: Option<Arc<ServerConfig>>,
}

/// The loop.
pub struct Driver {
    poll: Poll,
    events: Option<Events>,
    buffer: Vec<u8>,
    out: Vec<u8>,
    block: Rc<[u8]>,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    doors: Vec<Door>,
    load: Option<Load>,
    request: Rc<[u8]>,
    /// Clients without a request on its way.
    idle: Vec<usize>,
    outcome: Outcome,
    /// No request is begun after the end of one.
    stopping: bool,
    open_loop: bool,
    /// After so many answers no request is begun.
    most: u64,
    last_error: String,
    /// When the open loop did not run, and for how long: something else had the core.
    gaps: Vec<(Instant, Instant)>,
}

impl Driver {
    /// A driver without backends.
    ///
    /// # Errors
    /// When the kernel gives no epoll descriptor.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new().context("making an epoll descriptor")?,
            events: Some(Events::with_capacity(256)),
            buffer: vec![0; 256 * 1024],
            out: Vec::new(),
            block: vec![b'x'; 256 * 1024].into(),
            conns: Vec::new(),
            free: Vec::new(),
            doors: Vec::new(),
            load: None,
            request: Rc::from(&b""[..]),
            idle: Vec::new(),
            outcome: Outcome::default(),
            stopping: true,
            open_loop: false,
            most: u64::MAX,
            last_error: String::new(),
            gaps: Vec::new(),
        })
    }

    /// Adds a backend on a free port of loopback.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn backend(
        &mut self,
        backend: Backend,
        tls: Option<Arc<ServerConfig>>,
    ) -> anyhow::Result<SocketAddr> {
        let mut socket = TcpListener::bind("127.0.0.1:0".parse()?).context("a backend's socket")?;
        let token = Token(DOORS + self.doors.len());
        self.poll
            .registry()
            .register(&mut socket, token, Interest::READABLE)?;
        let address = socket.local_addr()?;
        self.doors.push(Door {
            socket,
            backend,
            tls,
        });
        Ok(address)
    }

    /// Opens the load's connections and has each serve one request, a few at a time: what follows
    /// meets open connections on both sides.
    ///
    /// # Errors
    /// When an answer does not come or is no 200.
    pub fn open(&mut self, load: Load) -> anyhow::Result<()> {
        self.close();
        self.request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n{}\r\n",
            load.path,
            load.host,
            if load.fresh {
                "Connection: close\r\n"
            } else {
                ""
            }
        )
        .into_bytes()
        .into();
        let count = if load.fresh { 0 } else { load.connections };
        self.load = Some(load);
        self.stopping = true;
        self.open_loop = false;
        self.outcome = Outcome::default();
        let begun = Instant::now();
        let mut made = 0;
        while made < count || !self.all_idle() {
            while made < count && self.clients() - self.idle.len() < OPENED_AT_ONCE {
                self.connect()?;
                made += 1;
            }
            self.turn(Duration::from_millis(100))?;
            if self.outcome.errors > 0 || begun.elapsed() > STUCK * 3 {
                let (errors, why) = (self.outcome.errors, &self.last_error);
                bail!("opening {count} connections: {made} made, {errors} failed ({why})");
            }
        }
        Ok(())
    }

    /// Asks as fast as answers come, for so long.
    ///
    /// # Errors
    /// When more than a hundredth of the requests fail.
    pub fn closed_loop(&mut self, time: Duration) -> anyhow::Result<Outcome> {
        self.closed(time, u64::MAX)
    }

    /// Asks as fast as answers come until so many came; a few more come after that.
    ///
    /// # Errors
    /// When more than a hundredth of the requests fail, or it takes ten minutes.
    pub fn closed_count(&mut self, most: u64) -> anyhow::Result<Outcome> {
        let outcome = self.closed(Duration::from_secs(600), most)?;
        if outcome.requests < most {
            bail!("{} of {most} requests in ten minutes", outcome.requests);
        }
        Ok(outcome)
    }

    fn closed(&mut self, time: Duration, most: u64) -> anyhow::Result<Outcome> {
        self.most = most;
        self.outcome = Outcome::default();
        self.stopping = false;
        let begun = Instant::now();
        let fresh = self.load.as_ref().filter(|load| load.fresh);
        for _ in 0..fresh.map_or(0, |load| load.connections) {
            self.connect()?;
        }
        for index in std::mem::take(&mut self.idle) {
            self.ask(index, begun);
        }
        while begun.elapsed() < time && !self.stopping {
            self.turn(Duration::from_millis(10))?;
        }
        self.stopping = true;
        self.settle(begun)
    }

    /// Asks `rate` times a second, for so long.
    ///
    /// # Errors
    /// When more than a hundredth of the requests fail.
    pub fn open_loop(&mut self, rate: u32, time: Duration) -> anyhow::Result<Outcome> {
        self.open_loop_while(rate, |elapsed| elapsed < time)
    }

    /// The same, as long as the function says.
    ///
    /// # Errors
    /// When more than a hundredth of the requests fail.
    pub fn open_loop_while(
        &mut self,
        rate: u32,
        mut on: impl FnMut(Duration) -> bool,
    ) -> anyhow::Result<Outcome> {
        self.outcome = Outcome::default();
        self.stopping = true;
        self.open_loop = true;
        let begun = Instant::now();
        let step = Duration::from_secs(1) / rate;
        let (mut due, mut waiting) = (begun, VecDeque::new());
        let mut last = begun;
        self.gaps.clear();
        while on(begun.elapsed()) || !waiting.is_empty() {
            let now = Instant::now();
            if now - last > GAP {
                self.gaps.push((last, now));
            }
            last = now;
            if due <= Instant::now() && on(begun.elapsed()) {
                waiting.push_back(due);
                due += step;
            }
            while let Some(first) = waiting.front().copied() {
                let Some(index) = self.idle.pop() else { break };
                waiting.pop_front();
                self.ask(index, first);
            }
            self.turn(Duration::ZERO)?;
            if begun.elapsed() > STUCK * 10 {
                bail!("the target does not keep up with {rate} requests a second");
            }
        }
        let outcome = self.settle(begun);
        self.open_loop = false;
        outcome
    }

    /// Waits for the answers that are still to come.
    fn settle(&mut self, begun: Instant) -> anyhow::Result<Outcome> {
        let time = begun.elapsed();
        let waited = Instant::now();
        let tcp = self
            .load
            .as_ref()
            .is_some_and(|load| load.protocol == Protocol::Tcp);
        while !tcp && !self.all_idle() {
            self.turn(Duration::from_millis(10))?;
            if waited.elapsed() > STUCK {
                bail!("an answer does not come");
            }
        }
        let mut outcome = std::mem::take(&mut self.outcome);
        outcome.time = time;
        if outcome.errors * 100 > outcome.requests {
            let why = &self.last_error;
            bail!(
                "{} of {} requests failed: {why}",
                outcome.errors,
                outcome.requests
            );
        }
        Ok(outcome)
    }

    /// Closes the clients' connections and lets the backends see what that leads to.
    pub fn close(&mut self) {
        let mut closed = false;
        for index in 0..self.conns.len() {
            let client = matches!(self.conns.get(index), Some(Some(conn)) if conn.is_client());
            if client {
                self.drop_conn(index);
                closed = true;
            }
        }
        self.idle.clear();
        self.load = None;
        if !closed {
            return;
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(30) {
            if self.turn(Duration::from_millis(5)).is_err() {
                return;
            }
        }
    }

    /// Serves the backends for so long.
    ///
    /// # Errors
    /// Those of the poll.
    pub fn serve(&mut self, time: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.turn(Duration::from_millis(5))?;
        }
        Ok(())
    }

    fn clients(&self) -> usize {
        let all = self.conns.iter().flatten();
        all.filter(|conn| conn.is_client()).count()
    }

    fn all_idle(&self) -> bool {
        let mut all = self.conns.iter().flatten();
        all.all(|conn| !conn.is_client() || !conn.busy)
    }

    fn insert(&mut self, mut conn: Conn) -> anyhow::Result<usize> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(&mut conn.pipe.stream, Token(index), both)?;
        if let Some(place) = self.conns.get_mut(index) {
            *place = Some(conn);
        }
        Ok(index)
    }

    fn drop_conn(&mut self, index: usize) {
        if self.conns.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
        }
    }

    /// A new client; its first request goes out at once.
    fn connect(&mut self) -> anyhow::Result<()> {
        let load = self.load.as_ref().context("no load")?;
        let stream = TcpStream::connect(load.target)?;
        stream.set_nodelay(true)?;
        let tls = match &load.tls {
            Some(config) => {
                let name = "backend.test".try_into()?;
                Some(ClientConnection::new(config.clone(), name)?.into())
            }
            None => None,
        };
        let mut pipe = Pipe::new(stream, tls);
        let role = match load.protocol {
            Protocol::Http1 => Role::Http1(http1::Answers::default()),
            Protocol::Http2(_) => {
                let (client, opening) = http2::Client::new(&load.host, &load.path);
                pipe.send(opening)?;
                Role::Http2(client, VecDeque::new())
            }
            Protocol::Tcp => Role::Sink,
        };
        let index = self.insert(Conn {
            pipe,
            role,
            due: Instant::now(),
            busy: false,
        })?;
        if load_is_tcp(self.load.as_ref()) {
            self.idle.push(index);
        } else {
            self.ask(index, Instant::now());
        }
        Ok(())
    }

    /// Sends requests on an idle client: as many as it has streams.
    fn ask(&mut self, index: usize, due: Instant) {
        let streams = match self.load.as_ref().map(|load| load.protocol) {
            Some(Protocol::Http2(streams)) if !self.open_loop => streams,
            _ => 1,
        };
        let Some(Some(conn)) = self.conns.get_mut(index) else {
            return;
        };
        conn.due = due;
        let sent = match &mut conn.role {
            Role::Http1(_) => {
                conn.busy = true;
                conn.pipe.send(&self.request)
            }
            Role::Http2(client, open) => {
                conn.busy = true;
                self.out.clear();
                for _ in 0..streams {
                    client.ask(&mut self.out);
                    open.push_back(due);
                }
                conn.pipe.send(&self.out)
            }
            _ => return self.idle.push(index),
        };
        if let Err(error) = sent {
            self.failed(index, error.to_string());
        }
    }

    /// One look at what happened.
    fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let mut events = self.events.take().context("no events")?;
        match self.poll.poll(&mut events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let Token(token) = event.token();
            if token >= DOORS {
                self.accept(token - DOORS)?;
            } else {
                self.serve_conn(token);
            }
        }
        self.events = Some(events);
        Ok(())
    }

    fn accept(&mut self, door: usize) -> anyhow::Result<()> {
        while let Some(at) = self.doors.get(door) {
            let Ok((stream, _)) = at.socket.accept() else {
                return Ok(());
            };
            stream.set_nodelay(true)?;
            let tls = match &at.tls {
                Some(config) => Some(ServerConnection::new(config.clone())?.into()),
                None => None,
            };
            let role = match &at.backend {
                Backend::Answer(answer) => {
                    Role::Answerer(http1::Requests::default(), answer.clone())
                }
                Backend::Source => Role::Source,
            };
            self.insert(Conn {
                pipe: Pipe::new(stream, tls),
                role,
                due: Instant::now(),
                busy: false,
            })?;
        }
        Ok(())
    }

    fn serve_conn(&mut self, index: usize) {
        let Some(mut conn) = self.conns.get_mut(index).and_then(Option::take) else {
            return;
        };
        let done = self.advance(&mut conn);
        if let Some(place) = self.conns.get_mut(index) {
            *place = Some(conn);
        }
        match done {
            Ok(Some(finished)) => self.finished(index, finished),
            Ok(None) => self.ended(index),
            Err(why) => self.failed(index, why),
        }
    }

    /// Reads and writes what can be: how many answers became whole, `None` at the end.
    fn advance(&mut self, conn: &mut Conn) -> Result<Option<usize>, String> {
        let text = |error: std::io::Error| error.to_string();
        conn.pipe.flush().map_err(text)?;
        if let Role::Source = conn.role {
            while !conn.pipe.blocked() {
                conn.pipe.send(&self.block).map_err(text)?;
            }
        }
        let mut finished = 0;
        loop {
            let count = match conn.pipe.read(&mut self.buffer).map_err(text)? {
                None => return Ok(Some(finished)),
                // An end right behind the answer takes nothing from it.
                Some(0) => return Ok(Some(finished).filter(|count| *count > 0)),
                Some(count) => count,
            };
            let data = self.buffer.get(..count).unwrap_or_default();
            match &mut conn.role {
                Role::Http1(answers) => {
                    self.outcome.bytes += count as u64;
                    finished += usize::from(answers.feed(data)?);
                }
                Role::Http2(client, _) => {
                    self.outcome.bytes += count as u64;
                    self.out.clear();
                    finished += client.feed(data, &mut self.out)?;
                    if !self.out.is_empty() {
                        conn.pipe.send(&self.out).map_err(text)?;
                    }
                }
                Role::Answerer(requests, answer) => {
                    for _ in 0..requests.feed(data) {
                        conn.pipe.send(answer).map_err(text)?;
                    }
                }
                Role::Sink => self.outcome.bytes += count as u64,
                Role::Source => {}
            }
            // A short read means that nothing is left; the poll tells of more.
            if count < self.buffer.len() && !conn.pipe.is_tls() {
                return Ok(Some(finished));
            }
        }
    }

    /// Answers became whole.
    fn finished(&mut self, index: usize, count: usize) {
        if count == 0 {
            return;
        }
        let now = Instant::now();
        self.outcome.requests += count as u64;
        self.stopping |= self.outcome.requests >= self.most;
        let fresh = self.load.as_ref().is_some_and(|load| load.fresh);
        let Some(Some(conn)) = self.conns.get_mut(index) else {
            return;
        };
        if let Role::Http2(client, open) = &mut conn.role {
            self.out.clear();
            for _ in 0..count {
                // Streams of one connection may answer in another order; the sum stays right.
                let due = open.pop_front().unwrap_or(now);
                if self.open_loop {
                    let took = waited(&self.gaps, due, now);
                    self.outcome.latencies.push(took.as_nanos() as u64);
                }
                if !self.stopping {
                    client.ask(&mut self.out);
                    open.push_back(now);
                }
            }
            conn.busy = !open.is_empty();
            if !conn.busy {
                self.idle.push(index);
            }
            let sent = conn.pipe.send(&self.out);
            if let Err(error) = sent {
                self.failed(index, error.to_string());
            }
            return;
        }
        conn.busy = false;
        if self.open_loop {
            let took = waited(&self.gaps, conn.due, now);
            self.outcome.latencies.push(took.as_nanos() as u64);
        }
        if fresh {
            self.drop_conn(index);
            if !self.stopping {
                self.again();
            }
        } else if self.stopping {
            self.idle.push(index);
        } else {
            self.ask(index, now);
        }
    }

    /// A connection for the next request.
    fn again(&mut self) {
        if let Err(error) = self.connect() {
            self.outcome.errors += 1;
            self.last_error = error.to_string();
        }
    }

    /// The other side closed.
    fn ended(&mut self, index: usize) {
        let busy = matches!(self.conns.get(index), Some(Some(conn)) if conn.busy);
        if busy {
            return self.failed(index, "closed without an answer".to_owned());
        }
        self.idle.retain(|idle| *idle != index);
        self.drop_conn(index);
    }

    fn failed(&mut self, index: usize, why: String) {
        let client = matches!(self.conns.get(index), Some(Some(conn)) if conn.is_client());
        self.drop_conn(index);
        if !client {
            return;
        }
        self.idle.retain(|idle| *idle != index);
        self.outcome.errors += 1;
        self.last_error = why;
        // What fails again and again is told by the count.
        if !self.stopping && self.outcome.errors < 1000 {
            self.again();
        }
    }
}

impl Conn {
    fn is_client(&self) -> bool {
        !matches!(self.role, Role::Answerer(..) | Role::Source)
    }
}

/// How long a request took, without the time in which the driver did not run.
fn waited(gaps: &[(Instant, Instant)], due: Instant, now: Instant) -> Duration {
    let since = gaps.iter().rev().take_while(|(_, end)| *end > due);
    let lost: Duration = since.map(|(start, end)| *end - (*start).max(due)).sum();
    now.saturating_duration_since(due).saturating_sub(lost)
}

fn load_is_tcp(load: Option<&Load>) -> bool {
    load.is_some_and(|load| load.protocol == Protocol::Tcp)
}
