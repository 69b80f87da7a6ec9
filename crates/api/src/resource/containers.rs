//! `/containers`, but for its streams.

use base64::Engine as _;
use engine::types::{CreateRequest, DiffEntry, UpdateRequest};
use engine::{AttachOptions, ErrorKind, ListOptions, PathStat, RemoveOptions};
use hyper::StatusCode;
use serde::Serialize;

use crate::answer::{Failure, Outcome, empty, header, json, json_with};
use crate::body;
use crate::request::Request;
use crate::server::Server;

pub(crate) async fn list(request: Request, server: &Server) -> Outcome {
    let query = request.query();
    let options = ListOptions {
        all: query.flag("all"),
        limit: query
            .number::<i64>("limit")?
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0),
        size: query.flag("size"),
        filters: query.filters()?,
    };
    Ok(json(&server.work.ask(move |engine| engine.list(options)).await?))
}

pub(crate) async fn create(mut request: Request, server: &Server) -> Outcome {
    let mut wanted: CreateRequest = match request.json().await? {
        Some(wanted) => wanted,
        None => {
            return Err(Failure::invalid("config cannot be empty in order to create a container"));
        }
    };
    wanted.name = request.query().text("name").map(|n| n.trim_start_matches('/').to_owned());
    wanted.platform = request.query().text("platform").map(str::to_owned);
    let created = server.work.ask(move |engine| engine.create(wanted)).await;
    // Clients take 404 for a missing image, and pull it; other things that are missing are the
    // request's mistake.
    let created = created.map_err(|failure| match failure.status {
        StatusCode::NOT_FOUND if !failure.message.starts_with("No such image") => {
            Failure::invalid(failure.message)
        }
        _ => failure,
    })?;
    Ok(json_with(StatusCode::CREATED, &created))
}

pub(crate) async fn inspect(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, size) = (id.to_owned(), request.query().flag("size"));
    Ok(json(&server.work.ask(move |engine| engine.inspect(&id, size)).await?))
}

pub(crate) async fn top(request: Request, server: &Server, id: &str) -> Outcome {
    let id = id.to_owned();
    let args = request.query().text("ps_args").unwrap_or("-ef").to_owned();
    let top = server
        .work
        .ask(move |engine| {
            let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
            engine.top(&id, &args)
        })
        .await?;
    Ok(json(&top))
}

pub(crate) async fn changes(server: &Server, id: &str) -> Outcome {
    let id = id.to_owned();
    let changes = server.work.ask(move |engine| engine.diff(&id)).await?;
    // Docker's answer to no changes.
    Ok(json(&Some(changes).filter(|changes: &Vec<DiffEntry>| !changes.is_empty())))
}

pub(crate) async fn export(server: &Server, id: &str) -> Outcome {
    let id = id.to_owned();
    body::written(
        &server.work,
        "application/x-tar",
        move |engine, out| Ok(engine.export(&id, out)?),
    )
    .await
}

/// Height and width of a terminal in a query.
pub(crate) fn size(request: &Request) -> Result<(u16, u16), Failure> {
    let number = |name: &str| {
        request.query().number::<u16>(name)?.ok_or_else(|| {
            Failure::invalid(format!("invalid resize {name}: give h and w, rows and columns"))
        })
    };
    Ok((number("h")?, number("w")?))
}

