//! Jaeger Thrift over HTTP: binary Thrift in POST requests to the collector, by default on port 14268.
//!
//! It refuses the library's own HTTP clients, one of which speaks HTTP/2 only to servers that do not, and hands it
//! ours. The URL is ours too: the library's `OTEL_EXPORTER_JAEGER_ENDPOINT` changes nothing.

use std::{future::Future, pin::Pin};

use http::{HeaderMap, Uri};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_jaeger::new_collector_pipeline;
use opentelemetry_sdk::runtime::Tokio;

use super::{
    super::{
        address::Address,
        env::Environment,
        exporter::BuildError,
        http::{Poster, THRIFT_LATER, connector},
        sink::{Batch, ExportError, Sink, Spans},
    },
    Exporters, config, fitting, read_error, refuse_first, send,
};

/// More in one request is no faster, and a proxy in between may refuse it.
const MAX_MESSAGE: usize = 3 << 20;

/// A sink that posts to a Jaeger collector.
#[derive(Debug)]
pub struct JaegerHttp {
    exporters: Exporters,
    client: Client,
    address: Address,
}

impl JaegerHttp {
    /// A sink for `uri`; nothing is sent yet.
    pub(crate) fn new(address: &Address, uri: Uri, tls: bool, env: &Environment) -> Result<Self, BuildError> {
        let connector = connector(tls, false, env.certificate.as_deref())?;
        let client = Client(Poster::new(connector, uri, HeaderMap::new(), THRIFT_LATER));
        Ok(Self { exporters: Exporters::default(), client, address: address.clone() })
    }
}

impl Sink for JaegerHttp {
    type Form = Spans;

    fn describe(&self) -> String {
        self.address.to_string()
    }

    async fn export(&mut self, batch: &mut Batch<Spans>) -> Result<(), ExportError> {
        while let Some(resource) = batch.form().list().first().map(|span| span.resource.clone()) {
            let count = fitting(batch, &resource, MAX_MESSAGE);
            if count == 0 {
                refuse_first(batch, MAX_MESSAGE);
                continue;
            }
            let client = &self.client;
            let make = || {
                new_collector_pipeline()
                    .with_service_name(resource.service_name())
                    .with_trace_config(config(&resource))
                    // Has to be a URL, but `Client` knows the real one.
                    .with_endpoint("http://collector/")
                    .with_http_client(client.clone())
                    .build_collector_exporter::<Tokio>()
            };
            let exporter = self.exporters.get(&resource, make).map_err(read_error)?;
            send(exporter, batch, &resource, count).await.map_err(read_error)?;
        }
        Ok(())
    }
}

/// Our HTTP client in the shape that the library asks for, which is of `http` 0.2.
#[derive(Clone, Debug)]
struct Client(Poster);

impl HttpClient for Client {
    // What `async_trait`, with which the trait was written, makes of an `async fn`.
    fn send<'a, 'b>(
        &'a self,
        request: Request<Vec<u8>>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let body = self.0.post("application/vnd.apache.thrift.binary", request.into_body()).await?;
            // Every status but success is an error by now.
            Ok(Response::new(body))
        })
    }
}
