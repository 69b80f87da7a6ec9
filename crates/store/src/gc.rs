//! Repair and clean-up.

use crate::temporary::owner_lives;
use crate::{Store, files};
use std::os::fd::AsFd;

impl Store {
    /// Removes what killed processes left in `tmp/`. Errors do not matter: the next one tries again.
    pub(crate) fn remove_stale_temporaries(&self) {
        let Ok(fd) = files::open_path(&self.root.join("tmp")) else { return };
        for name in files::names(&fd).unwrap_or_default() {
            let text = name.to_string_lossy();
            if text.starts_with("lock-") || owner_lives(&text) {
                continue;
            }
            let _ = files::remove_tree(fd.as_fd(), &name);
        }
    }
}
