//! A build under way: the stages of a plan, one after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use engine::{Engine, Message, PullOptions, Transfer};
use oci::config::ImageConfig;
use oci::manifest::Platform;
use oci::{DiffId, Digest};
use store::{CachedStep, Hold, ImageRecord};

use crate::error::{Error, Result};
use crate::key::Key;
use crate::language::dockerignore::Ignore;
use crate::language::file::Dockerfile;
use crate::language::problem::{Problem, Span};
use crate::options::{Context, File, Options};
use crate::plan::{Base, Origin, Plan, PlannedStage};
use crate::progress::{Event, Progress};
use crate::stage::Stage;
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
fn open(options: &Options) -> Result<(Dockerfile, Option<Tree>)> {
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
    engine.sweep_steps()?;
    let hold = engine.hold()?;
    let known_path = known_path(engine, options);
    let mut job = Job {
        engine,
        client,
        options,
        plan: &plan,
        context,
        known: known_path.as_deref().map(Known::load).unwrap_or_default(),
        progress,
        step: 0,
        began: Instant::now(),
        reported: 0,
        used: Vec::new(),
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
    // What was used stays used, also if the build failed later.
    engine.used_steps(&used)?;
    let unused = plan.globals.unused();
    let (image, layers) = result?;
    if !unused.is_empty() {
        progress.event(Event::Warning(format!(
            "one or more build-args [{}] were not consumed",
            unused.join(" ")
        )));
    }
    finish(hold, engine)?;
    Ok(Built { image, layers, steps, cached, done })
}

/// The cache is bounded; what was unused for the longest time goes first.
fn finish(hold: Hold, engine: &Engine) -> Result<()> {
    drop(hold);
    crate::cache::trim(engine, crate::cache::BOUND)?;
    Ok(())
}

fn known_path(engine: &Engine, options: &Options) -> Option<PathBuf> {
    let Context::Directory(path) = &options.context else { return None };
    let path = std::fs::canonicalize(path).ok()?;
    let name = Digest::sha256(path.as_os_str().as_encoded_bytes()).hex();
    Some(engine.data_root().join("cache/contexts").join(name))
}

/// A build under way.
pub(crate) struct Job<'a> {
    pub(crate) engine: &'a Engine,
    client: Option<&'a registry::Client>,
    pub(crate) options: &'a Options,
    pub(crate) plan: &'a Plan,
    pub(crate) context: Option<Tree>,
    pub(crate) known: Known,
    pub(crate) progress: &'a mut dyn Progress,
    /// The step under way, over the whole build.
    pub(crate) step: usize,
    /// When it began.
    began: Instant,
    /// The last step whose end was reported.
    reported: usize,
    /// Keys of results that were used.
    used: Vec<String>,
    done: usize,
    /// Stages that are done.
    stages: BTreeMap<usize, Stage>,
    /// Images that were looked up.
    images: BTreeMap<String, ImageRecord>,
    /// Of the step under way.
    title: String,
    /// Steps that made a layer.
    steps: Vec<(String, DiffId)>,
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
        let mut last = None;
        for planned in &plan.stages {
            let stage = self.stage(planned)?;
            if planned.index == plan.target {
                last = Some(stage.clone());
            }
            self.stages.insert(planned.index, stage);
        }
        let stage = last.ok_or_else(|| Error::Invalid("the plan has no target".into()))?;
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

    fn stage(&mut self, planned: &PlannedStage) -> Result<Stage> {
        let plan = self.plan;
        let file = &plan.file;
        let source = file
            .stages
            .get(planned.index)
            .ok_or_else(|| Error::Invalid("the plan names a stage that is not there".into()))?;
        let total = source.steps.len().saturating_add(1);
        let label = |number: usize| match (&source.name, plan.stages.len()) {
            (Some(name), _) => format!("[{name} {number}/{total}]"),
            (None, 1) => format!("[{number}/{total}]"),
            (None, _) => format!("[stage-{} {number}/{total}]", planned.index),
        };
        let text = match &planned.base {
            Base::Image(image) => format!("{} FROM {image}", label(1)),
            _ => format!("{} {}", label(1), source.text),
        };
        self.begin(text);
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
        self.step = self.step.saturating_add(1);
        let mut title = title.replace(['\n', '\r'], " ");
        const MOST: usize = 240;
        if title.chars().count() > MOST {
            title = title.chars().take(MOST).chain(['…']).collect();
        }
        self.title.clone_from(&title);
        self.progress.event(Event::Begin { step: self.step, title });
        self.began = Instant::now();
    }

    fn finished(&mut self) {
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
                let mut fetching =
                    Fetching(&mut *self.progress, self.step, std::marker::PhantomData);
                match (self.engine.pull(client, &options, &mut fetching), here) {
                    (Ok(_), _) => {}
                    // An image by its ID, or one that no registry has, cannot be fetched anew.
                    (Err(_), Some(image)) if image.digests.is_empty() => return Ok(image),
                    (Err(error), _) => return Err(error.into()),
                }
                let missing = || Error::Invalid(format!("No such image: {name}"));
                self.engine.build_base(name, None)?.ok_or_else(missing)?
            }
        };
        self.images.insert(label, image.clone());
        Ok(image)
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
                let path = PathBuf::from(value);
                let mut tree = Tree::open(&path, Ignore::default())?;
                if let Some(text) = tree.read(".dockerignore", LARGEST_FILE)? {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    let ignore = Ignore::parse(&text)
                        .map_err(|m| Error::Invalid(format!("{name}/.dockerignore: {m}")))?;
                    tree = Tree::open(&path, ignore)?;
                }
                tree.name = format!("the context {name}");
                return Ok(tree);
            }
        };
        let layers = self.layers_of(origin)?;
        Tree::of_mount(self.engine.mount_layers(&layers)?, name)
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
        if stage.cached
            && let Some(cached) = self.engine.cached_step(&key)?
        {
            stage.add(cached.diff_id, cached.epoch);
            self.steps.push((self.title.clone(), cached.diff_id));
            self.used.push(key);
            self.reported = self.step;
            self.progress.event(Event::Cached { step: self.step });
            return Ok(());
        }
        let (diff_id, size) = work(self, stage)?;
        let short: String = description.chars().take(300).collect();
        self.engine.remember_step(&CachedStep::new(key, diff_id, epoch, short, size))?;
        stage.add(diff_id, epoch);
        self.steps.push((self.title.clone(), diff_id));
        self.done = self.done.saturating_add(1);
        self.finished();
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
