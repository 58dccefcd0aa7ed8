//! Port 0 of a listener's address: the kernel chooses one, all workers share it, and it stays for as
//! long as the listener of that name asks for the same addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use lateen_proxy_core::config::{Address, Listener, Name, Snapshot};
use socket2::Socket;

use crate::engine::socket;

/// Sockets that keep ports from others until every worker has opened its own.
pub type Reserved = Vec<Socket>;

/// The ports given so far.
#[derive(Debug, Default)]
pub struct Ports(HashMap<Name, Given>);

/// A listener as configured, and with the ports it got.
#[derive(Debug)]
struct Given {
    asked: Arc<Listener>,
    gets: Arc<Listener>,
}

impl Ports {
    /// The snapshot with a real port wherever one says 0. An address for which the kernel has none
    /// stays as it is: binding it says why.
    pub fn settle(&mut self, snapshot: &Arc<Snapshot>) -> (Arc<Snapshot>, Reserved) {
        let mut reserved = Reserved::new();
        let asking: Vec<_> = snapshot.listeners.values().filter(|l| asks(l)).collect();
        self.0
            .retain(|name, _| snapshot.listeners.contains_key(name));
        if asking.is_empty() {
            self.0.clear();
            return (snapshot.clone(), reserved);
        }
        let mut listeners = (*snapshot.listeners).clone();
        for asked in asking {
            let gets = self.listener(asked, &mut reserved);
            listeners.insert(asked.name.clone(), gets);
        }
        let mut settled = (**snapshot).clone();
        settled.listeners = Arc::new(listeners);
        (Arc::new(settled), reserved)
    }

    fn listener(&mut self, asked: &Arc<Listener>, reserved: &mut Reserved) -> Arc<Listener> {
        let before = self.0.get(&asked.name);
        if let Some(given) = before.filter(|given| Arc::ptr_eq(&given.asked, asked)) {
            return given.gets.clone();
        }
        let mut gets = (**asked).clone();
        match before.filter(|given| given.asked.addresses().eq(asked.addresses())) {
            Some(given) => {
                gets.address = given.gets.address.clone();
                gets.additional_addresses = given.gets.additional_addresses.clone();
            }
            None => {
                for address in all_of(&mut gets) {
                    if let Some((port, socket)) = reserve(asked, address) {
                        *address = Address::Socket(port);
                        reserved.push(socket);
                    }
                }
            }
        }
        let gets = Arc::new(gets);
        let given = Given {
            asked: asked.clone(),
            gets: gets.clone(),
        };
        self.0.insert(asked.name.clone(), given);
        gets
    }
}

fn is_any_port(address: &Address) -> bool {
    address.socket().is_some_and(|socket| socket.port() == 0)
}

fn asks(listener: &Listener) -> bool {
    listener.bind_to_port && listener.addresses().any(is_any_port)
}

fn all_of(listener: &mut Listener) -> impl Iterator<Item = &mut Address> {
    std::iter::once(&mut listener.address).chain(&mut listener.additional_addresses)
}

/// A socket on a port that is free, where the address asks for one.
fn reserve(listener: &Listener, address: &Address) -> Option<(SocketAddr, Socket)> {
    let asked = address.socket().filter(|_| is_any_port(address))?;
    let socket = socket(listener, asked).ok()?;
    let port = socket.local_addr().ok()?.as_socket()?;
    Some((port, socket))
}
