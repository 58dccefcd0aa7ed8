//! The pod network: a bridge with the pods on it, service addresses by kernel rules, DNS.
//!
//! [`host::HostNetwork::prepare`] makes the host's side before the API server starts (which wants
//! to listen on the bridge too); [`service::ServiceSync`] keeps rules and zone in step with the
//! API; [`host::clean_up`] removes all of it, also after a crash.

pub mod address;
pub mod cidr;
pub mod dns;
pub mod firewall;
pub mod host;
pub mod link;
pub mod netns;
pub mod nft;
pub mod ports;
pub mod ruleset;
pub mod service;
pub mod turn;
pub mod view;
