//! Moves output from a container into its journal so that no death of the keeper loses
//! a byte or writes one twice.
//!
//! The bytes go from the container's pipe into a pipe of our own (`splice`: they leave
//! the one and are in the other in one system call), are looked at without being taken
//! (`tee`), written to the journal, and only then dropped. Where the journal stood
//! before the batch is noted in a file of the run root. The standby holds both pipes and
//! the note. A keeper that takes over finds in our pipe either nothing, or the one batch
//! that was under way, and counts in the journal how much of it had been written.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use crate::journal::{Stream, Writer};

/// Bytes of one batch: what a pipe holds by default.
pub(crate) const BATCH: usize = 64 * 1024;

/// Names of the descriptors that the standby keeps for us.
pub(crate) const KEYS: [&str; 5] =
    ["mover/in", "mover/out", "mover/tee-in", "mover/tee-out", "mover/note"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Mover {
    /// Our pipe, the writing end.
    into: OwnedFd,
    /// Our pipe, the reading end.
    out: OwnedFd,
    tee_into: OwnedFd,
    tee_out: OwnedFd,
    note: File,
    null: File,
    buffer: Vec<u8>,
}

/// What one batch came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Some bytes; they are in `Mover::bytes`.
    Some,
    /// Nothing there now.
    Empty,
    /// Nothing there, and nobody left who could write.
    End,
}

/// The batch that was under way when a keeper died.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) id: String,
    pub(crate) stream: Stream,
    pub(crate) position: u64,
}

