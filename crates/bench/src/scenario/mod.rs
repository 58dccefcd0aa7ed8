//! The scenarios of the bench and what they share: a bed with a driver, backends and certificates.

mod cost;
mod instructions;
mod latency;
mod matching;
mod memory;
mod scale;
mod stall;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Spec, path, service};
use crate::contestant::{ALL, Contestant, Program, Programs, Running, free_ports};
use crate::load::{Backend, Driver, Load, Protocol};
use crate::options::Options;
use crate::pki::Pki;
use crate::report::{Report, width};

/// Services of the sidecars' mesh.
const SERVICES: usize = 1000;
/// A run whose floor spreads over this share of its median says nothing.
const FLOOR_SPREAD: f64 = 0.25;

/// What a scenario measures, and where it stands.
pub struct Scenario {
    /// As `--only` calls it.
    pub name: &'static str,
    /// A sentence for the page.
    pub about: &'static str,
    run: fn(&mut Bed<'_>, &str) -> anyhow::Result<()>,
}

/// All of them in the order of the page.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "h1-100",
        about: "HTTP/1.1, an answer of 100 B, 64 connections, saturated. `envoy` and `lateen` with a sidecar's filters, metrics and 1,000 services.",
        run: cost::run,
    },
    Scenario {
        name: "h1-10k",
        about: "The same with an answer of 10 KiB.",
        run: cost::run,
    },
    Scenario {
        name: "h1-log",
        about: "The same as h1-100 with an access log (Istio's format; HAProxy and nginx their own).",
        run: cost::run,
    },
    Scenario {
        name: "h2-8x16",
        about: "HTTP/2 from clients, 8 connections of 16 streams, HTTP/1.1 to the backend.",
        run: cost::run,
    },
    Scenario {
        name: "h2-64x1",
        about: "HTTP/2 from clients, 64 connections of one stream.",
        run: cost::run,
    },
    Scenario {
        name: "mtls-down",
        about: "Mutual TLS from clients, HTTP/1.1, 100 B, 64 connections.",
        run: cost::run,
    },
    Scenario {
        name: "mtls-up",
        about: "Mutual TLS to the backend, HTTP/1.1, 100 B, 64 connections.",
        run: cost::run,
    },
    Scenario {
        name: "mtls-new",
        about: "A new mutual TLS connection, no resumption, with one request.",
        run: cost::run,
    },
    Scenario {
        name: "tcp",
        about: "Plain TCP, 8 connections from the backend to clients.",
        run: cost::run,
    },
    Scenario {
        name: "latency",
        about: "Open loop, 1,000 requests a second over 8 connections. Latency counts from when a request was due, waiting for a free connection included; `direct` is without a proxy.",
        run: latency::run,
    },
    Scenario {
        name: "instructions",
        about: "User-mode instructions per HTTP/1.1 request by callgrind: the difference of two runs of different length, so that the start drops out.",
        run: instructions::run,
    },
    Scenario {
        name: "h2-instructions",
        about: "The same with HTTP/2 from clients, 16 connections of 4 streams.",
        run: instructions::http2,
    },
    Scenario {
        name: "matching",
        about: "HTTP/1.1, 100 B, 64 connections, the last of 10 and of 10,000 routes of one virtual host matches (HAProxy: lines of a map; nginx: locations).",
        run: matching::run,
    },
    Scenario {
        name: "matching-instructions",
        about: "User-mode instructions per request where the last of 10 and of 10,000 routes of one virtual host matches.",
        run: instructions::matching,
    },
    Scenario {
        name: "memory",
        about: "Resident memory: empty, and what each service (its cluster, host names and route; HAProxy: a backend and lines of a map, nginx: an upstream and a server), endpoint and idle connection adds.",
        run: memory::run,
    },
    Scenario {
        name: "scale-1000",
        about: "1,000 services (a cluster and a virtual host each) from a file and from a management server: CPU and time until the last one serves, CPU until an unchanged resend is acknowledged, until a change of all is.",
        run: scale::run,
    },
    Scenario {
        name: "scale-5000",
        about: "The same with 5,000 services.",
        run: scale::run,
    },
    Scenario {
        name: "stall",
        about: "Latency of 1,000 requests a second over 8 connections while a management server changes all of 5,000 clusters, until 0.7 s after the acknowledgement; and before that. Time in which the driver did not run is taken off.",
        run: stall::run,
    },
];

/// The sentence of a scenario.
pub fn about(name: &str) -> &'static str {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    found.map_or("", |scenario| scenario.about)
}

