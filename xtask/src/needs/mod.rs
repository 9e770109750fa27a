//! What a verb needs from the machine, and getting it.
//!
//! [`ensure`] looks what is missing, gets it where it may (Debian packages as root; everything else goes into the
//! cache) and looks again. What is missing then is an [`Unmet`] that says what to install. Nothing is downloaded
//! but from the package registries through their own clients: apt-get, cargo, go.

mod apt;
mod ebpf;
pub(crate) mod go;
pub(crate) mod helm;
pub(crate) mod kubernetes;
pub(crate) mod suricata;
pub(crate) mod tools;

use std::fmt::{self, Write};

use anyhow::Result;

use crate::platform::OTHER;

/// One thing that a verb needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A Rust compiler that can compile for BPF.
    BpfCompiler,
    /// bpf-linker, made for the LLVM of that compiler.
    BpfLinker,
    /// A C linker, which cargo needs for everything.
    Cc,
    /// A C++ compiler.
    Cxx,
    /// `ip`.
    Ip,
    /// `tc`, to look at the kernel's side of things.
    Tc,
    /// `bpftool`, likewise.
    Bpftool,
    /// A web server.
    Nginx,
    /// A client.
    Curl,
    /// A client with many connections.
    Wrk,
    /// A client that pipelines.
    H2load,
    /// Another reader of captures, with `capinfos`.
    Tshark,
    /// Another tracer, a small one.
    Httpry,
    /// Another tracer, a large one.
    Packetbeat,
    /// Counts instructions.
    Valgrind,
    /// Another client by its http.client, and a server by its http.server.
    Python,
    /// A server and a client of yet another make.
    Node,
    /// Makes a small Debian.
    Debootstrap,
    /// One more reader of captures.
    Suricata,
    /// Go, which builds Jaeger.
    Go,
    /// Jaeger all-in-one.
    Jaeger,
    /// The programs of Kubernetes.
    Kubernetes,
    /// A cluster's name server.
    CoreDns,
    /// Helm.
    Helm,
    /// Where Kubernetes keeps its state.
    Etcd,
    /// Runs containers.
    Containerd,
    /// What containerd runs each container by.
    Runc,
    /// What containerd connects pods by.
    CniPlugins,
    /// What kube-proxy and pods' way out are made of.
    Iptables,
    /// The first process of a cluster, and of what it runs.
    Tini,
    /// A shell and small commands for images.
    Busybox,
    /// Makes a cluster's certificates.
    Openssl,
    /// Redis: the server and its client.
    Redis,
    /// `cargo fmt`.
    Rustfmt,
    /// `cargo clippy`.
    Clippy,
    /// `cargo deny`.
    CargoDeny,
    /// Rust's standard library for the architecture that this machine is not.
    CrossStd,
    /// A C compiler and linker for it.
    CrossCc,
    /// Runs its programs.
    Emulator,
    /// Builds images from a Dockerfile.
    Buildah,
}

/// What compiling the agent and its kernel side takes.
pub(crate) const BUILD: [Need; 3] = [Need::Cc, Need::BpfCompiler, Need::BpfLinker];
/// What the demo takes on top.
pub(crate) const DEMO: [Need; 3] = [Need::Ip, Need::Nginx, Need::Curl];
/// Real ends for the tests; without one the tests that use it are skipped.
pub(crate) const TEST: [Need; 14] = [
    Need::Ip,
    Need::Tc,
    Need::Nginx,
    Need::Curl,
    Need::Wrk,
    Need::H2load,
    Need::Tshark,
    Need::Python,
    Need::Node,
    Need::Iptables,
    Need::Redis,
    Need::Openssl,
    Need::Go,
    Need::Jaeger,
];
/// What a real cluster and what runs in it take.
pub(crate) const E2E: [Need; 19] = [
    Need::Ip,
    Need::Tc,
    Need::Bpftool,
    Need::Nginx,
    Need::Curl,
    Need::Etcd,
    Need::Containerd,
    Need::Runc,
    Need::CniPlugins,
    Need::Iptables,
    Need::Tini,
    Need::Busybox,
    Need::Openssl,
    Need::Redis,
    Need::Go,
    Need::Jaeger,
    Need::CoreDns,
    Need::Helm,
    Need::Kubernetes,
];
/// What an image for the other architecture takes on top of [`BUILD`].
pub(crate) const CROSS: [Need; 3] = [Need::CrossStd, Need::CrossCc, Need::Emulator];
/// What the comparison with Suricata takes.
pub(crate) const SURICATA: [Need; 2] = [Need::Debootstrap, Need::Suricata];
/// The tracers that Clovisor is measured beside.
pub(crate) const PEERS: [Need; 6] =
    [Need::Debootstrap, Need::Suricata, Need::Tshark, Need::Httpry, Need::Go, Need::Packetbeat];
