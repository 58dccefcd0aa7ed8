//! The figures of docs/figures.md, measured on a built release binary: start to a page, resident
//! memory, time from `kubectl apply` to the first request that follows it, pages per second.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Measures and prints one table row a figure. `--changes N` sets how many changes are timed.
pub fn measure(args: &[String]) -> anyhow::Result<()> {
    let changes = flag(args, "--changes").unwrap_or(50);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "lateen"])
        .current_dir(crate::tools::root())
        .status()?;
    if !status.success() {
        bail!("the release build failed");
    }
    let home = std::env::temp_dir().join(format!("lateen-figures-{}", std::process::id()));
    let mut mesh = Mesh::start(&home)?;
    let outcome = mesh.figures(changes);
    mesh.stop();
    // A folder of the system's temporary ones: left behind it costs nothing but space.
    let _ = std::fs::remove_dir_all(&home);
    outcome
}

fn flag(args: &[String], name: &str) -> Option<usize> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1)?.parse().ok()
}

struct Mesh {
    child: Child,
    home: PathBuf,
    gateway: String,
    started: Duration,
}

impl Mesh {
    fn start(home: &Path) -> anyhow::Result<Self> {
        let target = crate::tools::target();
        let begun = Instant::now();
        let mut child = Command::new(target.join("release/lateen"))
            .args(["up", "--demo", "bookinfo"])
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
        for _ in 0..200 {
            self.page()?;
        }
        self.memory()?;
        let mut times = self.changes(changes)?;
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        println!(
            "| `kubectl apply` of a VirtualService to the first request that follows it, after kubectl returned, {changes} changes | median {} ms, p99 {} ms |",
            at(0.5).as_millis(),
            at(0.99).as_millis()
        );
        let (begun, mut pages) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(10) {
            self.page()?;
            pages += 1;
        }
        let rate = f64::from(pages) / begun.elapsed().as_secs_f64();
        println!("| page loads through the ingress, one client | {rate:.0} a second |");
        Ok(())
    }

    /// Resident memory by role. A page shared by several processes is split among them (PSS), so
    /// the sum is what the machine really gives.
    fn memory(&self) -> anyhow::Result<()> {
        let (mut control, mut sidecars, mut all) = (0, Vec::new(), 0);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let path = entry.path();
            let Ok(line) = std::fs::read(path.join("cmdline")) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if !line.contains("lateen") && !line.contains("pilot-agent") {
                continue;
            }
            let Ok(rollup) = std::fs::read_to_string(path.join("smaps_rollup")) else {
                continue;
            };
            let field = |name: &str| -> u64 {
                let row = rollup.lines().find(|row| row.starts_with(name));
                row.and_then(|row| row.split_whitespace().nth(1)?.parse().ok())
                    .unwrap_or(0)
            };
            let (rss, pss) = (field("Rss:"), field("Pss:"));
            all += pss;
            if line.contains("control-plane") || line.contains("discovery") {
                control = control.max(rss);
            } else if line.contains("proxy sidecar") {
                sidecars.push(rss);
            }
        }
        sidecars.sort_unstable();
        let middle = sidecars.get(sidecars.len() / 2).copied().unwrap_or(0);
        let mb = |kib: u64| kib as f64 / 1024.0;
        println!("| resident, control plane | {:.1} MB |", mb(control));
        println!(
            "| resident, one sidecar (median of {}) | {:.1} MB |",
            sidecars.len(),
            mb(middle)
        );
        println!(
            "| the whole set, shared pages counted once | {:.0} MB |",
            mb(all)
        );
        Ok(())
    }

    /// Flips reviews between v1 and v3 and times each flip from kubectl's return to the first page
    /// that shows it.
    fn changes(&self, count: usize) -> anyhow::Result<Vec<Duration>> {
        self.kubectl(
            "apply -f samples/bookinfo/networking/destination-rule-all.yaml",
            "",
        )?;
        let mut times = Vec::new();
        for index in 0..=count {
            let (version, wanted) = if index % 2 == 0 {
                ("v3", true)
            } else {
                ("v1", false)
            };
            let yaml = format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {{host: reviews, subset: {version}}}\n"
            );
            self.kubectl("apply -f -", &yaml)?;
            let begun = Instant::now();
            while self.page()?.contains("color=\"red\"") != wanted {
                if begun.elapsed() > Duration::from_secs(10) {
                    bail!("a change was not followed in 10 s");
                }
            }
            // The first flip starts from three versions at once: it tells nothing.
            if index > 0 {
                times.push(begun.elapsed());
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
