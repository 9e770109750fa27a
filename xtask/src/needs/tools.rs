//! Commands of cargo: those that rustup brings as components, and cargo-deny, which is built into the cache.

use std::path::PathBuf;

use anyhow::Result;

use crate::{cache, process, workspace};

/// Version of cargo-deny whose checks `deny.toml` is written for.
const CARGO_DENY_VERSION: &str = "0.20.2";

pub(super) fn has_cargo_command(name: &str) -> bool {
    process::succeeds(workspace::cargo().args([name, "--version"]))
}

fn entry() -> String {
    format!("cargo-deny-{CARGO_DENY_VERSION}")
}

/// Where cargo-deny is, or would be.
pub(crate) fn cargo_deny() -> PathBuf {
    cache::dir().join(entry()).join("bin/cargo-deny")
}

pub(super) fn build_cargo_deny() -> Result<()> {
    let entry = entry();
    cache::install(
        &entry,
        || cargo_deny().is_file(),
        |dir| {
            let mut cargo = workspace::cargo();
            cargo
                .args(["install", "cargo-deny", "--version", CARGO_DENY_VERSION, "--locked", "--root"])
                .arg(dir)
                .env_remove("CARGO_TARGET_DIR");
            process::logged(&format!("building {entry}"), "2 to 5 min", &mut cargo, &cache::log(&entry))
        },
    )
}
