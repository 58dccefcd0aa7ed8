//! What the filters of a connection manager keep between requests in one worker: counters, fetched
//! keys. Made once for a listener's configuration; most filters keep nothing.

use std::rc::Rc;

use lateen_proxy_core::config::http_filter::{HttpFilter, HttpFilterConfig};
use lateen_proxy_core::stats::Scope;

use super::jwt::JwtState;
use crate::stats::Stats;

/// The state of one filter.
#[derive(Clone, Debug)]
pub enum FilterState {
    /// Nothing.
    None,
    /// Of `jwt_authn`.
    Jwt(Rc<JwtState>),
}

impl FilterState {
    /// The state of a filter that has served nothing yet.
    pub fn new(filter: &HttpFilter, stat_prefix: &str, stats: &Stats) -> Self {
        match &filter.config {
            HttpFilterConfig::Jwt(config) => {
                let scope = Scope::http(stat_prefix);
                Self::Jwt(Rc::new(JwtState::new(config.clone(), &scope, stats)))
            }
            _ => Self::None,
        }
    }
}
