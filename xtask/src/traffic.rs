//! The real ends of the demo: nginx as a small shop, and curl as its customers.
//!
//! The server answers on a few paths as services do: most of them fast and well, one slowly, one missing, one
//! broken. The client sends bounded bursts over kept-alive connections, and only by the interface of its own pod.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::{POD_INTERFACE, Pod};
use crate::process::{self, Running};

/// The port that the server listens on.
pub(crate) const PORT: u16 = 8080;
/// Time between two bursts.
const PAUSE: Duration = Duration::from_millis(500);
/// Bursts that may be on their way at once; with more the server hangs, and we wait.
const MOST: usize = 8;
/// One burst is the requests of one curl, over one connection: method and path.
const BURSTS: [&[(&str, &str)]; 4] = [
    &[("GET", "/"), ("GET", "/products"), ("GET", "/products/42"), ("POST", "/cart")],
    &[("GET", "/products?page=2"), ("HEAD", "/"), ("GET", "/old-address"), ("GET", "/products/7")],
    &[("GET", "/report")],
    &[
        ("GET", "/products/42"),
        ("GET", "/no-such-page"),
        ("PUT", "/cart/3"),
        ("POST", "/payment"),
        ("DELETE", "/cart/3"),
    ],
];
/// A trace context for some requests, so that the spans show a parent (W3C Trace Context, level 1).
const TRACEPARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// nginx's configuration. Its files all lie in the scratch directory, which is its prefix.
fn nginx_conf(dir: &Path) -> String {
    let mut conf = format!(
        "daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n  access_log off; default_type application/json; keepalive_timeout 30s;\n",
        dir = dir.display()
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(conf, "  {kind}_temp_path {}/{kind};", dir.display());
    }
    let _ = write!(
        conf,
        "  server {{\n    listen {PORT}; listen [::]:{PORT}; root {};\n\
         \x20   location = / {{ default_type text/html; return 200 \"<h1>A shop</h1>\\n\"; }}\n\
         \x20   location = /report {{ limit_rate 40k; }}\n\
         \x20   location = /old-address {{ return 301 /; }}\n\
         \x20   location = /payment {{ return 503 '{{\"error\":\"the bank does not answer\"}}\\n'; }}\n\
         \x20   location = /cart {{ return 201 '{{\"id\":3}}\\n'; }}\n\
         \x20   location /cart/ {{ return 204; }}\n\
         \x20   location /products {{ return 200 '{{\"products\":[\"tea\",\"cup\"],\"path\":\"$uri\"}}\\n'; }}\n  }}\n}}\n",
        dir.display()
    );
    conf
}

/// Starts the server in its pod, with its files in `dir`, and waits until it listens.
pub(crate) fn start_server(pod: &Pod, dir: &Path) -> Result<Running> {
    let conf = dir.join("nginx.conf");
    fs::write(&conf, nginx_conf(dir))
        .and_then(|()| fs::write(dir.join("report"), "line of a report\n".repeat(2000)))?;
    let mut command = pod.namespace.command("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(&conf).arg("-e").arg(dir.join("error.log"));
    let mut server = in_background("nginx", &mut command)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    // By the list of sockets and not by a request, which would be traced before anybody asked for it.
    let filter = format!("sport = :{PORT}");
    while process::output(pod.namespace.command("ss").args(["-Hltn", &filter]))?.trim().is_empty() {
        if server.status()?.is_some() || Instant::now() > deadline {
            bail!(
                "nginx does not listen on port {PORT}; its log says:\n{}",
                process::tail(&dir.join("error.log"))
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// Ctrl-C on the terminal goes to the whole foreground group. Server and client are to outlive it until the tracer
/// is done, so each gets a group of its own; this process ends them.
fn in_background(name: &'static str, command: &mut Command) -> Result<Running> {
    Running::start(
        name,
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
    )
}

/// The client side: bursts of requests, one after another.
pub(crate) struct Client {
    pod: Pod,
    addresses: (Ipv4Addr, Ipv6Addr),
    running: Vec<Running>,
    sent: usize,
    next: Instant,
}

impl Client {
    /// A client in `pod` for the server in `server`. Fails where the way to the server is not the pod's own.
    pub(crate) fn new(pod: &Pod, server: &Pod) -> Result<Self> {
        pod.check_route(&server.ipv4.to_string())?;
        pod.check_route(&server.ipv6.to_string())?;
        let addresses = (server.ipv4, server.ipv6);
        Ok(Self { pod: pod.clone(), addresses, running: Vec::new(), sent: 0, next: Instant::now() })
    }

    /// Sends the next burst if it is time for it.
    pub(crate) fn tick(&mut self) -> Result<()> {
        let mut still = Vec::new();
        for mut curl in self.running.drain(..) {
            if curl.status()?.is_none() {
                still.push(curl);
            }
        }
        self.running = still;
        if Instant::now() >= self.next && self.running.len() < MOST {
            self.next = Instant::now() + PAUSE;
            let burst = self.burst().context("the demo's client does not start")?;
            self.running.push(burst);
        }
        Ok(())
    }

    fn burst(&mut self) -> Result<Running> {
        let number = self.sent;
        self.sent += 1;
        // Every round over the other IP version.
        let host = match (number / BURSTS.len()) % 2 {
            0 => self.addresses.0.to_string(),
            _ => format!("[{}]", self.addresses.1),
        };
        let mut curl = self.pod.namespace.command("curl");
        for (index, (method, path)) in BURSTS[number % BURSTS.len()].iter().enumerate() {
            if index > 0 {
                curl.arg("--next");
            }
            curl.args([
                "--silent",
                "--globoff",
                "--max-time",
                "10",
                "--output",
                "/dev/null",
                "--noproxy",
                "*",
            ]);
            curl.args(["--interface", POD_INTERFACE]);
            match *method {
                "HEAD" => curl.arg("--head"),
                "POST" | "PUT" => curl.args(["--request", method, "--data", "{\"id\":42,\"quantity\":1}"]),
                _ => curl.args(["--request", method]),
            };
            if path.starts_with("/products/") {
                curl.args(["--header", TRACEPARENT]);
            }
            curl.arg(format!("http://{host}:{PORT}{path}"));
        }
        in_background("curl", &mut curl)
    }

    /// Lets what is on its way arrive, for a short time.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        for curl in &mut self.running {
            curl.wait(deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }
}
