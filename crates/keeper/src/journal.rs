//! The journal of a container: its output and its life, in the order they happened.
//!
//! One line a record, in the form the Kubernetes CRI gives to container logs, so that
//! ordinary tools read it and no byte of output is changed:
//!
//! ```text
//! 2026-11-21T10:00:00.123456789Z stdout F a whole line, its newline is the record's
//! 2026-11-21T10:00:00.123456790Z stderr P a piece of a line, no newline yet
//! 2026-11-21T10:00:01.000000000Z event F {"action":"die","exitCode":0}
//! ```
//!
//! A journal is a file `journal` and its older parts `journal.1` (the youngest) to
//! `journal.N`; together they never exceed the bound they were opened with by more than
//! one batch of output (64 KiB and its headers). `docs/format-journal.md` specifies it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::shelf;

/// What a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, and everything a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
    /// The container's life: `start`, `die`, `oom`.
    Event,
}

impl Stream {
    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Event => "event",
        }
    }

    fn parse(word: &[u8]) -> Option<Self> {
        match word {
            b"stdout" => Some(Stream::Stdout),
            b"stderr" => Some(Stream::Stderr),
            b"event" => Some(Stream::Event),
            _ => None,
        }
    }
}

/// How large a journal may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Bytes of one file; 0 is no bound.
    pub max_size: u64,
    /// Files in all, the current one included; at least 1.
    pub max_files: u32,
}

impl Default for Bound {
    /// Three files of 10 MB.
    fn default() -> Self {
        Self { max_size: 10_000_000, max_files: 3 }
    }
}

/// The writing end. One writer a journal: the keeper.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    /// Open from a write on until [`Writer::close`].
    file: Option<File>,
    size: u64,
    bound: Bound,
    buffer: Vec<u8>,
}

impl Writer {
    /// Opens or makes the journal at `path`. A torn last record, left by a writer that
    /// was killed, is cut off.
    pub fn open(path: &Path, bound: Bound) -> io::Result<Self> {
        let mut file = open_to_append(path)?;
        let size = cut_torn_record(&mut file)?;
        Ok(Self { path: path.to_owned(), file: Some(file), size, bound, buffer: Vec::new() })
    }

    /// Lets go of the file until there is something to write: descriptors are few, and most containers are silent most of
    /// the time.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Whether the file is open.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            closed => {
                let file = open_to_append(&self.path)?;
                // Somebody may have taken it away.
                self.size = file.metadata()?.len();
                Ok(closed.insert(file))
            }
        }
    }

    /// Bytes of the current file: where the next record will begin.
    pub fn position(&self) -> u64 {
        self.size
    }

    /// Writes a batch of output as one `write`.
    ///
    /// Rotation happens before a batch, never inside or after it, so that a position
    /// taken before the batch stays valid until the next one.
    pub fn output(&mut self, stream: Stream, time_ns: i64, bytes: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        let stamp = timestamp(time_ns);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (tag, text) = match piece.strip_suffix(b"\n") {
                Some(text) => ('F', text),
                None => ('P', piece),
            };
            // A vector takes every write.
            let _ = write!(self.buffer, "{stamp} {} {tag} ", stream.name());
            self.buffer.extend_from_slice(text);
            self.buffer.push(b'\n');
        }
        self.flush()
    }

    /// Writes one record of the container's life; `json` must have no newline.
    pub fn event(&mut self, time_ns: i64, json: &str) -> io::Result<()> {
        self.buffer.clear();
        let _ = writeln!(self.buffer, "{} event F {json}", timestamp(time_ns));
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.file().and_then(|file| file.write_all(&buffer));
        self.buffer = buffer;
        written?;
        self.size += self.buffer.len() as u64;
        if self.buffer.capacity() > 256 * 1024 {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Starts a new file if the current one has reached its bound. To be called before a
    /// batch whose position is remembered.
    pub fn rotate_if_full(&mut self) -> io::Result<()> {
        self.file()?;
        if self.bound.max_size == 0 || self.size < self.bound.max_size {
            return Ok(());
        }
        let older = |n: u32| older_path(&self.path, n);
        if self.bound.max_files <= 1 {
            let _ = std::fs::remove_file(&self.path);
        } else {
            for n in (1..self.bound.max_files - 1).rev() {
                let _ = std::fs::rename(older(n), older(n + 1));
            }
            std::fs::rename(&self.path, older(1))?;
        }
        self.file = None;
        self.file().map(drop)
    }

    /// How many bytes of `stream` were recorded at or after `position`.
    pub fn recorded_since(&self, stream: Stream, position: u64) -> io::Result<u64> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(position))?;
        let mut count = 0;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
                return Ok(count);
            }
            if let Some(record) = Record::parse(&line)
                && record.stream == stream
            {
                count += record.bytes.len() as u64;
            }
        }
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).mode(0o640).open(path)?;
    Ok(shelf::put(file.into()).into())
}

