//! `cargo xtask image`: the agent's container image, made without a container engine.
//!
//! The program is linked statically, so the image holds nothing else. It is tried alone in an empty root before it is
//! packed: what would be missing in a container is missing here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::{File, Image};
use crate::temp::Scratch;
use crate::{needs, process, workspace};

/// The largest that the image may be, in bytes, uncompressed.
const LARGEST: u64 = 15_000_000;
/// A capture that the packed program has to read, and what it has to say of it.
const CAPTURE: &str = "clovisor-trace/testdata/zeek/pipelined-requests.pcap";

/// Make the agent's container image as a tar, for `docker load`, `podman load` or `ctr images import`.
///
/// Leaves the static program in target/image/<architecture>/clovisor, from where the Dockerfile takes it, and the image
/// in target/image/clovisor-<architecture>.tar. Prints the image's path.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Name and tag of the image
    #[arg(long, default_value = concat!("clovisor:", env!("CARGO_PKG_VERSION")))]
    name: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    needs::ensure(&needs::BUILD)?;
    println!("{}", build(&arguments.name)?.display());
    Ok(())
}

/// Builds the program and packs it, and returns the image's path.
pub(crate) fn build(name: &str) -> Result<PathBuf> {
    let (architecture, target) = host()?;
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--locked", "--profile", "image", "--package", "clovisor", "--target", target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::run(&mut cargo)?;
    let target_dir = workspace::target_dir()?;
    let folder = target_dir.join("image").join(architecture);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = folder.join("clovisor");
    let built = target_dir.join(target).join("image/clovisor");
    fs::copy(&built, &program).with_context(|| format!("cannot copy {}", built.display()))?;
    stands_alone(&program)?;

    let image = Image {
        reference: name.to_owned(),
        entrypoint: vec!["/clovisor".to_owned()],
        cmd: vec!["run".to_owned()],
        labels: labels(),
        files: vec![File { path: "/clovisor".to_owned(), source: program, mode: 0o755 }],
        ..Image::default()
    };
    let out = target_dir.join("image").join(format!("clovisor-{architecture}.tar"));
    let size = image.write_docker_archive(&out, architecture)?;
    ensure!(size < LARGEST, "the image has {size} bytes; it may have {LARGEST}");
    eprintln!("{name} for linux/{architecture}: {:.1} MB", size as f64 / 1e6);
    Ok(out)
}

/// The architecture as images and as Rust call it.
fn host() -> Result<(&'static str, &'static str)> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(("amd64", "x86_64-unknown-linux-gnu")),
        "aarch64" => Ok(("arm64", "aarch64-unknown-linux-gnu")),
        other => bail!("images are made for x86_64 and aarch64, and this is {other}"),
    }
}

fn labels() -> Vec<(String, String)> {
    let label = |name: &str, value: &str| (format!("org.opencontainers.image.{name}"), value.to_owned());
    vec![
        label("title", "Clovisor"),
        label("description", "Request/response tracing of Kubernetes pods from packets alone"),
        label("licenses", "Apache-2.0"),
        label("version", env!("CARGO_PKG_VERSION")),
    ]
}

/// Runs the program in a root that has nothing but it and a capture. Only root may change the root; others are told.
fn stands_alone(program: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried in an empty root: that takes root");
        return Ok(());
    }
    let scratch = Scratch::new("image")?;
    let root = scratch.path();
    fs::copy(program, root.join("clovisor")).context("cannot copy the program")?;
    fs::copy(workspace::root().join(CAPTURE), root.join("capture")).context("cannot copy the capture")?;
    let run = |arguments: &[&str]| {
        process::output(Command::new("chroot").arg(root).arg("/clovisor").args(arguments))
    };
    run(&["--version"]).context("the program does not start in an empty root")?;
    let sessions = run(&["read", "/capture", "--port", "80=http", "-o", "json", "--quiet"])?;
    ensure!(sessions.lines().count() > 0, "in an empty root the program reads no session from a capture");
    Ok(())
}
