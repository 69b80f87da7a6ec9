//! A request and its answer.

use std::cell::{OnceCell, RefCell};
use std::io::{self, BufRead, BufReader, Read};

use engine::{Error, ErrorKind, Filters, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::{Host, Tls};
use crate::http::{self, Body, Head, Payload, Wire};
use crate::stream::Stream;

/// The newest minor version of the API that is spoken here.
const NEWEST: u32 = 51;
/// What an engine speaks that does not say: all of them since 1.24 have said more.
const OLDEST: u32 = 24;
/// The largest JSON document that is read, in bytes.
const MAX_JSON: u64 = 256 << 20;

/// An engine elsewhere.
#[derive(Debug)]
pub struct Remote {
    host: Host,
    tls: Option<Tls>,
    /// A connection that serves again.
    idle: RefCell<Option<Wire>>,
    version: OnceCell<u32>,
}

/// The part of a request's target behind the question mark.
pub(crate) struct Query(form_urlencoded::Serializer<'static, String>);

impl Query {
    pub(crate) fn new() -> Self {
        Self(form_urlencoded::Serializer::new(String::new()))
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        self.0.append_pair(name, value);
        self
    }

    /// Left out where it is absent or empty.
    pub(crate) fn option(self, name: &str, value: Option<&str>) -> Self {
        match value.filter(|v| !v.is_empty()) {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    pub(crate) fn flag(self, name: &str, on: bool) -> Self {
        if on { self.text(name, "1") } else { self }
    }

    pub(crate) fn filters(self, filters: &Filters) -> Self {
        if filters.is_empty() {
            return self;
        }
        let text = serde_json::to_string(filters).unwrap_or_default();
        self.text("filters", &text)
    }

    fn finish(mut self) -> String {
        self.0.finish()
    }
}

/// One part of a path; slashes in it stay what they are only where names have them.
pub(crate) fn part(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What an error is, by its status.
fn kind(status: u16) -> ErrorKind {
    match status {
        304 => ErrorKind::NotModified,
        400 => ErrorKind::Invalid,
        401 | 403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        501 => ErrorKind::Unsupported,
        _ => ErrorKind::System,
    }
}

/// An error's message as the engine says it.
#[derive(Deserialize)]
struct Said {
    message: String,
}

impl Remote {
    /// Nothing is asked yet, and nobody connected to.
    pub fn new(host: Host, tls: Option<Tls>) -> Self {
        Self { host, tls, idle: RefCell::new(None), version: OnceCell::new() }
    }

    /// Where it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    fn dial(&self) -> Result<Wire> {
        Ok(Wire::new(Stream::dial(&self.host, self.tls.as_ref())?))
    }

    fn lost(&self, e: io::Error) -> Error {
        let text = e.to_string();
        let why = text.split(" (os error").next().unwrap_or_default();
        Error::new(
            ErrorKind::System,
            format!("error during connect: the engine at {}: {why}", self.host),
        )
    }

    /// Minor version of the API that both speak.
    pub(crate) fn version_number(&self) -> Result<u32> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let mut wire = self.dial()?;
        let sent = http::send(&mut wire.stream, "GET", "/_ping", &[], Payload::Nothing);
        let head = wire.head().map_err(|e| self.lost(sent.err().unwrap_or(e)))?;
        let theirs = head.header("api-version").and_then(|v| v.strip_prefix("1.")?.parse().ok());
        let version = theirs.unwrap_or(OLDEST).clamp(OLDEST, NEWEST);
        self.idle.replace(Body::new(wire, &head, false).finish());
        Ok(*self.version.get_or_init(|| version))
    }

    /// Sends a request; the head of the answer, whatever its status, and the body.
    fn exchange(
        &self,
        method: &str,
        path: &str,
        query: Query,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<(Head, Body)> {
        let version = self.version_number()?;
        let query = query.finish();
        let mark = if query.is_empty() { "" } else { "?" };
        let target = format!("/v1.{version}{path}{mark}{query}");
        let (mut wire, payload) = match (self.idle.take(), payload) {
            // One that lay idle may be closed by now, which is noticed too late for a request that can't
            // be sent twice.
            (Some(mut wire), payload @ (Payload::Nothing | Payload::Json(_))) => {
                let again = match &payload {
                    Payload::Json(bytes) => Payload::Json(bytes.clone()),
                    _ => Payload::Nothing,
                };
                let sent = http::send(&mut wire.stream, method, &target, headers, payload);
                match sent.and_then(|()| wire.head()) {
                    Ok(head) => {
                        let body = Body::new(wire, &head, method == "HEAD");
                        return Ok((head, body));
                    }
                    Err(e) if matches!(method, "GET" | "HEAD") || gone_before(&e) => {}
                    Err(e) => return Err(self.lost(e)),
                }
                (self.dial()?, again)
            }
            (_, payload) => (self.dial()?, payload),
        };
        // An engine that refuses a long body says so before it has read it all.
        let sent = http::send(&mut wire.stream, method, &target, headers, payload);
        let head = wire.head().map_err(|e| self.lost(sent.err().unwrap_or(e)))?;
        let body = Body::new(wire, &head, method == "HEAD");
        Ok((head, body))
    }

    /// The error that an answer is, if it is one.
    fn checked(&self, head: Head, body: Body) -> Result<(Head, Body)> {
        if head.status < 300 || head.status == 101 {
            return Ok((head, body));
        }
        let mut text = String::new();
        let mut body = body;
        let _ = body.by_ref().take(1 << 20).read_to_string(&mut text);
        self.idle.replace(body.finish());
        let message = match serde_json::from_str::<Said>(&text) {
            Ok(said) => said.message.trim().to_owned(),
            Err(_) if head.status == 304 => "nothing to be done".to_owned(),
            Err(_) => {
                format!("the engine at {} answered {}: {}", self.host, head.status, text.trim())
            }
        };
        Err(Error::new(kind(head.status), message))
    }

    /// Sends a request; an error's answer is an error.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        query: Query,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<(Head, Body)> {
        let (head, body) = self.exchange(method, path, query, headers, payload)?;
        self.checked(head, body)
    }

    /// As [`Remote::ask`] on a connection of its own, which the answer keeps.
    pub(crate) fn ask_apart(
        &self,
        method: &str,
        path: &str,
        query: Query,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<(Head, Body)> {
        self.version_number()?;
        let idle = self.idle.take();
        let answer = self.ask(method, path, query, headers, payload);
        if idle.is_some() {
            self.idle.replace(idle);
        }
        answer
    }

    /// Asks for nothing but that it is done.
    pub(crate) fn done(&self, method: &str, path: &str, query: Query) -> Result<()> {
        let (_, body) = self.ask(method, path, query, &[], Payload::Nothing)?;
        self.idle.replace(body.finish());
        Ok(())
    }

    /// The answer's JSON.
    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        query: Query,
        payload: Payload<'_>,
    ) -> Result<T> {
        let (_, body) = self.ask(method, path, query, &[], payload)?;
        self.read_json(body)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str, query: Query) -> Result<T> {
        self.json("GET", path, query, Payload::Nothing)
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query,
        body: &impl Serialize,
    ) -> Result<T> {
        self.json("POST", path, query, payload(body)?)
    }

    /// Reads a whole body; where JSON has `null`, a field is as if it were absent.
    pub(crate) fn read_json<T: DeserializeOwned>(&self, mut body: Body) -> Result<T> {
        let mut bytes = Vec::new();
        body.by_ref().take(MAX_JSON).read_to_end(&mut bytes).map_err(|e| self.lost(e))?;
        self.idle.replace(body.finish());
        self.parse(&bytes)
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        let failed = |e: serde_json::Error| {
            Error::new(
                ErrorKind::System,
                format!("the engine at {} answered what is not understood: {e}", self.host),
            )
        };
        let text = if bytes.iter().all(u8::is_ascii_whitespace) { b"null" } else { bytes };
        let mut value: Value = serde_json::from_slice(text).map_err(failed)?;
        drop_nulls(&mut value);
        serde_json::from_value(value).map_err(failed)
    }

    /// Copies a whole body.
    pub(crate) fn copy_body(&self, mut body: Body, out: &mut dyn io::Write) -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => out
                    .write_all(buffer.get(..count).unwrap_or_default())
                    .map_err(|e| Error::system("cannot write what the engine sends", e))?,
                Err(e) => return Err(self.lost(e)),
            }
        }
        self.idle.replace(body.finish());
        Ok(())
    }

    /// Reads a body's lines of JSON; until `sink` says false.
    pub(crate) fn lines<T: DeserializeOwned>(
        &self,
        body: Body,
        sink: &mut dyn FnMut(T) -> Result<bool>,
    ) -> Result<()> {
        let mut lines = BufReader::with_capacity(64 << 10, body);
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = lines.by_ref().take(MAX_JSON).read_until(b'\n', &mut line);
            if count.map_err(|e| self.lost(e))? == 0 {
                self.idle.replace(lines.into_inner().finish());
                return Ok(());
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if !sink(self.parse(&line)?)? {
                return Ok(());
            }
        }
    }

    pub(crate) fn keep(&self, body: Body) {
        self.idle.replace(body.finish());
    }
}

/// The other side had closed before the request came.
fn gone_before(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

/// A value as a request's body.
pub(crate) fn payload(body: &impl Serialize) -> Result<Payload<'static>> {
    serde_json::to_vec(body)
        .map(Payload::Json)
        .map_err(|e| Error::system("the request can't be written as JSON", e))
}

/// Takes out every field that is `null`; types fill it with what it is when it is absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_nulls() {
        assert_eq!(part("a b/c?d%"), "a%20b/c%3Fd%25");
        let mut value = serde_json::json!({"a": null, "b": [null, {"c": null}], "d": 1});
        drop_nulls(&mut value);
        assert_eq!(value, serde_json::json!({"b": [null, {}], "d": 1}));
    }
}
