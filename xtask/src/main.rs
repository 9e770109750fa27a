//! `cargo xtask`: the project's own commands, one verb a file. This file only reads the command line, hands over
//! to the verb and turns its outcome into an exit code: 0 done, 64 for bad usage or something missing that
//! could not be installed here, 1 for any other failure, or the exit code of the program that a verb ran.
//!
//! Progress goes to standard error, data to standard output. Whatever is fetched or built for later use is kept
//! in a cache outside the tree (see [`cache`]).

mod archive;
mod bench;
mod cache;
mod cluster;
mod dockerfile;
mod e2e;
mod house;
mod libraries;
mod needs;
mod netns;
mod platform;
mod process;
mod relay;
mod soak;
mod stop;
mod temp;
mod testlog;
mod toolchain;
mod traffic;
mod verbs;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code for bad usage or configuration, as `EX_USAGE` of sysexits.
const EX_USAGE: u8 = 64;

/// The commands of the Clovisor project.
///
/// New here? `cargo xtask demo` shows the main job: real HTTP traffic between two pods, traced live. It needs
/// root, and installs what is missing (Debian packages and build tools; see `cargo xtask setup --check`).
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(verbs::setup::Arguments),
    Build(verbs::build::Arguments),
    Demo(verbs::demo::Arguments),
    Jaeger(verbs::jaeger::Arguments),
    Image(verbs::image::Arguments),
    Test(verbs::test::Arguments),
    Compare(verbs::compare::Arguments),
    Fuzz(verbs::fuzz::Arguments),
    Bench(verbs::bench::Arguments),
    Soak(verbs::soak::Arguments),
    E2e(verbs::e2e::Arguments),
    Lint(verbs::lint::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // If the terminal is gone there is nobody left to tell.
            let _ = error.print();
            return if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match arguments.verb {
        Verb::Setup(arguments) => verbs::setup::run(&arguments),
        Verb::Build(_) => verbs::build::run(),
        Verb::Demo(arguments) => verbs::demo::run(&arguments),
        Verb::Image(arguments) => verbs::image::run(&arguments),
        Verb::Jaeger(_) => verbs::jaeger::run(),
        Verb::Test(arguments) => verbs::test::run(&arguments),
        Verb::Compare(arguments) => verbs::compare::run(&arguments),
        Verb::Bench(arguments) => verbs::bench::run(&arguments),
        Verb::Soak(arguments) => verbs::soak::run(&arguments),
        Verb::Fuzz(arguments) => verbs::fuzz::run(&arguments),
        Verb::E2e(arguments) => verbs::e2e::run(&arguments),
        Verb::Lint(arguments) => verbs::lint::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_code(&error)
        }
    }
}

/// The exit code that an error asks for.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<needs::Unmet>() {
        return EX_USAGE.into();
    }
    error
        .downcast_ref::<process::Failed>()
        .and_then(process::Failed::own_code)
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
