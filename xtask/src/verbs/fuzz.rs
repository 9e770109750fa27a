//! `cargo xtask fuzz`: the fuzz targets in `fuzz/`, each for a while, by LLVM's libFuzzer.
//!
//! What cargo-fuzz does, on stable Rust: the compiler's own flags count which edges of the code were run, and crate
//! `libfuzzer-sys` brings the engine. There is no address sanitizer, which needs nightly: the crate under test forbids
//! unsafe code, so what is looked for are panics, overflows, broken laws, endless loops and memory.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::{needs, process, workspace};

/// What makes the compiler count edges and comparisons; the flags that cargo-fuzz sets.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Fewer edges than this mean that nothing counts them: the seeds alone run more than a thousand.
const LEAST_EDGES: u64 = 300;

/// Feed the parsers millions of inputs, changed wherever that runs new code, and check their laws.
///
/// Starts from the captures of the tests and all that earlier runs have found (in the target directory, under
/// fuzz/corpus). Ends with a line for each target; fails with the input that broke a law.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask fuzz                        all targets, 30 seconds each\n  \
    cargo xtask fuzz --seconds 600 http     one target for ten minutes")]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only this target
    #[arg(value_enum)]
    target: Option<Target>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// One packet of any bytes
    Packet,
    /// What two ends say over HTTP/1, at any cut into segments
    Http,
    /// Packets of some connections in any order, at any time
    Tracer,
    /// Capture files of any bytes
    Capture,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Http => "http",
            Self::Tracer => "tracer",
            Self::Capture => "capture",
        }
    }

    /// Longest input in bytes: what is longer finds little more and is slower.
    fn most_bytes(self) -> u32 {
        match self {
            Self::Packet => 2_048,
            Self::Http | Self::Tracer => 4_096,
            Self::Capture => 16_384,
        }
    }
}

/// Where things are.
struct Place {
    /// All that is made.
    root: PathBuf,
    /// The programs.
    programs: PathBuf,
    /// Inputs that once broke a law, in the source.
    regressions: PathBuf,
}

