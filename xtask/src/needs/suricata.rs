//! Suricata, which Debian has from release 13 on: in a small system of that release of its own, in the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{cache, process};

/// Release whose Suricata the project is compared with.
const RELEASE: &str = "trixie";

fn entry() -> String {
    format!("suricata-{RELEASE}")
}

/// The root of that system.
pub(crate) fn root() -> PathBuf {
    cache::dir().join(entry())
}

pub(super) fn is_there() -> bool {
    root().join("usr/bin/suricata").is_file()
}

pub(super) fn build() -> Result<()> {
    let entry = entry();
    let log = cache::log(&entry);
    cache::install(&entry, is_there, |dir| {
        let what = format!("making a Debian {RELEASE} with Suricata");
        let mut debootstrap = alone("debootstrap");
        debootstrap.args(["--variant=minbase", RELEASE]).arg(dir);
        process::logged(&what, "2 min", &mut debootstrap, &log)?;
        let mut apt_get = alone("chroot");
        apt_get.arg(dir).args(["apt-get", "install", "--yes", "--no-install-recommends", "suricata"]);
        let log = cache::log(&format!("{entry}-apt"));
        process::logged("installing Suricata in it", "1 min", &mut apt_get, &log)
    })
}

/// A program whose mounts go with it: those that it leaves when it is killed must not be in a folder that is removed.
fn alone(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", program]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
