//! Looks names up: the hosts file first, then the name servers of the cluster or
//! of the machine, over UDP and where that does not suffice over TCP. Unlike the
//! system's calls it tells how long an answer may be kept.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lateen_proxy_core::config::cluster::{DnsFamily, NameServers, Resolver};
use lateen_proxy_core::dns::{self, Answer, Family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::machine::{self, Machine};

/// Longest answer over UDP that is read.
const LONGEST: usize = 4096;
/// How long the system's answers may be kept, which do not say it (as in Envoy).
const SYSTEM_TTL: u32 = 60;

/// An address, and the seconds that it may be kept (0 = not said).
pub type Found = (IpAddr, u32);

/// The addresses of a name, in the order of the answer; none = it has none.
pub async fn addresses(
    name: &str,
    resolver: &Resolver,
    family: DnsFamily,
) -> io::Result<Vec<Found>> {
    if let Ok(ip) = name.parse() {
        return Ok(vec![(ip, 0)]);
    }
    let servers = match resolver {
        Resolver::System => return by_system(name, family).await,
        Resolver::Servers(servers) => servers,
    };
    let (hosts, machine) = machine::now();
    let known: Vec<Found> = hosts.of(name).into_iter().map(|ip| (ip, 0)).collect();
    let (first, then): (&[Family], &[Family]) = match family {
        DnsFamily::V4Only => (&[Family::V4], &[]),
        DnsFamily::V6Only => (&[Family::V6], &[]),
        DnsFamily::Auto => (&[Family::V6], &[Family::V4]),
        DnsFamily::V4Preferred => (&[Family::V4], &[Family::V6]),
        DnsFamily::All => (&[Family::V4, Family::V6], &[]),
    };
    let mut failure = None;
    for families in [first, then] {
        let mut found = Vec::new();
        for family in families {
            let listed = known
                .iter()
                .filter(|(ip, _)| ip.is_ipv4() == (*family == Family::V4));
            let before = found.len();
            found.extend(listed.copied());
            if found.len() > before || !known.is_empty() {
                continue;
            }
            match look_up(name, *family, servers, &machine).await {
                Ok(more) => found.extend(more),
                Err(error) => failure = Some(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    failure.map_or(Ok(Vec::new()), Err)
}

async fn by_system(name: &str, family: DnsFamily) -> io::Result<Vec<Found>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    let mut found: Vec<Found> = found.map(|a| (a.ip(), SYSTEM_TTL)).collect();
    found.dedup();
    let any = |v4: bool| found.iter().any(|(ip, _)| ip.is_ipv4() == v4);
    let keep = match family {
        DnsFamily::All => None,
        DnsFamily::V4Only => Some(true),
        DnsFamily::V6Only => Some(false),
        DnsFamily::Auto => Some(!any(false)),
        DnsFamily::V4Preferred => Some(any(true)),
    };
    found.retain(|(ip, _)| keep.is_none_or(|v4| ip.is_ipv4() == v4));
    Ok(found)
}

async fn look_up(
    name: &str,
    family: Family,
    config: &NameServers,
    machine: &Machine,
) -> io::Result<Vec<Found>> {
    let own = config.servers.is_empty() || config.as_fallback && !machine.servers.is_empty();
    let servers = match own {
        true => &machine.servers,
        false => &config.servers,
    };
    if servers.is_empty() {
        return Err(io::Error::other("no name server is known"));
    }
    for name in machine.names(name, config.search) {
        match ask(&name, family, servers, config).await? {
            Answer::Addresses(found) if !found.is_empty() => return Ok(found),
            _ => {}
        }
    }
    Ok(Vec::new())
}

/// Asks one server after another, and again.
async fn ask(
    name: &str,
    family: Family,
    servers: &[SocketAddr],
    config: &NameServers,
) -> io::Result<Answer> {
    let first = match config.rotate {
        true => fastrand::usize(..servers.len()),
        false => 0,
    };
    let mut failure = io::Error::other("nobody was asked");
    for attempt in 0..config.tries.max(1) as usize {
        for index in 0..servers.len() {
            let server = servers[(first + index) % servers.len()];
            let asked = exchange(server, name, family, config.tcp);
            match tokio::time::timeout(config.timeout, asked).await {
                Ok(Ok(Answer::Failed(code))) => {
                    failure = io::Error::other(format!("{server} answers with code {code}"));
                }
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(target: crate::logger::DNS, %server, name, attempt, %failure, "name server");
        }
    }
    Err(failure)
}

async fn exchange(server: SocketAddr, name: &str, family: Family, tcp: bool) -> io::Result<Answer> {
    let mut id = [0; 2];
    let random = aws_lc_rs::rand::fill(&mut id);
    random.map_err(|_| io::Error::other("no random numbers"))?;
    let question = dns::question(u16::from_be_bytes(id), name, family);
    let question = question.ok_or_else(|| io::Error::other("not a name"))?;
    if tcp {
        return over_tcp(server, &question).await;
    }
    let socket = udp_to(server, &question).await?;
    match heard(&socket, &question).await? {
        Ok(Answer::Truncated) => over_tcp(server, &question).await,
        Ok(answer) => Ok(answer),
        // What a server writes that cannot, or a forger who guessed the port. Over TCP both are
        // found out at once; the true answer over UDP still counts meanwhile.
        Err(error) => {
            tracing::debug!(target: crate::logger::DNS, %server, %error, "name server; asking over TCP");
            let over_udp = async {
                loop {
                    match heard(&socket, &question).await {
                        Ok(Err(_)) => {}
                        Ok(Ok(Answer::Truncated)) | Err(_) => return std::future::pending().await,
                        Ok(Ok(answer)) => return answer,
                    }
                }
            };
            tokio::select! {
                over_tcp = over_tcp(server, &question) => over_tcp,
                answer = over_udp => Ok(answer),
            }
        }
    }
}

/// A socket of its own for each question: its port is one more thing that a
/// forger has to guess (RFC 5452 section 4.5).
async fn udp_to(server: SocketAddr, question: &[u8]) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    Ok(socket)
}

/// What the next datagram from the server says to the question.
async fn heard(
    socket: &UdpSocket,
    question: &[u8],
) -> io::Result<Result<Answer, dns::NotAnAnswer>> {
    let mut bytes = vec![0; LONGEST];
    let count = socket.recv(&mut bytes).await?;
    Ok(dns::answer(question, &bytes[..count]))
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(question);
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    match dns::answer(question, &bytes).map_err(io::Error::other)? {
        Answer::Truncated => Err(io::Error::other("truncated over TCP")),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Duration;

    const NAME: &str = "a.test";

    /// The answer to a question: one address.
    fn answer_to(question: &[u8]) -> Vec<u8> {
        let mut answer = question.to_vec();
        (answer[2], answer[7]) = (0x81, 1);
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]);
        answer
    }

    /// What a server comes to that writes these datagrams to a question, and answers over TCP or
    /// ends such connections at once, or is not there.
    fn asked(datagrams: fn(&[u8]) -> Vec<Vec<u8>>, tcp: Option<bool>) -> io::Result<Answer> {
        let tcp_socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = tcp_socket.local_addr().unwrap();
        let udp = std::net::UdpSocket::bind(server).unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            let (count, from) = udp.recv_from(&mut question).unwrap();
            for datagram in datagrams(&question[..count]) {
                udp.send_to(&datagram, from).unwrap();
            }
        });
        if let Some(answers) = tcp {
            std::thread::spawn(move || {
                let (mut stream, _) = tcp_socket.accept().unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                if answers {
                    let answer = answer_to(&question);
                    let length = u16::try_from(answer.len()).unwrap();
                    stream.write_all(&length.to_be_bytes()).unwrap();
                    stream.write_all(&answer).unwrap();
                }
            });
        }
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            // The only limit: who waits for more words of the server waits as long.
            let asked = exchange(server, NAME, Family::V4, false);
            let asked = tokio::time::timeout(Duration::from_secs(20), asked);
            asked.await.expect("an end")
        })
    }

    fn cut(question: &[u8]) -> Vec<Vec<u8>> {
        let mut answer = answer_to(question);
        answer.truncate(answer.len() - 7);
        vec![answer]
    }

    fn noise(_: &[u8]) -> Vec<Vec<u8>> {
        vec![vec![0xa5; 300], Vec::new()]
    }

    fn forged_then_true(question: &[u8]) -> Vec<Vec<u8>> {
        let mut forged = answer_to(question);
        forged[0] ^= 1;
        *forged.last_mut().unwrap() = 66;
        vec![forged, answer_to(question)]
    }

    #[test]
    fn what_cannot_be_read_is_not_waited_out() {
        let found = Answer::Addresses(vec![(Ipv4Addr::new(10, 0, 0, 1).into(), 9)]);
        for datagrams in [cut, noise] {
            assert_eq!(asked(datagrams, Some(true)).unwrap(), found);
            // No answer is failure, and at once.
            asked(datagrams, Some(false)).unwrap_err();
        }
        assert_eq!(asked(forged_then_true, Some(true)).unwrap(), found);
        // Nobody takes the connection: the true answer counts that comes after a forged one.
        assert_eq!(asked(forged_then_true, None).unwrap(), found);
    }
}
