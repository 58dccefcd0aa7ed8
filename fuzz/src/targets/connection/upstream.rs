//! The server behind the proxy under test: it reads requests as strictly as the proxy itself does,
//! so that whatever the proxy hands on must be well formed, and answers as the path asks.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::rc::Rc;

use lateen_proxy::http::head::Head;
use lateen_proxy::http1::{BodyDecoder, Framing, Limits, Piece, RequestHead, parse_request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_local;

/// A name in the kernel's table of abstract sockets, one a thread.
pub fn name() -> String {
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    format!("lateen-fuzz-{}-{number}", std::process::id())
}

/// Serves until its task is dropped. A path with `/raw` is answered by `raw`, byte for byte.
pub fn start(raw: &[u8]) {
    let address = SocketAddr::from_abstract_name(name()).expect("a short name");
    let socket = std::os::unix::net::UnixListener::bind_addr(&address).expect("a free name");
    socket.set_nonblocking(true).expect("a socket");
    let socket = UnixListener::from_std(socket).expect("a socket");
    let raw: Rc<[u8]> = raw.into();
    spawn_local(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let session = Session {
                stream,
                buffer: Vec::new(),
                raw: raw.clone(),
            };
            spawn_local(session.run());
        }
    });
}

struct Session {
    stream: UnixStream,
    buffer: Vec<u8>,
    raw: Rc<[u8]>,
}

/// The other side left, or the answer ends the connection.
struct Over;

impl Session {
    async fn run(mut self) {
        while self.serve().await.is_ok() {}
    }

    async fn more(&mut self) -> Result<(), Over> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            _ => Err(Over),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Over> {
        self.stream.write_all(bytes).await.map_err(|_| Over)
    }

    async fn head(&mut self) -> Result<(Head, RequestHead), Over> {
        let limits = Limits {
            head_bytes: 1 << 20,
            headers: 400,
            ..Limits::default()
        };
        let mut head = Head::new();
        loop {
            self.known_method();
            match parse_request(&self.buffer, 0, &limits, &mut head) {
                Ok(Some(request)) if request.refused.is_none() => {
                    self.buffer.drain(..request.consumed);
                    return Ok((head, request));
                }
                Ok(None) => self.more().await?,
                wrong => panic!("handed on: {wrong:?}\n{}", self.buffer.escape_ascii()),
            }
        }
    }

    /// Over HTTP/2 any token is a method (RFC 9110 9.1) and is handed on; the parser here takes
    /// registered ones only.
    fn known_method(&mut self) {
        let end = self.buffer.iter().position(|byte| *byte == b' ');
        let Some(word) = end.map(|end| &self.buffer[..end]) else {
            return;
        };
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let special: [&[u8]; 3] = [b"CONNECT", b"HEAD", b"OPTIONS"];
        if !word.is_empty() && word.iter().all(token) && !special.contains(&word) {
            let end = word.len();
            self.buffer.splice(..end, *b"POST");
        }
    }

    /// Reads a body to its end.
    async fn body(&mut self, framing: Framing) -> Result<(), Over> {
        let mut decoder = BodyDecoder::new(framing);
        loop {
            match decoder.next(&self.buffer) {
                Ok(Piece::Data { skip, len }) => drop(self.buffer.drain(..skip + len)),
                Ok(Piece::More(skip)) => {
                    self.buffer.drain(..skip);
                    self.more().await?;
                }
                Ok(Piece::End(skip)) => {
                    self.buffer.drain(..skip);
                    return Ok(());
                }
                Err(error) => panic!(
                    "a body handed on: {error:?}\n{}",
                    self.buffer.escape_ascii()
                ),
            }
        }
    }

    async fn serve(&mut self) -> Result<(), Over> {
        let (head, request) = self.head().await?;
        let asked = |what: &[u8]| head.path().windows(what.len()).any(|part| part == what);
        if asked(b"/early") {
            self.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 1\r\n\r\nx")
                .await?;
            return Err(Over);
        }
        if asked(b"/continue") {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n")
                .await?;
        }
        if request.upgrade || head.method() == b"CONNECT" {
            let status: &[u8] = match request.upgrade {
                true => b"HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                false => b"HTTP/1.1 200 OK\r\n\r\n",
            };
            self.send(status).await?;
            return self.echo().await;
        }
        self.body(request.framing).await?;
        let to_head = head.method() == b"HEAD";
        let last = b"0\r\nx-trailer: 1\r\n\r\n";
        let (answer, body, ends): (&[u8], &[u8], bool) = if asked(b"/raw") {
            let raw = self.raw.clone();
            self.send(&raw).await?;
            return Err(Over);
        } else if asked(b"/chunks") {
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                last,
                false,
            )
        } else if asked(b"/close") {
            (b"HTTP/1.1 200 OK\r\n\r\n", b"to the end", true)
        } else if asked(b"/cut") {
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
                b"part",
                true,
            )
        } else if asked(b"/gone") {
            (b"", b"", true)
        } else if asked(b"/5") {
            (
                b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\n",
                b"no",
                false,
            )
        } else if asked(b"/large") {
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 40000\r\n\r\n",
                &[b'x'; 40_000],
                false,
            )
        } else {
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
                b"ok",
                false,
            )
        };
        self.send(answer).await?;
        if !to_head {
            self.send(body).await?;
        }
        if ends { Err(Over) } else { Ok(()) }
    }

    async fn echo(&mut self) -> Result<(), Over> {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            self.send(&bytes).await?;
            self.more().await?;
        }
    }
}
