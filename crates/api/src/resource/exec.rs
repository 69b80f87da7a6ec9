//! `/exec` and `/containers/{id}/exec`.

use engine::types::ExecConfig;
use engine::{LogLine, StreamKind};
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
    hijack::keys(config.tty, &config.detach_keys)?;
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
    if known.pid != 0 || known.exit_code.is_some() {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            format!("Error: Exec command {id} is already running"),
        ));
    }
    let (exec, container) = (id.to_owned(), known.container_id.clone());
    server.work.ask(move |engine| engine.check_exec(&container)).await?;
    let size = wanted.console_size;
    let keys = hijack::keys(known.process_config.tty, &known.detach_keys)?;
    if wanted.detach {
        server.work.ask(move |engine| engine.start_exec(&exec, true, size)).await?;
        return Ok(empty(StatusCode::OK));
    }
    // Whoever starts it says how the stream is to be, whatever the process has.
    let tty = wanted.tty;
    let content_type = hijack::content_type(tty, request.version);
    let (channel, answer) = hijack::open(&mut request, content_type);
    // Heard from before the start: a client tells the size as soon as it has the answer.
    let sizes = server.waiting.terminal(id);
    let server = server.clone();
    let open = server.open.one();
    tokio::spawn(async move {
        let _open = open;
        // A client that has gone is no failure; the process goes on.
        if let Ok(line) = channel.ready().await {
            let name = exec.clone();
            let started =
                server.work.ask(move |engine| engine.start_exec(&name, false, size)).await;
            let _ = match started {
                Ok(session) => {
                    let attachment = session.attachment;
                    hijack::copy(line, tty, &[], attachment, Some(sizes), keys).await
                }
                // A program that can't be run is told in the stream, where Docker's clients look for it.
                Err(failure) => {
                    let message = LogLine {
                        time: 0,
                        stream: StreamKind::Stdout,
                        bytes: format!("{failure}\r\n").into_bytes(),
                    };
                    hijack::copy(line, tty, &[message], None, None, keys).await
                }
            };
        }
        server.waiting.forget(&exec);
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
