//! `/build`: an archive or an address comes in, lines of JSON go out, as from Docker's classic builder.
//!
//! What clients look for in them: `Successfully built ID` in a line's `stream` (docker-py), the ID in `aux`
//! (`docker build --iidfile`), `error` with the exit code in `errorDetail`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use build::upload::Unpacked;
use build::{Context, Error, Event, File, Options, Plan, Progress};
use engine::Engine;
use hyper::StatusCode;
use oci::Reference;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::answer::{Failure, Outcome, json as answer_json};
use crate::body::{self, Watch, Writer};
use crate::credentials::SentAll;
use crate::request::{Query, Request, parse};
use crate::server::Server;

pub(crate) async fn build(request: Request, server: &Server) -> Outcome {
    let query = request.query();
    if query.text("version").is_some_and(|version| version != "1") {
        return Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            "this engine builds without BuildKit's sessions: set DOCKER_BUILDKIT=0",
        ));
    }
    let remote = query.text("remote").map(str::to_owned);
    if let Some(remote) = remote.as_deref().filter(|remote| !build::remote::is_remote(remote)) {
        return Err(Failure::invalid(format!("remote: {remote} is no address to fetch from")));
    }
    let mut options = options(query)?;
    let quiet = query.flag("q");
    let cache_from: Vec<String> = document(query, "cachefrom")?;
    let client = (server.client)(SentAll::from_header(request.header("x-registry-config"))?)?;
    let mut archive = body::reader(request.inner.into_body());
    body::lines(&server.work, move |engine, out| {
        let (_unpacked, _fetched);
        match remote {
            Some(remote) => {
                let context = build::remote::context(engine, &client, &remote)?;
                options.context = context.context.clone();
                options.file = context.file.clone().unwrap_or(options.file);
                _fetched = context;
            }
            None => {
                let context = Unpacked::new(engine, &mut archive)?;
                options.context = Context::Directory(context.path().to_owned());
                _unpacked = context;
            }
        }
        // A client is answered when it has sent all; what comes after the archive's end is of no matter.
        std::io::copy(&mut archive, &mut std::io::sink())
            .map_err(|e| Failure::invalid(format!("the context's archive: {e}")))?;
        let plan = build::plan(&options).map_err(|error| {
            let failure = Failure::from(error);
            // Where it was unpacked says nothing to the client.
            let here = match &options.context {
                Context::Directory(path) => format!("{}/", path.display()),
                Context::Empty => return failure,
            };
            Failure::new(failure.status, failure.message.replace(&here, ""))
        })?;
        // Of images that are there, what was built here is in this engine's cache; of others there is nothing.
        options.no_cache |= !cache_from.is_empty()
            && !cache_from.iter().any(|name| engine.inspect_image(name).is_ok());
        let mut lines = Lines::new(out, &plan, quiet);
        let built = build::build(engine, Some(&client), &options, &mut lines);
        lines.end(built.is_ok());
        match built {
            Ok(built) => said(out, &built, &options.tags, quiet),
            Err(error) if out.has_begun() => failed(out, error),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// What the parameters ask for; the context is put in later.
fn options(query: &Query) -> Result<Options, Failure> {
    let file = query.text("dockerfile").unwrap_or("Dockerfile").to_owned();
    let mut options = Options::new(File::InContext(file), Context::Empty);
    options.tags = query.all("t").into_iter().filter(|name| !name.is_empty()).collect();
    options.target = query.text("target").map(str::to_owned);
    options.platform = query.text("platform").map(str::to_owned);
    options.no_cache = query.flag("nocache");
    options.pull = query.flag("pull");
    options.network = query.text("networkmode").map(str::to_owned);
    // A variable without a value is one that the client does not have.
    let arguments: BTreeMap<String, Option<String>> = document(query, "buildargs")?;
    options.build_args =
        arguments.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    options.labels = document(query, "labels")?;
    options.ulimits = document(query, "ulimits")?;
    options.security_opt = document(query, "securityopt")?;
    for text in query.all("extrahosts") {
        // Some clients repeat the parameter, others send one list.
        match text.trim_start().starts_with('[') {
            true => options.add_hosts.extend(parse::<Vec<String>>(text.as_bytes())?),
            false => options.add_hosts.extend((!text.is_empty()).then_some(text)),
        }
    }
    options.shm_size = query.number("shmsize")?.unwrap_or(0);
    options.memory = query.number("memory")?.unwrap_or(0);
    options.memory_swap = query.number("memswap")?.unwrap_or(0);
    options.cpu_shares = query.number("cpushares")?.unwrap_or(0);
    options.cpu_period = query.number("cpuperiod")?.unwrap_or(0);
    options.cpu_quota = query.number("cpuquota")?.unwrap_or(0);
    options.cpuset_cpus = query.text("cpusetcpus").unwrap_or_default().to_owned();
    options.cpuset_mems = query.text("cpusetmems").unwrap_or_default().to_owned();
    options.cgroup_parent = query.text("cgroupparent").unwrap_or_default().to_owned();
    options.squash = query.flag("squash");
    if let Some(text) = options.build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty())
    {
        let seconds = text.trim().parse().ok().filter(|seconds| *seconds >= 0);
        options.source_date_epoch = Some(seconds.ok_or_else(|| {
            Failure::invalid(format!("SOURCE_DATE_EPOCH={text}: expected seconds since 1970"))
        })?);
    }
    Ok(options)
}

/// A parameter that is JSON; absent or `null` is nothing.
fn document<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T, Failure> {
    let Some(text) = query.text(name) else { return Ok(T::default()) };
    let parsed: Option<T> = parse(text.as_bytes())
        .map_err(|failure| Failure::invalid(format!("{name}: {}", failure.message)))?;
    Ok(parsed.unwrap_or_default())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(error) => error.into(),
            Error::Io { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            other => Self::invalid(other.to_string()),
        }
    }
}

/// The last lines of a build that went well.
fn said(
    out: &mut Writer,
    built: &build::Built,
    tags: &[String],
    quiet: bool,
) -> Result<(), Failure> {
    let Some(image) = &built.image else { return Ok(()) };
    let id = image.id.to_string();
    if quiet {
        return line(out, &stream(format!("{id}\n")));
    }
    line(out, &json!({"aux": {"ID": id}}))?;
    let hex = id.split_once(':').map_or(id.as_str(), |(_, hex)| hex);
    let short: String = hex.chars().take(12).collect();
    line(out, &stream(format!("Successfully built {short}\n")))?;
    for tag in tags {
        let name = Reference::parse(tag)?.or_latest().familiar();
        line(out, &stream(format!("Successfully tagged {name}\n")))?;
    }
    Ok(())
}

/// The last line of one that did not. A command's exit code becomes that of `docker build`.
fn failed(out: &mut Writer, error: Error) -> Result<(), Failure> {
    let mut message = error.to_string();
    let mut detail = serde_json::Map::new();
    if let Error::Failed { command, code, .. } = &error {
        // Where it is, and then the words of the classic builder, which clients look for.
        line(out, &stream(format!("{message}\n")))?;
        message = format!("The command '{command}' returned a non-zero code: {code}");
        detail.insert("code".into(), (*code).into());
    }
    detail.insert("message".into(), message.as_str().into());
    line(out, &json!({"errorDetail": detail, "error": message}))
}

fn stream(text: String) -> serde_json::Value {
    json!({"stream": text})
}

fn line<T: Serialize>(out: &mut Writer, value: &T) -> Result<(), Failure> {
    out.line(value).map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// Whether an instruction begins a stage; of such, nothing is cached.
fn is_from(text: &str) -> bool {
    text.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("FROM "))
}

/// What happens, in the classic builder's words.
struct Lines<'a> {
    out: &'a mut Writer,
    /// All instructions, by the beginning of their events' titles.
    instructions: Vec<(String, String)>,
    /// So many of them were named.
    named: usize,
    quiet: bool,
    /// So many are to be named, once it is known whether their results were there.
    due: usize,
    /// Whether that of the last step was.
    cached: bool,
    /// Bytes of a character whose rest has not come, and whether they are of standard error.
    rest: Vec<u8>,
    of_error: bool,
    watch: Option<Watch>,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut Writer, plan: &Plan, quiet: bool) -> Self {
        let instructions = plan.instructions();
        Self {
            out,
            instructions,
            named: 0,
            quiet,
            due: 0,
            cached: false,
            rest: Vec::new(),
            of_error: false,
            watch: None,
        }
    }

    fn say(&mut self, text: String) {
        // A client that is gone is noticed by who watches.
        let _ = self.out.line(&stream(text));
    }

    /// Names the instructions that are due: one that had an event, and those before it that change no file and so
    /// had none. What is there of the one is there of the others.
    fn name(&mut self, cached: bool) {
        let total = self.instructions.len();
        while self.named < self.due {
            let Some((_, text)) = self.instructions.get(self.named) else { return };
            let text = text.clone();
            self.named = self.named.saturating_add(1);
            self.say(format!("Step {}/{total} : {text}\n", self.named));
            if cached && !is_from(&text) {
                self.say(" ---> Using cache\n".into());
            }
        }
    }

    /// The build is over; instructions at its end had no event either.
    fn end(&mut self, well: bool) {
        self.watch = None;
        if !self.quiet {
            if well {
                self.due = self.instructions.len();
            }
            self.name(well && self.cached);
        }
    }

    fn output(&mut self, bytes: &[u8], error: bool) {
        if self.of_error != error {
            self.rest.clear();
            self.of_error = error;
        }
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            // Within a character at the end.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let kept = self.rest.split_off(whole);
        let text = std::mem::replace(&mut self.rest, kept);
        if !text.is_empty() {
            let text = String::from_utf8_lossy(&text);
            // Red, as the classic builder has it.
            self.say(if error { format!("\x1b[91m{text}\x1b[0m") } else { text.into_owned() });
        }
    }
}

