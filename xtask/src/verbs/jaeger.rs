//! `cargo xtask jaeger`: the Jaeger that the tests use, in the foreground, on loopback only.

use std::fs::File;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::needs::{self, Need, go};
use crate::process::Running;
use crate::stop::Stop;

/// Where it listens; all are Jaeger's own ports.
const LISTEN: [&str; 6] = [
    "--collector.otlp.grpc.host-port=127.0.0.1:4317",
    "--collector.otlp.http.host-port=127.0.0.1:4318",
    "--collector.http-server.host-port=127.0.0.1:14268",
    "--processor.jaeger-compact.server-host-port=127.0.0.1:6831",
    "--processor.jaeger-binary.server-host-port=127.0.0.1:6832",
    "--query.http-server.host-port=127.0.0.1:16686",
];

/// Run a real Jaeger on this machine until Ctrl-C, to send traces to.
///
/// Traces are kept in memory. The query API answers at http://localhost:16686/api; the web pages are not part of
/// what Jaeger publishes as a Go module, so for those run Jaeger's own image instead.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run() -> Result<()> {
    needs::ensure(&[Need::Go, Need::Jaeger])?;
    let stop = Stop::on_signals()?;
    let path = cache::log("jaeger-run");
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(go::jaeger());
    command.args(LISTEN).stdout(log.try_clone()?).stderr(log);
    let mut jaeger = Running::start("jaeger", &mut command)?;
    eprintln!(
        "Jaeger takes traces at localhost:4317 (also 4318, 14268, 6831/udp); its log is {}",
        path.display()
    );
    eprintln!("ask it at http://localhost:16686/api/services; Ctrl-C ends it");
    while !stop.wanted() {
        if let Some(status) = jaeger.status()? {
            bail!("Jaeger has ended ({status}); is a port taken? See {}", path.display());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
