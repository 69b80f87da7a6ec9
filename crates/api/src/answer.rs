//! Answers, and how errors become them.

use bytes::Bytes;
use engine::ErrorKind;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// The body of every answer.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// An answer.
pub(crate) type Answer = Response<Body>;

/// What a resource's function returns.
pub(crate) type Outcome = Result<Answer, Failure>;

/// A failure: Docker's status and message.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What no function answers.
    pub(crate) fn no_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    pub(crate) fn answer(self) -> Answer {
        if self.status == StatusCode::NOT_MODIFIED {
            return empty(self.status);
        }
        #[derive(Serialize)]
        struct Message {
            message: String,
        }
        json_with(self.status, &Message { message: self.message })
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let status = match error.kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            // A program that isn't there is the request's mistake, as Docker sees it.
            ErrorKind::Invalid | ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable => {
                StatusCode::BAD_REQUEST
            }
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.message)
    }
}

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Self {
        engine::Error::from(error).into()
    }
}

impl From<oci::Error> for Failure {
    fn from(error: oci::Error) -> Self {
        engine::Error::from(error).into()
    }
}

/// A whole body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// An answer with a body of this type.
pub(crate) fn with(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    if !content_type.is_empty() {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    answer
}

/// No body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    with(status, "", full(Bytes::new()))
}

/// Plain text.
pub(crate) fn text(text: impl Into<Bytes>) -> Answer {
    with(StatusCode::OK, "text/plain; charset=utf-8", full(text))
}

/// A JSON document.
pub(crate) fn json<T: Serialize>(value: &T) -> Answer {
    json_with(StatusCode::OK, value)
}

/// A JSON document, changed to what an older version has.
pub(crate) fn json_of<T: Serialize>(
    value: &T,
    version: u32,
    change: fn(&mut serde_json::Value, u32),
) -> Answer {
    if version >= crate::versions::AS_IT_IS {
        return json(value);
    }
    match serde_json::to_value(value) {
        Ok(mut document) => {
            change(&mut document, version);
            json(&document)
        }
        // It says why.
        Err(_) => json(value),
    }
}

/// A JSON document with another status.
pub(crate) fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            // As Go's encoder ends it; people read it in terminals.
            bytes.push(b'\n');
            with(status, "application/json", full(bytes))
        }
        Err(e) => with(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain; charset=utf-8",
            full(format!("the answer cannot be written as JSON: {e}")),
        ),
    }
}

/// Adds a header; a value that can't be one is left out.
pub(crate) fn header(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
    answer
}
