//! OTLP over gRPC, on the same HTTP client as everything else.
//!
//! It refuses tonic's own transport, so that TLS and name look-up are set up in one place. What a status means
//! follows the OTLP specification ("Failures", OTLP/gRPC).

use std::time::Duration;

use http::{Uri, uri::PathAndQuery};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::{
    Code, Request,
    client::Grpc,
    metadata::{MetadataMap, MetadataValue},
};

use super::{
    super::{
        address::Address,
        env::Environment,
        exporter::BuildError,
        http::{Connector, USER_AGENT, connector},
        sink::{Batch, ExportError, Sink},
        text,
    },
    codec::Encoded,
    groups::Groups,
    settle,
};

/// The call, by service and method (`trace_service.proto`).
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

type Transport = Client<Connector, tonic::body::Body>;

/// A sink that calls an OTLP receiver.
#[derive(Debug)]
pub struct OtlpGrpc {
    client: Grpc<Transport>,
    metadata: MetadataMap,
    address: Address,
}

impl OtlpGrpc {
    /// A sink for `origin`; nothing is sent yet.
    pub(crate) fn new(
        address: &Address,
        origin: Uri,
        tls: bool,
        env: &Environment,
    ) -> Result<Self, BuildError> {
        let transport = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http2_only(true)
            // A receiver that vanished without a word is found out while no spans flow.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .build(connector(tls, true, env.certificate.as_deref())?);
        let mut metadata = MetadataMap::from_headers(env.headers.iter().cloned().collect());
        metadata.insert("user-agent", MetadataValue::from_static(USER_AGENT));
        Ok(Self { client: Grpc::with_origin(transport, origin), metadata, address: address.clone() })
    }
}

impl Sink for OtlpGrpc {
    type Form = Groups;

    fn describe(&self) -> String {
        self.address.to_string()
    }

    async fn export(&mut self, batch: &mut Batch<Groups>) -> Result<(), ExportError> {
        let mut message = Request::new(batch.form_mut().message());
        *message.metadata_mut() = self.metadata.clone();
        let answer = self.call(message).await.map_err(|status| read_status(&status))?;
        settle(batch, answer);
        Ok(())
    }
}

impl OtlpGrpc {
    async fn call(
        &mut self,
        request: Request<Vec<Bytes>>,
    ) -> Result<ExportTraceServiceResponse, tonic::Status> {
        // Named by its kind, as a failure to connect is known by its source.
        self.client.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
        let answer = self.client.unary(request, PathAndQuery::from_static(EXPORT), Encoded).await?;
        Ok(answer.into_inner())
    }
}

/// What a status means for the spans of the request.
fn read_status(status: &tonic::Status) -> ExportError {
    let after = retry_delay(status.details());
    let later = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        // Only a receiver that says when it will have room again will have it.
        Code::ResourceExhausted => after.is_some(),
        // With a cause it is our own side's name for "the connection failed".
        Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    };
    let reason = match std::error::Error::source(status) {
        Some(cause) => text::chain(cause),
        None => format!("the server answered {:?}: {}", status.code(), text::shown(status.message(), 200)),
    };
    if later { ExportError::Retry { reason, after } } else { ExportError::Refused { reason } }
}

/// `google.rpc.Status`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RpcRetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RpcDuration>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// How long the server asked to be left alone.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RpcRetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?.min(999_999_999)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(seconds: i64, nanos: i32) -> Vec<u8> {
        let info = RpcRetryInfo { retry_delay: Some(RpcDuration { seconds, nanos }) };
        let any = RpcAny {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        };
        RpcStatus { details: vec![any] }.encode_to_vec()
    }

    #[test]
    fn which_status_is_worth_another_try() {
        for code in (0..=16).map(Code::from_i32) {
            let error = read_status(&tonic::Status::new(code, "x"));
            let retried = matches!(error, ExportError::Retry { .. });
            // OTLP specification, table of "retryable" codes.
            assert_eq!(retried, matches!(code as i32, 1 | 4 | 10 | 11 | 14 | 15), "{code:?}: {error}");
        }
    }

    #[test]
    fn exhausted_is_tried_again_when_the_server_says_when() {
        let status =
            tonic::Status::with_details(Code::ResourceExhausted, "full", details(3, 500_000_000).into());
        let ExportError::Retry { after, .. } = read_status(&status) else { panic!("not retried") };
        assert_eq!(after, Some(Duration::from_millis(3500)));
    }

    #[test]
    fn hostile_details_are_no_delay() {
        for bytes in [details(-1, 0), details(0, -5), vec![0xff; 40], vec![0x1a, 0x7f]] {
            assert_eq!(retry_delay(&bytes), None);
        }
    }
}
