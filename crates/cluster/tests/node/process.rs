//! The sandbox helper: namespaces, root file system, identity, exec, terminals, ends.

use futures_util::FutureExt;
use lateen_cluster::node::process::sandbox::{Process, Sandbox, StartError, Stdio};
use lateen_cluster::node::process::spec::{
    Identity, Launch, Mount, MountKind, RootSpec, SandboxSpec,
};
use lateen_cluster::node::runtime::ExitStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bed::{Bed, null, output_pipe};

pub const TESTS: &[crate::Test] = &[
    ("process_runs_in_its_own_root", || {
        runs_in_its_own_root().boxed()
    }),
    ("process_failures_are_told", || failures_are_told().boxed()),
    ("process_exec_joins_the_container", || {
        exec_joins_the_container().boxed()
    }),
    ("process_terminal", || terminal().boxed()),
    ("process_agent_killed", || agent_killed().boxed()),
    ("process_network", || network().boxed()),
];

fn launch(root: &str, argv: &[&str]) -> Launch {
    let bind = |path: &str| Mount {
        target: path.into(),
        kind: MountKind::Bind(path.into()),
        readonly: true,
    };
    Launch {
        root: Some(RootSpec {
            mountpoint: root.into(),
            dirs: vec![("/tmp".into(), 0o1777), ("/dev".into(), 0o755)],
            links: vec![
                ("/bin".into(), "usr/bin".into()),
                ("/sbin".into(), "usr/sbin".into()),
                ("/lib".into(), "usr/lib".into()),
                ("/lib64".into(), "usr/lib64".into()),
                ("/dev/ptmx".into(), "pts/ptmx".into()),
            ],
            files: vec![("/etc/hostname".into(), "pod-1\n".into(), 0o644)],
            mounts: vec![
                bind("/usr"),
                bind("/etc/alternatives"),
                Mount {
                    target: "/proc".into(),
                    kind: MountKind::Proc,
                    readonly: false,
                },
                Mount {
                    target: "/dev/pts".into(),
                    kind: MountKind::Devpts,
                    readonly: false,
                },
                Mount {
                    target: "/dev/null".into(),
                    kind: MountKind::Bind("/dev/null".into()),
                    readonly: false,
                },
            ],
            readonly_paths: vec!["/proc/sys".into()],
            masked: vec!["/proc/kcore".into()],
            readonly: false,
        }),
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: vec![
            ("PATH".into(), "/usr/bin:/usr/sbin".into()),
            ("X".into(), "1".into()),
        ],
        cwd: "/".into(),
        identity: Identity {
            capabilities: u64::MAX,
            ..Identity::default()
        },
        tty: false,
        group: None,
        share_pid: false,
    }
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        hostname: "pod-1".into(),
        ..SandboxSpec::default()
    }
}

async fn run(sandbox: &Sandbox, launch: &Launch) -> (String, ExitStatus) {
    let (mut out, write) = output_pipe();
    let stdio = Stdio::Fds([null(), write.try_clone().unwrap(), write]);
    let (process, _) = sandbox.run(launch, stdio).await.unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).await.unwrap();
    (text, process.ended().await)
}

