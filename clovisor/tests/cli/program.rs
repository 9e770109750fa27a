//! A running `clovisor`, and what it said.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
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
    /// What came on standard output so far.
    said: Arc<Mutex<String>>,
    stdout: JoinHandle<()>,
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
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&said);
        let stdout = std::thread::spawn(move || {
            for line in stdout.lines() {
                *text.lock().unwrap() += &(line.unwrap() + "\n");
            }
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
        let mut program = Self { child, said, stdout, stderr };
        if attached.recv_timeout(PATIENCE).is_err() {
            program.child.kill().ok();
            panic!("clovisor did not attach: {}", program.wait().stderr);
        }
        program
    }

    /// Whether a session with this text came so far.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.said.lock().unwrap().contains(text)
    }

    /// Stops it where it is, as a processor that is too busy would, and waits until it stands.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.child.id());
        let started = Instant::now();
        // The state comes after the name, which is in brackets.
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            assert!(started.elapsed() < PATIENCE, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How often its threads have gone to sleep so far.
    pub(crate) fn sleeps(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let sleeps = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            count.trim().parse::<u64>().unwrap()
        };
        tasks.map(sleeps).sum()
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
        self.stdout.join().unwrap();
        let stdout = self.said.lock().unwrap();
        let stderr = self.stderr.join().unwrap();
        // Whatever a test is about, the accounts at the end add up.
        assert!(!stderr.contains("IS NOT"), "{stderr}");
        let sessions = stdout.lines().map(|line| Session(serde_json::from_str(line).unwrap())).collect();
        Ended { status, sessions, stderr }
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
    /// The summary is there ([`Program::wait`] has looked at whether its accounts balance), nothing was lost, and nothing is
    /// under way any more.
    pub(crate) fn assert_balanced(&self) {
        assert!(!self.stderr.contains(" queued") && !self.stderr.contains(" held back"), "{}", self.stderr);
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
