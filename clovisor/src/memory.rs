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
/// Least in MiB: one stream may hold 8 out of order ([`clovisor_trace::Limits::stream`]).
pub const LEAST_MIB: u16 = 12;

impl Memory {
    /// So many MiB.
    #[must_use]
    pub const fn mib(mib: u16) -> Self {
        Self { bytes: (mib as usize) << 20 }
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
