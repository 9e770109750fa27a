//! OTLP, the protocol of OpenTelemetry: one encoding, two ways to carry it.
//!
//! It refuses the JSON form over HTTP (every receiver takes protobuf) and the SDK's exporters, which know one
//! resource a process, while an agent speaks for many services. Invariant: what a receiver says it rejected is
//! counted as refused, with the reason it gave.

mod codec;
mod encode;
mod groups;
mod grpc;
mod http;
mod message;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;

pub use self::{groups::Groups, grpc::OtlpGrpc, http::OtlpHttp};
use super::{sink::Batch, text};

/// The spans were taken, but for those that the answer says were rejected.
fn settle(batch: &mut Batch<Groups>, answer: ExportTraceServiceResponse) {
    let partial = answer.partial_success.unwrap_or_default();
    // A negative number is nonsense; a message without rejections is a warning only.
    let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
    if rejected == 0 && !partial.error_message.is_empty() {
        tracing::warn!(
            message = text::shown(&partial.error_message, 200),
            "the receiver warns about spans it took"
        );
    }
    batch.accept_but(
        rejected,
        format!("rejected by the receiver: {}", text::shown(&partial.error_message, 200)),
    );
}
