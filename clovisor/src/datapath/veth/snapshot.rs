//! The state of the host's interfaces and of the CNI cache at one moment, and the finding in it.
//!
//! It refuses a link that is no longer what the dump said: namespace ids are used again within a moment, so
//! the link that is chosen is looked at once more while the pod's namespace file is held open, which keeps
//! its id. What is asked of the kernel more than once is remembered, so a snapshot is for one round of pods.

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::libc;
use rtnetlink::Handle;

use super::cache::{Cache, Entry};
use super::error::VethError;
use super::links::{self, Held, Link};
use super::{Found, Paths, PodInterface, Wanted, processes};
use crate::datapath::interface::{Interface, Orientation};
use crate::datapath::namespace::{self, Identity, identity};

/// Processes of one pod that are looked at: all are in one network namespace, but one may just have ended.
const PROCESSES: usize = 4;

/// See the module's documentation.
pub struct Snapshot {
    netlink: Handle,
    paths: Paths,
    cache: Cache,
    links: HashMap<i32, Vec<Link>>,
    /// Our own namespace: where the netlink socket is.
    own: Option<Identity>,
    /// Addresses in the namespaces that were asked; `None` where that is refused.
    addresses: HashMap<i32, Option<Vec<Held>>>,
    /// UID that the cache gives to a namespace; once it is needed.
    owners: Option<HashMap<i32, String>>,
    processes: Option<HashMap<String, Vec<PathBuf>>>,
}

/// What one trace led to.
enum Trace {
    Here(PodInterface),
    /// Nothing (any more); what was seen.
    Cold(String),
    /// A live namespace into which no pair leads.
    NoPair(String),
    OwnNamespace,
}

impl Snapshot {
    pub(super) async fn take(netlink: Handle, paths: Paths) -> Result<Self, VethError> {
        // The cache first: what it names was there before, so a link to it is in the dump.
        let directory = paths.cni_cache.clone();
        let cache = tokio::task::spawn_blocking(move || Cache::read(&directory)).await.unwrap_or_default();
        let links = links::leading_elsewhere(&netlink)
            .await
            .map_err(VethError::netlink("list the host's interfaces"))?;
        let own = namespace::own();
        let addresses = HashMap::new();
        Ok(Self { netlink, paths, cache, links, own, addresses, owners: None, processes: None })
    }

    /// Finds one pod.
    ///
    /// # Errors
    /// See [`VethError`].
    pub async fn find(&mut self, pod: &Wanted<'_>) -> Result<PodInterface, VethError> {
        let mut looked = Vec::new();
        let mut no_pair = None;
        let mut behind = None;
        for (file, entry, found) in self.candidates(pod) {
            match self.by_file(&file, entry.as_ref(), pod, found).await? {
                Trace::Here(here) => match (here.has_address, found) {
                    (Some(false), Found::CniCacheByName) => {
                        looked.push("the CNI cache has an earlier pod of this name".to_owned());
                    }
                    (None, Found::CniCacheByName) => {
                        looked.push(
                            "the CNI cache has a pod of this name, and no address proves it".to_owned(),
                        );
                    }
                    // A sandbox made anew leaves two namespaces for a moment: the address decides.
                    (Some(false), _) => behind = behind.or(Some(here)),
                    _ => return Ok(here),
                },
                Trace::Cold(what) => looked.push(what),
                Trace::NoPair(what) => no_pair = no_pair.or((found != Found::CniCacheByName).then_some(what)),
                Trace::OwnNamespace => return Err(VethError::HostNetwork { pod: pod.text() }),
            }
        }
        if let Some(here) = behind {
            return Ok(here);
        }
        if let Some(reason) = no_pair {
            return Err(VethError::Unsupported { pod: pod.text(), reason });
        }
        if looked.is_empty() {
            let fault = self.cache.fault.as_deref().unwrap_or("no entry of this pod");
            looked.push(format!("{}: {fault}", self.paths.cni_cache.display()));
            looked.push(format!("{}: no process of this pod is visible", self.paths.proc.display()));
        }
        match self.by_address(pod).await? {
            Trace::Here(here) => return Ok(here),
            Trace::Cold(what) | Trace::NoPair(what) => looked.push(what),
            Trace::OwnNamespace => {}
        }
        match self.by_route(pod).await? {
            Trace::Here(here) => return Ok(here),
            Trace::Cold(what) | Trace::NoPair(what) => looked.push(what),
            Trace::OwnNamespace => {}
        }
        Err(VethError::NotYet { pod: pod.text(), looked })
    }

