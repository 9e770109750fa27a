//! Builds the kernel side (`clovisor-ebpf`) and leaves its objects in `OUT_DIR`, where the agent and its
//! kernel tests include them from. It refuses to install anything: what is missing is said in one paragraph.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use object::build::elf;

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

/// What is built of `clovisor-ebpf`: a binary, the features it is built with, and the object's name, `OUT_DIR/<name>.bpf.o`.
const OBJECTS: [(&str, &str, &str); 3] =
    [("clovisor", "", "ring"), ("clovisor", "perf", "perf"), ("foreign", "", "foreign")];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let variable =
        |name| env::var_os(name).map(PathBuf::from).ok_or(format!("{name} is not set: run by cargo"));
    let here = variable("CARGO_MANIFEST_DIR")?;
    let out = variable("OUT_DIR")?;
    let workspace = here.parent().ok_or("the package is not in a workspace")?;
    watch(workspace);

    let toolchain =
        toolchain::find().map_err(|missing| format!("the kernel side cannot be compiled: {missing}"))?;
    let target_dir = out.join("bpf");
    for (binary, features, name) in OBJECTS {
        let mut command = toolchain.command(&workspace.join("clovisor-ebpf"), &target_dir);
        run(command.args(["--bin", binary, "--features", features]))?;
        let built = target_dir.join(toolchain::TARGET).join("release").join(binary);
        let kept = out.join(format!("{name}.bpf.o"));
        copy_without_debug_information(&built, &kept)
            .map_err(|error| format!("cannot copy {} to {}: {error}", built.display(), kept.display()))?;
    }
    Ok(())
}

/// Copies an object without its DWARF, which is four fifths of it and is only there for bpf-linker to write BTF from.
/// The kernel and aya read BTF alone, but aya would parse all sections and their relocations.
fn copy_without_debug_information(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let object = std::fs::read(from)?;
    let mut elf = elf::Builder::read(object.as_slice())?;
    let of_debug_information = |name: &[u8]| {
        let name = name.strip_prefix(b".rel").unwrap_or(name);
        name.starts_with(b".debug_")
    };
    for section in &mut elf.sections {
        section.delete = of_debug_information(&section.name);
    }
    elf.delete_orphans();
    // LLVM keeps the names of sections in .strtab, which the builder makes for symbols alone.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    std::fs::write(to, stripped)?;
    Ok(())
}

/// Says what this build depends on; without this, cargo would run it again for any change in the package.
fn watch(workspace: &Path) {
    let sources = ["clovisor-ebpf", "clovisor-common", "xtask/src/toolchain.rs", "Cargo.lock"];
    for source in sources {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    for path in toolchain::traces() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    for name in toolchain::VARIABLES {
        println!("cargo::rerun-if-env-changed={name}");
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "the kernel side does not compile ({}); the command was {command:?}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}
