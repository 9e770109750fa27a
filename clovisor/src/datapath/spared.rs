//! What nobody looks at, told to the kernel side, so that it does not copy it; and what it has counted instead.
//!
//! A connection of which something is not needed has a slot: there the agent writes what, and the kernel side how many packets it
//! has only counted. It tells that by records among the packets. What it has not told yet is read here where it matters: when a
//! connection seems silent, and when tracing ends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError};
use clovisor_common::counting::{self, SLOTS, slot};
use clovisor_common::{SessionKey, SessionValue, Tale, Window, name};
use clovisor_trace::{Counted, Side, Unneeded, Way};

use super::kernel::{Kernel, KernelError};

/// BPF_EXIST: replace, and make no entry.
const REPLACE: u64 = 2;

/// The slots.
#[derive(Default)]
pub struct Spared {
    by_connection: HashMap<SessionKey, usize>,
    /// Those that were ever given out, in the order of their indexes.
    slots: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    /// The name of who has it: the index in its lower bits, and how often it was given out.
    owner: u32,
    connection: SessionKey,
    side: Side,
    /// Of each direction what was told: packets with payload and without, and bytes on the wire.
    told: [(u32, u32, u64); 2],
}

impl Spared {
    /// Says which bytes of a connection are not needed, and whether their packets may be counted. The kernel side forgets connections that were used least lately, and all
    /// slots may be given out: then nothing is spared. What was counted before the kernel side forgot this one is returned.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn spare(
        &mut self,
        kernel: &mut Kernel,
        unneeded: &Unneeded,
        bytes: [(u32, u32); 2],
        counts: bool,
    ) -> Result<Option<Counted>, KernelError> {
        let connection = session_key(unneeded.interface, unneeded.client, unneeded.server);
        let Some(mut value) = kernel.connection(&connection)? else { return Ok(None) };
        let mut before = None;
        if let Some(&index) = self.by_connection.get(&connection)
            && self.slots[index].owner != value.slot
        {
            before = self.forget(kernel, unneeded)?;
        }
        let (index, is_new) = match self.by_connection.get(&connection) {
            Some(index) => (*index, false),
            None => match self.give_out(connection, unneeded.side) {
                Some(index) => (index, true),
                None => return Ok(before),
            },
        };
        let owner = self.slots[index].owner;
        let unneeded = bytes.map(|(from, until)| Window { from, until });
        // How far a connection had come when it got its slot may be forgotten.
        let counts = (counts && !is_new).into();
        kernel.set_spared(owner, clovisor_common::Spared { owner, counts, unneeded })?;
        if is_new {
            value.slot = owner;
            if !kernel.replace_connection(&connection, value)? {
                self.take_back(index);
            }
        }
        Ok(before)
    }

    /// What a record says that was not known. Nothing if its slot has been given to another since: it was read then.
    pub fn told(&mut self, tale: &Tale) -> Option<Counted> {
        self.slots.get_mut(slot(tale.counted.owner) as usize)?.news(&tale.counted)
    }

    /// What was counted of a connection and not told yet. `None` if anything of it came to user space later than `since_ns`, so that
    /// a record of it may still be on its way, which comes before.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn ask(
        &mut self,
        kernel: &Kernel,
        unneeded: &Unneeded,
        since_ns: u64,
    ) -> Result<Option<Counted>, KernelError> {
        let connection = session_key(unneeded.interface, unneeded.client, unneeded.server);
        let Some(&index) = self.by_connection.get(&connection) else { return Ok(Some(nothing(unneeded))) };
        let slot = &mut self.slots[index];
        let counted = kernel.counted(slot.owner)?;
        if counted.owner == slot.owner && counted.told_ns > since_ns {
            return Ok(None);
        }
        Ok(Some(slot.news(&counted).unwrap_or_else(|| nothing(unneeded))))
    }

    /// All bytes of a connection are needed again. What was counted and not told.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn forget(
        &mut self,
        kernel: &mut Kernel,
        unneeded: &Unneeded,
    ) -> Result<Option<Counted>, KernelError> {
        let connection = session_key(unneeded.interface, unneeded.client, unneeded.server);
        let Some(&index) = self.by_connection.get(&connection) else { return Ok(None) };
        let owner = self.slots[index].owner;
        // From here on nothing is counted there, so that nothing is lost of what is read next.
        kernel.set_spared(owner, clovisor_common::Spared::default())?;
        let counted = kernel.counted(owner)?;
        let news = self.slots[index].news(&counted);
        self.take_back(index);
        Ok(news)
    }

    /// What was counted and not told, at an interface or everywhere: tracing ends there, and all records have been read.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn rest(&mut self, kernel: &Kernel, of: Option<u32>) -> Result<Vec<Counted>, KernelError> {
        let mut all = Vec::new();
        for index in self.by_connection.values() {
            let slot = &mut self.slots[*index];
            if of.is_none_or(|interface| slot.connection.interface == interface) {
                all.extend(slot.news(&kernel.counted(slot.owner)?));
            }
        }
        Ok(all)
    }

    /// Packets that were counted and not told.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn untold(&self, kernel: &Kernel) -> Result<u64, KernelError> {
        let mut packets = 0;
        for index in self.by_connection.values() {
            let slot = &self.slots[*index];
            let counted = kernel.counted(slot.owner)?;
            if counted.owner == slot.owner {
                packets += u64::from(counted.packets().wrapping_sub(slot.packets()));
            }
        }
        Ok(packets)
    }

    /// Gives a slot to a connection, if there is one.
    fn give_out(&mut self, connection: SessionKey, side: Side) -> Option<usize> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < SLOTS as usize => {
                let owner = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot { owner, connection, side, told: [(0, 0, 0); 2] });
                self.slots.len() - 1
            }
            None => return None,
        };
        let before = self.slots[index].owner;
        // No slot is named 0, and the name comes again only when others have come between.
        let next = before.wrapping_add(SLOTS);
        let owner = if next < SLOTS { next.wrapping_add(SLOTS) } else { next };
        self.slots[index] = Slot { owner, connection, side, told: [(0, 0, 0); 2] };
        self.by_connection.insert(connection, index);
        Some(index)
    }

    fn take_back(&mut self, index: usize) {
        self.by_connection.remove(&self.slots[index].connection);
        self.free.push(index);
    }
}

