//! Packets and time in, request/response sessions and spans out.
//!
//! The crate is pure: no sockets, files, clocks, threads, environment or logging. Time is an argument. It is
//! total over hostile bytes (counted, never a panic) and bounded by [`Limits`]. The kernel, a capture file and
//! a test feed it alike:
//!
//! ```text
//! Packet -> decode -> Segment -> Flow { Stream x 2 } -> Conversation (HTTP/1, TCP) -> Session -> Span
//! ```
//!
//! [`Tracer`] takes packets in and gives sessions out; [`SpanBuilder`] says what spans say of them; [`capture`] reads
//! pcap and pcapng files; [`Rules`] picks packets of a file the way the kernel picks live ones.
#![forbid(unsafe_code)]

mod anatomy;
pub mod capture;
mod context;
mod describe;
mod flow;
mod id;
mod ledger;
mod limits;
mod loss;
mod outbox;
mod outcome;
mod packet;
mod protocol;
mod select;
mod semconv;
mod session;
mod span;
mod tracer;

pub use anatomy::{Anatomy, Handshake, Incident, Trouble, Troubles};
pub use describe::{AttributeWriter, Describe, EventRef, Head, ValueRef, write_all};
pub use flow::{ALL_LOTS, Counted, Shed, Unneeded, Way, Wish};
pub use ledger::{Ended, Imbalance, Ledger};
pub use limits::Limits;
pub use loss::Loss;
pub use outcome::{Outcome, Pairing, Transfer};
pub use packet::{Heading, Packet, Side, Toward};
pub use protocol::{
    Detail, Protocol, UnknownProtocol, from_app_protocol, from_port_name,
    http1::{Exchange, Framing, MOST_INTERIM, RequestHead, ResponseHead},
};
pub use select::{EgressRule, PortRule, Rules};
pub use semconv::{OtherSide, Semconv, SessionSpan, SpanBuilder, UnknownSemconv};
pub use session::Session;
pub use smol_str::SmolStr;
pub use span::{Attributes, Event, Key, Kind, Resource, Span, SpanId, Status, TraceId, Value};
pub use tracer::Tracer;
