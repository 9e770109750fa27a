//! `cargo xtask build`: the agent for release, with the kernel side inside it.

use anyhow::Result;

use crate::{needs, workspace};

/// Build the `clovisor` program for release, with the kernel side inside it.
///
/// Gets the eBPF toolchain first where it is missing; once it is there, `cargo build --release` does the same.
/// Prints the program's path.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run() -> Result<()> {
    needs::ensure(&needs::BUILD)?;
    let program = workspace::build_clovisor()?;
    println!("{}", program.display());
    Ok(())
}
