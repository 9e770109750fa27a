//! Two network namespaces joined by a veth pair: `host` with `veth0`, and `pod` with `eth0`. Each test has its
//! own, and runs on a thread of its own inside `host`. Dropping removes both.

use std::fs::File;
use std::future::Future;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// Addresses of the two ends, on no other interface of the namespaces.
pub(crate) const HOST_V4: &str = "10.77.0.1";
pub(crate) const POD_V4: &str = "10.77.0.2";
const HOST_V6: &str = "fd77::1";
pub(crate) const POD_V6: &str = "fd77::2";

/// The two namespaces.
pub(crate) struct Net {
    /// Name of the host's.
    pub(crate) host: String,
    pub(crate) pod: String,
}

impl Net {
    /// Makes them, with addresses on both ends and both ends up.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("cvk{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { host: format!("{unique}h"), pod: format!("{unique}p") };
        for name in [&net.host, &net.pod] {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let pair = [
            "-n", &net.host, "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns",
            &net.pod,
        ];
        run("ip", &pair);
        for (name, device, v4, v6) in
            [(&net.host, "veth0", HOST_V4, HOST_V6), (&net.pod, "eth0", POD_V4, POD_V6)]
        {
            run("ip", &["-n", name, "addr", "add", &format!("{v4}/24"), "dev", device]);
            run("ip", &["-n", name, "addr", "add", &format!("{v6}/64"), "dev", device, "nodad"]);
            run("ip", &["-n", name, "link", "set", device, "up"]);
        }
        net
    }

    /// Runs a command in the pod's namespace.
    pub(crate) fn in_pod(&self, command: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.pod], command].concat())
    }

    /// Runs a command in the host's namespace.
    pub(crate) fn in_host(&self, command: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.host], command].concat())
    }

    /// Starts a thread in the pod's namespace.
    pub(crate) fn pod_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        thread_in(&self.pod, work)
    }

    /// Starts a thread in the host's namespace.
    pub(crate) fn host_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        thread_in(&self.host, work)
    }

    /// What tc knows of the host's interfaces: qdiscs and filters.
    pub(crate) fn tc_state(&self) -> String {
        let mut state = self.in_host(&["tc", "qdisc", "show"]);
        for hook in ["ingress", "egress"] {
            state += &self.filters(hook);
        }
        state
    }

    /// The filters on a hook of `veth0`.
    pub(crate) fn filters(&self, hook: &str) -> String {
        let arguments = ["netns", "exec", &self.host, "tc", "-s", "filter", "show", "dev", "veth0", hook];
        let output = try_run("ip", &arguments);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.host, &self.pod] {
            try_run("ip", &["netns", "del", name]);
        }
    }
}

/// Runs a test in namespaces of its own, on a thread and a runtime of its own inside `host`, unless something
/// that it needs is missing.
pub(crate) fn test<F: Future<Output = ()>>(
    name: &str,
    tools: &[&str],
    body: impl FnOnce(std::sync::Arc<Net>) -> F + Send + 'static,
) {
    if !has_needs(name, tools) {
        return;
    }
    let net = std::sync::Arc::new(Net::new());
    let inside = std::sync::Arc::clone(&net);
    let outcome = net
        .host_thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(body(inside));
        })
        .join();
    drop(net);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Whether the test can run. If not it says so, and panics where `CI` is set.
pub(crate) fn has_needs(name: &str, tools: &[&str]) -> bool {
    let reason = if nix::unistd::geteuid().is_root() {
        let is_missing = |tool: &&&str| {
            !std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|dir| dir.join(**tool).is_file())
        };
        match ["ip", "tc"].iter().chain(tools).find(is_missing) {
            None => return true,
            Some(tool) => format!("`{tool}` is not installed"),
        }
    } else {
        "needs root".to_owned()
    };
    skip(name, &reason);
    false
}

/// Says that a test is skipped; panics where `CI` is set.
pub(crate) fn skip(name: &str, reason: &str) {
    println!("skipped: {name}: {reason}");
    assert!(std::env::var_os("CI").is_none(), "{name} may not be skipped in CI: {reason}");
}

/// Runs a command that must succeed, and returns its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command, which may fail.
pub(crate) fn try_run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Starts a thread in a named namespace.
pub(crate) fn thread_in<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::spawn(move || {
        // Only this thread changes its namespace, so tests do not disturb each other.
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}
