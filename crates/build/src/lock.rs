//! `--lock`: what a build takes from elsewhere, by digest.
//!
//! The first build writes the file; those after it use what it says and nothing else.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};

/// `--lock`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    /// The file.
    pub path: PathBuf,
    /// It is written anew with what is there now.
    pub update: bool,
}

/// What was taken from elsewhere before the build began: its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// A commit of a repository.
    Commit {
        /// The repository and its reference.
        address: String,
        /// In full.
        commit: String,
    },
    /// What an address gave.
    Url {
        /// The address.
        address: String,
        /// Digest of the content.
        digest: String,
    },
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockedImage {
    /// The digest of its configuration.
    pub(crate) id: String,
    /// The name by which a registry gives just this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
}

/// What the file says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// By name and platform.
    #[serde(default)]
    images: BTreeMap<String, LockedImage>,
    /// Digests of contents by address.
    #[serde(default)]
    urls: BTreeMap<String, String>,
    /// Commits by address and branch.
    #[serde(default)]
    git: BTreeMap<String, String>,
}

/// The lock of a build.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    /// Nothing else may be used.
    locked: bool,
    contents: Mutex<Contents>,
}

impl Lock {
    /// Reads the file if it is there.
    pub(crate) fn open(file: &LockFile) -> Result<Self> {
        let path = file.path.clone();
        let (there, contents) = match std::fs::read(&path) {
            Ok(text) => {
                let contents: Contents = serde_json::from_slice(&text).map_err(|error| {
                    let path = path.display();
                    Error::Invalid(format!(
                        "{path} is no lock file: {error}; remove it to have it written anew"
                    ))
                })?;
                (true, contents)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => (false, Contents::default()),
            Err(error) => return Err(io(|| format!("reading {}", path.display()))(error)),
        };
        if contents.version > 1 {
            let path = path.display();
            return Err(Error::Invalid(format!("{path} is of a later version of wherry")));
        }
        Ok(Self { path, locked: there && !file.update, contents: Mutex::new(contents) })
    }

    fn missing(&self, what: &str) -> Error {
        Error::Invalid(format!(
            "{what} is not in the lock file {}: build with --lock-update to take it in",
            self.path.display()
        ))
    }

    pub(crate) fn differs(&self, what: &str, locked: &str, found: &str) -> Error {
        Error::Invalid(format!(
            "{what} is locked to {locked} by {}, but is {found} now: build with --lock-update to use that",
            self.path.display()
        ))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Contents) -> T) -> T {
        f(&mut self.contents.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The image that must be used; None if any may be.
    pub(crate) fn image(&self, name: &str) -> Result<Option<LockedImage>> {
        if !self.locked {
            return Ok(None);
        }
        let found = self.with(|contents| contents.images.get(name).cloned());
        found.map(Some).ok_or_else(|| self.missing(name))
    }

    /// The commit that must be used; None if any may be.
    pub(crate) fn commit(&self, address: &str) -> Result<Option<String>> {
        if !self.locked {
            return Ok(None);
        }
        let found = self.with(|contents| contents.git.get(address).cloned());
        found.map(Some).ok_or_else(|| self.missing(address))
    }

    /// Fails if the content of an address is not what it must be.
    pub(crate) fn url(&self, url: &str, digest: &str) -> Result<()> {
        if !self.locked {
            self.with(|contents| contents.urls.insert(url.to_owned(), digest.to_owned()));
            return Ok(());
        }
        let found = self.with(|contents| contents.urls.get(url).cloned());
        match found {
            None => Err(self.missing(url)),
            Some(locked) if locked != digest => Err(self.differs(url, &locked, digest)),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn note(&self, taken: &Taken) -> Result<()> {
        match taken {
            Taken::Commit { address, commit } => {
                self.note_commit(address.clone(), commit.clone());
                Ok(())
            }
            Taken::Url { address, digest } => self.url(address, digest),
        }
    }

    pub(crate) fn note_image(&self, name: String, image: LockedImage) {
        if !self.locked {
            self.with(|contents| contents.images.insert(name, image));
        }
    }

    pub(crate) fn note_commit(&self, address: String, commit: String) {
        if !self.locked {
            self.with(|contents| contents.git.insert(address, commit));
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what was used, unless it was given.
    pub(crate) fn save(&self) -> Result<()> {
        if self.locked {
            return Ok(());
        }
        let what = || format!("writing {}", self.path.display());
        let text = self.with(|contents| {
            contents.version = 1;
            serde_json::to_string_pretty(contents)
        });
        let text = text.map_err(|error| Error::Invalid(format!("{}: {error}", what())))?;
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = self.path.with_file_name(name);
        std::fs::write(&temporary, text + "\n").map_err(io(what))?;
        let renamed = std::fs::rename(&temporary, &self.path).map_err(io(what));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        renamed
    }
}
