//! The index of the database's log, kept valid while nobody has the database open.

use std::fs::File;
use std::path::Path;

use crate::error::io;
use crate::{Database, Result};

/// The byte of the shared-memory file that SQLite locks as its "dead man's switch" (`DMS` in the
/// description of the WAL-index's locks): as long as anybody shares it, the file is trusted.
const SWITCH: i64 = 128;

/// Keeps the index of the log valid as long as the returned file is open, also by a process forked
/// from the caller.
///
/// A connection that finds itself alone reads the whole log to make the index anew, which would make
/// the start of a container slower with every change since the log was last emptied. Whoever holds
/// this file counts as one more connection; it needs neither memory nor time. `None` where there is
/// no index yet, or where the file system has no such locks: then nothing is gained or lost.
///
/// # Errors
/// Those of the file system.
pub fn hold_log_index(data_root: &Path) -> Result<Option<File>> {
    let [_, _, name] = Database::file_names();
    let path = data_root.join(name);
    match File::open(&path) {
        Ok(file) => Ok(sys::lock::share(&file, SWITCH, 1).is_ok().then_some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(|| format!("opening {}", path.display()))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, OpenOptions, Store};

    /// SQLite empties the file before it makes the index anew.
    #[test]
    fn the_index_outlives_its_connections() {
        let root = std::env::temp_dir().join(format!("wherry-log-index-{}", std::process::id()));
        let open = || {
            let options = OpenOptions { durability: Durability::None, ..OpenOptions::default() };
            Store::open(&root, options).unwrap()
        };
        let write = |store: &Store| {
            let sql = "INSERT INTO meta(key, value) VALUES (hex(randomblob(9)), '')";
            store.db().transaction(|tx| tx.execute(sql, []).map_err(crate::Error::from)).unwrap()
        };
        // Longer than needed, so that emptying it shows.
        let index = root.join("state.db-shm");
        let length = 1 << 20;
        let stretch = || File::options().write(true).open(&index).unwrap().set_len(length).unwrap();
        let is_as_it_was = || std::fs::metadata(&index).unwrap().len() == length;
        write(&open());
        let held = hold_log_index(&root).unwrap().unwrap();
        stretch();
        write(&open());
        assert!(is_as_it_was());
        let count = |store: &Store| -> i64 {
            let sql = "SELECT count(*) FROM meta WHERE value = ''";
            store.db().connection().query_row(sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&open()), 2);
        drop(held);
        write(&open());
        assert!(!is_as_it_was());
        assert_eq!(count(&open()), 3);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
