//! A connection as its two directions see it: plain TCP, a unix socket, or
//! either under TLS, polled through a shared reference so that one task can
//! read and write at once without splitting or locking.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use lateen_proxy_core::stats::Counter;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::timer::now_ms;
use crate::stats::ClusterStats;
use crate::stats::rare::ClusterEvent;
use crate::tls::session::UpstreamSession;

/// The socket under a connection.
#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_write_ready(cx),
            Self::Unix(s) => s.poll_write_ready(cx),
        }
    }

    fn try_io<T>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Tcp(s) => s.try_io(interest, operation),
            Self::Unix(s) => s.try_io(interest, operation),
        }
    }

    /// Whether a read or a write may find something to do, for all that is known by now.
    fn seems(&self, interest: Interest) -> bool {
        self.try_io(interest, || Ok(())).is_ok()
    }

    /// The kernel has no more to give or to take until it tells of it: a call did less than it was
    /// asked for.
    fn exhausted(&self, interest: Interest) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // An error that is made here.
        let _ = self.try_io(interest, nothing);
    }

    /// Reads at once; only where nothing is there a wake-up is asked for.
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let done = match self {
                Self::Tcp(s) => s.try_read(buf),
                Self::Unix(s) => s.try_read(buf),
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_read_ready(cx))?;
                }
                Ok(count) if (1..buf.len()).contains(&count) => {
                    self.exhausted(Interest::READABLE);
                    return Poll::Ready(Ok(count));
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Writes at once; only where nothing can be a wake-up is asked for.
    fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let done = match self {
                Self::Tcp(s) => s.try_write_vectored(bufs),
                Self::Unix(s) => s.try_write_vectored(bufs),
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_write_ready(cx))?;
                }
                Ok(count) if count > 0 && count < bufs.iter().map(|buf| buf.len()).sum() => {
                    self.exhausted(Interest::WRITABLE);
                    return Poll::Ready(Ok(count));
                }
                done => return Poll::Ready(done),
            }
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => match SockRef::from(s).shutdown(Shutdown::Write) {
                // The other end was faster.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                done => done,
            },
            Self::Unix(s) => SockRef::from(s).shutdown(Shutdown::Write),
        }
    }
}

