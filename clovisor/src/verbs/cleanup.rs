//! `clovisor cleanup`: removes what killed instances left, here and inside pods, and nothing else.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::datapath::{attach::Attacher, capability, veth::Paths};

/// Sweeps all interfaces of this network namespace, and of those that have a file where container runtimes keep them.
///
/// # Errors
/// The kernel refuses, for want of NET_ADMIN for example.
pub async fn cleanup() -> Result<ExitCode> {
    let attacher = Attacher::new().await.context("cannot look at the interfaces")?;
    let swept = attacher.sweep().await.context("cannot clean up")?;
    let directory = Paths::default().netns;
    let (inside, refused) = if capability::may_enter() && directory.is_dir() {
        attacher.sweep_inside(&directory).await.context("cannot clean up inside pods")?
    } else {
        println!("pods' network namespaces were not looked at: that needs CAP_SYS_ADMIN and /run/netns");
        Default::default()
    };
    if refused > 0 {
        println!("{refused} network namespaces could not be looked at");
    }
    let swept = swept + inside;
    println!(
        "removed {} filters and {} clsact qdiscs that killed instances had left",
        swept.filters, swept.qdiscs
    );
    Ok(ExitCode::SUCCESS)
}
