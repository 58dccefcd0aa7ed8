//! The figures of docs/figures.md, measured on a built release binary: start to a page, resident
//! memory, time from `kubectl apply` to the first request that follows it, pages per second.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A proxy gives the pages of its start back 5 s after the last change of its configuration.
const AT_REST: Duration = Duration::from_secs(10);

/// Clients that load pages at once.
const CLIENTS: usize = 8;

/// Measures and prints one table row a figure. `--changes N` sets how many changes are timed,
/// `--program FILE` measures that build instead of making a release build first.
pub fn measure(args: &[String]) -> anyhow::Result<()> {
    let changes = match flag(args, "--changes") {
        Some(text) => text.parse().context("--changes wants a number")?,
        None => 50,
    };
    let program = match flag(args, "--program") {
        Some(file) => PathBuf::from(file),
        None => release()?,
    };
    let home = std::env::temp_dir().join(format!("lateen-figures-{}", std::process::id()));
    let mut mesh = Mesh::start(&program, &home)?;
    let outcome = mesh.figures(changes);
    mesh.stop();
    // A folder of the system's temporary ones: left behind it costs nothing but space.
    let _ = std::fs::remove_dir_all(&home);
    outcome
}

fn flag<'a>(args: &'a [String], name: &str) -> Option<&'a String> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1)
}

fn release() -> anyhow::Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "lateen"])
        .current_dir(crate::tools::root())
        .status()?;
    if !status.success() {
        bail!("the release build failed");
    }
    Ok(crate::tools::target().join("release/lateen"))
}

struct Mesh {
    child: Child,
    home: PathBuf,
    gateway: String,
    started: Duration,
}

