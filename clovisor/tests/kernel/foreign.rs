//! Other projects' programs: on the same interface, ending the chain for those behind, or delivering to pods.

use aya::maps::PerCpuArray;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};

use crate::netns::Net;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/foreign.bpf.o"));

/// A program that counts and then ends the chain, on both hooks of an interface.
pub(crate) struct Foreign {
    ebpf: Ebpf,
    _links: Vec<SchedClassifierLink>,
}

impl Foreign {
    /// By tcx: takes the IPv4 packets that `interface` receives straight into the namespace at the other end of
    /// the veth `target`.
    pub(crate) fn deliver(interface: &str, target: u32) -> Self {
        let mut ebpf = EbpfLoader::new().override_global("TARGET", &target, true).load(OBJECT).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut("deliver").unwrap().try_into().unwrap();
        program.load().unwrap();
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, TcAttachType::Ingress, options).unwrap();
        let link = program.take_link(id).unwrap();
        Self { ebpf, _links: vec![link] }
    }

    /// By tcx.
    pub(crate) fn tcx(interface: &str, order: fn() -> LinkOrder) -> Self {
        Self::attach(interface, || TcAttachOptions::TcxOrder(order()))
    }

    /// By a clsact filter; there must be a clsact.
    pub(crate) fn clsact(interface: &str, pref: u16) -> Self {
        Self::attach(interface, || {
            TcAttachOptions::Netlink(NlOptions { priority: pref, ..NlOptions::default() })
        })
    }

    fn attach(interface: &str, options: impl Fn() -> TcAttachOptions) -> Self {
        let mut ebpf = Ebpf::load(OBJECT).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut("foreign").unwrap().try_into().unwrap();
        program.load().unwrap();
        let links = [TcAttachType::Ingress, TcAttachType::Egress].map(|hook| {
            let id = program.attach_with_options(interface, hook, options()).unwrap();
            program.take_link(id).unwrap()
        });
        Self { ebpf, _links: links.into() }
    }

    /// Packets that it saw.
    pub(crate) fn seen(&self) -> u64 {
        let map = PerCpuArray::<_, u64>::try_from(self.ebpf.map("seen").unwrap()).unwrap();
        map.get(&0, 0).unwrap().iter().sum()
    }
}

/// A clsact filter of tc's own bytecode that ends the chain with "ok", on both hooks.
pub(crate) fn add_bpf(net: &Net, pref: &str) {
    for hook in ["ingress", "egress"] {
        net.in_host(&[
            "tc",
            "filter",
            "add",
            "dev",
            "veth0",
            hook,
            "pref",
            pref,
            "protocol",
            "all",
            "bpf",
            "da",
            "bytecode",
            "1,6 0 0 0,",
        ]);
    }
}

/// A clsact filter of another kind that ends the chain (a match with a flow id does), on both hooks.
pub(crate) fn add_u32(net: &Net, pref: &str) {
    for hook in ["ingress", "egress"] {
        net.in_host(&[
            "tc", "filter", "add", "dev", "veth0", hook, "pref", pref, "protocol", "all", "u32", "match",
            "u32", "0", "0", "flowid", "1:1",
        ]);
    }
}
