//! Build an image from a Dockerfile.

mod cache;
mod given_up;
mod live;
mod show;
mod there;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use build::lock::LockFile;
use build::{File, Options, Stop};

use crate::context::{self, Context};
use crate::door::Door;
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::number::parse_int;
use crate::values::opts::{parse_extra_host, parse_ulimit};
use crate::values::size::{parse_size, parse_swap};
use show::Show;

/// Exit code of a build that was given up, as a shell says that a signal ended it.
const GIVEN_UP: u8 = 130;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Add a line to /etc/hosts of the steps (host:ip)
    #[arg(long, value_name = "list", value_parser = parse_extra_host)]
    add_host: Vec<String>,
    /// Let steps have what gives them power over this machine: network.host, security.insecure
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    allow: Vec<String>,
    /// Value of an ARG
    #[arg(long, value_name = "list")]
    build_arg: Vec<String>,
    /// Another context: name=directory, name=docker-image://image, or the address of a repository or an archive
    #[arg(long, value_name = "list")]
    build_context: Vec<String>,
    /// Results of other builds: name, type=registry,ref=name or type=local,src=directory
    #[arg(long, value_name = "strings")]
    cache_from: Vec<String>,
    /// Where results go for other builds: type=registry,ref=name or type=local,dest=directory[,mode=min|max][,mounts=false]
    #[arg(long, value_name = "strings")]
    cache_to: Vec<String>,
    /// Parent of the steps' cgroups
    #[arg(long, value_name = "string", default_value = "")]
    cgroup_parent: String,
    /// Say what in the Dockerfile is probably not meant, and build nothing
    #[arg(long)]
    check: bool,
    /// Contexts are read where they are, there is nothing to compress
    #[arg(long, hide = true)]
    compress: bool,
    /// Period of the processor limit of a step, µs
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_period: Option<i64>,
    /// Processor time of a step in each period, µs
    #[arg(long, value_name = "int", value_parser = parse_int)]
    cpu_quota: Option<i64>,
    /// Share of the processors against others
    #[arg(long, short = 'c', value_name = "int", value_parser = parse_int)]
    cpu_shares: Option<i64>,
    /// Processors the steps may use (0-3, 0,1)
    #[arg(long, value_name = "string", default_value = "")]
    cpuset_cpus: String,
    /// Memory nodes the steps may use (0-3, 0,1)
    #[arg(long, value_name = "string", default_value = "")]
    cpuset_mems: String,
    /// Open a shell in the files of a step that failed
    #[arg(long)]
    debug_on_failure: bool,
    /// Signatures are not checked
    #[arg(long, default_value = "true", hide = true)]
    disable_content_trust: bool,
    /// The Dockerfile (default "PATH/Dockerfile")
    #[arg(long, short = 'f', value_name = "string")]
    file: Option<String>,
    /// Remove containers after a failed build; it is always done
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Write the image's ID to a file
    #[arg(long, value_name = "string")]
    iidfile: Option<String>,
    /// Windows only: how steps are kept apart
    #[arg(long, value_name = "string", default_value = "", hide = true)]
    isolation: String,
    /// Set a label of the image
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Record base images and addresses by digest in this file; if it is there, use nothing else
    #[arg(long, value_name = "string")]
    lock: Option<String>,
    /// Write the file of --lock anew
    #[arg(long)]
    lock_update: bool,
    /// Most memory of a step
    #[arg(long, short = 'm', value_name = "bytes", value_parser = parse_size)]
    memory: Option<i64>,
    /// Memory and swap together of a step; -1 is no limit
    #[arg(long, value_name = "bytes", value_parser = parse_swap)]
    memory_swap: Option<i64>,
    /// Write what is known of the image to a file
    #[arg(long, value_name = "string")]
    metadata_file: Option<String>,
    /// Network of the steps
    #[arg(long, value_name = "string")]
    network: Option<String>,
    /// Take nothing from the cache
    #[arg(long)]
    no_cache: bool,
    /// Take nothing from the cache for these stages
    #[arg(long, value_name = "list", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Where the result goes: type=image, local, tar, docker or oci, dest=path; a path alone is local
    #[arg(long, short = 'o', value_name = "list")]
    output: Vec<String>,
    /// Platform of the image (os/arch[/variant])
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Print the plan and do nothing
    #[arg(long)]
    print_graph: bool,
    /// How progress is shown: auto, tty, plain, json, quiet
    #[arg(long, value_name = "string", default_value = "auto")]
    progress: String,
    /// Fetch base images even if they are here
    #[arg(long)]
    pull: bool,
    /// Print the image's ID alone
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Remove containers of steps; it is always done
    #[arg(long, default_value = "true", hide = true)]
    rm: bool,
    /// A secret of the steps: id=name[,src=file|env=variable]
    #[arg(long, value_name = "list")]
    secret: Vec<String>,
    /// An agent for steps with --mount=type=ssh: default, or id=socket
    #[arg(long, value_name = "list")]
    ssh: Vec<String>,
    /// Security options of the steps
    #[arg(long, value_name = "strings")]
    security_opt: Vec<String>,
    /// Make one layer of all that are above the base
    #[arg(long)]
    squash: bool,
    /// A container that steps reach by its name: name=image[,env=name=value][,health=command][,command=command]
    #[arg(long, value_name = "list")]
    service: Vec<String>,
    /// Size of the steps' /dev/shm
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    shm_size: Option<i64>,
    /// Name of the image (repository[:tag])
    #[arg(long, short = 't', value_name = "list")]
    tag: Vec<String>,
    /// Build up to this stage
    #[arg(long, value_name = "string")]
    target: Option<String>,
    /// Build twice without the cache, and fail at the first file that differs
    #[arg(long)]
    verify: bool,
    /// Limit of the steps' processes
    #[arg(long, value_name = "list", value_parser = parse_ulimit)]
    ulimit: Vec<engine::types::Ulimit>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "build"], &["build"], &["builder", "build"]],
        "[OPTIONS] PATH | URL | -",
        "Build an image from a Dockerfile",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        super::no_trust("build", self.disable_content_trust)?;
        if !matches!(self.isolation.as_str(), "" | "default") {
            let why = "how containers are kept apart can be chosen on Windows only";
            return Err(Failure::new(1, format!("--isolation {}: {why}", self.isolation)).into());
        }
        let engine = match context.engine()? {
            Door::Local(engine) => engine,
            Door::Remote(remote) => return self.there(&remote),
        };
        let stop = given_up::watch(context)?;
        let mut held = Held::default();
        let (file, files) = self.input(context, &engine, &mut held, &stop)?;
        let mut options = Options::new(file, files);
        options.taken = held.fetched.as_ref().and_then(|fetched| fetched.taken.clone());
        options.stop = stop.clone();
        self.fill(&mut options)?;
        let outputs =
            self.output.iter().map(|text| Output::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let files_alone = |output: &Output| matches!(output.kind, Kind::Local | Kind::Tar);
        options.image = outputs.is_empty() || !outputs.iter().all(files_alone);
        if self.check {
            return check(&build::plan(&options).map_err(shown)?.file);
        }
        if self.print_graph {
            context::print(&build::plan(&options).map_err(shown)?.to_string())?;
            return Ok(0);
        }
        let client = crate::registries::client(context, false)?;
        let mut show = Show::new(&self.progress, self.quiet, stop.clone())?;
        let build = if self.verify { build::verify::verify } else { build::build };
        let built = build(&engine, Some(&client), &options, &mut show).map_err(shown)?;
        for output in &outputs {
            output.write(&engine, &built, &self.tag, &stop)?;
        }
        show.end(&built, &self.tag);
        let Some(image) = &built.image else { return Ok(0) };
        let id = image.id.to_string();
        if let Some(path) = &self.iidfile {
            write_file(path, &id)?;
        }
        if let Some(path) = &self.metadata_file {
            let mut metadata = serde_json::Map::new();
            metadata.insert("containerimage.config.digest".into(), id.clone().into());
            if !self.tag.is_empty() {
                let names: Vec<String> = image.references.iter().map(ToString::to_string).collect();
                metadata.insert("image.name".into(), names.join(",").into());
            }
            write_file(path, &format!("{}\n", serde_json::to_string_pretty(&metadata)?))?;
        }
        let to_stdout =
            outputs.iter().any(|output| output.path.is_none() && output.kind != Kind::Image);
        if to_stdout {
            return Ok(0);
        }
        if self.quiet || self.progress == "quiet" || self.tag.is_empty() {
            context::println(&id)?;
        }
        Ok(0)
    }
}

