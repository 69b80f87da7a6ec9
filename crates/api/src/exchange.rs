//! A server without a socket: a connection's bytes in, the answer's bytes out. For tests that ask what no
//! client sends, very often.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Options, Server, connection, prepared};
use crate::takeover;

/// See the module.
pub struct Exchange {
    runtime: tokio::runtime::Runtime,
    server: Server,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    /// Where it listens is of no matter.
    ///
    /// # Errors
    /// Those of the runtime.
    pub fn new(options: Options) -> io::Result<Self> {
        let (runtime, server) = prepared(options)?;
        Ok(Self { runtime, server })
    }

    /// What the server answers to these bytes; of an answer that goes on, what came within `patience`.
    pub fn ask(&self, bytes: &[u8], patience: Duration) -> Vec<u8> {
        let mut answer = Vec::new();
        self.runtime.block_on(async {
            let (client, theirs) = tokio::io::duplex(64 << 10);
            let server = self.server.clone();
            tokio::spawn(async move {
                if let Ok(stream) = takeover::begin(theirs).await {
                    connection(stream, server).await;
                }
            });
            let (mut input, mut output) = tokio::io::split(client);
            let talk = async {
                // It may answer, and close, before it has read all.
                let write = async {
                    let _ = output.write_all(bytes).await;
                    let _ = output.shutdown().await;
                };
                tokio::join!(write, input.read_to_end(&mut answer))
            };
            let _ = tokio::time::timeout(patience, talk).await;
        });
        answer
    }
}
