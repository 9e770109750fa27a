//! `clovisor cleanup`: removes what killed instances left, and nothing else.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::datapath::attach::Attacher;

/// Sweeps all interfaces of this network namespace.
///
/// # Errors
/// The kernel refuses, for want of NET_ADMIN for example.
pub async fn cleanup() -> Result<ExitCode> {
    let attacher = Attacher::new().await.context("cannot look at the interfaces")?;
    let swept = attacher.sweep().await.context("cannot clean up")?;
    println!(
        "removed {} filters and {} clsact qdiscs that killed instances had left",
        swept.filters, swept.qdiscs
    );
    Ok(ExitCode::SUCCESS)
}
