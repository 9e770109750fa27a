//! Attaching by clsact: one direct-action bpf filter on each hook, in front of all others if it can be.
//!
//! The chain runs by `pref`; 1 is the first. Filters of kind bpf for all protocols may share a pref, and the
//! kernel puts the newest in front, so a foreign bpf filter at pref 1 does not keep us from being first. A
//! classifier of another kind or protocol at pref 1 does.
//!
//! It refuses to touch a filter that is not in its hands, and a qdisc that no Clovisor made.

use std::io;

use nix::libc;

use super::error::AttachError;
use super::netlink::{ALL_PROTOCOLS, BPF, Filter, Hook, Qdisc, TrafficControl};
use super::owner::Owner;
use crate::datapath::interface::Interface;

/// Prefs that are tried, from the first on, before giving up.
const TRIES: usize = 16;

/// How often a clsact is made that others take away between two questions, before giving in to them.
const CREATE_TRIES: usize = 3;

/// Our filters on one interface.
pub(super) struct Clsact {
    filters: Vec<Filter>,
    owner: Owner,
    /// Whether no foreign filter ran before ours when they were added.
    pub(super) first: bool,
}

/// What to put there.
#[derive(Clone, Copy)]
pub(super) struct Order {
    /// Whose filters they are.
    pub(super) owner: Owner,
    /// File descriptors, in the order of [`Hook::BOTH`].
    pub(super) programs: [u32; 2],
    /// See [`TrafficControl::add_filter`].
    pub(super) class: Option<u16>,
    /// A place behind another filter is an error, and nothing stays behind.
    pub(super) must_be_first: bool,
}

/// Puts one filter on each hook; whether a Clovisor made the clsact is found out here.
pub(super) async fn attach(
    tc: &TrafficControl,
    interface: &Interface,
    mut order: Order,
) -> Result<Clsact, AttachError> {
    let Prepared { by_clovisor, there } = prepare(tc, interface).await?;
    order.owner.made_clsact = by_clovisor;
    let owner = order.owner;
    let mut clsact = Clsact { filters: Vec::new(), owner, first: true };
    for ((hook, program), there) in Hook::BOTH.into_iter().zip(order.programs).zip(there) {
        let placed = place(tc, interface, hook, program, &order, there).await;
        match placed {
            Ok((filter, first)) => {
                clsact.filters.push(filter);
                clsact.first &= first;
            }
            Err(error) => {
                // The first error is the one to report.
                let _ = clsact.detach(tc, interface).await;
                return Err(error);
            }
        }
    }
    Ok(clsact)
}

/// What [`prepare`] found.
struct Prepared {
    /// A Clovisor made the clsact, this one or another.
    by_clovisor: bool,
    /// What is on each of [`Hook::BOTH`]: nothing, where it was made just now.
    there: [Vec<Filter>; 2],
}

/// Sees to it that there is a clsact. Most interfaces have none, so it is made first, and only where that is
/// refused is asked what is there.
async fn prepare(tc: &TrafficControl, interface: &Interface) -> Result<Prepared, AttachError> {
    for _ in 0..CREATE_TRIES {
        let fault = AttachError::netlink("create a clsact qdisc", &interface.name);
        if tc.create_clsact(interface.index).await.map_err(fault)? {
            return Ok(Prepared { by_clovisor: true, there: Default::default() });
        }
        let fault = || AttachError::netlink("look for a clsact qdisc", &interface.name);
        match tc.qdisc(interface.index).await.map_err(fault())? {
            // It went meanwhile.
            Qdisc::None => continue,
            Qdisc::Other(kind) => {
                return Err(AttachError::Occupied { interface: interface.name.clone(), kind });
            }
            Qdisc::Clsact => {}
        }
        let [ingress, egress] = Hook::BOTH.map(|hook| tc.filters(interface.index, hook));
        let there = [ingress.await.map_err(fault())?, egress.await.map_err(fault())?];
        let by_clovisor = there.iter().flatten().filter_map(owner_of).any(|owner| owner.made_clsact);
        return Ok(Prepared { by_clovisor, there });
    }
    let busy = io::Error::from_raw_os_error(libc::EBUSY);
    Err(AttachError::netlink("create a clsact qdisc", &interface.name)(busy))
}