impl Mesh {
    fn start(program: &Path, home: &Path) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut child = Command::new(program)
            .args(["up", "--demo", "bookinfo", "--api-port", "0"])
            .env("LATEEN_HOME", home)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .stdin(Stdio::null())
            .spawn()
            .context("starting lateen")?;
        let out = child.stdout.take().context("its output")?;
        let mut lines = BufReader::new(out).lines();
        let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let word = line
                .split_whitespace()
                .find(|word| word.ends_with("/productpage"))?;
            Some(
                word.trim_start_matches("http://")
                    .trim_end_matches("/productpage")
                    .to_owned(),
            )
        });
        let started = begun.elapsed();
        std::thread::spawn(move || lines.for_each(drop));
        let gateway = url.context("`up` printed no page's URL")?;
        Ok(Self {
            child,
            home: home.to_owned(),
            gateway,
            started,
        })
    }

    fn stop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }

    fn figures(&self, changes: usize) -> anyhow::Result<()> {
        println!("| figure | measured |\n|---|---|");
        println!(
            "| `up --demo bookinfo` to a page served | {:.1} s |",
            self.started.as_secs_f32()
        );
        std::thread::sleep(AT_REST);
        for _ in 0..200 {
            self.page()?;
        }
        self.memory("after 200 pages")?;
        let (whole, after) = self.changes(changes)?;
        println!(
            "| `kubectl apply` of a VirtualService to the first request that follows it, {changes} changes, kubectl's own run included | {} |",
            spread(whole)
        );
        println!(
            "| the same, counted from kubectl's return | {} |",
            spread(after)
        );
        let alone = self.pages_per_second(1)?;
        println!("| page loads through the ingress, one client | {alone:.0} a second |");
        let many = self.pages_per_second(CLIENTS)?;
        println!("| page loads through the ingress, {CLIENTS} clients | {many:.0} a second |");
        self.memory("after these loads")
    }

    /// Page loads a second by this many clients, each on a new connection a page, for ten seconds.
    fn pages_per_second(&self, clients: usize) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let load = || -> anyhow::Result<u32> {
            let mut pages = 0;
            while begun.elapsed() < Duration::from_secs(10) {
                if !self.page()?.starts_with("HTTP/1.1 200") {
                    bail!("a page was not served under load");
                }
                pages += 1;
            }
            Ok(pages)
        };
        let pages = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(load)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
                .sum::<anyhow::Result<u32>>()
        })?;
        Ok(f64::from(pages) / begun.elapsed().as_secs_f64())
    }

    /// Memory by role, of the processes that this mesh started. Resident counts each mapped page,
    /// so the program's own text, one copy for all, is in every process; private is what the
    /// process alone holds; the set splits a shared page among its users, so that the sum is what
    /// the machine really gives.
    fn memory(&self, when: &str) -> anyhow::Result<()> {
        let (mut control, mut sidecars, mut all) = (Memory::default(), Vec::new(), 0);
        for id in descendants(self.child.id())? {
            let folder = PathBuf::from(format!("/proc/{id}"));
            // A process may end between the listing and here.
            let (Ok(line), Ok(rollup)) = (
                std::fs::read(folder.join("cmdline")),
                std::fs::read_to_string(folder.join("smaps_rollup")),
            ) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let memory = Memory::read(&rollup);
            all += memory.share;
            if line.contains("discovery") {
                control = memory;
            } else if line.contains("proxy sidecar") {
                sidecars.push(memory);
            }
        }
        sidecars.sort_by_key(|memory| memory.resident);
        let middle = sidecars.get(sidecars.len() / 2).copied();
        println!("| memory {when}, control plane | {} |", control.text());
        println!(
            "| memory {when}, one sidecar (median of {}) | {} |",
            sidecars.len(),
            middle.unwrap_or_default().text()
        );
        println!(
            "| memory {when}, the whole set | {:.0} MB, shared pages counted once |",
            mb(all)
        );
        Ok(())
    }

    /// Flips reviews between v1 and v3 and times each flip to the first page that shows it: from
    /// kubectl's start, and from its return.
    fn changes(&self, count: usize) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
        self.kubectl(
            "apply -f samples/bookinfo/networking/destination-rule-all.yaml",
            "",
        )?;
        let mut times = (Vec::new(), Vec::new());
        for index in 0..=count {
            let (version, wanted) = if index % 2 == 0 {
                ("v3", true)
            } else {
                ("v1", false)
            };
            let yaml = format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {{host: reviews, subset: {version}}}\n"
            );
            let typed = Instant::now();
            self.kubectl("apply -f -", &yaml)?;
            let begun = Instant::now();
            while self.page()?.contains("color=\"red\"") != wanted {
                if begun.elapsed() > Duration::from_secs(10) {
                    bail!("a change was not followed in 10 s");
                }
            }
            // The first flip starts from three versions at once: it tells nothing.
            if index > 0 {
                times.0.push(typed.elapsed());
                times.1.push(begun.elapsed());
            }
        }
        Ok(times)
    }

    fn kubectl(&self, args: &str, input: &str) -> anyhow::Result<()> {
        let mut child = Command::new("kubectl")
            .args(args.split(' '))
            .env("KUBECONFIG", self.home.join("kubeconfig"))
            .current_dir(crate::tools::root())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        child
            .stdin
            .take()
            .context("its input")?
            .write_all(input.as_bytes())?;
        if !child.wait()?.success() {
            bail!("kubectl {args} failed");
        }
        Ok(())
    }

    fn page(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.gateway)?;
        let request = format!(
            "GET /productpage HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.gateway
        );
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// What the kernel says of a process's memory, in KiB.
#[derive(Clone, Copy, Default)]
struct Memory {
    resident: u64,
    private: u64,
    share: u64,
}

impl Memory {
    fn read(rollup: &str) -> Self {
        let field = |name: &str| -> u64 {
            let row = rollup.lines().find(|row| row.starts_with(name));
            row.and_then(|row| row.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or(0)
        };
        Self {
            resident: field("Rss:"),
            private: field("Private_Clean:") + field("Private_Dirty:"),
            share: field("Pss:"),
        }
    }

    fn text(self) -> String {
        format!(
            "{:.1} MB resident, of it {:.1} MB private",
            mb(self.resident),
            mb(self.private)
        )
    }
}

fn mb(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The median and the 99th percentile of some durations.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| {
        let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        times.get(index).map_or(0, Duration::as_millis)
    };
    format!("median {} ms, p99 {} ms", at(0.5), at(0.99))
}

/// A process and all that descend from it: the pods of a cluster are children of its process.
fn descendants(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if let Some(parent) = parent.and_then(|text| text.trim().parse::<u32>().ok()) {
            parents.push((id, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        found.extend(parents.iter().filter(|(_, p)| *p == of).map(|(id, _)| *id));
        next += 1;
    }
    Ok(found)
}
