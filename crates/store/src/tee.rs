//! Reading a layer's archive once: what passes is hashed by one thread and written to a file by
//! another, while the reader unpacks or indexes it.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use oci::DiffId;
use oci::digest::Hasher;

const CHUNK: usize = 512 << 10;
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
}

struct Workers {
    hash: Worker<DiffId>,
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

fn write_chunks(mut file: File, writeback: bool, chunks: Receiver<Arc<Vec<u8>>>) -> io::Result<()> {
    let (mut begun, mut written) = (0_u64, 0_u64);
    for chunk in chunks {
        file.write_all(&chunk)?;
        written = written.saturating_add(chunk.len() as u64);
        if writeback && written - begun >= WRITEBACK {
            // Only a hint: the sync at the end is what counts.
            let _ = sys::writeback::begin(file.as_fd(), begun, written - begun);
            begun = written;
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
    /// Reads from `source`, at most `limit` bytes; copies to `file` if there is one. With `writeback`
    /// the disk is told to begin writing at once.
    pub(crate) fn new(source: R, file: Option<File>, writeback: bool, limit: u64) -> Tee<R> {
        let hash = Worker::start(|chunks| {
            let mut hasher = Hasher::sha256();
            for chunk in chunks {
                hasher.update(&chunk);
            }
            Ok(DiffId(hasher.finish()))
        });
        let write =
            file.map(|file| Worker::start(move |chunks| write_chunks(file, writeback, chunks)));
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
        }
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
        Arc::new(vec![0; CHUNK])
    }

    fn refill(&mut self) -> io::Result<()> {
        let mut chunk = self.free_chunk();
        let buffer = Arc::make_mut(&mut chunk);
        buffer.resize(CHUNK, 0);
        let mut have = 0;
        while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
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
        if old.capacity() >= CHUNK && self.ring.len() <= DEPTH {
            self.ring.push(old);
        }
        self.position = 0;
        Ok(())
    }

    /// Reads what is left, waits for the other thread, and returns the digest and length of all.
    pub(crate) fn finish(mut self) -> io::Result<(DiffId, u64)> {
        while !self.ended {
            self.refill()?;
        }
        let digest = self.join()?;
        Ok((digest, self.total))
    }
}

impl<R> Tee<R> {
    /// Waits for the threads, for both of them, whatever the first says.
    fn join(&mut self) -> io::Result<DiffId> {
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
