//! The option that bounds memory.

use clap::Args;

use crate::memory::{DEFAULT_MIB, LEAST_MIB, Memory};

/// The bound of memory.
#[derive(Clone, Copy, Debug, Args)]
pub struct MemoryArgs {
    /// What connections and spans may hold together, in MiB: three quarters for connections, of which the one that was silent longest is
    /// given up when they are used, and a quarter for spans that wait, of which the newest is dropped then. Both are counted. The
    /// agent takes 20 MiB and the buffer besides
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_MIB, value_parser = clap::value_parser!(u16).range(i64::from(LEAST_MIB)..), env = "CLOVISOR_MEMORY")]
    pub memory: u16,
}

impl From<MemoryArgs> for Memory {
    fn from(arguments: MemoryArgs) -> Self {
        Self::mib(arguments.memory)
    }
}