fn mountpoint(bed: &Bed) -> String {
    let path = bed.state.path().join("root");
    std::fs::create_dir_all(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn runs_in_its_own_root() {
    let bed = Bed::open(1).await;
    let root = mountpoint(&bed);
    let sandbox = Sandbox::spawn(&bed.helper(), "default/pod-1", &spec())
        .await
        .unwrap();
    let script =
        "echo pid=$$ host=$(hostname) x=$X; ls /; ls /home 2>&1; id -u; touch /usr/x 2>&1; exit 3";
    let (text, status) = run(&sandbox, &launch(&root, &["sh", "-c", script])).await;
    assert!(text.starts_with("pid=1 host=pod-1 x=1\n"), "{text}");
    assert!(
        text.contains("etc\n") && !text.contains("lateen-host"),
        "{text}"
    );
    assert!(text.contains("Read-only file system"), "{text}");
    assert_eq!(status, ExitStatus::Code(3));

    let mut plain = launch(
        &root,
        &[
            "sh",
            "-c",
            "id; grep CapEff /proc/self/status; grep NoNew /proc/self/status",
        ],
    );
    plain.identity = Identity {
        uid: 1000,
        gid: 1000,
        groups: vec![5],
        no_new_privileges: true,
        ..Identity::default()
    };
    let (text, status) = run(&sandbox, &plain).await;
    assert!(text.contains("uid=1000 gid=1000 groups=1000,5"), "{text}");
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("NoNewPrivs:\t1"),
        "{text}"
    );
    assert_eq!(status, ExitStatus::Code(0));

    let mut few = launch(&root, &["grep", "Cap", "/proc/self/status"]);
    few.identity.capabilities = 1 << 12;
    let (text, _) = run(&sandbox, &few).await;
    assert!(
        text.contains("CapEff:\t0000000000001000") && text.contains("CapBnd:\t0000000000001000"),
        "{text}"
    );

    let pid = sandbox.pid();
    sandbox.destroy().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    bed.close().await;
}

async fn failures_are_told() {
    let bed = Bed::open(2).await;
    let root = mountpoint(&bed);
    let sandbox = Sandbox::spawn(&bed.helper(), "default/pod-1", &spec())
        .await
        .unwrap();
    let stdio = || Stdio::Fds([null(), null(), null()]);
    let refused = |error: StartError| match error {
        StartError::Refused { code, message } => (code, message),
        other => panic!("{other:?}"),
    };
    let error = sandbox
        .run(&launch(&root, &["nothing-here"]), stdio())
        .await
        .unwrap_err();
    assert_eq!(
        refused(error),
        (
            127,
            "exec: \"nothing-here\": executable file not found in $PATH".into()
        )
    );
    let error = sandbox
        .run(&launch(&root, &["/etc/hostname"]), stdio())
        .await
        .unwrap_err();
    assert_eq!(
        refused(error),
        (126, "exec: \"/etc/hostname\": permission denied".into())
    );
    let mut broken = launch(&root, &["true"]);
    broken.root.as_mut().unwrap().mounts.push(Mount {
        target: "/x".into(),
        kind: MountKind::Bind("/does/not/exist".into()),
        readonly: false,
    });
    let (code, message) = refused(sandbox.run(&broken, stdio()).await.unwrap_err());
    assert_eq!(code, 128);
    assert!(message.starts_with("mount /x: No such file"), "{message}");
    sandbox.destroy().await;
    let error = sandbox
        .run(&launch(&root, &["true"]), stdio())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Gone));
    bed.close().await;
}

async fn start(sandbox: &Sandbox, launch: &Launch) -> Process {
    sandbox
        .run(launch, Stdio::Fds([null(), null(), null()]))
        .await
        .unwrap()
        .0
}

async fn exec_joins_the_container() {
    let bed = Bed::open(3).await;
    let root = mountpoint(&bed);
    let sandbox = Sandbox::spawn(&bed.helper(), "default/pod-1", &spec())
        .await
        .unwrap();
    let main = start(&sandbox, &launch(&root, &["sleep", "1000"])).await;
    let mut inner = launch(
        &root,
        &[
            "sh",
            "-c",
            "cat /etc/hostname; read -r line < /proc/1/cmdline; echo $line; cat; exit 4",
        ],
    );
    inner.root = None;
    let (mut out, write) = output_pipe();
    let (input, mut feed) = std::io::pipe().unwrap();
    let stdio = Stdio::Fds([input.into(), write.try_clone().unwrap(), write]);
    let (process, _) = sandbox.exec(&main, &inner, stdio).await.unwrap();
    std::io::Write::write_all(&mut feed, b"fed\n").unwrap();
    drop(feed);
    let mut text = String::new();
    out.read_to_string(&mut text).await.unwrap();
    assert!(
        text.starts_with("pod-1\nsleep") && text.ends_with("fed\n"),
        "{text:?}"
    );
    assert_eq!(process.ended().await, ExitStatus::Code(4));
    // A second program ends with the container.
    inner.argv = vec!["sleep".into(), "1000".into()];
    let (second, _) = sandbox
        .exec(&main, &inner, Stdio::Fds([null(), null(), null()]))
        .await
        .unwrap();
    sandbox.signal(&main, libc::SIGKILL, false).await.unwrap();
    assert_eq!(main.ended().await, ExitStatus::Signal(9));
    assert_eq!(second.ended().await, ExitStatus::Signal(9));
    let error = sandbox
        .exec(&main, &inner, Stdio::Fds([null(), null(), null()]))
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Refused { .. }));
    sandbox.destroy().await;
    bed.close().await;
}

