//! A pod's own interface, in its network namespace: where there is none of the host that shows all of its packets.
//!
//! The namespace is one that the CNI cache or a process of the pod names, or else the one behind the pod's veth. In
//! it the interface is the one with the pod's address; where no address is known or there yet, and the UID told that
//! the namespace is the pod's, the one that the cache names.
//!
//! It refuses the namespace that the agent runs in, and interfaces without Ethernet headers.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use nix::libc;
use rtnetlink::Handle;

use super::cache::Entry;
use super::error::VethError;
use super::snapshot::{Snapshot, holder_of};
use super::{Found, PodInterface, Wanted, links};
use crate::datapath::interface::{Interface, Orientation};
use crate::datapath::namespace::Namespace;
use crate::datapath::request::ask;

/// The interface where nothing names another: what Kubernetes asks the plugins for.
const USUAL: &str = "eth0";

/// An interface: name and index.
type Own = (String, u32);

impl Snapshot {
    /// Finds the pod's own interface, and gives it the number `id`. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// See [`VethError`].
    pub async fn find_inside(&mut self, pod: &Wanted<'_>, id: u32) -> Result<PodInterface, VethError> {
        let mut looked = Vec::new();
        let mut candidates = self.candidates(pod);
        if candidates.is_empty() {
            candidates = self.behind_veth(pod).await;
        }
        if candidates.is_empty() {
            looked.push("nothing names its network namespace".to_owned());
        }
        for (file, entry, found) in candidates {
            let namespace = match Namespace::at(&file) {
                Ok(namespace) if namespace.is_own() => {
                    return Err(VethError::HostNetwork { pod: pod.text() });
                }
                Ok(namespace) => namespace,
                Err(error) => {
                    looked.push(format!("{}: {error}", file.display()));
                    continue;
                }
            };
            match look(&namespace, entry.as_ref(), pod, found).await {
                Ok((Some((name, index)), has_address)) => {
                    let orientation = Orientation::Pod;
                    let interface = Interface { name, index, id, orientation, namespace: Some(namespace) };
                    return Ok(PodInterface { interface, found, has_address });
                }
                Ok((None, _)) => looked.push(format!(
                    "{}: no Ethernet interface has its address, or the name that is known",
                    file.display()
                )),
                Err(source) if source.raw_os_error() == Some(libc::EPERM) => {
                    return Err(VethError::MayNotEnter { pod: pod.text(), file });
                }
                Err(error) => looked.push(format!("{}: {error}", file.display())),
            }
        }
        Err(VethError::NotYet { pod: pod.text(), looked })
    }

    /// The file of the namespace that the pod's veth leads into.
    async fn behind_veth(&mut self, pod: &Wanted<'_>) -> Vec<(PathBuf, Option<Entry>, Found)> {
        let Ok(PodInterface { interface, found, .. }) = self.find(pod).await else { return Vec::new() };
        let Ok(Some(link)) = links::look_again(self.netlink(), interface.index).await else {
            return Vec::new();
        };
        let files = std::fs::read_dir(self.namespaces()).into_iter().flatten().flatten();
        for file in files.map(|file| file.path()) {
            if self.leads_to(&file, link.nsid).await {
                return vec![(file, None, found)];
            }
        }
        Vec::new()
    }

    async fn leads_to(&self, file: &Path, nsid: i32) -> bool {
        let Ok(open) = std::fs::File::open(file) else { return false };
        matches!(links::nsid(self.netlink(), &open).await, Ok(Some(of_file)) if of_file == nsid)
    }
}

/// Looks for the interface in a namespace; the second: as [`PodInterface::has_address`].
async fn look(
    namespace: &Namespace,
    entry: Option<&Entry>,
    pod: &Wanted<'_>,
    found: Found,
) -> io::Result<(Option<Own>, Option<bool>)> {
    let inside = namespace.enter().await?;
    let name = match found {
        Found::CniCache | Found::Process => Some(entry.map_or(USUAL, |entry| entry.interface.as_str())),
        // Who the namespace belongs to was told by the address alone.
        Found::CniCacheByName | Found::Address | Found::Route => None,
    };
    let own = own_interface(&inside.handle(), pod.addresses, name).await;
    inside.leave().await;
    own
}

async fn own_interface(
    handle: &Handle,
    addresses: &[IpAddr],
    name: Option<&str>,
) -> io::Result<(Option<Own>, Option<bool>)> {
    let holder = holder_of(&links::addresses_here(handle).await?, addresses);
    let has_address = (!addresses.is_empty()).then_some(holder.is_some());
    let mut message = LinkMessage::default();
    match (holder, name) {
        (Some(index), _) => message.header.index = index,
        (None, Some(name)) => message.attributes = vec![LinkAttribute::IfName(name.to_owned())],
        (None, None) => return Ok((None, has_address)),
    }
    let answers = match ask(handle, RouteNetlinkMessage::GetLink(message), 0).await {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        other => other?,
    };
    let own = answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => own(&link),
        _ => None,
    });
    Ok((own, has_address))
}

fn own(link: &LinkMessage) -> Option<Own> {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    // Not the loopback, though a pod's address may be on it.
    (link.header.link_layer_type == LinkLayerType::Ether).then_some((name, link.header.index))
}