pub(crate) async fn resize(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, (rows, columns)) = (id.to_owned(), size(&request)?);
    server.work.ask(move |engine| engine.resize(&id, rows, columns)).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn start(mut request: Request, server: &Server, id: &str) -> Outcome {
    // Long ago a host configuration could be sent along.
    let body = request.bytes().await?;
    if body.len() > 2 && request.version < 24 {
        return Err(Failure::invalid("a host configuration at the start is no longer supported"));
    }
    let (id, waiting) = (id.to_owned(), server.waiting.clone());
    let work = move |engine: &engine::Engine| {
        let id = engine.id_of(&id)?;
        let mut attachers = waiting.take(&id).into_iter();
        let first = attachers.next();
        // Those who wait hear from the first byte on; a failed start ends their waiting.
        let options = first.as_ref().map(|first| first.options);
        let attachment = match engine.start(&id, options) {
            Ok(attachment) => attachment,
            Err(error) => {
                // The client waits for the removal that it asked for with `--rm`.
                if !matches!(error.kind, ErrorKind::NotModified | ErrorKind::NotFound)
                    && engine
                        .inspect(&id, false)
                        .is_ok_and(|c| c.host_config.auto_remove && !c.state.running)
                {
                    let _ = engine.remove(&id, RemoveOptions { force: false, volumes: true });
                }
                return Err(error);
            }
        };
        if let (Some(first), Some(attachment)) = (first, attachment) {
            // It may have gone meanwhile.
            let _ = first.give.send(attachment);
        }
        for other in attachers {
            if let Ok(attachment) =
                engine.attach(&id, AttachOptions { logs: true, ..other.options })
            {
                let _ = other.give.send(attachment);
            }
        }
        Ok(())
    };
    server.work.ask(work).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Seconds to wait before SIGKILL, and the signal before.
fn patience(request: &Request) -> Result<(Option<i64>, Option<String>), Failure> {
    let query = request.query();
    Ok((query.number("t")?, query.text("signal").map(str::to_owned)))
}

pub(crate) async fn stop(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, (timeout, signal)) = (id.to_owned(), patience(&request)?);
    server.work.ask(move |engine| engine.stop(&id, signal.as_deref(), timeout)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn restart(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, (timeout, signal)) = (id.to_owned(), patience(&request)?);
    server.work.ask(move |engine| engine.restart(&id, signal.as_deref(), timeout)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn kill(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, signal) =
        (id.to_owned(), request.query().text("signal").unwrap_or_default().to_owned());
    server.work.ask(move |engine| engine.kill(&id, &signal)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn update(mut request: Request, server: &Server, id: &str) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Updated {
        warnings: Vec<String>,
    }
    let id = id.to_owned();
    let mut wanted: UpdateRequest = request.required().await?;
    drop_unset(&mut wanted);
    let warnings = server.work.ask(move |engine| engine.update(&id, wanted)).await?;
    Ok(json(&Updated { warnings }))
}

/// In the API zero and the empty text mean that nothing is to be changed.
fn drop_unset(wanted: &mut UpdateRequest) {
    for number in [
        &mut wanted.cpu_shares,
        &mut wanted.memory,
        &mut wanted.memory_swap,
        &mut wanted.memory_reservation,
        &mut wanted.nano_cpus,
        &mut wanted.cpu_period,
        &mut wanted.cpu_quota,
        &mut wanted.cpu_realtime_period,
        &mut wanted.cpu_realtime_runtime,
    ] {
        number.take_if(|value| *value == 0);
    }
    wanted.blkio_weight.take_if(|value| *value == 0);
    for text in [&mut wanted.cpuset_cpus, &mut wanted.cpuset_mems] {
        text.take_if(|value| value.is_empty());
    }
    wanted.restart_policy.take_if(|policy| policy.name.is_empty());
}

pub(crate) async fn rename(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, name) = (id.to_owned(), request.query().text("name").unwrap_or_default().to_owned());
    if name.is_empty() {
        return Err(Failure::invalid("Neither old nor new names may be empty"));
    }
    server.work.ask(move |engine| engine.rename(&id, name.trim_start_matches('/'))).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn pause(server: &Server, id: &str) -> Outcome {
    let id = id.to_owned();
    server.work.ask(move |engine| engine.pause(&id)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn unpause(server: &Server, id: &str) -> Outcome {
    let id = id.to_owned();
    server.work.ask(move |engine| engine.unpause(&id)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn remove(request: Request, server: &Server, id: &str) -> Outcome {
    let query = request.query();
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v") };
    if query.flag("link") {
        return Err(Failure::invalid("links between containers are removed with their container"));
    }
    let id = id.to_owned();
    server.work.ask(move |engine| engine.remove(&id, options)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn remove_link(
    request: Request,
    server: &Server,
    id: &str,
    alias: &str,
) -> Outcome {
    if !request.query().flag("link") {
        return Err(Failure::no_page());
    }
    let (id, alias) = (id.to_owned(), alias.to_owned());
    server.work.ask(move |engine| engine.remove_link(&id, &alias)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn prune(request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pruned {
        containers_deleted: Option<Vec<String>>,
        space_reclaimed: u64,
    }
    let filters = request.query().filters()?;
    let pruned = server.work.ask(move |engine| engine.prune_containers(&filters)).await?;
    Ok(json(&Pruned {
        containers_deleted: Some(pruned.deleted).filter(|list| !list.is_empty()),
        space_reclaimed: pruned.space_reclaimed,
    }))
}

/// The header that tells what a path is: base64 of JSON.
fn stat_header(stat: &PathStat) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Stat<'a> {
        name: &'a str,
        size: u64,
        mode: u32,
        mtime: String,
        link_target: &'a str,
    }
    let stat = Stat {
        name: &stat.name,
        size: stat.size,
        mode: go_mode(stat.mode),
        mtime: engine::rfc3339(stat.mtime),
        link_target: &stat.link_target,
    };
    base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(&stat).unwrap_or_default())
}

/// Go's own bits for what a file is, which clients compare with.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let bit = |bit: u32, go: u32| if mode & bit == 0 { 0 } else { go };
    kind | mode & 0o777 | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20)
}

fn archive_path(request: &Request) -> Result<String, Failure> {
    match request.query().text("path") {
        Some(path) => Ok(path.to_owned()),
        None => Err(Failure::invalid("bad parameter: 'path' cannot be empty")),
    }
}

const STAT: &str = "x-docker-container-path-stat";

pub(crate) async fn archive_stat(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, path) = (id.to_owned(), archive_path(&request)?);
    let stat = server.work.ask(move |engine| engine.stat_path(&id, &path)).await?;
    Ok(header(empty(StatusCode::OK), STAT, &stat_header(&stat)))
}

pub(crate) async fn archive_get(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, path) = (id.to_owned(), archive_path(&request)?);
    let (id2, path2) = (id.clone(), path.clone());
    let stat = server.work.ask(move |engine| engine.stat_path(&id2, &path2)).await?;
    let answer = body::written(&server.work, "application/x-tar", move |engine, out| {
        engine.copy_from(&id, &path, out)?;
        Ok(())
    });
    Ok(header(answer.await?, STAT, &stat_header(&stat)))
}

pub(crate) async fn archive_put(request: Request, server: &Server, id: &str) -> Outcome {
    let (id, path) = (id.to_owned(), archive_path(&request)?);
    let keep = request.query().flag("noOverwriteDirNonDir");
    let owner = request.query().flag("copyUIDGID");
    let mut tar = body::reader(request.inner.into_body());
    server.work.ask(move |engine| engine.copy_to(&id, &path, &mut tar, keep, owner)).await?;
    Ok(empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use super::go_mode;

    #[test]
    fn modes_as_go_has_them() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 0x8000_01ed);
        assert_eq!(go_mode(0o041_777), 0x8010_01ff);
        assert_eq!(go_mode(0o120_777), 0x0800_01ff);
        assert_eq!(go_mode(0o104_755), 0x0080_01ed);
    }
}