impl Mover {
    /// A new one; `note` is an empty file for it, open for reading and writing.
    pub(crate) fn new(note: File) -> io::Result<Self> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (out, into) = pipe()?;
        let (tee_out, tee_into) = pipe()?;
        Self::from_parts(into, out, tee_into, tee_out, note)
    }

    /// One made of the descriptors a standby kept, in the order of `KEYS`.
    pub(crate) fn from_parts(
        into: OwnedFd,
        out: OwnedFd,
        tee_into: OwnedFd,
        tee_out: OwnedFd,
        note: File,
    ) -> io::Result<Self> {
        let null = File::options().write(true).open("/dev/null")?;
        Ok(Self { into, out, tee_into, tee_out, note, null, buffer: Vec::new() })
    }

    /// Its descriptors, in the order of `KEYS`.
    pub(crate) fn parts(&self) -> [BorrowedFd<'_>; 5] {
        [
            self.into.as_fd(),
            self.out.as_fd(),
            self.tee_into.as_fd(),
            self.tee_out.as_fd(),
            self.note.as_fd(),
        ]
    }

    /// The bytes of the last batch.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads a batch that is kept nowhere.
    pub(crate) fn read(&mut self, source: BorrowedFd<'_>) -> io::Result<Moved> {
        self.buffer.resize(BATCH, 0);
        let got = loop {
            match rustix::io::read(source, &mut self.buffer[..]) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        self.buffer.truncate(got.unwrap_or(0));
        match got {
            Ok(0) => Ok(Moved::End),
            Ok(_) => Ok(Moved::Some),
            Err(Errno::AGAIN) => Ok(Moved::Empty),
            // What a terminal's master says when the last one has closed the other side.
            Err(Errno::IO) => Ok(Moved::End),
            Err(e) => Err(e.into()),
        }
    }

    /// Moves a batch into the journal. An error of the journal is the inner one: the
    /// batch is then dropped, but still in `bytes` for those attached.
    pub(crate) fn batch(
        &mut self,
        source: BorrowedFd<'_>,
        id: &str,
        stream: Stream,
        time_ns: i64,
        journal: &mut Writer,
    ) -> io::Result<(Moved, io::Result<()>)> {
        self.buffer.clear();
        let mut written = journal.rotate_if_full();
        self.write_note(id, stream, journal.position())?;
        match self.take(source)? {
            Moved::Some => {}
            other => return Ok((other, Ok(()))),
        }
        self.look()?;
        if written.is_ok() {
            written = journal.output(stream, time_ns, &self.buffer);
        }
        self.drop_batch()?;
        Ok((Moved::Some, written))
    }

    fn write_note(&self, id: &str, stream: Stream, position: u64) -> io::Result<()> {
        let line = format!("{id} {} {position:020}\n", stream.name());
        self.note.write_all_at(line.as_bytes(), 0)
    }

    /// Moves what the source has into our pipe.
    fn take(&mut self, source: BorrowedFd<'_>) -> io::Result<Moved> {
        loop {
            match rustix::pipe::splice(
                source,
                None,
                &self.into,
                None,
                BATCH,
                SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
            ) {
                Ok(0) => return Ok(Moved::End),
                Ok(_) => return Ok(Moved::Some),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Moved::Empty),
                Err(Errno::IO) => return Ok(Moved::End),
                // Terminals of some kernels can't be spliced.
                Err(Errno::INVAL) => {
                    let moved = self.read(source)?;
                    if moved == Moved::Some {
                        // Our pipe is empty and holds a batch, so this does not block.
                        let bytes = std::mem::take(&mut self.buffer);
                        File::from(self.into.try_clone()?).write_all_bytes(&bytes)?;
                    }
                    return Ok(moved);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Copies what is in our pipe into the buffer, leaving it there.
    fn look(&mut self) -> io::Result<()> {
        let held = held(&self.out)?;
        self.buffer.resize(held, 0);
        let mut done = 0;
        // `tee` always begins at the front of a pipe; one call copies all of it, for the
        // second pipe is empty and as large as the first.
        let copied = rustix::pipe::tee(&self.out, &self.tee_into, held, SpliceFlags::empty())?;
        while done < copied {
            match rustix::io::read(&self.tee_out, self.buffer.get_mut(done..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.buffer.truncate(done);
        Ok(())
    }

    fn drop_batch(&self) -> io::Result<()> {
        loop {
            let held = held(&self.out)?;
            if held == 0 {
                return Ok(());
            }
            rustix::pipe::splice(&self.out, None, &self.null, None, held, SpliceFlags::MOVE)?;
        }
    }

    /// The batch that a predecessor left in the pipe, if any.
    pub(crate) fn unfinished(&self) -> io::Result<Option<Unfinished>> {
        // What the second pipe holds is a copy.
        let mut rest = held(&self.tee_out)?;
        let mut scratch = vec![0; 4096];
        while rest > 0 {
            let want = rest.min(scratch.len());
            rest -= rustix::io::read(&self.tee_out, scratch.get_mut(..want).unwrap_or_default())?;
        }
        if held(&self.out)? == 0 {
            return Ok(None);
        }
        let mut note = vec![0; 256];
        let got = self.note.read_at(&mut note, 0)?;
        note.truncate(got);
        let text = String::from_utf8_lossy(&note);
        let mut words = text.split_whitespace();
        let (Some(id), Some(stream), Some(position)) = (words.next(), words.next(), words.next())
        else {
            return Ok(None);
        };
        let stream = if stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
        Ok(position.parse().ok().map(|position| Unfinished { id: id.into(), stream, position }))
    }

    /// Finishes that batch.
    pub(crate) fn finish(
        &mut self,
        unfinished: &Unfinished,
        time_ns: i64,
        journal: &mut Writer,
    ) -> io::Result<()> {
        self.look()?;
        let done = journal.recorded_since(unfinished.stream, unfinished.position)?;
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        let rest = self.buffer.get(done..).unwrap_or_default();
        journal.output(unfinished.stream, time_ns, rest)?;
        self.drop_batch()
    }

    /// Drops a batch whose journal is gone.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        self.drop_batch()
    }
}

fn held(pipe: &OwnedFd) -> io::Result<usize> {
    Ok(usize::try_from(rustix::io::ioctl_fionread(pipe)?).unwrap_or(0))
}

trait WriteAllBytes {
    fn write_all_bytes(self, bytes: &[u8]) -> io::Result<()>;
}

impl WriteAllBytes for File {
    fn write_all_bytes(mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Bound, Reader};
    use std::io::Write;

    fn scene(name: &str) -> (std::path::PathBuf, Mover, Writer) {
        let dir = std::env::temp_dir().join(format!("wherry-mover-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let note = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("note"))
            .unwrap();
        let journal = Writer::open(&dir.join("journal"), Bound::default()).unwrap();
        (dir, Mover::new(note).unwrap(), journal)
    }

    fn text(dir: &std::path::Path) -> Vec<u8> {
        let mut reader = Reader::open(&dir.join("journal")).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).flat_map(|r| r.bytes).collect()
    }

    #[test]
    fn a_batch_goes_into_the_journal_once() {
        let (dir, mut mover, mut journal) = scene("once");
        let (out, into) = rustix::pipe::pipe().unwrap();
        let mut into = File::from(into);
        into.write_all(b"hello\nwor").unwrap();
        let (moved, written) =
            mover.batch(out.as_fd(), "c", Stream::Stdout, 1, &mut journal).unwrap();
        written.unwrap();
        assert_eq!((moved, mover.bytes()), (Moved::Some, &b"hello\nwor"[..]));
        assert_eq!(mover.unfinished().unwrap(), None);
        drop(into);
        let (moved, _) = mover.batch(out.as_fd(), "c", Stream::Stdout, 1, &mut journal).unwrap();
        assert_eq!(moved, Moved::End);
        assert_eq!(text(&dir), b"hello\nwor");
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// A keeper that dies at each step of a batch: its successor finishes it, and every
    /// byte is in the journal exactly once, although the lines are all the same.
    #[test]
    fn a_death_at_any_step_loses_and_doubles_nothing() {
        for step in 0..4 {
            let (dir, mut mover, mut journal) = scene(&format!("death{step}"));
            let (out, into) = rustix::pipe::pipe().unwrap();
            File::from(into.try_clone().unwrap()).write_all(b"same\nsame\n").unwrap();
            mover.batch(out.as_fd(), "c", Stream::Stdout, 1, &mut journal).unwrap().1.unwrap();
            File::from(into).write_all(b"same\nsame\n").unwrap();
            mover.write_note("c", Stream::Stdout, journal.position()).unwrap();
            if step >= 1 {
                assert_eq!(mover.take(out.as_fd()).unwrap(), Moved::Some);
            }
            if step == 2 {
                // Killed in the middle of the write: the first line is there.
                journal.output(Stream::Stdout, 2, b"same\n").unwrap();
            }
            if step == 3 {
                mover.look().unwrap();
                let bytes = mover.buffer.clone();
                journal.output(Stream::Stdout, 2, &bytes).unwrap();
            }
            drop(journal);
            let mut journal = Writer::open(&dir.join("journal"), Bound::default()).unwrap();
            if let Some(unfinished) = mover.unfinished().unwrap() {
                assert!(step >= 1);
                mover.finish(&unfinished, 3, &mut journal).unwrap();
            }
            let (moved, _) =
                mover.batch(out.as_fd(), "c", Stream::Stdout, 4, &mut journal).unwrap();
            assert_eq!(moved == Moved::Some, step == 0);
            assert_eq!(text(&dir), b"same\n".repeat(4), "step {step}");
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}
