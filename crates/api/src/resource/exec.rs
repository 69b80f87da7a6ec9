//! `/exec` and `/containers/{id}/exec`.

use engine::types::ExecConfig;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::answer::{Failure, Outcome, empty, json, json_with};
use crate::hijack;
use crate::request::Request;
use crate::server::Server;

pub(crate) async fn create(mut request: Request, server: &Server, id: &str) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
    }
    let (container, config) = (id.to_owned(), request.required::<ExecConfig>().await?);
    let id = server.work.ask(move |engine| engine.create_exec(&container, config)).await?;
    Ok(json_with(StatusCode::CREATED, &Created { id }))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Start {
    detach: bool,
    tty: bool,
    console_size: Option<[u32; 2]>,
}

pub(crate) async fn start(mut request: Request, server: &Server, id: &str) -> Outcome {
    let wanted: Start = request.json().await?.unwrap_or_default();
    let exec = id.to_owned();
    let known = server.work.ask(move |engine| engine.inspect_exec(&exec)).await?;
    if wanted.console_size.is_some() && !known.process_config.tty {
        return Err(Failure::invalid("console size is only supported when TTY is enabled"));
    }
    let tty = known.process_config.tty;
    let (exec, size) = (id.to_owned(), wanted.console_size);
    let detach = wanted.detach;
    // Heard from before the start, as a client asks for the size as soon as it is told of it.
    let sizes = server.waiting.terminal(id);
    let started = server.work.ask(move |engine| engine.start_exec(&exec, detach, size)).await;
    let session = started.inspect_err(|_| server.waiting.forget(id))?;
    let Some(attachment) = session.attachment else {
        server.waiting.forget(id);
        return Ok(empty(StatusCode::OK));
    };
    let content_type = hijack::content_type(tty || wanted.tty, request.version);
    let (channel, answer) = hijack::open(&mut request, content_type);
    let (waiting, id) = (server.waiting.clone(), id.to_owned());
    tokio::spawn(async move {
        // A client that has gone is no failure; the process goes on.
        let _ = hijack::copy(channel, tty, &[], Some(attachment), Some(sizes)).await;
        waiting.forget(&id);
    });
    Ok(answer)
}

pub(crate) async fn resize(request: &Request, server: &Server, id: &str) -> Outcome {
    let size = super::containers::size(request)?;
    let exec = id.to_owned();
    let known = server.work.ask(move |engine| engine.inspect_exec(&exec)).await?;
    if !server.waiting.resize(id, size) && !known.running {
        return Err(Failure::new(StatusCode::CONFLICT, format!("exec {id} is not running")));
    }
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn inspect(server: &Server, id: &str) -> Outcome {
    let id = id.to_owned();
    Ok(json(&server.work.ask(move |engine| engine.inspect_exec(&id)).await?))
}
