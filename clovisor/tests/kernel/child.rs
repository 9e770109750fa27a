//! A process of its own that attaches and then waits: to be killed, or to live beside another instance. It is
//! this test binary, started again with one test and an order in the environment.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use clovisor::datapath::attach::{Attacher, Way};
use clovisor::datapath::interface::{Interface, Orientation};
use clovisor::datapath::kernel::Kernel;
use clovisor::datapath::namespace::Namespace;
use clovisor::datapath::packets::SMALLEST_BUFFER;

use crate::buffers::buffers;
use crate::netns::run;

const ORDER: &str = "CLOVISOR_TEST_ATTACH";
/// File of the namespace; empty: where it is.
const PLACE: &str = "CLOVISOR_TEST_NAMESPACE";
const READY: &str = "attached";

/// Attaches to `interface` in a process of its own, in the network namespace of the calling thread.
pub(crate) fn attach(interface: &str) -> Attachment {
    attach_in(interface, "")
}

/// Attaches to `interface` inside the namespace of a file, from that of the calling thread.
pub(crate) fn attach_in(interface: &str, namespace: &str) -> Attachment {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::the_child", "--ignored", "--nocapture"])
        .env(ORDER, interface)
        .env(PLACE, namespace)
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

/// The interface inside a namespace under `/run/netns`.
pub(crate) fn inside(name: &str, file: &str, id: u32) -> Interface {
    let namespace = Namespace::at(file.as_ref()).unwrap();
    let netns = namespace.file().file_name().unwrap().to_str().unwrap();
    let index = run("ip", &["netns", "exec", netns, "cat", &format!("/sys/class/net/{name}/ifindex")]);
    Interface {
        name: name.to_owned(),
        index: index.trim().parse().unwrap(),
        id,
        orientation: Orientation::Pod,
        namespace: Some(namespace),
    }
}

#[test]
#[ignore = "it is the other process of other tests"]
fn the_child() {
    let Ok(interface) = std::env::var(ORDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let mut attacher = Attacher::new().await.unwrap();
        let interface = match std::env::var(PLACE).unwrap() {
            place if place.is_empty() => attacher.interface(&interface).await.unwrap(),
            place => inside(&interface, &place, attacher.number()),
        };
        attacher.attach(&mut kernel, &interface, Way::Auto).await.unwrap();
        println!("{READY}");
        // Longer than any test; the parent kills it.
        tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    });
}
