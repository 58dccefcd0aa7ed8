//! Interfaces, addresses and routes: the bridge on the host and a pair of virtual Ethernet
//! interfaces per pod, by netlink.
//!
//! A pod's address is a /32 whose only route is the bridge's address: traffic between pods crosses
//! the host's IP stack, so service address translation sees both directions.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use futures_util::{StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::netns;

/// The pod's interface.
const POD_INTERFACE: &str = "eth0";

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something that was just made is not there.
    #[error("interface {0} not found")]
    Missing(String),
}

fn at(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let what = what.into();
    move |source| LinkError::Netlink { what, source }
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

/// "Exists already" is success: made by an earlier run.
fn tolerate(result: Result<(), rtnetlink::Error>, errno: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if code(&error) == Some(errno) => Ok(()),
        other => other,
    }
}

/// A locally administered hardware address for a bridge, the same for the same name. A bridge
/// without one of its own takes the lowest of its ports', and pods would keep sending to an old one
/// when pods come and go.
fn bridge_mac(name: &str) -> Vec<u8> {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut mac = hash.to_be_bytes()[..6].to_vec();
    mac[0] = 0x02;
    mac
}

/// A netlink connection to one network namespace.
#[derive(Clone, Debug)]
pub struct Links {
    handle: Handle,
}

impl Links {
    /// Connects to the calling thread's namespace.
    ///
    /// # Errors
    /// When netlink sockets are not allowed.
    pub fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Connects to a pod's namespace.
    async fn open_in(netns: &OwnedFd) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        netns::inside(netns, move || {
            let _guard = runtime.enter();
            Self::open()
        })
        .await
    }

    /// The index of an interface, if it exists.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn index(&self, name: &str) -> Result<Option<u32>, LinkError> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if code(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(at(format!("look up {name}"))(error)),
        }
    }

    async fn index_of(&self, name: &str) -> Result<u32, LinkError> {
        let index = self.index(name).await?;
        index.ok_or_else(|| LinkError::Missing(name.to_owned()))
    }

    async fn up(&self, index: u32) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(at("set link up"))
    }

    async fn add_address(
        &self,
        index: u32,
        address: Ipv4Addr,
        length: u8,
    ) -> Result<(), LinkError> {
        let added = self
            .handle
            .address()
            .add(index, IpAddr::V4(address), length)
            .execute()
            .await;
        tolerate(added, libc::EEXIST).map_err(at(format!("add address {address}")))
    }

    /// Makes the bridge with its addresses and the route that catches service addresses. An
    /// existing bridge is completed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn ensure_bridge(
        &self,
        name: &str,
        addresses: &[(Ipv4Addr, u8)],
        services: Ipv4Net,
    ) -> Result<u32, LinkError> {
        let made = self
            .handle
            .link()
            .add(LinkBridge::new(name).address(bridge_mac(name)).build())
            .execute()
            .await;
        tolerate(made, libc::EEXIST).map_err(at(format!("make bridge {name}")))?;
        let index = self.index_of(name).await?;
        for (address, length) in addresses {
            self.add_address(index, *address, *length).await?;
        }
        self.up(index).await?;
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(services.network(), services.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link);
        if let Some((address, _)) = addresses.first() {
            route = route.pref_source(*address);
        }
        let added = self.handle.route().add(route.build()).execute().await;
        tolerate(added, libc::EEXIST).map_err(at(format!("route {services}")))?;
        Ok(index)
    }

    /// Removes an interface; a missing one is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&self, name: &str) -> Result<(), LinkError> {
        let Some(index) = self.index(name).await? else {
            return Ok(());
        };
        let removed = self.handle.link().del(index).execute().await;
        tolerate(removed, libc::ENODEV).map_err(at(format!("remove {name}")))
    }

    /// Names of the interfaces attached to a bridge.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn ports_of(&self, bridge: u32) -> Result<Vec<String>, LinkError> {
        let mut names = Vec::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.next().await {
            let link = link.map_err(at("list links"))?;
            let attached = link.attributes.contains(&LinkAttribute::Controller(bridge));
            let name = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                });
            names.extend(name.filter(|_| attached));
        }
        Ok(names)
    }

    /// Gives a pod its interface: a pair with one end on the bridge (named `host_name`) and the
    /// other, `eth0`, in the pod's namespace with the address and a default route.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn attach_pod(
        &self,
        bridge: u32,
        host_name: &str,
        netns: &OwnedFd,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<(), LinkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(POD_INTERFACE.to_owned())
            .setns_by_fd(netns.as_raw_fd())
            .build();
        let pair = LinkVeth::new(host_name, POD_INTERFACE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(bridge)
            .up()
            .build();
        let made = self.handle.link().add(pair).execute().await;
        made.map_err(at(format!("make interface {host_name}")))?;
        // Where the kernel filters bridged packets too, a pod that meets itself behind a service
        // address is bridged back to the port it came from.
        std::fs::write(
            format!("/sys/class/net/{host_name}/brport/hairpin_mode"),
            "1",
        )?;
        let inner = Self::open_in(netns).await?;
        inner.configure_pod(address, gateway).await
    }

    async fn configure_pod(&self, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), LinkError> {
        let loopback = self.index_of("lo").await?;
        self.up(loopback).await?;
        let index = self.index_of(POD_INTERFACE).await?;
        self.add_address(index, address, 32).await?;
        self.up(index).await?;
        let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        let default = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .build();
        for route in [to_gateway, default] {
            let added = self.handle.route().add(route).execute().await;
            added.map_err(at("add the pod's routes"))?;
        }
        Ok(())
    }
}
