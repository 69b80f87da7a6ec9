//! What a container's clients listen to: attach, logs, stats, wait.

use std::sync::Arc;
use std::time::Duration;

use engine::types::{ContainerInspect, Event, Stats};
use engine::{
    AttachOptions, Attachment, LogLine, LogOptions, LogReader, LogShape, LogState, WaitCondition,
};
use hyper::StatusCode;
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::events::moment;
use crate::answer::{Failure, Outcome, json};
use crate::body::{self, AsyncWriter};
use crate::hijack::{self, framed};
use crate::request::Request;
use crate::server::Server;

async fn inspected(server: &Server, id: &str) -> Result<ContainerInspect, Failure> {
    let id = id.to_owned();
    server.work.ask(move |engine| engine.inspect(&id, false)).await
}

pub(crate) async fn attach(request: Request, server: &Server, id: &str) -> Outcome {
    attach_by(request, server, id, false).await
}

pub(crate) async fn attach_socket(request: Request, server: &Server, id: &str) -> Outcome {
    attach_by(request, server, id, true).await
}

async fn attach_by(mut request: Request, server: &Server, id: &str, socket: bool) -> Outcome {
    let query = request.query();
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
    };
    let stream = query.flag("stream");
    let keys = query.text("detachKeys").unwrap_or_default().to_owned();
    let container = inspected(server, id).await?;
    let (id, tty) = (container.id.clone(), container.config.tty);
    let keys = hijack::keys(tty, &keys)?;
    if container.state.paused {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            format!("container {id} is paused, unpause the container before attach"),
        ));
    }
    if container.state.restarting {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            format!("container {id} is restarting, wait until the container is running"),
        ));
    }
    // Connected before the answer, so that nothing that is written after it is missed.
    let listener = server.hub.listen();
    let attachment = if !stream {
        Source::Nothing
    } else if container.state.running {
        let name = id.clone();
        Source::Now(server.work.ask(move |engine| engine.attach(&name, options)).await?)
    } else {
        Source::AtStart(server.waiting.wait(&id, options))
    };
    let content_type = hijack::content_type(tty, request.version);
    let (channel, answer) = if socket {
        hijack::open_socket(&mut request)?
    } else {
        hijack::open(&mut request, content_type)
    };
    // A websocket's messages carry the output as it is.
    let raw = tty || socket;
    let logs = if options.logs { logged(server, &id, options).await } else { Vec::new() };
    let server = server.clone();
    let open = server.open.one();
    tokio::spawn(async move {
        let _open = open;
        let attachment = match attachment {
            Source::Nothing => None,
            Source::Now(attachment) => Some(attachment),
            Source::AtStart(start) => started(&server, &id, options, start, listener).await,
        };
        if let Ok(line) = channel.ready().await {
            let _ = hijack::copy(line, raw, &logs, attachment, None, keys).await;
        }
    });
    Ok(answer)
}

/// Where an attachment comes from.
enum Source {
    Nothing,
    Now(Attachment),
    AtStart(hijack::Start),
}

/// Waits for the start of a container, by this server or by anybody else.
async fn started(
    server: &Server,
    id: &str,
    options: AttachOptions,
    mut start: hijack::Start,
    mut listener: crate::hub::Listener,
) -> Option<Attachment> {
    let about = |event: &Event| event.kind == "container" && event.actor.id == id;
    loop {
        tokio::select! {
            biased;
            // A start that failed ends the waiting.
            attachment = &mut start.attachment => return attachment.ok(),
            event = listener.next() => match event {
                Some(event) if about(&event) && event.action == "start" => {
                    let name = id.to_owned();
                    if start.is_ours() {
                        return start.attachment.await.ok();
                    }
                    return server
                        .work
                        .ask(move |engine| engine.attach(&name, options))
                        .await
                        .ok();
                }
                Some(event) if about(&event) && event.action == "destroy" => return None,
                _ => {}
            }
        }
    }
}

