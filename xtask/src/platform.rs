//! The architectures that images are made for, and what compiling and running a program for the one that this machine
//! is not takes. There are two, so "the other" is always clear.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::process;
use crate::toolchain::DEBIAN_RUSTC;

/// An architecture, named as container images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// This machine's.
    pub(crate) fn host() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("images are made on x86_64 and aarch64, and this is {other}"),
        }
    }

    /// The name in images, which is Debian's as well.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The target that Rust compiles for.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// The architecture that this machine is not, with the names of its tools.
pub(crate) struct Other {
    pub(crate) architecture: Architecture,
    /// Compiles C and links.
    pub(crate) cc: &'static str,
    /// The Debian packages of that, with the static C library.
    pub(crate) cc_packages: [&'static str; 2],
    /// Runs its programs here; static itself, so that it runs in an empty root.
    pub(crate) emulator: &'static str,
    /// The Debian packages with Rust's standard library, for Debian's compiler.
    pub(crate) std_packages: [&'static str; 2],
}

/// On arm64 the other is amd64, everywhere else it is arm64.
pub(crate) const OTHER: Other = if cfg!(target_arch = "aarch64") {
    Other {
        architecture: Architecture::Amd64,
        cc: "x86_64-linux-gnu-gcc",
        cc_packages: ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
        emulator: "qemu-x86_64-static",
        std_packages: ["rustc-web", "libstd-rust-web-dev:amd64"],
    }
} else {
    Other {
        architecture: Architecture::Arm64,
        cc: "aarch64-linux-gnu-gcc",
        cc_packages: ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        emulator: "qemu-aarch64-static",
        std_packages: ["rustc-web", "libstd-rust-web-dev:arm64"],
    }
};

impl Other {
    /// A compiler with the standard library for it: the usual one, else Debian's.
    pub(crate) fn rustc(&self) -> Option<PathBuf> {
        ["rustc", DEBIAN_RUSTC].map(PathBuf::from).into_iter().find(|rustc| self.has_std(rustc))
    }

    /// How a person gets the standard library.
    pub(crate) fn std_hint(&self) -> String {
        format!(
            "rustup target add {}   (or on Debian: dpkg --add-architecture {}; apt-get update; apt-get install {})",
            self.architecture.target(),
            self.architecture.name(),
            self.std_packages.join(" ")
        )
    }

    fn has_std(&self, rustc: &Path) -> bool {
        let mut command = Command::new(rustc);
        // rustup must not answer a question by fetching a toolchain.
        command.args(["--print", "target-libdir", "--target", self.architecture.target()]);
        let Ok(dir) = process::output(command.env("RUSTUP_AUTO_INSTALL", "0")) else { return false };
        let mut files = std::fs::read_dir(dir.trim()).into_iter().flatten().flatten();
        files.any(|file| {
            let name = file.file_name();
            name.to_string_lossy().starts_with("libstd-") && name.to_string_lossy().ends_with(".rlib")
        })
    }

    /// Whether its linker is there, and the C library to link statically.
    pub(crate) fn has_cc(&self) -> bool {
        // The compiler answers with the bare name where it has no such file.
        process::output(Command::new(self.cc).arg("-print-file-name=libc.a"))
            .is_ok_and(|path| Path::new(path.trim()).is_absolute())
    }

    /// Tells cargo and the C code of dependencies by what to compile for it.
    pub(crate) fn cross_compile(&self, cargo: &mut Command) -> Result<()> {
        let target = self.architecture.target();
        let rustc = self.rustc().with_context(|| format!("the standard library for {target} is gone"))?;
        let variable = target.replace('-', "_");
        cargo
            .env("RUSTC", rustc)
            .env(format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), self.cc)
            .env(format!("CC_{variable}"), self.cc);
        Ok(())
    }
}
