//! An image of an archive that is elsewhere: what comes over HTTP is read while it comes, so that it is written once.

use std::io::{self, PipeReader, Read};
use std::sync::mpsc::{self, Receiver};

use registry::Client;

use crate::engine::{Engine, ImportOptions, Progress};
use crate::error::{Error, Result};

/// The end of a pipe that a download fills. Where the download fails, so does reading, and not with the end of
/// the file: half an archive may look like a whole one.
struct Fetching {
    pipe: PipeReader,
    outcome: Receiver<registry::Result<()>>,
}

impl Read for Fetching {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.pipe.read(bytes)?;
        if read == 0
            && !bytes.is_empty()
            && let Ok(Err(error)) = self.outcome.recv()
        {
            return Err(io::Error::other(error.to_string()));
        }
        Ok(read)
    }
}

impl Engine {
    /// As [`Engine::import`], of what an `http` or `https` address answers with.
    ///
    /// # Errors
    /// Those of the download; those of the archive.
    pub fn import_url(
        &self,
        client: &Client,
        url: &str,
        mut options: ImportOptions,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        if options.message.is_empty() {
            options.message = format!("Imported from {url}");
        }
        let (pipe, mut filled) = io::pipe().map_err(|e| Error::system("import", e))?;
        let (send, outcome) = mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let downloaded = client.download(url, &mut filled).map(drop);
                // Said before the pipe's end is seen.
                let _ = send.send(downloaded);
                drop(filled);
            });
            // Dropped when it is through, so that nobody goes on writing.
            let mut archive = Fetching { pipe, outcome };
            let imported = self.import(&mut archive, options, progress);
            drop(archive);
            imported
        })
    }
}
