//! The options of what happens where there is more than the agent can take.

use clap::Args;

use super::parse;
use crate::overload::Setting;

/// Least number of bytes in a row of which the kernel is told under pressure that nobody looks at them: telling costs about as much
/// as copying a few times that, and leaves room in the buffer.
const UNNEEDED: u64 = 16 << 10;

/// What happens under overload.
#[derive(Clone, Copy, Debug, Args)]
pub struct OverloadArgs {
    /// Processor time that Clovisor may use, in processors: 0.5 or 500m. Where it needs more, it leaves out sessions, of the interfaces with
    /// the most traffic first, as it does where the buffer is full. As much as it gets if not given. What the kernel does for each
    /// packet is not in it
    #[arg(long, value_name = "CORES", value_parser = parse::cores, env = "CLOVISOR_CPU")]
    pub cpu: Option<f64>,
    /// Never leave out sessions that could be traced: packets are lost instead where there are too many, and sessions seen in part. With
    /// --write it is always so
    #[arg(long, env = "CLOVISOR_NO_SHEDDING", conflicts_with = "cpu")]
    pub no_shedding: bool,
}

impl OverloadArgs {
    /// What is left out, if anything is, where usually so many bytes in a row are not copied.
    #[must_use]
    pub fn setting(&self, unneeded: Option<u64>) -> Option<Setting> {
        let setting = Setting { cpu: self.cpu, unneeded: [unneeded, Some(UNNEEDED)] };
        (!self.no_shedding).then_some(setting)
    }
}
