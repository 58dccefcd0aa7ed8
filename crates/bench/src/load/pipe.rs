//! One non-blocking connection, plain or TLS, with what could not be written yet.

use std::io::{self, ErrorKind, Read as _, Write as _};

use mio::net::TcpStream;

/// A connection of the driver.
pub struct Pipe {
    /// The socket.
    pub stream: TcpStream,
    tls: Option<Box<rustls::Connection>>,
    out: Vec<u8>,
    sent: usize,
}

impl Pipe {
    /// A connection over this socket.
    pub fn new(stream: TcpStream, tls: Option<rustls::Connection>) -> Self {
        Self {
            stream,
            tls: tls.map(Box::new),
            out: Vec::new(),
            sent: 0,
        }
    }

    /// Reads what is there: `None` when nothing is, zero at the end.
    ///
    /// # Errors
    /// Those of the socket and of TLS.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return none_if_blocked(self.stream.read(buffer));
        };
        loop {
            match tls.reader().read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Ended without a word: for a bench that is an end.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(0)),
                Err(error) => return Err(error),
            }
            match none_if_blocked(tls.read_tls(&mut self.stream))? {
                None => return Ok(None),
                Some(0) => return Ok(Some(0)),
                Some(_) => {
                    let read = tls.process_new_packets();
                    read.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                    while tls.wants_write() {
                        if none_if_blocked(tls.write_tls(&mut self.stream))?.is_none() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Sends, or keeps what the socket does not take now.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(data)?;
            return self.flush();
        }
        let mut done = 0;
        if !self.blocked() {
            done = none_if_blocked(self.stream.write(data))?.unwrap_or(0);
        }
        if done < data.len() {
            self.out
                .extend_from_slice(data.get(done..).unwrap_or_default());
        }
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                if none_if_blocked(tls.write_tls(&mut self.stream))?.is_none() {
                    return Ok(());
                }
            }
            return Ok(());
        }
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match none_if_blocked(self.stream.write(rest))? {
                None => return Ok(()),
                Some(count) => self.sent += count,
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether something waits to be written.
    pub fn blocked(&self) -> bool {
        !self.out.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

fn none_if_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        // A connection that is still being made; the next event tells.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}
