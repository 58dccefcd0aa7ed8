//! What this machine says of names: the hosts file and `resolv.conf(5)`. They are kept as read,
//! and read again when they changed: a look-up costs their stamps.

use std::cell::RefCell;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hashbrown::HashMap;

const HOSTS: &str = "/etc/hosts";
const CONFIG: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// Longest file that is read; what is behind is not seen.
const LONGEST: u64 = 16 << 20;
/// A file that changed so lately may change once more within the clock's grain, unseen.
const SETTLED: Duration = Duration::from_secs(2);

thread_local! {
    static FILES: RefCell<(File<Hosts>, File<Machine>)> = RefCell::new((
        File::new(HOSTS, Hosts::parse),
        File::new(CONFIG, Machine::parse),
    ));
}

/// What the machine says now.
pub(super) fn now() -> (Rc<Hosts>, Rc<Machine>) {
    FILES.with_borrow_mut(|(hosts, machine)| (hosts.now(), machine.now()))
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None where there is no file, or where it changed just now.
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        let age = SystemTime::now().duration_since(about.modified().ok()?);
        let settled = age.is_ok_and(|age| age >= SETTLED);
        settled.then(|| Self {
            inode: about.ino(),
            length: about.len(),
            changed: (about.mtime(), about.mtime_nsec()),
        })
    }
}

/// A file and what it says.
struct File<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    kept: Option<(Stamp, Rc<T>)>,
}

impl<T> File<T> {
    fn new(path: impl Into<PathBuf>, parse: fn(&str) -> T) -> Self {
        Self {
            path: path.into(),
            parse,
            kept: None,
        }
    }

    /// What it says now; one that cannot be read says nothing.
    fn now(&mut self) -> Rc<T> {
        // Before it is read: what changes meanwhile is read the next time.
        let stamp = Stamp::of(&self.path);
        if let (Some(stamp), Some((kept, value))) = (stamp, &self.kept)
            && stamp == *kept
        {
            return value.clone();
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&self.path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
        if let Err(error) = read {
            let path = self.path.display();
            tracing::debug!(target: crate::logger::DNS, %path, %error, "names of this machine");
            bytes.clear();
        }
        let value = Rc::new((self.parse)(&String::from_utf8_lossy(&bytes)));
        self.kept = stamp.map(|stamp| (stamp, value.clone()));
        value
    }
}

/// The hosts file: addresses by name in small letters, in the file's order.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    fn parse(text: &str) -> Self {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse().ok()) else {
                continue;
            };
            for name in words {
                let known = names.entry(name.to_ascii_lowercase()).or_default();
                if known.last() != Some(&ip) {
                    known.push(ip);
                }
            }
        }
        Self(names)
    }

    /// The addresses of a name. `localhost` needs no line (RFC 6761 section 6.3).
    pub(super) fn of(&self, name: &str) -> Vec<IpAddr> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match self.0.get(&name) {
            Some(known) => known.clone(),
            None if name == "localhost" => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            None => Vec::new(),
        }
    }
}

/// What the machine says of resolving (`resolv.conf(5)`).
#[derive(Debug, PartialEq)]
pub(super) struct Machine {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Machine {
    fn parse(text: &str) -> Self {
        let mut machine = Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|w| w.parse::<IpAddr>().ok());
                    machine
                        .servers
                        .extend(ip.map(|ip| SocketAddr::new(ip, PORT)));
                }
                Some("search" | "domain") => {
                    machine.search = words.map(str::to_owned).collect();
                }
                Some("options") => {
                    let mut dots = words.filter_map(|w| w.strip_prefix("ndots:")?.parse().ok());
                    machine.dots = dots.next_back().unwrap_or(machine.dots);
                }
                _ => {}
            }
        }
        machine
    }

    /// The names to try for one that was written.
    pub(super) fn names(&self, name: &str, search: bool) -> Vec<String> {
        if name.ends_with('.') || !search {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|s| format!("{name}.{s}")).collect();
        let own = match name.matches('.').count() >= self.dots {
            true => 0,
            false => names.len(),
        };
        names.insert(own, name.to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_files() {
        let text = "# c\nnameserver 10.0.0.10\nnameserver ::1\nnameserver x\n\
            search a.svc b.svc ; c\noptions timeout:1 ndots:5\n";
        let machine = Machine::parse(text);
        assert_eq!(machine.servers.len(), 2);
        assert_eq!(
            machine.names("s.n", true),
            ["s.n.a.svc", "s.n.b.svc", "s.n"]
        );
        assert_eq!(machine.names("1.2.3.4.5.n", true)[0], "1.2.3.4.5.n");
        assert_eq!(machine.names("s.", true), ["s."]);
        assert_eq!(machine.names("s.n", false), ["s.n"]);
        let hosts = Hosts::parse("127.0.0.1 here db # x\n::1 DB\n10.0.0.1 other # db\nx db\n");
        assert_eq!(
            hosts.of("Db."),
            ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(hosts.of("localhost").len(), 2);
        assert!(hosts.of("x").is_empty());
    }

    #[test]
    fn a_file_is_read_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let mut file = File::new(&path, Hosts::parse);
        assert!(file.now().of("a").is_empty(), "there is none");
        let write = |text: &str, age: u64| {
            std::fs::write(&path, text).unwrap();
            let opened = std::fs::File::options().append(true).open(&path).unwrap();
            opened
                .set_modified(SystemTime::now() - Duration::from_secs(age))
                .unwrap();
        };
        write("10.0.0.1 a\n", 60);
        let first = file.now();
        assert_eq!(first.of("a").len(), 1);
        assert!(Rc::ptr_eq(&first, &file.now()), "as it was read");
        write("10.0.0.2 b\n", 30);
        let second = file.now();
        assert!(second.of("a").is_empty() && second.of("b").len() == 1);
        // Of what changed just now nobody knows whether it is all.
        write("10.0.0.3 c\n", 0);
        let third = file.now();
        assert_eq!(third.of("c").len(), 1);
        assert!(!Rc::ptr_eq(&third, &file.now()));
        std::fs::remove_file(&path).unwrap();
        assert!(file.now().of("c").is_empty());
    }
}
