//! Tracers of a run, one like the other: started at the server's veth until they are ready, ended, and their sessions counted.
//!
//! What a tracer says of its own losses is kept beside. Its processor time counts from when it is ready, with the clients'
//! connections open, to when it has nothing more to do: to start and to connect is no cost of sessions.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::world::{PORT, World};
use super::{peers, usage};
use crate::process::{self, Running};

/// How long a tracer has to become ready; Suricata loads for some seconds.
const READY: Duration = Duration::from_secs(60);
/// What Clovisor, which does not say it, is given to attach at the least.
const ATTACH: Duration = Duration::from_secs(1);
/// What a tracer has to hand on what it holds.
const FAREWELL: Duration = Duration::from_secs(30);
/// Where the receiver listens, in the node's namespace: OTLP's own port.
const RECEIVER: &str = "127.0.0.1:4317";

/// A tracer, and where its sessions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Clovisor, JSON lines to a file.
    File,
    /// Clovisor, OTLP over gRPC to the [receiver](../../examples/receiver.rs).
    Otlp,
    /// Another one.
    Peer(peers::Peer),
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "Clovisor, to a file",
            Self::Otlp => "Clovisor, to OTLP",
            Self::Peer(peer) => peer.name(),
        }
    }
}

/// A tracer at work.
pub(crate) struct Tracer {
    kind: Kind,
    program: Running,
    receiver: Option<(Running, PathBuf)>,
    /// A folder of its own, for all that it writes.
    dir: PathBuf,
    before: Option<(usage::Usage, usage::Usage)>,
}

impl Tracer {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(world: &World, kind: Kind) -> Result<Self> {
        let dir = match kind {
            Kind::Peer(peer) => peer.dir(&world.dir),
            Kind::File | Kind::Otlp => world.dir.join("clovisor"),
        };
        fs::create_dir_all(&dir)?;
        let receiver = if kind == Kind::Otlp { Some(start_receiver(world, &dir)?) } else { None };
        let mut command = match kind {
            Kind::Peer(peer) => peer.command(world, &dir)?,
            Kind::File | Kind::Otlp => clovisor(world, kind),
        };
        command.stdin(Stdio::null());
        command.stdout(File::create(dir.join("out"))?).stderr(File::create(dir.join("said"))?);
        let program = Running::start(kind.name(), &mut command)?;
        let mut tracer = Self { kind, program, receiver, dir, before: None };
        tracer.wait_until_ready(world)?;
        Ok(tracer)
    }

    fn wait_until_ready(&mut self, world: &World) -> Result<()> {
        let end = Instant::now() + READY;
        if !matches!(self.kind, Kind::Peer(_)) {
            ensure!(self.program.wait(ATTACH)?.is_none(), "{}", self.failed("has ended"));
        }
        while !self.is_ready(world)? {
            ensure!(self.program.status()?.is_none(), "{}", self.failed("has ended"));
            ensure!(Instant::now() < end, "{}", self.failed("is not ready"));
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn is_ready(&self, world: &World) -> Result<bool> {
        if let Kind::Peer(peer) = self.kind {
            return Ok(peer.is_ready(&self.dir));
        }
        // It attaches in the order in which it was given interfaces.
        let (node, last) = (world.node.namespace.name(), world.veths().last().context("a world has a pod")?);
        let mut command = Command::new("tc");
        Ok(process::output(command.args(["-n", node, "qdisc", "show", "dev", last]))?.contains("clsact"))
    }

    fn failed(&self, what: &str) -> String {
        let name = self.kind.name();
        format!("{name} {what}:\n{}", process::tail(&self.dir.join("said")))
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.program.id()
    }

    /// From here on its processor time counts.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let receiver =
            self.receiver.as_ref().map_or(Ok(usage::Usage::default()), |(it, _)| usage::of(it.id()))?;
        self.before = Some((usage::at_rest(self.program.id())?, receiver));
        Ok(())
    }

    /// Waits until it has nothing more to do, and says what it has used.
    pub(crate) fn used(&self) -> Result<Used> {
        let (before, receiver_before) = self.before.context("begin comes first")?;
        let now = usage::at_rest(self.program.id())?;
        let receiver = match &self.receiver {
            Some((receiver, _)) => usage::of(receiver.id())?.cpu_us - receiver_before.cpu_us,
            None => 0.0,
        };
        let connected_kb = before.resident_kb;
        Ok(Used { cpu_us: now.cpu_us - before.cpu_us, receiver_us: receiver, connected_kb, memory: now })
    }

    /// Ends it, and counts its sessions. One of Clovisor's with another request's response is an error.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        self.program.signal(Signal::INT);
        let status = self.program.wait(FAREWELL)?;
        let (sessions, wrong) = match (self.kind, self.receiver.take()) {
            // How a peer ends is its own affair: what it has written by then is what it has captured.
            (Kind::Peer(peer), _) => {
                drop(self.program);
                (peer.count(&self.dir)?, 0)
            }
            _ if !status.is_some_and(|status| status.success()) => {
                bail!("{}", self.failed("did not end well"))
            }
            (_, Some((receiver, counts))) => {
                let got = end_receiver(receiver, &counts)?;
                (got.complete, got.wrong)
            }
            (_, None) => count(&self.dir.join("out"))?,
        };
        ensure!(wrong == 0, "{wrong} sessions have another request's response");
        let accounts = accounts(&self.dir.join("said"))?;
        fs::remove_dir_all(&self.dir)?;
        Ok(Finished { sessions, accounts })
    }
}

