//! Where the runs happen: nginx in one namespace, the [load client](../../bin/load.rs) in another, and the node between them.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::flows;
use crate::netns::{Node, POD_INTERFACE, Pod};
use crate::process::{self, Running};

/// Where nginx listens.
pub(crate) const PORT: u16 = 8080;
/// Length of the body of a long response.
pub(crate) const LONG: u64 = 100_000_000;
/// Addresses that the client has beside its own. Each has 28,000 ports by default, and five are enough for 100,000 connections.
const MORE_ADDRESSES: [&str; 4] = ["192.0.2.101", "192.0.2.102", "192.0.2.103", "192.0.2.104"];
/// What may connect to nginx at once: more than any run has.
const CONNECTIONS: u32 = 131_072;

/// Programs that runs take.
pub(crate) struct Programs {
    pub(crate) clovisor: PathBuf,
    pub(crate) load: PathBuf,
    pub(crate) receiver: PathBuf,
}

/// What all runs share.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) dir: PathBuf,
    pub(crate) programs: Programs,
    _server: Running,
}

/// What a client is to do.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    pub(crate) connections: u32,
    /// Requests a second; 0 is as fast as it goes.
    pub(crate) rate: u32,
    pub(crate) seconds: u16,
    /// How many responses are wanted, of [`LONG`] bytes each; by default short ones until the time is over.
    pub(crate) long: Option<u64>,
}

impl World {
    /// Makes the node, and starts the server.
    pub(crate) fn new(dir: &Path, programs: Programs) -> Result<Self> {
        let node = Node::build(&["server", "client"])?;
        let [server, client] = node.pods.as_slice() else { bail!("the node was built without its two pods") };
        for address in MORE_ADDRESSES {
            client.namespace.ip(&["address", "add", &format!("{address}/24"), "dev", POD_INTERFACE])?;
        }
        client.check_route(&server.ipv4.to_string())?;
        let server = start_server(server, dir)?;
        Ok(Self { node, dir: dir.to_owned(), programs, _server: server })
    }

    /// The node's end of the server's veth pair, where tracers listen.
    pub(crate) fn veth(&self) -> &str {
        &self.node.pods[0].host_veth
    }

    /// A client with its connections open, that has asked nothing yet.
    pub(crate) fn open(&self, task: Task) -> Result<Client> {
        let [server, client] = self.node.pods.as_slice() else { bail!("two pods") };
        let mut command = client.namespace.command(&self.programs.load.to_string_lossy());
        command.args(["--device", POD_INTERFACE, "--to", &format!("{}:{PORT}", server.ipv4)]);
        command.args(["--connections", &task.connections.to_string(), "--rate", &task.rate.to_string()]);
        command.args(["--seconds", &task.seconds.to_string(), "--from", &client.ipv4.to_string()]);
        for address in MORE_ADDRESSES {
            command.args(["--from", address]);
        }
        if let Some(requests) = task.long {
            command.args(["--path", "/body/", "--requests", &requests.to_string()]);
        }
        Client::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    }
}

/// A load client, in its three steps: connected, done, ended. It ends by itself when this value goes out of scope.
pub(crate) struct Client {
    child: Child,
    tell: Option<ChildStdin>,
    says: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(command: &mut std::process::Command) -> Result<Self> {
        let mut child = command.spawn().context("cannot start the load client")?;
        let tell = child.stdin.take();
        let says = BufReader::new(child.stdout.take().context("it has an output")?).lines();
        let mut client = Self { child, tell, says };
        let said = client.line()?;
        ensure!(said == "open", "the load client says {said:?}");
        Ok(client)
    }

    fn line(&mut self) -> Result<String> {
        self.says.next().context("the load client has ended")?.context("the load client")
    }

    /// Sends the requests; what came of them. Its connections stay open.
    pub(crate) fn run(&mut self) -> Result<Value> {
        std::io::Write::write_all(self.tell.as_mut().context("it runs once")?, b"\n")?;
        let report: Value = serde_json::from_str(&self.line()?).context("what the load client says")?;
        ensure!(report["wrong"] == 0, "the server has mixed up responses: {report}");
        Ok(report)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input ends it, wherever it stands but in its requests, which end by their time.
        drop(self.tell.take());
        let _ = self.child.wait();
    }
}

/// One worker, responses that say which request they answer, connections that never end.
fn start_server(pod: &Pod, dir: &Path) -> Result<Running> {
    let (conf, dir_text) = (dir.join("nginx.conf"), dir.display());
    let mut text = format!(
        "daemon off; worker_processes 1; pid {dir_text}/nginx.pid; error_log {dir_text}/error.log;\n\
         user root; worker_rlimit_nofile {files}; events {{ worker_connections {CONNECTIONS}; }}\n\
         http {{ access_log off; sendfile on; keepalive_timeout 1h; keepalive_requests 1000000000;\n\
         default_type text/plain; add_header X-Item $request_uri;\n",
        files = flows::files().min(u64::from(CONNECTIONS) + 1024)
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text += &format!("  {kind}_temp_path {dir_text}/{kind};\n");
    }
    // With nginx's own headers about 400 bytes.
    let filler = "x".repeat(200);
    text += &format!(
        "  server {{ listen {PORT} backlog=4096; location / {{ return 200 \"$uri {filler}\\n\"; }}\n\
         \x20 location /body/ {{ root {dir_text}; try_files /long =404; }} }} }}\n"
    );
    fs::write(&conf, text)?;
    fs::File::create(dir.join("long"))?.set_len(LONG)?;
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
