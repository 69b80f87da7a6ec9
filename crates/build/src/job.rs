//! A build under way: the stages of a plan, one after the other unless [`crate::side_by_side`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use engine::{Engine, Message, PullOptions, Transfer};
use oci::config::ImageConfig;
use oci::manifest::Platform;
use oci::{DiffId, Digest};
use store::{CachedStep, Hold, ImageRecord};

use crate::elsewhere::{self, Imported};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::language::dockerignore::Ignore;
use crate::language::file::Dockerfile;
use crate::language::instruction::Instruction;
use crate::language::problem::{Problem, Span, did_you_mean};
use crate::lock::{Lock, LockedImage};
use crate::options::{Context, File, Options};
use crate::plan::{Base, Origin, Plan, PlannedStage};
use crate::progress::{Event, Progress};
use crate::remote::{self, Fetched};
use crate::stage::Stage;
use crate::stop::Stop;
use crate::tree::{Known, Tree};

/// No Dockerfile is larger.
const LARGEST_FILE: u64 = 8 << 20;

/// What a build made.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image, unless only its files were wanted.
    pub image: Option<ImageRecord>,
    /// Its layers, the lowest first.
    pub layers: Vec<DiffId>,
    /// Every step that made a layer, in order: its title, and the layer.
    pub steps: Vec<(String, DiffId)>,
    /// How many of its steps were taken from the cache.
    pub cached: usize,
    /// How many were done.
    pub done: usize,
}

/// Reads the Dockerfile of these options and makes the plan.
///
/// # Errors
/// A context or file that is not there; a Dockerfile that is wrong.
pub fn plan(options: &Options) -> Result<Plan> {
    let (file, _) = open(options)?;
    Plan::new(file, options)
}

/// The Dockerfile and the context.
pub(crate) fn open(options: &Options) -> Result<(Dockerfile, Option<Tree>)> {
    let bare = match &options.context {
        Context::Directory(path) => Some((path, Tree::open(path, Ignore::default())?)),
        Context::Empty => None,
    };
    let text_of = |bytes: Vec<u8>, name: &str| {
        String::from_utf8(bytes).map_err(|_| Error::Invalid(format!("{name} is not text in UTF-8")))
    };
    let (name, text, mut ignore) = match &options.file {
        File::Text { name, text, ignore } => (name.clone(), text.clone(), ignore.clone()),
        File::InContext(path) => {
            let Some((directory, tree)) = &bare else {
                return Err(Error::Invalid("there is no context to find a Dockerfile in".into()));
            };
            let missing = || {
                Error::Invalid(format!(
                    "failed to read dockerfile: open {}: no such file; name another with -f",
                    directory.join(path).display()
                ))
            };
            let bytes = tree.read(path, LARGEST_FILE)?.ok_or_else(missing)?;
            let ignore = tree.read(&format!("{path}.dockerignore"), LARGEST_FILE)?;
            let ignore = ignore.map(|bytes| text_of(bytes, ".dockerignore")).transpose()?;
            (path.clone(), text_of(bytes, path)?, ignore)
        }
    };
    let file = Dockerfile::parse(&name, &text)?;
    let Some((directory, tree)) = bare else { return Ok((file, None)) };
    if ignore.is_none() {
        let bytes = tree.read(".dockerignore", LARGEST_FILE)?;
        ignore = bytes.map(|bytes| text_of(bytes, ".dockerignore")).transpose()?;
    }
    let tree = match ignore {
        None => tree,
        Some(text) => {
            let ignore = Ignore::parse(&text)
                .map_err(|message| Error::Invalid(format!(".dockerignore: {message}")))?;
            Tree::open(directory, ignore)?
        }
    };
    Ok((file, Some(tree)))
}

