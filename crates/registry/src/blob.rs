//! Reading a blob: a stream that goes on, at the byte, when the connection breaks.

use std::io::{self, Read};

use oci::Digest;
use oci::manifest::Descriptor;
use ureq::BodyReader;

use crate::config::Endpoint;
use crate::repository::Repository;
use crate::{Error, Result};

/// Bytes on one connection that count as progress.
const WORTH: u64 = 128 << 10;

/// A blob's bytes from an offset to its end. The length is checked here, the digest by whoever reads from the
/// start.
pub struct BlobReader<'r, 'c> {
    repository: &'r Repository<'c>,
    digest: Digest,
    size: u64,
    offset: u64,
    body: Option<BodyReader<'static>>,
    tries: u32,
    /// The offset at which the connection began.
    connected_at: u64,
}

impl std::fmt::Debug for BlobReader<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader")
            .field("digest", &self.digest)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl<'c> Repository<'c> {
    /// A blob's bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::NotFound`], those of the connection. While reading, errors of this crate travel inside
    /// I/O errors: see [`Error::inside`].
    pub fn blob<'r>(&'r self, descriptor: &Descriptor, offset: u64) -> Result<BlobReader<'r, 'c>> {
        let mut reader = BlobReader {
            repository: self,
            digest: descriptor.digest,
            size: descriptor.size,
            offset,
            body: None,
            tries: 0,
            connected_at: offset,
        };
        if offset < reader.size {
            reader.connect()?;
        }
        Ok(reader)
    }

    /// A whole small blob, its digest checked.
    ///
    /// # Errors
    /// As [`Repository::blob`]; [`Error::Digest`].
    pub fn blob_bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let what = format!("blob {}", descriptor.digest);
        if descriptor.size > limit {
            return Err(Error::protocol(what, format!("it is larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        self.blob(descriptor, 0)?.read_to_end(&mut bytes).map_err(|e| unwrap(&what, e))?;
        let mut hasher = descriptor.digest.hasher();
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != descriptor.digest {
            let (expected, actual) = (Box::new(descriptor.digest), Box::new(actual));
            return Err(Error::Digest { what, expected, actual });
        }
        Ok(bytes)
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let endpoint = self.own()?;
        let path = format!("{}/blobs/{digest}", endpoint.path);
        let scopes = self.scopes(endpoint);
        let answer = self.client.call_again(endpoint, "HEAD", &path, &[], None, &scopes)?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(answer.fail("the blob")),
        }
    }
}

/// Takes an error of this crate out of an I/O error again.
fn unwrap(what: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::io(what, source),
    }
}

impl BlobReader<'_, '_> {
    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }

    /// Opens the stream at the offset, at the first place that has the blob.
    fn connect(&mut self) -> Result<()> {
        let body = self.repository.each(|endpoint| {
            let client = self.repository.client;
            client.retrying(|| self.open(endpoint))
        })?;
        self.body = Some(body);
        self.connected_at = self.offset;
        Ok(())
    }

    fn open(&self, endpoint: &Endpoint) -> Result<BodyReader<'static>> {
        let path = format!("{}/blobs/{}", endpoint.path, self.digest);
        let scopes = self.repository.scopes(endpoint);
        let mut headers = Vec::new();
        if self.offset > 0 {
            headers.push(("range", format!("bytes={}-", self.offset)));
        }
        let client = self.repository.client;
        let answer = client.call(
            endpoint,
            "GET",
            &path,
            &headers,
            &mut crate::http::Payload::None,
            &scopes,
        )?;
        let url = answer.url.clone();
        match answer.status {
            206 if self.offset > 0 => {
                let range = answer.header("content-range").unwrap_or_default();
                if range_start(range) != Some(self.offset) {
                    let reason = format!("asked for byte {} on, it sent {range:?}", self.offset);
                    return Err(Error::protocol(url, reason));
                }
                Ok(answer.body.into_reader())
            }
            // It does not know ranges: what is known already is read past.
            200 => {
                if let Some(length) = answer.header("content-length").and_then(|l| l.parse().ok())
                    && length != self.size
                {
                    let (what, expected) = (self.what(), self.size);
                    return Err(Error::Length { what, expected, actual: length });
                }
                let mut body = answer.body.into_reader();
                let skipped = io::copy(&mut (&mut body).take(self.offset), &mut io::sink());
                if skipped.map_err(|e| self.broken(&url, &e))? < self.offset {
                    let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(self.broken(&url, &cut));
                }
                Ok(body)
            }
            _ => Err(answer.fail(&self.what())),
        }
    }

    fn broken(&self, url: &str, error: &io::Error) -> Error {
        Error::Connection {
            method: "GET",
            url: url.to_owned(),
            reason: format!(
                "the connection broke after {} of {} bytes: {error}",
                self.offset, self.size
            ),
            transient: true,
        }
    }
}

impl Read for BlobReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.offset >= self.size && self.body.is_none() {
                return Ok(0);
            }
            if self.body.is_none() {
                self.connect().map_err(io::Error::other)?;
            }
            let Some(body) = &mut self.body else { return Ok(0) };
            let problem = match body.read(buffer) {
                Ok(0) if self.offset >= self.size => {
                    self.body = None;
                    return Ok(0);
                }
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(n) => {
                    self.offset = self.offset.saturating_add(n as u64);
                    if self.offset > self.size {
                        let (what, expected) = (self.what(), self.size);
                        let error = Error::Length { what, expected, actual: self.offset };
                        return Err(io::Error::other(error));
                    }
                    // Tries are counted from the last progress worth the name: a connection that
                    // brings a few bytes each time would never end.
                    if self.offset.saturating_sub(self.connected_at) >= WORTH {
                        self.tries = 0;
                    }
                    return Ok(n);
                }
                Err(e) => e,
            };
            self.body = None;
            if self.offset >= self.size {
                // Everything came; how the connection ended does not matter.
                return Ok(0);
            }
            let what = self.what();
            let error = self.broken(&what, &problem);
            if !self.repository.client.wait_before_retry(self.tries, &error) {
                return Err(io::Error::other(error));
            }
            self.tries = self.tries.saturating_add(1);
        }
    }
}

/// The first byte in `bytes 5-9/10`.
fn range_start(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges() {
        assert_eq!(super::range_start("bytes 5-9/10"), Some(5));
        assert_eq!(super::range_start("bytes */10"), None);
        assert_eq!(super::range_start("5-9"), None);
    }
}