/// What a receiver got.
pub(crate) struct Received {
    pub(crate) spans: u64,
    /// Spans of complete sessions.
    pub(crate) complete: u64,
    /// Of these, those that have another request's response.
    pub(crate) wrong: u64,
}

/// What a tracer has used for its sessions.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    pub(crate) cpu_us: f64,
    /// Processor time of the receiver, which is no cost of the tracer, but of the machine all the same.
    pub(crate) receiver_us: f64,
    /// Resident memory before the first request, with all connections open.
    pub(crate) connected_kb: u64,
    pub(crate) memory: usage::Usage,
}

/// What came of it.
pub(crate) struct Finished {
    pub(crate) sessions: u64,
    /// Clovisor's ledger, last line first.
    pub(crate) accounts: Vec<String>,
}

impl Finished {
    /// Bytes that Clovisor's kernel side has copied, by its ledger.
    fn copied_bytes(&self) -> Option<u64> {
        let line = self.accounts.iter().find_map(|line| line.trim().strip_prefix("bytes"))?;
        line.strip_suffix(" copied")?.split_whitespace().last()?.parse().ok()
    }

    /// Both, as a table takes them.
    pub(crate) fn json(&self, used: &Used, answered: f64) -> Value {
        let sessions = self.sessions as f64;
        json!({
            "sessions": self.sessions,
            "captured": sessions / answered.max(1.0),
            "cpu_us_per_session": used.cpu_us / sessions.max(1.0),
            "receiver_us_per_session": used.receiver_us / sessions.max(1.0),
            "connected_kb": used.connected_kb,
            "resident_kb": used.memory.resident_kb,
            "peak_kb": used.memory.peak_kb,
            "copied_bytes": self.copied_bytes(),
            "accounts": self.accounts,
        })
    }
}

/// Clovisor at the servers' veths.
pub(crate) fn clovisor(world: &World, kind: Kind) -> Command {
    let mut command = world.node.namespace.command_with_files(&world.programs.clovisor);
    command.arg("trace");
    for veth in world.veths() {
        command.args(["--interface", &format!("{veth}=shop")]);
    }
    command.args(["--port", &format!("{PORT}=http"), "--header", "x-item"]);
    if kind == Kind::Otlp {
        command.args(["--output", "none", "--to", RECEIVER])
    } else {
        command.args(["--output", "json"])
    };
    command
}

/// The receiver, and where it writes its counts.
pub(crate) fn start_receiver(world: &World, dir: &Path) -> Result<(Running, PathBuf)> {
    let counts = dir.join("counts");
    let program = world.programs.receiver.as_ref().context("the receiver was not built")?;
    let mut command = world.node.namespace.command(&program.to_string_lossy());
    command.arg(RECEIVER).stdin(Stdio::null()).stdout(File::create(&counts)?);
    let mut receiver = Running::start("receiver", &mut command)?;
    // Clovisor tries again where nobody listens yet; an address that is taken shows at once.
    let ended = receiver.wait(Duration::from_millis(100))?;
    ensure!(ended.is_none(), "the receiver has ended");
    Ok((receiver, counts))
}

/// What a receiver got.
pub(crate) fn end_receiver(mut receiver: Running, counts: &Path) -> Result<Received> {
    receiver.signal(Signal::TERM);
    ensure!(receiver.wait(FAREWELL)?.is_some_and(|status| status.success()), "the receiver did not end well");
    let said: Value = serde_json::from_slice(&fs::read(counts)?).context("what the receiver says")?;
    ensure!(said["unreadable"] == 0, "the receiver got something else than spans: {said}");
    let of = |name: &str| said[name].as_u64().unwrap_or_default();
    Ok(Received { spans: of("spans"), complete: of("complete"), wrong: of("wrong") })
}

/// Clovisor's ledger at the end of what it has said, last line first.
pub(crate) fn accounts(said: &Path) -> Result<Vec<String>> {
    let words = fs::read(said).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    Ok(words.lines().rev().take_while(|line| line.starts_with("  ")).map(str::to_owned).collect())
}

/// Complete sessions in a file of JSON lines, and how many of them have another request's response.
fn count(spans: &Path) -> Result<(u64, u64)> {
    let (mut sessions, mut wrong) = (0, 0);
    for line in BufReader::new(File::open(spans)?).lines() {
        let span: Value = serde_json::from_str(&line?).context("a line of clovisor")?;
        let of = |name: &str| span["attributes"][name].clone();
        if of("clovisor.outcome") == "complete" {
            sessions += 1;
            let item = of("http.response.header.x-item");
            wrong += u64::from(item[0] != of("url.path"));
        }
    }
    Ok((sessions, wrong))
}
