//! Cache keys: a digest of what a step does and of the content it reads, never of times.

use oci::digest::Hasher;
use oci::{DiffId, Digest};

/// A key under way. Each part is written with its length, so that no two lists of parts are alike.
#[derive(Debug)]
pub(crate) struct Key(Hasher);

impl Key {
    /// For one kind of step. The number changes when the same step would make another layer.
    pub(crate) fn new(kind: &str) -> Self {
        let mut key = Self(Hasher::sha256());
        key.put("wherry build 2").put(kind);
        key
    }

    pub(crate) fn put(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn list<T: AsRef<[u8]>>(&mut self, parts: impl IntoIterator<Item = T>) -> &mut Self {
        let parts: Vec<T> = parts.into_iter().collect();
        self.put((parts.len() as u64).to_le_bytes());
        for part in parts {
            self.put(part);
        }
        self
    }

    pub(crate) fn layers(&mut self, layers: &[DiffId]) -> &mut Self {
        self.list(layers.iter().map(DiffId::to_string))
    }

    pub(crate) fn digest(&mut self, digest: Digest) -> &mut Self {
        self.put(digest.to_string())
    }

    pub(crate) fn finish(self) -> String {
        self.0.finish().hex()
    }
}