/// How a run ended, in the engine's own last line.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    executions: u64,
    edges: u64,
    inputs: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    needs::ensure(&needs::FUZZ)?;
    let place = build()?;
    let targets = arguments.target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    let mut failed = Vec::new();
    for target in targets {
        match fuzz(&place, target, arguments.seconds) {
            Ok(summary) => println!("{:<8} {summary}", target.name()),
            Err(error) => {
                println!("{:<8} FAILED", target.name());
                eprintln!("{error:#}");
                failed.push(target.name());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("these targets failed: {}", failed.join(", ")) }
}

/// Builds the programs, with their coverage counted, and writes the seeds.
fn build() -> Result<Place> {
    let host = host()?;
    let root = workspace::target_dir()?.join("fuzz");
    let (build, seeds) = (root.join("build"), root.join("seeds"));
    let cargo = |subcommand| {
        let mut cargo = workspace::cargo();
        cargo
            .args([subcommand, "--locked", "--manifest-path", "fuzz/Cargo.toml", "--target-dir"])
            .arg(&build);
        cargo
    };
    // With a target named, build scripts are compiled without the flags, which they could not be linked with.
    process::run(
        cargo("build")
            .args(["--release", "--bins", "--target", &host])
            .env("RUSTFLAGS", FLAGS)
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    if seeds.exists() {
        fs::remove_dir_all(&seeds).with_context(|| format!("cannot remove {}", seeds.display()))?;
    }
    process::run(
        cargo("run").args(["--quiet", "--no-default-features", "--example", "seeds", "--"]).arg(&seeds),
    )?;
    Ok(Place {
        programs: build.join(host).join("release"),
        regressions: workspace::root().join("fuzz/regressions"),
        root,
    })
}

/// The target that this machine's compiler compiles for by itself.
fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = process::output(Command::new(rustc).arg("-vV").current_dir(workspace::root()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// Runs one target.
fn fuzz(place: &Place, target: Target, seconds: u32) -> Result<Summary> {
    let name = target.name();
    let (corpus, artifacts) = (place.root.join("corpus").join(name), place.root.join("artifacts"));
    let log = place.root.join(format!("{name}.log"));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let program = place.programs.join(name);
    let mut command = Command::new(&program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", target.most_bytes()))
        .args(["-rss_limit_mb=2048", "-timeout=10"])
        .arg(format!("-artifact_prefix={}/{name}-", artifacts.display()))
        // The first folder takes what is found; the others are only read.
        .args([&corpus, &place.root.join("seeds").join(name)])
        .args(Some(place.regressions.join(name)).filter(|folder| folder.is_dir()));
    eprintln!("{name}: {seconds} s, log in {} …", log.display());
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    if let Some(input) = artifact(&text) {
        bail!("{}", found(name, &program, input, &text));
    }
    ensure!(status.success(), "{name}: {status}\n{}", process::tail(&log));
    let summary = Summary::read(&text).with_context(|| format!("no summary in {}", log.display()))?;
    ensure!(summary.edges >= LEAST_EDGES, "{name}: {} edges: coverage is not counted", summary.edges);
    Ok(summary)
}

/// The file that the engine has written the failing input to.
fn artifact(log: &str) -> Option<&Path> {
    log.lines().find_map(|line| Some(Path::new(line.split_once("Test unit written to ")?.1.trim())))
}

/// What to tell of a failing input: why, where it is and what to do with it.
fn found(name: &str, program: &Path, input: &Path, log: &str) -> String {
    let (program, input) = (program.display(), input.display());
    // The panic's place and message; the engine's own line where it was none (memory, time).
    let panic = log.lines().skip_while(|line| !line.contains("panicked at")).take(4);
    let engine = log.lines().filter(|line| line.contains("ERROR: libFuzzer")).take(1);
    let why: String = panic.chain(engine).map(|line| format!("  | {line:.300}\n")).collect();
    format!(
        "{name}: an input broke a law\n{why}  \
         input     {input}\n  \
         repeat    {program} {input}\n  \
         minimise  {program} -minimize_crash=1 -runs=100000 {input}\n  \
         keep      cp {input} fuzz/regressions/{name}/    (`cargo xtask fuzz` begins with those)"
    )
}

impl Summary {
    /// Reads it from the last `DONE` line: `#70427 DONE cov: 1907 ft: 9208 corp: 1378/2454Kb lim: …`.
    fn read(log: &str) -> Option<Self> {
        let words: Vec<&str> =
            log.lines().rev().find(|line| line.contains("DONE"))?.split_whitespace().collect();
        let number = |word: &str| word.trim_start_matches('#').split('/').next()?.parse().ok();
        let after = |key| words.iter().skip_while(|word| **word != key).nth(1).and_then(|word| number(word));
        Some(Self { executions: number(words.first()?)?, edges: after("cov:")?, inputs: after("corp:")? })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, edges, inputs } = self;
        write!(f, "{executions:>10} executions, {edges:>5} edges covered, {inputs:>5} inputs in the corpus")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_run_is_read() {
        let log = "#2\tINITED cov: 9 ft: 9 corp: 1/1b exec/s: 0 rss: 28Mb\n\
                   #70427\tDONE   cov: 1907 ft: 9208 corp: 1378/2454Kb lim: 8192 exec/s: 2271 rss: 34Mb\n\
                   Done 70427 runs in 31 second(s)\n";
        assert_eq!(Summary::read(log), Some(Summary { executions: 70_427, edges: 1_907, inputs: 1_378 }));
        assert_eq!(Summary::read("#2\tINITED cov: 9\n"), None);
    }

    #[test]
    fn a_failing_input_is_named_with_its_reason() {
        let log = "#9\tNEW    cov: 1\nthread '<unnamed>' (1) panicked at src/http.rs:177:9:\nleft is not right\n\
                   ==1== ERROR: libFuzzer: deadly signal\n\
                   artifact_prefix='a/http-'; Test unit written to a/http-crash-18\nBase64: AA==\n";
        let input = artifact(log).expect("one");
        assert_eq!(input, Path::new("a/http-crash-18"));
        let text = found("http", Path::new("b/http"), input, log);
        for part in ["src/http.rs:177:9", "left is not right", "deadly signal", "b/http a/http-crash-18\n"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert_eq!(artifact("#9\tDONE   cov: 1\n"), None);
    }
}
