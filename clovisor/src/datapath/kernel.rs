//! The loaded kernel side: its rules, its counters, its log.
//!
//! Rules are set per interface, as a whole: [`Kernel::set_rules`] makes the maps hold exactly them. It
//! refuses to attach anything; see [`attach`](super::attach).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerfEventArray, RingBuf};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use clovisor_common::{
    ANY_ADDRESS, EgressKey, LossValue, PortKey, SessionKey, SessionValue, ShedValue, Verdict, direction, name,
};

use super::capability::{self, MissingCapabilities};
use super::packets::{BufferError, Buffers, Packets, Perf, Ring, Transport};

/// The compiled kernel side that writes to a ring buffer.
static RING_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ring.bpf.o"));
/// The compiled kernel side that writes to perf buffers.
static PERF_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/perf.bpf.o"));

/// The kernel side cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This process may not.
    #[error(transparent)]
    Capabilities(#[from] MissingCapabilities),
    /// The kernel refused the object.
    #[error("the kernel refused the eBPF object: {0}; Clovisor needs Linux 5.8 or later with BPF enabled")]
    Load(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("the kernel refused the program {name}: {source}; please report it with your kernel version")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why, with the verifier's log.
        source: ProgramError,
    },
    /// The object lacks a map or program: agent and kernel side were built apart.
    #[error("the eBPF object has no usable {0}; build the agent and its kernel side together")]
    Absent(&'static str),
    /// A map cannot be read or written.
    #[error("cannot access the map {name}: {source}{}", hint(.source))]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// The way back for packets cannot be opened.
    #[error(transparent)]
    Buffers(#[from] BufferError),
}

/// What an operator can do about a map error; E2BIG is a full hash map.
fn hint(error: &MapError) -> &'static str {
    if is_errno(error, nix::libc::E2BIG) {
        "; the map is full, select fewer pods, ports or egress targets on this node"
    } else {
        ""
    }
}

fn is_errno(error: &MapError, errno: i32) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(errno))
}

/// What to pick at one interface; interfaces go by their [id](super::interface::Interface::id).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Listening TCP ports of the pod, and the [`protocol`](clovisor_common::protocol) spoken there.
    pub ports: BTreeMap<u16, u8>,
    /// Outbound targets (no address: any), and the protocol spoken there.
    pub egress: BTreeMap<(Option<IpAddr>, u16), u8>,
}

/// Packets by verdict and direction, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    counts: [[u64; Verdict::ALL.len()]; 2],
}

impl Verdicts {
    /// Packets of one verdict and [`direction`].
    #[must_use]
    pub fn get(&self, verdict: Verdict, direction: u8) -> u64 {
        self.counts[usize::from(direction == direction::TO_POD)][verdict as usize]
    }

    /// Packets of one verdict, both directions.
    #[must_use]
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.get(verdict, direction::FROM_POD) + self.get(verdict, direction::TO_POD)
    }

    /// Packets that were wanted and lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        Verdict::LOST.iter().map(|&verdict| self.of(verdict)).sum()
    }

    /// Packets that were captured, whole or in part.
    #[must_use]
    pub fn emitted(&self) -> u64 {
        Verdict::EMITTED.iter().map(|&verdict| self.of(verdict)).sum()
    }

    /// Packets of one [`direction`].
    #[must_use]
    pub fn seen(&self, direction: u8) -> u64 {
        Verdict::ALL.iter().map(|&verdict| self.get(verdict, direction)).sum()
    }

    /// All packets.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.seen(direction::FROM_POD) + self.seen(direction::TO_POD)
    }
}

/// The loaded kernel side. Dropping it unloads what is not attached by clsact.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// What the maps hold, by interface.
    rules: HashMap<u32, Rules>,
    /// Size of the buffers.
    buffer_bytes: usize,
}

