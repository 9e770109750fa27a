//! `clovisor read`: a capture file through the same pipeline, with the file's own times.
//!
//! A file of `trace --write` brings its rules and names with it, and the moments at which the live tracer looked at the clock.

mod chosen;

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _},
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use chosen::Chosen;
use clovisor_trace::{
    Describe as _, Limits, Resource, SessionSpan, Span,
    capture::{self, CaptureError, Event},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    cli::ReadArgs,
    export::Environment,
    failure::Usage,
    ledger::{Books, Sinks, Source},
    memory::Memory,
    outputs::Outputs,
    pipeline::Pipeline,
    signals::Signals,
    summary,
};

/// Spans between the thread that reads and the task that hands on.
const AHEAD: usize = 256;

/// How long the reading thread may take to notice that nobody wants more: it may wait for standard input.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the reading thread ends with.
struct Done {
    pipeline: Pipeline,
    packets: u64,
    filtered: u64,
    /// Spans that nobody took any more.
    not_taken: u64,
    /// Whether nothing said what to trace.
    by_default: bool,
    fault: Option<CaptureError>,
}

/// Reads a capture file and reports its sessions.
///
/// # Errors
/// The file cannot be opened, or is no capture: [`Usage`]. A file that is damaged further on gives the sessions
/// before that, and then the error; one that is only cut short is no error.
pub async fn read(arguments: ReadArgs) -> Result<ExitCode> {
    let environment = Environment::from_process().map_err(|error| Usage(error.to_string()))?;
    let source = open(&arguments.file)?;
    let mut outputs = Outputs::open(&arguments.output, &environment, Memory::default())?;
    let (rules, by_default) = arguments.selection.rules();
    let joins = arguments.selection.joins();
    let limits = Limits { headers: arguments.selection.headers, ..Limits::default() };
    let mut pipeline = Pipeline::new(limits, arguments.output.semconv, arguments.output.limit)
        .with_sampler(environment.sampler);
    pipeline.join(joins, HashSet::new());
    let chosen = Chosen::new(rules, by_default, arguments.service.clone(), joins, environment.clone());
    pipeline.name_others(resource(arguments.service, &arguments.file, &environment));
    let (spans, ready) = mpsc::channel(AHEAD);
    let (finished, done) = oneshot::channel();
    let length_ns = arguments.duration.map(|duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    // A thread of its own, not one that the runtime would wait for: standard input may never end.
    std::thread::spawn(move || {
        // If nobody waits any more, nobody wants to know.
        _ = finished.send(run(source, chosen, pipeline, &spans, length_ns));
    });
    let left = hand_on(ready, &mut outputs).await?;
    let done = tokio::time::timeout(PATIENCE, done).await;
    let exported = outputs.shutdown().await;
    let Ok(Ok(done)) = done else { return Ok(ExitCode::SUCCESS) };
    if done.by_default && done.packets > 0 {
        tracing::info!("neither --port nor --egress was given: ports 80 and 8080 were taken as http");
    }
    if done.packets > 0 && !arguments.output.quiet {
        eprintln!("{}", summary::text(done.pipeline.tally(), &books(&done, left, Sinks::Each(exported))));
    }
    match done.fault {
        None => Ok(ExitCode::SUCCESS),
        // As a capture is that is still being written, or whose writer was killed.
        Some(fault @ CaptureError::CutShort(1..)) => {
            tracing::warn!("{}: {fault}; what is whole was read", arguments.file.display());
            Ok(ExitCode::SUCCESS)
        }
        Some(fault) => Err(Usage(format!("cannot read {}: {fault}", arguments.file.display())).into()),
    }
}

/// Hands spans on until there are no more, nobody reads them, or the user has had enough. How many were then on their way
/// and are not handed on.
async fn hand_on(mut ready: mpsc::Receiver<Span>, outputs: &mut Outputs) -> Result<u64> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    loop {
        tokio::select! {
            span = ready.recv() => match span {
                Some(span) => outputs.push_waiting(&span).await,
                None => return Ok(0),
            },
            () = outputs.reader_gone() => break,
            () = signals.any() => break,
        }
    }
    ready.close();
    let mut left = 0;
    while ready.recv().await.is_some() {
        left += 1;
    }
    Ok(left)
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
    mut chosen: Chosen,
    mut pipeline: Pipeline,
    spans: &mpsc::Sender<Span>,
    length_ns: Option<u64>,
) -> Done {
    let (mut packets, mut filtered, mut first_ns, mut last_ns) = (0, 0, None, 0);
    let mut not_taken = 0;
    // What the other end no longer takes nobody misses; it is only counted.
    let mut out =
        |span: &SessionSpan<'_>| not_taken += u64::from(spans.blocking_send(span.to_span()).is_err());
    let fault = capture::read_events(source, |event| {
        let record = match event {
            Event::Packet(record) => record,
            Event::Interface(described) => {
                chosen.interface(described, &mut pipeline);
                if chosen.is_ours() {
                    pipeline.keep_sessions();
                }
                return ControlFlow::Continue(());
            }
            Event::Time(taken) => {
                if chosen.is_ours() {
                    // Live, too, the clock stood there when the loss was learned of.
                    last_ns = last_ns.max(taken.time_ns);
                    pipeline.tick(last_ns, 0, &mut out);
                    if let Some(loss) = chosen.loss(taken) {
                        pipeline.lost(&loss);
                    }
                }
                return ControlFlow::Continue(());
            }
        };
        let age_ns = record.time_ns.saturating_sub(*first_ns.get_or_insert(record.time_ns));
        if spans.is_closed() || pipeline.is_full() || length_ns.is_some_and(|length| age_ns > length) {
            return ControlFlow::Break(());
        }
        packets += 1;
        let (selected, late_ns) = chosen.packet(record);
        // Times in a file may step back a little; the tracer's clock does not.
        last_ns = record.time_ns.saturating_add(late_ns).max(last_ns);
        match selected.filter(|packet| !packet.data.is_empty()) {
            Some(packet) => {
                if late_ns > 0 {
                    pipeline.tick(last_ns, 0, &mut out);
                }
                pipeline.packet(&packet, 0, &mut out);
            }
            None => filtered += 1,
        }
        ControlFlow::Continue(())
    })
    .err();
    pipeline.finish(last_ns, 0, &mut out);
    Done { pipeline, packets, filtered, not_taken, by_default: chosen.is_newcomers(), fault }
}

fn books(done: &Done, left: u64, sinks: Sinks) -> Books {
    let source = Source::File { packets: done.packets, not_selected: done.filtered };
    Books { not_taken: done.not_taken + left, ..done.pipeline.books(source, sinks) }
}
