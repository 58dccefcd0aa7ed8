//! Overload by hand: a resource of its own for every action, each with a file that says its pressure,
//! which both sides read. Cases are played `under` one action at a time.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::expand::Instance;
use crate::support::ask;
use crate::support::whole::{eventually, url};

const FILE: &str = "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig";

/// The actions of a run, in the order in which they are taken.
pub struct Pressure {
    folder: TempDir,
    pub actions: Vec<String>,
}

impl Pressure {
    /// Of the actions that these cases name.
    pub fn of(cases: &[&Instance]) -> Self {
        let mut actions: Vec<String> = cases.iter().filter_map(|c| c.case.under.clone()).collect();
        actions.sort();
        actions.dedup();
        let made = Self {
            folder: tempfile::tempdir().unwrap(),
            actions,
        };
        for action in &made.actions {
            made.write(action, "0");
        }
        made
    }

    fn file(&self, action: &str) -> PathBuf {
        self.folder.path().join(action)
    }

    /// Moves the file into place, which is what Envoy watches for.
    fn write(&self, action: &str, pressure: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, pressure).unwrap();
        std::fs::rename(new, self.file(action)).unwrap();
    }

    /// The overload manager of both sides.
    pub fn manager(&self) -> Value {
        let all = self.actions.iter();
        let monitors: Value = all
            .clone()
            .map(|action| {
                json!({ "name": action, "typed_config": { "@type": url(FILE), "filename": self.file(action) } })
            })
            .collect();
        let of = |point: bool| -> Value {
            let all = all.clone().filter(|a| is_point(a) == point);
            all.map(|action| {
                json!({ "name": whole(action),
                    "triggers": [{ "name": action, "threshold": { "value": 0.9 } }] })
            })
            .collect()
        };
        json!({ "refresh_interval": "0.02s", "resource_monitors": monitors,
            "actions": of(false), "loadshed_points": of(true) })
    }

    /// Has an action taken, or not, and waits until both sides say so.
    pub fn set(&self, action: &str, taken: bool, admins: [SocketAddr; 2]) {
        self.write(action, if taken { "1" } else { "0" });
        let percent = if taken { 100 } else { 0 };
        let line = format!("overload.{}.scale_percent: {percent}\n", whole(action));
        for admin in admins {
            let page = "GET /stats?filter=scale_percent HTTP/1.1\r\nhost: a\r\n\r\n";
            eventually(&line, || ask(admin, page).contains(&line));
        }
    }
}

/// Load shed points say where, actions say what.
fn is_point(action: &str) -> bool {
    ["tcp_", "hcm_", "http_", "http1_", "http2_"]
        .iter()
        .any(|begin| action.starts_with(begin))
}

fn whole(action: &str) -> String {
    match is_point(action) {
        true => format!("envoy.load_shed_points.{action}"),
        false => format!("envoy.overload_actions.{action}"),
    }
}
