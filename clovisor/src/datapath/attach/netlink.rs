//! Traffic control messages: the clsact qdisc of an interface, and the filters on its two hooks.
//!
//! It refuses policy: it lists, adds, and deletes by exact identity. Which filter may be deleted is decided
//! by its callers.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use nix::libc;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL};

use crate::datapath::request;

/// ETH_P_ALL: a filter for packets of every protocol.
pub(super) const ALL_PROTOCOLS: u16 = 0x0003;
/// The kind of our filters.
pub(super) const BPF: &str = TcFilterBpf::KIND;
const CLSACT: &str = "clsact";

/// One of the two hooks of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// What the interface receives.
    Ingress,
    /// What the interface sends.
    Egress,
}

impl Hook {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As tc writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: u16::MAX, minor }
    }
}

/// What the kernel was asked: it shows whether the work grows with the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Questions; a dump that had to be repeated is one.
    pub requests: u64,
    /// Messages that came back, acknowledgements not counted.
    pub answers: u64,
}

/// What sits at `ffff:` of an interface, where clsact goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Qdisc {
    /// Nothing.
    None,
    /// A clsact.
    Clsact,
    /// The older `ingress`, which has no egress hook, or a kind not known.
    Other(String),
}

/// A filter on a hook, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) hook: Hook,
    /// Its place in the chain: lower runs first. The kernel's `prio`, tc's `pref`.
    pub(super) pref: u16,
    /// EtherType, host byte order.
    pub(super) protocol: u16,
    pub(super) handle: TcHandle,
    pub(super) kind: String,
    /// Name of a bpf filter.
    pub(super) name: Option<String>,
    pub(super) chain: u32,
}

/// Traffic control of the network namespace in which the connection was made.
#[derive(Clone)]
pub(super) struct TrafficControl {
    handle: Handle,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    answers: AtomicU64,
}

