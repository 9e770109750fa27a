//! Runs other programs: to completion, for their output, with their output kept in a log, or in the background
//! until the verb is over. A failure always says which command failed and how.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a wait looks whether it is over.
const POLL: Duration = Duration::from_millis(20);
/// How often long work says that it is still running.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Lines of a log that are shown when the work failed.
const TAIL: usize = 25;

/// A program that ran and failed.
#[derive(Debug)]
pub(crate) struct Failed {
    command: String,
    status: ExitStatus,
    /// Whether its exit code becomes ours.
    passed_on: bool,
}

impl Failed {
    /// The failure of a program in whose place xtask stands: its exit code is passed on.
    pub(crate) fn passed_on(command: String, status: ExitStatus) -> Self {
        Self { command, status, passed_on: true }
    }

    /// The exit code to end with, if this failure decides it.
    pub(crate) fn own_code(&self) -> Option<u8> {
        self.status.code().filter(|_| self.passed_on).and_then(|code| u8::try_from(code).ok())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.command, self.status)
    }
}

impl std::error::Error for Failed {}

/// Runs a command with our terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", show(command)))?;
    check(command, status)
}

/// Runs a command for its standard output; its standard error is part of the error when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", show(command)))?;
    check(command, output.status)
        .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command can be run and succeeds; its output goes nowhere.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs long work with its output in `log`. Says what is being done and about how long it takes, gives a sign of
/// life now and then, and on failure shows the end of the log.
pub(crate) fn logged(what: &str, about: &str, command: &mut Command, log: &Path) -> Result<()> {
    eprintln!("{what} (about {about}) …");
    let open = || -> std::io::Result<(File, File)> {
        log.parent().map_or(Ok(()), fs::create_dir_all)?;
        let file = File::create(log)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = open().with_context(|| format!("cannot write the log {}", log.display()))?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    let mut next = HEARTBEAT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > next {
            eprintln!("  … still at it after {} s", started.elapsed().as_secs());
            next += HEARTBEAT;
        }
        thread::sleep(POLL);
    };
    if !status.success() {
        eprintln!("{}", tail(log));
        bail!("{what} failed: `{}`: {status}. The whole output is in {}", show(command), log.display());
    }
    eprintln!("  … done in {} s", started.elapsed().as_secs());
    Ok(())
}

/// The last lines of a log, indented.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    last.iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

/// The command as a person would type it; for messages only.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The program's path, if it can be found. Debian keeps servers in the sbin folders, which a user's PATH lacks.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Failed { command: show(command), status, passed_on: false }.into())
}

/// A program in the background. It is stopped when this value goes out of scope, if it still runs then.
pub(crate) struct Running {
    child: Child,
    name: &'static str,
}

impl Running {
    /// Starts it; the name is for messages.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start `{}`", show(command)))?;
        Ok(Self { child, name })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once, if that was piped.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its exit status, if it is over.
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for `{}`", self.name))
    }

    /// Sends a signal. One that is over and waited for gets none: its id may be somebody else's by now.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), pid) {
            // The only failure left is that it ended in this moment, which is what is wanted.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end until the limit.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.status()? {
                None if Instant::now() < deadline => thread::sleep(POLL),
                status => return Ok(status),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        if !matches!(self.wait(Duration::from_secs(3)), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
