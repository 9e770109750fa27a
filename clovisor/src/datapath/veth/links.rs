//! What the kernel says over netlink of the host's interfaces and of the namespaces at their other ends.
//!
//! A namespace has an id (nsid) in ours: the kernel gives one to the other end's namespace when it lists a
//! veth, so links are dumped before ids are asked for. With an id, CAP_NET_ADMIN suffices to ask for the
//! addresses and interfaces **in** that namespace (IFA_TARGET_NETNSID, IFLA_TARGET_NETNSID; Linux 4.20, commits
//! 6ecf4c37eb3e and 5bfc8a2d4bca): neither setns nor SYS_ADMIN. That needs a socket with strict checking.
//!
//! It refuses to interpret: which of them is the pod's is decided elsewhere.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::Handle;
use rtnetlink::packet_core::NLM_F_DUMP;

use crate::datapath::request::ask;

/// An interface of the host whose other end is in another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    /// Id of the namespace of the other end.
    pub(super) nsid: i32,
    /// Index, there, of the other end.
    pub(super) peer: Option<u32>,
}

/// An address in a namespace, and the index of the interface that has it.
pub(super) type Held = (IpAddr, u32);

/// The links that lead into other namespaces, by the id of the namespace.
pub(super) async fn leading_elsewhere(handle: &Handle) -> io::Result<HashMap<i32, Vec<Link>>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut links: HashMap<i32, Vec<Link>> = HashMap::new();
    for answer in ask(handle, request, NLM_F_DUMP).await? {
        if let RouteNetlinkMessage::NewLink(message) = answer
            && let Some(link) = link(&message)
        {
            links.entry(link.nsid).or_default().push(link);
        }
    }
    Ok(links)
}

/// The link as it is now; `None` where it is gone, or leads into no other namespace any more.
pub(super) async fn look_again(handle: &Handle, index: u32) -> io::Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Ok(one_link(handle, message).await?.as_ref().and_then(link))
}

/// Index of the interface `name` in the namespace `nsid`.
pub(super) async fn index_there(handle: &Handle, nsid: i32, name: &str) -> io::Result<Option<u32>> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfNetnsId(nsid), LinkAttribute::IfName(name.to_owned())];
    Ok(one_link(handle, message).await?.map(|link| link.header.index))
}

async fn one_link(handle: &Handle, message: LinkMessage) -> io::Result<Option<LinkMessage>> {
    match ask(handle, RouteNetlinkMessage::GetLink(message), 0).await {
        Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(message),
            _ => None,
        })),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Id of the namespace of an open file; `None` where the kernel has given it none, so that no link of ours
/// leads into it. EINVAL: the file is no network namespace.
pub(super) async fn nsid(handle: &Handle, namespace: &File) -> io::Result<Option<i32>> {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned())];
    let answers = ask(handle, RouteNetlinkMessage::GetNsId(message), 0).await?;
    let id = answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.into_iter().find_map(|one| match one {
            NsidAttribute::Id(id) => Some(id),
            _ => None,
        }),
        _ => None,
    });
    // -1: not assigned (NETNSA_NSID_NOT_ASSIGNED).
    Ok(id.filter(|&id| id >= 0))
}

/// The addresses in a namespace.
pub(super) async fn addresses_there(handle: &Handle, nsid: i32) -> io::Result<Vec<Held>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.attributes = vec![AddressAttribute::TargetNetNsId(nsid)];
        for answer in ask(handle, RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP).await? {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            // A kernel that does not know the question answers for our own namespace, without the id.
            if !message.attributes.contains(&AddressAttribute::TargetNetNsId(nsid)) {
                return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
            }
            found.extend(held(&message));
        }
    }
    Ok(found)
}

/// The addresses in the namespace that the connection is in.
pub(super) async fn addresses_here(handle: &Handle) -> io::Result<Vec<Held>> {
    let answers = ask(handle, RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP).await?;
    let address = |answer: RouteNetlinkMessage| match answer {
        RouteNetlinkMessage::NewAddress(message) => held(&message),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(address).collect())
}

/// Where both are there, the local address is ours, and the other the far end's.
fn held(message: &AddressMessage) -> Option<Held> {
    let local = message.attributes.iter().find_map(|one| match one {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|one| match one {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    });
    address.map(|address| (address, message.header.index))
}

/// The interface that a route to exactly this address goes out of: such as ptp and Calico make. `None` where
/// the address is only covered by a route to more than itself.
pub(super) async fn host_route(handle: &Handle, address: IpAddr) -> io::Result<Option<u32>> {
    let (family, destination, bits) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, RouteAddress::Inet(v4), 32),
        IpAddr::V6(v6) => (AddressFamily::Inet6, RouteAddress::Inet6(v6), 128),
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family,
        destination_prefix_length: bits,
        // The route itself, and not what follows from it for this address.
        flags: RouteFlags::FibMatch,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(destination)];
    let answers = match ask(handle, RouteNetlinkMessage::GetRoute(message), 0).await {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES)
            ) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) if route.header.destination_prefix_length == bits => {
            route.attributes.iter().find_map(|one| match one {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })
        }
        _ => None,
    }))
}

/// A veth or netkit whose other end is in another namespace, with Ethernet headers.
fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link { name: String::new(), index: message.header.index, nsid: -1, peer: None };
    let mut is_pair = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::LinkNetNsId(nsid) => link.nsid = *nsid,
            LinkAttribute::Link(peer) => link.peer = Some(*peer),
            LinkAttribute::LinkInfo(infos) => {
                let is = |kind: InfoKind| infos.contains(&LinkInfo::Kind(kind));
                is_pair = is(InfoKind::Veth) || is(InfoKind::Netkit);
            }
            _ => {}
        }
    }
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    (is_pair && is_ethernet && link.nsid >= 0).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_into_other_namespaces_count() {
        let message = |kind: InfoKind, nsid: Option<i32>, layer: LinkLayerType| {
            let mut message = LinkMessage::default();
            message.header.index = 7;
            message.header.link_layer_type = layer;
            message.attributes = vec![
                LinkAttribute::IfName("v".to_owned()),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
            ];
            message.attributes.push(LinkAttribute::Link(2));
            message.attributes.extend(nsid.map(LinkAttribute::LinkNetNsId));
            message
        };
        let ether = LinkLayerType::Ether;
        let expected = Link { name: "v".to_owned(), index: 7, nsid: 3, peer: Some(2) };
        for kind in [InfoKind::Veth, InfoKind::Netkit] {
            assert_eq!(link(&message(kind, Some(3), ether)), Some(expected.clone()));
        }
        assert_eq!(link(&message(InfoKind::Veth, None, ether)), None);
        assert_eq!(link(&message(InfoKind::Veth, Some(-1), ether)), None);
        assert_eq!(link(&message(InfoKind::MacVlan, Some(3), ether)), None);
        assert_eq!(link(&message(InfoKind::Netkit, Some(3), LinkLayerType::None)), None);
    }
}
