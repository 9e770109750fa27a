//! `cargo xtask image`: the agent's container image, made without a container engine.
//!
//! The program is linked statically, so the image holds nothing else. It is tried alone in an empty root before it is
//! packed, for another architecture under an emulator: what would be missing in a container is missing here.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::archive::{File, Image, write_oci_archive};
use crate::needs::{self, Need};
use crate::platform::{Architecture, OTHER};
use crate::temp::Scratch;
use crate::{dockerfile, process, workspace};

/// The largest that the image may be for one architecture, in bytes, uncompressed.
const LARGEST: u64 = 15_000_000;
/// A capture that the packed program has to read, and what it has to say of it.
const CAPTURE: &str = "clovisor-trace/testdata/zeek/pipelined-requests.pcap";

/// Make the agent's container image as a tar, for `docker load`, `podman load` or `ctr images import`.
///
/// Leaves the static program in target/image/<architecture>/clovisor, from where the Dockerfile takes it, and the image
/// in target/image/clovisor-<architecture>.tar. With --all there is also target/image/clovisor.oci.tar, one image for
/// all architectures as an OCI archive. Prints the paths of the images. As root the program is tried in an empty root.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Name and tag of the image
    #[arg(long, default_value = concat!("clovisor:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// An architecture to make it for, by default this machine's; may be given more than once. For another than this
    /// machine's it takes a cross compiler and qemu-user-static
    #[arg(long, value_enum)]
    arch: Vec<Architecture>,
    /// Make it for all architectures, and as one image of all
    #[arg(long, conflicts_with = "arch")]
    all: bool,
    /// Build it by the Dockerfile too, with buildah, and fail if that gives another image
    #[arg(long)]
    dockerfile: bool,
}

/// An image for one architecture.
struct Made {
    architecture: Architecture,
    image: Image,
    program: PathBuf,
    /// The docker-archive.
    tar: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut architectures = match (arguments.all, arguments.arch.as_slice()) {
        (true, _) => vec![Architecture::Amd64, Architecture::Arm64],
        (false, []) => vec![Architecture::host()?],
        (false, chosen) => chosen.to_vec(),
    };
    architectures.sort();
    architectures.dedup();
    let mut wanted = needs::BUILD.to_vec();
    if architectures.contains(&OTHER.architecture) {
        wanted.extend(needs::CROSS);
    }
    if arguments.dockerfile {
        wanted.push(Need::Buildah);
    }
    needs::ensure(&wanted)?;

    let made: Vec<Made> = architectures
        .into_iter()
        .map(|architecture| make(&arguments.name, architecture))
        .collect::<Result<_>>()?;
    for one in &made {
        println!("{}", one.tar.display());
    }
    if arguments.all {
        let out = workspace::target_dir()?.join("image/clovisor.oci.tar");
        let images: Vec<_> = made.iter().map(|one| (one.architecture.name(), &one.image)).collect();
        write_oci_archive(&out, &arguments.name, &images)?;
        println!("{}", out.display());
    }
    if arguments.dockerfile {
        for Made { architecture, program, tar, .. } in &made {
            dockerfile::compare(*architecture, program, tar)?;
        }
    }
    Ok(())
}

/// Builds the program for this machine and packs it, and returns the image's path.
pub(crate) fn build(name: &str) -> Result<PathBuf> {
    Ok(make(name, Architecture::host()?)?.tar)
}

fn make(name: &str, architecture: Architecture) -> Result<Made> {
    let program = compile(architecture)?;
    stands_alone(architecture, &program)?;
    let image = Image {
        reference: name.to_owned(),
        entrypoint: vec!["/clovisor".to_owned()],
        cmd: vec!["run".to_owned()],
        labels: labels(),
        files: vec![File { path: "/clovisor".to_owned(), source: program.clone(), mode: 0o755 }],
        ..Image::default()
    };
    let tar = workspace::target_dir()?.join("image").join(format!("clovisor-{}.tar", architecture.name()));
    let size = image.write_docker_archive(&tar, architecture.name())?;
    let platform = format!("linux/{}", architecture.name());
    ensure!(size < LARGEST, "the image for {platform} has {size} bytes; it may have {LARGEST}");
    eprintln!("{name} for {platform}: {:.1} MB", size as f64 / 1e6);
    Ok(Made { architecture, image, program, tar })
}

/// Builds the static program, and returns where the Dockerfile takes it from.
fn compile(architecture: Architecture) -> Result<PathBuf> {
    let target = architecture.target();
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--locked", "--profile", "image", "--package", "clovisor", "--target", target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    if architecture == OTHER.architecture {
        OTHER.cross_compile(&mut cargo)?;
    }
    process::run(&mut cargo)?;
    let target_dir = workspace::target_dir()?;
    let folder = target_dir.join("image").join(architecture.name());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (built, program) = (target_dir.join(target).join("image/clovisor"), folder.join("clovisor"));
    fs::copy(&built, &program).with_context(|| format!("cannot copy {}", built.display()))?;
    // A Dockerfile copies permissions as they are, whatever the umask was here.
    fs::set_permissions(&program, Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", program.display()))?;
    Ok(program)
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

/// Runs the program in a root that has nothing but it and a capture, and the emulator if it takes one. Only root may
/// change the root; others are told.
fn stands_alone(architecture: Architecture, program: &Path) -> Result<()> {
    if !process::is_root() {
        eprintln!("not tried in an empty root: that takes root");
        return Ok(());
    }
    let scratch = Scratch::new("image")?;
    let root = scratch.path();
    let mut command = vec!["/clovisor"];
    fs::copy(program, root.join("clovisor")).context("cannot copy the program")?;
    fs::copy(workspace::root().join(CAPTURE), root.join("capture")).context("cannot copy the capture")?;
    if architecture == OTHER.architecture {
        let emulator =
            process::find(OTHER.emulator).with_context(|| format!("`{}` is gone", OTHER.emulator))?;
        fs::copy(emulator, root.join("emulator")).context("cannot copy the emulator")?;
        command.insert(0, "/emulator");
    }
    let run =
        |arguments: &[&str]| process::output(Command::new("chroot").arg(root).args(&command).args(arguments));
    let version = run(&["--version"]).context("the program does not start in an empty root")?;
    let sessions = run(&["read", "/capture", "--port", "80=http", "-o", "json", "--quiet"])?;
    let sessions = sessions.lines().count();
    ensure!(sessions > 0, "in an empty root the program reads no session from a capture");
    eprintln!(
        "linux/{}, in an empty root{}: {}, {sessions} sessions read from a capture",
        architecture.name(),
        if command.len() > 1 { " under an emulator" } else { "" },
        version.trim()
    );
    Ok(())
}
