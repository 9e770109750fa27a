//! What nobody looks at, told to the kernel side, so that it does not copy it.

use std::net::{IpAddr, SocketAddr};

use aya::maps::{HashMap, MapError};
use clovisor_common::{SessionKey, SessionValue, Window, name};
use clovisor_trace::{Toward, Unneeded};

use super::kernel::{Kernel, KernelError};

/// BPF_EXIST: replace, and make no entry.
const REPLACE: u64 = 2;

impl Kernel {
    /// Says which bytes of a connection need not be copied. Whether the kernel side knows the connection: it forgets those that were
    /// used least lately, and copies all of theirs.
    ///
    /// The element is replaced as a whole, since a system call cannot write a part of it. A time that the kernel side writes meanwhile
    /// may be lost, which is one packet old.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn spare(&mut self, unneeded: &Unneeded) -> Result<bool, KernelError> {
        let fault = |source| KernelError::Map { name: name::SESSIONS, source };
        let map = self.ebpf.map_mut(name::SESSIONS).ok_or(KernelError::Absent(name::SESSIONS))?;
        let mut map = HashMap::<_, SessionKey, SessionValue>::try_from(map).map_err(fault)?;
        let key = session_key(unneeded.interface, unneeded.client, unneeded.server);
        let mut value = match map.get(&key, 0) {
            Ok(value) => value,
            Err(MapError::KeyNotFound) => return Ok(false),
            Err(source) => return Err(fault(source)),
        };
        let (from, until) = unneeded.bytes;
        value.unneeded[side(unneeded.toward)] = Window { from, until };
        match map.insert(key, value, REPLACE) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
                Ok(false)
            }
            Err(source) => Err(fault(source)),
        }
    }
}

/// Place of a direction in [`SessionValue::unneeded`]: first what the client sends.
fn side(toward: Toward) -> usize {
    match toward {
        Toward::Server => 0,
        Toward::Client => 1,
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
