//! The edge to the kernel: loads the classifiers, puts them on interfaces, tells them what to pick, and
//! brings the picked packets back in order.
//!
//! It refuses to decide what should be attached, and to look into packets: it hands over an
//! [`EventHeader`](clovisor_common::EventHeader) and the bytes from the IP header up.
//!
//! - [`capability`]: may this process do it?
//! - [`interface`]: which interface, seen from which side?
//! - [`namespace`]: in whose network namespace, and how to work there?
//! - [`veth`]: which interface is a pod's, and what changes among the interfaces?
//! - [`kernel`]: the loaded object, its rules and its counters.
//! - [`attach`]: the classifiers on an interface's hooks.
//! - [`packets`]: packets back, in order.
//! - [`losses`]: what was lost on that way, of which interface and when.
//! - [`shares`]: what is left out, and what was.
//! - [`spared`]: what nobody looks at, and what was counted instead.
//! - [`clock`]: the clock that kernel time is in.

pub mod attach;
pub mod capability;
pub mod clock;
pub mod interface;
pub mod kernel;
pub mod losses;
pub mod namespace;
mod noted;
pub mod packets;
mod request;
pub mod shares;
pub mod spared;
pub mod veth;
