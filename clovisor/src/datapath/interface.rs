//! An interface: its index, and from which side of the pod it is seen.
//!
//! It refuses interfaces without Ethernet headers (tunnels, WireGuard), where the classifiers would take IP
//! headers for link headers.

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use nix::libc;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::namespace::Namespace;

/// From which side a pod is seen at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// From the host: what the interface receives is what the pod sends. The host side of a veth.
    Host,
    /// From the pod (or from a host that is itself what is traced): what the interface receives is what the
    /// pod receives. `eth0` in a pod, `lo`, a network card.
    Pod,
}

/// An interface that can be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in its own network namespace. Inside pods, indexes repeat.
    pub index: u32,
    /// The number that it goes by in maps, packets and sessions: its index, or, inside a pod's namespace,
    /// [`INSIDE`](clovisor_common::INSIDE) and 16 bits that
    /// [`Attacher::number`](super::attach::Attacher::number) gave out.
    pub id: u32,
    /// From which side it is seen; [`Interface::find`] guesses, and the caller may know better.
    pub orientation: Orientation,
    /// The pod's namespace that it is in; `None`: the agent's own.
    pub namespace: Option<Namespace>,
}

/// The interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of this name.
    #[error("there is no interface `{0}` in this network namespace; `ip link` lists them")]
    Unknown(String),
    /// Its packets do not start with an Ethernet header.
    #[error(
        "interface {name} has link type {link_type}: only Ethernet and loopback can be traced; trace the \
         interface that carries it, or the pod's veth"
    )]
    LinkType {
        /// Its name.
        name: String,
        /// Its link type.
        link_type: String,
    },
    /// The kernel did not answer.
    #[error("cannot look up interface `{name}`: {source}")]
    Netlink {
        /// Its name.
        name: String,
        /// Why.
        source: rtnetlink::Error,
    },
}

impl Interface {
    /// An interface of the agent's own namespace.
    pub(super) fn here(name: &str, index: u32, orientation: Orientation) -> Self {
        Self { name: name.to_owned(), index, id: index, orientation, namespace: None }
    }

    /// Looks up an interface by name, and guesses its orientation: a veth whose other end is in another
    /// network namespace, or that is a port of a bridge, is seen from the host; unless it carries a default
    /// route, for then we are in the pod, and it is the pod's own `eth0`.
    ///
    /// # Errors
    /// See [`InterfaceError`].
    pub async fn find(netlink: &Handle, name: &str) -> Result<Self, InterfaceError> {
        let fault = |source| InterfaceError::Netlink { name: name.to_owned(), source };
        // A name that cannot be one would be answered with "invalid argument".
        if name.is_empty() || name.len() >= libc::IF_NAMESIZE {
            return Err(InterfaceError::Unknown(name.to_owned()));
        }
        let found = netlink.link().get().match_name(name.to_owned()).execute().try_next().await;
        let link = match found {
            Ok(Some(link)) => link,
            Ok(None) => return Err(InterfaceError::Unknown(name.to_owned())),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.to_io().raw_os_error() == Some(libc::ENODEV) =>
            {
                return Err(InterfaceError::Unknown(name.to_owned()));
            }
            Err(source) => return Err(fault(source)),
        };
        let link_type = link.header.link_layer_type;
        if !matches!(link_type, LinkLayerType::Ether | LinkLayerType::Loopback) {
            let link_type = format!("{link_type:?}");
            return Err(InterfaceError::LinkType { name: name.to_owned(), link_type });
        }
        let index = link.header.index;
        let orientation = match position(&link) {
            Position::Port => Orientation::Host,
            Position::VethToElsewhere if !has_default_route(netlink, index).await.map_err(fault)? => {
                Orientation::Host
            }
            _ => Orientation::Pod,
        };
        Ok(Self::here(name, index, orientation))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Position {
    /// A veth that is a port of a bridge.
    Port,
    /// A veth whose other end is in another network namespace.
    VethToElsewhere,
    Other,
}

fn position(link: &LinkMessage) -> Position {
    let attributes = &link.attributes;
    let is_veth = attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    if !is_veth {
        Position::Other
    } else if attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Controller(_))) {
        Position::Port
    } else if attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_))) {
        Position::VethToElsewhere
    } else {
        Position::Other
    }
}

async fn has_default_route(netlink: &Handle, index: u32) -> Result<bool, rtnetlink::Error> {
    let both = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    for family in both {
        let mut routes = std::pin::pin!(netlink.route().get(family).execute());
        while let Some(route) = routes.try_next().await? {
            if is_default_through(&route, index) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_default_through(route: &RouteMessage, index: u32) -> bool {
    route.header.destination_prefix_length == 0 && route.attributes.contains(&RouteAttribute::Oif(index))
}
