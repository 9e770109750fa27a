//! The programs of a real cluster: Kubernetes and CoreDNS, built from the modules in `xtask/kubernetes/` and
//! `xtask/coredns/` into the cache, and where Debian puts the plugins that connect pods.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::go::Module;
use crate::cache;

/// Version that end-to-end tests run; `xtask/kubernetes/go.mod` names it too.
const VERSION: &str = "1.36.3";
const PACKAGES: [&str; 6] = [
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-proxy",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kubectl",
    "k8s.io/kubernetes/cmd/kubelet",
];
const GO_MOD: &str = include_str!("../../kubernetes/go.mod");
const GO_SUM: &str = include_str!("../../kubernetes/go.sum");

const COREDNS_VERSION: &str = "1.14.7";
const COREDNS_PACKAGE: &str = "github.com/coredns/coredns";
const COREDNS_GO_MOD: &str = include_str!("../../coredns/go.mod");
const COREDNS_GO_SUM: &str = include_str!("../../coredns/go.sum");

/// Where CNI plugins are: Debian's folder, and the one that CNI itself proposes.
const CNI: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// Those that a cluster here uses.
const CNI_PLUGINS: [&str; 4] = ["ptp", "host-local", "portmap", "loopback"];

fn entry() -> String {
    format!("kubernetes-{VERSION}")
}

/// One of Kubernetes' programs.
pub(crate) fn program(name: &str) -> PathBuf {
    cache::dir().join(entry()).join(name)
}

pub(super) fn is_there() -> bool {
    PACKAGES.iter().filter_map(|package| package.rsplit('/').next()).all(|name| program(name).is_file())
}

pub(super) fn build() -> Result<()> {
    // Without these the API server calls itself v0.0.0, which its clients refuse.
    let version = "k8s.io/component-base/version";
    let mut parts = VERSION.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let linker_flags = format!(
        "-s -w -X {version}.gitVersion=v{VERSION} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    );
    Module {
        entry: &entry(),
        go_mod: GO_MOD,
        go_sum: GO_SUM,
        linker_flags: &linker_flags,
        packages: &PACKAGES,
        c: false,
        about: "10 to 15 min",
    }
    .build(is_there)
}

fn coredns_entry() -> String {
    format!("coredns-{COREDNS_VERSION}")
}

/// CoreDNS' program.
pub(crate) fn coredns() -> PathBuf {
    cache::dir().join(coredns_entry()).join("coredns")
}

pub(super) fn has_coredns() -> bool {
    coredns().is_file()
}

pub(super) fn build_coredns() -> Result<()> {
    Module {
        entry: &coredns_entry(),
        go_mod: COREDNS_GO_MOD,
        go_sum: COREDNS_GO_SUM,
        linker_flags: "-s -w",
        packages: &[COREDNS_PACKAGE],
        c: false,
        about: "3 to 5 min",
    }
    .build(has_coredns)
}

/// The folder with the CNI plugins.
pub(crate) fn cni_plugins() -> Option<&'static Path> {
    CNI.iter().map(Path::new).find(|dir| CNI_PLUGINS.iter().all(|plugin| dir.join(plugin).is_file()))
}

#[cfg(test)]
mod tests {
    use super::{COREDNS_GO_MOD, COREDNS_PACKAGE, COREDNS_VERSION, GO_MOD, VERSION};

    #[test]
    fn the_modules_require_the_versions_that_name_the_entries() {
        assert!(GO_MOD.contains(&format!("k8s.io/kubernetes v{VERSION}")));
        let staging = format!(" v0.{}", VERSION.strip_prefix("1.").expect("a version 1"));
        let replaced = GO_MOD.lines().filter(|line| line.contains(" => ") && line.ends_with(&staging));
        assert_eq!(replaced.count(), 33, "each of Kubernetes' own libraries");
        assert!(COREDNS_GO_MOD.contains(&format!("{COREDNS_PACKAGE} v{COREDNS_VERSION}")));
    }
}
