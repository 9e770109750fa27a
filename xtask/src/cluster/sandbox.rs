//! A world of a cluster's own on this machine: its processes, mounts and network are in namespaces that nobody else
//! is in. Its iptables rules, bridges, `/run`, `/var/lib/cni` and `/sys/fs/bpf` are not the machine's, and ending its
//! first process ends all of it, containers included.
//!
//! The first process also ends when this one does, even by a `kill -9`. What may outlive it (directories, cgroups)
//! carries our process id in its name and is removed by the next run.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self as std_process, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe};

use super::kernel;
use crate::process::{self, Running};
use crate::temp::{Scratch, is_left_over};

/// Where everything of ours is: `<temp>/<tag>-<process id>`; cgroups have the same name.
const TAG: &str = "clovisor-e2e";
/// The record of the first process, in that directory: its id, and when it started.
const RECORD: &str = "init";
/// Where programs are looked for inside.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The namespaces, and the directory that its programs write to.
pub(crate) struct Sandbox {
    init: Running,
    init_pid: Pid,
    handle: OwnedFd,
    // The last one: dropped when nothing writes to it any more.
    scratch: Scratch,
}

impl Sandbox {
    /// Makes it, after removing what killed runs left. To be called by the main thread: the kernel ends the sandbox
    /// with the thread that made it.
    pub(crate) fn new() -> Result<Self> {
        sweep();
        let scratch = Scratch::new(TAG)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--ipc", "--uts"])
            .args(["--fork", "--kill-child", "--mount-proc", "tini", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            // At its end `unshare` complains of it.
            .stderr(fs::File::create(scratch.path().join("unshare.log"))?)
            .process_group(0);
        let mut init = Running::start("the sandbox", &mut command)?;
        let init_pid = first_process(&mut init)
            .with_context(|| process::tail(&scratch.path().join("unshare.log")))
            .context("cannot make namespaces")?;
        let handle = pidfd_open(init_pid, PidfdFlags::empty())
            .context("cannot hold on to the sandbox (it takes Linux 5.8)")?;
        fs::write(scratch.path().join(RECORD), identity(init_pid).unwrap_or_default())?;
        let this = Self { init, init_pid, handle, scratch };
        this.mount().context("cannot set up the sandbox's mounts")?;
        Ok(this)
    }

    /// The directory that is gone when the sandbox is; seen at the same place inside and outside.
    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// A name that is this run's alone.
    pub(crate) fn name() -> String {
        format!("{TAG}-{}", std_process::id())
    }

    /// The id of its first process, for `nsenter --target`.
    pub(crate) fn pid(&self) -> i32 {
        self.init_pid.as_raw_nonzero().get()
    }

    /// Runs a function in the sandbox's network and mounts; the processes it starts are in the sandbox, too. It must
    /// not start threads.
    pub(crate) fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || {
            // SAFETY: of what threads share, `FS` takes only directory, root and umask apart, for a thread that ends
            // after this; no file descriptor is involved. The kernel wants it before a change of mounts.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            let spaces = ThreadNameSpaceType::NETWORK
                | ThreadNameSpaceType::MOUNT
                | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
                | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
                | ThreadNameSpaceType::PROCESS_ID;
            move_into_thread_name_spaces(self.handle.as_fd(), spaces).context("cannot enter the sandbox")?;
            inside()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .map_err(|_| anyhow!("a thread in the sandbox failed"))?
    }

    /// A command with nothing of our own environment, proxies for one. To be started inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH).env("HOME", self.dir()).stdin(Stdio::null());
        command
    }

    /// Runs a program inside, for its output: `node.output("tc", &["qdisc", "show"])`.
    pub(crate) fn output(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        self.enter(|| process::output(&mut command))
    }

    /// Starts a program inside, out of reach of a Ctrl-C, with all it says going to `log`.
    pub(crate) fn start(&self, name: &'static str, mut command: Command, log: &Path) -> Result<Running> {
        let open = || -> std::io::Result<(fs::File, fs::File)> {
            log.parent().map_or(Ok(()), fs::create_dir_all)?;
            let file = fs::File::options().create(true).append(true).open(log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = open().with_context(|| format!("cannot write the log {}", log.display()))?;
        command.stdout(out).stderr(err).process_group(0);
        self.enter(|| Running::start(name, &mut command))
    }

    /// Ends everything inside, at once.
    pub(crate) fn kill(&mut self) {
        // It is our own child's child and is waited for by nobody else, so the id is still its own.
        if matches!(self.init.status(), Ok(None)) {
            let _ = kill_process(self.init_pid, Signal::KILL);
        }
    }

    fn mount(&self) -> Result<()> {
        let dir = self.dir();
        let path = |name: &str| -> Result<String> {
            let path = dir.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
            Ok(path.display().to_string())
        };
        // Pods may ask that mounts made later reach them.
        self.output("mount", &["--make-rshared", "/"])?;
        self.output("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])?;
        self.output("mkdir", &["/run/lock", "/run/netns"])?;
        self.output("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/log"])?;
        self.output("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"])?;
        let layers =
            format!("lowerdir=/var/lib,upperdir={},workdir={}", path("var-lib")?, path("var-lib-work")?);
        self.output("mount", &["-t", "overlay", "-o", &layers, "overlay", "/var/lib"])?;
        for (setting, value) in kernel::KUBELET_WANTS {
            let file = dir.join(setting.replace('/', "-"));
            fs::write(&file, value)?;
            let file = file.display().to_string();
            self.output("mount", &["--bind", &file, &format!("/proc/sys/{setting}")])?;
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = self.init.wait(Duration::from_secs(20)) {
            eprintln!("warning: the sandbox does not end: {error:#}");
        }
        kernel::remove_cgroups(|name| name == Self::name());
    }
}

/// The process that `unshare` started in the new namespaces, once it is the program that is to be there.
fn first_process(unshare: &mut Running) -> Result<Pid> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    while Instant::now() < deadline {
        if let Some(status) = unshare.status()? {
            bail!("`unshare` ended ({status})");
        }
        let child = fs::read_to_string(&children).unwrap_or_default();
        let child = child.trim();
        if fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == "tini") {
            return child.parse().ok().and_then(Pid::from_raw).context("a process without an id");
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("`unshare` starts nothing")
}

/// What tells a process from all others until the next boot: its id and the moment of its start.
fn identity(pid: Pid) -> Option<String> {
    let pid = pid.as_raw_nonzero();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the start is the 20th field after it.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid} {start}"))
}

/// Ends the sandboxes of runs that are dead, and removes their cgroups. Their directories are removed by [`Scratch`].
fn sweep() {
    let of_dead_run =
        |name: &str| name.strip_prefix(TAG).and_then(|id| id.strip_prefix('-')).is_some_and(is_left_over);
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(of_dead_run) {
            end_recorded(&entry.path().join(RECORD));
        }
    }
    kernel::remove_cgroups(of_dead_run);
}

/// Ends the process of a record, if it is still that one.
fn end_recorded(record: &PathBuf) {
    let Ok(recorded) = fs::read_to_string(record) else { return };
    let pid = recorded.split(' ').next().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|&pid| identity(pid).as_deref() == Some(&recorded)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