impl Progress for Lines<'_> {
    fn event(&mut self, event: Event) {
        if self.quiet {
            return;
        }
        match event {
            Event::Begin { title, .. } => {
                self.name(false);
                self.rest.clear();
                let rest = self.instructions.iter().skip(self.named);
                let known =
                    rest.enumerate().find(|(_, (label, _))| title.starts_with(label.as_str()));
                match known {
                    Some((at, (_, text))) => {
                        self.due = self.named.saturating_add(at).saturating_add(1);
                        self.cached &= is_from(text);
                    }
                    // A trigger of the base image.
                    None => self.say(format!("# {title}\n")),
                }
            }
            Event::Cached { .. } => {
                self.name(true);
                self.cached = true;
            }
            Event::Output { bytes, error, .. } => {
                self.name(false);
                self.output(&bytes, error);
            }
            Event::Fetch { message, .. } => {
                let _ = self.out.line(&message);
            }
            Event::Warning(text) => self.say(format!("[Warning] {text}\n")),
            Event::Done { .. } | Event::Failed { .. } => self.name(false),
        }
    }

    fn begin_command(&mut self) -> Option<OwnedFd> {
        if !self.quiet {
            self.name(false);
        }
        if self.watch.is_none() {
            self.watch = self.out.watch().ok();
        }
        self.watch.as_ref()?.fd.try_clone().ok()
    }
}