/// Contexts that end with the build.
#[derive(Default)]
struct Held {
    unpacked: Option<build::upload::Unpacked>,
    fetched: Option<build::remote::Fetched>,
}

/// Prints what is probably not meant; 1 if the file says that it is an error.
fn check(file: &build::language::file::Dockerfile) -> Outcome {
    let found = build::language::check::check(file);
    for finding in &found {
        let shown = file.diagnose(finding.problem.clone());
        context::println(&format!("WARNING: {}\n{shown}\n", finding.rule))?;
    }
    let count = match found.len() {
        0 => "Check complete, no warnings found.".to_owned(),
        1 => "Check complete, 1 warning has been found!".to_owned(),
        n => format!("Check complete, {n} warnings have been found!"),
    };
    context::println(&count)?;
    Ok(u8::from(!found.is_empty() && build::language::check::is_error(file)))
}

/// The build's error, all of its lines.
fn shown(error: build::Error) -> anyhow::Error {
    match error {
        build::Error::Engine(error) => error.into(),
        build::Error::GivenUp => Failure::new(GIVEN_UP, error.to_string()).into(),
        other => Failure::new(1, other.to_string()).into(),
    }
}

fn write_file(path: &str, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| Failure::new(1, format!("writing {path}: {e}")))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => e.to_string(),
        };
        Failure::new(1, format!("failed to read dockerfile: open {}: {why}", path.display()))
    })
}

