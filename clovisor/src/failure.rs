//! How the program ends: exit codes, and one line that says what failed, why and what to do.

use std::process::ExitCode;

/// Wrong usage or configuration (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;

/// The user can put it right by asking otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A complaint about the command line, on one line: what is wrong, and where help is.
#[must_use]
pub fn one_line(complaint: &clap::Error) -> String {
    let text = complaint.to_string();
    let said = |line: &&str| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(said).collect();
    let said = lines.join(" ");
    format!("clovisor: {}; --help tells more", said.strip_prefix("error: ").unwrap_or(&said))
}

/// The exit code of an error: 64 where the user can put it right, 1 for a failed start.
#[must_use]
pub fn code(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Usage>().is_some() { EX_USAGE.into() } else { ExitCode::FAILURE }
}