/// Lets rustls read and write a non-blocking socket.
struct Sync<'a, 'b>(&'a Socket, &'a mut Context<'b>);

impl Read for Sync<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.poll_read(self.1, buf) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Sync<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0.poll_write(self.1, bufs) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What counts a connection to an endpoint: its bytes as they pass, its life when it ends.
#[derive(Debug)]
pub struct Meters {
    stats: Rc<ClusterStats>,
    received: Counter,
    sent: Counter,
    opened: u64,
    /// Requests are under way.
    pub busy: Cell<bool>,
    /// Requests that it served.
    pub requests: Cell<u32>,
    ended: Cell<bool>,
    session: OnceCell<Rc<UpstreamSession>>,
}

impl Meters {
    /// Of a connection of this cluster that is opened now.
    pub fn new(stats: &Rc<ClusterStats>) -> Self {
        Self {
            received: stats.cells.upstream_cx_rx_bytes_total.clone(),
            sent: stats.cells.upstream_cx_tx_bytes_total.clone(),
            stats: stats.clone(),
            opened: now_ms(),
            busy: Cell::new(false),
            requests: Cell::new(0),
            ended: Cell::new(false),
            session: OnceCell::new(),
        }
    }

    /// Its TLS handshake is done.
    pub fn secured(&self, session: UpstreamSession) {
        // Only one handshake is made on a connection.
        let _ = self.session.set(Rc::new(session));
    }

    /// Its TLS, where it has any.
    pub fn session(&self) -> Option<Rc<UpstreamSession>> {
        self.session.get().cloned()
    }

    /// A request begins on it.
    pub fn begin(&self) {
        self.busy.set(true);
        self.requests.set(self.requests.get() + 1);
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        use ClusterEvent as E;
        let events = &self.stats.events;
        let [ended, with_request] = match self.ended.get() {
            true => [
                E::upstream_cx_destroy_remote,
                E::upstream_cx_destroy_remote_with_active_rq,
            ],
            false => [
                E::upstream_cx_destroy_local,
                E::upstream_cx_destroy_local_with_active_rq,
            ],
        };
        events.inc(ended);
        if self.busy.get() {
            events.inc(with_request);
            events.inc(E::upstream_cx_destroy_with_active_rq);
        }
        let lived = now_ms().saturating_sub(self.opened);
        events.record(E::upstream_cx_length_ms, lived);
        if self.requests.get() > 0 {
            events.record(E::upstream_rq_per_cx, self.requests.get().into());
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Io {
    socket: Socket,
    tls: Option<Box<RefCell<rustls::Connection>>>,
    prefix: RefCell<Vec<u8>>,
    plain: RefCell<Vec<u8>>,
    /// Bytes were given back, and not all of them were read again for sure.
    ahead: Cell<bool>,
    received: Cell<u64>,
    sent: Cell<u64>,
    meters: Option<Rc<Meters>>,
    /// The other end was the first to end it.
    ended: Cell<bool>,
    /// This end ended its sending.
    shut: Cell<bool>,
    /// The last read was as large as it could be.
    filled: Cell<bool>,
    /// Who is woken by what comes, by the address of its waker: while nothing came it need not be
    /// told again. Null = none, or not for sure.
    awaited: Cell<*const ()>,
    /// Address of this end.
    pub local: SocketAddr,
    /// Address of the other end.
    pub peer: SocketAddr,
}

/// The address of an end that has none (unix sockets).
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

impl Io {
    /// Wraps a connected TCP socket; Nagle's delay is switched off.
    pub fn tcp(stream: TcpStream) -> Self {
        let local = stream.local_addr().unwrap_or(NOWHERE);
        let peer = stream.peer_addr().unwrap_or(NOWHERE);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(target: crate::logger::CONNECTION, %error, "TCP_NODELAY");
        }
        Self::over(Socket::Tcp(stream), local, peer)
    }

    /// Wraps a connected unix socket.
    pub fn unix(stream: UnixStream) -> Self {
        Self::over(Socket::Unix(stream), NOWHERE, NOWHERE)
    }

    fn over(socket: Socket, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            socket,
            tls: None,
            prefix: RefCell::default(),
            plain: RefCell::default(),
            ahead: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
            meters: None,
            ended: Cell::new(false),
            shut: Cell::new(false),
            filled: Cell::new(false),
            awaited: Cell::new(ptr::null()),
            local,
            peer,
        }
    }

    /// Puts TLS on top. The handshake is [`Io::poll_handshake`]'s.
    pub fn with_tls(mut self, tls: rustls::Connection) -> Self {
        self.tls = Some(Box::new(RefCell::new(tls)));
        // The bytes of the handshake are not counted, so neither are those that were looked at.
        self.received.set(0);
        self
    }

    /// Gives bytes back that an inspector read: they are read again first.
    pub fn unread(&self, bytes: &[u8]) {
        self.ahead.set(true);
        self.prefix.borrow_mut().splice(0..0, bytes.iter().copied());
    }

    /// Whether bytes were given back that nobody read again.
    pub fn has_unread(&self) -> bool {
        !self.prefix.borrow().is_empty() || !self.plain.borrow().is_empty()
    }

    /// Gives plain-text bytes back, above TLS where that is on.
    pub fn unread_plain(&self, bytes: &[u8]) {
        self.ahead.set(true);
        self.plain.borrow_mut().splice(0..0, bytes.iter().copied());
    }

    /// Whether TLS is on.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the other end ended the connection, or broke it off, before this one did.
    pub fn ended_by_peer(&self) -> bool {
        self.ended.get()
    }

    /// The other end will send no more.
    pub fn end(&self) {
        if self.shut.get() {
            return;
        }
        self.ended.set(true);
        if let Some(meters) = &self.meters {
            meters.ended.set(true);
        }
    }

    /// What counts the connection, where something does.
    pub fn meters(&self) -> Option<&Rc<Meters>> {
        self.meters.as_ref()
    }

    /// Bytes received and sent so far, after decryption and before encryption.
    pub fn counts(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }

    /// Runs `look` on the TLS session, if there is one.
    pub fn tls<T>(&self, look: impl FnOnce(&rustls::Connection) -> T) -> Option<T> {
        self.tls.as_ref().map(|tls| look(&tls.borrow()))
    }

    /// Whether nothing stands between a TCP socket and the bytes.
    pub fn is_plain_tcp(&self) -> bool {
        let bare = self.tls.is_none() && !self.is_ahead();
        bare && matches!(self.socket, Socket::Tcp(_))
    }

    /// Waits until the TCP socket may be read (for callers with their own
    /// system calls).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.awaited.set(ptr::null());
        self.socket.poll_read_ready(cx)
    }

    /// Waits until the TCP socket may be written.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    /// Runs a non-blocking operation on the TCP socket and clears the readiness
    /// it found wanting.
    pub fn try_tcp<T>(
        &self,
        interest: Interest,
        operation: impl FnOnce(&TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        self.awaited.set(ptr::null());
        match &self.socket {
            Socket::Tcp(stream) => stream.try_io(interest, || operation(stream)),
            Socket::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Adds the bytes that pass from now on to statistics.
    pub fn metered(mut self, meters: Meters) -> Self {
        self.meters = Some(Rc::new(meters));
        self
    }

    /// Adds to the byte counters; callers are those that move bytes around the
    /// poll functions.
    pub fn count(&self, received: u64, sent: u64) {
        self.received.set(self.received.get() + received);
        self.sent.set(self.sent.get() + sent);
        if let Some(meters) = &self.meters {
            meters.received.add(received);
            meters.sent.add(sent);
        }
    }

    /// Ready when a read may find something. Only of a bare socket that is known; it saves readers
    /// that wait from taking memory.
    pub fn poll_may_read(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.tls.is_some() || self.is_ahead() {
            return Poll::Ready(());
        }
        let socket = &self.socket;
        let before = self.awaited.replace(ptr::null());
        if socket.seems(Interest::READABLE) {
            return Poll::Ready(());
        }
        let waker = cx.waker().data();
        // What comes takes the waker away, and until then no other has its address.
        let waits = !waker.is_null() && waker == before;
        // An error is for the read to find.
        if !waits && socket.poll_read_ready(cx).is_ready() {
            return Poll::Ready(());
        }
        self.awaited.set(waker);
        Poll::Pending
    }

    /// Whether there are bytes to be read again.
    fn is_ahead(&self) -> bool {
        self.ahead.get() && {
            let any = !self.prefix.borrow().is_empty() || !self.plain.borrow().is_empty();
            self.ahead.set(any);
            any
        }
    }

    /// Reads into `buf`; 0 is the end of the stream.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.is_ahead()
            && let Some(count) = take_front(&self.plain, buf)
        {
            return Poll::Ready(Ok(count));
        }
        match &self.tls {
            None => self.poll_read_wire(cx, buf),
            Some(tls) => self.poll_read_tls(&mut tls.borrow_mut(), cx, buf),
        }
    }

    fn poll_read_wire(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.is_ahead()
            && let Some(count) = take_front(&self.prefix, buf)
        {
            return Poll::Ready(Ok(count));
        }
        self.awaited.set(ptr::null());
        let socket = &self.socket;
        if self.filled.take() {
            // Who fills one buffer after the other takes turns with other tasks.
            ready!(socket.poll_read_ready(cx))?;
        }
        let done = ready!(socket.poll_read(cx, buf));
        super::clock::passed();
        match &done {
            Ok(count) if *count > 0 || buf.is_empty() => {
                self.filled.set(*count == buf.len());
                if self.tls.is_none() {
                    self.count(*count as u64, 0);
                }
            }
            _ => self.end(),
        }
        Poll::Ready(done)
    }

    fn poll_read_tls(
        &self,
        tls: &mut rustls::Connection,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer that closes without close_notify: the end, as for TCP.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(0));
                }
                done => {
                    if let Ok(count) = done {
                        self.count(count as u64, 0);
                    }
                    return Poll::Ready(done);
                }
            }
            ready!(self.poll_feed(tls, cx))?;
        }
    }

    /// Brings ciphertext in and sends what TLS itself has to say. 0 is the end.
    fn poll_feed(
        &self,
        tls: &mut rustls::Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut wire = Wire(self, cx);
        let count = match tls.read_tls(&mut wire) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
            Ok(count) => count,
        };
        let processed = tls.process_new_packets();
        if tls.wants_write() {
            // An alert must go out even when the session failed.
            let _ = self.poll_flush_tls(tls, cx)?;
        }
        match processed {
            Ok(_) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
        }
    }

    fn poll_flush_tls(
        &self,
        tls: &mut rustls::Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while tls.wants_write() {
            match tls.write_tls(&mut Sync(&self.socket, cx)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Drives the TLS handshake to its end; ready at once without TLS.
    pub fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &self.tls else {
            return Poll::Ready(Ok(()));
        };
        let mut tls = tls.borrow_mut();
        loop {
            let flushed = self.poll_flush_tls(&mut tls, cx)?;
            if !tls.is_handshaking() {
                ready!(flushed);
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_feed(&mut tls, cx))? == 0 {
                let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "closed in TLS handshake");
                return Poll::Ready(Err(eof));
            }
        }
    }

    /// Writes from `bufs`; returns how many bytes were taken. Under TLS what was
    /// taken may wait in the session until [`Io::poll_flush`].
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(tls) = &self.tls else {
            let done = ready!(self.socket.poll_write(cx, bufs));
            match &done {
                Ok(count) => self.count(0, *count as u64),
                Err(_) => self.end(),
            }
            return Poll::Ready(done);
        };
        let mut tls = tls.borrow_mut();
        ready!(self.poll_flush_tls(&mut tls, cx))?;
        let count = tls.writer().write_vectored(bufs)?;
        self.count(0, count as u64);
        let _ = self.poll_flush_tls(&mut tls, cx)?;
        Poll::Ready(Ok(count))
    }

    /// Waits until everything taken is in the socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => self.poll_flush_tls(&mut tls.borrow_mut(), cx),
        }
    }

    /// Ends the sending direction (TLS close_notify and FIN).
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &self.tls {
            let mut tls = tls.borrow_mut();
            tls.send_close_notify();
            ready!(self.poll_flush_tls(&mut tls, cx))?;
        }
        self.shut.set(true);
        Poll::Ready(self.socket.shutdown())
    }

    /// Makes the socket's close a reset.
    pub fn reset_on_close(&self) {
        if let Socket::Tcp(stream) = &self.socket {
            let socket = SockRef::from(stream);
            if let Err(error) = socket.set_linger(Some(std::time::Duration::ZERO)) {
                tracing::debug!(target: crate::logger::CONNECTION, %error, "SO_LINGER");
            }
        }
    }

    /// Runs `look` on the TCP socket.
    pub fn tcp_socket<T>(&self, look: impl FnOnce(&TcpStream) -> T) -> Option<T> {
        match &self.socket {
            Socket::Tcp(stream) => Some(look(stream)),
            Socket::Unix(_) => None,
        }
    }

    /// Reads what is there now, for inspectors; 0 is the end.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all bytes and flushes.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while !bytes.is_empty() {
                let count = ready!(self.poll_write(cx, &[IoSlice::new(bytes)]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                bytes = &bytes[count..];
            }
            self.poll_flush(cx)
        })
        .await
    }
}

