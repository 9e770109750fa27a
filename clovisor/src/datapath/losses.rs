//! Which packets the kernel side has lost: of which interface, how many, and when.
//!
//! The kernel side notes a loss where it happens (`datapath::noted`); [`Losses::look`] tells what has come since the look
//! before. It refuses to read that map unless the verdicts say that something was lost.
//!
//! The records that the perf buffers write themselves (`PERF_RECORD_LOST`) are of the same packets, come late and name no
//! interface; they are not used here.

use std::collections::BTreeMap;

use clovisor_common::LossValue;
use clovisor_trace::Loss;

use super::{
    kernel::{Kernel, KernelError},
    packets::HOLD_BACK,
};

/// What is known of losses.
#[derive(Debug)]
pub struct Losses {
    /// When the counters were last looked at, kernel time.
    looked_ns: u64,
    /// Packets lost by the verdicts at that time.
    counted: u64,
    /// Packets that were told, by interface.
    told: BTreeMap<Option<u32>, u64>,
    /// Packets that were told of interfaces that are forgotten.
    past: u64,
}

impl Losses {
    /// Nothing was lost before `now_ns` ([`monotonic_ns`](super::clock::monotonic_ns)).
    #[must_use]
    pub fn new(now_ns: u64) -> Self {
        Self { looked_ns: now_ns, counted: 0, told: BTreeMap::new(), past: 0 }
    }

    /// What was lost since the last look. `now_ns` is the time read before the call.
    ///
    /// A loss happened after the look before; as a classifier takes its time first and counts then, up to
    /// [`HOLD_BACK`] may lie between the two. Sessions are kept for so long
    /// ([`keep_sessions`](clovisor_trace::Tracer::keep_sessions)), so that each loss that may have hit one is known before it is handed on.
    ///
    /// # Errors
    /// [`KernelError::Map`]; the next look then tells what this one could not.
    pub fn look(&mut self, kernel: &Kernel, now_ns: u64) -> Result<Vec<Loss>, KernelError> {
        let counted = kernel.lost()?;
        let mut losses = Vec::new();
        if counted != self.counted {
            let hold_back = u64::try_from(HOLD_BACK.as_nanos()).unwrap_or(u64::MAX);
            let from_ns = self.looked_ns.saturating_sub(hold_back);
            for (interface, value) in kernel.losses()? {
                let told = self.told.entry(interface).or_default();
                let packets = value.packets.saturating_sub(*told);
                if packets > 0 {
                    *told = value.packets;
                    let until_ns = value.last_ns;
                    losses.push(Loss { interface, from_ns: from_ns.min(until_ns), until_ns, packets });
                }
            }
        }
        (self.looked_ns, self.counted) = (now_ns, counted);
        Ok(losses)
    }

    /// Forgets an interface that was detached a while ago, and makes room for others in the kernel's map. What was lost
    /// there must have been told.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn forget(&mut self, kernel: &mut Kernel, interface: u32) -> Result<(), KernelError> {
        kernel.forget_notes::<LossValue>(interface)?;
        self.past += self.told.remove(&Some(interface)).unwrap_or(0);
        Ok(())
    }

    /// Packets that were told so far, by interface; `None` are those of which it is not known.
    pub fn by_interface(&self) -> impl Iterator<Item = (Option<u32>, u64)> + '_ {
        self.told.iter().map(|(interface, packets)| (*interface, *packets))
    }

    /// Packets that were told of interfaces that are forgotten.
    #[must_use]
    pub fn past(&self) -> u64 {
        self.past
    }
}

impl Kernel {
    /// Packets lost so far, by interface; `None` are those for which the map had no room. The interface is noted before
    /// the verdict is counted, so these are at least those of a [`Self::lost`] that was read before, and exactly those where
    /// no packet comes any more.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn losses(&self) -> Result<BTreeMap<Option<u32>, LossValue>, KernelError> {
        self.noted()
    }
}