impl TrafficControl {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, counts: Arc::default() }
    }

    /// What was asked so far.
    pub(super) fn asked(&self) -> Asked {
        let Counts { requests, answers } = &*self.counts;
        Asked { requests: requests.load(Ordering::Relaxed), answers: answers.load(Ordering::Relaxed) }
    }

    /// Name of the interface of this index; `None` if there is none.
    pub(super) async fn name(&self, interface: u32) -> io::Result<Option<String>> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        let answers = match self.ask(RouteNetlinkMessage::GetLink(message), 0).await {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            other => other?,
        };
        let name = |attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        };
        let name = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(name),
            _ => None,
        });
        Ok(Some(name.unwrap_or_default()))
    }

    /// What sits at `ffff:` of `interface`, without a dump: a dump is of all qdiscs of the node.
    ///
    /// Linux before 6.8 sends the answer to whoever listens to traffic control, and to the asker only with
    /// NLM_F_ECHO.
    pub(super) async fn qdisc(&self, interface: u32) -> io::Result<Qdisc> {
        let mut message = clsact(interface);
        message.attributes.clear();
        let request = RouteNetlinkMessage::GetQueueDiscipline(message);
        let answers = match self.ask(request, NLM_F_ACK | NLM_F_ECHO).await {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Qdisc::None),
            other => other?,
        };
        let found = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message) => Some(kind(message)),
            _ => None,
        });
        Ok(match found {
            None => Qdisc::None,
            Some(CLSACT) => Qdisc::Clsact,
            Some(kind) => Qdisc::Other(kind.to_owned()),
        })
    }

    /// The interfaces that have a clsact.
    pub(super) async fn interfaces_with_clsact(&self) -> io::Result<BTreeSet<u32>> {
        let all = self.qdiscs().await?.into_iter();
        Ok(all.filter(|(_, kind)| kind == CLSACT).map(|(index, _)| index).collect())
    }

    /// Interface and kind of all qdiscs at `ffff:`.
    async fn qdiscs(&self) -> io::Result<Vec<(u32, String)>> {
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let mut found = Vec::new();
        for message in self.ask(request, NLM_F_DUMP).await? {
            if let RouteNetlinkMessage::NewQueueDiscipline(message) = message
                && message.header.parent == TcHandle::CLSACT
            {
                found.push((message.header.index.cast_unsigned(), kind(&message).to_owned()));
            }
        }
        Ok(found)
    }

    /// Makes a clsact; says false where there is one (of anyone) already.
    pub(super) async fn create_clsact(&self, interface: u32) -> io::Result<bool> {
        let message = clsact(interface);
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        match self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes the clsact, and with it whatever filters are on it.
    pub(super) async fn delete_clsact(&self, interface: u32) -> io::Result<()> {
        let request = RouteNetlinkMessage::DelQueueDiscipline(clsact(interface));
        self.ask(request, NLM_F_ACK).await.map(drop)
    }

    /// The filters on a hook, in the order in which they run (of one chain).
    pub(super) async fn filters(&self, interface: u32, hook: Hook) -> io::Result<Vec<Filter>> {
        let request = RouteNetlinkMessage::GetTrafficFilter(message(interface, hook));
        let answers = match self.ask(request, NLM_F_DUMP).await {
            // No qdisc, or no interface any more: no filters.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => Vec::new(),
            other => other?,
        };
        let filters = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(message) => Some(filter(hook, &message)),
            _ => None,
        });
        // The kernel also lists each classifier itself, with handle 0, before its filters.
        Ok(filters.filter(|filter| filter.handle != TcHandle::UNSPEC).collect())
    }

    /// Adds a direct-action bpf filter for all protocols; the kernel picks a free handle, and puts it in
    /// front of the bpf filters that have the same pref. A program finds `class`, if there is one, in its
    /// packet's `tc_classid`.
    pub(super) async fn add_filter(
        &self,
        interface: u32,
        hook: Hook,
        pref: u16,
        name: &str,
        program_fd: u32,
        class: Option<u16>,
    ) -> io::Result<()> {
        let mut message = message(interface, hook);
        message.header.info = info(pref, ALL_PROTOCOLS);
        let mut options = vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program_fd)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ];
        let class = class.map(|minor| TcFilterBpfOption::ClassId(TcHandle { major: 0, minor }));
        options.extend(class.map(TcOption::Bpf));
        message.attributes = vec![TcAttribute::Kind(BPF.to_owned()), TcAttribute::Options(options)];
        let request = RouteNetlinkMessage::NewTrafficFilter(message);
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await.map(drop)
    }

    /// Deletes exactly this filter. That it is gone already, with or without its interface, is fine.
    pub(super) async fn delete_filter(&self, interface: u32, filter: &Filter) -> io::Result<()> {
        let mut message = message(interface, filter.hook);
        message.header.handle = filter.handle;
        message.header.info = info(filter.pref, filter.protocol);
        message.attributes = vec![TcAttribute::Kind(filter.kind.clone()), TcAttribute::Chain(filter.chain)];
        match self.ask(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK).await {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let answers = request::ask(&self.handle, request, flags).await?;
        self.counts.answers.fetch_add(answers.len() as u64, Ordering::Relaxed);
        Ok(answers)
    }
}

fn message(interface: u32, hook: Hook) -> TcMessage {
    let mut message = TcMessage::default();
    message.header =
        TcHeader { index: interface.cast_signed(), parent: hook.parent(), ..TcHeader::default() };
    message
}

fn clsact(interface: u32) -> TcMessage {
    let mut message = message(interface, Hook::Ingress);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes = vec![TcAttribute::Kind(CLSACT.to_owned())];
    message
}

/// `tcm_info`: the pref above, the EtherType in network byte order below.
fn info(pref: u16, protocol: u16) -> u32 {
    (u32::from(pref) << 16) | u32::from(protocol.to_be())
}

fn filter(hook: Hook, message: &TcMessage) -> Filter {
    let info = message.header.info.to_be_bytes();
    let mut filter = Filter {
        hook,
        pref: u16::from_be_bytes([info[0], info[1]]),
        protocol: u16::from_be(u16::from_be_bytes([info[2], info[3]])),
        handle: message.header.handle,
        kind: kind(message).to_owned(),
        name: None,
        chain: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Chain(chain) => filter.chain = *chain,
            TcAttribute::Options(options) => {
                let name = options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
                    _ => None,
                });
                filter.name = filter.name.or(name);
            }
            _ => {}
        }
    }
    filter
}

fn kind(message: &TcMessage) -> &str {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    });
    kind.unwrap_or_default()
}
