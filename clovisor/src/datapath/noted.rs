//! What the kernel side notes of each interface, on each CPU: one map for each kind of note, added up here.
//!
//! Where a map is full, what is noted counts for [`ANY_INTERFACE`], an entry that is there from the start. The interface is noted before
//! the verdict is counted: so what is read here is at least what the verdicts said that were read before, and exactly that where
//! no packet comes any more.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{MapData, MapError, PerCpuHashMap, PerCpuValues},
};
use clovisor_common::{ANY_INTERFACE, LossValue, ShedValue, name};

use super::kernel::{Kernel, KernelError};

/// A kind of note.
pub(super) trait Noted: Pod + Default {
    /// Name of its map.
    const MAP: &'static str;

    /// Of two CPUs together.
    fn and(self, other: Self) -> Self;
}

impl Noted for LossValue {
    const MAP: &'static str = name::LOSSES;

    fn and(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, last_ns: self.last_ns.max(other.last_ns) }
    }
}

impl Noted for ShedValue {
    const MAP: &'static str = name::SHED;

    fn and(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, sessions: self.sessions + other.sessions }
    }
}

impl Kernel {
    /// All notes of a kind so far, by interface; `None` is that for which the map had no room.
    pub(super) fn noted<N: Noted>(&self) -> Result<BTreeMap<Option<u32>, N>, KernelError> {
        let map = self.ebpf.map(N::MAP).ok_or(KernelError::Absent(N::MAP))?;
        let map = PerCpuHashMap::<&MapData, u32, N>::try_from(map).map_err(fault::<N>)?;
        let mut noted = BTreeMap::new();
        for entry in &map {
            let (key, by_cpu) = entry.map_err(fault::<N>)?;
            let sum = by_cpu.iter().copied().fold(N::default(), N::and);
            noted.insert((key != ANY_INTERFACE).then_some(key), sum);
        }
        Ok(noted)
    }

    /// Makes the entry for interfaces that have none: once, before anything can be noted.
    pub(super) fn expect_notes<N: Noted>(&mut self) -> Result<(), KernelError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| fault::<N>(MapError::IoError(error)))?;
        let none = PerCpuValues::try_from(vec![N::default(); cpus])
            .map_err(|error| fault::<N>(MapError::IoError(error)))?;
        self.notes::<N>()?.insert(ANY_INTERFACE, none, 0).map_err(fault::<N>)
    }

    /// Removes what was noted of an interface, if anything was.
    pub(super) fn forget_notes<N: Noted>(&mut self, interface: u32) -> Result<(), KernelError> {
        if_there(self.notes::<N>()?.remove(&interface)).map_err(fault::<N>)
    }

    fn notes<N: Noted>(&mut self) -> Result<PerCpuHashMap<&mut MapData, u32, N>, KernelError> {
        let map = self.ebpf.map_mut(N::MAP).ok_or(KernelError::Absent(N::MAP))?;
        PerCpuHashMap::try_from(map).map_err(fault::<N>)
    }
}

/// What is removed need not be there.
pub(super) fn if_there(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn fault<N: Noted>(source: MapError) -> KernelError {
    KernelError::Map { name: N::MAP, source }
}