fn older_path(path: &Path, n: u32) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Cuts the file after its last newline; its length then.
fn cut_torn_record(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut end = size;
    let mut block = [0u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let length = usize::try_from(end - start).unwrap_or(block.len()).min(block.len());
        file.seek(SeekFrom::Start(start))?;
        let Some(part) = block.get_mut(..length) else { break };
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < size {
        file.set_len(end)?;
    }
    Ok(end)
}

fn timestamp(time_ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time_ns)) {
        Ok(t) => format!("{t:.9}"),
        Err(_) => "1970-01-01T00:00:00.000000000Z".into(),
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// What it belongs to.
    pub stream: Stream,
    /// The bytes as the container wrote them, with the newline where it wrote one. For
    /// an event its JSON and a newline.
    pub bytes: Vec<u8>,
}

impl Record {
    /// Reads one line of a journal, its newline included. `None`: not a record.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n")?;
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = Stream::parse(parts.next()?)?;
        let tag = parts.next()?;
        let text = parts.next()?;
        let time: jiff::Timestamp = time.parse().ok()?;
        let mut bytes = text.to_vec();
        match tag {
            b"F" => bytes.push(b'\n'),
            b"P" => {}
            _ => return None,
        }
        Some(Self { time_ns: i64::try_from(time.as_nanosecond()).ok()?, stream, bytes })
    }
}

/// The reading end: from the oldest record on, across rotations.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// Files still to be read, oldest last.
    pending: Vec<File>,
    current: Option<BufReader<File>>,
    inode: u64,
    line: Vec<u8>,
}

impl Reader {
    /// Opens the journal at `path`; one that does not exist yet is empty.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A rotation in between would make us miss a file or see one twice: open all,
        // then check that the current one is still the current one.
        for _ in 0..16 {
            let mut by_inode = BTreeMap::new();
            let mut pending = Vec::new();
            let inode = match File::open(path) {
                Ok(file) => {
                    let inode = file.metadata()?.ino();
                    by_inode.insert(inode, ());
                    pending.push(file);
                    inode
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
                Err(e) => return Err(e),
            };
            for n in 1.. {
                match File::open(older_path(path, n)) {
                    Ok(file) => {
                        if by_inode.insert(file.metadata()?.ino(), ()).is_none() {
                            pending.push(file);
                        }
                    }
                    Err(_) => break,
                }
            }
            let now = std::fs::metadata(path).map(|m| m.ino()).unwrap_or(0);
            if now == inode {
                let mut reader =
                    Self { path: path.to_owned(), pending, current: None, inode, line: Vec::new() };
                reader.current = reader.pending.pop().map(BufReader::new);
                return Ok(reader);
            }
        }
        Err(io::Error::other("the journal rotates faster than it can be opened"))
    }

