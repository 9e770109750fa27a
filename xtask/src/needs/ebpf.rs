//! The toolchain of the kernel side: which packages and which bpf-linker complete what is there. What counts as
//! there is decided in [`toolchain`] alone.

use std::path::Path;

use anyhow::{Context, Result};

use super::apt;
use crate::toolchain::{self, Compiler, DEBIAN_PACKAGES, LINKER_VERSION, Missing};
use crate::{cache, process};

pub(super) fn has_compiler() -> bool {
    !toolchain::compilers().is_empty()
}

pub(super) fn has_linker() -> bool {
    toolchain::find().is_ok()
}

pub(super) fn compiler_packages() -> Vec<String> {
    DEBIAN_PACKAGES.map(str::to_owned).to_vec()
}

/// What building the linker takes, where it is not there yet: LLVM's development files. For a compiler whose LLVM
/// Debian does not have, Debian's own compiler is brought as well.
pub(super) fn linker_packages() -> Vec<String> {
    let Some(compiler) = toolchain::compilers().first().copied() else {
        return compiler_packages();
    };
    if has_llvm(compiler.llvm) {
        return Vec::new();
    }
    let package = format!("llvm-{}-dev", compiler.llvm);
    if apt::candidate(&package).is_some() { vec![package] } else { compiler_packages() }
}

/// Builds bpf-linker for the first compiler whose LLVM is there to link with.
pub(super) fn build_linker() -> Result<()> {
    let compilers = toolchain::compilers();
    let fitting = compilers.iter().find(|compiler| has_llvm(compiler.llvm));
    let Compiler { llvm, .. } = *fitting.with_context(|| {
        let wanted: Vec<_> = compilers.iter().map(|compiler| compiler.llvm.to_string()).collect();
        format!(
            "bpf-linker cannot be built: the development files of LLVM {} are not there",
            wanted.join(" or ")
        )
    })?;
    let name = format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm}");
    // cargo installs a program by renaming it into its place, so this entry needs the lock only.
    let _lock = cache::lock(&name)?;
    if has_linker() {
        return Ok(());
    }
    let mut command = toolchain::linker_install(llvm);
    command.arg("--locked");
    process::logged(&format!("building {name}"), "1 min", &mut command, &cache::log(&name))
}

pub(super) fn hint() -> String {
    match toolchain::find() {
        Ok(_) => String::new(),
        Err(missing @ (Missing::Compiler | Missing::Linker(_))) => missing.to_string(),
    }
}

/// Whether LLVM's development files of this version are there: where Debian puts them, or by the llvm-config in PATH.
fn has_llvm(version: u32) -> bool {
    let debian = format!("/usr/lib/llvm-{version}/bin/llvm-config");
    // Debian's LLVM is complete only with the package that also brings the headers.
    if Path::new(&debian).exists() && Path::new(&format!("/usr/lib/llvm-{version}/include/llvm-c")).exists() {
        return true;
    }
    let Some(config) = process::find("llvm-config") else { return false };
    let output = process::output(std::process::Command::new(config).arg("--version"));
    output.is_ok_and(|text| text.split('.').next() == Some(&version.to_string()))
}
