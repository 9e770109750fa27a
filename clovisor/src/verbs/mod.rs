//! What the commands do, one file each.

mod cleanup;
mod read;
mod trace;

pub use cleanup::cleanup;
pub use read::read;
pub use trace::trace;
