//! Clovisor in its control group, and whoever takes its sessions: a thread that counts lines, or the benchmarks' OTLP receiver.
//!
//! Lines go through a pipe, as those of a container do, since a file would fill the disk: a session is a kilobyte. Whoever takes
//! sessions is not in the group.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{ChildStdout, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use super::group::Group;
use crate::bench::tracer::{self, Kind};
use crate::bench::world::World;
use crate::process::{self, Running};

/// What it is given to attach.
const ATTACH: Duration = Duration::from_secs(1);
/// What it has to hand on what it holds.
const FAREWELL: Duration = Duration::from_secs(30);
/// What is read of lines at once.
const READ: usize = 256 << 10;

/// Who takes the sessions.
enum Taker {
    Lines(JoinHandle<std::io::Result<u64>>),
    Receiver(Running, PathBuf),
}

/// Clovisor at work.
pub(crate) struct Subject {
    program: Running,
    taker: Option<Taker>,
    said: PathBuf,
}

impl Subject {
    /// Starts it in the group.
    pub(crate) fn start(world: &World, kind: Kind, group: &Group, arguments: &[String]) -> Result<Self> {
        let said = world.dir.join("said");
        let mut receiver = None;
        if kind == Kind::Otlp {
            receiver = Some(tracer::start_receiver(world, &world.dir)?);
        }
        let mut plain = tracer::clovisor(world, kind);
        let mut command = group.hold(plain.args(arguments));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said)?);
        let mut program = Running::start("clovisor", &mut command)?;
        let lines = program.output().context("it has an output")?;
        let taker = match receiver {
            Some((receiver, counts)) => Taker::Receiver(receiver, counts),
            None => Taker::Lines(thread::spawn(move || count_lines(lines))),
        };
        let mut this = Self { program, taker: Some(taker), said };
        thread::sleep(ATTACH);
        this.check()?;
        Ok(this)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.program.id()
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.program.status()? {
            None => Ok(()),
            Some(status) => bail!("Clovisor has ended, {status}:\n{}", process::tail(&self.said)),
        }
    }

    /// Ends it: sessions that have arrived, and the accounts of its ledger.
    pub(crate) fn finish(mut self) -> Result<(u64, Vec<String>)> {
        self.program.signal(Signal::INT);
        let status = self.program.wait(FAREWELL)?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "Clovisor did not end well:\n{}",
            process::tail(&self.said)
        );
        let came = match self.taker.take() {
            Some(Taker::Receiver(receiver, counts)) => tracer::end_receiver(receiver, &counts)?.spans,
            Some(Taker::Lines(lines)) => lines.join().ok().context("the reader of lines has panicked")??,
            None => 0,
        };
        let mut accounts = tracer::accounts(&self.said)?;
        accounts.reverse();
        Ok((came, accounts))
    }
}

/// Reads to the end; how many lines it were.
fn count_lines(mut from: ChildStdout) -> std::io::Result<u64> {
    let (mut buffer, mut lines) = (vec![0; READ], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(lines),
            len => lines += buffer[..len].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}
