//! Programs of this machine as files of an image: each with the shared libraries that it is linked with, at the places
//! where it looks for them. What a program loads later by name is not among them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::File;

/// This machine's architecture, in the words of container images.
pub(crate) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The files that a program `source` takes to run as `path` in an image with nothing else in it.
pub(crate) fn with_program(path: &str, source: &Path) -> Result<Vec<File>> {
    let program = File { path: path.to_owned(), source: source.to_path_buf(), mode: 0o755 };
    let libraries = of(source)?.into_iter().map(|library| File {
        path: library.display().to_string(),
        source: library,
        mode: 0o755,
    });
    Ok(std::iter::once(program).chain(libraries).collect())
}

fn of(program: &Path) -> Result<BTreeSet<PathBuf>> {
    // It fails for a static program, and says so; a missing library would show when the program is run.
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run `ldd` (it comes with the C library)")?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in lines like `libc.so.6 => /lib/libc.so.6 (0x7f…)` and `/lib64/ld-linux-x86-64.so.2 (0x7f…)`.
fn parse(list: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        let path = line.split(" => ").last()?.split(" (").next()?.trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    list.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::parse;

    #[test]
    fn libraries_are_read_with_the_loader_and_without_the_kernels_own() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n\tlibgone.so.1 => not found\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(list), paths.into());
        assert!(parse("\tnot a dynamic executable\n").is_empty());
    }
}
