//! A running `clovisor`, and what it said.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long anything may take before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `clovisor trace`.
pub(crate) struct Program {
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

/// What it left.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) sessions: Vec<Session>,
    pub(crate) stderr: String,
}

/// One JSON line.
pub(crate) struct Session(pub(crate) Value);

impl Session {
    /// An attribute as text; empty if it is not there.
    pub(crate) fn attribute(&self, name: &str) -> String {
        match &self.0["attributes"][name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(values) => values[0].as_str().unwrap().to_owned(),
            other => other.to_string(),
        }
    }

    /// Method, path or URL, status and outcome.
    pub(crate) fn line(&self) -> String {
        let path = self.attribute("url.path") + &self.attribute("url.full");
        let [method, status, outcome] =
            ["http.request.method", "http.response.status_code", "clovisor.outcome"]
                .map(|name| self.attribute(name));
        format!("{method} {path} {status} {outcome}")
    }
}

impl Program {
    /// Starts `clovisor trace` in the namespace of the calling thread and waits until it has attached.
    pub(crate) fn trace(arguments: &[&str]) -> Self {
        let mut child = clovisor()
            .args(["trace", "-o", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let (ready, attached) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            for line in stderr.lines() {
                let line = line.unwrap();
                if line.contains("tracing ") {
                    ready.send(()).ok();
                }
                text += &(line + "\n");
            }
            text
        });
        let mut program = Self { child, stdout, stderr };
        if attached.recv_timeout(PATIENCE).is_err() {
            program.child.kill().ok();
            panic!("clovisor did not attach: {}", program.wait().stderr);
        }
        program
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                self.child.kill().ok();
                panic!("clovisor did not end within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let stdout = self.stdout.join().unwrap();
        let sessions = stdout.lines().map(|line| Session(serde_json::from_str(line).unwrap())).collect();
        Ended { status, sessions, stderr: self.stderr.join().unwrap() }
    }

    /// Gives the last packets time to come, and ends it the way Kubernetes does.
    pub(crate) fn end(self) -> Ended {
        std::thread::sleep(Duration::from_millis(200));
        self.signal(Signal::SIGTERM);
        let ended = self.wait();
        assert!(ended.status.success(), "{}", ended.stderr);
        ended
    }
}

impl Ended {
    /// Every account of the summary balances, and nothing was lost.
    pub(crate) fn assert_balanced(&self) {
        assert!(!self.stderr.contains("IS NOT"), "{}", self.stderr);
        assert!(!self.stderr.to_lowercase().contains("lost"), "{}", self.stderr);
        assert!(self.stderr.contains("handed on"), "{}", self.stderr);
    }
}

/// The program under test.
pub(crate) fn clovisor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clovisor"));
    // What the machine's own environment says must not change what a test sees.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("CLOVISOR_"))
    {
        command.env_remove(name);
    }
    command
}
