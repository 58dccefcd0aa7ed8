//! The form of the scenarios, and the configuration they mean.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::whole::socket;

/// What is asked of the two sides.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    /// The same host for each request.
    Same,
    /// The same share of each host.
    Shares,
}

/// A cluster with the requests that go to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name of the cluster, and the first segment of its requests' path.
    pub name: String,
    pub compare: Compare,
    pub requests: usize,
    pub groups: Vec<Map<String, Value>>,
    #[serde(default)]
    pub cluster: Map<String, Value>,
    /// Fields of the load assignment's policy.
    #[serde(default)]
    pub policy: Map<String, Value>,
    /// Fields of the route action.
    #[serde(default)]
    pub route: Map<String, Value>,
    /// Header lines of a request.
    #[serde(default)]
    pub head: String,
    #[serde(default)]
    pub query: String,
    /// Place in the file; addresses are made of it.
    #[serde(skip)]
    pub place: usize,
}

/// Reads the scenarios.
pub fn read_all() -> Vec<Scenario> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/balance/scenarios.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let mut all: Vec<Scenario> = serde_saphyr::from_str(&text).unwrap();
    for (place, scenario) in all.iter_mut().enumerate() {
        scenario.place = place;
    }
    all
}

/// A loopback network of the run: 127.N.scenario.host.
#[derive(Clone, Copy)]
pub struct Network(u8);

const PORT: u16 = 18300;

impl Network {
    /// One that nobody uses: runs may go side by side.
    pub fn choose() -> Self {
        let start = u8::try_from(std::process::id() % 80).unwrap();
        for number in (0..80).map(|n| 10 + (start + n) % 80) {
            if let Ok(held) = TcpListener::bind((Ipv4Addr::new(127, number, 255, 1), PORT)) {
                // Held to the end of the process: this network is taken.
                std::mem::forget(held);
                return Self(number);
            }
        }
        panic!("no free loopback network");
    }

    fn at(self, third: usize, fourth: usize, port: u16) -> SocketAddr {
        let [third, fourth] = [third, fourth].map(|n| u8::try_from(n).unwrap());
        SocketAddr::from((Ipv4Addr::new(127, self.0, third, fourth), port))
    }

    /// The address of a host.
    pub fn host(self, scenario: usize, at: usize) -> SocketAddr {
        self.at(scenario + 1, at + 1, PORT + 1)
    }

    /// The address of one side's listener.
    pub fn listener(self, side: usize) -> SocketAddr {
        self.at(254, side, PORT)
    }

    /// The address a scenario's client comes from.
    pub fn client(self, scenario: usize) -> SocketAddr {
        self.at(253, scenario + 1, 0)
    }
}

impl Scenario {
    /// The places of its hosts' addresses.
    pub fn places(&self) -> Vec<usize> {
        let hosts = self
            .groups
            .iter()
            .flat_map(|g| g["hosts"].as_array().unwrap());
        hosts.map(place_of).collect()
    }

    /// The cluster.
    pub fn cluster(&self, network: Network) -> Value {
        let groups: Value = self
            .groups
            .iter()
            .map(|group| {
                let mut made = Value::Object(group.clone());
                let hosts = made.as_object_mut().unwrap().remove("hosts").unwrap();
                let hosts = hosts.as_array().unwrap().iter();
                made["lb_endpoints"] = hosts.map(|h| self.endpoint(network, h)).collect();
                made
            })
            .collect();
        let mut cluster = json!({ "name": self.name, "connect_timeout": "5s",
            "load_assignment": { "cluster_name": self.name, "endpoints": groups } });
        if !self.policy.is_empty() {
            cluster["load_assignment"]["policy"] = Value::Object(self.policy.clone());
        }
        for (key, value) in &self.cluster {
            cluster[key] = value.clone();
        }
        cluster
    }

    fn endpoint(&self, network: Network, host: &Value) -> Value {
        let address = network.host(self.place, place_of(host));
        let mut made = json!({ "endpoint": { "address": socket(address) } });
        for (key, value) in host.as_object().into_iter().flatten() {
            match key.as_str() {
                "at" => {}
                "weight" => made["load_balancing_weight"] = value.clone(),
                "health" => made["health_status"] = value.clone(),
                "name" => made["endpoint"]["hostname"] = value.clone(),
                "lb" => made["metadata"] = json!({ "filter_metadata": { "envoy.lb": value } }),
                other => panic!("{}: a host's {other}", self.name),
            }
        }
        made
    }

    /// The route to it.
    pub fn route(&self) -> Value {
        let mut action = json!({ "cluster": self.name });
        for (key, value) in &self.route {
            action[key] = value.clone();
        }
        json!({ "match": { "prefix": format!("/{}/", self.name) }, "route": action })
    }

    /// The header lines of a request.
    pub fn lines(&self, number: usize) -> String {
        fill(&self.head, number)
    }

    /// The path of a request.
    pub fn path(&self, number: usize) -> String {
        format!("/{}/?{}", self.name, fill(&self.query, number))
    }

    /// A request's bytes.
    pub fn request(&self, number: usize) -> String {
        let mut lines = self.lines(number);
        if !lines.is_empty() {
            lines.push_str("\r\n");
        }
        format!(
            "GET {} HTTP/1.1\r\nhost: h\r\n{lines}\r\n",
            self.path(number)
        )
    }
}

fn place_of(host: &Value) -> usize {
    let number = host.as_u64().or_else(|| host["at"].as_u64()).unwrap();
    usize::try_from(number).unwrap()
}

fn fill(text: &str, number: usize) -> String {
    text.replace("<i>", &number.to_string())
}
