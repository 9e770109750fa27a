//! How the program ends: exit codes, and one line that says what failed, why and what to do.

use std::process::ExitCode;

/// Wrong usage or configuration (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;

/// The user can put it right by asking otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The exit code of an error: 64 where the user can put it right, 1 for a failed start.
#[must_use]
pub fn code(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Usage>().is_some() { EX_USAGE.into() } else { ExitCode::FAILURE }
}
