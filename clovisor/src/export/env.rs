//! OpenTelemetry's standard environment variables, read once at the start.
//!
//! Taken: `OTEL_EXPORTER_OTLP_{ENDPOINT,HEADERS,TIMEOUT,PROTOCOL,CERTIFICATE}`, each with its `_TRACES_` form that
//! goes before it, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`. It is pure: the variables come from a
//! function, so a test needs no real environment. It refuses values that it cannot use, with an error, where the
//! specification would go on with a default: an operator who set a variable meant it.

use std::{fmt, path::PathBuf, time::Duration};

use clovisor_trace::{Attributes, Resource, Value};
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::{
    address::{Address, Server, split},
    sampler::{Sampler, Wrong},
};

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// What the variables say.
#[derive(Clone, PartialEq, Eq)]
pub struct Environment {
    /// Where spans go if nothing else says so.
    pub endpoint: Option<Address>,
    /// Sent with every OTLP request; may hold secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// PEM file of the certificate authorities to trust in place of the system's.
    pub certificate: Option<PathBuf>,
    /// Attributes for every resource that has not got them itself; without `service.name`.
    pub resource: Vec<(String, String)>,
    /// Name for a service that has none.
    pub service_name: Option<String>,
    /// Which spans are exported.
    pub sampler: Sampler,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            certificate: None,
            resource: Vec::new(),
            service_name: None,
            sampler: Sampler::default(),
        }
    }
}

/// A variable that is set to something unusable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the environment variable {variable} {problem}: {remedy}")]
pub struct EnvError {
    variable: String,
    problem: String,
    remedy: String,
}

impl EnvError {
    fn new(variable: &str, problem: impl Into<String>, remedy: &str) -> Self {
        Self { variable: variable.to_owned(), problem: problem.into(), remedy: remedy.to_owned() }
    }
}

impl Environment {
    /// Reads the process's own environment.
    ///
    /// # Errors
    /// A variable that is set to something unusable.
    pub fn from_process() -> Result<Self, EnvError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads the variables through `lookup`. A variable that is set to nothing counts as not set, as specified.
    ///
    /// # Errors
    /// A variable that is set to something unusable.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, EnvError> {
        let get =
            |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        // The variable for traces goes before the one for all signals.
        let otlp = |what: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
            names.into_iter().find_map(|name| get(&name).map(|value| (name, value)))
        };
        let mut environment = Self::default();
        if let Some((name, value)) = otlp("ENDPOINT") {
            let protocol = otlp("PROTOCOL").map(|(name, value)| protocol(&name, &value)).transpose()?;
            environment.endpoint = Some(endpoint(&name, &value, protocol)?);
        }
        if let Some((name, value)) = otlp("HEADERS") {
            environment.headers = headers(&name, &value)?;
        }
        if let Some((name, value)) = otlp("TIMEOUT") {
            let millis = value.parse::<u64>().ok().filter(|millis| *millis > 0);
            let remedy = "set it to milliseconds, as in 10000";
            environment.timeout = Duration::from_millis(
                millis.ok_or_else(|| EnvError::new(&name, "is no number of milliseconds above 0", remedy))?,
            );
        }
        environment.certificate = otlp("CERTIFICATE").map(|(_, path)| path.into());
        if let Some(list) = get("OTEL_RESOURCE_ATTRIBUTES") {
            environment.resource = pairs("OTEL_RESOURCE_ATTRIBUTES", &list)?;
        }
        // As specified, the variable of its own goes before the list.
        let listed = environment.resource.iter().position(|(key, _)| key == "service.name");
        let listed = listed.map(|at| environment.resource.remove(at).1);
        environment.service_name = get("OTEL_SERVICE_NAME").or(listed);
        if let Some(name) = get(SAMPLER) {
            environment.sampler = sampler(&name, get(SAMPLER_ARG).as_deref())?;
        }
        Ok(environment)
    }

    /// Adds what the variables say to a resource. What is known of the pod itself stands: one agent speaks for many
    /// services, so the variables can only fill gaps. To be called once a resource, before its spans are made.
    pub fn complete(&self, resource: &mut Resource) {
        let list: &mut Attributes = &mut resource.attributes;
        if let Some(name) = &self.service_name
            && !list.iter().any(|(key, _)| key == "service.name")
        {
            list.insert(0, ("service.name".into(), Value::from(name.clone())));
        }
        for (key, value) in &self.resource {
            if !list.iter().any(|(known, _)| known == key) {
                list.push((key.clone().into(), Value::from(value.clone())));
            }
        }
    }
}

