//! A pod's network namespace: which one it is, and how to work in it without staying there.
//!
//! A netlink socket belongs to the namespace that it was opened in, whichever thread uses it later, and keeps that
//! namespace alive, with its interfaces, for as long as it is open. So a connection is opened for each piece of work
//! and closed after it, and in between a namespace is known by its file alone.
//!
//! It refuses to move a thread of the runtime into a namespace: a thread that was moved and not moved back would do
//! all later work of the agent in the pod. A thread of its own enters, opens the socket and ends.
//!
//! Rights: CAP_SYS_ADMIN (setns(2)); see [`may_enter`](super::capability::may_enter).

use std::fs::File;
use std::io;
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Device and inode of a namespace's file: its identity for as long as it lives.
pub(super) type Identity = (u64, u64);

/// A network namespace. Holding this does not keep it alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    file: PathBuf,
    identity: Identity,
}

/// A connection into a namespace. Dropping it closes it soon, [`Inside::leave`] at once.
pub(super) struct Inside {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Namespace {
    /// The namespace that this file leads to now: a mount of the container runtime's, or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// The file cannot be opened. Whether it is a network namespace's turns out when it is entered.
    pub fn at(file: &Path) -> io::Result<Self> {
        let identity = identity(&File::open(file)?)?;
        Ok(Self { file: file.to_owned(), identity })
    }

    /// The file that it was found by.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether it is the namespace of the calling thread.
    #[must_use]
    pub fn is_own(&self) -> bool {
        own().is_some_and(|own| own == self.identity)
    }

    /// Opens an rtnetlink connection in it. To be called within a tokio runtime.
    ///
    /// # Errors
    /// `NotFound`: it is gone, or its file is another's now. EINVAL: it is no network namespace. EPERM.
    pub(super) async fn enter(&self) -> io::Result<Inside> {
        let file = File::open(&self.file)?;
        if identity(&file)? != self.identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        let runtime = tokio::runtime::Handle::current();
        let (done, opened) = oneshot::channel();
        let work = move || {
            let open = || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                let _in_runtime = runtime.enter();
                rtnetlink::new_connection().map(|(connection, handle, _)| (connection, handle))
            };
            // Whoever asked may have given up.
            _ = done.send(open());
        };
        std::thread::Builder::new().name("pod-netns".to_owned()).spawn(work)?;
        let (connection, handle) = opened.await.map_err(io::Error::other)??;
        Ok(Inside { handle, connection: tokio::spawn(connection) })
    }
}

impl Inside {
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Closes the connection, and waits until it is: the namespace may go from then on.
    pub(super) async fn leave(mut self) {
        self.connection.abort();
        // That it was cancelled is what was wanted.
        _ = (&mut self.connection).await;
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The namespace of the calling thread; `None` where `/proc` is not mounted.
pub(super) fn own() -> Option<Identity> {
    identity(&File::open(OWN).ok()?).ok()
}

pub(super) fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.st_dev(), metadata.st_ino()))
}