    /// The next record, or `None` at the present end. Lines that are no records are
    /// passed over.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            let Some(current) = self.current.as_mut() else {
                // There was no file when we opened; perhaps there is one now.
                match File::open(&self.path) {
                    Ok(file) => {
                        self.inode = file.metadata()?.ino();
                        self.current = Some(BufReader::new(file));
                        continue;
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(e),
                }
            };
            let read = current.read_until(b'\n', &mut self.line)?;
            if self.line.last() == Some(&b'\n') {
                let record = Record::parse(&self.line);
                self.line.clear();
                if let Some(record) = record {
                    return Ok(Some(record));
                }
                continue;
            }
            if read > 0 {
                continue;
            }
            // End of this file: an older one is followed by a younger one.
            if let Some(next) = self.pending.pop() {
                self.line.clear();
                self.current = Some(BufReader::new(next));
                continue;
            }
            let Ok(now) = std::fs::metadata(&self.path) else { return Ok(None) };
            if now.ino() == self.inode {
                return Ok(None);
            }
            // Rotated. What was appended before the rotation is read first.
            if current.fill_buf()?.is_empty() {
                self.line.clear();
                self.catch_up(now.ino())?;
            }
        }
    }

    /// After a rotation: queues the files younger than the one just read.
    fn catch_up(&mut self, newest: u64) -> io::Result<()> {
        let old = self.inode;
        let mut files = vec![File::open(&self.path)?];
        for n in 1.. {
            match File::open(older_path(&self.path, n)) {
                Ok(file) if file.metadata()?.ino() != old => files.push(file),
                _ => break,
            }
        }
        self.inode = newest;
        self.current = files.pop().map(BufReader::new);
        self.pending = files;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!(
            "wherry-journal-{}-{name}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn all(path: &Path) -> Vec<Record> {
        let mut reader = Reader::open(path).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).collect()
    }

    #[test]
    fn bytes_come_back_as_written() {
        let dir = temp("bytes");
        let path = dir.join("journal");
        let mut w = Writer::open(&path, Bound::default()).unwrap();
        w.output(Stream::Stdout, 1, b"one\ntwo").unwrap();
        w.output(Stream::Stdout, 2, b" more\n\n\xff\n").unwrap();
        w.event(3, r#"{"action":"die"}"#).unwrap();
        let out: Vec<u8> = all(&path)
            .into_iter()
            .filter(|r| r.stream == Stream::Stdout)
            .flat_map(|r| r.bytes)
            .collect();
        assert_eq!(out, b"one\ntwo more\n\n\xff\n");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_reader_follows_across_rotations() {
        let dir = temp("rotate");
        let path = dir.join("journal");
        let bound = Bound { max_size: 200, max_files: 3 };
        let mut w = Writer::open(&path, bound).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let mut seen = Vec::new();
        for i in 0..50 {
            w.rotate_if_full().unwrap();
            w.output(Stream::Stdout, i, format!("line {i}\n").as_bytes()).unwrap();
            if i % 3 == 0 {
                while let Some(r) = reader.next_record().unwrap() {
                    seen.push(r.time_ns);
                }
            }
        }
        while let Some(r) = reader.next_record().unwrap() {
            seen.push(r.time_ns);
        }
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert!(!older_path(&path, 3).exists());
        let size: u64 =
            std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 3 * 300, "{size}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_closed_journal_goes_on_where_it_was() {
        let dir = temp("closed");
        let path = dir.join("journal");
        let mut journal = Writer::open(&path, Bound { max_size: 150, max_files: 2 }).unwrap();
        for n in 0..8 {
            journal.close();
            assert!(!journal.is_open());
            journal.rotate_if_full().unwrap();
            let position = journal.position();
            journal.close();
            journal.output(Stream::Stdout, n, format!("line {n}\n").as_bytes()).unwrap();
            assert!(journal.is_open());
            let mut text = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text.len() as u64, journal.position());
            assert_eq!(journal.recorded_since(Stream::Stdout, position).unwrap(), 7);
        }
        // Two files of three lines at most; the last ones, in order.
        let times: Vec<i64> = all(&path).iter().map(|record| record.time_ns).collect();
        assert_eq!(times.last(), Some(&7));
        assert!(times.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{times:?}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_torn_record_is_cut() {
        let dir = temp("torn");
        let path = dir.join("journal");
        let mut w = Writer::open(&path, Bound::default()).unwrap();
        w.output(Stream::Stdout, 1, b"whole\n").unwrap();
        let whole = w.position();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"2026-11-21T10:00:00Z stdout F ha")
            .unwrap();
        let w = Writer::open(&path, Bound::default()).unwrap();
        assert_eq!(w.position(), whole);
        assert_eq!(w.recorded_since(Stream::Stdout, 0).unwrap(), 6);
        assert_eq!(w.recorded_since(Stream::Stdout, whole).unwrap(), 0);
        std::fs::remove_dir_all(dir).unwrap();
    }

    proptest! {
        #[test]
        fn any_line_is_a_record_or_none(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::parse(&line);
        }
    }
}