fn take_front(bytes: &RefCell<Vec<u8>>, buf: &mut [u8]) -> Option<usize> {
    let mut bytes = bytes.borrow_mut();
    if bytes.is_empty() {
        return None;
    }
    let count = bytes.len().min(buf.len());
    buf[..count].copy_from_slice(&bytes[..count]);
    bytes.drain(..count);
    if bytes.is_empty() {
        *bytes = Vec::new();
    }
    Some(count)
}

/// The wire side of an [`Io`] for rustls: prefix first, then the socket.
struct Wire<'a, 'b, 'c>(&'a Io, &'b mut Context<'c>);

impl Read for Wire<'_, '_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.poll_read_wire(self.1, buf) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::io::Buf;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// However often it is asked whether something came, and by whom: who asked last is woken by
    /// what comes, each time.
    #[test]
    fn who_asked_last_is_woken_each_time() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (one, mut two) = UnixStream::pair().unwrap();
            let (io, mut buf) = (Io::unix(one), Buf::new());
            let wakers = [(); 2].map(|()| Arc::new(Woken::default()));
            let mut woken = [0, 0];
            for round in 0..6 {
                // First each of them alone, then one after the other.
                let last = round % 2;
                for asks in [last, if round < 3 { last } else { 1 - last }, last, last] {
                    let waker = Waker::from(wakers[asks].clone());
                    let mut cx = Context::from_waker(&waker);
                    assert!(buf.poll_fill(&io, &mut cx).is_pending());
                }
                two.write_all(b"more").await.unwrap();
                woken[last] += 1;
                while wakers[last].0.load(Ordering::Relaxed) < woken[last] {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let mut cx = Context::from_waker(Waker::noop());
                assert!(matches!(buf.poll_fill(&io, &mut cx), Poll::Ready(Ok(4))));
                buf.consume(4);
                assert!(buf.poll_fill(&io, &mut cx).is_pending());
            }
            let counts = wakers.map(|waker| waker.0.load(Ordering::Relaxed));
            assert_eq!(counts, woken);
        });
    }
}
