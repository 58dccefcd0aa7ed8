//! Who asks (certificates, tokens) and what they may do (roles and bindings).

mod rbac;
mod token;

pub(crate) use rbac::{Action, allowed, bootstrap_objects, rules_of};
pub(crate) use token::{Bound, TokenSigner};

use super::handle::UserInfo;

/// Group of everyone who gave valid credentials.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// Group of everyone who gave none.
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";

/// The user without credentials.
pub(crate) fn anonymous() -> UserInfo {
    UserInfo {
        name: "system:anonymous".to_owned(),
        groups: vec![UNAUTHENTICATED.to_owned()],
        ..UserInfo::default()
    }
}

/// A user with credentials: in the group of all such.
pub(crate) fn authenticated(name: &str, groups: &[String]) -> UserInfo {
    let mut groups = groups.to_vec();
    if !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    UserInfo {
        name: name.to_owned(),
        groups,
        ..UserInfo::default()
    }
}
