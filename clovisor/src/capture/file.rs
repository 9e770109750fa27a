//! The file behind a capture, written by a thread of its own, so that a slow disk or a reader that sleeps holds up
//! nobody but the file.
//!
//! Bounded: [`BACKLOG`] chunks wait at most. Whole chunks are written; when that fails, what was written of the last one is taken
//! back where the file can be cut, so that it ends with a whole block, and nothing more is written.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

/// Chunks that wait for the disk: with [`super::CHUNK`] 64 MiB, what 1 Gbit/s brings in half a second. A disk that has to write
/// back what others have left in memory can take that long.
const BACKLOG: usize = 256;
/// How long the disk may take for what is left at the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Only the user: the file holds all that was on the wire.
const MODE: u32 = 0o600;

/// Blocks to write, and the number of packets in them.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) packets: u64,
}

/// Why a chunk was not taken.
pub(super) enum Refused {
    /// The disk is behind; the chunk comes back.
    Behind(Chunk),
    /// Writing has failed; the chunk is gone.
    Failed,
}

#[derive(Default)]
struct Progress {
    written: AtomicU64,
    lost: AtomicU64,
    failed: AtomicBool,
    reader_gone: AtomicBool,
}

/// What became of the packets that were taken.
pub(super) struct Done {
    pub(super) written: u64,
    /// Taken, and lost when writing failed.
    pub(super) lost: u64,
    /// Whether writing has failed.
    pub(super) failed: bool,
}

/// The thread that writes, as the others see it.
pub(super) struct Queue {
    chunks: mpsc::Sender<Chunk>,
    ended: oneshot::Receiver<()>,
    progress: Arc<Progress>,
}

/// Opens the file, which is overwritten; `-` is standard output. Files are made for their owner only, also where they
/// were there before.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if path.as_os_str() == "-" {
        return Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    }
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    // Not what is no file: the permissions of a device or a pipe are others' business.
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

impl Queue {
    /// Starts the thread; `head` is in the file already.
    pub(super) fn start(file: File, name: String, head: u64) -> Self {
        let (chunks, waiting) = mpsc::channel(BACKLOG);
        let (end, ended) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        std::thread::spawn(move || {
            write(file, &name, head, waiting, &shared);
            // If nobody waits any more, nobody wants to know.
            _ = end.send(());
        });
        Self { chunks, ended, progress }
    }

    /// Hands a chunk over, without waiting.
    pub(super) fn push(&self, chunk: Chunk) -> Result<(), Refused> {
        self.chunks.try_send(chunk).map_err(|error| match error {
            mpsc::error::TrySendError::Full(chunk) => Refused::Behind(chunk),
            mpsc::error::TrySendError::Closed(_) => Refused::Failed,
        })
    }

    /// Whether standard output takes nothing any more.
    pub(super) fn reader_gone(&self) -> bool {
        self.progress.reader_gone.load(Ordering::Relaxed)
    }

    /// Hands the last chunk over, and waits until all is written, or for as long as there is patience.
    pub(super) async fn close(self, last: Chunk) -> Done {
        let Self { chunks, ended, progress } = self;
        let packets = last.packets;
        let finish = async {
            let taken = chunks.send(last).await.is_ok();
            drop(chunks);
            _ = ended.await;
            taken
        };
        let taken = tokio::time::timeout(FAREWELL, finish).await;
        let refused = if taken == Ok(false) { packets } else { 0 };
        let failed = progress.failed.load(Ordering::Relaxed);
        if taken.is_err() {
            tracing::error!("the disk has not taken all of the capture within {FAREWELL:?}: it ends early");
        }
        Done {
            written: progress.written.load(Ordering::Relaxed),
            lost: progress.lost.load(Ordering::Relaxed) + refused,
            failed: failed || taken.is_err(),
        }
    }
}

/// Writes chunks until there are no more, or the file takes none.
fn write(
    mut file: File,
    name: &str,
    mut whole: u64,
    mut waiting: mpsc::Receiver<Chunk>,
    progress: &Progress,
) {
    while let Some(chunk) = waiting.blocking_recv() {
        match file.write_all(&chunk.bytes) {
            Ok(()) => {
                whole += chunk.bytes.len() as u64;
                progress.written.fetch_add(chunk.packets, Ordering::Relaxed);
            }
            Err(error) => {
                fail(&file, name, whole, &error, progress);
                waiting.close();
                let mut lost = chunk.packets;
                while let Some(chunk) = waiting.blocking_recv() {
                    lost += chunk.packets;
                }
                progress.lost.fetch_add(lost, Ordering::Relaxed);
                return;
            }
        }
    }
}

fn fail(file: &File, name: &str, whole: u64, error: &io::Error, progress: &Progress) {
    if name == "-" && error.kind() == io::ErrorKind::BrokenPipe {
        progress.reader_gone.store(true, Ordering::Relaxed);
        return;
    }
    progress.failed.store(true, Ordering::Relaxed);
    // A pipe or a device cannot be cut, and has nothing to be cut off.
    _ = file.set_len(whole);
    tracing::error!(
        "cannot write {name} any further: {error}; tracing goes on, and the file ends here. Give it another place, or make \
         room and start anew"
    );
}
