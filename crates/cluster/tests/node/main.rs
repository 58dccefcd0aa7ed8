//! Tests of the node agent against the real kernel: namespaces, mounts, rules. They need root.
//!
//! The binary has its own `main`, because pods re-execute it as their first process.

mod agent;
mod bed;
mod ends;
mod process;

use std::time::Duration;

type Test = (
    &'static str,
    fn() -> futures_util::future::BoxFuture<'static, ()>,
);

/// Longest time one test may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How long anything is waited for: a bound for a machine under load.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(lateen_cluster::node::process::entry::PAUSE) {
        lateen_cluster::node::process::entry::pause();
    }
    let hold = first.as_deref() == Some("hold");
    if first.as_deref() == Some("serve") {
        serve(&arguments.next().unwrap());
    }
    let filter: Vec<String> = first
        .into_iter()
        .chain(arguments)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: tests of the node agent need root");
        return;
    }
    let tests: Vec<Test> = [process::TESTS, agent::TESTS, ends::TESTS].concat();
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if hold {
        runtime.block_on(process::hold(filter[1].parse().unwrap()));
    }
    let mut failed = Vec::new();
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        let started = std::time::Instant::now();
        let outcome =
            runtime.block_on(async { tokio::time::timeout(LIMIT, tokio::spawn(test())).await });
        let ok = matches!(outcome, Ok(Ok(())));
        println!(
            "test {name} ... {} ({:?})",
            if ok { "ok" } else { "FAILED" },
            started.elapsed()
        );
        if !ok {
            failed.push(name);
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    if !failed.is_empty() {
        eprintln!("failed: {failed:?}");
        std::process::exit(1);
    }
}

/// A program for containers: answers every connection with the pod's name.
fn serve(port: &str) -> ! {
    let listener = std::net::TcpListener::bind(format!("[::]:{port}")).unwrap();
    let name = std::env::var("HOSTNAME").unwrap();
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{name}\n",
            name.len() + 1
        );
        let mut head = [0; 1024];
        // A probe connects and says nothing.
        drop(stream.set_read_timeout(Some(Duration::from_millis(100))));
        drop(std::io::Read::read(&mut stream, &mut head));
        drop(std::io::Write::write_all(&mut stream, answer.as_bytes()));
    }
}
