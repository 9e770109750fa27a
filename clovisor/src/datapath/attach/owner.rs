//! Whose filter is it? Each running Clovisor is an instance with a random id; the names of its filters carry
//! the id, and as long as it lives it holds an abstract Unix socket of that name. Such a socket belongs to
//! one network namespace, as filters do, and vanishes with its process, however that ends. So a filter whose
//! instance has no socket is a leftover, and anyone's else is not ours to touch.
//!
//! A filter inside a pod's namespace was put there from another one, where the socket is: so its name tells that
//! one (`-from-` and its inode), and only who is at home there may judge whether its owner lives. To a Clovisor that
//! runs in the pod's namespace it is another's.
//!
//! A name also says whether a Clovisor made the clsact qdisc that the filter is on (`-clsact`): the last
//! one to leave such a qdisc deletes it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::netlink::Hook;

const PREFIX: &str = "clovisor-";
const FROM: &str = "-from-";
const MADE_CLSACT: &str = "-clsact";
/// Ids are tried until a free one is found; a second try is already a chance of one in billions.
const TRIES: u32 = 8;

/// This process, as the owner of filters.
pub(super) struct Instance {
    pub(super) id: u32,
    /// Never read: that it exists is the message.
    _alive: UnixDatagram,
}

impl Instance {
    /// Takes a free id in the network namespace of the calling thread.
    pub(super) fn new() -> io::Result<Self> {
        let mut result = Err(io::Error::from(io::ErrorKind::AddrInUse));
        for _ in 0..TRIES {
            // The standard library's hasher is seeded from the system's random numbers.
            let seed = RandomState::new().build_hasher().finish().to_ne_bytes();
            let id = u32::from_ne_bytes([seed[0], seed[1], seed[2], seed[3]]);
            result = address(id).and_then(|address| UnixDatagram::bind_addr(&address));
            match result {
                Ok(alive) => return Ok(Self { id, _alive: alive }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => result = Err(error),
                Err(error) => return Err(error),
            }
        }
        result.map(|alive| Self { id: 0, _alive: alive })
    }
}

/// What the name of one of our filters says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The instance.
    pub(super) id: u32,
    /// Inode of the network namespace that the instance is in, where the filter is in another.
    pub(super) home: Option<u64>,
    /// Whether a Clovisor made the qdisc that the filter is on.
    pub(super) made_clsact: bool,
}

impl Owner {
    /// Name of this owner's filter on a hook.
    pub(super) fn filter_name(self, hook: Hook) -> String {
        let home = self.home.map(|home| format!("{FROM}{home:x}")).unwrap_or_default();
        let mark = if self.made_clsact { MADE_CLSACT } else { "" };
        format!("{PREFIX}{:08x}-{}{home}{mark}", self.id, hook.name())
    }

    /// The owner, where the name is one of ours: exactly the form of [`Self::filter_name`].
    pub(super) fn of(name: &str, hook: Hook) -> Option<Self> {
        let (id, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let rest = rest.strip_prefix(hook.name())?;
        let unmarked = rest.strip_suffix(MADE_CLSACT);
        let home = match unmarked.unwrap_or(rest).strip_prefix(FROM) {
            Some(home) => Some(u64::from_str_radix(home, 16).ok()?),
            None => None,
        };
        let id = u32::from_str_radix(id, 16).ok()?;
        let owner = Self { id, home, made_clsact: unmarked.is_some() };
        (owner.filter_name(hook) == name).then_some(owner)
    }

    /// Whether the instance lives, asked in its own network namespace. Only a clear "nobody there" means no.
    pub(super) fn is_alive(self) -> bool {
        let probe = UnixDatagram::unbound()
            .and_then(|socket| address(self.id).and_then(|address| socket.connect_addr(&address)));
        !matches!(probe, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

fn address(id: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{PREFIX}{id:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        for hook in Hook::BOTH {
            for (made_clsact, home) in
                [(false, None), (true, None), (false, Some(0xf000_0001)), (true, Some(1))]
            {
                let owner = Owner { id: 0xab, home, made_clsact };
                assert_eq!(Owner::of(&owner.filter_name(hook), hook), Some(owner));
            }
        }
        let foreign = [
            "clovisor",
            "clovisor-",
            "clovisor-zz-ingress",
            "clovisor-ab-ingress",
            "clovisor-000000ab-egress",
            "clovisor-000000ab-ingress-other",
            "clovisor-000000AB-ingress",
            "clovisor-000000ab-ingress-from-",
            "clovisor-000000ab-ingress-from-0F",
            "clovisor-000000ab-ingress-clsact-from-f",
            "handle_ingress",
        ];
        for name in foreign {
            assert_eq!(Owner::of(name, Hook::Ingress), None, "{name}");
        }
    }

    #[test]
    fn an_instance_lives_as_long_as_it_is_held() {
        let instance = Instance::new().unwrap();
        let owner = Owner { id: instance.id, home: None, made_clsact: false };
        assert!(owner.is_alive());
        drop(instance);
        assert!(!owner.is_alive());
    }
}
