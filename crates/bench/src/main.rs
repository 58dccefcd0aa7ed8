//! The bench: started by `cargo xtask bench`, which builds the programs and tells where they are.

mod ads;
mod config;
mod contestant;
mod floor;
mod load;
mod options;
mod pki;
mod report;
mod scenario;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use contestant::{Program, Programs};
use options::{HELP, Options};
use report::Report;

/// The core of the driver.
const DRIVER_CORE: usize = 1;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        Some("floor") => run_floor(&args),
        _ => match Options::parse(&args) {
            Ok(options) => bench(&options),
            Err(why) => {
                eprintln!("bench: {why}\n\n{HELP}");
                return ExitCode::from(64);
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_floor(args: &[String]) -> anyhow::Result<()> {
    let address = |at: usize| {
        args.get(at)
            .context("an address")?
            .parse()
            .context("an address")
    };
    floor::run(address(1)?, address(2)?)
}

fn bench(options: &Options) -> anyhow::Result<()> {
    if let Some(text) = &options.say {
        println!("{text}");
        return Ok(());
    }
    let older = std::fs::read_to_string(&options.json).ok();
    let older = older.and_then(|text| Report::from_json(&serde_json::from_str(&text).ok()?));
    let report = if options.from_json {
        older.context("no figures in the JSON")?
    } else {
        measured(options, older.unwrap_or_default())?
    };
    let tables = report.tables();
    println!("{tables}");
    if let Some(page) = &options.docs {
        let lacking = lacking(&report);
        if !lacking.is_empty() {
            bail!("the page is written from one whole run of one build; it lacks {lacking}");
        }
        std::fs::write(page, document(&report, &tables)).context("writing the page")?;
    }
    Ok(())
}

/// What a report lacks of a whole run.
fn lacking(report: &Report) -> String {
    let there = |name: &str| report.figures.iter().any(|f| f.scenario == name);
    let all = scenario::SCENARIOS.iter().map(|s| s.name);
    let mut lacking: Vec<&str> = all.filter(|name| !there(name)).collect();
    if report
        .about
        .get(SETTINGS)
        .is_none_or(|text| text.starts_with("quick"))
    {
        lacking.push("the full length of its rounds");
    }
    lacking.join(", ")
}

/// Figures of another build or of other settings do not stand beside new ones.
const SAME: [&str; 4] = [COMMIT, PROGRAM, SETTINGS, "machine"];
const COMMIT: &str = "commit";
const PROGRAM: &str = "program";
const SETTINGS: &str = "settings";

/// Measures what was asked for. What is there is kept after each scenario: a long run that is broken
/// off has not been for nothing.
fn measured(options: &Options, older: Report) -> anyhow::Result<Report> {
    let programs = Programs {
        lateen: options.lateen.clone(),
        envoy: options.envoy.clone(),
        haproxy: find("haproxy"),
        nginx: find("nginx"),
    };
    for program in [Program::Envoy, Program::Haproxy, Program::Nginx] {
        if let Err(package) = programs.find(program) {
            eprintln!("MISSING: {program:?}; it comes with {package}");
        }
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // Before any thread starts: they all stay on this core.
    let mut own = CpuSet::new();
    own.set(DRIVER_CORE)?;
    let here = nix::unistd::Pid::from_raw(0);
    sched_setaffinity(here, &own).context("the bench needs two cores")?;
    let folder = tempfile::tempdir()?;
    let place = options.keep.clone();
    let place = place.unwrap_or_else(|| folder.path().to_owned());
    std::fs::create_dir_all(&place).context("making the folder for --keep")?;
    let mut bed = scenario::Bed::new(options, &programs, place)?;
    let all = [
        ("lateen", Program::Lateen),
        ("Envoy", Program::Envoy),
        ("HAProxy", Program::Haproxy),
        ("nginx", Program::Nginx),
    ];
    let about = &mut bed.report.about;
    for (name, program) in all {
        about.insert(name.to_owned(), programs.version(program));
    }
    about.insert("machine".to_owned(), machine());
    let folder = options.lateen.parent().and_then(Path::file_name);
    let profile = folder.map(|name| name.to_string_lossy().into_owned());
    about.insert("profile".to_owned(), profile.unwrap_or_default());
    about.insert("day".to_owned(), day());
    about.insert(COMMIT.to_owned(), options.commit.clone());
    about.insert(PROGRAM.to_owned(), digest(&options.lateen)?);
    about.insert(SETTINGS.to_owned(), options.settings());
    let same = |key: &&str| older.about.get(*key) == bed.report.about.get(*key);
    let older = match SAME.iter().all(same) {
        true => older,
        false => Report::default(),
    };
    let mut report = older.clone();
    for scenario in scenario::SCENARIOS {
        if options.wants(scenario.name) {
            bed.run(scenario);
            report = bed.report.clone().over(older.clone());
            let text = serde_json::to_string_pretty(&report.to_json())?;
            std::fs::write(&options.json, text + "\n").context("writing the JSON")?;
        }
    }
    Ok(report)
}

/// What tells one build from another: the program's length and a hash of its bytes.
fn digest(program: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(program).context("reading the program")?;
    let fold = |hash: u64, chunk: &[u8]| {
        let mut word = [0; 8];
        word.iter_mut()
            .zip(chunk)
            .for_each(|(to, from)| *to = *from);
        (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let hash = bytes.chunks(8).fold(0, fold);
    Ok(format!("{} bytes {hash:016x}", bytes.len()))
}

/// Where a program is.
fn find(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join(name));
    places.find(|path| path.is_file())
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names: Vec<&str> = cpu
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} x {}, Linux {}",
        names.len(),
        names.first().unwrap_or(&"an unknown processor"),
        kernel.trim()
    )
}

fn day() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// The page in docs/.
fn document(report: &Report, tables: &str) -> String {
    let about: Vec<String> = report
        .about
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    format!(
        "# Bench\n\nWritten by `cargo xtask bench --docs`; do not edit. {}.\n\n\
         Every proxy has one worker on core 0; clients and backend, one loop, are on core 1. CPU is \
         user and system time of the proxy's process over a counted number of requests. Rounds are \
         interleaved; a cell is the median with its ends, a ratio is taken round by round. `floor` \
         is a loop that does the four system calls a proxied request needs and nothing else; where \
         it spreads over 25 % the scenario is void. `lateen` and `envoy` run a sidecar's chain over \
         1,000 services: two RBAC filters, fault, cors, gRPC counts, request id, tracing decision; \
         `lateen` also Istio's metadata exchange, ALPN and metrics, which Envoy's own build lacks. \
         Absolute figures move with the machine; ratios \
         and instructions hold. Where `% of its core` is far below 100 other work was on the machine and \
         the load saturated nobody.\n\n{tables}",
        about.join(", ")
    )
}