/// Adds one filter, at the first pref that takes it beside those that are `there`, and says whether it is the first
/// of the chain: what somebody adds in the same moment is seen afterwards.
async fn place(
    tc: &TrafficControl,
    interface: &Interface,
    hook: Hook,
    program: u32,
    order: &Order,
    mut there: Vec<Filter>,
) -> Result<(Filter, bool), AttachError> {
    let fault = || AttachError::netlink("list the filters", &interface.name);
    let list = || tc.filters(interface.index, hook);
    let name = order.owner.filter_name(hook);
    let mut pref = 0;
    for _ in 0..TRIES {
        pref += 1;
        while !can_share(&there, pref) {
            pref += 1;
        }
        if order.must_be_first && there.iter().any(|filter| is_foreign(filter) && filter.pref < pref) {
            return Err(AttachError::NotFirst { interface: interface.name.clone(), hook });
        }
        match tc.add_filter(interface.index, hook, pref, &name, program, order.class).await {
            Ok(()) => {}
            // Somebody took this pref meanwhile, or with a filter that cannot be listed: the next one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EEXIST)) => {
                there = list().await.map_err(fault())?;
                continue;
            }
            Err(error) => return Err(AttachError::netlink("add a bpf filter", &interface.name)(error)),
        }
        let now = list().await.map_err(fault())?;
        let first = is_first(&now, &name);
        let ours = now.into_iter().find(|filter| filter.name.as_deref() == Some(&name));
        let gone = || fault()(io::Error::from_raw_os_error(libc::ENOENT));
        return Ok((ours.ok_or_else(gone)?, first));
    }
    Err(AttachError::Full { interface: interface.name.clone(), hook })
}

impl Clsact {
    /// Removes our filters, and the qdisc where a Clovisor made it and nothing is left on it.
    pub(super) async fn detach(&self, tc: &TrafficControl, interface: &Interface) -> Result<(), AttachError> {
        for filter in &self.filters {
            let fault = AttachError::netlink("delete our filter", &interface.name);
            tc.delete_filter(interface.index, filter).await.map_err(fault)?;
        }
        if self.owner.made_clsact {
            delete_if_empty(tc, interface.index)
                .await
                .map_err(AttachError::netlink("delete our clsact qdisc", &interface.name))?;
        }
        Ok(())
    }

    /// Whether a filter of ours is still there, at whatever place.
    pub(super) async fn is_there(&self, tc: &TrafficControl, interface: u32) -> io::Result<bool> {
        for hook in Hook::BOTH {
            let name = self.owner.filter_name(hook);
            if tc.filters(interface, hook).await?.iter().any(|one| one.name.as_deref() == Some(&name)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether both filters are still there, with no foreign filter in front.
    pub(super) async fn leads(&self, tc: &TrafficControl, interface: &Interface) -> io::Result<bool> {
        for hook in Hook::BOTH {
            let now = tc.filters(interface.index, hook).await?;
            if !is_first(&now, &self.owner.filter_name(hook)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Deletes the clsact if no filter is on it; says whether it did. The kernel has no "delete if empty": a
/// filter that somebody adds between the look and the deletion goes with it.
pub(super) async fn delete_if_empty(tc: &TrafficControl, interface: u32) -> io::Result<bool> {
    for hook in Hook::BOTH {
        if !tc.filters(interface, hook).await?.is_empty() {
            return Ok(false);
        }
    }
    match tc.delete_clsact(interface).await {
        Ok(()) => Ok(true),
        // Gone already, alone or with its interface.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The Clovisor that a filter belongs to.
pub(super) fn owner_of(filter: &Filter) -> Option<Owner> {
    if filter.kind != BPF {
        return None;
    }
    Owner::of(filter.name.as_deref()?, filter.hook)
}

fn is_foreign(filter: &Filter) -> bool {
    owner_of(filter).is_none() && filter.chain == 0
}

/// Whether a bpf filter for all protocols may take this pref.
fn can_share(filters: &[Filter], pref: u16) -> bool {
    let at_pref = filters.iter().filter(|filter| filter.pref == pref && filter.chain == 0);
    at_pref.into_iter().all(|filter| filter.kind == BPF && filter.protocol == ALL_PROTOCOLS)
}

/// Whether only filters of Clovisors, which let the chain go on, come before the one of this name.
fn is_first(filters: &[Filter], name: &str) -> bool {
    let mut chain = filters.iter().filter(|filter| filter.chain == 0);
    chain.by_ref().take_while(|filter| !is_foreign(filter)).any(|filter| filter.name.as_deref() == Some(name))
}