impl Args {
    /// The Dockerfile and the context that the arguments name.
    fn input(
        &self,
        context: &Context,
        engine: &engine::Engine,
        held: &mut Held,
        stop: &Stop,
    ) -> anyhow::Result<(File, build::Context)> {
        let path = super::one(&self.args)?;
        if build::remote::is_remote(path) && !Path::new(path).exists() {
            let client = crate::registries::client(context, false)?;
            let lock = self.lock_file();
            let context = build::remote::locked_context(engine, &client, path, lock.as_ref(), stop)
                .map_err(shown)?;
            let context = held.fetched.insert(context);
            let name = self.file.clone().unwrap_or_else(|| "Dockerfile".into());
            let file = context.file.clone().unwrap_or(File::InContext(name));
            return Ok((file, context.context.clone()));
        }
        if path == "-" {
            return self.standard_input(engine, &mut held.unpacked, stop);
        }
        self.directory(path)
    }

    /// A directory as the context, and the Dockerfile in it or elsewhere.
    fn directory(&self, path: &str) -> anyhow::Result<(File, build::Context)> {
        let directory = PathBuf::from(path);
        if !directory.is_dir() {
            let message = format!("unable to prepare context: path {path:?} not found");
            return Err(Failure::new(1, message).into());
        }
        let files = build::Context::Directory(directory);
        let file = match self.file.as_deref() {
            None => File::InContext("Dockerfile".into()),
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                File::Text { name: "Dockerfile".into(), text, ignore: None }
            }
            Some(name) => {
                let path = PathBuf::from(name);
                let text = read_text(&path)?;
                let beside = PathBuf::from(format!("{name}.dockerignore"));
                let ignore = if beside.is_file() { Some(read_text(&beside)?) } else { None };
                File::Text { name: name.to_owned(), text, ignore }
            }
        };
        Ok((file, files))
    }

    /// Standard input is a Dockerfile, or the archive of a context.
    fn standard_input(
        &self,
        engine: &engine::Engine,
        unpacked: &mut Option<build::upload::Unpacked>,
        stop: &Stop,
    ) -> anyhow::Result<(File, build::Context)> {
        // Whoever writes it may take as long as they like.
        let _deaf = stop.deaf();
        let mut stdin = std::io::stdin().lock();
        let mut start = Vec::new();
        Read::by_ref(&mut stdin).take(512).read_to_end(&mut start)?;
        if build::upload::is_archive(&start) {
            let mut whole = std::io::Cursor::new(start).chain(stdin);
            let context = unpacked.insert(build::upload::Unpacked::new(engine, &mut whole)?);
            let name = self.file.clone().unwrap_or_else(|| "Dockerfile".into());
            let files = build::Context::Directory(context.path().to_owned());
            return Ok((File::InContext(name), files));
        }
        if self.file.is_some() {
            let message = "-f needs a context: standard input is a Dockerfile itself";
            return Err(Failure::new(1, message).into());
        }
        const MOST: u64 = 8 << 20;
        stdin.take(MOST).read_to_end(&mut start)?;
        let text = String::from_utf8(start).map_err(|_| {
            Failure::new(1, "standard input is neither a Dockerfile nor an archive")
        })?;
        Ok((File::Text { name: "Dockerfile".into(), text, ignore: None }, build::Context::Empty))
    }

    fn lock_file(&self) -> Option<LockFile> {
        let update = self.lock_update;
        self.lock.as_ref().map(|path| LockFile { path: path.into(), update })
    }

    fn fill(&self, options: &mut Options) -> anyhow::Result<()> {
        for what in &self.allow {
            match what.as_str() {
                "network.host" => options.allow.network_host = true,
                "security.insecure" => options.allow.security_insecure = true,
                // Here a build reads what it was told to, and nothing else.
                text if text == "ssh" || text.starts_with("fs") => {}
                other => {
                    let why = "expected network.host or security.insecure";
                    return Err(Failure::new(1, format!("--allow {other}: {why}")).into());
                }
            }
        }
        for text in &self.build_arg {
            match text.split_once('=') {
                Some((name, value)) => {
                    options.build_args.insert(name.to_owned(), value.to_owned());
                }
                // A name alone takes the value from the environment, if there is one.
                None => {
                    if let Ok(value) = std::env::var(text) {
                        options.build_args.insert(text.clone(), value);
                    }
                }
            }
        }
        for text in &self.build_context {
            let (name, value) =
                text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                    Failure::new(1, format!("invalid context value: {text}, expected key=value"))
                })?;
            let known = Path::new(value).is_dir()
                || value.starts_with("docker-image://")
                || build::remote::is_remote(value);
            if !known && !value.contains("://") {
                let message =
                    format!("failed to get build context {name}: {value} is no directory");
                return Err(Failure::new(1, message).into());
            }
            if !known {
                let why = "give a directory, docker-image://name, or the address of a repository or an archive";
                return Err(Failure::new(1, format!("--build-context {text}: {why}")).into());
            }
            options.named_contexts.insert(name.to_lowercase(), value.to_owned());
        }
        for text in &self.label {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            options.labels.insert(name.to_owned(), value.to_owned());
        }
        options.cache_from =
            self.cache_from.iter().map(|text| cache::from(text)).collect::<Result<_, _>>()?;
        options.cache_to =
            self.cache_to.iter().map(|text| cache::to(text)).collect::<Result<_, _>>()?;
        if self.lock_update && self.lock.is_none() {
            return Err(Failure::new(1, "--lock-update needs --lock FILE").into());
        }
        options.lock = self.lock_file();
        if self.debug_on_failure {
            let from_stdin =
                self.args.iter().any(|path| path == "-") || self.file.as_deref() == Some("-");
            if from_stdin {
                let why = "standard input is for the shell, and cannot be the context, too";
                return Err(Failure::new(1, format!("--debug-on-failure: {why}")).into());
            }
            let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
            options.debug = Some(build::Debug { terminal });
            // Nothing else happens while somebody looks.
            options.jobs = 1;
        }
        for text in &self.service {
            let service = build::services::Service::parse(text)
                .map_err(|why| Failure::new(1, format!("--service: {why}")))?;
            options.services.push(service);
        }
        options.secrets = secrets(&self.secret)?;
        options.agents = agents(&self.ssh)?;
        options.tags.clone_from(&self.tag);
        options.target.clone_from(&self.target);
        options.jobs = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        options.platform = self.platform.clone().filter(|text| !text.is_empty());
        options.no_cache = self.no_cache;
        options.no_cache_filter.clone_from(&self.no_cache_filter);
        options.pull = self.pull;
        options.squash = self.squash;
        options.network.clone_from(&self.network);
        options.add_hosts.clone_from(&self.add_host);
        options.shm_size = self.shm_size.unwrap_or(0);
        options.memory = self.memory.unwrap_or(0);
        options.memory_swap = self.memory_swap.unwrap_or(0);
        options.cpu_shares = self.cpu_shares.unwrap_or(0);
        options.cpu_period = self.cpu_period.unwrap_or(0);
        options.cpu_quota = self.cpu_quota.unwrap_or(0);
        options.cpuset_cpus.clone_from(&self.cpuset_cpus);
        options.cpuset_mems.clone_from(&self.cpuset_mems);
        options.security_opt.clone_from(&self.security_opt);
        options.cgroup_parent.clone_from(&self.cgroup_parent);
        options.ulimits.clone_from(&self.ulimit);
        let epoch = options.build_args.get("SOURCE_DATE_EPOCH").cloned();
        let epoch =
            epoch.or_else(|| std::env::var("SOURCE_DATE_EPOCH").ok()).filter(|e| !e.is_empty());
        options.source_date_epoch = match epoch {
            Some(text) => Some(text.trim().parse().ok().filter(|n| *n >= 0).ok_or_else(|| {
                Failure::new(1, format!("SOURCE_DATE_EPOCH={text}: expected seconds since 1970"))
            })?),
            None => None,
        };
        Ok(())
    }
}

