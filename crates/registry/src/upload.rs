//! Writing a blob: mounted from another repository where the registry can do that, else sent, in one request or
//! in chunks, and continued where it broke off. Distribution specification, "Pushing a blob".

use std::io::{self, Read};

use oci::manifest::Descriptor;

use crate::config::Endpoint;
use crate::http::{Answer, Payload};
use crate::repository::Repository;
use crate::{Error, Result};

/// Where the bytes of an upload come from.
pub trait Source {
    /// The bytes from `offset` on.
    ///
    /// # Errors
    /// Those of reading.
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

impl Source for &[u8] {
    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(Box::new(self.get(offset..).unwrap_or_default()))
    }
}

/// What an upload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// The repository had it.
    Existed,
    /// The registry took it from this repository of its own.
    Mounted(String),
    /// It was sent.
    Sent,
}

enum Found {
    Done(Uploaded),
    /// Perhaps with an upload that has begun.
    Missing(Option<String>),
}

/// Tells an error of the source from one of the connection.
struct Guarded<'a> {
    inner: Box<dyn Read + 'a>,
    failed: Option<io::Error>,
}

impl Read for Guarded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            self.failed = Some(error);
            copy
        })
    }
}

impl Repository<'_> {
    /// Sees to it that the repository has a blob. `mounts` are repositories of the same registry that may have
    /// it.
    ///
    /// # Errors
    /// Those of the connection and of `source`; a registry that refuses.
    pub fn upload(
        &self,
        blob: &Descriptor,
        mounts: &[String],
        source: &mut dyn Source,
    ) -> Result<Uploaded> {
        let endpoint = self.own()?;
        let mut location = match self.find(blob, mounts)? {
            Found::Done(done) => return Ok(done),
            Found::Missing(location) => location,
        };
        let mut restarts = 0;
        loop {
            let start = match location.take() {
                Some(start) => start,
                None => self.begin(endpoint)?,
            };
            match self.send_all(endpoint, blob, start, source) {
                Ok(()) => return Ok(Uploaded::Sent),
                // An upload that the registry forgot is begun anew.
                Err(error)
                    if error.is_not_found() && restarts < self.client.options().config.retries =>
                {
                    restarts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sees to it that the repository has a blob if that takes no sending: it has it, or the registry can
    /// take it from one of `mounts`.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn provide(&self, blob: &Descriptor, mounts: &[String]) -> Result<Option<Uploaded>> {
        match self.find(blob, mounts)? {
            Found::Done(done) => Ok(Some(done)),
            Found::Missing(None) => Ok(None),
            Found::Missing(Some(location)) => {
                // The upload that the registry began instead; one that stays is removed by it some day.
                let endpoint = self.own()?;
                let scopes = self.scopes(endpoint);
                let _ = self.client.call(
                    endpoint,
                    "DELETE",
                    &location,
                    &[],
                    &mut Payload::None,
                    &scopes,
                );
                Ok(None)
            }
        }
    }

    fn find(&self, blob: &Descriptor, mounts: &[String]) -> Result<Found> {
        if self.has_blob(&blob.digest)? {
            return Ok(Found::Done(Uploaded::Existed));
        }
        let endpoint = self.own()?;
        for from in mounts.iter().filter(|from| **from != endpoint.path) {
            let path = format!(
                "{}/blobs/uploads/?mount={}&from={}",
                endpoint.path,
                blob.digest,
                crate::token::encode(from)
            );
            let mut scopes = self.scopes(endpoint);
            scopes.push(format!("repository:{from}:pull"));
            let answer = match self.client.call_again(endpoint, "POST", &path, &[], None, &scopes) {
                Ok(answer) => answer,
                // We may not read there; then it is sent.
                Err(error) if error.is_refused() => continue,
                Err(error) => return Err(error),
            };
            match answer.status {
                201 => return Ok(Found::Done(Uploaded::Mounted(from.clone()))),
                202 => {
                    // The registry began an upload in its place.
                    return Ok(Found::Missing(answer.location()));
                }
                _ => {}
            }
        }
        Ok(Found::Missing(None))
    }

    fn begin(&self, endpoint: &Endpoint) -> Result<String> {
        let path = format!("{}/blobs/uploads/", endpoint.path);
        let scopes = self.scopes(endpoint);
        let answer = self.client.call_again(endpoint, "POST", &path, &[], None, &scopes)?;
        if answer.status != 202 {
            return Err(answer.fail("the repository"));
        }
        let url = answer.url.clone();
        answer.location().ok_or_else(|| Error::protocol(url, "no place for an upload"))
    }

    fn send_all(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        mut location: String,
        source: &mut dyn Source,
    ) -> Result<()> {
        let scopes = self.scopes(endpoint);
        let config = &self.client.options().config;
        let chunk = if config.chunk_size == 0 { u64::MAX } else { config.chunk_size };
        let mut offset = 0u64;
        let mut tries = 0;
        while offset < blob.size {
            let length = chunk.min(blob.size - offset);
            let sent = self.patch(endpoint, blob, &location, offset, length, source, &scopes);
            match sent {
                Ok(answer) => {
                    location = next(&answer).unwrap_or(location);
                    // It says how much it took; one that says nothing, or nonsense, took all. The digest
                    // at the end decides.
                    let all = offset.saturating_add(length);
                    offset = end_of_range(&answer).filter(|end| *end > offset).unwrap_or(all);
                    tries = 0;
                }
                Err(error) => {
                    if !self.client.wait_before_retry(tries, &error) {
                        return Err(error);
                    }
                    tries += 1;
                    // How far did it come?
                    let answer =
                        self.client.call_again(endpoint, "GET", &location, &[], None, &scopes)?;
                    match answer.status {
                        200..=299 => {
                            location = next(&answer).unwrap_or(location);
                            offset = end_of_range(&answer).unwrap_or(0).min(blob.size);
                        }
                        _ => {
                            return Err(Error::NotFound {
                                what: "upload".to_owned(),
                                message: "the registry forgot it".to_owned(),
                            });
                        }
                    }
                }
            }
        }
        let joint = if location.contains('?') { '&' } else { '?' };
        let url =
            format!("{location}{joint}digest={}", crate::token::encode(&blob.digest.to_string()));
        let answer = self.client.call_again(endpoint, "PUT", &url, &[], None, &scopes)?;
        match answer.status {
            200..=299 => Ok(()),
            // The first of two tries may have succeeded unheard.
            404 if self.has_blob(&blob.digest)? => Ok(()),
            _ => Err(answer.fail("the upload")),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one request with all that is in it")]
    fn patch(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        location: &str,
        offset: u64,
        length: u64,
        source: &mut dyn Source,
        scopes: &[String],
    ) -> Result<Answer> {
        let what = format!("reading the blob {}", blob.digest);
        let opened = source.open(offset).map_err(|e| Error::io(&*what, e))?;
        let mut reader = Guarded { inner: Box::new(opened.take(length)), failed: None };
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if offset > 0 || length < blob.size {
            headers.push(("content-range", format!("{offset}-{}", offset + length - 1)));
        }
        let mut payload = Payload::Stream(&mut reader, length);
        let sent = self.send(endpoint, "PATCH", location, &headers, &mut payload, scopes);
        if let Some(error) = reader.failed {
            return Err(Error::io(what, error));
        }
        let answer = sent?;
        match answer.status {
            200..=299 => Ok(answer),
            _ => Err(answer.fail("upload")),
        }
    }
}

fn next(answer: &Answer) -> Option<String> {
    answer.location()
}

/// One past the last byte that the registry has: `Range: 0-9` is 10.
fn end_of_range(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?.trim().trim_start_matches("bytes=");
    let last: u64 = range.split_once('-')?.1.trim().parse().ok()?;
    // An upload that has nothing says 0-0, as does one that has a byte: the shorter is safe where the
    // source can be read again.
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}