/// Builds an image. `client` fetches base images that are not here; without it that is an error.
///
/// # Errors
/// Whatever goes wrong; the cache keeps what was done until then.
pub fn build(
    engine: &Engine,
    client: Option<&registry::Client>,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Built> {
    let (file, context) = open(options)?;
    let plan = Plan::new(file, options)?;
    for tag in &options.tags {
        oci::Reference::parse(tag)
            .map_err(|e| Error::Invalid(format!("invalid tag {tag:?}: {e}")))?;
    }
    check_allowed(&plan, options)?;
    let stop = options.stop.clone();
    stop.check()?;
    let mut context = context;
    if let Some(tree) = &mut context {
        tree.stop = stop.clone();
    }
    engine.sweep_steps()?;
    let hold = engine.hold()?;
    let known_path = known_path(engine, options);
    let counter = AtomicUsize::new(0);
    let lock = options.lock.as_ref().map(Lock::open).transpose()?;
    if let (Some(lock), Some(taken)) = (&lock, &options.taken) {
        lock.note(taken)?;
    }
    let contexts = Mutex::default();
    let mut imported = Vec::new();
    for place in &options.cache_from {
        // Without it the build takes longer, no more.
        let _deaf = stop.deaf();
        match Imported::read(place, client) {
            Ok(Some(cache)) => imported.push(cache),
            Ok(None) => {
                progress.event(Event::Warning(format!("there is no build cache {place} yet")))
            }
            Err(error) => progress.event(Event::Warning(error.to_string())),
        }
    }
    let mut job = Job {
        engine,
        client,
        options,
        plan: &plan,
        context,
        known: known_path.as_deref().map(Known::load).unwrap_or_default(),
        progress,
        counter: &counter,
        stop,
        contexts: &contexts,
        step: 0,
        began: Instant::now(),
        reported: 0,
        used: Vec::new(),
        keys: Vec::new(),
        mounts: BTreeSet::new(),
        lock: lock.as_ref(),
        imported: &imported,
        done: 0,
        stages: BTreeMap::new(),
        images: BTreeMap::new(),
        title: String::new(),
        steps: Vec::new(),
    };
    let result = job.all();
    if let Some(path) = &known_path {
        job.known.save(path);
    }
    let used = std::mem::take(&mut job.used);
    let steps = std::mem::take(&mut job.steps);
    let (cached, done) = (used.len(), job.done);
    let mounts = done > 0 && !job.mounts.is_empty();
    // What was used stays used, also if the build failed later.
    engine.used_steps(&used)?;
    let unused = plan.globals.unused();
    let (image, layers) = result?;
    if let Some(lock) = &lock {
        lock.save()?;
    }
    if !options.cache_to.is_empty() {
        job.export(&layers)?;
    }
    if !unused.is_empty() {
        progress.event(Event::Warning(format!(
            "one or more build-args [{}] were not consumed",
            unused.join(" ")
        )));
    }
    finish(hold, engine, mounts)?;
    Ok(Built { image, layers, steps, cached, done })
}

/// The cache is bounded; what was unused for the longest time goes first.
fn finish(hold: Hold, engine: &Engine, mounts: bool) -> Result<()> {
    drop(hold);
    crate::cache::trim(engine, crate::cache::BOUND)?;
    // Measuring them takes time, and only steps that were done made them larger.
    if mounts {
        crate::cache::trim_mounts(engine, crate::cache::BOUND)?;
    }
    Ok(())
}

fn known_path(engine: &Engine, options: &Options) -> Option<PathBuf> {
    let Context::Directory(path) = &options.context else { return None };
    // What was sent for this build alone is not seen again.
    if path.starts_with(crate::upload::directory(engine)) {
        return None;
    }
    let path = std::fs::canonicalize(path).ok()?;
    let name = Digest::sha256(path.as_os_str().as_encoded_bytes()).hex();
    Some(engine.data_root().join("cache/contexts").join(name))
}

/// Contexts that were fetched.
pub(crate) type Contexts = Mutex<BTreeMap<String, Arc<Fetched>>>;

/// What the file asks for and nobody has allowed is refused before anything is done.
fn check_allowed(plan: &Plan, options: &Options) -> Result<()> {
    for planned in &plan.stages {
        let stage = plan.file.stages.get(planned.index);
        for step in stage.iter().flat_map(|stage| &stage.steps) {
            if let Instruction::Run(run) = &step.instruction {
                crate::running::allowed(run, options).map_err(|error| {
                    let problem = Problem::new(step.span, error.to_string());
                    Error::Dockerfile(plan.file.diagnose(problem))
                })?;
            }
        }
    }
    Ok(())
}

/// A build under way.
pub(crate) struct Job<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) client: Option<&'a registry::Client>,
    pub(crate) options: &'a Options,
    pub(crate) plan: &'a Plan,
    pub(crate) context: Option<Tree>,
    pub(crate) known: Known,
    pub(crate) progress: &'a mut dyn Progress,
    /// Steps that were begun, over the whole build.
    pub(crate) counter: &'a AtomicUsize,
    /// Somebody gave the build up, or a stage beside this one failed.
    pub(crate) stop: Stop,
    /// The step under way.
    pub(crate) step: usize,
    /// When it began.
    pub(crate) began: Instant,
    /// The last step whose end was reported.
    pub(crate) reported: usize,
    /// Keys of results that were used.
    pub(crate) used: Vec<String>,
    /// Keys of all results, those that were made among them.
    pub(crate) keys: Vec<String>,
    /// Names of the cache mounts that its steps have.
    pub(crate) mounts: BTreeSet<String>,
    /// What may come from elsewhere.
    pub(crate) lock: Option<&'a Lock>,
    /// Named contexts that were fetched, by their addresses.
    pub(crate) contexts: &'a Contexts,
    /// Caches of elsewhere.
    pub(crate) imported: &'a [Imported],
    pub(crate) done: usize,
    /// Stages that are done.
    pub(crate) stages: BTreeMap<usize, Stage>,
    /// Images that were looked up.
    pub(crate) images: BTreeMap<String, ImageRecord>,
    /// Of the step under way.
    pub(crate) title: String,
    /// Steps that made a layer.
    pub(crate) steps: Vec<(String, DiffId)>,
}

