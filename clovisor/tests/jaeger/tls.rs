//! The same over TLS, by an authority of the test's own; and nothing where it is not trusted.

use std::{env, fs, process::Command};

use super::*;

#[tokio::test]
async fn tls_with_an_authority_that_is_trusted_and_with_one_that_is_not() {
    let test = "tls_with_an_authority_that_is_trusted_and_with_one_that_is_not";
    if Command::new("openssl").arg("version").output().is_err() {
        let reason = "no openssl: install Debian's package openssl";
        assert!(env::var_os("CI").is_none(), "{test}: {reason}");
        println!("skipped: {test}: {reason}");
        return;
    }
    let dir = env::temp_dir().join(format!("clovisor-jaeger-{}", std::process::id()));
    let other = dir.join("other");
    [&dir, &other].into_iter().for_each(|dir| certificates::make(dir));
    let file = |name: &str| dir.join(name).display().to_string();
    let flags: Vec<String> = ["otlp.grpc", "otlp.http", "http"]
        .iter()
        .flat_map(|server| {
            let of = |setting: &str| format!("--collector.{server}.tls.{setting}");
            [
                of("enabled=true"),
                format!("{}={}", of("cert"), file("cert.pem")),
                format!("{}={}", of("key"), file("key.pem")),
            ]
        })
        .collect();
    let Some(jaeger) = Jaeger::start(test, &flags).await else { return };
    let trusting = Environment { certificate: Some(dir.join("ca.pem")), ..Environment::default() };
    let grpc: Address = format!("otlps://127.0.0.1:{}", jaeger.otlp_grpc).parse().unwrap();
    let http = format!("https://127.0.0.1:{}", jaeger.otlp_http).parse().unwrap();
    let thrift = format!("jaeger+https://127.0.0.1:{}", jaeger.thrift_http).parse().unwrap();
    for (trace, address) in [(5, grpc), (6, http), (7, thrift)] {
        deliver(&jaeger, test, trace, &address, &trusting).await;

        // An authority that did not sign it: nothing is sent, and the reason is told.
        let doubting = Environment { certificate: Some(other.join("ca.pem")), ..Environment::default() };
        let exporter = Exporter::new(&address, &doubting).unwrap();
        let (queue, worker) = exporter.start(QueueConfig::default());
        assert!(queue.push(&known(trace).remove(0)));
        let end = worker.shutdown(Duration::from_secs(1)).await;
        assert_eq!((end.exported, end.dropped_given_up), (0, 1), "{address}");
    }
    fs::remove_dir_all(dir).unwrap();
}
