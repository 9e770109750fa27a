//! What the kernel side and the user side of Clovisor agree on: the header in front of each captured
//! packet, the keys and values of the maps, and every name that both must spell alike.
//!
//! It refuses logic, but for one rule that both sides must read alike ([`counting`]): nothing else here parses, decides or allocates. All types are plain old data with fixed
//! width integers and explicit padding, because the verifier rejects uninitialised bytes and the two sides
//! are compiled by different compilers. Sizes are asserted at compile time.
#![no_std]

pub mod counting;
mod event;
mod maps;
mod verdict;

pub use counting::{Counted, Spared};
pub use event::{EventHeader, MAX_CAPTURE, Tale, direction, side};
pub use maps::{
    ANY_ADDRESS, ANY_INTERFACE, EgressKey, FragmentKey, FragmentValue, INSIDE, LEFT_OUT, LossValue, PortKey,
    SessionKey, SessionValue, ShedValue, Window, name, protocol,
};
pub use verdict::Verdict;

/// Asserts at compile time that an ABI type has the size both sides count on.
macro_rules! assert_size {
    ($type:ty, $bytes:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $bytes);
    };
}
pub(crate) use assert_size;