/// What the journal has for one who attaches with `logs`.
async fn logged(server: &Server, id: &str, options: AttachOptions) -> Vec<LogLine> {
    let name = id.to_owned();
    let wanted =
        LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
    let read = server.work.ask(move |engine| {
        let mut lines = Vec::new();
        engine.logs(&name, wanted, &mut |line| {
            lines.push(line);
            true
        })?;
        Ok(lines)
    });
    // A driver without a journal has nothing to add.
    read.await.unwrap_or_default()
}

pub(crate) async fn logs(request: Request, server: &Server, id: &str) -> Outcome {
    let query = request.query();
    let time = |name: &str| -> Result<Option<i64>, Failure> {
        Ok(query.text(name).map(moment).transpose()?.filter(|ns| *ns != 0))
    };
    let options = LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        since: time("since")?,
        until: time("until")?,
        // "all" and whatever is no number.
        tail: query.text("tail").and_then(|text| text.parse().ok()),
    };
    if !options.stdout && !options.stderr {
        return Err(Failure::invalid("Bad parameters: you must choose at least one stream"));
    }
    let (timestamps, details) = (query.flag("timestamps"), query.flag("details"));
    let container = inspected(server, id).await?;
    let (id, tty) = (container.id.clone(), container.config.tty);
    let reader = server.work.ask(move |engine| engine.log_reader(&id, options)).await?;
    let (writer, answer) = body::open(hijack::content_type(tty, request.version));
    let shape = LogShape::new(timestamps, details.then(|| container.log_details()));
    let lines = Lines { tty, shape };
    tokio::spawn(follow(server.clone(), reader, lines, writer));
    Ok(answer)
}

/// How lines are written.
struct Lines {
    tty: bool,
    shape: LogShape,
}

impl Lines {
    fn write(&mut self, line: &LogLine, out: &mut Vec<u8>) {
        let mut text = self.shape.show(line);
        if self.tty {
            out.append(&mut text);
        } else {
            out.extend_from_slice(&framed(line.stream, &text));
        }
    }
}

/// How often one who follows makes sure that the container still runs.
const LOOK: Duration = Duration::from_secs(2);

async fn follow(server: Server, mut reader: LogReader, mut lines: Lines, writer: AsyncWriter) {
    let watch = reader
        .fd()
        .and_then(|fd| hijack::watched(fd.try_clone_to_owned(), Interest::READABLE).ok());
    loop {
        let read = server
            .work
            .ask(move |engine| {
                let lines = reader.read(engine)?;
                Ok((reader, lines))
            })
            .await;
        let Ok((same, found)) = read else { return };
        reader = same;
        let mut out = Vec::new();
        for line in &found {
            lines.write(line, &mut out);
        }
        if !out.is_empty() && !writer.send(out).await {
            return;
        }
        match reader.state() {
            LogState::More => {}
            LogState::Ended => return,
            LogState::Waiting => {
                tokio::select! {
                    ready = readable(watch.as_ref()) => {
                        if ready.is_err() {
                            return;
                        }
                    }
                    () = tokio::time::sleep(LOOK) => {}
                    () = writer.closed() => return,
                }
            }
        }
    }
}

async fn readable(fd: Option<&AsyncFd<std::os::fd::OwnedFd>>) -> std::io::Result<()> {
    match fd {
        Some(fd) => {
            fd.readable().await?.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

pub(crate) async fn stats(request: Request, server: &Server, id: &str) -> Outcome {
    let query = request.query();
    let (stream, one_shot) = (query.flag_or("stream", true), query.flag("one-shot"));
    if stream && one_shot {
        return Err(Failure::invalid("cannot have stream=true and one-shot=true"));
    }
    let name = id.to_owned();
    let first = server.work.ask(move |engine| engine.stats(&name, None)).await?;
    if one_shot {
        return Ok(json(&first));
    }
    if !stream {
        tokio::time::sleep(EVERY).await;
        let name = id.to_owned();
        let second = server.work.ask(move |engine| engine.stats(&name, Some(&first))).await?;
        return Ok(json(&second));
    }
    let (writer, answer) = body::open("application/json");
    let (server, id) = (server.clone(), first.id.clone());
    tokio::spawn(async move {
        let mut last = first;
        while send(&last, &writer).await {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = writer.closed() => return,
            }
            let (name, previous) = (id.clone(), last);
            let read = server.work.ask(move |engine| engine.stats(&name, Some(&previous))).await;
            match read {
                Ok(stats) => last = stats,
                // Removed.
                Err(_) => return,
            }
        }
    });
    Ok(answer)
}

/// Between two readings.
const EVERY: Duration = Duration::from_secs(1);

async fn send(stats: &Stats, writer: &AsyncWriter) -> bool {
    match serde_json::to_vec(stats) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            writer.send(bytes).await
        }
        Err(_) => false,
    }
}

