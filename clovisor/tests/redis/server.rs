//! A real redis-server of a test's own: on a free loopback port and a unix socket in a folder that goes with it.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Redis {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    flags: Vec<String>,
    process: Option<Child>,
    /// What redis-cli needs besides the address.
    pub(crate) cli: Vec<String>,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        // A folder that stays is no failure.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether `program` is there; says so, and fails where `CI` is set, if not.
pub(crate) fn has(test: &str, program: &str, flag: &str) -> bool {
    let ran = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if ran.is_err() {
        assert!(env::var_os("CI").is_none(), "{test}: {program} is not installed");
        println!("skipped: {test}: {program} is not installed");
    }
    ran.is_ok()
}

impl Redis {
    /// Not started yet.
    pub(crate) fn new(test: &str, flags: &[&str]) -> Option<Self> {
        if !has(test, "redis-server", "--version") || !has(test, "redis-cli", "--version") {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("clovisor-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Some(Self { dir, port, flags, process: None, cli: Vec::new() })
    }

    /// Started, without flags.
    pub(crate) fn started(test: &str, flags: &[&str]) -> Option<Self> {
        let mut redis = Self::new(test, flags)?;
        redis.start();
        Some(redis)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn flag(&mut self, name: &str, value: &Path) {
        self.flags.extend([name.to_owned(), value.display().to_string()]);
    }

    pub(crate) fn start(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).arg("--dir").arg(&self.dir);
        command.arg("--unixsocket").arg(self.socket()).args(["--port", &self.port.to_string()]);
        command.args(&self.flags).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < until, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.as_ref().unwrap().id()).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Runs redis-cli, as users do; what it printed.
    pub(crate) fn cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket()).args(&self.cli).args(words);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(output.status.success(), "redis-cli {words:?}: {text}");
        text
    }
}
