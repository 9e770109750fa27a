//! What the commands do, one file each.

mod cleanup;
mod live;
mod read;
mod signals;
mod trace;

pub use cleanup::cleanup;
pub use read::read;
pub use trace::trace;
