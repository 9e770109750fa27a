//! `cargo xtask setup`: gets everything that any verb needs, or says what is there.

use anyhow::Result;

use crate::cache;
use crate::needs::{self, BUILD, CROSS, DEMO, E2E, FUZZ, LINT, Need, TEST, Unmet};

/// Get what the other verbs need: Debian packages (as root), bpf-linker, Jaeger, Kubernetes, cargo-deny.
///
/// Every verb gets by itself what it needs; this gets all at once, for a machine that will be offline later or an
/// image. Programs that are built go into a cache outside the tree ($CLOVISOR_CACHE, else
/// $XDG_CACHE_HOME/clovisor, else ~/.cache/clovisor), each in a folder keyed by its version.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only say what is there and what is missing; exits with 64 if anything is missing
    #[arg(long)]
    check: bool,
    /// Leave out what only `lint` needs (cargo-deny takes minutes to build)
    #[arg(long)]
    without_lint: bool,
    /// Leave out what only `e2e` needs (Kubernetes takes 10 minutes to build)
    #[arg(long)]
    without_e2e: bool,
    /// Also what `image --all --dockerfile` needs: a cross compiler, an emulator, buildah. On Debian this adds the
    /// other architecture to dpkg's
    #[arg(long)]
    with_images: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut all: Vec<Need> = Vec::new();
    let lint: &[Need] = if arguments.without_lint { &[] } else { &LINT };
    let e2e: &[Need] = if arguments.without_e2e { &[] } else { &E2E };
    let images: Vec<Need> =
        if arguments.with_images { CROSS.into_iter().chain([Need::Buildah]).collect() } else { Vec::new() };
    for &need in BUILD.iter().chain(&DEMO).chain(&TEST).chain(&FUZZ).chain(lint).chain(e2e).chain(&images) {
        if !all.contains(&need) {
            all.push(need);
        }
    }
    let outcome = if arguments.check {
        let missing = needs::missing(&all);
        if missing.is_empty() { Ok(()) } else { Err(Unmet::new(&missing).into()) }
    } else {
        needs::ensure(&all)
    };
    for need in &all {
        let (name, purpose) = need.what();
        println!("{:<8} {name:<21} {purpose}", if need.is_met() { "there" } else { "MISSING" });
    }
    println!("cache    {}", cache::dir().display());
    outcome
}
