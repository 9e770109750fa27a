//! `clovisor`, the program: reads the command line, does what it says, and ends with a code that tells how.
//!
//! 0: done. 64: asked for something that cannot be. 1: could not start. With `trace -- COMMAND`: its own code.
#![forbid(unsafe_code)]

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser as _, error::ErrorKind};
use clovisor::{
    cli::{Cli, Command},
    failure, threads, verbs,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(complaint) if is_complaint(&complaint) => {
            eprintln!("{}", failure::one_line(&complaint));
            return failure::EX_USAGE.into();
        }
        Err(help) => {
            // Nobody may be there to read it, which changes nothing.
            _ = help.print();
            return if help.use_stderr() { failure::EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    log_to_stderr(cli.verbose);
    let done = threads::run(async {
        match cli.command {
            Command::Run(arguments) => verbs::run(*arguments, cli.verbose).await,
            Command::Trace(arguments) => verbs::trace(*arguments, cli.verbose).await,
            Command::Read(arguments) => verbs::read(arguments).await,
            Command::Cleanup => verbs::cleanup().await,
        }
    });
    done.context("cannot start").flatten().unwrap_or_else(|error| {
        eprintln!("clovisor: {error:#}");
        failure::code(&error)
    })
}

/// Whether it is a complaint, and not the help that was asked for or that a bare `clovisor` deserves.
fn is_complaint(error: &clap::Error) -> bool {
    error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// Logs go to stderr, so that standard output has sessions only.
fn log_to_stderr(verbose: bool) {
    let default = if verbose {
        "clovisor=debug,info,kube_runtime=error,kube_client=error"
    } else {
        "clovisor=info,warn,kube_runtime=error,kube_client=error"
    };
    let filter = EnvFilter::try_from_env("CLOVISOR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}
