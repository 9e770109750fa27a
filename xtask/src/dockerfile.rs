//! Builds the image by the Dockerfile, with buildah, and compares it with the one that was made without: the two say
//! the same thing in two languages, and must not drift apart. Nothing is left in buildah's own storage.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::archive::read::Contents;
use crate::platform::Architecture;
use crate::temp::Scratch;
use crate::{process, workspace};

/// Builds the image from `program`, and compares it with the docker-archive `made`.
///
/// # Errors
/// The Dockerfile cannot be built; or every difference, a line each.
pub(crate) fn compare(architecture: Architecture, program: &Path, made: &Path) -> Result<()> {
    let name = architecture.name();
    let scratch = Scratch::new("dockerfile")?;
    // The Dockerfile takes the program from the folder where cargo builds by default, which may be another here.
    let context = scratch.path().join("context");
    let place = context.join("target/image").join(name);
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    fs::copy(program, place.join("clovisor")).context("cannot copy the program")?;
    for file in ["Dockerfile", ".dockerignore"] {
        fs::copy(workspace::root().join(file), context.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    let tag = format!("localhost/clovisor-{name}");
    let buildah = || {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(scratch.path().join("storage"));
        command.arg("--runroot").arg(scratch.path().join("run"));
        // The driver that works on every machine. It copies, and there is little to copy.
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let platform = format!("linux/{name}");
    // Nothing is run in the build, so the isolation only has to be one that asks for nothing.
    process::output(
        buildah()
            .args(["build", "--isolation", "chroot", "--identity-label=false", "--platform", &platform])
            .args(["--tag", &tag])
            .arg(&context),
    )
    .context("the Dockerfile cannot be built")?;
    let built = scratch.path().join("built.tar");
    process::output(buildah().args(["push", &tag]).arg(format!("docker-archive:{}", built.display())))?;

    let differences = Contents::of_docker_archive(made)?.differences(&Contents::of_docker_archive(&built)?);
    if differences.is_empty() {
        eprintln!("the Dockerfile gives the same image for linux/{name}");
        return Ok(());
    }
    bail!("the image for linux/{name} and that of the Dockerfile differ:\n  {}", differences.join("\n  "))
}
