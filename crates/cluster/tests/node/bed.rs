//! What the tests share: unique names, ranges that no other test uses, pipes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use lateen_cluster::network::cidr::Ranges;
use lateen_cluster::network::host::{HostNetwork, NetworkOptions, clean_up};
use lateen_cluster::node::process::sandbox::Helper;
use tokio::net::unix::pipe::Receiver;

/// A network of its own for one test; removed by [`Bed::close`].
pub struct Bed {
    pub state: tempfile::TempDir,
    pub instance: String,
    pub network: HostNetwork,
}

impl Bed {
    /// `number` makes names and ranges unique among tests that run side by side.
    pub async fn open(number: u8) -> Self {
        let state = tempfile::tempdir().unwrap();
        let instance = format!("lttest{number}");
        let options = NetworkOptions {
            state_dir: state.path().to_owned(),
            instance: instance.clone(),
            ranges: Some(Ranges {
                pods: format!("10.{}.0.0/16", 150 + number).parse().unwrap(),
                services: format!("10.{}.0.0/16", 170 + number).parse().unwrap(),
            }),
            nodes: vec!["lateen-1".into(), "lateen-2".into()],
        };
        let network = HostNetwork::prepare(&options).await.unwrap();
        Self { state, instance, network }
    }

    pub fn helper(&self) -> Helper {
        Helper { program: program(), marker: self.instance.clone() }
    }

    pub async fn close(self) {
        clean_up(self.state.path()).await.unwrap();
        assert_eq!(self.network.links.index(&self.instance).await.unwrap(), None);
    }
}

pub fn program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A pipe: our read end, the program's write end.
pub fn output_pipe() -> (Receiver, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    let read = OwnedFd::from(read);
    lateen_cluster::node::process::terminal::set_nonblocking(&read).unwrap();
    (Receiver::from_owned_fd(read).unwrap(), write.into())
}

pub fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}
