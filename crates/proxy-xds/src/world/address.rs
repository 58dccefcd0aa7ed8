//! Two listeners never share an address: the later one is refused, as Envoy does, whether it opens
//! a socket or is only handed connections. Which of two would serve were chance otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lateen_proxy_core::config::{Listener, Name};

use super::{Decoded, Held, Now, Refused, Set, World};
use crate::error::{At, DecodeError};
use crate::kind::Kind;

/// Who has which address.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<SocketAddr, Name>);

/// Port 0 is another port for each listener.
fn fixed_addresses(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    let sockets = listener.addresses().filter_map(|a| a.socket());
    sockets.filter(|address| address.port() != 0)
}

impl Holders {
    /// Of the listeners that stay: all but those in `going`.
    pub(super) fn new(listeners: &Set<Listener>, going: &BTreeSet<Name>) -> Self {
        let mut holders = Self::default();
        let later = listeners.active.iter().chain(&listeners.warming);
        let later = later.filter(|(name, _)| !going.contains(*name));
        for (name, held) in listeners.fixed().into_iter().chain(later) {
            holders.take(name, &held.value);
        }
        holders
    }

    fn take(&mut self, name: &Name, listener: &Listener) {
        for address in fixed_addresses(listener) {
            self.0.entry(address).or_insert_with(|| name.clone());
        }
    }

    /// Lets a new or changed listener have its addresses.
    ///
    /// # Errors
    /// When another has one of them; in Envoy's words.
    pub(super) fn admit(&mut self, name: &Name, held: &Held<Listener>) -> Result<(), String> {
        let taken = fixed_addresses(&held.value)
            .find(|address| self.0.get(address).is_some_and(|holder| holder != name));
        if let Some(address) = taken {
            let holder = &self.0[&address];
            return Err(format!(
                "error adding listener: '{name}' has duplicate address '{address}' as existing listener '{holder}'"
            ));
        }
        self.0.retain(|_, holder| holder != name);
        self.take(name, &held.value);
        Ok(())
    }
}

impl World {
    /// Lets a listener of the bootstrap have its addresses, beside those before it.
    ///
    /// # Errors
    /// When another has one of them.
    pub(super) fn admit_fixed(
        &self,
        name: &Name,
        held: &Held<Listener>,
    ) -> Result<(), DecodeError> {
        let mut holders = Holders::new(&self.listeners, &BTreeSet::new());
        let admitted = holders.admit(name, held).map_err(DecodeError::new);
        admitted.at("address")
    }

    /// Takes the listeners out of `decoded` whose address another has; they are kept as refused,
    /// like those that could not be read. `going` are the names that the update takes away.
    pub(super) fn refuse_shared_addresses(
        &mut self,
        going: &BTreeSet<Name>,
        decoded: &mut Vec<Decoded>,
        now: Now,
    ) -> Vec<(Name, String)> {
        let mut holders = Holders::new(&self.listeners, going);
        let mut out = Vec::new();
        decoded.retain(|d| {
            let Decoded::Listener(name, held) = d else {
                return true;
            };
            let Err(error) = holders.admit(name, held) else {
                return true;
            };
            let refused = Refused {
                raw: held.raw.clone(),
                version: held.version.clone(),
                at_ms: now.unix_ms,
                error: error.clone(),
            };
            self.refused.insert((Kind::Listener, name.clone()), refused);
            out.push((name.clone(), error));
            false
        });
        out
    }
}
