//! Helm, built from the module in `xtask/helm/` into the cache.

use std::path::PathBuf;

use anyhow::Result;

use super::go::Module;
use crate::cache;

/// Version that end-to-end tests install the chart with; `xtask/helm/go.mod` names it too.
const VERSION: &str = "4.3.1";
const PACKAGE: &str = "helm.sh/helm/v4/cmd/helm";
const GO_MOD: &str = include_str!("../../helm/go.mod");
const GO_SUM: &str = include_str!("../../helm/go.sum");

fn entry() -> String {
    format!("helm-{VERSION}")
}

/// Helm's program.
pub(crate) fn program() -> PathBuf {
    cache::dir().join(entry()).join("helm")
}

pub(super) fn is_there() -> bool {
    program().is_file()
}

pub(super) fn build() -> Result<()> {
    Module {
        entry: &entry(),
        go_mod: GO_MOD,
        go_sum: GO_SUM,
        linker_flags: "-s -w",
        packages: &[PACKAGE],
        c: false,
        about: "2 to 6 min",
    }
    .build(is_there)
}

#[cfg(test)]
mod tests {
    use super::{GO_MOD, VERSION};

    #[test]
    fn the_module_requires_the_version_that_names_the_entry() {
        assert!(GO_MOD.contains(&format!("helm.sh/helm/v4 v{VERSION}")));
    }
}
