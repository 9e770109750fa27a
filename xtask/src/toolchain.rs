//! The one place that knows how the kernel side is compiled: with which compiler, which linker, which flags.
//! `clovisor/build.rs` and `cargo xtask` both include this file, so it uses the standard library only.
//!
//! Two compilers will do, in this order: a rustup nightly with `rust-src` (builds `core` for BPF itself), or
//! Debian's `rustc-web`, whose package `libstd-rust-web-dev-bpf` brings `core` for BPF ready made. Either
//! needs `bpf-linker` made for the same LLVM or a newer one, as an older LLVM cannot read newer bitcode.
//!
//! It refuses to install or download anything: it finds, or says what is missing ([`Missing`]).
#![allow(dead_code, reason = "clovisor/build.rs and xtask each use a part of this file")]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target that the kernel side is compiled for: little-endian BPF.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Version of bpf-linker that the project is built and tested with.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The LLVM majors that this bpf-linker can be built for, oldest first.
pub(crate) const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;
/// Debian packages that bring everything but bpf-linker.
pub(crate) const DEBIAN_PACKAGES: [&str; 4] =
    ["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-src", "llvm-22-dev"];
/// Debian's compiler; rustup's proxies come before it in PATH, so it is named by its place.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Where the compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `rustup run nightly`, with `rust-src`.
    Nightly,
    /// Debian's `rustc-web`.
    Debian,
}

/// A compiler that can compile for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// Where it comes from.
    pub(crate) source: Source,
    /// Its LLVM major version.
    pub(crate) llvm: u32,
}

/// Everything that compiles the kernel side.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// Path of bpf-linker.
    pub(crate) linker: PathBuf,
}

/// What is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No compiler for BPF.
    Compiler,
    /// There is a compiler, but no bpf-linker for its LLVM.
    Linker(Compiler),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler => write!(
                f,
                "no Rust compiler for {TARGET} was found. Run `cargo xtask setup`, or install one of: \
                 `rustup toolchain install nightly --component rust-src`; on Debian `apt-get install {}`",
                DEBIAN_PACKAGES.join(" ")
            ),
            Self::Linker(compiler) => write!(
                f,
                "bpf-linker for LLVM {llvm} was found neither in {cache} nor in PATH. Run `cargo xtask setup`, \
                 or install it: `LLVM_PREFIX=/usr/lib/llvm-{llvm} cargo install bpf-linker --version \
                 {LINKER_VERSION} --no-default-features --features llvm-{llvm} --root {root}` (needs LLVM's \
                 development files, on Debian the package llvm-{llvm}-dev)",
                llvm = compiler.llvm,
                cache = cache_dir().display(),
                root = linker_root(compiler.llvm).display()
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// Where the project keeps what it had to fetch or build: `$CLOVISOR_CACHE`, else `$XDG_CACHE_HOME/clovisor`,
/// else `$HOME/.cache/clovisor`. Each folder in it is keyed by version, so that nothing there goes stale.
pub(crate) fn cache_dir() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CLOVISOR_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("clovisor")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/clovisor")))
        .unwrap_or_else(|| PathBuf::from("/var/cache/clovisor"))
}

/// The `--root` of `cargo install` under which bpf-linker for this LLVM is kept.
pub(crate) fn linker_root(llvm: u32) -> PathBuf {
    cache_dir().join(format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm}"))
}

/// The command that installs bpf-linker for this LLVM into the cache. It downloads from the crate registry.
pub(crate) fn linker_install(llvm: u32) -> Command {
    let mut command = Command::new(cargo());
    isolate(&mut command);
    command
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--no-default-features", "--features"])
        .arg(format!("llvm-{llvm}"))
        .arg("--root")
        .arg(linker_root(llvm))
        // Debian's place; where it does not exist bpf-linker's build looks for llvm-config in PATH.
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
        .env_remove("CARGO_TARGET_DIR");
    command
}

/// Finds a complete toolchain, the preferred compiler first.
///
/// # Errors
/// What is missing. Where there are compilers but no linker, the linker of the preferred compiler is named.
pub(crate) fn find() -> Result<Toolchain, Missing> {
    let compilers = compilers();
    let complete = compilers
        .iter()
        .find_map(|&compiler| Some(Toolchain { compiler, linker: find_linker(compiler.llvm)? }));
    complete.ok_or_else(|| compilers.first().map_or(Missing::Compiler, |&first| Missing::Linker(first)))
}

/// All compilers for BPF on this machine, the preferred first.
pub(crate) fn compilers() -> Vec<Compiler> {
    [nightly(), debian()].into_iter().flatten().collect()
}

