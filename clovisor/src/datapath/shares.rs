//! Shares of interfaces, told to the kernel side, and what it has left out by them.
//!
//! It refuses to decide how large a share is; see [`overload`](crate::overload).

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuHashMap, PerCpuValues};
use clovisor_common::{ANY_INTERFACE, LEFT_OUT, SessionKey, SessionValue, ShedValue, name};
use clovisor_trace::Shed;

use super::{
    kernel::{Kernel, KernelError},
    spared::session_key,
};

type Noted<T> = PerCpuHashMap<T, u32, ShedValue>;

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
        let map = self.ebpf.map(name::SHED).ok_or(KernelError::Absent(name::SHED))?;
        let map = Noted::<&MapData>::try_from(map).map_err(fault)?;
        let mut shed = BTreeMap::new();
        for entry in &map {
            let (key, by_cpu) = entry.map_err(fault)?;
            let sum = ShedValue {
                packets: by_cpu.iter().map(|value| value.packets).sum(),
                sessions: by_cpu.iter().map(|value| value.sessions).sum(),
            };
            shed.insert((key != ANY_INTERFACE).then_some(key), sum);
        }
        Ok(shed)
    }

    /// Makes the entry for what is left out at interfaces that are not known: once, before anything can be.
    pub(super) fn expect_shed(&mut self) -> Result<(), KernelError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| fault(MapError::IoError(error)))?;
        let none = PerCpuValues::try_from(vec![ShedValue::default(); cpus])
            .map_err(|error| fault(MapError::IoError(error)))?;
        self.noted()?.insert(ANY_INTERFACE, none, 0).map_err(fault)
    }

    /// Removes what was noted of an interface.
    fn forget_shed(&mut self, interface: u32) -> Result<(), KernelError> {
        if_there(self.noted()?.remove(&interface)).map_err(fault)
    }

    fn noted(&mut self) -> Result<Noted<&mut MapData>, KernelError> {
        let map = self.ebpf.map_mut(name::SHED).ok_or(KernelError::Absent(name::SHED))?;
        Noted::try_from(map).map_err(fault)
    }
}

/// What is removed need not be there.
fn if_there(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn fault(source: MapError) -> KernelError {
    KernelError::Map { name: name::SHED, source }
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
        kernel.forget_shed(interface)?;
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