/// Where a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Into the store.
    Image,
    /// Files into a directory.
    Local,
    /// Files as an archive.
    Tar,
    /// As of `save`.
    Docker,
    /// An OCI image layout.
    Oci,
}

/// One `--output`.
#[derive(Debug)]
struct Output {
    kind: Kind,
    /// None is standard output.
    path: Option<PathBuf>,
}

impl Output {
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::new(1, format!("--output {text}: {why}"));
        if text == "-" {
            return Ok(Self { kind: Kind::Tar, path: None });
        }
        if !text.contains('=') {
            return Ok(Self { kind: Kind::Local, path: Some(text.into()) });
        }
        let (mut kind, mut path) = (None, None);
        for field in crate::values::mount::csv(text).map_err(|why| bad(&why))? {
            match field.split_once('=') {
                Some(("type", value)) => {
                    kind = Some(match value {
                        "image" => Kind::Image,
                        "local" => Kind::Local,
                        "tar" => Kind::Tar,
                        "docker" => Kind::Docker,
                        "oci" => Kind::Oci,
                        _ => return Err(bad("the type is image, local, tar, docker or oci")),
                    });
                }
                Some(("dest" | "destination", value)) => path = Some(value.to_owned()),
                _ => return Err(bad("expected type=…[,dest=…]")),
            }
        }
        let kind = kind.ok_or_else(|| bad("type is missing"))?;
        let path = path.filter(|path| path != "-").map(PathBuf::from);
        match (kind, &path) {
            (Kind::Local, None) => Err(bad("dest is missing")),
            // Without a file it is for the engine, which has it already.
            (Kind::Docker, None) => Ok(Self { kind: Kind::Image, path }),
            _ => Ok(Self { kind, path }),
        }
    }

    fn write(
        &self,
        engine: &engine::Engine,
        built: &build::Built,
        tags: &[String],
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let format = match self.kind {
            Kind::Image => return Ok(()),
            Kind::Local => {
                let path = self.path.clone().unwrap_or_default();
                return build::output::local(engine, &built.layers, &path).map_err(shown);
            }
            Kind::Docker => Some(engine::ArchiveFormat::Docker),
            Kind::Oci => Some(engine::ArchiveFormat::OciLayout),
            Kind::Tar => None,
        };
        let out: Box<dyn Write> = match &self.path {
            None if std::io::IsTerminal::is_terminal(&std::io::stdout()) => {
                let why = "an archive is not for a terminal; give dest= or redirect";
                return Err(Failure::new(1, format!("--output: {why}")).into());
            }
            None => Box::new(context::out()),
            Some(path) => {
                let file = std::fs::File::create(path)
                    .map_err(|e| Failure::new(1, format!("writing {}: {e}", path.display())))?;
                Box::new(std::io::BufWriter::new(file))
            }
        };
        let mut out = stop.within(out);
        let mut write = || -> anyhow::Result<()> {
            match (format, &built.image) {
                (Some(format), Some(image)) => {
                    let names =
                        if tags.is_empty() { vec![image.id.to_string()] } else { tags.to_vec() };
                    engine.save(&names, format, &mut out)?;
                }
                _ => build::output::tar(engine, &built.layers, &mut out).map_err(shown)?,
            }
            Ok(out.flush()?)
        };
        let written = write();
        if written.is_err()
            && let Some(path) = self.path.as_ref().filter(|path| path.is_file())
        {
            // Half an archive is none.
            let _ = std::fs::remove_file(path);
        }
        match written {
            Err(_) if stop.is_set() => Err(shown(build::Error::GivenUp)),
            other => other,
        }
    }
}