pub(crate) async fn prune(request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pruned {
        caches_deleted: Vec<String>,
        space_reclaimed: u64,
    }
    let query = request.query();
    let all = query.flag("all");
    let bound = match query.number::<i64>("reserved-space")? {
        Some(bytes) => Some(bytes),
        None => query.number::<i64>("keep-storage")?,
    };
    let bound = match query.number::<i64>("max-used-space")? {
        Some(most) => Some(bound.map_or(most, |bytes| bytes.max(most))),
        None => bound,
    };
    let bound = bound.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    let mut until = Vec::new();
    for (name, values) in query.filters()? {
        for value in values {
            match name.as_str() {
                "until" | "unused-for" => {
                    let at = engine::parse_time(&value)?;
                    until.push((name == "until", at));
                }
                other => return Err(Failure::invalid(format!("invalid filter '{other}'"))),
            }
        }
    }
    let pruned = server
        .work
        .run::<_, Failure, _>(move |engine: &Engine| {
            let (gone, mut freed) = match bound {
                Some(bytes) => build::cache::trim_all(engine, bytes)?,
                None => {
                    let keep = |step: &store::CachedStep| {
                        until.iter().any(|(made, bound)| {
                            let at = if *made { step.created_ns } else { step.used_ns };
                            at >= *bound
                        })
                    };
                    (build::cache::prune(engine, all, &keep)?, 0)
                }
            };
            let own = gone.iter().filter(|step| !step.shared).map(|step| step.size);
            let mut space_reclaimed = own.fold(0, u64::saturating_add);
            if all && bound.is_none() {
                let keep = |mount: &build::cache::MountCache| {
                    until.iter().any(|(_, bound)| mount.used_ns >= *bound)
                };
                freed = build::cache::remove_mounts(engine, &keep)?;
            }
            space_reclaimed = space_reclaimed.saturating_add(freed);
            let caches_deleted = gone.into_iter().map(|step| step.key).collect();
            Ok(Pruned { caches_deleted, space_reclaimed })
        })
        .await?;
    Ok(answer_json(&pruned))
}
