//! Questions about the rest of the world go to the host's resolvers, unchanged, and their answers
//! come back unchanged.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// How long one resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a silent set of resolvers is left alone (their questions fail at once).
const REST: Duration = Duration::from_secs(5);

/// The resolvers named in the text of a `resolv.conf`; loopback ones are kept, since the agent
/// asks from the host.
pub fn parse_resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next()? == "nameserver").then_some(())?;
            fields.next()?.split('%').next()?.parse().ok()
        })
        .take(3)
        .collect()
}

/// Asks the host's resolvers.
#[derive(Debug)]
pub struct Forwarder {
    resolvers: Vec<SocketAddr>,
    started: Instant,
    /// Milliseconds since `started` until which nobody is asked.
    resting_until: AtomicU64,
}

impl Forwarder {
    /// A forwarder to these resolvers, in order.
    pub fn new(resolvers: Vec<SocketAddr>) -> Self {
        Self {
            resolvers,
            started: Instant::now(),
            resting_until: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The answer to a query in wire form; `None` when no resolver answers.
    pub async fn ask(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        if self.now() < self.resting_until.load(Ordering::Relaxed) {
            return None;
        }
        for resolver in &self.resolvers {
            let exchange = async {
                if tcp {
                    over_tcp(*resolver, query).await
                } else {
                    over_udp(*resolver, query).await
                }
            };
            match timeout(PATIENCE, exchange).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "resolver failed"),
                Err(_) => tracing::debug!(%resolver, "resolver did not answer"),
            }
        }
        let rest = u64::try_from(REST.as_millis()).unwrap_or(0);
        self.resting_until
            .store(self.now() + rest, Ordering::Relaxed);
        None
    }
}

async fn over_udp(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let local: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(query).await?;
    let mut buf = vec![0; 4096];
    loop {
        let n = socket.recv(&mut buf).await?;
        if n >= 12 && query.len() >= 2 && buf[..2] == query[..2] {
            buf.truncate(n);
            return Ok(buf);
        }
    }
}

async fn over_tcp(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(query).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read() {
        let text = "# c\nsearch a b\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver x\n";
        let found: Vec<String> = parse_resolvers(text)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["10.0.0.2", "fe80::1"]);
    }

    #[tokio::test]
    async fn an_answer_comes_back_and_silence_is_remembered() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = Forwarder::new(vec![server.local_addr().unwrap()]);
        tokio::spawn(async move {
            let mut buf = [0; 64];
            let (n, from) = server.recv_from(&mut buf).await.unwrap();
            buf[2] = 0x81;
            server.send_to(&buf[..n], from).await.unwrap();
        });
        let query = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(forwarder.ask(&query, false).await.unwrap()[2], 0x81);
        // The server task has ended and its socket is closed: refused at once.
        assert_eq!(forwarder.ask(&query, false).await, None);
        assert!(forwarder.resting_until.load(Ordering::Relaxed) > 0);
    }
}
