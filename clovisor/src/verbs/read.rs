//! `clovisor read`: a capture file through the same pipeline, with the file's own times.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use clovisor_trace::{Resource, Rules, Span, capture};
use tokio::sync::mpsc;

use crate::{
    cli::ReadArgs,
    export::Environment,
    failure::Usage,
    outputs::Outputs,
    pipeline::Pipeline,
    summary::{self, Account},
};

/// Spans between the thread that reads and the task that hands on.
const AHEAD: usize = 256;

/// What the reading thread ends with.
struct Done {
    pipeline: Pipeline,
    packets: u64,
    filtered: u64,
    fault: Option<capture::CaptureError>,
}

/// Reads a capture file and reports its sessions.
///
/// # Errors
/// The file cannot be opened, or is no capture: [`Usage`]. A file that is damaged further on gives the sessions
/// before that, and then the error.
pub async fn read(arguments: ReadArgs) -> Result<ExitCode> {
    let environment = Environment::from_process().map_err(|error| Usage(error.to_string()))?;
    let source = open(&arguments.file)?;
    let outputs = Outputs::open(&arguments.output, &environment)?;
    let (rules, by_default) = arguments.selection.rules();
    if by_default {
        tracing::info!("neither --port nor --egress: taking ports 80 and 8080 as http");
    }
    let mut pipeline =
        Pipeline::new(arguments.selection.headers, arguments.output.semconv, arguments.output.limit);
    pipeline.name_others(resource(arguments.service, &arguments.file, &environment));
    let (spans, mut ready) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || run(source, &rules, pipeline, &spans));
    while let Some(span) = ready.recv().await {
        outputs.push_waiting(span).await;
    }
    let done = reading.await?;
    let exported = outputs.shutdown().await;
    if !arguments.output.quiet {
        eprintln!("{}", summary::text(done.pipeline.tally(), &accounts(&done, exported)));
    }
    match done.fault {
        None => Ok(ExitCode::SUCCESS),
        Some(fault) => Err(Usage(format!("cannot read {}: {fault}", arguments.file.display())).into()),
    }
}

fn open(path: &Path) -> Result<Box<dyn io::Read + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let unusable = |error: io::Error| {
        Usage(format!("cannot read {}: {error}; give a pcap or pcapng file", path.display()))
    };
    let mut file = File::open(path).map_err(unusable)?;
    // A folder opens, but does not read.
    file.read(&mut []).map_err(unusable)?;
    Ok(Box::new(file))
}

fn resource(service: Option<String>, path: &Path, environment: &Environment) -> Resource {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).filter(|stem| stem != "-");
    let name = service.or_else(|| environment.service_name.clone()).or(stem);
    let mut resource = Resource::service(name.unwrap_or_else(|| "stdin".to_owned()));
    environment.complete(&mut resource);
    resource
}

fn run(
    source: Box<dyn io::Read + Send>,
    rules: &Rules,
    mut pipeline: Pipeline,
    spans: &mpsc::Sender<Span>,
) -> Done {
    let (mut packets, mut filtered, mut last_ns) = (0, 0, 0);
    // The other end goes only with the whole process, so what it no longer takes nobody misses.
    let mut out = |span| _ = spans.blocking_send(span);
    let fault = capture::read(source, |record| {
        packets += 1;
        // Times in a file may step back a little; the tracer's clock does not.
        last_ns = record.time_ns.max(last_ns);
        let selected = rules.select(record.time_ns, record.interface, record.wire_len, record.data);
        match selected.filter(|packet| !packet.data.is_empty()) {
            Some(packet) => {
                pipeline.tick(last_ns, 0, &mut out);
                pipeline.packet(&packet, 0, &mut out);
            }
            None => filtered += 1,
        }
    })
    .err();
    pipeline.finish(last_ns, 0, &mut out);
    Done { pipeline, packets, filtered, fault }
}

fn accounts(done: &Done, exported: Vec<(String, Account)>) -> Vec<(String, Account)> {
    let (ledger, tally) = (done.pipeline.ledger(), done.pipeline.tally());
    let mut packets = summary::tracer_packets(ledger);
    packets.came = done.packets;
    packets.parts.push(("not selected", done.filtered));
    let mut all = vec![(String::new(), packets), (String::new(), summary::sessions(ledger, tally))];
    all.extend(exported);
    all
}