    pub(super) fn netlink(&self) -> &Handle {
        &self.netlink
    }

    /// The directory of named network namespaces.
    pub(super) fn namespaces(&self) -> &Path {
        &self.paths.netns
    }

    /// Files of network namespaces that may be the pod's, the surest first.
    pub(super) fn candidates(&mut self, pod: &Wanted<'_>) -> Vec<(PathBuf, Option<Entry>, Found)> {
        let with = |paths: &Paths, entries: Vec<Entry>, found| -> Vec<(PathBuf, Option<Entry>, Found)> {
            let file = |entry: Entry| (paths.netns.join(&entry.netns), Some(entry), found);
            entries.into_iter().map(file).collect()
        };
        let mut candidates = with(&self.paths, self.cache.of_uid(pod.uid), Found::CniCache);
        if candidates.is_empty() {
            let processes = self.processes.get_or_insert_with(|| processes::by_uid(&self.paths.proc));
            let of_pod = processes.get(pod.uid).into_iter().flatten().take(PROCESSES);
            candidates.extend(of_pod.map(|file| (file.clone(), None, Found::Process)));
            let same_name = self.cache.of_name(pod.namespace, pod.name);
            candidates.extend(with(&self.paths, same_name, Found::CniCacheByName));
        }
        candidates
    }

    async fn by_file(
        &mut self,
        file: &Path,
        entry: Option<&Entry>,
        pod: &Wanted<'_>,
        found: Found,
    ) -> Result<Trace, VethError> {
        let namespace = match File::open(file) {
            Ok(namespace) => namespace,
            Err(error) => return Ok(Trace::Cold(format!("{}: {error}", file.display()))),
        };
        if identity(&namespace).is_ok_and(|identity| Some(identity) == self.own) {
            return Ok(Trace::OwnNamespace);
        }
        let nsid = match links::nsid(&self.netlink, &namespace).await {
            Ok(Some(nsid)) => nsid,
            Ok(None) => {
                return Ok(Trace::NoPair(format!(
                    "no interface of the host leads into its namespace {}",
                    file.display()
                )));
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let what = "is no network namespace: made after it was mounted here without propagation?";
                return Ok(Trace::Cold(format!("{} {what}", file.display())));
            }
            Err(source) => {
                return Err(VethError::Netlink { action: "ask for the id of a network namespace", source });
            }
        };
        // `namespace` stays open, and with it its id, until the link was looked at again.
        self.in_namespace(nsid, entry, pod, found).await
    }

    /// The link into the namespace `nsid` that is the pod's.
    async fn in_namespace(
        &mut self,
        nsid: i32,
        entry: Option<&Entry>,
        pod: &Wanted<'_>,
        found: Found,
    ) -> Result<Trace, VethError> {
        let Some(links) = self.links.get(&nsid).cloned() else {
            let what = format!("no veth or netkit of the host leads into its namespace (nsid {nsid})");
            return Ok(Trace::NoPair(what));
        };
        let held = self.addresses_in(nsid).await;
        let holder = held.as_ref().and_then(|held| holder_of(held, pod.addresses));
        let has_address = held.filter(|_| !pod.addresses.is_empty()).map(|_| holder.is_some());
        let link = match (holder, links.as_slice()) {
            (Some(holder), links) => links.iter().find(|link| link.peer == Some(holder)),
            (None, [only]) => Some(only),
            (None, links) => {
                let name = entry.map_or("eth0", |entry| entry.interface.as_str());
                let there = links::index_there(&self.netlink, nsid, name).await.ok().flatten();
                let by_name = links.iter().find(|link| there.is_some() && link.peer == there);
                by_name.or_else(|| {
                    let made =
                        |link: &&Link| entry.is_some_and(|one| one.host_interfaces.contains(&link.name));
                    links.iter().find(made)
                })
            }
        };
        match link {
            Some(link) => self.confirm(link, found, has_address).await,
            None => Ok(Trace::NoPair(format!(
                "its address is on an interface that is no veth or netkit (nsid {nsid})"
            ))),
        }
    }

