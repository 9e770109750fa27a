//! The options of the buffers between kernel and agent.

use clap::{Args, ValueEnum};

use crate::datapath::packets::{Buffers, DEFAULT_BUFFER, Transport};

/// [`DEFAULT_BUFFER`] in MiB.
const DEFAULT_MIB: u16 = 4;
const _: () = assert!(DEFAULT_BUFFER == (DEFAULT_MIB as usize) << 20);

/// The buffers between kernel and agent.
#[derive(Clone, Copy, Debug, Args)]
pub struct BufferArgs {
    /// Size of the buffer between kernel and agent, in MiB, rounded up to a power of two; of perf buffers, of each CPU's. 4 MiB hold
    /// 30 ms of traffic at 1 Gbit/s
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_MIB, value_parser = clap::value_parser!(u16).range(1..=1024), env = "CLOVISOR_BUFFER")]
    pub buffer: u16,
    /// How packets come from the kernel: by one ring buffer, by a perf buffer of each CPU, or by the first that this kernel has
    #[arg(long, value_enum, default_value_t, env = "CLOVISOR_TRANSPORT")]
    pub transport: TransportArg,
    /// Copy all bytes of the packets that are traced, also those that nobody looks at: bodies of known length, upgraded connections,
    /// and those without a parser. Spans are the same; it costs processor time. With --write it is always so
    #[arg(long, env = "CLOVISOR_COPY_ALL")]
    pub copy_all: bool,
}

/// Least number of bytes in a row of which the kernel is told that nobody looks at them: telling costs two system calls, about as
/// much as copying these.
const UNNEEDED: u64 = 64 << 10;

impl BufferArgs {
    /// How many bytes in a row nobody must look at so that they are not copied; `None`: all are.
    #[must_use]
    pub fn unneeded(&self) -> Option<u64> {
        (!self.copy_all).then_some(UNNEEDED)
    }
}

/// [`Transport`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    /// A ring buffer; perf buffers before kernel 5.8
    #[default]
    Auto,
    /// A ring buffer
    Ring,
    /// Perf buffers: they cost several times as much
    Perf,
}

impl From<BufferArgs> for Buffers {
    fn from(arguments: BufferArgs) -> Self {
        let transport = match arguments.transport {
            TransportArg::Auto => None,
            TransportArg::Ring => Some(Transport::Ring),
            TransportArg::Perf => Some(Transport::Perf),
        };
        Self { transport, bytes: usize::from(arguments.buffer) << 20 }
    }
}
