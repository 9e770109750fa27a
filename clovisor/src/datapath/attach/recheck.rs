//! Staying attached: first in the chain, on interfaces that come back, and off those that are gone.
//!
//! The kernel tells of changes ([`changes`](super::changes)), so only interfaces at which there were some are looked at, and
//! some others in turn, for what it did not tell. Of tcx it tells nothing, but its chains are cheap to ask for: they are
//! looked at everywhere.
//!
//! It refuses to give an interface up while it exists: one that cannot be attached anew is kept as lost and
//! tried again at each look. It says so once when it is lost and once when it is back.

use std::collections::{BTreeSet, VecDeque};

use clovisor_common::INSIDE;

use super::changes::Changed;
use super::{AttachError, Attached, Attacher, Held, Hold, Hook, MAX_REATTACHED, Way, programs, tcx};
use crate::datapath::interface::Interface;
use crate::datapath::kernel::Kernel;

/// Interfaces that are looked at in one step of a round: well under a millisecond, as long as all is well.
const AT_ONCE: usize = 16;
/// Rounds within which each interface has its turn, whatever the kernel tells.
pub const TURN: usize = 30;

/// A look at all interfaces, in steps between which packets can be fetched.
pub struct Round {
    /// Those that may have changed, or whose turn it is.
    doubtful: BTreeSet<u32>,
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
    /// What the kernel did not tell is seen within [`TURN`] calls.
    ///
    /// Interfaces inside pods' namespaces are looked at in turn, some at each call, and those on which ours are no
    /// more count as gone.
    ///
    /// Meant to be called every second or two; with hundreds of interfaces, in steps: [`Self::round`].
    pub async fn recheck(&mut self, kernel: &mut Kernel) -> Vec<(u32, Result<Attached, AttachError>)> {
        let mut round = self.round();
        let mut done = Vec::new();
        while let Some(some) = self.recheck_some(kernel, &mut round).await {
            done.extend(some);
        }
        done
    }

    /// Begins what [`Self::recheck`] does, for [`Self::recheck_some`].
    pub fn round(&mut self) -> Round {
        let waiting: VecDeque<u32> = self.held.range(..INSIDE).map(|(&index, _)| index).collect();
        let mut doubtful = match self.changes.take() {
            Changed::At(indexes) => indexes,
            Changed::Anywhere => waiting.iter().copied().collect(),
        };
        doubtful.extend(self.turn(waiting.len()));
        Round { doubtful, waiting, inside: true }
    }

    /// Those of so many interfaces whose turn is next.
    fn turn(&mut self, interfaces: usize) -> Vec<u32> {
        let (before, after) = (self.held.range(..=self.turned), self.held.range(self.turned + 1..INSIDE));
        let next = after.chain(before).map(|(&index, _)| index);
        let next: Vec<u32> = next.take(interfaces.div_ceil(TURN)).collect();
        self.turned = next.last().copied().unwrap_or_default();
        next
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
            if !round.doubtful.contains(&index) && !self.is_suspect(kernel, index) {
                continue;
            }
            if self.is_gone(kernel, index).await {
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
    async fn is_gone(&mut self, kernel: &mut Kernel, index: u32) -> bool {
        let name = match self.tc.name(index).await {
            Ok(Some(name)) => name,
            Ok(None) => return true,
            // Where the kernel does not say, nothing is taken for gone.
            Err(_) => return false,
        };
        let Some(held) = self.held.get_mut(&index) else { return false };
        if held.attached.interface.name == name {
            return false;
        }
        let before = std::mem::replace(&mut held.attached.interface.name, name);
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
        if self.is_suspect(kernel, index) {
            return true;
        }
        match self.held.get(&index) {
            // Where it was not first to begin with, trying again changes nothing.
            Some(Held { hold: Some(Hold::Clsact(clsact)), attached, .. })
                if self.is_kept_first(index) && attached.first =>
            {
                !clsact.leads(&self.tc, &attached.interface).await.unwrap_or(true)
            }
            _ => false,
        }
    }

    /// Whether it is still seen to that nothing comes in front.
    fn is_kept_first(&self, index: u32) -> bool {
        let held = self.held.get(&index);
        held.is_some_and(|held| held.way == Way::Auto && held.reattached < MAX_REATTACHED)
    }

    /// What costs no question by netlink: whether it is lost, or something comes before ours by tcx.
    fn is_suspect(&self, kernel: &mut Kernel, index: u32) -> bool {
        let Some(held) = self.held.get(&index) else { return false };
        let interface = &held.attached.interface;
        match &held.hold {
            _ if held.lost => true,
            _ if !self.is_kept_first(index) => false,
            None => true,
            Some(Hold::Clsact(_)) => chains(interface).iter().flatten().any(tcx::Chain::has_foreign),
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
