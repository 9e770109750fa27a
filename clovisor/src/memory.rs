//! What flows and queues of spans may hold together, and how it is shared between them.
//!
//! It refuses to count what does not grow with traffic: the program, the buffer between kernel and agent, the maps of the kernel side.

/// A bound in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes: usize,
}

/// Default in MiB: 48 for flows are those of 45,000 idle connections, more than a node of 110 pods with 300 each has, and 16 for
/// spans bridge a collector's restart. It is a quarter of the manifests' limit.
pub const DEFAULT_MIB: u16 = 64;
/// What there must be room for beside, in MiB: the program, the buffer and the maps, what is on its way to a collector, and what the
/// allocator keeps (docs/performance.md, Memory).
const BESIDE_MIB: u64 = 40;
/// Least in MiB: one stream may hold 8 out of order ([`clovisor_trace::Limits::stream`]).
pub const LEAST_MIB: u16 = 12;

impl Memory {
    /// So many MiB.
    #[must_use]
    pub const fn mib(mib: u16) -> Self {
        Self { bytes: (mib as usize) << 20 }
    }

    /// The default where a control group allows so many bytes, if it does: what it has room for.
    #[must_use]
    pub fn within(limit: Option<u64>) -> Self {
        let room = limit.map_or(u64::MAX, |bytes| (bytes >> 20).saturating_sub(BESIDE_MIB));
        let mib = room.clamp(LEAST_MIB.into(), DEFAULT_MIB.into());
        Self::mib(u16::try_from(mib).unwrap_or(DEFAULT_MIB))
    }

    /// What all may hold together, in bytes.
    #[must_use]
    pub const fn of_all(self) -> usize {
        self.bytes
    }

    /// The share of flows, three quarters: connections that are forgotten lose sessions that nothing brings back.
    #[must_use]
    pub const fn of_flows(self) -> usize {
        self.bytes - self.bytes / 4
    }

    /// The share of one of so many queues of spans, which have a quarter together.
    #[must_use]
    pub fn of_queue(self, queues: usize) -> usize {
        self.bytes / 4 / queues.max(1)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::mib(DEFAULT_MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_fits_into_the_control_group() {
        for (limit, expected) in [
            (None, 64),
            (Some(256 << 20), 64),
            (Some(96 << 20), 56),
            (Some(64 << 20), 24),
            (Some(32 << 20), 12),
            (Some(0), 12),
            (Some(u64::MAX), 64),
        ] {
            assert_eq!(Memory::within(limit), Memory::mib(expected), "{limit:?}");
        }
    }

    #[test]
    fn the_shares_are_the_whole() {
        for mib in [LEAST_MIB, DEFAULT_MIB, u16::MAX] {
            let memory = Memory::mib(mib);
            for queues in [1, 2, 3] {
                assert!(memory.of_flows() + queues * memory.of_queue(queues) <= usize::from(mib) << 20);
            }
            assert_eq!(memory.of_flows() + memory.of_queue(1), usize::from(mib) << 20);
        }
        assert!(Memory::mib(LEAST_MIB).of_flows() >= clovisor_trace::Limits::default().stream);
    }
}
