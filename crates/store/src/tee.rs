//! Reading a layer's archive once: what passes is hashed and written to a file by another thread,
//! while the reader unpacks it.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
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
    /// Chunks that may be in use by the other thread; taken again when they are not.
    ring: Vec<Arc<Vec<u8>>>,
    next: usize,
    total: u64,
    limit: u64,
    worker: Option<Worker>,
    ended: bool,
}

struct Worker {
    send: SyncSender<Arc<Vec<u8>>>,
    thread: JoinHandle<io::Result<DiffId>>,
}

/// The error of a stream that passed its limit; recognised by [`is_too_large`].
#[derive(Debug, thiserror::Error)]
#[error("the archive is larger than the limit")]
struct TooLarge;

pub(crate) fn is_too_large(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLarge>())
}

impl<R: Read> Tee<R> {
    /// Reads from `source`, at most `limit` bytes; copies to `file` if there is one.
    pub(crate) fn new(source: R, file: Option<File>, limit: u64) -> Tee<R> {
        let (send, receive) = sync_channel::<Arc<Vec<u8>>>(DEPTH);
        let thread = std::thread::spawn(move || {
            let mut hasher = Hasher::sha256();
            let mut file = file;
            for chunk in receive {
                if let Some(file) = &mut file {
                    file.write_all(&chunk)?;
                }
                hasher.update(&chunk);
            }
            Ok(DiffId(hasher.finish()))
        });
        Tee {
            source,
            chunk: Arc::default(),
            position: 0,
            ring: Vec::new(),
            next: 0,
            total: 0,
            limit,
            worker: Some(Worker { send, thread }),
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
        if let Some(worker) = &self.worker
            && worker.send.send(Arc::clone(&chunk)).is_err()
        {
            // The thread ended early, which it does only with an error.
            return Err(match self.worker.take().map(|worker| worker.thread.join()) {
                Some(Ok(Err(error))) => error,
                _ => io::Error::other("the writing thread failed"),
            });
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
        let failed = || io::Error::other("the writing thread failed");
        let worker = self.worker.take().ok_or_else(failed)?;
        drop(worker.send);
        let digest = worker.thread.join().map_err(|_| failed())??;
        Ok((digest, self.total))
    }
}

impl<R> Drop for Tee<R> {
    fn drop(&mut self) {
        // After an error the thread must not go on writing into what is being removed.
        if let Some(worker) = self.worker.take() {
            drop(worker.send);
            let _ = worker.thread.join();
        }
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