/// What fuzzing takes.
pub(crate) const FUZZ: [Need; 2] = [Need::Cc, Need::Cxx];
/// What lint takes on top of [`BUILD`].
pub(crate) const LINT: [Need; 3] = [Need::Rustfmt, Need::Clippy, Need::CargoDeny];

impl Need {
    /// What it is called and what it is for.
    pub(crate) fn what(self) -> (&'static str, &'static str) {
        match self {
            Self::BpfCompiler => ("eBPF compiler", "compiles the kernel side"),
            Self::BpfLinker => ("bpf-linker", "links the kernel side"),
            Self::Cc => ("cc", "links every Rust program"),
            Self::Cxx => ("c++", "compiles the fuzzing engine"),
            Self::Ip => ("ip", "makes network namespaces for demo and tests"),
            Self::Tc => ("tc", "attaches other people's filters in tests"),
            Self::Bpftool => ("bpftool", "lists what is attached to interfaces in e2e"),
            Self::Nginx => ("nginx", "is the server in demo and tests"),
            Self::Curl => ("curl", "is the client in demo and tests"),
            Self::Wrk => ("wrk", "holds many connections at once in tests"),
            Self::Tshark => ("tshark", "reads captures as well, to compare in tests"),
            Self::Httpry => ("httpry", "is measured as well, in bench --peers"),
            Self::Packetbeat => ("Packetbeat", "is measured as well, in bench --peers"),
            Self::Valgrind => ("valgrind", "counts instructions in bench"),
            Self::H2load => ("h2load", "asks before it has its answers in tests"),
            Self::Python => ("python3", "is a client and a server of another make in tests"),
            Self::Node => ("node", "is a client and a server of yet another make in tests"),
            Self::Debootstrap => ("debootstrap", "makes the system that has Suricata"),
            Self::Suricata => ("Suricata", "reads captures as well, in compare"),
            Self::Go => ("go", "builds Jaeger, ends of connections for tests, and Kubernetes for e2e"),
            Self::Jaeger => ("Jaeger", "receives the traces in tests"),
            Self::Kubernetes => ("Kubernetes", "is the cluster of e2e"),
            Self::CoreDns => ("CoreDNS", "resolves names in e2e"),
            Self::Helm => ("Helm", "installs the chart in e2e"),
            Self::Etcd => ("etcd", "keeps the cluster's state in e2e"),
            Self::Containerd => ("containerd", "runs containers in e2e"),
            Self::Runc => ("runc", "is used by containerd"),
            Self::CniPlugins => ("CNI plugins", "connect pods in e2e"),
            Self::Iptables => ("iptables", "changes addresses in tests, and is used by kube-proxy in e2e"),
            Self::Tini => ("tini", "is the first process of the cluster in e2e"),
            Self::Busybox => ("busybox", "is the shell in the images of e2e"),
            Self::Openssl => ("openssl", "makes certificates for tests"),
            Self::Redis => ("redis-server", "holds the configuration in tests"),
            Self::Rustfmt => ("rustfmt", "checks the format of the source, in lint"),
            Self::Clippy => ("clippy", "checks Rust code, in lint"),
            Self::CargoDeny => ("cargo-deny", "checks licences and bans of dependencies, in lint"),
            Self::CrossStd => ("cross std", "compiles Rust for the image of the other architecture"),
            Self::CrossCc => (OTHER.cc, "links the image of the other architecture"),
            Self::Emulator => (OTHER.emulator, "tries the image of the other architecture"),
            Self::Buildah => ("buildah", "builds images from the Dockerfile"),
        }
    }

