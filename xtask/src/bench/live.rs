//! Live runs: nginx in one namespace, the [load client](../../bin/load.rs) in another, and Clovisor on the node between them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::netns::{Node, POD_INTERFACE, Pod};
use crate::process::{self, Running};

const PORT: u16 = 8080;
/// What is waited for Clovisor to attach, and to hand on what it holds.
const ATTACH: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(30);
/// A tick of process times (proc_pid_stat(5)), in microseconds; it is the same on all Linux.
const TICK_US: f64 = 10_000.0;

/// What all runs share.
pub(crate) struct Bench {
    node: Node,
    dir: PathBuf,
    load: PathBuf,
    clovisor: PathBuf,
    _server: Running,
}

/// One run.
pub(crate) struct Run {
    /// What the load client says.
    pub(crate) load: Value,
    /// What Clovisor did, if it was there.
    pub(crate) tracer: Option<Value>,
}

impl Bench {
    /// Makes the node, and starts the server.
    pub(crate) fn new(dir: &Path, load: PathBuf, clovisor: PathBuf) -> Result<Self> {
        let node = Node::build(&["server", "client"])?;
        let [server, client] = node.pods.as_slice() else { bail!("the node was built without its two pods") };
        client.check_route(&server.ipv4.to_string())?;
        let server = start_server(server, dir)?;
        Ok(Self { node, dir: dir.to_owned(), load, clovisor, _server: server })
    }

    /// One run at a rate (0: as fast as it goes), with or without Clovisor.
    pub(crate) fn run(&self, rate: u32, seconds: u16, traced: bool) -> Result<Run> {
        let tracer = if traced { Some(Tracer::start(self)?) } else { None };
        let load = self.load(rate, seconds)?;
        let tracer = tracer.map(|tracer| tracer.finish(&load)).transpose()?;
        Ok(Run { load, tracer })
    }

    fn load(&self, rate: u32, seconds: u16) -> Result<Value> {
        let [server, client] = self.node.pods.as_slice() else { bail!("two pods") };
        let mut command = client.namespace.command(&self.load.to_string_lossy());
        command.args(["--device", POD_INTERFACE, "--to", &format!("{}:{PORT}", server.ipv4)]);
        command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
        let load: Value =
            serde_json::from_str(&process::output(&mut command)?).context("what the load client says")?;
        ensure!(load["wrong"] == 0, "the server has mixed up responses: {load}");
        Ok(load)
    }
}

/// One worker, small responses that say which request they answer, connections that never end.
fn start_server(pod: &Pod, dir: &Path) -> Result<Running> {
    let conf = dir.join("nginx.conf");
    let mut text = format!(
        "daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ access_log off; keepalive_timeout 1h; keepalive_requests 1000000000; default_type text/plain;\n",
        dir = dir.display()
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text += &format!("  {kind}_temp_path {}/{kind};\n", dir.display());
    }
    // With nginx's own headers about 400 bytes.
    let filler = "x".repeat(200);
    text += &format!(
        "  server {{ listen {PORT}; location / {{ add_header X-Item $uri; return 200 \"$uri {filler}\\n\"; }} }} }}\n"
    );
    fs::write(&conf, text)?;
    let mut command = pod.namespace.command("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(&conf).arg("-e").arg(dir.join("error.log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Running::start("nginx", &mut command)?;
    let filter = format!("sport = :{PORT}");
    for _ in 0..250 {
        if !process::output(pod.namespace.command("ss").args(["-Hltn", &filter]))?.trim().is_empty() {
            return Ok(server);
        }
        ensure!(server.status()?.is_none(), "nginx ended:\n{}", process::tail(&dir.join("error.log")));
        thread::sleep(Duration::from_millis(20));
    }
    bail!("nginx does not listen:\n{}", process::tail(&dir.join("error.log")))
}

/// Clovisor at the host's end of the server's veth, with JSON lines to a file.
struct Tracer {
    program: Running,
    spans: PathBuf,
    said: PathBuf,
    /// What it had used when the load began: to start is no cost of sessions.
    before: Usage,
}

impl Tracer {
    fn start(bench: &Bench) -> Result<Self> {
        let (spans, said) = (bench.dir.join("spans.json"), bench.dir.join("clovisor.log"));
        let mut command = bench.node.namespace.command(&bench.clovisor.to_string_lossy());
        let veth = format!("{}=shop", bench.node.pods[0].host_veth);
        command.args([
            "trace",
            "-i",
            &veth,
            "--port",
            &format!("{PORT}=http"),
            "--header",
            "x-item",
            "-o",
            "json",
        ]);
        command.stdin(Stdio::null()).stdout(File::create(&spans)?).stderr(File::create(&said)?);
        let mut program = Running::start("clovisor trace", &mut command)?;
        if program.wait(ATTACH)?.is_some() {
            bail!("clovisor ended:\n{}", process::tail(&said));
        }
        let before = usage(program.id())?;
        Ok(Self { program, spans, said, before })
    }

    /// Ends it, and holds what it wrote against what the client knows.
    fn finish(mut self, load: &Value) -> Result<Value> {
        let usage = usage(self.program.id())?;
        self.program.signal(Signal::INT);
        if !self.program.wait(FAREWELL)?.is_some_and(|status| status.success()) {
            bail!("clovisor did not end well:\n{}", process::tail(&self.said));
        }
        let (sessions, wrong) = count(&self.spans)?;
        fs::remove_file(&self.spans)?;
        ensure!(wrong == 0, "{wrong} sessions have another request's response");
        let answered = load["answered"].as_f64().unwrap_or_default();
        let said = fs::read_to_string(&self.said)?;
        Ok(json!({
            "sessions": sessions,
            "captured": sessions as f64 / answered.max(1.0),
            "cpu_us_per_session": (usage.cpu_us - self.before.cpu_us) / (sessions as f64).max(1.0),
            "resident_kb": usage.resident_kb,
            "accounts": said.lines().rev().take_while(|line| line.starts_with("  ")).collect::<Vec<_>>(),
        }))
    }
}

struct Usage {
    cpu_us: f64,
    resident_kb: u64,
}

/// Processor time of a process so far, and its largest resident memory (proc_pid_stat(5),
/// proc_pid_status(5)).
fn usage(id: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    Ok(Usage { cpu_us: ticks * TICK_US, resident_kb: peak.unwrap_or_default() })
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
