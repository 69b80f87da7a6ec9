//! `/images`, `/commit`, `/distribution`.

use engine::types::ImageDelete;
use engine::{ArchiveFormat, CommitOptions, Engine, ImportOptions, NoProgress};
use engine::{Message, PullOptions, PushOptions, Transfer};
use hyper::StatusCode;
use oci::Reference;
use oci::manifest::Descriptor;
use registry::{Client, SearchFilter};
use serde::Serialize;

use crate::answer::{Failure, Outcome, empty, json, json_of, json_with};
use crate::body::{self, Writer};
use crate::credentials::{AuthConfig, Sent};
use crate::request::Request;
use crate::server::Server;
use crate::versions;

pub(crate) async fn list(request: Request, server: &Server) -> Outcome {
    let (all, mut filters) = (request.query().flag("all"), request.query().filters()?);
    // Of clients before 1.25.
    if let Some(name) = request.query().text("filter") {
        filters.entry("reference".into()).or_default().push(name.to_owned());
    }
    let version = request.version;
    let found = server.work.ask(move |engine| engine.images(all, &filters)).await?;
    Ok(json_of(&found, version, |list, version| {
        let images = list.as_array_mut().into_iter().flatten();
        images.for_each(|image| versions::image_summary(image, version));
    }))
}

pub(crate) async fn inspect(request: &Request, server: &Server, name: &str) -> Outcome {
    let name = name.to_owned();
    let found = server.work.ask(move |engine| engine.inspect_image(&name)).await?;
    Ok(json_of(&found, request.version, versions::image_inspect))
}

pub(crate) async fn history(server: &Server, name: &str) -> Outcome {
    let name = name.to_owned();
    Ok(json(&server.work.ask(move |engine| engine.history(&name)).await?))
}

pub(crate) async fn tag(request: &Request, server: &Server, name: &str) -> Outcome {
    let query = request.query();
    let repository = query.text("repo").unwrap_or_default();
    let target = match query.text("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    let name = name.to_owned();
    server.work.ask(move |engine| engine.tag(&name, &target)).await?;
    Ok(empty(StatusCode::CREATED))
}

pub(crate) async fn remove(request: &Request, server: &Server, name: &str) -> Outcome {
    let (force, keep) = (request.query().flag("force"), request.query().flag("noprune"));
    let name = name.to_owned();
    Ok(json(&server.work.ask(move |engine| engine.remove_image(&name, force, keep)).await?))
}

pub(crate) async fn prune(request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pruned {
        images_deleted: Option<Vec<ImageDelete>>,
        space_reclaimed: u64,
    }
    let filters = request.query().filters()?;
    let pruned = server.work.ask(move |engine| engine.prune_images(false, &filters, None)).await?;
    Ok(json(&Pruned {
        images_deleted: Some(pruned.deleted).filter(|list| !list.is_empty()),
        space_reclaimed: pruned.space_reclaimed,
    }))
}

pub(crate) async fn save(server: &Server, names: Vec<String>) -> Outcome {
    if names.is_empty() {
        return Err(Failure::invalid("name at least one image to save"));
    }
    body::written(&server.work, "application/x-tar", move |engine, out| {
        Ok(engine.save(&names, ArchiveFormat::Docker, out)?)
    })
    .await
}

/// A line of text among others, as builds and loads have it.
#[derive(Serialize)]
struct Stream {
    stream: String,
}

pub(crate) async fn load(request: Request, server: &Server) -> Outcome {
    let mut archive = body::reader(request.inner.into_body());
    // A damaged archive is told in the stream, where Docker's clients look for it.
    body::lines(&server.work, move |engine, out| {
        out.begin();
        for (id, names) in engine.load(&mut archive, &mut NoProgress)? {
            let id = [format!("Loaded image ID: {id}\n")];
            let named = names.iter().map(|name| format!("Loaded image: {name}\n"));
            let lines: Vec<String> = if names.is_empty() { id.to_vec() } else { named.collect() };
            for stream in lines {
                say(out, &Stream { stream })?;
            }
        }
        Ok(())
    })
    .await
}

/// A client that has gone ends the work, which has nobody to fail to.
fn say<T: Serialize>(out: &mut Writer, value: &T) -> Result<(), Failure> {
    out.line(value).map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// Passes reports on as lines.
struct Report<'a>(&'a mut Writer);

impl Transfer for Report<'_> {
    fn report(&mut self, message: Message) {
        // A transfer goes on without its client, as Docker's does not; what has come is kept either way.
        let _ = self.0.line(&message);
    }
}

/// The registry client, with the credentials that came with the request.
fn client(server: &Server, name: &str, auth: &AuthConfig) -> Result<Client, Failure> {
    let reference = Reference::parse(name)?;
    Ok((server.client)(Sent::to(&reference, auth))?)
}

/// `name`, and `tag` as tag or digest.
fn with_tag(name: &str, tag: Option<&str>) -> String {
    match tag {
        Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    }
}

pub(crate) async fn create(request: Request, server: &Server) -> Outcome {
    let query = request.query();
    let platform = query.text("platform").map(str::to_owned);
    let Some(image) = query.text("fromImage") else { return import(request, server).await };
    let tag = query.text("tag");
    let reference = with_tag(image, tag);
    let whole = Reference::parse(&reference)?;
    // As long as the API has been there: no tag is every tag.
    let all_tags = whole.tag().is_none() && whole.digest().is_none();
    let auth = AuthConfig::from_header(request.header("x-registry-auth"))?;
    let client = client(server, &reference, &auth)?;
    let options = PullOptions { reference, all_tags, platform, all_platforms: false };
    body::lines(&server.work, move |engine, out| {
        engine.pull(&client, &options, &mut Report(out))?;
        Ok(())
    })
    .await
}