    /// Whether it is there.
    pub(crate) fn is_met(self) -> bool {
        match self {
            Self::BpfCompiler => ebpf::has_compiler(),
            Self::BpfLinker => ebpf::has_linker(),
            Self::Go => go::is_new_enough(),
            Self::Jaeger => go::has_jaeger(),
            Self::Packetbeat => go::has_packetbeat(),
            Self::Kubernetes => kubernetes::is_there(),
            Self::CoreDns => kubernetes::has_coredns(),
            Self::Helm => helm::is_there(),
            Self::Suricata => suricata::is_there(),
            Self::CniPlugins => kubernetes::cni_plugins().is_some(),
            Self::Rustfmt => tools::has_cargo_command("fmt"),
            Self::Clippy => tools::has_cargo_command("clippy"),
            Self::CargoDeny => tools::cargo_deny().is_file(),
            Self::CrossStd => OTHER.rustc().is_some(),
            Self::CrossCc => OTHER.has_cc(),
            Self::Redis => {
                ["redis-server", "redis-cli"].map(crate::process::find).iter().all(Option::is_some)
            }
            // A program by its own name.
            _ => crate::process::find(self.what().0).is_some(),
        }
    }

    /// The Debian packages that bring it, or that building it takes.
    fn packages(self) -> Vec<String> {
        match self {
            Self::BpfCompiler => ebpf::compiler_packages(),
            Self::BpfLinker => ebpf::linker_packages(),
            Self::Cc => vec!["gcc".to_owned(), "libc6-dev".to_owned()],
            Self::Cxx => vec!["g++".to_owned()],
            Self::Ip | Self::Tc => vec!["iproute2".to_owned()],
            Self::Nginx => vec!["nginx-light".to_owned()],
            Self::Curl => vec!["curl".to_owned()],
            Self::Wrk => vec!["wrk".to_owned()],
            Self::H2load => vec!["nghttp2-client".to_owned()],
            Self::Node => vec!["nodejs".to_owned()],
            Self::Python => vec!["python3-minimal".to_owned(), "python3".to_owned()],
            Self::Go => go::packages(),
            Self::Etcd => vec!["etcd-server".to_owned()],
            Self::CniPlugins => vec!["containernetworking-plugins".to_owned()],
            Self::Busybox => vec!["busybox-static".to_owned()],
            Self::Redis => vec!["redis-server".to_owned(), "redis-tools".to_owned()],
            Self::Packetbeat => vec!["libpcap-dev".to_owned()],
            Self::Tshark
            | Self::Httpry
            | Self::Valgrind
            | Self::Debootstrap
            | Self::Bpftool
            | Self::Containerd
            | Self::Runc
            | Self::Iptables
            | Self::Tini
            | Self::Openssl
            | Self::Buildah => {
                vec![self.what().0.to_owned()]
            }
            Self::CrossStd => OTHER.std_packages.map(str::to_owned).to_vec(),
            Self::CrossCc => OTHER.cc_packages.map(str::to_owned).to_vec(),
            Self::Emulator => vec!["qemu-user-static".to_owned()],
            Self::Jaeger
            | Self::Kubernetes
            | Self::CoreDns
            | Self::Helm
            | Self::Suricata
            | Self::Rustfmt
            | Self::Clippy
            | Self::CargoDeny => Vec::new(),
        }
    }

