//! Protocols: what the ordered bytes of a flow mean. One folder (or file) each, behind [`Conversation`].
//!
//! A new protocol is a new folder with a `Conversation`, a variant of [`Protocol`] with its names, and a
//! line in [`Protocol::conversation`] and [`Detail`].

mod conversation;
pub(crate) mod http1;
pub(crate) mod name;
mod tcp;

pub use conversation::Detail;
pub(crate) use conversation::{Chunk, Conversation, End, Report, Reports};
pub use name::{Protocol, UnknownProtocol, from_app_protocol, from_port_name};

impl Protocol {
    /// The machine that parses a flow of it.
    pub(crate) fn conversation(self) -> Box<dyn Conversation> {
        match self {
            Self::Http => Box::new(http1::Http1::new()),
            Self::Tcp => Box::new(tcp::Tcp::new()),
        }
    }
}
