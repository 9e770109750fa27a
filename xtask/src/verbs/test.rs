//! `cargo xtask test`: all tests, with all that they need, and an honest count.
//!
//! A test that lacks something prints a line `skipped: <reason>` and returns; Rust's test runner counts it as
//! passed and hides the line. Here these lines are made visible, counted apart, and refused where `CI` is set.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::needs;
use crate::testlog::{Event, Reader};
use crate::workspace;

/// Run all tests, the ones in the kernel included (these need root; without it they are skipped).
///
/// Gets what is missing first. Ends with a line `N passed, N failed, N skipped`. With CI set in the environment a
/// skipped test is a failure.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask test                        everything\n  \
    cargo xtask test -p clovisor-trace      one crate\n  \
    cargo xtask test reassembly             tests with this in their name\n  \
    cargo xtask test -- --test-threads 1    with options of Rust's test runner")]
pub(crate) struct Arguments {
    /// Only tests of this package; may be given more than once
    #[arg(short, long, value_name = "NAME")]
    package: Vec<String>,
    /// Only tests whose name has this in it
    filter: Option<String>,
    /// Options for Rust's test runner
    #[arg(last = true, value_name = "OPTIONS")]
    runner: Vec<String>,
}

/// What became of the tests.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    ignored: usize,
    skipped: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let in_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
    needs::ensure(&needs::BUILD)?;
    if let Err(error) = needs::ensure(&needs::TEST) {
        if in_ci {
            return Err(error);
        }
        eprintln!("warning: {error:#}\ntests that need it are skipped");
    }
    let (count, succeeded) = stream(arguments)?;
    report(&count);
    if in_ci && !count.skipped.is_empty() {
        bail!("{} tests were skipped, and CI is set", count.skipped.len());
    }
    ensure!(succeeded && count.failed == 0, "some tests failed, or did not compile; see above");
    Ok(())
}

/// Runs cargo test, shows what it says but for the output of tests that passed, and counts.
fn stream(arguments: &Arguments) -> Result<(Count, bool)> {
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]);
    if arguments.package.is_empty() {
        command.args(["--workspace", "--exclude", "clovisor-ebpf"]);
    }
    for package in &arguments.package {
        command.args(["--package", package]);
    }
    // The reasons of skipped tests are in the output of tests that passed.
    command.args(&arguments.filter).args(["--", "--show-output"]).args(&arguments.runner);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut count = Count::default();
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of cargo test")?;
        let line = String::from_utf8_lossy(&line);
        match reader.read(&line) {
            Event::Show => println!("{line}"),
            Event::Hide => {}
            Event::Skipped { test, reason } => count.skipped.push(format!("{test}: {reason}")),
            Event::Result { passed, failed, ignored } => {
                count.passed += passed;
                count.failed += failed;
                count.ignored += ignored;
                println!("{line}");
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok((count, status.success()))
}

/// The reasons of all skips, then the line that is made to be read by programs, too.
fn report(count: &Count) {
    if !count.skipped.is_empty() {
        println!("skipped:");
    }
    for skipped in &count.skipped {
        println!("  {skipped}");
    }
    if count.ignored > 0 {
        println!("ignored (marked #[ignore] in the source): {}", count.ignored);
    }
    let skipped = count.skipped.len();
    println!();
    println!(
        "{} passed, {} failed, {} skipped",
        count.passed.saturating_sub(skipped),
        count.failed,
        skipped + count.ignored
    );
}