    /// Builds it into the cache, if that is how it comes.
    fn build(self) -> Result<()> {
        match self {
            Self::BpfLinker => ebpf::build_linker(),
            Self::Jaeger => go::build_jaeger(),
            Self::Packetbeat => go::build_packetbeat(),
            Self::Kubernetes => kubernetes::build(),
            Self::CoreDns => kubernetes::build_coredns(),
            Self::Helm => helm::build(),
            Self::Suricata => suricata::build(),
            Self::CargoDeny => tools::build_cargo_deny(),
            _ => Ok(()),
        }
    }

    /// What a person has to do where we may not.
    fn hint(self) -> String {
        match self {
            Self::BpfCompiler | Self::BpfLinker => ebpf::hint(),
            Self::Go => go::hint(),
            Self::Jaeger | Self::Kubernetes | Self::CoreDns | Self::Helm | Self::CargoDeny => {
                "`cargo xtask setup` builds it into the cache".to_owned()
            }
            Self::Packetbeat => "`cargo xtask bench --peers` builds it into the cache".to_owned(),
            Self::Rustfmt => "rustup component add rustfmt".to_owned(),
            Self::Clippy => "rustup component add clippy".to_owned(),
            Self::Suricata => "`cargo xtask compare --suricata` makes it in the cache, as root".to_owned(),
            Self::CrossStd => OTHER.std_hint(),
            _ => format!(
                "apt-get install {}   (Debian; elsewhere the package that brings `{}`)",
                self.packages().join(" "),
                self.what().0
            ),
        }
    }
}

/// Something that only the user can do; xtask ends with exit code 64.
#[derive(Debug)]
pub(crate) struct Unmet {
    message: String,
}

impl Unmet {
    /// Needs that are not met.
    pub(crate) fn new(needs: &[Need]) -> Self {
        let mut message = "something is missing on this machine. Install:".to_owned();
        for need in needs {
            let (name, purpose) = need.what();
            let _ = write!(message, "\n  {name}, which {purpose}:\n      {}", need.hint());
        }
        if !apt::is_usable() {
            message
                .push_str("\nRun as root on Debian, `cargo xtask setup` installs Debian packages by itself.");
        }
        Self { message }
    }

    /// An argument that cannot be used.
    pub(crate) fn usage(error: &anyhow::Error) -> Self {
        Self { message: format!("{error:#}") }
    }

    /// A verb that only root can run.
    pub(crate) fn root(verb: &str, why: &str) -> Self {
        let message = format!(
            "`cargo xtask {verb}` needs root, as it {why}.\n\
             Run it so: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {verb}"
        );
        Self { message }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unmet {}

/// Of these needs, the ones that are not met.
pub(crate) fn missing(needs: &[Need]) -> Vec<Need> {
    needs.iter().copied().filter(|need| !need.is_met()).collect()
}

/// Gets what is missing of these needs.
///
/// # Errors
/// [`Unmet`] names all that is missing after that; why something failed has been said on the way.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let absent = missing(needs);
    if absent.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = absent.iter().map(|need| need.what().0).collect();
    eprintln!("missing: {}", names.join(", "));
    if apt::is_usable() {
        report(apt::ensure_lists());
    }
    let mut packages: Vec<String> = absent.iter().flat_map(|need| need.packages()).collect();
    packages.sort();
    packages.dedup();
    if apt::is_usable() && !packages.is_empty() {
        report(apt::install(&packages));
    }
    // In the order given, so that what a build needs comes before it.
    for need in missing(&absent) {
        report(need.build());
    }
    let needs = missing(needs);
    if needs.is_empty() { Ok(()) } else { Err(Unmet::new(&needs).into()) }
}

/// Says why something could not be got; the caller goes on with the rest and looks at the end what is missing.
fn report(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("warning: {error:#}");
    }
}
