//! `cargo xtask demo`: the main job in one command. Two pods on a node, all three network namespaces; a real server
//! and a real client in the pods; Clovisor on the node, at the host's end of both pods' veths.
//!
//! Whatever happens - an error, Ctrl-C, SIGTERM - everything is taken down again; what a `kill -9` left, the next
//! run removes.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::netns::Node;
use crate::process::{self, Failed, Running};
use crate::stop::Stop;
use crate::temp::Scratch;
use crate::traffic::{self, Client, PORT};
use crate::{needs, relay, workspace};

/// How long Clovisor is given to attach before there is anything to see.
const ATTACH: Duration = Duration::from_millis(800);
/// How long Clovisor is given to end by itself, and to hand over what it still holds.
const FAREWELL: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);

/// Show the main job: HTTP between two pods, traced live from their packets alone.
///
/// Makes a node with two pods out of network namespaces (nothing of this machine's own network is touched), runs
/// nginx in one and curl in the other, and `clovisor trace` on the node, at the host's end of both pods' veths: the
/// server's requests are known by its port, the client's by an egress rule. Runs until Ctrl-C and cleans up.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask demo                                a live table, until Ctrl-C\n  \
    cargo xtask demo --seconds 5 -o json            one JSON line per request, for 5 seconds\n  \
    cargo xtask demo --to otlp://localhost:4317     send the traces to a Jaeger on this machine")]
pub(crate) struct Arguments {
    /// Stop after this many seconds [default: at Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// How to show the sessions; passed on to `clovisor trace`, as is --to
    #[arg(short, long, value_name = "table|json")]
    output: Option<String>,
    /// Also send the traces to this address, as this machine sees it; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Use this `clovisor` instead of building one from the checkout
    #[arg(long, value_name = "PATH")]
    clovisor: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !process::is_root() {
        return Err(needs::Unmet::root(
            "demo",
            "makes network namespaces and loads programs into the kernel",
        )
        .into());
    }
    needs::ensure(&needs::DEMO)?;
    let clovisor = match &arguments.clovisor {
        Some(path) => {
            usage(path.canonicalize().with_context(|| format!("cannot use --clovisor {}", path.display())))?
        }
        None => {
            needs::ensure(&needs::BUILD)?;
            eprintln!("building clovisor (the first time takes a few minutes) …");
            workspace::build_clovisor()?
        }
    };
    // From here on there is something to take down, so signals no longer kill us.
    let stop = Stop::on_signals()?;
    let scratch = Scratch::new("clovisor-demo")?;
    let node = Node::build(&["server", "client"])?;
    let [server, client] = node.pods.as_slice() else { bail!("the node was built without its two pods") };
    let _nginx = traffic::start_server(server, scratch.path())?;
    let customers = Client::new(client, server)?;
    let options = trace_options(arguments, &node)?;
    eprintln!(
        "a node with two pods: client {} -- {} [ node ] {} -- server {}, port {PORT}; also {} to {}",
        client.ipv4, client.host_veth, server.host_veth, server.ipv4, client.ipv6, server.ipv6
    );
    eprintln!("on the node: clovisor {}", options.join(" "));
    let tracer =
        Running::start("clovisor trace", node.namespace.command(&clovisor.to_string_lossy()).args(&options))?;
    watch(arguments.seconds.map(Duration::from_secs), &stop, tracer, customers)?;
    let program = clovisor.strip_prefix(workspace::root()).unwrap_or(&clovisor);
    eprintln!("next: trace an interface of your own: {} trace -i IFACE --port 80=http", program.display());
    Ok(())
}

/// What `clovisor` is told to do on the node.
fn trace_options(arguments: &Arguments, node: &Node) -> Result<Vec<String>> {
    let mut options = vec!["trace".to_owned()];
    let mut option = |name: &str, value: String| options.extend([name.to_owned(), value]);
    for (pod, service) in node.pods.iter().zip(["shop", "customer"]) {
        option("-i", format!("{}={service}", pod.host_veth));
    }
    option("--port", format!("{PORT}=http"));
    option("--egress", format!("{PORT}=http"));
    if let Some(output) = &arguments.output {
        option("-o", output.clone());
    }
    for address in &arguments.to {
        option("--to", usage(relay::open(&node.namespace, address))?);
    }
    Ok(options)
}

/// An error in what the user gave us.
fn usage<T>(outcome: Result<T>) -> Result<T> {
    outcome.map_err(|error| needs::Unmet::usage(&error).into())
}

/// Keeps the client busy until it is time to stop, then lets client and tracer end in this order, so that the last
/// response is seen.
fn watch(limit: Option<Duration>, stop: &Stop, mut tracer: Running, mut customers: Client) -> Result<()> {
    tracer.wait(ATTACH)?;
    let started = Instant::now();
    while !stop.wanted() && limit.is_none_or(|limit| started.elapsed() < limit) {
        if tracer.status()?.is_some() {
            return ended(&mut tracer);
        }
        customers.tick()?;
        thread::sleep(TICK);
    }
    if !stop.by_interrupt() {
        customers.finish(Duration::from_secs(2))?;
        tracer.signal(Signal::INT);
    } else if tracer.wait(Duration::from_secs(2))?.is_none() {
        // Ctrl-C on a terminal has reached the tracer without us; a lone signal to us has not.
        tracer.signal(Signal::INT);
    }
    ended(&mut tracer)
}

/// Waits for the tracer and passes on how it ended.
fn ended(tracer: &mut Running) -> Result<()> {
    match tracer.wait(FAREWELL)? {
        None => bail!("`{}` did not end within {} s of being asked to", tracer.name(), FAREWELL.as_secs()),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Failed::passed_on(tracer.name().to_owned(), status).into()),
    }
}
