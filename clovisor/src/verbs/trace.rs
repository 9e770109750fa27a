//! `clovisor trace`: interfaces live, without Kubernetes or Redis.

use std::{
    collections::HashSet,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clovisor_trace::{Limits, Resource, Rules, SessionSpan};
use tokio::{
    process::{Child, Command},
    time::{Instant, interval, sleep_until},
};

use crate::{
    capture::{Capture, Traced},
    cli::{Form, TraceArgs},
    datapath::{
        attach::Attacher,
        capability,
        interface::{Interface, InterfaceError},
        kernel,
    },
    export::{Address, Environment},
    failure::Usage,
    ledger::{Books, Sinks},
    live::{Live, RECHECK, number},
    outputs::Outputs,
    pipeline::{Names, Pipeline},
    signals::Signals,
    summary,
};

/// How long packets may still come after the traced command has ended.
const AFTERMATH: Duration = Duration::from_millis(100);

/// Traces interfaces until told to stop.
///
/// # Errors
/// A missing capability, an interface that cannot be traced, a kernel that refuses.
pub async fn trace(arguments: TraceArgs, verbose: bool) -> Result<ExitCode> {
    let environment = Environment::from_process().map_err(|error| Usage(error.to_string()))?;
    only_one_on_standard_output(&arguments)?;
    capability::check().map_err(|error| Usage(error.to_string()))?;
    let attacher = Attacher::new().await.context("cannot start")?;
    let swept = attacher.sweep().await.context("cannot clean up what a killed instance has left")?;
    if swept.filters > 0 {
        tracing::info!("removed {} filters that a killed instance had left", swept.filters);
    }
    let mut interfaces = Vec::new();
    for target in &arguments.interfaces {
        let found = attacher.interface(&target.interface).await.map_err(unusable)?;
        let service = target.service.as_deref().or(environment.service_name.as_deref());
        let service = service.unwrap_or(&target.interface);
        interfaces.push((found, resource(service, &target.interface, &environment)));
    }
    let memory = arguments.memory.bound();
    let mut outputs = Outputs::open(&arguments.output, &environment, memory)?;
    let (rules, by_default) = arguments.selection.rules();
    if by_default {
        tracing::info!("neither --port nor --egress: taking ports 80 and 8080 as http");
    }
    let headers = arguments.selection.headers.clone();
    // A file is to hold all that was on the wire.
    let unneeded = arguments.buffers.unneeded().filter(|_| arguments.write.is_none());
    let limits = Limits { headers, memory: memory.of_flows(), unneeded, ..Limits::default() };
    let mut pipeline = Pipeline::new(limits, arguments.output.semconv, arguments.output.limit)
        .with_sampler(environment.sampler);
    pipeline.join(arguments.selection.joins(), HashSet::new());
    let shedding = arguments.overload.setting(unneeded).filter(|_| arguments.write.is_none());
    let mut live = Live::load(attacher, pipeline, arguments.buffers.into(), shedding, verbose)?;
    write_to(&arguments, &mut live, &rules, &interfaces)?;
    let started = run(&arguments, &mut live, &mut outputs, &of_kernel(&rules), interfaces).await;
    let detached = live.stop(&mut |span: &SessionSpan<'_>| outputs.push(span)).await;
    let (written, failed) = match live.capture().take() {
        Some(capture) => Some(capture.close().await).unzip(),
        None => (None, None),
    };
    let exported = outputs.shutdown().await;
    let status = started?;
    if !arguments.output.quiet {
        let books = Books { capture: written, ..live.books(Sinks::Each(exported), detached.is_ok()) };
        eprintln!("{}", summary::text(live.pipeline.tally(), &books));
    }
    detached.context("cannot detach; run 'clovisor cleanup'")?;
    let code = exit_code(status);
    // The traced command's own failure says more.
    Ok(if failed == Some(true) && code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code })
}

/// Standard output holds sessions or the capture.
fn only_one_on_standard_output(arguments: &TraceArgs) -> Result<()> {
    let takes = arguments.write.as_ref().is_some_and(|path| path.as_os_str() == "-");
    if takes
        && (arguments.output.output != Some(Form::None) || arguments.output.to.contains(&Address::Stdout))
    {
        let why =
            "--write - needs standard output for the capture; add --output none to show no sessions there";
        return Err(Usage(why.to_owned()).into());
    }
    Ok(())
}

/// Opens the file for packets, if one is wanted.
fn write_to(
    arguments: &TraceArgs,
    live: &mut Live,
    rules: &Rules,
    interfaces: &[(Interface, Resource)],
) -> Result<()> {
    let Some(path) = &arguments.write else { return Ok(()) };
    let traced = interfaces.iter().map(|(interface, resource)| Traced {
        number: interface.id,
        name: interface.name.clone(),
        service: resource.service_name().to_owned(),
    });
    let epoch_ns = live.epoch_ns();
    let (limit, join) = (arguments.write_limit, arguments.selection.join);
    live.write_to(Capture::open(path, limit, traced.collect(), rules, join, epoch_ns)?);
    Ok(())
}

/// Attaches, and fetches packets until something says stop: the status of the traced command, if it was that.
async fn run(
    arguments: &TraceArgs,
    live: &mut Live,
    outputs: &mut Outputs,
    rules: &kernel::Rules,
    interfaces: Vec<(Interface, Resource)>,
) -> Result<Option<ExitStatus>> {
    // Before the first attach: a signal must not end the process and leave its filters.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    for (interface, resource) in interfaces {
        live.attach(&interface, Names::all(resource), rules, arguments.attach.into()).await?;
    }
    let mut child = start(&arguments.command)?;
    let mut recheck = interval(RECHECK);
    let mut end = arguments.duration.map(|duration| Instant::now() + duration);
    let mut status = None;
    loop {
        tokio::select! {
            () = live.time_to_fetch() => {
                live.fetch(&mut |span: &SessionSpan<'_>| outputs.push(span));
                if live.pipeline.is_full() || live.capture().as_ref().is_some_and(Capture::reader_gone) {
                    break;
                }
            }
            _ = recheck.tick() => drop(live.recheck(&mut |span: &SessionSpan<'_>| outputs.push(span)).await),
            () = until(end) => break,
            ended = wait(&mut child) => {
                status = Some(ended.context("cannot wait for the command")?);
                child = None;
                end = Some(Instant::now() + AFTERMATH);
            }
            () = signals.any() => break,
            () = outputs.reader_gone() => break,
        }
    }
    Ok(status)
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn wait(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

fn start(command: &[String]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program).args(arguments).kill_on_drop(true).spawn();
    child.map(Some).map_err(|error| Usage(format!("cannot run '{program}': {error}")).into())
}

fn exit_code(status: Option<ExitStatus>) -> ExitCode {
    // A command that a signal has ended has no code; shells make that 128 and up, here it is a plain failure.
    let code = status.map_or(Some(0), |status| status.code());
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// An interface that is not there is the user's to put right; a kernel that does not answer is not.
fn unusable(error: InterfaceError) -> anyhow::Error {
    match error {
        InterfaceError::Netlink { .. } => error.into(),
        other => Usage(other.to_string()).into(),
    }
}

/// Whose spans those of an interface are.
pub(super) fn resource(service: &str, interface: &str, environment: &Environment) -> Resource {
    let mut resource = Resource::service(service.to_owned());
    resource.attributes.push(("clovisor.interface".into(), interface.to_owned().into()));
    environment.complete(&mut resource);
    resource
}

/// The rules as the kernel side has them.
fn of_kernel(rules: &Rules) -> kernel::Rules {
    kernel::Rules {
        ports: rules.ports.iter().map(|rule| (rule.port, number(rule.protocol))).collect(),
        egress: rules.egress.iter().map(|rule| ((rule.address, rule.port), number(rule.protocol))).collect(),
    }
}
