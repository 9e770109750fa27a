//! What the commands do, one file each.

mod cleanup;
mod read;
mod run;
mod trace;

pub use cleanup::cleanup;
pub use read::read;
pub use run::run;
pub use trace::trace;
