//! The small verbs of Istio's agent that hooks and people call inside a proxy's container:
//! `request` asks the proxy's own ports, `wait` blocks until the proxy is ready.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::exit::{FAILED, Failure, USAGE};
use crate::style;

#[derive(Debug, Parser)]
#[command(
    name = "lateen request",
    about = "Ask a port of this container's proxy"
)]
struct Request {
    /// The port
    #[arg(long, default_value_t = 15000)]
    debug_port: u16,
    /// HTTP method
    method: String,
    /// Path, such as stats or /config_dump
    path: String,
}

#[derive(Debug, Parser)]
#[command(
    name = "lateen wait",
    about = "Wait until this container's proxy is ready"
)]
struct Wait {
    /// What must answer 200
    #[arg(long, default_value = "http://localhost:15021/healthz/ready")]
    url: String,
    /// How long to wait, in seconds
    #[arg(long = "timeoutSeconds", default_value_t = 60)]
    timeout_seconds: u64,
    /// How long one question may take, in milliseconds
    #[arg(long = "requestTimeoutMillis", default_value_t = 500)]
    request_timeout_millis: u64,
    /// How long between questions, in milliseconds
    #[arg(long = "periodMillis", default_value_t = 500)]
    period_millis: u64,
}

/// `request METHOD PATH`.
pub fn request(args: &[String]) -> anyhow::Result<()> {
    let args = Request::try_parse_from(std::iter::once(&"request".to_owned()).chain(args))?;
    let path = format!("/{}", args.path.trim_start_matches('/'));
    let (status, body) = ask(
        "127.0.0.1",
        args.debug_port,
        &args.method,
        &path,
        Duration::from_secs(30),
    )?;
    style::print(&body)?;
    if !(200..300).contains(&status) {
        return Err(Failure::new(
            FAILED,
            format!("port {} answered {status}", args.debug_port),
        )
        .into());
    }
    Ok(())
}

/// `wait`.
pub fn wait(args: &[String]) -> anyhow::Result<()> {
    let args = Wait::try_parse_from(std::iter::once(&"wait".to_owned()).chain(args))?;
    let (host, port, path) = split(&args.url)?;
    let limit = Duration::from_secs(args.timeout_seconds);
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < limit {
        match ask(
            &host,
            port,
            "GET",
            &path,
            Duration::from_millis(args.request_timeout_millis),
        ) {
            Ok((200, _)) => return Ok(()),
            Ok((status, _)) => last = format!("status {status}"),
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(args.period_millis));
    }
    let why = format!(
        "{} was not ready in {} s ({last})",
        args.url, args.timeout_seconds
    );
    Err(Failure::new(FAILED, why).into())
}

fn split(url: &str) -> anyhow::Result<(String, u16, String)> {
    let bad = || Failure::new(USAGE, format!("\"{url}\" is not http://HOST:PORT/PATH"));
    let rest = url.strip_prefix("http://").ok_or_else(bad)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    Ok((
        host.to_owned(),
        port.parse().map_err(|_| bad())?,
        format!("/{path}"),
    ))
}

fn ask(
    host: &str,
    port: u16,
    method: &str,
    path: &str,
    limit: Duration,
) -> anyhow::Result<(u16, String)> {
    // The proxy's own ports answer on the IPv4 loopback; the name may lead to ::1 first.
    let host = if host == "localhost" {
        "127.0.0.1"
    } else {
        host
    };
    let address = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?.next();
    let address = address.ok_or_else(|| anyhow::anyhow!("{host} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let body = "Content-Length: 0\r\n";
    // In one piece: a peer may answer, and close, before the rest of several.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n{body}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| anyhow::anyhow!("port {port} does not speak HTTP"))?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Ok((
        status,
        if chunked {
            dechunk(body)
        } else {
            body.to_owned()
        },
    ))
}

/// The body of a chunked answer; what does not parse is left as it is.
fn dechunk(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        match usize::from_str_radix(size.trim(), 16) {
            Ok(0) => break,
            Ok(size) if rest.is_char_boundary(size.min(rest.len())) && size <= rest.len() => {
                out.push_str(&rest[..size]);
                text = rest[size..].trim_start_matches("\r\n");
            }
            _ => break,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of HTTP/1.1 that refuses what is older, as the proxy's own port does.
    #[test]
    fn the_health_port_is_asked_in_http_1_1() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut head = [0; 512];
            let n = stream.read(&mut head).expect("a request");
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let status = if head.contains(" HTTP/1.1\r\n") {
                200
            } else {
                426
            };
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").expect("written");
        });
        let answer = ask("localhost", port, "GET", "/", Duration::from_secs(5));
        assert_eq!(answer.expect("an answer").0, 200);
        server.join().expect("no panic");
    }

    #[test]
    fn urls_and_chunks_are_taken_apart() {
        let (host, port, path) = split("http://localhost:15021/healthz/ready").expect("a URL");
        assert_eq!(
            (host.as_str(), port, path.as_str()),
            ("localhost", 15021, "/healthz/ready")
        );
        assert!(split("https://x").is_err());
        assert_eq!(dechunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }
}