impl Slot {
    /// Packets that were told.
    fn packets(&self) -> u32 {
        self.told.iter().fold(0, |sum: u32, (full, empty, _)| sum.wrapping_add(*full).wrapping_add(*empty))
    }

    /// What was counted and not told before; nothing if it is of another who had the slot.
    fn news(&mut self, counted: &counting::Counted) -> Option<Counted> {
        if counted.owner != self.owner {
            return None;
        }
        let mut ways = [Way::default(); 2];
        for ((way, told), counted) in ways.iter_mut().zip(&mut self.told).zip(&counted.ways) {
            // What was read in the meantime may be more than an earlier record says.
            let news = |now: u32, before: u32| {
                let more = now.wrapping_sub(before);
                if more < 1 << 31 { more } else { 0 }
            };
            let (full, empty) = (news(counted.full, told.0), news(counted.empty, told.1));
            let wire = counted.wire.saturating_sub(told.2);
            *told = (told.0.wrapping_add(full), told.1.wrapping_add(empty), told.2 + wire);
            let (acked, full_ns, last_ns) = (counted.acked, counted.full_ns, counted.last_ns);
            *way = Way { bytes: counted.range(), acked, full, empty, wire, full_ns, last_ns };
        }
        let SessionKey { interface, client, server, client_port, server_port } = self.connection;
        let [client, server] = [(client, client_port), (server, server_port)]
            .map(|(octets, port)| SocketAddr::new(IpAddr::from(octets).to_canonical(), port));
        Some(Counted { interface, side: self.side, client, server, ways })
    }
}

/// Nothing was counted.
fn nothing(unneeded: &Unneeded) -> Counted {
    let Unneeded { interface, side, client, server, .. } = *unneeded;
    Counted { interface, side, client, server, ways: [Way::default(); 2] }
}

impl Kernel {
    /// What the kernel side knows of a connection, if it does.
    fn connection(&self, key: &SessionKey) -> Result<Option<SessionValue>, KernelError> {
        let fault = |source| KernelError::Map { name: name::SESSIONS, source };
        let map = self.ebpf.map(name::SESSIONS).ok_or(KernelError::Absent(name::SESSIONS))?;
        let map = BpfHashMap::<&MapData, SessionKey, SessionValue>::try_from(map).map_err(fault)?;
        match map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(fault(source)),
        }
    }

    /// Replaces that; whether it is still there. It is replaced as a whole, since a system call cannot write a part of it: what the
    /// kernel side writes meanwhile may be lost: how far the connection has come. None of its packets is counted until the tracer has seen
    /// a newer one of each direction.
    fn replace_connection(&mut self, key: &SessionKey, value: SessionValue) -> Result<bool, KernelError> {
        let fault = |source| KernelError::Map { name: name::SESSIONS, source };
        let map = self.ebpf.map_mut(name::SESSIONS).ok_or(KernelError::Absent(name::SESSIONS))?;
        let mut map = BpfHashMap::<&mut MapData, SessionKey, SessionValue>::try_from(map).map_err(fault)?;
        match map.insert(key, value, REPLACE) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
                Ok(false)
            }
            Err(source) => Err(fault(source)),
        }
    }

    /// Says what is not needed, in the slot of a name.
    fn set_spared(&mut self, of: u32, spared: clovisor_common::Spared) -> Result<(), KernelError> {
        let fault = |source| KernelError::Map { name: name::UNNEEDED, source };
        let map = self.ebpf.map_mut(name::UNNEEDED).ok_or(KernelError::Absent(name::UNNEEDED))?;
        let mut map = Array::<&mut MapData, clovisor_common::Spared>::try_from(map).map_err(fault)?;
        map.set(slot(of), spared, 0).map_err(fault)
    }

    /// What was counted, by the slot of a name.
    fn counted(&self, owner: u32) -> Result<counting::Counted, KernelError> {
        let fault = |source| KernelError::Map { name: name::COUNTED, source };
        let map = self.ebpf.map(name::COUNTED).ok_or(KernelError::Absent(name::COUNTED))?;
        let map = Array::<&MapData, counting::Counted>::try_from(map).map_err(fault)?;
        map.get(&slot(owner), 0).map_err(fault)
    }
}

/// A connection, as the kernel side knows it.
pub(super) fn session_key(interface: u32, client: SocketAddr, server: SocketAddr) -> SessionKey {
    SessionKey {
        client: octets(client),
        server: octets(server),
        client_port: client.port(),
        server_port: server.port(),
        interface,
    }
}

/// IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2).
fn octets(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
