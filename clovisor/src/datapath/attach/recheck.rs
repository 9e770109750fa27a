//! Staying attached: first in the chain, on interfaces that come back, and off those that are gone.
//!
//! It refuses to give an interface up while it exists: one that cannot be attached anew is kept as lost and
//! tried again at each look. It says so once when it is lost and once when it is back.

use std::collections::{BTreeMap, VecDeque};

use clovisor_common::INSIDE;

use super::{AttachError, Attached, Attacher, Held, Hold, Hook, MAX_REATTACHED, Way, programs, tcx};
use crate::datapath::interface::Interface;
use crate::datapath::kernel::Kernel;

/// Interfaces that are looked at in one step of a round: well under a millisecond, as long as all is well.
const AT_ONCE: usize = 16;

/// A look at all interfaces, in steps between which packets can be fetched.
pub struct Round {
    /// All interfaces of the node; `None` where the kernel does not say, and nothing is taken for gone.
    there: Option<BTreeMap<u32, String>>,
    waiting: VecDeque<u32>,
    /// Those inside pods come last.
    inside: bool,
}

impl Attacher {
    /// Looks whether ours still run first on the interfaces attached by [`Way::Auto`], and attaches those
    /// anew where something came in front or took ours off. Returns what was done, by interface; nothing
    /// where all is well:
    /// - attached anew, or back after it was lost;
    /// - [`AttachError::Gone`]: the interface is gone, its rules are removed and it is forgotten;
    /// - any other error: it is lost, which is said once, and tried again at each call.
    ///
    /// Interfaces inside pods' namespaces are looked at in turn, some at each call, and those on which ours are no
    /// more count as gone.
    ///
    /// Meant to be called every second or two; with hundreds of interfaces, in steps: [`Self::round`].
    pub async fn recheck(&mut self, kernel: &mut Kernel) -> Vec<(u32, Result<Attached, AttachError>)> {
        let mut round = self.round().await;
        let mut done = Vec::new();
        while let Some(some) = self.recheck_some(kernel, &mut round).await {
            done.extend(some);
        }
        done
    }

    /// Begins what [`Self::recheck`] does, for [`Self::recheck_some`].
    pub async fn round(&self) -> Round {
        let there = self.tc.interfaces().await.ok();
        let waiting = self.held.keys().copied().filter(|id| id & INSIDE == 0).collect();
        Round { there, waiting, inside: true }
    }

    /// The next step of a round; `None` when it is over.
    pub async fn recheck_some(
        &mut self,
        kernel: &mut Kernel,
        round: &mut Round,
    ) -> Option<Vec<(u32, Result<Attached, AttachError>)>> {
        if round.waiting.is_empty() {
            return match std::mem::take(&mut round.inside) {
                true => Some(self.recheck_inside(kernel).await),
                false => None,
            };
        }
        let mut done = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(index) = round.waiting.pop_front() else { break };
            if let Some(there) = &round.there
                && self.is_gone(kernel, index, there).await
            {
                done.extend(self.forget(kernel, index).map(|error| (index, Err(error))));
            } else if self.needs_reattaching(kernel, index).await
                && let Some(result) = self.reattach(kernel, index).await
            {
                done.push((index, result));
            }
        }
        Some(done)
    }

    /// Whether ours are on the interface of this number. An index can have been given to another interface.
    pub(super) async fn is_attached(&self, kernel: &mut Kernel, index: u32) -> bool {
        let Some(held) = self.held.get(&index) else { return false };
        let interface = &held.attached.interface;
        match &held.hold {
            None => false,
            // Its number is given to no other.
            _ if interface.namespace.is_some() => true,
            Some(Hold::Clsact(clsact)) => clsact.is_there(&self.tc, index).await.unwrap_or(true),
            Some(Hold::Tcx { .. }) => {
                let ours = programs(interface).into_iter().zip(Hook::BOTH);
                ours.into_iter().any(|(name, hook)| {
                    let id = tcx::program_id(kernel, name);
                    matches!((id, tcx::Chain::of(interface, hook)), (Ok(id), Some(chain)) if chain.has(id))
                })
            }
        }
    }

    /// Whether the interface is not there, or another has its index. One that was renamed is followed.
    async fn is_gone(&mut self, kernel: &mut Kernel, index: u32, there: &BTreeMap<u32, String>) -> bool {
        let Some(name) = there.get(&index) else {
            // A dump can miss one while others come and go.
            return !self.tc.exists(index).await.unwrap_or(true);
        };
        let Some(held) = self.held.get_mut(&index) else { return false };
        if held.attached.interface.name == *name {
            return false;
        }
        let before = std::mem::replace(&mut held.attached.interface.name, name.clone());
        let was_lost = held.lost;
        if !was_lost && self.is_attached(kernel, index).await {
            return false;
        }
        if let Some(held) = self.held.get_mut(&index) {
            held.attached.interface.name = before;
        }
        true
    }

    pub(super) fn forget(&mut self, kernel: &mut Kernel, index: u32) -> Option<AttachError> {
        let held = self.held.remove(&index)?;
        // Rules of an interface that is gone match nothing; an error here is for who sets the next ones.
        let _ = kernel.clear_rules(index);
        Some(AttachError::Gone(held.attached.interface.name))
    }

    /// Takes ours off and puts them on again. `None` where there is nothing new to say.
    async fn reattach(&mut self, kernel: &mut Kernel, index: u32) -> Option<Result<Attached, AttachError>> {
        let mut held = self.held.remove(&index)?;
        let was_lost = held.lost;
        let result = match self.release(&held).await {
            Ok(()) => {
                // Links go before new ones come: the kernel takes a program once a hook.
                held.hold = None;
                let reattached = held.reattached + u32::from(!was_lost);
                // Waited for once, when it was lost: this comes every second, and blocks.
                self.attach_anew(kernel, &held.attached.interface, held.way, reattached, !was_lost).await
            }
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.held.insert(index, Held { lost: true, ..held });
        }
        (result.is_ok() || !was_lost).then_some(result)
    }

    async fn needs_reattaching(&self, kernel: &mut Kernel, index: u32) -> bool {
        let Some(held) = self.held.get(&index) else { return false };
        let interface = &held.attached.interface;
        match &held.hold {
            _ if held.lost => true,
            _ if held.way != Way::Auto || held.reattached >= MAX_REATTACHED => false,
            None => true,
            Some(Hold::Clsact(clsact)) => {
                let behind_tcx = chains(interface).iter().flatten().any(tcx::Chain::has_foreign);
                // Where it was not first to begin with, trying again changes nothing.
                let lost = held.attached.first && !clsact.leads(&self.tc, interface).await.unwrap_or(true);
                behind_tcx || lost
            }
            Some(Hold::Tcx { .. }) => {
                let [Some(ingress), Some(egress)] = chains(interface) else { return false };
                let ids = programs(interface).map(|name| tcx::program_id(kernel, name));
                let [Ok(ingress_id), Ok(egress_id)] = ids else { return false };
                !(ingress.leads(ingress_id) && egress.leads(egress_id))
            }
        }
    }
}

fn chains(interface: &Interface) -> [Option<tcx::Chain>; 2] {
    Hook::BOTH.map(|hook| tcx::Chain::of(interface, hook))
}
