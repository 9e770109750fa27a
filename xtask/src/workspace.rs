//! Where things are in the checkout, and what cargo says about it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

/// What variables begin with that cargo sets of the package that it runs.
const OF_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// The root of the checkout that this xtask belongs to.
pub(crate) fn root() -> PathBuf {
    // Cargo says it when it runs us; the compiled-in value serves a binary that was started by hand.
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// A cargo command that runs in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo has said of this package to us. Build scripts look at such variables (ring's does), and all that is built on them would be
    // built anew whenever cargo is called by hand and by xtask in turn.
    for (name, _) in env::vars_os() {
        if OF_PACKAGE.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// A command that runs in the root of the checkout.
pub(crate) fn in_root(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The manifests of all workspace members.
pub(crate) fn manifests() -> Result<Vec<PathBuf>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let paths = packages.iter().filter_map(|package| package["manifest_path"].as_str().map(PathBuf::from));
    Ok(paths.collect())
}

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata()?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(dir.into())
}

fn metadata() -> Result<Value> {
    let mut command = cargo();
    let json = process::output(command.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    serde_json::from_str(&json).context("cannot read the output of cargo metadata")
}

/// Builds the `clovisor` program for release, the kernel side included, and returns its path.
pub(crate) fn build_clovisor() -> Result<PathBuf> {
    let mut command = cargo();
    process::run(command.args(["build", "--release", "--locked", "--package", "clovisor"]))?;
    let program = target_dir()?.join("release/clovisor");
    ensure!(program.is_file(), "cargo build succeeded, but {} is not there", program.display());
    Ok(program)
}

/// Builds the load client of the benchmarks for release, and returns its path.
pub(crate) fn build_load() -> Result<PathBuf> {
    let mut command = cargo();
    process::run(command.args(["build", "--release", "--locked", "--package", "xtask", "--bin", "load"]))?;
    Ok(target_dir()?.join("release/load"))
}

/// Builds the receiver of the benchmarks for release, and returns its path.
pub(crate) fn build_receiver() -> Result<PathBuf> {
    let mut command = cargo();
    let example = ["--package", "xtask", "--example", "receiver"];
    process::run(command.args(["build", "--release", "--locked"]).args(example))?;
    Ok(target_dir()?.join("release/examples/receiver"))
}

/// Builds a benchmark of a package, and returns its path.
pub(crate) fn build_benchmark(package: &str, name: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["bench", "--locked", "--package", package, "--bench", name, "--no-run"]);
    let messages = process::output(command.args(["--message-format", "json"]))?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == name && message["target"]["kind"][0] == "bench";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    programs.next_back().context("cargo built the benchmark, and says no path")
}
