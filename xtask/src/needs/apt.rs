//! Debian packages through apt-get, as root only. It never removes or upgrades on its own account, and it starts
//! no service: a server that a package brings is for the network namespaces of demo and tests, not for the host.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cache, process};

/// Debian asks this file before it starts a service for a package just installed.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether we may install packages here.
pub(super) fn is_usable() -> bool {
    process::is_root() && Path::new("/etc/debian_version").exists() && process::find("apt-get").is_some()
}

/// Installs packages, after an update of the lists where these do not know all of them.
pub(super) fn install(packages: &[String]) -> Result<()> {
    let _lock = cache::lock("apt")?;
    let _quiet = NoServices::for_now()?;
    add_architectures(packages)?;
    if packages.iter().any(|package| candidate(package).is_none()) {
        update()?;
    }
    if try_install(packages).is_err() {
        // Lists that are too old name package files that the archive has no more.
        update()?;
        try_install(packages)?;
    }
    Ok(())
}

/// Lets Debian install packages of the architectures that packages are asked of, as in `NAME:arm64`. The lists know
/// nothing of them before the next update. A library that both architectures have must be of one version, so apt-get
/// may upgrade some.
fn add_architectures(packages: &[String]) -> Result<()> {
    let ask = |option: &str| process::output(Command::new("dpkg").arg(option));
    let known = ask("--print-architecture")? + &ask("--print-foreign-architectures")?;
    for wanted in architectures(packages) {
        if !known.lines().any(|name| name == wanted) {
            eprintln!(
                "adding {wanted} to Debian's architectures (once its packages are removed, \
                 `dpkg --remove-architecture {wanted}` undoes that)"
            );
            process::run(Command::new("dpkg").args(["--add-architecture", wanted]))?;
        }
    }
    Ok(())
}

/// The architectures that packages are asked of by name, each once.
fn architectures(packages: &[String]) -> BTreeSet<&str> {
    packages.iter().filter_map(|package| Some(package.split_once(':')?.1)).collect()
}

/// The version that would be installed, without its epoch; none where the package is not known.
pub(super) fn candidate(package: &str) -> Option<String> {
    let mut command = Command::new("apt-cache");
    let policy = process::output(command.args(["policy", package]).env("LC_ALL", "C")).ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let version = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    (version != "(none)").then(|| version.to_owned())
}

/// Fetches the package lists where there are none, as on a machine just made: [`candidate`] knows nothing then.
pub(super) fn ensure_lists() -> Result<()> {
    let mut entries = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    if entries.any(|entry| entry.file_name().to_string_lossy().contains("_Packages")) {
        Ok(())
    } else {
        update()
    }
}

fn update() -> Result<()> {
    let mut command = apt_get();
    process::logged(
        "updating Debian's package lists",
        "10 s",
        command.arg("update"),
        &cache::log("apt-update"),
    )
}

fn try_install(packages: &[String]) -> Result<()> {
    let what = format!("installing Debian packages {}", packages.join(" "));
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    process::logged(&what, "5 to 60 s", &mut command, &cache::log("apt-install"))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives no service is started by a package's installation.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn for_now() -> Result<Self> {
        // A policy that is there is the administrator's, and stays in force.
        let Ok(mut file) = OpenOptions::new().write(true).create_new(true).open(POLICY) else {
            return Ok(Self { ours: false });
        };
        let this = Self { ours: true };
        file.write_all(b"#!/bin/sh\n# Written by cargo xtask while it installs packages.\nexit 101\n")
            .and_then(|()| fs::set_permissions(POLICY, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {POLICY}"))?;
        Ok(this)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("warning: cannot remove {POLICY}: {error}. It keeps packages from starting services.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::architectures;

    #[test]
    fn an_architecture_is_asked_for_only_by_name() {
        let packages = ["rustc-web", "libstd-rust-web-dev:arm64", "libc6:arm64"].map(str::to_owned);
        assert_eq!(architectures(&packages), ["arm64"].into());
    }
}