impl Kernel {
    /// Loads maps and programs, for packets to come by `buffers`. `debug` lets the kernel side write a line for each malformed
    /// or lost packet (if they come by a ring buffer, as the lines do); without it the verifier removes those lines from the
    /// program.
    ///
    /// aya raises RLIMIT_MEMLOCK itself where the kernel (before 5.11) charges maps to it.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn load(buffers: Buffers, debug: bool) -> Result<Self, KernelError> {
        capability::check()?;
        let bytes = buffers.rounded();
        let ring_bytes = bytes as u64;
        let mut loader = EbpfLoader::new();
        let level = if debug { aya_log::Level::Debug as u8 } else { 0 };
        let object = match buffers.transport.unwrap_or_else(Transport::of_this_kernel) {
            Transport::Ring => {
                loader.override_global(aya_log::LEVEL, &level, true);
                loader.override_global(name::RING_BYTES, &ring_bytes, true);
                loader.map_max_entries(name::EVENTS, u32::try_from(bytes).unwrap_or(1 << 31));
                RING_OBJECT
            }
            Transport::Perf => PERF_OBJECT,
        };
        let mut ebpf = loader.load(object)?;
        let log = if debug { EbpfLogger::init(&mut ebpf).ok() } else { None };
        let mut kernel = Self { ebpf, log, rules: HashMap::new(), buffer_bytes: bytes };
        kernel.expect_notes::<LossValue>()?;
        kernel.expect_notes::<ShedValue>()?;
        for name in [name::INGRESS, name::EGRESS_PROGRAM] {
            kernel.loaded(name)?;
        }
        Ok(kernel)
    }

    /// Opens the way back for packets. Once only, and within a tokio runtime.
    ///
    /// # Errors
    /// [`KernelError::Buffers`]; [`KernelError::Absent`] at a second call.
    pub fn packets(&mut self) -> Result<Packets, KernelError> {
        let bytes = self.buffer_bytes;
        let fault = |name| move |source| KernelError::Map { name, source };
        let events = self.ebpf.take_map(name::EVENTS).ok_or(KernelError::Absent(name::EVENTS))?;
        if let Map::PerfEventArray(_) = &events {
            let array = PerfEventArray::try_from(events).map_err(fault(name::EVENTS))?;
            return Ok(Packets::Perf(Perf::open(array, bytes)?));
        }
        let wake_at = self.ebpf.take_map(name::WAKE_AT).ok_or(KernelError::Absent(name::WAKE_AT))?;
        let wake_at = Array::try_from(wake_at).map_err(fault(name::WAKE_AT))?;
        let ring = RingBuf::try_from(events).map_err(|source| BufferError::Map { bytes, source })?;
        Ok(Packets::Ring(Box::new(Ring::open(ring, wake_at, bytes)?)))
    }

    /// Makes the maps hold exactly `rules` for `interface`. On an error the rules are partly in place, and
    /// the next call starts from what is there.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_rules(&mut self, interface: u32, rules: &Rules) -> Result<(), KernelError> {
        if !rules.egress.is_empty() {
            // Before there are any.
            self.has_egress(true)?;
        }
        let mut held = self.rules.remove(&interface).unwrap_or_default();
        let ports = self.sync(name::PORTS, &mut held.ports, &rules.ports, |&port| port_key(interface, port));
        let egress = self.sync(name::EGRESS, &mut held.egress, &rules.egress, |&(ip, port)| {
            egress_key(interface, ip, port)
        });
        if held != Rules::default() {
            self.rules.insert(interface, held);
        }
        let has = self.rules.values().any(|rules| !rules.egress.is_empty());
        ports.and(egress).and(self.has_egress(has))
    }

    /// Tells the kernel side whether it need look for egress targets.
    fn has_egress(&mut self, has: bool) -> Result<(), KernelError> {
        let fault = |source| KernelError::Map { name: name::HAS_EGRESS, source };
        let map = self.ebpf.map_mut(name::HAS_EGRESS).ok_or(KernelError::Absent(name::HAS_EGRESS))?;
        Array::<&mut MapData, u32>::try_from(map)
            .and_then(|mut map| map.set(0, u32::from(has), 0))
            .map_err(fault)
    }

    /// Removes all rules of `interface`.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn clear_rules(&mut self, interface: u32) -> Result<(), KernelError> {
        self.set_rules(interface, &Rules::default())
    }

    /// How many rules the kernel's maps hold, of all interfaces, by asking the maps themselves. One system
    /// call for each: for tests and diagnosis.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn rule_count(&self) -> Result<usize, KernelError> {
        Ok(self.count::<PortKey>(name::PORTS)? + self.count::<EgressKey>(name::EGRESS)?)
    }

    /// The id of a map, by which any process may look at it: for tests and diagnosis.
    ///
    /// # Errors
    /// [`KernelError::Absent`], [`KernelError::Map`].
    pub fn map_id(&self, name: &'static str) -> Result<u32, KernelError> {
        match self.ebpf.map(name) {
            Some(Map::PerCpuHashMap(map) | Map::HashMap(map) | Map::PerCpuArray(map)) => {
                Ok(map.info().map_err(|source| KernelError::Map { name, source })?.id())
            }
            _ => Err(KernelError::Absent(name)),
        }
    }

    fn count<K: aya::Pod>(&self, name: &'static str) -> Result<usize, KernelError> {
        let fault = |source| KernelError::Map { name, source };
        let map = self.ebpf.map(name).ok_or(KernelError::Absent(name))?;
        let map = aya::maps::HashMap::<&MapData, K, u8>::try_from(map).map_err(fault)?;
        map.keys().try_fold(0, |count, key| key.map(|_| count + 1)).map_err(fault)
    }

    /// Makes the map's entries `held` into `wanted`, and `held` say what was reached.
    fn sync<R: Ord + Clone, K: aya::Pod>(
        &mut self,
        name: &'static str,
        held: &mut BTreeMap<R, u8>,
        wanted: &BTreeMap<R, u8>,
        key: impl Fn(&R) -> K,
    ) -> Result<(), KernelError> {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::Absent(name))?;
        let fault = |source| KernelError::Map { name, source };
        let mut map = aya::maps::HashMap::<_, K, u8>::try_from(map).map_err(fault)?;
        let gone: Vec<R> = held.keys().filter(|rule| !wanted.contains_key(rule)).cloned().collect();
        for rule in gone {
            match map.remove(&key(&rule)) {
                Err(error) if !is_errno(&error, nix::libc::ENOENT) => return Err(fault(error)),
                _ => {}
            }
            held.remove(&rule);
        }
        for (rule, &protocol) in wanted {
            if held.get(rule) != Some(&protocol) {
                map.insert(key(rule), protocol, 0).map_err(fault)?;
                held.insert(rule.clone(), protocol);
            }
        }
        Ok(())
    }

    /// What became of each packet so far.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn verdicts(&self) -> Result<Verdicts, KernelError> {
        let fault = |source| KernelError::Map { name: name::VERDICTS, source };
        let map = self.ebpf.map(name::VERDICTS).ok_or(KernelError::Absent(name::VERDICTS))?;
        let map = PerCpuArray::<&MapData, u64>::try_from(map).map_err(fault)?;
        let mut verdicts = Verdicts::default();
        for direction in [direction::FROM_POD, direction::TO_POD] {
            for verdict in Verdict::ALL {
                let by_cpu = map.get(&verdict.index(direction), 0).map_err(fault)?;
                verdicts.counts[usize::from(direction)][verdict as usize] = by_cpu.iter().sum();
            }
        }
        Ok(verdicts)
    }

    /// Packets that were wanted and lost so far, both directions: a part of [`Self::verdicts`] that is cheap to look at.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn lost(&self) -> Result<u64, KernelError> {
        Ok(self.lost_by_cpu()?.iter().sum())
    }

    /// The same by CPU.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn lost_by_cpu(&self) -> Result<Vec<u64>, KernelError> {
        let fault = |source| KernelError::Map { name: name::VERDICTS, source };
        let map = self.ebpf.map(name::VERDICTS).ok_or(KernelError::Absent(name::VERDICTS))?;
        let map = PerCpuArray::<&MapData, u64>::try_from(map).map_err(fault)?;
        let mut lost = Vec::new();
        for direction in [direction::FROM_POD, direction::TO_POD] {
            for verdict in Verdict::LOST {
                let by_cpu = map.get(&verdict.index(direction), 0).map_err(fault)?;
                lost.resize(by_cpu.len(), 0);
                lost.iter_mut().zip(by_cpu.iter()).for_each(|(sum, packets)| *sum += packets);
            }
        }
        Ok(lost)
    }

    /// The kernel's times of one connection.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn session(&self, key: &SessionKey) -> Result<Option<SessionValue>, KernelError> {
        match self.sessions()?.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(KernelError::Map { name: name::SESSIONS, source }),
        }
    }

    /// How many connections the kernel remembers. One system call for each: for tests and diagnosis.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn session_count(&self) -> Result<usize, KernelError> {
        Ok(self.sessions()?.keys().flatten().count())
    }

    fn sessions(&self) -> Result<aya::maps::HashMap<&MapData, SessionKey, SessionValue>, KernelError> {
        let map = self.ebpf.map(name::SESSIONS).ok_or(KernelError::Absent(name::SESSIONS))?;
        aya::maps::HashMap::try_from(map).map_err(|source| KernelError::Map { name: name::SESSIONS, source })
    }

    /// Writes the kernel side's log lines, if any, to the `log` crate's logger. Call it now and then.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// A classifier by name, loaded into the kernel if it is not yet: those for pods' namespaces cost nothing
    /// where none is entered.
    ///
    /// # Errors
    /// [`KernelError::Absent`], [`KernelError::Program`].
    pub(super) fn loaded(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        let program = self.program(name)?;
        if program.fd().is_err() {
            program.load().map_err(|source| KernelError::Program { name, source })?;
        }
        Ok(program)
    }

    /// A classifier by name: one of [`name::INGRESS`] and [`name::EGRESS_PROGRAM`], and the two for pods'
    /// namespaces.
    ///
    /// # Errors
    /// [`KernelError::Absent`].
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        let program = self.ebpf.program_mut(name).ok_or(KernelError::Absent(name))?;
        program.try_into().map_err(|source| KernelError::Program { name, source })
    }
}

fn port_key(interface: u32, port: u16) -> PortKey {
    PortKey { interface, port, pad: 0 }
}

fn egress_key(interface: u32, address: Option<IpAddr>, port: u16) -> EgressKey {
    let address = match address {
        None => ANY_ADDRESS,
        Some(IpAddr::V4(address)) => address.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(address)) => address.octets(),
    };
    EgressKey { interface, port, pad: 0, address }
}