pub(crate) async fn wait(request: Request, server: &Server, id: &str) -> Outcome {
    let condition = match request.query().text("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => {
            return Err(Failure::invalid(format!("invalid condition: {other:?}")));
        }
    };
    let listener = server.hub.listen();
    let container = inspected(server, id).await?;
    // The head goes out at once: a client starts the container only when it knows that we wait.
    let (writer, answer) = body::open("application/json");
    let waiter = Waiter { server: server.clone(), condition, listener };
    tokio::spawn(async move {
        tokio::select! {
            said = waiter.run(container) => {
                if let Ok(mut bytes) = serde_json::to_vec(&said) {
                    bytes.push(b'\n');
                    writer.send(bytes).await;
                }
            }
            () = writer.closed() => {}
        }
    });
    Ok(answer)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    status_code: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WaitError>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitError {
    message: String,
}

struct Waiter {
    server: Server,
    condition: WaitCondition,
    listener: crate::hub::Listener,
}

impl Waiter {
    async fn run(mut self, container: ContainerInspect) -> Said {
        let id = container.id;
        let mut state = container.state;
        let began = state.started_at.clone();
        let was_running = state.running;
        let mut code = state.exit_code;
        loop {
            if !state.running && !state.restarting {
                let ended = match self.condition {
                    WaitCondition::NotRunning => true,
                    // It was running when we came, or has run since.
                    WaitCondition::NextExit => was_running || state.started_at != began,
                    WaitCondition::Removed => false,
                };
                if ended {
                    return said(state.exit_code, &state.error, self.condition);
                }
            }
            loop {
                match self.listener.next().await {
                    None => break,
                    Some(event) => match self.ended(&event, &id) {
                        End::Not => {}
                        End::Look => break,
                        End::Code(heard) => {
                            code = heard;
                            match self.condition {
                                WaitCondition::NextExit | WaitCondition::NotRunning => {
                                    return said(code, "", self.condition);
                                }
                                WaitCondition::Removed => {}
                            }
                        }
                        End::Gone => return said(code, "", self.condition),
                    },
                }
            }
            let name = id.clone();
            state = match self.server.work.ask(move |engine| engine.inspect(&name, false)).await {
                Ok(now) => now.state,
                // Removed meanwhile.
                Err(_) => return said(code, "", self.condition),
            };
        }
    }

    fn ended(&self, event: &Arc<Event>, id: &str) -> End {
        if event.kind != "container" || event.actor.id != id {
            return End::Not;
        }
        match event.action.as_str() {
            "die" => {
                let code = event.actor.attributes.get("exitCode").and_then(|c| c.parse().ok());
                code.map_or(End::Look, End::Code)
            }
            "destroy" => End::Gone,
            _ => End::Not,
        }
    }
}

enum End {
    Not,
    Look,
    Code(i32),
    Gone,
}

fn said(code: i32, error: &str, condition: WaitCondition) -> Said {
    // The error of a start that failed is told to those who waited for the end of a run.
    let error = (condition == WaitCondition::NextExit && !error.is_empty())
        .then(|| WaitError { message: error.to_owned() });
    Said { status_code: code.into(), error }
}
