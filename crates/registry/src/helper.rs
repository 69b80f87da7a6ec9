//! Credential helpers: programs `docker-credential-NAME` that keep secrets, spoken to by JSON.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::credentials::TOKEN_USER;
use crate::{Credential, Error, Result};

/// Largest answer, in bytes.
const MOST: u64 = 1 << 20;
/// What helpers print for a server they know nothing of.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// One helper.
pub(crate) struct Helper {
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL")]
    server: String,
    username: String,
    secret: String,
}

impl Helper {
    pub(crate) fn new(name: &str) -> Helper {
        Helper { name: name.to_owned() }
    }

    fn fail(&self, reason: impl Into<String>) -> Error {
        Error::Helper { name: self.name.clone(), reason: reason.into() }
    }

    fn run(&self, verb: &str, input: &[u8]) -> Result<(bool, Vec<u8>)> {
        if self.name.contains('/') {
            return Err(self.fail("its name must not contain a slash"));
        }
        let mut child = Command::new(format!("docker-credential-{}", self.name))
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => self.fail("not found in PATH: install it, or remove it from credsStore or credHelpers in Docker's config.json"),
                _ => self.fail(e.to_string()),
            })?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its input is judged by its exit code.
            let _ = stdin.write_all(input);
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST).read_to_end(&mut output).map_err(|e| self.fail(e.to_string()))?;
        }
        let status = child.wait().map_err(|e| self.fail(e.to_string()))?;
        Ok((status.success(), output))
    }

    fn text(output: &[u8]) -> String {
        String::from_utf8_lossy(output).trim().chars().take(400).collect()
    }

    /// The credential for a server.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Credential>> {
        let (ok, output) = self.run("get", server.as_bytes())?;
        if !ok {
            let text = Self::text(&output);
            if text.contains(NOT_FOUND) {
                return Ok(None);
            }
            return Err(self.fail(text));
        }
        let entry: Entry = serde_json::from_slice(&output)
            .map_err(|e| self.fail(format!("its answer is no JSON: {e}")))?;
        Ok(Some(if entry.username == TOKEN_USER {
            Credential::Identity(entry.secret)
        } else {
            Credential::Password { username: entry.username, password: entry.secret }
        }))
    }

    /// Keeps a credential.
    pub(crate) fn store(&self, server: &str, credential: &Credential) -> Result<()> {
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.clone(), password.clone()),
            Credential::Identity(token) => (TOKEN_USER.to_owned(), token.clone()),
        };
        let entry = Entry { server: server.to_owned(), username, secret };
        let input = serde_json::to_vec(&entry).unwrap_or_default();
        match self.run("store", &input)? {
            (true, _) => Ok(()),
            (false, output) => Err(self.fail(Self::text(&output))),
        }
    }

    /// Forgets a credential.
    pub(crate) fn erase(&self, server: &str) -> Result<()> {
        match self.run("erase", server.as_bytes())? {
            (true, _) => Ok(()),
            (false, output) if Self::text(&output).contains(NOT_FOUND) => Ok(()),
            (false, output) => Err(self.fail(Self::text(&output))),
        }
    }
}