async fn import(request: Request, server: &Server) -> Outcome {
    let query = request.query();
    let source = query.text("fromSrc").unwrap_or_default().to_owned();
    // As Docker has it, an address needs no scheme.
    let url = match source.as_str() {
        "" => return Err(Failure::invalid("fromImage or fromSrc is needed")),
        "-" => None,
        url if url.starts_with("http://") || url.starts_with("https://") => Some(source),
        other if !other.contains("://") => Some(format!("http://{other}")),
        other => {
            return Err(Failure::invalid(format!("import {other}: only http and https are known")));
        }
    };
    let options = ImportOptions {
        reference: query.text("repo").map(|repo| with_tag(repo, query.text("tag"))),
        message: query.text("message").unwrap_or_default().to_owned(),
        platform: query.text("platform").map(str::to_owned),
        changes: query.all("changes"),
    };
    let client = (server.client)(None)?;
    let mut archive = body::reader(request.inner.into_body());
    body::lines(&server.work, move |engine, out| {
        let id = match &url {
            Some(url) => engine.import_url(&client, url, options, &mut NoProgress)?,
            None => engine.import(&mut archive, options, &mut NoProgress)?,
        };
        say(out, &Message::line(id))
    })
    .await
}

pub(crate) async fn push(request: Request, server: &Server, name: &str) -> Outcome {
    let query = request.query();
    let reference = with_tag(name, query.text("tag"));
    let all_tags = Reference::parse(&reference)?.tag().is_none();
    let auth = AuthConfig::from_header(request.header("x-registry-auth"))?;
    let client = client(server, &reference, &auth)?;
    let platform = query.text("platform").map(platform).transpose()?;
    let options = PushOptions { reference, all_tags, platform };
    body::lines(&server.work, move |engine, out| {
        Ok(engine.push(&client, &options, &mut Report(out))?)
    })
    .await
}

/// A platform as JSON, which newer clients send.
fn platform(text: &str) -> Result<String, Failure> {
    #[derive(serde::Deserialize)]
    struct Platform {
        os: String,
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    if !text.trim_start().starts_with('{') {
        return Ok(text.to_owned());
    }
    let platform: Platform = crate::request::parse(text.as_bytes())?;
    let parts = [platform.os, platform.architecture, platform.variant];
    Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
}

pub(crate) async fn search(request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    struct Found {
        description: String,
        is_official: bool,
        is_automated: bool,
        name: String,
        star_count: u64,
    }
    let query = request.query();
    let term = query.text("term").unwrap_or_default().to_owned();
    let limit = query.number::<usize>("limit")?.filter(|n| *n > 0).unwrap_or(25);
    if term.is_empty() {
        return Err(Failure::invalid("a term to search for is needed"));
    }
    if limit > 100 {
        return Err(Failure::invalid(format!("invalid limit {limit}: it should be 1 to 100")));
    }
    let filters = query.filters()?;
    let pairs = filters
        .iter()
        .flat_map(|(name, values)| values.iter().map(|v| (name.as_str(), v.as_str())));
    let filter = SearchFilter::parse(pairs)
        .map_err(|pair| Failure::invalid(format!("invalid filter '{pair}'")))?;
    let client = (server.client)(None)?;
    let found = server
        .work
        .run::<_, Failure, _>(move |_: &Engine| Ok(client.search(&term, limit)?))
        .await?;
    let found: Vec<Found> = found
        .into_iter()
        .filter(|r| filter.matches(r))
        .map(|r| Found {
            description: r.description.unwrap_or_default(),
            is_official: r.is_official,
            is_automated: r.is_automated,
            name: r.name,
            star_count: r.star_count,
        })
        .collect();
    Ok(json(&found))
}

pub(crate) async fn distribution(request: Request, server: &Server, name: &str) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inspected {
        descriptor: Descriptor,
        platforms: Vec<serde_json::Value>,
    }
    let auth = AuthConfig::from_header(request.header("x-registry-auth"))?;
    let client = client(server, name, &auth)?;
    let name = name.to_owned();
    let remote =
        server.work.ask(move |_: &Engine| Engine::remote_manifest(&client, &name, true)).await?;
    let described = |descriptor: &Descriptor| {
        descriptor.platform.as_ref().and_then(|platform| serde_json::to_value(platform).ok())
    };
    let mut platforms: Vec<_> =
        remote.manifests.iter().filter_map(|m| described(&m.descriptor)).collect();
    if platforms.is_empty() {
        platforms.extend(described(&remote.top.descriptor));
    }
    let descriptor = Descriptor { platform: None, ..remote.top.descriptor };
    Ok(json(&Inspected { descriptor, platforms }))
}

pub(crate) async fn commit(mut request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Committed {
        id: String,
    }
    let query = request.query();
    let container = query.text("container").unwrap_or_default().to_owned();
    let options = CommitOptions {
        reference: query.text("repo").map(|repo| with_tag(repo, query.text("tag"))),
        author: query.text("author").unwrap_or_default().to_owned(),
        message: query.text("comment").unwrap_or_default().to_owned(),
        pause: query.flag_or("pause", true),
        changes: query.all("changes").iter().flat_map(|c| c.lines().map(str::to_owned)).collect(),
        config: None,
    };
    let options = CommitOptions { config: request.json().await?, ..options };
    let id = server.work.ask(move |engine| engine.commit(&container, options)).await?;
    Ok(json_with(StatusCode::CREATED, &Committed { id }))
}
