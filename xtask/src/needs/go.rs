//! Go, and programs built by it: `xtask/jaeger/` for one holds a module that requires Jaeger's all-in-one as a tool,
//! with the checksums of all that it is made of. The programs land in the cache, and are static but for Packetbeat, which
//! needs libpcap.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use crate::{cache, process};

/// Version of Jaeger that the project is tested with. `xtask/jaeger/go.mod` names it too; Go refuses a mismatch.
const JAEGER_VERSION: &str = "1.62.0";
/// The package of its server with everything in one program.
const JAEGER_PACKAGE: &str = "github.com/jaegertracing/jaeger/cmd/all-in-one";
const GO_MOD: &str = include_str!("../../jaeger/go.mod");
const GO_SUM: &str = include_str!("../../jaeger/go.sum");
/// Version of Packetbeat that the project is measured beside, with its package and module.
const PACKETBEAT_VERSION: &str = "7.17.29";
const PACKETBEAT_PACKAGE: &str = "github.com/elastic/beats/v7/packetbeat";
const PACKETBEAT_MOD: &str = include_str!("../../packetbeat/go.mod");
const PACKETBEAT_SUM: &str = include_str!("../../packetbeat/go.sum");
/// From this one on Go fetches the version that a module asks for by itself.
const OLDEST_GO: u32 = 21;
/// Debian's package of the Go compiler.
const PACKAGE: &str = "golang-go";

pub(super) fn is_new_enough() -> bool {
    // "go version go1.26.8 linux/amd64"
    let version = process::output(Command::new("go").arg("version"));
    version.is_ok_and(|text| {
        minor(text.trim_start_matches("go version go")).is_some_and(|minor| minor >= OLDEST_GO)
    })
}

/// Debian's package where it is new enough; an old one would be installed in vain.
pub(super) fn packages() -> Vec<String> {
    let fits =
        apt::candidate(PACKAGE).and_then(|version| minor(&version)).is_some_and(|minor| minor >= OLDEST_GO);
    if fits { vec![PACKAGE.to_owned()] } else { Vec::new() }
}

pub(super) fn hint() -> String {
    format!(
        "Go 1.24 or newer, so that `go` is in PATH (Debian 13: apt-get install {PACKAGE}; others: go.dev/dl)"
    )
}

/// Jaeger's program.
pub(crate) fn jaeger() -> PathBuf {
    cache::dir().join(entry()).join("all-in-one")
}

fn entry() -> String {
    format!("jaeger-{JAEGER_VERSION}")
}

pub(super) fn has_jaeger() -> bool {
    jaeger().is_file()
}

pub(super) fn build_jaeger() -> Result<()> {
    Module {
        entry: &entry(),
        go_mod: GO_MOD,
        go_sum: GO_SUM,
        linker_flags: "-s -w",
        packages: &[JAEGER_PACKAGE],
        c: false,
        about: "2 to 4 min",
    }
    .build(has_jaeger)
}

/// Packetbeat's program.
pub(crate) fn packetbeat() -> PathBuf {
    cache::dir().join(format!("packetbeat-{PACKETBEAT_VERSION}")).join("packetbeat")
}

pub(super) fn has_packetbeat() -> bool {
    packetbeat().is_file()
}

pub(super) fn build_packetbeat() -> Result<()> {
    Module {
        entry: &format!("packetbeat-{PACKETBEAT_VERSION}"),
        go_mod: PACKETBEAT_MOD,
        go_sum: PACKETBEAT_SUM,
        linker_flags: "-s -w",
        packages: &[PACKETBEAT_PACKAGE],
        c: true,
        about: "3 to 6 min",
    }
    .build(has_packetbeat)
}

/// A module of ours, and what is built of it: an entry of the cache with a program for each package.
pub(super) struct Module<'a> {
    /// The entry's name, with the version in it.
    pub(super) entry: &'a str,
    pub(super) go_mod: &'a str,
    pub(super) go_sum: &'a str,
    pub(super) linker_flags: &'a str,
    /// Each becomes a program by the last part of its path.
    pub(super) packages: &'a [&'a str],
    /// Whether it has parts in C, and is not static then.
    pub(super) c: bool,
    /// How long it takes, for people.
    pub(super) about: &'a str,
}

impl Module<'_> {
    /// Builds it, unless it is there by then.
    pub(super) fn build(&self, is_there: impl Fn() -> bool) -> Result<()> {
        let Self { entry, go_mod, go_sum, .. } = self;
        // Go's own cache of compiled packages is of no use once the programs are there, and takes gigabytes. One
        // that an interrupted build left is gone on with.
        let compiled = cache::dir().join(format!(".go-build-{entry}"));
        cache::install(entry, is_there, |dir| {
            let source = dir.join("source");
            fs::create_dir(&source)
                .and_then(|()| fs::write(source.join("go.mod"), go_mod))
                .and_then(|()| fs::write(source.join("go.sum"), go_sum))
                .with_context(|| format!("cannot write {}", source.display()))?;
            let mut go = Command::new("go");
            go.args(["build", "-mod=readonly", "-trimpath", "-ldflags", self.linker_flags, "-o"])
                // Ends in a slash, so that it is taken for the folder of the programs.
                .arg(dir.join(""))
                .args(self.packages)
                .current_dir(&source)
                // Pure Go gives a static program that also runs alone in an empty namespace or image.
                .env("CGO_ENABLED", if self.c { "1" } else { "0" })
                .env("GOWORK", "off")
                .env("GOCACHE", &compiled);
            process::logged(&format!("building {entry}"), self.about, &mut go, &cache::log(entry))
        })?;
        match fs::remove_dir_all(&compiled) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", compiled.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The 26 of "1.26.8 linux/amd64".
fn minor(version: &str) -> Option<u32> {
    let digits =
        |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let (_one, rest) = version.split_once('.')?;
    digits(rest)
}

#[cfg(test)]
mod tests {
    use super::{GO_MOD, JAEGER_VERSION, PACKETBEAT_MOD, PACKETBEAT_VERSION, minor};

    #[test]
    fn versions_of_go_and_of_debian_are_read() {
        assert_eq!(minor("1.26.8 linux/amd64"), Some(26));
        assert_eq!(minor("1.19~1"), Some(19));
        assert_eq!(minor("1.24"), Some(24));
        assert_eq!(minor("none"), None);
    }

    #[test]
    fn the_module_requires_the_version_that_names_the_entry() {
        assert!(GO_MOD.contains(&format!("github.com/jaegertracing/jaeger v{JAEGER_VERSION}")));
        assert!(PACKETBEAT_MOD.contains(&format!("github.com/elastic/beats/v7 v{PACKETBEAT_VERSION}")));
    }
}