/// Files whose change changes what [`find`] finds; for `cargo::rerun-if-changed`. Only those that exist, as
/// cargo takes a missing one for changed at every build; a failed build is run again anyway.
pub(crate) fn traces() -> Vec<PathBuf> {
    let linkers = LINKER_LLVMS.map(|llvm| linker_root(llvm).join("bin/bpf-linker"));
    linkers.chain([DEBIAN_RUSTC.into()]).filter(|path| path.exists()).collect()
}

/// Variables whose change changes what [`find`] finds; for `cargo::rerun-if-env-changed`.
pub(crate) const VARIABLES: [&str; 5] = ["CLOVISOR_CACHE", "XDG_CACHE_HOME", "HOME", "PATH", "RUSTUP_HOME"];

impl Toolchain {
    /// The command that builds the package in `manifest_dir` for BPF in release, into `target_dir`. Its
    /// binaries are then in `target_dir`/[`TARGET`]`/release/`.
    pub(crate) fn command(&self, manifest_dir: &Path, target_dir: &Path) -> Command {
        let mut command = match self.compiler.source {
            Source::Nightly => {
                let mut command = Command::new("rustup");
                isolate(&mut command);
                command.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
                command
            }
            Source::Debian => {
                let mut command = Command::new(cargo());
                isolate(&mut command);
                command.arg("build").env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        command
            .args(["--release", "--locked", "--target", TARGET, "--manifest-path"])
            .arg(manifest_dir.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags())
            // The workspace's release profile is made for the agent. Here bpf-linker does the link-time
            // optimisation itself, and needs the debug information to write BTF from.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env_remove("CARGO_INCREMENTAL");
        command
    }

    /// Flags of rustc, separated as `CARGO_ENCODED_RUSTFLAGS` wants it (paths may hold blanks).
    fn flags(&self) -> OsString {
        let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
        let mut flags = OsString::from("-Clinker=");
        flags.push(&self.linker);
        flags.push("\x1f-Clink-arg=--btf\x1f-Cdebuginfo=2");
        flags.push(format!("\x1f--cfg=bpf_target_arch=\"{arch}\""));
        flags
    }
}

/// Takes away what the surrounding cargo, rustup or clippy set for the crates of the host.
fn isolate(command: &mut Command) {
    let set_by_wrappers = [
        "RUSTC",
        "RUSTDOC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_RUSTC_WRAPPER",
        "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTUP_TOOLCHAIN",
        "CLIPPY_ARGS",
        "__CARGO_DEFAULT_LIB_METADATA",
    ];
    for name in set_by_wrappers {
        command.env_remove(name);
    }
    // rustup must not answer a question for a toolchain by fetching it.
    command.env("RUSTUP_AUTO_INSTALL", "0");
}

/// The cargo that runs us (cargo names itself in `CARGO`), else the one in PATH.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn nightly() -> Option<Compiler> {
    let rustc = |args: &[&str]| {
        let mut command = Command::new("rustup");
        isolate(&mut command);
        command.args(["run", "nightly", "rustc"]).args(args);
        output(&mut command)
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !sources.is_file() {
        return None;
    }
    Some(Compiler { source: Source::Nightly, llvm: llvm_of(&rustc(&["-vV"])?)? })
}

fn debian() -> Option<Compiler> {
    let rustc = |args: &[&str]| {
        let mut command = Command::new(DEBIAN_RUSTC);
        isolate(&mut command);
        output(command.args(args))
    };
    // /usr/bin/rustc may as well be Debian's ordinary rustc, or a rustup proxy: only one with BPF's core counts.
    let libraries = rustc(&["--print", "target-libdir", "--target", TARGET])?;
    let has_core = std::fs::read_dir(libraries.trim())
        .ok()?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"));
    if !has_core {
        return None;
    }
    Some(Compiler { source: Source::Debian, llvm: llvm_of(&rustc(&["-vV"])?)? })
}

/// Standard output of a command that succeeded.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The LLVM major version in the output of `rustc -vV`.
fn llvm_of(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

/// bpf-linker for this LLVM or a newer one: from the cache, else from PATH (there its LLVM cannot be known).
fn find_linker(llvm: u32) -> Option<PathBuf> {
    let cached = (llvm..=*LINKER_LLVMS.end()).map(|llvm| linker_root(llvm).join("bin/bpf-linker"));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|dir| dir.join("bpf-linker"));
    cached.chain(in_path).find(|candidate| candidate.is_file())
}
