//! Reading a stream once: what passes is hashed by one thread and written to a file by another, while the
//! reader goes on: it unpacks or indexes a layer's archive, or decompresses what came of a layer's blob.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use oci::Digest;
use oci::digest::Hasher;

const CHUNK: usize = 512 << 10;
/// What comes from afar is passed on as it comes, so that little of it is lost when we are killed.
const EAGER_CHUNK: usize = 64 << 10;
/// The most that may follow the end of an archive, in bytes.
const PADDING: u64 = 16 << 20;
/// Chunks in flight. Bounds the memory of an import.
const DEPTH: usize = 8;

/// A reader that copies what is read through it into a file and hashes it.
pub(crate) struct Tee<R> {
    source: R,
    chunk: Arc<Vec<u8>>,
    position: usize,
    /// Chunks that may be in use by the threads; taken again when they are not.
    ring: Vec<Arc<Vec<u8>>>,
    next: usize,
    total: u64,
    limit: u64,
    workers: Option<Workers>,
    ended: bool,
    eager: bool,
    /// An error that waits until what came before it was passed on.
    failed: Option<io::Error>,
}

/// Where a copy goes.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) file: File,
    /// So many bytes at the beginning are there already.
    pub(crate) have: u64,
    /// The disk is told to begin writing at once.
    pub(crate) writeback: bool,
}

struct Workers {
    hash: Worker<Digest>,
    write: Option<Worker<()>>,
}

/// A thread that is given every chunk.
struct Worker<T> {
    send: SyncSender<Arc<Vec<u8>>>,
    thread: JoinHandle<io::Result<T>>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(
        work: impl FnOnce(Receiver<Arc<Vec<u8>>>) -> io::Result<T> + Send + 'static,
    ) -> Worker<T> {
        let (send, receive) = sync_channel(DEPTH);
        Worker { send, thread: std::thread::spawn(move || work(receive)) }
    }

    /// Waits for its end.
    fn finish(self) -> io::Result<T> {
        drop(self.send);
        self.thread.join().map_err(|_| io::Error::other("a thread of the import failed"))?
    }
}

/// How much is handed to the disk at a time, so that it writes while we read and the sync at the end
/// has little to wait for.
const WRITEBACK: u64 = 8 << 20;

fn write_chunks(copy: &Copy, chunks: Receiver<Arc<Vec<u8>>>) -> io::Result<()> {
    let (mut begun, mut at) = (copy.have, 0_u64);
    for chunk in chunks {
        let end = at.saturating_add(chunk.len() as u64);
        // What is there is not written again.
        let skip = usize::try_from(copy.have.saturating_sub(at)).unwrap_or(usize::MAX);
        let new = chunk.get(skip..).unwrap_or_default();
        copy.file.write_all_at(new, at.saturating_add(skip as u64))?;
        at = end;
        if copy.writeback && at.saturating_sub(begun) >= WRITEBACK {
            // Only a hint: the sync at the end is what counts.
            let _ = sys::writeback::begin(copy.file.as_fd(), begun, at - begun);
            begun = at;
        }
    }
    Ok(())
}

/// The error of a stream that passed its limit; recognised by [`is_too_large`].
#[derive(Debug, thiserror::Error)]
#[error("the archive is larger than the limit")]
struct TooLarge;

pub(crate) fn is_too_large(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLarge>())
}

impl<R: Read> Tee<R> {
    /// Reads from `source`, at most `limit` bytes; copies to a file if there is one.
    pub(crate) fn new(source: R, copy: Option<Copy>, limit: u64) -> Tee<R> {
        Self::with(source, Hasher::sha256(), copy, limit, false)
    }

    /// For a source that is slow: what it gives is passed on at once.
    pub(crate) fn eager(source: R, hasher: Hasher, copy: Copy) -> Tee<R> {
        Self::with(source, hasher, Some(copy), u64::MAX, true)
    }

    fn with(source: R, mut hasher: Hasher, copy: Option<Copy>, limit: u64, eager: bool) -> Tee<R> {
        let hash = Worker::start(move |chunks| {
            for chunk in chunks {
                hasher.update(&chunk);
            }
            Ok(hasher.finish())
        });
        let write = copy.map(|copy| Worker::start(move |chunks| write_chunks(&copy, chunks)));
        Tee {
            source,
            chunk: Arc::default(),
            position: 0,
            ring: Vec::new(),
            next: 0,
            total: 0,
            limit,
            workers: Some(Workers { hash, write }),
            ended: false,
            eager,
            failed: None,
        }
    }

    fn chunk_size(&self) -> usize {
        if self.eager { EAGER_CHUNK } else { CHUNK }
    }

    /// A chunk nobody uses.
    fn free_chunk(&mut self) -> Arc<Vec<u8>> {
        for _ in 0..self.ring.len() {
            self.next = (self.next + 1) % self.ring.len().max(1);
            if let Some(chunk) = self.ring.get(self.next)
                && Arc::strong_count(chunk) == 1
            {
                return self.ring.swap_remove(self.next);
            }
        }
        Arc::new(vec![0; self.chunk_size()])
    }

    fn refill(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let size = self.chunk_size();
        let mut chunk = self.free_chunk();
        let buffer = Arc::make_mut(&mut chunk);
        buffer.resize(size, 0);
        let mut have = 0;
        while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => {
                    have += n;
                    if self.eager {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if have == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        buffer.truncate(have);
        self.total = self.total.saturating_add(have as u64);
        if self.total > self.limit {
            return Err(io::Error::other(TooLarge));
        }
        if let Some(workers) = &self.workers {
            let hashing = workers.hash.send.send(Arc::clone(&chunk)).is_ok();
            let writing = workers
                .write
                .as_ref()
                .is_none_or(|write| write.send.send(Arc::clone(&chunk)).is_ok());
            if !(hashing && writing) {
                // A thread ended early, which it does only with an error.
                let error = self.join().err();
                return Err(error.unwrap_or_else(|| io::Error::other("a thread ended early")));
            }
        }
        let old = std::mem::replace(&mut self.chunk, chunk);
        if old.capacity() >= size && self.ring.len() <= DEPTH {
            self.ring.push(old);
        }
        self.position = 0;
        Ok(())
    }

    /// As [`Tee::finish`], for an archive that was read to its end: writers fill up a last record, so
    /// little may follow.
    pub(crate) fn finish_archive(mut self) -> io::Result<(Digest, u64)> {
        let most = self.total.saturating_add(PADDING);
        while !self.ended {
            self.refill()?;
            if self.total > most {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "more than 16 MiB follow the end of the archive: it is damaged",
                ));
            }
        }
        self.finish()
    }

    /// Reads what is left, waits for the other thread, and returns the digest and length of all.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        while !self.ended {
            self.refill()?;
        }
        let digest = self.join()?;
        Ok((digest, self.total))
    }
}

impl<R> Tee<R> {
    /// Waits for the threads, for both of them, whatever the first says.
    fn join(&mut self) -> io::Result<Digest> {
        let workers =
            self.workers.take().ok_or_else(|| io::Error::other("the threads have ended"))?;
        let written = workers.write.map_or(Ok(()), Worker::finish);
        let digest = workers.hash.finish();
        written?;
        digest
    }
}

impl<R> Drop for Tee<R> {
    fn drop(&mut self) {
        // After an error the threads must not go on writing into what is being removed.
        let _ = self.join();
    }
}

impl<R: Read> BufRead for Tee<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.chunk.len() && !self.ended {
            self.refill()?;
        }
        Ok(self.chunk.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.position = self.position.saturating_add(n).min(self.chunk.len());
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), available.get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n);
        Ok(n)
    }
}
