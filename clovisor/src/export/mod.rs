//! Where spans go: one seam, [`Sink`], and behind it every way out of the agent.
//!
//! A tour, in the order in which a span meets the rooms:
//!
//! 1. [`queue`] takes spans from the tracer without ever making it wait, makes batches, retries with back-off, and
//!    counts and says every span that is given up. A span is encoded where it comes in: what waits are bytes.
//! 2. [`sink`] is the seam: the form in which spans wait, what a batch is, what a sink answers, what is worth another try.
//! 3. [`Exporter`] is the choice of a sink, made from an [`Address`] (what the user wrote) and an
//!    [`Environment`] (what OpenTelemetry's standard variables say).
//! 4. [`otlp`] and [`jaeger`] send over the network; [`json`] and [`table`] write to standard output.
//!
//! It refuses to know where spans come from: all that it takes from its siblings is what can
//! be told as a span, [`clovisor_trace::Describe`]. Invariant: what leaves is what came in; no sink changes an identifier, a name, a time
//! or an attribute.

pub mod address;
pub mod env;
mod exporter;
mod http;
pub mod jaeger;
pub mod json;
pub mod otlp;
pub mod queue;
mod sampler;
pub mod sink;
mod size;
pub mod table;
pub(crate) mod text;

pub use address::{Address, AddressError, Server};
pub use env::{EnvError, Environment};
pub use exporter::{BuildError, Exporter};
pub use queue::{QueueConfig, Snapshot, SpanQueue, Worker};
pub use sampler::Sampler;
pub use sink::{Batch, ExportError, Form, Sent, Sink, Spans};
