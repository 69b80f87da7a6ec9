//! What a request says: its path, query, headers and body.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use engine::Filters;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::answer::Failure;

/// The largest JSON body; Docker's own bound is 4 MiB for some and none for others.
const MAX_JSON: usize = 8 << 20;

/// How much of what a client sends and nobody wants is read and forgotten, and for how long.
pub(crate) const FORGOTTEN: usize = 256 << 10;
pub(crate) const FORGETTING: Duration = Duration::from_secs(5);

/// A request's body. What is left of it when it is dropped is read in the background, within bounds: the
/// connection of one who is still sending would be cut, and many clients then never look at the answer.
#[derive(Debug)]
pub(crate) struct Unread(Option<Incoming>);

impl Unread {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(FORGETTING, forget(body)));
    }
}

async fn forget(mut body: Incoming) {
    let mut left = FORGOTTEN;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(fewer) = left.checked_sub(length) else { return };
        left = fewer;
    }
}

/// A request whose path was taken apart.
pub(crate) struct Request {
    /// The request, whose body nobody has read yet.
    pub(crate) inner: hyper::Request<Unread>,
    /// Parts of the path without the version, percent-decoded.
    pub(crate) path: Vec<String>,
    /// Minor version of the API that the client speaks: 51 for 1.51.
    pub(crate) version: u32,
    query: Query,
}

/// The parameters after the question mark.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    /// Never fails: what can't be decoded is replaced.
    pub(crate) fn parse(text: &str) -> Self {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            map.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Self(map)
    }

    /// The first value; `None` where it is absent or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str).filter(|v| !v.is_empty())
    }

    /// All values.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// As Docker reads it: everything is true but nothing, `0`, `no`, `false` and `none`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// As `flag`; where the parameter is absent, `default`.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.0.get(name).and_then(|values| values.first()) {
            None => default,
            Some(value) => !matches!(
                value.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            ),
        }
    }

    /// A whole number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Failure::invalid(format!("{name}: {text:?} is not a number in its range"))
                })
            })
            .transpose()
    }

    /// The JSON in `filters`: `{"name": ["a", "b"]}`, or the old `{"name": {"a": true}}`.
    pub(crate) fn filters(&self) -> Result<Filters, Failure> {
        let Some(text) = self.text("filters") else { return Ok(Filters::new()) };
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Set(BTreeMap<String, bool>),
        }
        let parsed: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|e| Failure::invalid(format!("invalid filter: {e}")))?;
        let values = |values| match values {
            Values::List(list) => list,
            Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect(),
        };
        Ok(parsed.into_iter().map(|(name, v)| (name, values(v))).collect())
    }
}

impl Request {
    /// Takes a request apart.
    pub(crate) fn new(inner: hyper::Request<Unread>) -> Result<Self, Failure> {
        let (version, path) = split(inner.uri().path())?;
        let query = Query::parse(inner.uri().query().unwrap_or_default());
        Ok(Self { inner, path, version, query })
    }

    pub(crate) fn method(&self) -> &Method {
        self.inner.method()
    }

    pub(crate) fn query(&self) -> &Query {
        &self.query
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// The whole body, which must be small.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes, Failure> {
        let body = Limited::new(self.inner.body_mut(), MAX_JSON);
        match body.collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(e) => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                format!("the request's body can't be read (at most {MAX_JSON} bytes): {e}"),
            )),
        }
    }

    /// The body as JSON. `None` where there is none.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let content = self.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        let bytes = self.bytes().await?;
        if bytes.iter().all(u8::is_ascii_whitespace) || &bytes[..] == b"null" {
            return Ok(None);
        }
        let kind = content.split(';').next().unwrap_or_default().trim();
        if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/json") {
            return Err(Failure::invalid(format!(
                "unsupported Content-Type header ({content}): must be 'application/json'"
            )));
        }
        parse(&bytes).map(Some)
    }

    /// The body as JSON, which must be there.
    pub(crate) async fn required<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        match self.json().await? {
            Some(value) => Ok(value),
            None => Err(Failure::invalid("invalid JSON: got EOF while reading request body")),
        }
    }
}

/// A JSON document of a client.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|e| Failure::invalid(format!("invalid JSON: {e}")))
}

/// Version and parts of a path.
pub(crate) fn split(path: &str) -> Result<(u32, Vec<String>), Failure> {
    let rest = path.trim_start_matches('/');
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    let versioned = first.strip_prefix('v').filter(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    let Some(version) = versioned else { return Ok((newest(), parts(rest))) };
    let oldest: u32 = minor(engine::info::MIN_API_VERSION).unwrap_or(0);
    let numbers = |version: &str| {
        let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    // Of versions whose first number is not 1, no minor number means anything.
    let asked = numbers(version).map(|(major, minor)| match major {
        0 => 0,
        1 => minor,
        _ => u32::MAX,
    });
    match asked {
        Some(minor) if minor < oldest => Err(Failure::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {}, please \
             upgrade your client to a newer version",
            engine::info::MIN_API_VERSION
        ))),
        Some(minor) if minor > newest() => Err(Failure::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            engine::info::API_VERSION
        ))),
        Some(minor) => Ok((minor, parts(after))),
        None => Err(Failure::no_page()),
    }
}

fn newest() -> u32 {
    minor(engine::info::API_VERSION).unwrap_or(0)
}

/// The 51 of `1.51`.
pub(crate) fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.parse().ok()
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').map(decode).collect()
}

/// Percent-decoded; a plus stays a plus, as this is no query.
fn decode(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|b| (*b as char).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let split = |path| split(path).unwrap();
        assert_eq!(split("/v1.41/containers/json"), (41, parts("containers/json")));
        assert_eq!(split("/_ping"), (51, parts("_ping")));
        assert_eq!(split("/images/a%2fb%3A1/json").1, ["images", "a/b:1", "json"]);
        assert_eq!(split("/volumes/v1/x").1, ["volumes", "v1", "x"]);
        // A name that looks like a version is one only in front.
        assert_eq!(split("/volumes/v1.41").1, ["volumes", "v1.41"]);
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert!(super::split("/v1.23/info").unwrap_err().message.contains("too old"));
        assert!(super::split("/v1.99/info").unwrap_err().message.contains("too new"));
        assert!(super::split("/v2/info").unwrap_err().message.contains("version 2 is too new"));
        assert!(super::split("/v9.99/info").unwrap_err().message.contains("9.99 is too new"));
        assert!(super::split("/v0.1/info").unwrap_err().message.contains("too old"));
        assert!(super::split("/v1.2.3/info").unwrap_err().message.contains("page not found"));
    }

    #[test]
    fn queries() {
        let query = Query::parse(
            "a=1&b=&c=false&d=True&t=x&t=y&filters=%7B%22label%22%3A%7B%22k%3Dv%22%3Atrue%7D%7D",
        );
        assert!(query.flag("a") && query.flag("d") && !query.flag("b") && !query.flag("c"));
        assert!(!query.flag("z") && query.flag_or("z", true));
        assert_eq!(query.all("t"), ["x", "y"]);
        assert_eq!(query.filters().unwrap()["label"], ["k=v"]);
        assert_eq!(query.number::<u8>("a").unwrap(), Some(1));
        assert!(query.number::<u8>("t").is_err());
        assert!(Query::parse("filters=%7B").filters().is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(path: String, query: String) {
            let _ = super::split(&path);
            let query = Query::parse(&query);
            let _ = query.filters();
        }
    }
}
