//! One HTTP exchange: agents with their certificates and proxies, redirects, errors with a cause.

use std::io::Read;

use ureq::http::{HeaderMap, Request, Response, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, Body, SendBody};

use crate::config::{Config, host_name};
use crate::handshake::TlsConnector;
use crate::proxy::Proxies;
use crate::tls::{self, Roots};
use crate::{Error, Result};

/// Most redirects that are followed.
const MOST_REDIRECTS: usize = 10;
/// Most bytes of an error's text that are read.
const MOST_ERROR: u64 = 64 << 10;

/// What a request carries.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    Stream(&'a mut dyn Read, u64),
}

/// A request without its authorization.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, String)],
    pub(crate) insecure: bool,
}

/// An answer whose body was not read yet.
pub(crate) struct Answer {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Answer {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body, at most `limit` bytes.
    pub(crate) fn bytes(mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = self.body.as_reader().take(limit.saturating_add(1));
        if let Err(e) = reader.read_to_end(&mut bytes) {
            return Err(Error::Connection {
                method: self.method,
                url: self.url,
                reason: e.to_string(),
                transient: true,
            });
        }
        if bytes.len() as u64 > limit {
            return Err(Error::protocol(self.url, format!("it is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Where the next request goes; relative to this one's address.
    pub(crate) fn location(&self) -> Option<String> {
        resolve(&self.url, self.header("location")?)
    }

    /// The error that a status other than success means; `what` names what was asked for.
    pub(crate) fn fail(self, what: &str) -> Error {
        let (method, url, status) = (self.method, self.url.clone(), self.status);
        let retry_after = self.header("retry-after").and_then(retry_after);
        let kind = self.header("content-type").unwrap_or_default().to_owned();
        let text = self.bytes(MOST_ERROR).unwrap_or_default();
        let message = message(&text, &kind);
        let or = |default: &str| message.clone().unwrap_or_else(|| default.to_owned());
        match status {
            401 => Error::Unauthorized { method, url, message: or("unauthorized") },
            403 => Error::Denied { method, url, message: or("denied") },
            404 => Error::NotFound { what: what.to_owned(), message: or("not found") },
            _ => Error::Status { method, url, status, message: or("no reason given"), retry_after },
        }
    }
}

/// What a registry says of an error: `{"errors":[{"code":…,"message":…}]}`, `{"details":…}`, or text.
fn message(body: &[u8], kind: &str) -> Option<String> {
    let clean = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
    };
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    if let Some(json) = json {
        let text = |v: &serde_json::Value, name: &str| {
            v.get(name).and_then(|v| v.as_str()).map(str::to_owned)
        };
        if let Some(first) = json.get("errors").and_then(|e| e.get(0)) {
            let code = text(first, "code").unwrap_or_default().to_lowercase().replace('_', " ");
            let said = text(first, "message").unwrap_or_default();
            return Some(clean(&match (code.is_empty(), said.is_empty()) {
                (false, false) => format!("{code}: {said}"),
                (false, true) => code,
                _ => said,
            }));
        }
        return text(&json, "details")
            .or_else(|| text(&json, "message"))
            .or_else(|| text(&json, "error"))
            .map(|t| clean(&t));
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let page = kind.contains("html") || text.starts_with('<');
    (!text.is_empty() && !page).then(|| clean(text))
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(seconds);
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    u64::try_from(at.as_second().saturating_sub(jiff::Timestamp::now().as_second()))
        .ok()
        .or(Some(0))
}

/// The address that `reference` means in a document from `base` (RFC 3986, section 5, without dot
/// segments, which registries do not send).
fn resolve(base: &str, reference: &str) -> Option<String> {
    if reference.starts_with("http://") || reference.starts_with("https://") {
        return Some(reference.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(rest) = reference.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let host_end = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_end);
    if reference.starts_with('/') {
        return Some(format!("{scheme}://{host}{reference}"));
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let directory = path.rfind('/').map_or("/", |at| path.get(..=at).unwrap_or("/"));
    Some(format!("{scheme}://{host}{directory}{reference}"))
}

/// `scheme://host:port` of an address.
pub(crate) fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// An agent for one host: with its certificates, its proxy, and connections that are used again.
pub(crate) fn agent(
    config: &Config,
    roots: &Roots,
    proxies: &Proxies,
    user_agent: &str,
    host: &str,
    https: bool,
    insecure: bool,
) -> Result<Agent> {
    let mut builder = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(user_agent)
        .accept_encoding("identity")
        .timeout_connect(Some(config.connect_timeout))
        .timeout_per_read(Some(config.read_timeout))
        .timeout_per_write(Some(config.read_timeout))
        .timeout_recv_response(Some(config.read_timeout))
        .input_buffer_size(256 << 10)
        .output_buffer_size(256 << 10)
        .max_idle_connections_per_host(config.max_downloads.max(config.max_uploads));
    let mut own = None;
    if https {
        let (library, settings) = tls::config(roots, &config.certificates, host, !insecure)?;
        builder = builder.tls_config(library);
        own = settings;
    }
    let scheme = if https { "https" } else { "http" };
    let port = host
        .strip_prefix(host_name(host))
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|port| port.parse().ok())
        .unwrap_or(if https { 443 } else { 80 });
    let proxy = match proxies.of(scheme, host_name(host), port) {
        Some(address) => {
            let with_scheme = if address.contains("://") {
                address.to_owned()
            } else {
                format!("http://{address}")
            };
            Some(ureq::Proxy::new(&with_scheme).map_err(|_| Error::Config {
                path: "HTTP_PROXY, HTTPS_PROXY".into(),
                reason: "not a proxy's address: expected http://HOST:PORT".to_owned(),
            })?)
        }
        None => None,
    };
    let config = builder.proxy(proxy).build();
    Ok(match own {
        Some(settings) => {
            let connector =
                ().chain(ConnectProxyConnector::default())
                    .chain(TcpConnector::default())
                    .chain(TlsConnector(settings));
            Agent::with_parts(config, connector, DefaultResolver::default())
        }
        None => config.new_agent(),
    })
}

/// Sends one request and waits for the head of the answer. Redirects are not followed.
pub(crate) fn exchange(
    agent: &Agent,
    ask: Ask<'_>,
    authorization: Option<&str>,
    payload: Payload<'_>,
) -> Result<Answer> {
    let Ask { method, url, headers, .. } = ask;
    let fail = |reason: String, transient| Error::Connection {
        method,
        url: url.to_owned(),
        reason,
        transient,
    };
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let bad = |e: ureq::http::Error| fail(e.to_string(), false);
    let sent = match payload {
        Payload::None if matches!(method, "GET" | "HEAD") => {
            agent.run(request.body(()).map_err(bad)?)
        }
        Payload::None => agent.run(request.body(&[] as &[u8]).map_err(bad)?),
        Payload::Bytes(bytes) => agent.run(request.body(bytes).map_err(bad)?),
        Payload::Stream(reader, size) => {
            let request = request.header("content-length", size.to_string());
            agent.run(request.body(SendBody::from_reader(reader)).map_err(bad)?)
        }
    };
    let response: Response<Body> = sent.map_err(|e| {
        let (reason, transient) = explain(&e);
        fail(reason, transient)
    })?;
    let (head, body) = response.into_parts();
    Ok(Answer {
        method,
        url: url.to_owned(),
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

/// How the reasons begin that are of the transport's security.
pub(crate) const TLS: &str = "tls: ";

/// Why a request failed, and whether it may succeed later.
fn explain(error: &ureq::Error) -> (String, bool) {
    use std::io::ErrorKind as Kind;
    match error {
        ureq::Error::Io(e) => match e.kind() {
            // Somebody who does not listen now will rarely do so in a second.
            Kind::ConnectionRefused => ("connection refused".to_owned(), false),
            Kind::InvalidData => (format!("{TLS}{e}"), false),
            // A resolver has tried for long before it says so.
            _ if e.to_string().contains("failed to lookup address") => (e.to_string(), false),
            _ => (e.to_string(), true),
        },
        // Each try costs the whole wait, and somebody waits for it.
        ureq::Error::Timeout(what @ (ureq::Timeout::Connect | ureq::Timeout::Resolve)) => (
            format!("no answer ({what:?} timeout): check the address, the network and the proxy"),
            false,
        ),
        ureq::Error::Timeout(what) => (format!("timeout ({what:?})"), true),
        ureq::Error::HostNotFound => ("no such host".to_owned(), false),
        ureq::Error::Rustls(e) => (format!("{TLS}{e}"), false),
        ureq::Error::Tls(e) => (format!("{TLS}{e}"), false),
        ureq::Error::ConnectProxyFailed(e) => (format!("the proxy refused: {e}"), false),
        ureq::Error::Protocol(e) => (e.to_string(), true),
        ureq::Error::ConnectionFailed => ("connection failed".to_owned(), true),
        other => (other.to_string(), false),
    }
}

/// Sends a request and follows redirects. The authorization goes only to the origin it is for.
pub(crate) fn follow(
    agent_of: &dyn Fn(&str, bool) -> Result<Agent>,
    ask: Ask<'_>,
    authorization: Option<&str>,
    payload: &mut Payload<'_>,
) -> Result<Answer> {
    let home = origin(ask.url);
    let mut url = ask.url.to_owned();
    for _ in 0..MOST_REDIRECTS {
        let https = url.starts_with("https://");
        let host = url
            .split_once("://")
            .and_then(|(_, rest)| rest.split(['/', '?', '#']).next())
            .unwrap_or_default()
            .to_owned();
        let agent = agent_of(&host, https)?;
        let same = home.is_some() && origin(&url) == home;
        let part = match payload {
            Payload::None => Payload::None,
            Payload::Bytes(bytes) => Payload::Bytes(bytes),
            Payload::Stream(reader, size) => Payload::Stream(&mut **reader, *size),
        };
        let answer =
            exchange(&agent, Ask { url: &url, ..ask }, authorization.filter(|_| same), part)?;
        let repeatable = matches!(payload, Payload::None | Payload::Bytes(_));
        let redirect = match answer.status {
            301..=303 => matches!(ask.method, "GET" | "HEAD"),
            307 | 308 => repeatable,
            _ => false,
        };
        if !redirect {
            return Ok(answer);
        }
        let Some(next) = answer.location() else {
            return Err(Error::protocol(url, "a redirect that does not say where to"));
        };
        if url.starts_with("https://") && !next.starts_with("https://") && !ask.insecure {
            return Err(Error::protocol(
                url,
                format!("a redirect to {next}, which is not encrypted"),
            ));
        }
        url = next;
    }
    Err(Error::protocol(url, "too many redirects"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let base = "https://a.example:5000/v2/x/blobs/uploads/1?s=1";
        for (given, want) in [
            ("http://b/c", "http://b/c"),
            ("//b/c", "https://b/c"),
            ("/v2/y", "https://a.example:5000/v2/y"),
            ("2?s=2", "https://a.example:5000/v2/x/blobs/uploads/2?s=2"),
        ] {
            assert_eq!(resolve(base, given).as_deref(), Some(want));
        }
        assert_eq!(origin(base), Some(("https".into(), "a.example".into(), 5000)));
    }

    #[test]
    fn what_registries_say() {
        let json =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(
            message(json, "application/json").as_deref(),
            Some("manifest unknown: manifest unknown")
        );
        assert_eq!(message(br#"{"details":"x\ny"}"#, "").as_deref(), Some("x y"));
        assert_eq!(message(b"<html>", "text/html"), None);
        assert_eq!(message(b"plain", "text/plain").as_deref(), Some("plain"));
        assert_eq!(retry_after("7"), Some(7));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0));
        assert_eq!(retry_after("soon"), None);
    }
}
