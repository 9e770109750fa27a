//! Shares of interfaces, told to the kernel side, and what it has left out by them.
//!
//! It refuses to decide how large a share is; see [`overload`](crate::overload).

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, MapError};
use clovisor_common::{LEFT_OUT, SessionKey, SessionValue, ShedValue, name};
use clovisor_trace::Shed;

use super::{
    kernel::{Kernel, KernelError},
    noted::if_there,
    spared::session_key,
};

impl Kernel {
    /// From now on traces of the new connections of an interface those whose lots are below `share`; all, if there is none.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_share(&mut self, interface: u32, share: Option<u32>) -> Result<(), KernelError> {
        let fault = |source| KernelError::Map { name: name::SHARES, source };
        let map = self.ebpf.map_mut(name::SHARES).ok_or(KernelError::Absent(name::SHARES))?;
        let mut map = HashMap::<_, u32, u32>::try_from(map).map_err(fault)?;
        match share {
            Some(share) => map.insert(interface, share, 0).map_err(fault),
            None => if_there(map.remove(&interface)).map_err(fault),
        }
    }

    /// Says how many interfaces are to share the upper half of the ring buffer. Perf buffers are not shared so: nobody can tell how full
    /// they are.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_sharers(&mut self, sharers: u64) -> Result<(), KernelError> {
        let fault = |source| KernelError::Map { name: name::SHARERS, source };
        let Some(map) = self.ebpf.map_mut(name::SHARERS) else { return Ok(()) };
        Array::<_, u64>::try_from(map).map_err(fault)?.set(0, sharers, 0).map_err(fault)
    }

    /// Leaves out a connection from now on, until its interface's share is above its lot again.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn leave_out(&mut self, shed: &Shed) -> Result<(), KernelError> {
        let fault = |source| KernelError::Map { name: name::SESSIONS, source };
        let map = self.ebpf.map_mut(name::SESSIONS).ok_or(KernelError::Absent(name::SESSIONS))?;
        let mut map = HashMap::<_, SessionKey, SessionValue>::try_from(map).map_err(fault)?;
        let key = session_key(shed.interface, shed.client, shed.server);
        let value = match map.get(&key, 0) {
            Ok(value) => value,
            // It was forgotten, and goes on.
            Err(MapError::KeyNotFound) => SessionValue::default(),
            Err(source) => return Err(fault(source)),
        };
        map.insert(key, SessionValue { lot: shed.lot | LEFT_OUT, ..value }, 0).map_err(fault)
    }

    /// What was left out so far, by interface; `None` is that for which the map had no room. The interface is noted before the verdict
    /// is counted, as [`Self::losses`] are.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn shed(&self) -> Result<BTreeMap<Option<u32>, ShedValue>, KernelError> {
        self.noted()
    }
}

/// What is known of what was left out.
#[derive(Debug, Default)]
pub struct LeftOut {
    told: BTreeMap<Option<u32>, ShedValue>,
    /// At interfaces that are forgotten.
    past: ShedValue,
}

impl LeftOut {
    /// Packets that were left out since the last look, by interface.
    ///
    /// # Errors
    /// [`KernelError::Map`]; the next look then tells what this one could not.
    pub fn look(&mut self, kernel: &Kernel) -> Result<Vec<(Option<u32>, u64)>, KernelError> {
        let now = kernel.shed()?;
        let before = |interface| self.told.get(interface).map_or(0, |told| told.packets);
        let news = now
            .iter()
            .map(|(interface, value)| (*interface, value.packets.saturating_sub(before(interface))));
        let news = news.filter(|(_, packets)| *packets > 0).collect();
        self.told = now;
        Ok(news)
    }

    /// Forgets an interface that was detached a while ago, and makes room for others in the kernel's maps.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn forget(&mut self, kernel: &mut Kernel, interface: u32) -> Result<(), KernelError> {
        kernel.set_share(interface, None)?;
        kernel.forget_notes::<ShedValue>(interface)?;
        if let Some(told) = self.told.remove(&Some(interface)) {
            self.past.packets += told.packets;
            self.past.sessions += told.sessions;
        }
        Ok(())
    }

    /// What was told so far, by interface; `None` is that of which it is not known.
    pub fn by_interface(&self) -> impl Iterator<Item = (Option<u32>, ShedValue)> + '_ {
        self.told.iter().map(|(interface, value)| (*interface, *value))
    }

    /// What was told of interfaces that are forgotten.
    #[must_use]
    pub fn past(&self) -> ShedValue {
        self.past
    }
}
