//! A process of its own that attaches and then waits: to be killed, or to live beside another instance. It is
//! this test binary, started again with one test and an order in the environment.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use clovisor::datapath::attach::{Attacher, Way};
use clovisor::datapath::kernel::Kernel;

const ORDER: &str = "CLOVISOR_TEST_ATTACH";
const READY: &str = "attached";

/// Attaches to `interface` in a process of its own, in the network namespace of the calling thread.
pub(crate) fn attach(interface: &str) -> Attachment {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::the_child", "--ignored", "--nocapture"])
        .env(ORDER, interface)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(READY)), "the child did not attach");
    Attachment(child)
}

/// The process; dropping kills it as `kill -9` does.
pub(crate) struct Attachment(Child);

impl Drop for Attachment {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "it is the other process of other tests"]
fn the_child() {
    let Ok(interface) = std::env::var(ORDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut kernel = Kernel::load(false).unwrap();
        let mut attacher = Attacher::new().await.unwrap();
        let interface = attacher.interface(&interface).await.unwrap();
        attacher.attach(&mut kernel, &interface, Way::Auto).await.unwrap();
        println!("{READY}");
        // Longer than any test; the parent kills it.
        tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    });
}