/// What all scenarios use.
pub struct Bed<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// Where the programs are.
    pub programs: &'a Programs,
    /// Certificates.
    pub pki: Pki,
    /// The loop.
    pub driver: Driver,
    /// Where the results go.
    pub report: Report,
    folder: PathBuf,
    count: usize,
    small: SocketAddr,
    large: SocketAddr,
    tls: SocketAddr,
    source: SocketAddr,
}

impl<'a> Bed<'a> {
    /// A bed whose files are in this folder.
    ///
    /// # Errors
    /// When sockets or certificates cannot be had.
    pub fn new(
        options: &'a Options,
        programs: &'a Programs,
        folder: PathBuf,
    ) -> anyhow::Result<Self> {
        let pki = Pki::new(&folder)?;
        let mut driver = Driver::new()?;
        let answer = |length: usize| -> Backend {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: bench\r\nContent-Length: {length}\r\n\r\n"
            );
            Backend::Answer(Rc::from([head.as_bytes(), &vec![b'x'; length]].concat()))
        };
        Ok(Self {
            options,
            programs,
            small: driver.backend(answer(100), None)?,
            large: driver.backend(answer(10 * 1024), None)?,
            tls: driver.backend(answer(100), Some(pki.server.clone()))?,
            source: driver.backend(Backend::Source, None)?,
            pki,
            driver,
            report: Report::default(),
            folder,
            count: 0,
        })
    }

    /// Runs a scenario; a failure is noted and the others go on.
    pub fn run(&mut self, scenario: &Scenario) {
        eprintln!("== {}", scenario.name);
        if let Err(error) = (scenario.run)(self, scenario.name) {
            eprintln!("{}: {error:#}", scenario.name);
            self.report
                .failed
                .push(format!("{}: {error:#}", scenario.name));
        }
        self.driver.close();
    }

    /// Those of the names that take part and are there.
    pub fn contestants(&self, names: &[&str]) -> Vec<Contestant> {
        let wanted = |c: &&Contestant| {
            let asked = &self.options.peers;
            let base =
                |name: &str| name.trim_end_matches("-bare") == c.name.trim_end_matches("-bare");
            let always = matches!(c.program, Program::Floor | Program::Direct);
            names.contains(&c.name)
                && (asked.is_empty() || always || asked.iter().any(|name| base(name)))
                && self.programs.find(c.program).is_ok()
        };
        ALL.iter().filter(wanted).copied().collect()
    }

    /// What a contestant is told in the plain case: HTTP/1.1 to the small answer.
    ///
    /// # Errors
    /// When no port is free.
    pub fn spec(&mut self, contestant: Contestant) -> anyhow::Result<Spec> {
        self.count += 1;
        let ports = free_ports(2)?;
        let port = |index: usize| ports.get(index).copied().context("a port");
        Ok(Spec {
            listen: ([127, 0, 0, 1], port(0)?).into(),
            admin: port(1)?,
            backend: self.small,
            tls_down: false,
            tls_up: false,
            http2: false,
            tcp: false,
            sidecar: contestant.sidecar,
            istio: contestant.sidecar && contestant.program == Program::Lateen,
            log: None,
            services: if contestant.sidecar { SERVICES } else { 1 },
            routes: 1,
            endpoints: 1,
            ads: None,
            folder: self
                .folder
                .join(format!("{}-{}", self.count, contestant.name)),
        })
    }

    /// The plain load for a contestant.
    pub fn load(&self, running: &Running) -> Load {
        let spec = &running.spec;
        Load {
            target: running.target(),
            protocol: if spec.tcp {
                Protocol::Tcp
            } else {
                Protocol::Http1
            },
            connections: 64,
            tls: spec.tls_down.then(|| self.pki.client.clone()),
            host: service(spec.services - 1),
            path: path(spec.routes),
            fresh: false,
        }
    }

    /// Starts a contestant and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self, contestant: Contestant, spec: Spec) -> anyhow::Result<Running> {
        let mut running = Running::start(self.programs, contestant, spec, &self.pki, &[])?;
        let mut load = self.load(&running);
        if running.spec.http2 {
            load.protocol = Protocol::Http2(1);
        }
        running.wait_ready(&mut self.driver, &load)?;
        Ok(running)
    }

    /// How long one measurement of a load lasts.
    pub fn slice(&self) -> Duration {
        self.options.slice
    }

    /// Notes a scenario as void where its floor wobbled.
    fn judge(&mut self, scenario: &str, metric: &str) {
        let Some(floor) = self.report.values(scenario, metric, "floor") else {
            return;
        };
        let width = width(floor);
        if floor.len() > 1 && width > FLOOR_SPREAD {
            let why = format!(
                "the floor itself spread over {:.0} % of its median",
                width * 100.0
            );
            eprintln!("{scenario}: void: {why}");
            self.report.void.insert(scenario.to_owned(), why);
        }
    }
}
