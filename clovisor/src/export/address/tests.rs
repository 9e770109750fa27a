//! Tables of what the grammar takes, and of what it refuses and how.

use super::*;

#[test]
fn every_form_is_read_as_documented() {
    let table = [
        ("otlp://jaeger:4317", "OTLP over gRPC to jaeger:4317"),
        ("otlp://jaeger", "OTLP over gRPC to jaeger:4317"),
        ("otlps://jaeger:443", "OTLP over gRPC with TLS to jaeger:443"),
        ("otlps://jaeger", "OTLP over gRPC with TLS to jaeger:4317"),
        ("otlp://jaeger:30317/", "OTLP over gRPC to jaeger:30317"),
        ("otlp://[fd00::1]:4317", "OTLP over gRPC to [fd00::1]:4317"),
        ("http://jaeger:4318", "OTLP over HTTP to http://jaeger:4318/v1/traces"),
        ("http://jaeger:4318/", "OTLP over HTTP to http://jaeger:4318/v1/traces"),
        ("http://jaeger:4318/otlp/v1/traces", "OTLP over HTTP to http://jaeger:4318/otlp/v1/traces"),
        ("http://jaeger", "OTLP over HTTP to http://jaeger:80/v1/traces"),
        ("https://vendor.example/v1/traces", "OTLP over HTTP to https://vendor.example:443/v1/traces"),
        (
            "https://vendor.example/v1/traces?key=s3cret",
            "OTLP over HTTP to https://vendor.example:443/v1/traces",
        ),
        ("http://jaeger:4317", "OTLP over gRPC to jaeger:4317"),
        ("https://jaeger:4317", "OTLP over gRPC with TLS to jaeger:4317"),
        ("http://jaeger:4317/v1/traces", "OTLP over HTTP to http://jaeger:4317/v1/traces"),
        ("http://jaeger:14268", "Jaeger Thrift over HTTP to http://jaeger:14268/api/traces"),
        ("http://jaeger:14268/api/traces", "Jaeger Thrift over HTTP to http://jaeger:14268/api/traces"),
        ("http://jaeger:14268/v1/traces", "OTLP over HTTP to http://jaeger:14268/v1/traces"),
        ("jaeger+http://jaeger", "Jaeger Thrift over HTTP to http://jaeger:14268/api/traces"),
        ("jaeger+http://jaeger:80/x", "Jaeger Thrift over HTTP to http://jaeger:80/x"),
        ("jaeger+https://jaeger", "Jaeger Thrift over HTTP to https://jaeger:14268/api/traces"),
        ("jaeger+udp://10.0.0.1", "Jaeger Thrift over UDP to 10.0.0.1:6831"),
        ("jaeger+udp://[::1]:5775", "Jaeger Thrift over UDP to [::1]:5775"),
        ("jaeger", "OTLP over gRPC to jaeger:4317"),
        (" jaeger-collector.tracing.svc \n", "OTLP over gRPC to jaeger-collector.tracing.svc:4317"),
        ("jaeger:4317", "OTLP over gRPC to jaeger:4317"),
        ("jaeger:4318", "OTLP over HTTP to http://jaeger:4318/v1/traces"),
        ("jaeger:14268", "Jaeger Thrift over HTTP to http://jaeger:14268/api/traces"),
        ("jaeger:6831", "Jaeger Thrift over UDP to jaeger:6831"),
        ("[::1]", "OTLP over gRPC to [::1]:4317"),
        ("[::1]:4318", "OTLP over HTTP to http://[::1]:4318/v1/traces"),
        ("stdout", "JSON lines to standard output"),
        ("none", "nowhere"),
    ];
    for (given, expected) in table {
        assert_eq!(
            given.parse::<Address>().map(|address| address.to_string()),
            Ok(expected.to_owned()),
            "{given}"
        );
    }
}

#[test]
fn everything_else_is_refused_with_a_way_out() {
    let table = [
        ("", "is empty"),
        ("jaeger:14250", "use port 4317 (OTLP over gRPC): jaeger:4317"),
        ("http://jaeger:14250", "use port 4317"),
        ("jaeger:6832", "use port 6831 (compact Thrift over UDP): jaeger:6831"),
        ("[::1]:9411", "use port 4318 (OTLP over HTTP): [::1]:4318"),
        ("http://jaeger:9411/api/v2/spans", "use port 4318"),
        ("jaeger:16686", "use port 4317"),
        ("http://jaeger:6831", "write jaeger+udp://jaeger:6831"),
        ("jaeger:80", "write otlp://jaeger:80"),
        ("jaeger:0", "from 1 to 65535"),
        ("jaeger:65536", "from 1 to 65535"),
        ("jaeger:+80", "from 1 to 65535"),
        ("jaeger:", "from 1 to 65535"),
        ("jaeger:4317/v1/traces", "which this way does not take"),
        ("otlp://jaeger/v1/traces", "which this way does not take"),
        ("zipkin://jaeger", "unknown scheme `zipkin`"),
        ("HTTP//jaeger", "which this way does not take"),
        ("://jaeger", "unknown scheme ``"),
        (":4317", "names no host"),
        ("http://", "names no host"),
        ("::1", "put an IPv6 address in brackets"),
        ("[::1", "does not close it"),
        ("[jaeger]:4317", "no IPv6 address in its brackets"),
        ("[fe80::1%eth0]:4317", "without a zone"),
        ("[::1]4317", "has `4317` after its bracket"),
        ("http://jaeger:4318/a b", "percent-encode"),
        ("http://jaeger:4318/#x", "percent-encode"),
        ("http://jaeger?x", "start it with `/`"),
        ("jae ger", "has `jae ger` for a host"),
        ("jäger", "has `jäger` for a host"),
    ];
    for (given, expected) in table {
        let error = given.parse::<Address>().expect_err(given).to_string();
        assert!(error.contains(expected), "{given}: {error}");
    }
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    let error = "http://user:s3cret@jaeger:4318".parse::<Address>().expect_err("credentials").to_string();
    assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("s3cret"), "{error}");
}

#[test]
fn an_error_carries_no_escape_sequence() {
    let error = "jaeger\x1b[2J".parse::<Address>().expect_err("hostile").to_string();
    assert!(!error.contains('\x1b'), "{error}");
}
