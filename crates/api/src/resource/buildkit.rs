//! `/grpc`, where clients with the plugin buildx look for a BuildKit.
//!
//! There is none. A refusal of the request would have them fetch a BuildKit as an image and build in a container, without
//! a word of why; so the connection is taken over, and each call on it is answered with what helps.

use std::convert::Infallible;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::answer::{self, Answer, Failure, Outcome};
use crate::hijack::{self, Connection, Line};
use crate::request::Request;
use crate::server::Server;

/// What is told to whoever asks for a BuildKit, in characters that a gRPC status carries as they are.
const REMEDY: &str = "this engine builds without BuildKit: set DOCKER_BUILDKIT=0";

/// A path that is BuildKit's alone.
pub(crate) fn none() -> Outcome {
    Err(Failure::new(StatusCode::NOT_IMPLEMENTED, REMEDY))
}

/// Takes the connection over for HTTP/2, when that is asked for.
pub(crate) fn calls(mut request: Request, server: &Server) -> Outcome {
    let h2c = |value: &str| value.eq_ignore_ascii_case("h2c");
    if !request.header("upgrade").is_some_and(h2c) {
        return none();
    }
    let (channel, answer) = hijack::open(&mut request, hijack::RAW);
    let open = server.open.one();
    tokio::spawn(async move {
        let _open = open;
        if let Ok(Line::Connection(connection)) = channel.ready().await {
            refuse(connection).await;
        }
    });
    Ok(answer)
}

/// Answers each call on a connection until the client leaves.
async fn refuse(connection: impl Connection + 'static) {
    let service = service_fn(async |_| Ok::<_, Infallible>(unimplemented()));
    // A client that goes in the middle is no failure of ours.
    let _ = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(16)
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

/// A call's whole answer: the status, and no message before it.
fn unimplemented() -> Answer {
    const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
    let mut answer = Response::new(answer::full(Bytes::new()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", UNIMPLEMENTED);
    headers.insert("grpc-message", HeaderValue::from_static(REMEDY));
    answer
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http2::handshake;
    use hyper::{Method, Request};

    use super::*;

    #[tokio::test]
    async fn a_call_is_told_what_helps() {
        let (client, server) = tokio::io::duplex(64 << 10);
        tokio::spawn(refuse(server));
        let (mut sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        for call in ["ListWorkers", "Info"] {
            let request = Request::builder()
                .method(Method::POST)
                .uri(format!("http://localhost/moby.buildkit.v1.Control/{call}"))
                .body(answer::full(Bytes::from_static(&[0; 5])))
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers().get("grpc-status").unwrap(), "12");
            let message = answer.headers().get("grpc-message").unwrap().to_str().unwrap();
            assert!(message.contains("DOCKER_BUILDKIT=0"), "{message}");
        }
    }
}