/// Passes a pull's reports on.
struct Fetching<'a, 'b>(&'a mut dyn Progress, usize, std::marker::PhantomData<&'b ()>);

impl Transfer for Fetching<'_, '_> {
    fn report(&mut self, message: Message) {
        self.0.event(Event::Fetch { step: self.1, message });
    }
}

impl Job<'_> {
    fn all(&mut self) -> Result<(Option<ImageRecord>, Vec<DiffId>)> {
        let plan = self.plan;
        if self.options.jobs > 1 && plan.is_parallel() {
            self.side_by_side()?;
        } else {
            for planned in &plan.stages {
                let stage = self.stage(planned)?;
                self.stages.insert(planned.index, stage);
            }
        }
        let last = self.stages.get(&plan.target).cloned();
        let mut stage = last.ok_or_else(|| Error::Invalid("the plan has no target".into()))?;
        if self.options.squash {
            stage = self.squash(stage)?;
        }
        let layers = stage.layers.clone();
        let image = if self.options.image { Some(self.image(stage)?) } else { None };
        Ok((image, layers))
    }

    /// Says where something went wrong, unless it says so itself.
    pub(crate) fn locate(&self, span: Span, error: Error) -> Error {
        match error {
            Error::Invalid(message) => {
                Error::Dockerfile(self.plan.file.diagnose(Problem::new(span, message)))
            }
            Error::Engine(error) => {
                let problem = Problem::new(span, error.to_string());
                Error::Dockerfile(self.plan.file.diagnose(problem))
            }
            other => other,
        }
    }

    pub(crate) fn stage(&mut self, planned: &PlannedStage) -> Result<Stage> {
        let plan = self.plan;
        let file = &plan.file;
        let source = file
            .stages
            .get(planned.index)
            .ok_or_else(|| Error::Invalid("the plan names a stage that is not there".into()))?;
        let label = |number: usize| plan.label(planned, number);
        self.begin(format!("{} {}", label(1), plan.from(planned)));
        let begun = match &planned.base {
            Base::Scratch => Ok(Stage::scratch(&self.platform(planned)?)),
            Base::Stage(index) => match self.stages.get(index) {
                Some(stage) => Ok(stage.next()),
                None => Err(Error::Invalid("a stage is needed before it is done".into())),
            },
            Base::Image(image) => {
                let platform = planned.platform.as_deref();
                self.image_named(image, platform).map(|record| Stage::of_image(&record))
            }
        };
        let mut stage = match begun {
            Ok(stage) => stage,
            Err(error) => {
                self.failed();
                return Err(self.locate(source.span, error));
            }
        };
        self.finished();
        let filter = &self.options.no_cache_filter;
        stage.cached = !self.options.no_cache
            && !filter.iter().any(|name| {
                name.eq_ignore_ascii_case(&planned.name) || *name == planned.index.to_string()
            });
        stage.index = planned.index;
        let triggers = stage.take_triggers().map_err(|error| self.locate(source.span, error))?;
        for mut step in triggers {
            step.span = source.span;
            let title = format!("{} ONBUILD {}", label(1), step.text);
            self.follow(&mut stage, &step, title)?;
        }
        for (number, step) in (2usize..).zip(&source.steps) {
            let title = format!("{} {}", label(number), step.text);
            self.follow(&mut stage, step, title)?;
        }
        Ok(stage)
    }

    fn platform(&self, planned: &PlannedStage) -> Result<Platform> {
        match &planned.platform {
            Some(platform) => Ok(Platform::parse(platform)?),
            None => Ok(Platform::host()),
        }
    }

    pub(crate) fn begin(&mut self, title: String) {
        self.step = self.counter.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut title = title.replace(['\n', '\r'], " ");
        const MOST: usize = 240;
        if title.chars().count() > MOST {
            title = title.chars().take(MOST).chain(['…']).collect();
        }
        self.title.clone_from(&title);
        self.progress.event(Event::Begin { step: self.step, title });
        self.began = Instant::now();
    }

    pub(crate) fn finished(&mut self) {
        self.reported = self.step;
        self.progress.event(Event::Done { step: self.step, took: self.began.elapsed() });
    }

    /// The build ends with the step under way, unless it was through.
    pub(crate) fn failed(&mut self) {
        if self.reported != self.step {
            self.reported = self.step;
            self.progress.event(Event::Failed { step: self.step, took: self.began.elapsed() });
        }
    }

    /// An image by its name; fetched if it is not here, or always with `--pull`.
    pub(crate) fn image_named(
        &mut self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<ImageRecord> {
        let label = format!("{name} {}", platform.unwrap_or_default());
        if let Some(image) = self.images.get(&label) {
            return Ok(image.clone());
        }
        let host = Platform::host().to_string();
        let locked_name = format!("{name} {}", platform.unwrap_or(&host));
        let locked = self.lock.map(|lock| lock.image(&locked_name)).transpose()?.flatten();
        let image = match locked {
            Some(locked) => self.locked_image(name, platform, &locked)?,
            None => self.any_image(name, platform)?,
        };
        if let Some(lock) = self.lock {
            let repository = name.parse::<oci::Reference>().map(|name| name.familiar_name());
            let same = |digest: &&oci::Reference| {
                repository.as_ref().is_ok_and(|name| digest.familiar_name() == *name)
            };
            let digest = image.digests.iter().find(same).map(ToString::to_string);
            lock.note_image(locked_name, LockedImage { id: image.id.to_string(), digest });
        }
        self.images.insert(label, image.clone());
        Ok(image)
    }

    /// The image that the lock file names, wherever its name points now.
    fn locked_image(
        &mut self,
        name: &str,
        platform: Option<&str>,
        locked: &LockedImage,
    ) -> Result<ImageRecord> {
        if let Some(image) = self.engine.build_base(&locked.id, None)? {
            return Ok(image);
        }
        if let Some(digest) = &locked.digest
            && self.client.is_some()
        {
            let image = self.any_image(digest, platform)?;
            if image.id.to_string() == locked.id {
                return Ok(image);
            }
        }
        let path = self.lock.map(Lock::path).unwrap_or(std::path::Path::new(""));
        let found = self.engine.build_base(name, platform)?;
        match (found, self.lock) {
            (Some(found), Some(lock)) => Err(lock.differs(name, &locked.id, &found.id.to_string())),
            _ => Err(Error::Invalid(format!(
                "{name} is locked to {} by {}, which is not here and was never in a registry: load it",
                locked.id,
                path.display()
            ))),
        }
    }

    fn any_image(&mut self, name: &str, platform: Option<&str>) -> Result<ImageRecord> {
        let here = self.engine.build_base(name, platform)?;
        let image = match (here, self.client) {
            (Some(image), _) if !self.options.pull => image,
            (here, client) => {
                let Some(client) = client else {
                    return here.ok_or_else(|| {
                        Error::Invalid(format!("No such image: {name}: pull or load it first"))
                    });
                };
                let options = PullOptions {
                    reference: name.to_owned(),
                    all_tags: false,
                    platform: platform.map(str::to_owned),
                    all_platforms: false,
                };
                let _deaf = self.stop.deaf();
                let mut fetching =
                    Fetching(&mut *self.progress, self.step, std::marker::PhantomData);
                match (self.engine.pull(client, &options, &mut fetching), here) {
                    (Ok(_), _) => {}
                    // An image by its ID, or one that no registry has, cannot be fetched anew.
                    (Err(_), Some(image)) if image.digests.is_empty() => return Ok(image),
                    (Err(error), _) => return Err(self.not_fetched(name, &error)),
                }
                let missing = || Error::Invalid(format!("No such image: {name}"));
                self.engine.build_base(name, None)?.ok_or_else(missing)?
            }
        };
        Ok(image)
    }

    /// What could not be fetched may be a stage whose name is written wrongly.
    fn not_fetched(&self, name: &str, error: &engine::Error) -> Error {
        let mut message = error.to_string();
        if !message.contains(name) {
            message = format!("{name}: {message}");
        }
        let stages = self.plan.file.stages.iter().filter_map(|stage| stage.name.as_deref());
        let contexts = self.options.named_contexts.keys().map(String::as_str);
        if let Some(hint) = did_you_mean(name, stages.chain(contexts)) {
            message = format!("{message}; no stage or context is called {name}: {hint}");
        }
        Error::Invalid(message)
    }

    /// The layers behind a `--from`; none for a named context.
    pub(crate) fn layers_of(&mut self, origin: &Origin) -> Result<Vec<DiffId>> {
        match origin {
            Origin::Stage(index) => match self.stages.get(index) {
                Some(stage) => Ok(stage.layers.clone()),
                None => Err(Error::Invalid("a stage is needed before it is done".into())),
            },
            Origin::Image(name) => {
                let platform = self.options.platform.clone();
                Ok(self.image_named(name, platform.as_deref())?.layers)
            }
            Origin::Context(_) => Ok(Vec::new()),
        }
    }

    /// The files behind a `--from`.
    pub(crate) fn tree_of(&mut self, origin: &Origin) -> Result<Tree> {
        let name = match origin {
            Origin::Stage(index) => {
                let stage = self.plan.stages.iter().find(|stage| stage.index == *index);
                format!("stage {}", stage.map_or(String::new(), |stage| stage.name.clone()))
            }
            Origin::Image(name) => format!("the image {name}"),
            Origin::Context(name) => {
                let value = self.options.named_contexts.get(name).cloned().unwrap_or_default();
                if let Some(image) = value.strip_prefix("docker-image://") {
                    let origin = Origin::Image(image.to_owned());
                    return self.tree_of(&origin);
                }
                let path = match remote::is_remote(&value) && !Path::new(&value).is_dir() {
                    true => self.fetched_context(name, &value)?,
                    false => PathBuf::from(value),
                };
                let mut tree = Tree::open(&path, Ignore::default())?;
                if let Some(text) = tree.read(".dockerignore", LARGEST_FILE)? {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    let ignore = Ignore::parse(&text)
                        .map_err(|m| Error::Invalid(format!("{name}/.dockerignore: {m}")))?;
                    tree = Tree::open(&path, ignore)?;
                }
                tree.name = format!("the context {name}");
                tree.stop = self.stop.clone();
                return Ok(tree);
            }
        };
        let layers = self.layers_of(origin)?;
        let mut tree = Tree::of_mount(self.engine.mount_layers(&layers)?, name)?;
        tree.stop = self.stop.clone();
        Ok(tree)
    }

    /// Where the files of a named context are that is an address; it is fetched when it is first asked for.
    fn fetched_context(&self, name: &str, address: &str) -> Result<PathBuf> {
        // Stages that need it at the same time wait for the one that fetches it.
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched = match contexts.get(address) {
            Some(fetched) => Arc::clone(fetched),
            None => {
                self.stop.check()?;
                let fetched =
                    remote::fetch(self.engine, self.client, address, self.lock, &self.stop)?;
                let fetched = Arc::new(fetched);
                contexts.insert(address.to_owned(), Arc::clone(&fetched));
                fetched
            }
        };
        match &fetched.context {
            Context::Directory(path) => Ok(path.clone()),
            Context::Empty => Err(Error::Invalid(format!(
                "the context {name}: {address} is neither a repository nor an archive"
            ))),
        }
    }

    /// The layer of a step: from the cache, or by doing it.
    pub(crate) fn layer(
        &mut self,
        stage: &mut Stage,
        mut key: Key,
        description: &str,
        epoch: i64,
        work: impl FnOnce(&mut Self, &Stage) -> Result<(DiffId, u64)>,
    ) -> Result<()> {
        if let Some(epoch) = self.options.source_date_epoch {
            key.put("epoch").put(epoch.to_le_bytes());
        }
        let key = key.finish();
        self.keys.push(key.clone());
        if stage.cached
            && let Some(cached) = self.cached(stage, &key)?
        {
            stage.add(cached.diff_id, cached.epoch);
            self.steps.push((self.title.clone(), cached.diff_id));
            self.used.push(key);
            self.reported = self.step;
            self.progress.event(Event::Cached { step: self.step });
            return Ok(());
        }
        self.stop.check()?;
        let (diff_id, size) = work(self, stage)?;
        let short: String = description.chars().take(300).collect();
        self.engine.remember_step(&CachedStep::new(key, diff_id, epoch, short, size))?;
        stage.add(diff_id, epoch);
        self.steps.push((self.title.clone(), diff_id));
        self.done = self.done.saturating_add(1);
        self.finished();
        Ok(())
    }

    /// The result of a step: one that is here, else one of elsewhere.
    fn cached(&mut self, stage: &Stage, key: &str) -> Result<Option<CachedStep>> {
        if let Some(cached) = self.engine.cached_step(key)? {
            return Ok(Some(cached));
        }
        for imported in self.imported {
            let Some(step) = imported.step(key) else { continue };
            let _deaf = self.stop.deaf();
            match imported.fetch(self.engine, self.client, step, &stage.layers) {
                Ok(()) => {
                    let (epoch, description) = (step.epoch, step.description.clone());
                    let (key, size) = (key.to_owned(), step.size);
                    let cached = CachedStep::new(key, step.diff_id, epoch, description, size);
                    self.engine.remember_step(&cached)?;
                    return Ok(Some(cached));
                }
                Err(error) => self.progress.event(Event::Warning(error.to_string())),
            }
        }
        Ok(None)
    }

    /// Writes the results for other builds.
    fn export(&mut self, layers: &[DiffId]) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut steps = Vec::new();
        for key in std::mem::take(&mut self.keys) {
            if seen.insert(key.clone()) {
                steps.extend(self.engine.cached_step(&key)?);
            }
        }
        for export in &self.options.cache_to {
            let mut steps = steps.clone();
            steps.retain(|step| export.all || layers.contains(&step.diff_id));
            self.begin(format!("export the build cache to {}", export.place));
            let mounts = &self.mounts;
            let _deaf = self.stop.deaf();
            let done =
                elsewhere::export(self.engine, self.client, export, &steps, mounts, self.imported);
            if done.is_err() {
                self.failed();
            }
            done?;
            self.finished();
        }
        Ok(())
    }

    /// The bound of times for a step that reads things as new as `newest`.
    pub(crate) fn epoch(&self, stage: &Stage, newest: i64) -> i64 {
        self.options.source_date_epoch.unwrap_or_else(|| stage.epoch.max(newest))
    }

    fn image(&mut self, stage: Stage) -> Result<ImageRecord> {
        let epoch = self.epoch(&stage, 0);
        let Stage { layers, mut image, scope, .. } = stage;
        image.config.env = scope.environment;
        let labels = self.options.labels.iter();
        image.config.labels.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
        clean(&mut image);
        image.created = Some(time(epoch));
        Ok(self.engine.add_built_image(image, layers, None, &self.options.tags)?)
    }
}

/// Takes out what describes how the base was made, not what it is.
fn clean(image: &mut ImageConfig) {
    for field in ["container", "container_config", "docker_version", "id", "parent", "throwaway"] {
        image.other.remove(field);
    }
    image.config.forget_container();
}

/// RFC 3339.
pub(crate) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Seconds of an RFC 3339 time.
pub(crate) fn seconds(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map_or(0, jiff::Timestamp::as_second)
        .max(0)
}
