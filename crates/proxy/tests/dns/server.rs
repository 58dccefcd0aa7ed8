//! A name server of the test's own: what it says of a name changes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

/// What it says of a name.
#[derive(Clone)]
pub enum Says {
    /// These addresses, to be kept so many seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// The same, over TCP only.
    OverTcp(Vec<Ipv4Addr>),
    /// No such name.
    NoName,
    /// Its failure.
    Failure,
}

#[derive(Default)]
struct Shared {
    says: BTreeMap<String, Says>,
    asked: BTreeMap<String, usize>,
}

/// A running server; it ends with the process.
#[derive(Clone, Default)]
pub struct NameServer(Arc<Mutex<Shared>>);

impl NameServer {
    pub fn start(address: SocketAddr) -> Self {
        let server = Self::default();
        let (udp, tcp) = (
            UdpSocket::bind(address).unwrap(),
            TcpListener::bind(address).unwrap(),
        );
        let of = server.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((count, from)) = udp.recv_from(&mut bytes) {
                if let Some(answer) = of.answer(&bytes[..count], false) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let of = server.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let of = of.clone();
                std::thread::spawn(move || {
                    let mut stream = stream.ok()?;
                    loop {
                        let mut length = [0; 2];
                        stream.read_exact(&mut length).ok()?;
                        let mut question = vec![0; u16::from_be_bytes(length).into()];
                        stream.read_exact(&mut question).ok()?;
                        let answer = of.answer(&question, true)?;
                        let length = u16::try_from(answer.len()).ok()?;
                        stream.write_all(&length.to_be_bytes()).ok()?;
                        stream.write_all(&answer).ok()?;
                    }
                    #[expect(unreachable_code, reason = "says what the closure returns")]
                    Some(())
                });
            }
        });
        server
    }

    /// Says so from now on.
    pub fn says(&self, name: &str, what: Says) {
        let mut shared = self.0.lock().unwrap();
        shared.says.insert(name.to_owned(), what);
    }

    /// How often it was asked for a name.
    pub fn asked(&self, name: &str) -> usize {
        let shared = self.0.lock().unwrap();
        shared.asked.get(name).copied().unwrap_or(0)
    }

    fn answer(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let mut at = 12;
        let mut labels = Vec::new();
        while *question.get(at)? > 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8(question.get(at + 1..end)?.to_vec()).ok()?);
            at = end;
        }
        let end = at + 5;
        let name = labels.join(".").to_lowercase();
        let v4 = question.get(at + 1..at + 3)? == [0, 1];
        let mut shared = self.0.lock().unwrap();
        *shared.asked.entry(name.clone()).or_default() += 1;
        let says = shared.says.get(&name).cloned().unwrap_or(Says::NoName);
        drop(shared);
        let (code, addresses, ttl) = match says {
            Says::Addresses(list, ttl) => (0, list, ttl),
            Says::OverTcp(list) if tcp => (0, list, 0),
            Says::OverTcp(_) => (0, Vec::new(), 0),
            Says::NoName => (3, Vec::new(), 0),
            Says::Failure => (2, Vec::new(), 0),
        };
        let cut = matches!(
            self.0.lock().unwrap().says.get(&name),
            Some(Says::OverTcp(_))
        ) && !tcp;
        let addresses = if v4 { addresses } else { Vec::new() };
        let mut out = question.get(..end)?.to_vec();
        out[2] = 0x81 | u8::from(cut) << 1;
        out[3] = 0x80 | code;
        let counts = [1, u16::try_from(addresses.len()).ok()?, 0, 0];
        for (place, count) in counts.iter().enumerate() {
            out[4 + 2 * place..6 + 2 * place].copy_from_slice(&count.to_be_bytes());
        }
        for address in addresses {
            out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
            out.extend_from_slice(&ttl.to_be_bytes());
            out.extend_from_slice(&[0, 4]);
            out.extend_from_slice(&address.octets());
        }
        Some(out)
    }
}
