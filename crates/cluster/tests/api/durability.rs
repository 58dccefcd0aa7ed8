//! Nothing acknowledged is lost when the process is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use lateen_cluster::api::resource::CONFIG_MAPS;
use lateen_cluster::api::{ApiServer, ApiServerOptions, ClusterPki};
use serde_json::json;

/// Tells the test below that it is the child, and where to work.
const CHILD: &str = "LATEEN_TEST_STORE_CHILD";

/// Writes with many tasks and prints each acknowledged name, until it is killed.
#[tokio::test]
async fn child_writes_until_killed() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let pki =
        ClusterPki::load_or_create(std::path::Path::new(&dir), SystemTime::now()).expect("pki");
    let (_server, api) = ApiServer::start(ApiServerOptions::new(&dir, pki))
        .await
        .expect("start");
    let writers = (0..8).map(|w| {
        let api = api.clone();
        async move {
            for i in 0.. {
                let name = format!("w{w}-{i}");
                let object = json!({"metadata": {"name": name}, "data": {"i": i.to_string()}});
                let made = api
                    .create(&CONFIG_MAPS, Some("default"), object)
                    .await
                    .expect("create");
                println!(
                    "ack {name} {}",
                    made["metadata"]["resourceVersion"]
                        .as_str()
                        .expect("version")
                );
            }
        }
    });
    futures_util::future::join_all(writers).await;
}

#[tokio::test]
async fn a_killed_server_has_everything_it_acknowledged() {
    let dir = tempfile::tempdir().expect("dir");
    let mut most = 0;
    for round in 1..=2 {
        let mut child = Command::new(std::env::current_exe().expect("exe"))
            .args([
                "durability::child_writes_until_killed",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, dir.path().join(format!("r{round}")))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("child");
        let mut acked = Vec::new();
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut killed = false;
        for line in lines {
            let Ok(line) = line else { break };
            if let Some(rest) = line.split("ack ").nth(1) {
                let mut words = rest.split(' ');
                let name = words.next().expect("name").to_owned();
                let rv: u64 = words
                    .next()
                    .and_then(|w| w.trim().parse().ok())
                    .expect("version");
                acked.push((name, rv));
            }
            if acked.len() >= 200 * round && !killed {
                killed = true;
                // SIGKILL: what it printed before is read to the end below.
                child.kill().expect("kill");
            }
        }
        child.wait().expect("wait");
        let path = dir.path().join(format!("r{round}"));
        let pki = ClusterPki::load_or_create(&path, SystemTime::now()).expect("pki");
        let (server, api) = ApiServer::start(ApiServerOptions::new(&path, pki))
            .await
            .expect("restart");
        assert!(acked.len() >= 200 * round);
        for (name, rv) in &acked {
            let found = api
                .get(&CONFIG_MAPS, Some("default"), name)
                .await
                .expect("acknowledged");
            assert_eq!(found["metadata"]["resourceVersion"], rv.to_string());
            most = most.max(*rv);
        }
        let new = json!({"metadata": {"name": "after"}});
        let new = api
            .create(&CONFIG_MAPS, Some("default"), new)
            .await
            .expect("create");
        let rv: u64 = new["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|s| s.parse().ok())
            .expect("version");
        assert!(rv > acked.iter().map(|(_, v)| *v).max().expect("some"));
        server.shutdown().await;
    }
    assert!(most > 0);
}
