//! The server of the benchmarks: nginx, whose responses say which request they answer, and whose connections never end.
//!
//! In one pod it may have several workers, which share its connections evenly, since a process may not have any number of files. For
//! many pods it is one process all the same, with a listening socket in each of them: so what the server itself costs does not grow
//! with the pods, and they can be compared.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::flows;
use crate::netns::Pod;
use crate::process::{self, Running};

/// Where nginx listens.
pub(crate) const PORT: u16 = 8080;
/// Length of the body of a long response.
pub(super) const LONG: u64 = 100_000_000;
/// What may connect to a worker at once, as far as it may have so many files: more than any run has.
const CONNECTIONS: u64 = 131_072;
/// How often it is looked whether it listens, and how long between two looks.
const LOOKS: u32 = 250;
const LOOK: Duration = Duration::from_millis(20);

/// Starts it in the only pod with so many workers, or with one for all pods; it listens.
pub(crate) fn start(pods: &[Pod], workers: u32, dir: &Path) -> Result<Running> {
    let [first, more @ ..] = pods else { bail!("a server takes a pod") };
    let (conf, pid) = (dir.join("nginx.conf"), dir.join("nginx.pid"));
    // One that was killed has left it.
    let _ = fs::remove_file(&pid);
    fs::write(&conf, configuration(pods, workers, dir)?)?;
    File::create(dir.join("long"))?.set_len(LONG)?;
    let mut command = first.namespace.command("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(&conf).arg("-e").arg(dir.join("error.log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Kept until it is started, which hands them on.
    let mut sockets = Vec::new();
    if !more.is_empty() {
        sockets = pods.iter().map(listen).collect::<Result<Vec<_>>>()?;
        // As an nginx does that hands over to its successor.
        let numbers: String = sockets.iter().map(|socket| format!("{};", socket.as_raw_fd())).collect();
        command.env("NGINX", numbers);
    }
    let mut server = Running::start("nginx", &mut command)?;
    drop(sockets);
    for _ in 0..LOOKS {
        // Written when all of its sockets listen.
        if fs::metadata(&pid).is_ok_and(|file| file.len() > 0) {
            return Ok(server);
        }
        ensure!(server.status()?.is_none(), "nginx ended:\n{}", process::tail(&dir.join("error.log")));
        thread::sleep(LOOK);
    }
    bail!("nginx does not listen:\n{}", process::tail(&dir.join("error.log")))
}

/// A socket that listens in a pod, and that a program started from here inherits.
fn listen(pod: &Pod) -> Result<TcpListener> {
    let (path, address) = (pod.namespace.path(), SocketAddr::new(pod.ipv4.into(), PORT));
    let listen = || {
        // Of this thread alone, which ends here; the socket stays where it was made.
        move_into_link_name_space(File::open(&path)?.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = TcpListener::bind(address)?;
        fcntl_setfd(&socket, FdFlags::empty())?;
        std::io::Result::Ok(socket)
    };
    let made = thread::scope(|scope| scope.spawn(listen).join()).ok().context("a thread has panicked")?;
    made.with_context(|| format!("cannot listen at {address} in {path}"))
}

fn configuration(pods: &[Pod], workers: u32, dir: &Path) -> Result<String> {
    let (dir, files) = (dir.display(), flows::files().min(CONNECTIONS + 1024));
    let mut text = format!(
        "daemon off; worker_processes {workers}; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         user root; worker_rlimit_nofile {files}; events {{ worker_connections {connections}; }}\n\
         http {{ access_log off; sendfile on; keepalive_timeout 1h; keepalive_requests 1000000000;\n\
         default_type text/plain; add_header X-Item $request_uri;\n",
        connections = files.min(CONNECTIONS),
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {kind}_temp_path {dir}/{kind};")?;
    }
    text += "  server {\n";
    for pod in pods {
        // Each worker has a queue of its own, and the kernel deals connections out between them.
        let dealt = if workers > 1 { " reuseport" } else { "" };
        writeln!(text, "    listen {}:{PORT} backlog=4096{dealt};", pod.ipv4)?;
    }
    // With nginx's own headers about 400 bytes.
    let filler = "x".repeat(200);
    writeln!(text, "    location / {{ return 200 \"$uri {filler}\\n\"; }}")?;
    writeln!(text, "    location /body/ {{ root {dir}; try_files /long =404; }} }} }}")?;
    Ok(text)
}
