//! The option that bounds memory.

use clap::Args;

use crate::{
    cgroup,
    memory::{LEAST_MIB, Memory},
};

/// The bound of memory.
#[derive(Clone, Copy, Debug, Args)]
pub struct MemoryArgs {
    /// What connections and spans may hold together, in MiB: three quarters for connections, of which the one that was silent longest is
    /// given up when they are used, and a quarter for spans that wait, of which the newest is dropped then. Both are counted. The
    /// agent takes 20 MiB and the buffer besides. [default: 64, less where the memory limit of the control group has no room for it]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u16).range(i64::from(LEAST_MIB)..), env = "CLOVISOR_MEMORY")]
    pub memory: Option<u16>,
}

impl MemoryArgs {
    /// The bound, by the control group's limit if none is set.
    #[must_use]
    pub fn bound(self) -> Memory {
        if let Some(mib) = self.memory {
            return Memory::mib(mib);
        }
        let limit = cgroup::memory_limit();
        let bound = Memory::within(limit);
        if let Some(limit) = limit.filter(|_| bound != Memory::default()) {
            tracing::info!(
                "the control group allows {} MiB, so connections and spans may hold {} together; --memory says otherwise",
                limit >> 20,
                bound.of_all() >> 20
            );
        }
        bound
    }
}
