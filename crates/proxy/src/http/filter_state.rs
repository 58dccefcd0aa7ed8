//! What the filters of a connection manager keep between requests in one worker: counters, fetched
//! keys. Made once for a listener's configuration; most filters keep nothing.

use std::rc::Rc;

use lateen_proxy_core::config::http_filter::{HttpFilter, HttpFilterConfig};
use lateen_proxy_core::stats::Scope;

use super::access::RbacCounters;
use super::ext_authz::AuthzState;
use super::jwt::JwtState;
use crate::stats::Stats;

/// The state of one filter.
#[derive(Clone, Debug)]
pub enum FilterState {
    /// Nothing.
    None,
    /// Of `jwt_authn`.
    Jwt(Rc<JwtState>),
    /// Of `ext_authz`.
    ExtAuthz(Rc<AuthzState>),
    /// Of `rbac`.
    Rbac(Rc<RbacCounters>),
}

impl FilterState {
    /// The state of a filter that has served nothing yet.
    pub fn new(filter: &HttpFilter, stat_prefix: &str, stats: &Stats) -> Self {
        let scope = Scope::http(stat_prefix);
        match &filter.config {
            HttpFilterConfig::ExtAuthz(config) => {
                Self::ExtAuthz(Rc::new(AuthzState::new(config.clone(), &scope, stats)))
            }
            HttpFilterConfig::Jwt(config) => {
                Self::Jwt(Rc::new(JwtState::new(config.clone(), &scope, stats)))
            }
            HttpFilterConfig::Rbac(_) => Self::Rbac(Rc::default()),
            _ => Self::None,
        }
    }
}
