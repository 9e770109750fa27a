//! OTLP over HTTP: protobuf bodies in POST requests.
//!
//! It refuses to add a path: the address has it already.

use http::{HeaderMap, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::{
    super::{
        address::Address,
        env::Environment,
        exporter::BuildError,
        http::{OTLP_LATER, Poster, connector},
        sink::{Batch, ExportError, Sink},
    },
    groups::Groups,
    settle,
};

/// A sink that posts to an OTLP receiver.
#[derive(Debug)]
pub struct OtlpHttp {
    poster: Poster,
    address: Address,
}

impl OtlpHttp {
    /// A sink for `uri`; nothing is sent yet.
    pub(crate) fn new(address: &Address, uri: Uri, tls: bool, env: &Environment) -> Result<Self, BuildError> {
        let connector = connector(tls, false, env.certificate.as_deref())?;
        let headers: HeaderMap = env.headers.iter().cloned().collect();
        Ok(Self { poster: Poster::new(connector, uri, headers, OTLP_LATER), address: address.clone() })
    }
}

impl Sink for OtlpHttp {
    type Form = Groups;

    fn describe(&self) -> String {
        self.address.to_string()
    }

    async fn export(&mut self, batch: &mut Batch<Groups>) -> Result<(), ExportError> {
        let body = batch.form_mut().message().concat();
        let answer = self.poster.post("application/x-protobuf", body).await?;
        // An answer that is no such message says nothing about rejections; the status said that it was taken.
        settle(batch, ExportTraceServiceResponse::decode(answer).unwrap_or_default());
        Ok(())
    }
}
