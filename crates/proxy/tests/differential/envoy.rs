//! The real Envoy: found by LATEEN_ENVOY or on PATH, started once for all cases.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "../../../proxy-xds/tests/support/envoy.rs"]
mod program;

pub use program::find;

/// A running Envoy; its drop ends it.
pub struct Envoy {
    child: Child,
    log: PathBuf,
}

impl Envoy {
    /// Starts it on the bootstrap.
    pub fn start(program: &Path, folder: &Path, bootstrap: &Value) -> Self {
        let file = folder.join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let log = folder.join("envoy.log");
        let output = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&file);
        command.args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]);
        command.args(["--file-flush-interval-msec", "50"]);
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(output);
        let child = command.spawn().unwrap();
        Self { child, log }
    }

    /// Waits until the address is open.
    pub fn wait_for(&mut self, address: SocketAddr) {
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("Envoy did not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