async fn terminal() {
    let bed = Bed::open(4).await;
    let root = mountpoint(&bed);
    let sandbox = Sandbox::spawn(&bed.helper(), "default/pod-1", &spec())
        .await
        .unwrap();
    let mut shell = launch(
        &root,
        &["sh", "-c", "tty; read line; echo got $line; stty size"],
    );
    shell.tty = true;
    let (process, terminal) = sandbox.run(&shell, Stdio::Terminal).await.unwrap();
    let mut terminal = terminal.unwrap();
    terminal.resize(91, 31).unwrap();
    terminal.write_all(b"hello\n").await.unwrap();
    let mut text = String::new();
    terminal.read_to_string(&mut text).await.unwrap();
    assert!(
        text.contains("/dev/pts/0") && text.contains("got hello") && text.contains("31 91"),
        "{text:?}"
    );
    assert_eq!(process.ended().await, ExitStatus::Code(0));
    sandbox.destroy().await;
    bed.close().await;
}

/// Holds a network with one running pod until it is killed; run as a program of its own.
pub async fn hold(number: u8) {
    let bed = Bed::open(number).await;
    let root = mountpoint(&bed);
    let sandbox = Sandbox::spawn(&bed.helper(), "default/held", &spec())
        .await
        .unwrap();
    let _main = start(&sandbox, &launch(&root, &["sleep", "1000"])).await;
    println!("{} {}", sandbox.pid(), bed.state.path().display());
    std::future::pending::<()>().await;
}

/// An agent that dies leaves no process; the record finds the rest.
async fn agent_killed() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut holder = tokio::process::Command::new(crate::bed::program())
        .args(["hold", "13"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(holder.stdout.take().unwrap());
    out.read_line(&mut line).await.unwrap();
    let (pid, state) = line.trim().split_once(' ').unwrap();
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("__pause"))
    };
    assert!(alive());
    holder.kill().await.unwrap();
    let killed = std::time::Instant::now();
    while alive() {
        assert!(killed.elapsed() < crate::PATIENCE, "it outlives its agent");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let links = lateen_cluster::network::link::Links::open().unwrap();
    assert!(links.index("lttest13").await.unwrap().is_some());
    for _ in 0..2 {
        let state = std::path::Path::new(state);
        lateen_cluster::network::host::clean_up(state)
            .await
            .unwrap();
    }
    assert_eq!(links.index("lttest13").await.unwrap(), None);
    std::fs::remove_dir_all(state).unwrap();
}

async fn network() {
    let bed = Bed::open(5).await;
    let root = mountpoint(&bed);
    let net = &bed.network;
    let mac =
        || std::fs::read_to_string(format!("/sys/class/net/{}/address", bed.instance)).unwrap();
    let before = mac();
    let mut sandboxes = Vec::new();
    for (n, node) in net.nodes.iter().enumerate() {
        let sandbox = Sandbox::spawn(&bed.helper(), "default/pod", &spec())
            .await
            .unwrap();
        let address = lateen_cluster::network::cidr::nth_address(node.range, 2).unwrap();
        let name = format!("ltt5p{n}");
        net.links
            .attach_pod(net.bridge, &name, sandbox.netns(), address, node.address)
            .await
            .unwrap();
        sandboxes.push((sandbox, address));
    }
    let serve = start(&sandboxes[1].0, &serve_launch(&root)).await;
    let url = format!("http://{}:8080/", sandboxes[1].1);
    let fetch = [
        "curl",
        "-sS",
        "--retry",
        "60",
        "--retry-connrefused",
        "--retry-delay",
        "1",
        "-m",
        "90",
        &url,
    ];
    let (text, status) = run(&sandboxes[0].0, &launch(&root, &fetch)).await;
    assert_eq!((text.as_str(), status), ("hello\n", ExitStatus::Code(0)));
    // Pods may keep the gateway's hardware address.
    assert_eq!(mac(), before);
    // From inside the namespace.
    let inside = ([127, 0, 0, 1], 8080).into();
    let netns = sandboxes[1].0.netns();
    let connected = lateen_cluster::network::netns::connect(netns, inside).await;
    let mut stream = connected.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("hello\n"));
    drop(serve);
    for (sandbox, _) in sandboxes {
        sandbox.destroy().await;
    }
    bed.close().await;
}

/// This test program as a server on port 8080.
fn serve_launch(root: &str) -> Launch {
    let mut launch = launch(root, &["/opt/serve", "serve", "8080"]);
    let program = crate::bed::program().to_str().unwrap().to_owned();
    launch.env.push(("HOSTNAME".into(), "hello".into()));
    launch.root.as_mut().unwrap().mounts.push(Mount {
        target: "/opt/serve".into(),
        kind: MountKind::Bind(program),
        readonly: true,
    });
    launch
}
