//! `cargo xtask lint`: what can be said about the source without running it. Every check runs, also after one that
//! failed, and the names of the failed ones stand at the end.

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::needs::{self, Need};
use crate::toolchain::{self, Source};
use crate::{house, process, workspace};

/// Check format, lints, house rules, licences and bans of dependencies.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this check; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<Check>,
    /// Without this check; may be given more than once
    #[arg(long, value_enum, conflicts_with = "only")]
    without: Vec<Check>,
}

/// The package of the fuzz targets.
const FUZZ: &str = "fuzz/Cargo.toml";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Check {
    /// `cargo fmt --check`
    Format,
    /// Every manifest inherits the workspace's lints; every source file opens with `//!` and is at most 400 lines
    House,
    /// Clippy, warnings denied
    Clippy,
    /// Clippy for the kernel side where its compiler has one, else its compiler's own warnings, denied
    Ebpf,
    /// cargo-deny: licences, bans, sources
    Deny,
}

impl Check {
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Format => &[Need::Rustfmt],
            Self::House => &[],
            // The build script of the agent compiles the kernel side, for clippy as for a build.
            Self::Clippy => &[Need::Clippy, Need::Cc, Need::BpfCompiler, Need::BpfLinker],
            Self::Ebpf => &needs::BUILD,
            Self::Deny => &[Need::CargoDeny],
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Format => {
                process::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
                process::run(workspace::cargo().args(["fmt", "--check", "--manifest-path", FUZZ]))
            }
            Self::House => house::check(),
            Self::Clippy => clippy(),
            Self::Ebpf => ebpf(),
            // Advisories need a database from outside; `cargo deny check advisories` asks for it where one may.
            Self::Deny => process::run(
                std::process::Command::new(needs::tools::cargo_deny())
                    .args(["--locked", "check", "bans", "licenses", "sources"])
                    .current_dir(workspace::root()),
            ),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<Check> = if arguments.only.is_empty() {
        Check::value_variants().iter().copied().filter(|check| !arguments.without.contains(check)).collect()
    } else {
        arguments.only.clone()
    };
    let mut wanted: Vec<Need> = chosen.iter().flat_map(|check| check.needs()).copied().collect();
    wanted.dedup();
    needs::ensure(&wanted)?;
    let mut failed = Vec::new();
    for check in chosen {
        let name = format!("{check:?}").to_lowercase();
        eprintln!("== {name}");
        if let Err(error) = check.run() {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        eprintln!("all checks hold");
        return Ok(());
    }
    bail!("these checks do not hold: {}", failed.join(", "))
}

/// The fuzz targets are a package of their own, checked here without their engine, which is C++.
fn clippy() -> Result<()> {
    let fuzz_target_dir = workspace::target_dir()?.join("lint-fuzz");
    let members = ["--workspace", "--exclude", "clovisor-ebpf"].map(OsString::from).to_vec();
    let fuzz = ["--no-default-features", "--manifest-path", FUZZ, "--target-dir"].map(OsString::from);
    let fuzz = fuzz.into_iter().chain([fuzz_target_dir.into()]).collect();
    for of in [members, fuzz] {
        let mut cargo = workspace::cargo();
        cargo.args(["clippy", "--locked", "--all-targets"]).args(of).args(["--", "--deny", "warnings"]);
        process::run(&mut cargo)?;
    }
    Ok(())
}

/// Compiles the kernel side apart, with its own compiler and for its own target, in each way in which it is built.
fn ebpf() -> Result<()> {
    ["", "perf"].into_iter().try_for_each(ebpf_with)
}

fn ebpf_with(features: &str) -> Result<()> {
    let toolchain = toolchain::find()?;
    let target_dir = workspace::target_dir()?.join("lint-ebpf");
    let built = toolchain.command(&workspace::root().join("clovisor-ebpf"), &target_dir);
    // Clippy belongs to one compiler. Debian packages none with the compiler that can compile for BPF.
    let has_clippy = toolchain.compiler.source == Source::Nightly
        && process::succeeds(std::process::Command::new("rustup").args([
            "run",
            "nightly",
            "cargo",
            "clippy",
            "--version",
        ]));
    let mut command = std::process::Command::new(built.get_program());
    command.args(
        built
            .get_args()
            .map(|argument| if has_clippy && argument == "build" { "clippy".as_ref() } else { argument }),
    );
    command.args(["--features", features]);
    for (name, value) in built.get_envs() {
        match value {
            Some(value) if name == "CARGO_ENCODED_RUSTFLAGS" => {
                let mut flags = value.to_owned();
                flags.push("\x1f-Dwarnings");
                command.env(name, flags);
            }
            Some(value) => _ = command.env(name, value),
            None => _ = command.env_remove(name),
        }
    }
    process::run(command.current_dir(workspace::root()))
}