fn sampler(name: &str, argument: Option<&str>) -> Result<Sampler, EnvError> {
    Sampler::read(name, argument).map_err(|wrong| match wrong {
        Wrong::Name => EnvError::new(
            SAMPLER,
            format!("names `{}`, which is no sampler here", super::text::shown(name, 40)),
            "set it to always_on, always_off or traceidratio, or to one of these after parentbased_",
        ),
        Wrong::Argument => {
            EnvError::new(SAMPLER_ARG, "is no share of traces", "set it to a number from 0 to 1, as in 0.25")
        }
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Grpc,
    Http,
}

fn protocol(variable: &str, value: &str) -> Result<Protocol, EnvError> {
    match value {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::Http),
        _ => Err(EnvError::new(
            variable,
            format!("asks for `{}`, which is not spoken here", super::text::shown(value, 40)),
            "set it to grpc or http/protobuf",
        )),
    }
}

/// Endpoints of the variables follow OpenTelemetry's rules, not ours: they are always OTLP; the one for all signals
/// is a base to which the path is added, the one for traces is used as it is.
fn endpoint(variable: &str, value: &str, protocol: Option<Protocol>) -> Result<Address, EnvError> {
    let remedy = "set it to a URL, as in http://collector:4317";
    let parts = split(value).map_err(|error| EnvError::new(variable, error.to_string(), remedy))?;
    let tls = match parts.scheme {
        Some("https") => true,
        Some("http") | None => false,
        Some(_) => return Err(EnvError::new(variable, "has a scheme other than http and https", remedy)),
    };
    let default_port = match (parts.scheme, tls) {
        (None, _) => 4317,
        (_, true) => 443,
        (_, false) => 80,
    };
    let server = Server { host: parts.host, port: parts.port.unwrap_or(default_port) };
    let by_port = if server.port == 4317 { Protocol::Grpc } else { Protocol::Http };
    if protocol.unwrap_or(by_port) == Protocol::Grpc {
        return Ok(Address::OtlpGrpc { server, tls });
    }
    let path = match (parts.path, variable.contains("TRACES")) {
        (Some(path), true) => path,
        (None, true) => "/".to_owned(),
        (path, false) => format!("{}/v1/traces", path.unwrap_or_default().trim_end_matches('/')),
    };
    Ok(Address::OtlpHttp { server, tls, path })
}

fn headers(variable: &str, value: &str) -> Result<Vec<(HeaderName, HeaderValue)>, EnvError> {
    let read = |(key, value): (String, String)| {
        let name = HeaderName::from_bytes(key.to_ascii_lowercase().as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    let remedy = "set it to name=value pairs with commas between, values percent-encoded";
    // The value is not repeated: it is where tokens are kept.
    pairs(variable, value)?
        .into_iter()
        .map(|pair| {
            read(pair).ok_or_else(|| EnvError::new(variable, "names a header that HTTP cannot carry", remedy))
        })
        .collect()
}

/// `key=value` pairs with commas between, percent-encoded, as in W3C Baggage.
fn pairs(variable: &str, list: &str) -> Result<Vec<(String, String)>, EnvError> {
    let remedy = "set it to key=value pairs with commas between, values percent-encoded";
    let decode = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    list.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let key = decode(key).filter(|key| !key.is_empty())?;
            Some((key, decode(value)?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| EnvError::new(variable, "holds something that is no key=value pair", remedy))
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Environment")
            .field("endpoint", &self.endpoint)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("certificate", &self.certificate)
            .field("resource", &self.resource)
            .field("service_name", &self.service_name)
            .field("sampler", &self.sampler)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, EnvError> {
        Environment::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(read(&[]).unwrap(), Environment::default());
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap(), Environment::default());
    }

    #[test]
    fn endpoints_follow_the_specification() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
        const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[(ALL, "http://c:4317")], "OTLP over gRPC to c:4317"),
            (&[(ALL, "c:4317")], "OTLP over gRPC to c:4317"),
            (&[(ALL, "https://c:4317")], "OTLP over gRPC with TLS to c:4317"),
            (&[(ALL, "http://c:4318")], "OTLP over HTTP to http://c:4318/v1/traces"),
            (&[(ALL, "http://c:4318/base/")], "OTLP over HTTP to http://c:4318/base/v1/traces"),
            (&[(ALL, "http://c:4318"), (PROTOCOL, "grpc")], "OTLP over gRPC to c:4318"),
            (
                &[(ALL, "http://c:4317"), (PROTOCOL, "http/protobuf")],
                "OTLP over HTTP to http://c:4317/v1/traces",
            ),
            (
                &[(ALL, "http://c:1"), (PROTOCOL, "http/protobuf"), (TRACES_PROTOCOL, "grpc")],
                "OTLP over gRPC to c:1",
            ),
            (&[(TRACES, "http://c:4318")], "OTLP over HTTP to http://c:4318/"),
            (
                &[(TRACES, "https://c/my/path"), (ALL, "http://d:4317")],
                "OTLP over HTTP to https://c:443/my/path",
            ),
            (&[(ALL, "http://[::1]:14268")], "OTLP over HTTP to http://[::1]:14268/v1/traces"),
        ];
        for (variables, expected) in table {
            let endpoint = read(variables).unwrap().endpoint.unwrap();
            assert_eq!(endpoint.to_string(), *expected, "{variables:?}");
        }
    }

    #[test]
    fn headers_time_out_and_certificate() {
        let environment = read(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20s3cret, x-tenant = a ,"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/ca.pem"),
        ])
        .unwrap();
        let headers: Vec<_> =
            environment.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(headers, [("authorization", "Bearer s3cret"), ("x-tenant", "a")]);
        assert_eq!(environment.timeout, Duration::from_millis(2500));
        assert_eq!(environment.certificate, Some("/ca.pem".into()));
        assert!(!format!("{environment:?}").contains("s3cret"));
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_keeps_secrets() {
        let table = [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret", "key=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=s3cret", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret%0d%0ax:y", "name=value"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c", "http and https"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret@c", "credentials"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%ff", "key=value"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "traceidratio"),
        ];
        for (name, value, expected) in table {
            let error = read(&[(name, value)]).expect_err(value).to_string();
            assert!(error.contains(name) && error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
        let json =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
        assert!(read(&json).expect_err("json").to_string().contains("grpc or http/protobuf"));
    }

    #[test]
    fn resources_are_completed_but_not_overruled() {
        let environment = read(&[(
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment=a%2Cb,k8s.pod.name=x,service.name=list",
        )])
        .unwrap();
        assert_eq!(environment.service_name.as_deref(), Some("list"));
        let mut known = Resource::service("cart");
        known.attributes.push(("k8s.pod.name".into(), "cart-1".into()));
        environment.complete(&mut known);
        let expected: Attributes = vec![
            ("service.name".into(), "cart".into()),
            ("k8s.pod.name".into(), "cart-1".into()),
            ("deployment.environment".into(), "a,b".into()),
        ];
        assert_eq!(known.attributes, expected);
        let mut unknown = Resource::default();
        environment.complete(&mut unknown);
        assert_eq!(unknown.service_name(), "list");
        let both =
            read(&[("OTEL_SERVICE_NAME", "own"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=list")]).unwrap();
        assert_eq!(both.service_name.as_deref(), Some("own"));
    }
}
