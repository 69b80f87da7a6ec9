//! Tar archives: headers of all dialects, pax records, sparse files. What was read is written again
//! and must come back the same.
#![no_main]

mod checksums;

use std::io::BufReader;

use libfuzzer_sys::fuzz_target;
use oci::tar::{Entry, Kind, TarReader, TarWriter};

fuzz_target!(|raw: &[u8]| {
    read(raw, 512);
    let archive = checksums::with_checksums(raw);
    let entries = read(&archive, 64 << 10);
    // How the bytes arrive must make no difference.
    assert_eq!(read(&archive, 7), entries);
    for entry in entries {
        write_and_read(entry);
    }
});

fn read(archive: &[u8], capacity: usize) -> Vec<Entry> {
    let mut reader = TarReader::new(BufReader::with_capacity(capacity, archive));
    let mut entries = Vec::new();
    while let Ok(Some(entry)) = reader.next_entry() {
        if let Some(pieces) = &entry.sparse {
            let sum: u64 = pieces.iter().map(|(_, length)| *length).sum();
            assert_eq!(sum, reader.remaining());
            assert!(pieces.iter().all(|(offset, length)| offset + length <= entry.size));
        }
        entries.push(entry);
        // Every other entry's data is left for the reader to skip.
        if entries.len() % 2 == 0 {
            continue;
        }
        let mut buffer = [0; 100];
        while reader.read_data(&mut buffer).is_ok_and(|n| n > 0) {}
    }
    entries
}

fn write_and_read(mut entry: Entry) {
    // A file's data is none of this check's business; a file whose name ends with a slash is a
    // directory by the rules of the oldest form; the numbers of a device the kernel bounds.
    if entry.kind == Kind::File && entry.path.ends_with(b"/") {
        return;
    }
    entry.size = 0;
    entry.sparse = None;
    if entry.device.0 > 0o7_777_777 || entry.device.1 > 0o7_777_777 {
        return;
    }
    let mut writer = TarWriter::new(Vec::new());
    writer.entry(&entry).expect("an entry can be written");
    let archive = writer.finish().expect("an archive can be ended");
    let mut reader = TarReader::new(archive.as_slice());
    let mut again = match reader.next_entry() {
        Ok(Some(again)) => again,
        // Names and attributes can fill one metadata header and not fit with another beside them.
        Err(oci::Error::Limit { .. }) => return,
        other => panic!("{entry:?} came back as {other:?}"),
    };
    if entry.kind == Kind::Directory {
        // The writer adds the slash that marks a directory.
        for entry in [&mut entry, &mut again] {
            while entry.path.ends_with(b"/") {
                entry.path.pop();
            }
        }
    }
    assert_eq!(again, entry);
}
