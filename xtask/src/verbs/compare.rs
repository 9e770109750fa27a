//! `cargo xtask compare`: what other programs make of the captures of the tests.

use anyhow::Result;

use crate::needs::{self, Need, SURICATA, Unmet, suricata};
use crate::{process, workspace};

/// Compare Clovisor with tshark, and with Suricata, over all captures of the tests.
///
/// `cargo xtask test` compares with tshark too. Known differences and their reasons are in
/// clovisor-trace/tests/compare/differences.md; any other one is a failure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also with Suricata, which is heavy: the first time a small Debian 13 that has it is made in the cache, as root
    #[arg(long)]
    suricata: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = workspace::cargo();
    command.args([
        "test",
        "--locked",
        "--package",
        "clovisor-trace",
        "--test",
        "compare",
        "--",
        "--show-output",
    ]);
    needs::ensure(&[Need::Cc, Need::Tshark])?;
    if arguments.suricata {
        if !process::is_root() {
            return Err(Unmet::root("compare --suricata", "runs Suricata in a system of its own").into());
        }
        needs::ensure(&SURICATA)?;
        command.arg("--include-ignored").env("CLOVISOR_SURICATA", suricata::root());
    }
    process::run(&mut command)
}
