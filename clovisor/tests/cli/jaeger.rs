//! Live sessions in a real Jaeger, by all four ways of export, and a Jaeger that is not there.

use std::{
    env,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    netns::{self, Net, POD_V4},
    program::Program,
    server::{Nginx, PORT},
};

/// Ways of export, with the name of the service by which each is found.
const WAYS: [(&str, &str); 4] = [
    ("otlp-grpc", "otlp://127.0.0.1:4317"),
    ("otlp-http", "127.0.0.1:4318"),
    ("thrift-http", "jaeger+http://127.0.0.1:14268"),
    ("thrift-udp", "127.0.0.1:6831"),
];

/// Jaeger's all-in-one, where the project's own set-up puts it.
fn jaeger() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("CLOVISOR_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("clovisor")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/clovisor")));
    set("CLOVISOR_JAEGER")
        .or_else(|| cache.map(|path| path.join("jaeger-1.62.0/all-in-one")))
        .filter(|path| path.is_file())
}

struct Jaeger(Child);

impl Jaeger {
    /// Starts it in the namespace of the calling thread, where all its ports are free.
    fn start(binary: PathBuf, net: &Net) -> Self {
        let child = Command::new(binary).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let jaeger = Self(child);
        let started = Instant::now();
        while query(net, "/api/services").is_none() {
            assert!(started.elapsed() < Duration::from_secs(30), "Jaeger does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        jaeger
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An answer of Jaeger's query API.
fn query(net: &Net, path: &str) -> Option<Value> {
    let url = format!("http://127.0.0.1:16686{path}");
    let answer = net.in_host(&["sh", "-c", &format!("curl -s --max-time 5 '{url}' || true")]);
    serde_json::from_str(&answer).ok()
}

#[test]
fn the_same_sessions_by_all_four_ways() {
    let Some(binary) = jaeger() else {
        return netns::skip(
            "the_same_sessions_by_all_four_ways",
            "Jaeger's all-in-one is missing; run `cargo xtask setup`",
        );
    };
    netns::test("the_same_sessions_by_all_four_ways", &["nginx", "curl"], move |net| async move {
        let _jaeger = Jaeger::start(binary, &net);
        let _nginx = Nginx::start(&net, "jaeger");
        for (service, address) in WAYS {
            let interface = format!("veth0={service}");
            let program = Program::trace(&["-i", &interface, "--port", "8080", "--to", address]);
            for path in ["/a", "/missing", "/broken"] {
                let url = format!("http://{POD_V4}:{PORT}{path}");
                net.in_host(&[
                    "curl",
                    "-s",
                    "-o",
                    "/dev/null",
                    "--interface",
                    "veth0",
                    "--max-time",
                    "5",
                    &url,
                ]);
            }
            let ended = program.end();
            assert_eq!(ended.sessions.len(), 3, "{}", ended.stderr);
            for session in &ended.sessions {
                let trace = session.0["traceId"].as_str().unwrap();
                let span = stored(&net, trace);
                let tag = |key: &str| {
                    let tags = span["tags"].as_array().unwrap();
                    tags.iter()
                        .find(|tag| tag["key"] == key)
                        .map(|tag| tag["value"].to_string().replace('"', ""))
                };
                assert_eq!(span["spanID"], session.0["spanId"], "{service}");
                assert_eq!(span["operationName"], session.0["name"], "{service}");
                let start: u64 = session.0["startTimeUnixNano"].as_str().unwrap().parse().unwrap();
                assert_eq!(span["startTime"].as_u64(), Some(start / 1_000), "{service}");
                for key in ["url.path", "http.response.status_code", "client.port", "clovisor.outcome"] {
                    assert_eq!(tag(key).as_deref(), Some(&*session.attribute(key)), "{service}: {key}");
                }
            }
        }
        let services = query(&net, "/api/services").unwrap();
        for (service, _) in WAYS {
            assert!(services["data"].as_array().unwrap().contains(&service.into()), "{service}: {services}");
        }
    });
}

/// The only span of a trace, once Jaeger has it.
fn stored(net: &Net, trace: &str) -> Value {
    let started = Instant::now();
    loop {
        let answer = query(net, &format!("/api/traces/{trace}")).unwrap_or_default();
        if let Some([span]) = answer["data"][0]["spans"].as_array().map(Vec::as_slice) {
            return span.clone();
        }
        assert!(started.elapsed() < Duration::from_secs(10), "Jaeger does not have trace {trace}: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_jaeger_that_is_not_there_costs_spans_not_tracing() {
    netns::test("a_jaeger_that_is_not_there_costs_spans_not_tracing", &["nginx", "curl"], |net| async move {
        let _nginx = Nginx::start(&net, "nojaeger");
        let program = Program::trace(&["-i", "veth0", "--port", "8080", "--to", "otlp://127.0.0.1:4317"]);
        let url = format!("http://{POD_V4}:{PORT}/");
        net.in_host(&["curl", "-s", "-o", "/dev/null", "--interface", "veth0", "--max-time", "5", &url]);
        let ended = program.end();
        assert_eq!(ended.sessions.len(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("1 lost, given up"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("IS NOT"), "{}", ended.stderr);
    });
}
