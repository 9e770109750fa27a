//! Tests that load the kernel side run twice: with a ring buffer, and with perf buffers.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;

use clovisor::datapath::packets::{Buffers, Transport};

use crate::netns::{self, Net};

thread_local! {
    static TRANSPORT: Cell<Transport> = const { Cell::new(Transport::Ring) };
}

/// The buffers that the test of this thread is to use, of so many bytes.
pub(crate) fn buffers(bytes: usize) -> Buffers {
    Buffers { transport: Some(TRANSPORT.get()), bytes }
}

/// [`netns::test`] for each way on which packets come.
pub(crate) fn test<F: Future<Output = ()>>(
    name: &str,
    tools: &[&str],
    body: impl FnOnce(Arc<Net>) -> F + Clone + Send + 'static,
) {
    for transport in [Transport::Ring, Transport::Perf] {
        println!("{name}: {transport}");
        let body = body.clone();
        netns::test(name, tools, move |net| {
            TRANSPORT.set(transport);
            body(net)
        });
    }
}
