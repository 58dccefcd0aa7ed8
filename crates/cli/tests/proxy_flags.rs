//! `lateen proxy` as Envoy's users start it: flags that name files, whose effect shows in them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BOOTSTRAP: &str = "\
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources: {}
";

struct Proxy {
    child: Child,
    folder: tempfile::TempDir,
}

impl Proxy {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("b.yaml"), BOOTSTRAP).expect("written");
        let child = command(folder.path(), flags).spawn().expect("started");
        Self { child, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file's text once it is as wanted.
    fn wait(&self, name: &str, wanted: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < until, "{name} stays {text:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended; waiting leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.args(["proxy", "-c", "b.yaml", "--concurrency", "1"]);
    command.args(flags).current_dir(folder);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn refused(flags: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("b.yaml"), BOOTSTRAP).expect("written");
    command(folder.path(), flags).output().expect("started")
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the admin port");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_admin_ports_address_is_written_down() {
    let proxy = Proxy::start(&["--admin-address-path", "admin"]);
    let address = proxy.wait("admin", |text| text.contains(':'));
    assert!(!address.ends_with(":0"), "{address}");
    // The port answers from the start; it is LIVE when the listeners are.
    let until = Instant::now() + Duration::from_secs(60);
    while !get(&address, "/ready").contains("LIVE") {
        assert!(Instant::now() < until, "never LIVE");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_log_goes_to_its_file_in_the_wanted_form() {
    let form = "%Y|%l|%n|%v|%t";
    let mut proxy = Proxy::start(&["--log-path", "log", "--log-format", form]);
    let log = proxy.wait("log", |text| text.contains("admin address"));
    let line = log.lines().find(|line| line.contains("admin address"));
    let fields: Vec<&str> = line.expect("the line").split('|').collect();
    let [year, level, _, message, thread] = fields[..] else {
        panic!("{log}");
    };
    assert!(year.parse::<u32>().is_ok_and(|year| year > 2000), "{log}");
    assert!(level == "info" && message.contains("127.0.0.1:"), "{log}");
    assert_eq!(thread, proxy.child.id().to_string(), "the main thread");

    // A rotation: what is said afterwards stands in the new file.
    std::fs::rename(proxy.file("log"), proxy.file("log.1")).expect("moved");
    proxy.signal(Signal::SIGUSR1);
    proxy.wait("log", |_| proxy.file("log").exists());
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.child.wait().expect("its end").success());
    proxy.wait("log", |text| text.contains("stopping"));
    let mut spoken = String::new();
    let stderr = proxy.child.stderr.take().expect("piped");
    std::io::BufReader::new(stderr)
        .read_to_string(&mut spoken)
        .expect("read");
    assert_eq!(spoken, "", "all of it is in the file");
}

#[test]
fn files_that_cannot_be_written_end_the_start() {
    for flag in ["--log-path", "--admin-address-path"] {
        let output = refused(&[flag, "/proc/nowhere/x"]);
        assert_eq!(output.status.code(), Some(1), "{flag}");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(
            why.contains(flag) && why.contains("/proc/nowhere/x"),
            "{why}"
        );
    }
}

#[test]
fn wrong_flags_end_the_start_as_envoy_does() {
    for flags in [
        ["--drain-strategy", "foo"],
        ["--stats-tag", "ab"],
        ["--local-address-ip-version", "v9"],
        ["--component-log-level", "nosuch:debug"],
        ["--component-log-level", "upstream"],
        ["-l", "loud"],
        ["--concurrency", "x"],
        ["--nosuch", "x"],
    ] {
        let output = refused(&flags);
        let why = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {why}");
        assert!(why.contains("rror"), "{flags:?}: {why}");
    }
}