    /// Asks the namespaces at the other ends of all links for the pod's address.
    async fn by_address(&mut self, pod: &Wanted<'_>) -> Result<Trace, VethError> {
        if pod.addresses.is_empty() {
            return Ok(Trace::Cold("its address is not known yet".to_owned()));
        }
        let nsids: Vec<i32> = self.links.keys().copied().collect();
        let mut holding = Vec::new();
        let mut refused = 0;
        for &nsid in &nsids {
            match self.addresses_in(nsid).await {
                Some(held) if holder_of(&held, pod.addresses).is_some() => holding.push(nsid),
                Some(_) => {}
                None => refused += 1,
            }
        }
        let mut free = Vec::new();
        for nsid in holding {
            if !self.is_of_another(nsid, pod).await {
                free.push(nsid);
            }
        }
        match free.as_slice() {
            [nsid] => self.in_namespace(*nsid, None, pod, Found::Address).await,
            [] => Ok(Trace::Cold(format!(
                "none of the {} namespaces behind the host's veths has its address ({refused} could not be asked)",
                nsids.len()
            ))),
            several => Ok(Trace::Cold(format!("{} namespaces have its address", several.len()))),
        }
    }

    async fn by_route(&mut self, pod: &Wanted<'_>) -> Result<Trace, VethError> {
        for &address in pod.addresses {
            // No such family here, say: no such route either.
            let Ok(Some(index)) = links::host_route(&self.netlink, address).await else { continue };
            let links = || self.links.values().flatten();
            let Some(link) = links().find(|link| link.index == index).cloned() else { continue };
            if !self.is_of_another(link.nsid, pod).await {
                let has_address = self.addresses_in(link.nsid).await.map(|_| false);
                return self.confirm(&link, Found::Route, has_address).await;
            }
        }
        Ok(Trace::Cold("no route to exactly its address leads through a veth".to_owned()))
    }

    /// Whether the link is still what the dump said.
    async fn confirm(
        &self,
        link: &Link,
        found: Found,
        has_address: Option<bool>,
    ) -> Result<Trace, VethError> {
        let now = links::look_again(&self.netlink, link.index)
            .await
            .map_err(VethError::netlink("look at a pod's interface again"))?;
        if now.as_ref() != Some(link) {
            return Ok(Trace::Cold(format!("{} went or changed meanwhile", link.name)));
        }
        let interface = Interface::here(&link.name, link.index, Orientation::Host);
        Ok(Trace::Here(PodInterface { interface, found, has_address }))
    }

    async fn addresses_in(&mut self, nsid: i32) -> Option<Vec<Held>> {
        if let Some(known) = self.addresses.get(&nsid) {
            return known.clone();
        }
        let held = links::addresses_there(&self.netlink, nsid).await.ok();
        self.addresses.insert(nsid, held.clone());
        held
    }

    /// Whether the CNI cache gives the namespace to another pod.
    async fn is_of_another(&mut self, nsid: i32, pod: &Wanted<'_>) -> bool {
        if self.owners.is_none() {
            let mut owners = HashMap::new();
            for entry in self.cache.entries().iter().filter(|entry| !entry.uid.is_empty()) {
                let Ok(file) = File::open(self.paths.netns.join(&entry.netns)) else { continue };
                if let Ok(Some(nsid)) = links::nsid(&self.netlink, &file).await {
                    owners.entry(nsid).or_insert_with(|| entry.uid.clone());
                }
            }
            self.owners = Some(owners);
        }
        let owner = self.owners.as_ref().and_then(|owners| owners.get(&nsid));
        owner.is_some_and(|owner| owner != pod.uid)
    }
}

/// Index of the interface that has one of the addresses.
pub(super) fn holder_of(held: &[Held], addresses: &[IpAddr]) -> Option<u32> {
    held.iter().find(|(address, _)| addresses.contains(address)).map(|&(_, index)| index)
}
