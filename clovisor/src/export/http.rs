//! The HTTP client of every sink that needs one: plain or TLS, HTTP/1.1 or HTTP/2, with connections kept.
//!
//! It refuses redirects (spans may not wander to a host that nobody configured), answers above 64 KiB, and TLS
//! without any certificate authority to trust. It also holds the one reading of an HTTP status: what is taken, what
//! is worth another try (OTLP specification, "Retryable Response Codes"), what is refused for good.

use std::{path::Path, sync::Arc, time::Duration};

use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{exporter::BuildError, sink::ExportError, text};

/// A collector that does not answer a SYN is not there; the queue tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers are a few bytes; more is a wrong server.
const MAX_ANSWER: usize = 64 * 1024;
/// How the agent names itself, as the OTLP specification asks.
pub(super) const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-Clovisor/", env!("CARGO_PKG_VERSION"));

/// Connections to whatever address the request names.
pub(super) type Connector = HttpsConnector<HttpConnector>;

/// Connections that speak HTTP/2 if `http2`, else HTTP/1.1; the authorities are loaded only if `tls`.
pub(super) fn connector(tls: bool, http2: bool, certificate: Option<&Path>) -> Result<Connector, BuildError> {
    let roots = if tls { roots(certificate)? } else { RootCertStore::empty() };
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::Tls { reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    Ok(if http2 {
        builder.enable_http2().wrap_connector(tcp)
    } else {
        builder.enable_http1().wrap_connector(tcp)
    })
}

fn roots(certificate: Option<&Path>) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    let tls = |reason: String| BuildError::Tls { reason };
    if let Some(path) = certificate {
        let unreadable =
            |error: &dyn std::fmt::Display| tls(format!("cannot read {}: {error}", path.display()));
        for one in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
            let one = one.map_err(|error| unreadable(&error))?;
            roots.add(one).map_err(|error| unreadable(&error))?;
        }
    } else {
        // What the system has in bad certificates is no reason to fail, as long as there are good ones.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(tls("no certificate authority to trust was found".to_owned()));
    }
    Ok(roots)
}

/// Posts bodies to one URL.
#[derive(Clone, Debug)]
pub(super) struct Poster {
    client: Client<Connector, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    /// Statuses that are worth another try.
    later: &'static [u16],
}

/// OTLP specification, "Retryable Response Codes".
pub(super) const OTLP_LATER: &[u16] = &[429, 502, 503, 504];
/// Jaeger's collector says 500 when its queue is full.
pub(super) const THRIFT_LATER: &[u16] = &[429, 500, 502, 503, 504];

impl Poster {
    /// A poster whose every request carries `headers`, and which tries again after a status in `later`.
    pub(super) fn new(connector: Connector, uri: Uri, mut headers: HeaderMap, later: &'static [u16]) -> Self {
        headers.entry(header::USER_AGENT).or_insert(header::HeaderValue::from_static(USER_AGENT));
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { client, uri, headers, later }
    }

    /// Posts and reads the answer of a server that took the body.
    ///
    /// # Errors
    /// `Retry` where nobody answered or the answer was "later", `Refused` for any other answer but success.
    pub(super) async fn post(&self, content_type: &'static str, body: Vec<u8>) -> Result<Bytes, ExportError> {
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        let answer =
            self.client.request(request).await.map_err(|error| ExportError::retry(text::chain(&error)))?;
        let (head, body) = answer.into_parts();
        let body = match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(body) => body.to_bytes(),
            // The status has been said; that the rest is missing or too long does not undo it.
            Err(_) => Bytes::new(),
        };
        read_status(head.status, &head.headers, &body, self.later).map(|()| body)
    }
}

/// What a status means for the spans of the request.
fn read_status(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    later: &[u16],
) -> Result<(), ExportError> {
    if status.is_success() {
        return Ok(());
    }
    let mut reason = format!("the server answered {status}");
    let said = text::shown(&String::from_utf8_lossy(&body[..body.len().min(1024)]), 200);
    // A protobuf body is not for people.
    if !said.is_empty() && !said.contains('\u{fffd}') {
        reason = format!("{reason}: {said}");
    }
    if later.contains(&status.as_u16()) {
        return Err(ExportError::Retry { reason, after: retry_after(headers) });
    }
    Err(ExportError::Refused { reason })
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3); its date form is left to our own back-off.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<u32>().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_status_means() {
        let mut later = HeaderMap::new();
        later.insert(header::RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(read_status(StatusCode::ACCEPTED, &later, b"", OTLP_LATER), Ok(()));
        for status in [429, 502, 503, 504] {
            let error =
                read_status(StatusCode::from_u16(status).unwrap(), &later, b"busy", OTLP_LATER).unwrap_err();
            let ExportError::Retry { after, reason } = error else { panic!("{status}: {error:?}") };
            assert_eq!(after, Some(Duration::from_secs(7)));
            assert!(reason.contains("busy"), "{reason}");
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            let error = read_status(StatusCode::from_u16(status).unwrap(), &later, b"\x1b[2J", OTLP_LATER)
                .unwrap_err();
            assert!(
                matches!(&error, ExportError::Refused { reason } if !reason.contains('\x1b')),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_date_or_nonsense_to_retry_after_is_left_to_our_back_off() {
        for value in ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "", "9999999999999"] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers), None, "{value}");
        }
    }

    #[test]
    fn a_certificate_file_that_is_not_there_is_named() {
        let error = connector(true, false, Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