/// Reads `--ssh`.
fn agents(list: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    use std::os::unix::fs::FileTypeExt;
    let mut agents = BTreeMap::new();
    for text in list {
        let bad = |why: &str| Failure::new(1, format!("--ssh {text}: {why}"));
        let (id, socket) = match text.split_once('=') {
            Some((id, path)) => (id, PathBuf::from(path)),
            None => {
                let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
                let none = || bad("no agent is running here: SSH_AUTH_SOCK is not set");
                (text.as_str(), PathBuf::from(socket.ok_or_else(none)?))
            }
        };
        let metadata = std::fs::metadata(&socket)
            .map_err(|e| bad(&format!("looking at {}: {e}", socket.display())))?;
        if !metadata.file_type().is_socket() {
            let why = "is no agent's socket; start an agent and add the key to it";
            return Err(bad(&format!("{} {why}", socket.display())));
        }
        let socket = std::fs::canonicalize(&socket).unwrap_or(socket);
        agents.insert(id.to_owned(), socket);
    }
    Ok(agents)
}

/// Reads `--secret`.
fn secrets(list: &[String]) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut secrets = BTreeMap::new();
    for text in list {
        let bad = |why: &str| Failure::new(1, format!("--secret {text}: {why}"));
        let (mut id, mut source, mut env) = (None, None, None);
        for field in crate::values::mount::csv(text).map_err(|why| bad(&why))? {
            match field.split_once('=') {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("src" | "source", value)) => source = Some(value.to_owned()),
                Some(("env", value)) => env = Some(value.to_owned()),
                Some(("type", "file" | "env")) => {}
                _ => return Err(bad("expected id=name[,src=file|env=variable]")),
            }
        }
        let id = id.ok_or_else(|| bad("id is missing"))?;
        let content = match (source, env) {
            (Some(path), _) => {
                std::fs::read(&path).map_err(|e| bad(&format!("reading {path}: {e}")))?
            }
            (None, env) => {
                let name = env.unwrap_or_else(|| id.clone());
                std::env::var(&name)
                    .map_err(|_| bad(&format!("the variable {name} is not set")))?
                    .into_bytes()
            }
        };
        secrets.insert(id, content);
    }
    Ok(secrets)
}
