//! The plan: which stages are needed for the one that is wanted, and what they need of each other.

use std::collections::BTreeSet;
use std::fmt;

use oci::manifest::Platform;

use crate::error::{Error, Result};
use crate::language::file::Dockerfile;
use crate::language::instruction::Instruction;
use crate::language::problem::{Problem, did_you_mean};
use crate::options::Options;
use crate::scope::Globals;

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image.
    Image(String),
    /// A stage before it.
    Stage(usize),
}

/// Where `COPY --from` and mounts take files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A stage.
    Stage(usize),
    /// A context with a name.
    Context(String),
    /// An image.
    Image(String),
}

/// One stage of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStage {
    /// Its number in the file.
    pub index: usize,
    /// Its name, or its number.
    pub name: String,
    /// What it begins with.
    pub base: Base,
    /// `--platform`, or the build's.
    pub platform: Option<String>,
    /// The stages whose files it reads, its base included.
    pub needs: BTreeSet<usize>,
}

/// A plan: the needed stages in the order of the file, which is an order they can be done in.
#[derive(Debug)]
pub struct Plan {
    /// The file.
    pub file: Dockerfile,
    /// The needed stages.
    pub stages: Vec<PlannedStage>,
    /// The one that becomes the image.
    pub target: usize,
    pub(crate) globals: Globals,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// A target or stage that is not there; variables that cannot be replaced.
    pub fn new(file: Dockerfile, options: &Options) -> Result<Self> {
        let target = match &options.target {
            None => file.stages.len().saturating_sub(1),
            Some(name) => file.stage(name, file.stages.len()).ok_or_else(|| {
                let names = file.stages.iter().filter_map(|stage| stage.name.as_deref());
                let hint = did_you_mean(name, names).map(|hint| format!("; {hint}"));
                Error::Invalid(format!(
                    "target stage {name:?} could not be found{}",
                    hint.unwrap_or_default()
                ))
            })?,
        };
        let platform = match &options.platform {
            Some(platform) => Platform::parse(platform)?,
            None => Platform::host(),
        };
        let escape = file.directives.escape;
        let name_of = |index: usize| {
            let name = file.stages.get(index).and_then(|stage| stage.name.clone());
            name.unwrap_or_else(|| index.to_string())
        };
        let mut globals = Globals::new(&options.build_args, &platform, &name_of(target));
        for step in &file.arguments {
            let Instruction::Arg(list) = &step.instruction else { continue };
            for (name, default) in list {
                globals.declare(name, default.as_deref(), escape).map_err(|message| {
                    Error::Dockerfile(file.diagnose(Problem::new(step.span, message)))
                })?;
            }
        }
        let mut needed = BTreeSet::from([target]);
        let mut stages = Vec::new();
        // Stages need only those before them, so one pass from the back finds all.
        for (index, stage) in file.stages.iter().enumerate().rev() {
            if !needed.contains(&index) {
                continue;
            }
            let at = |message: String| Problem::new(stage.span, message);
            let fail = |problem: Problem| Error::Dockerfile(file.diagnose(problem));
            let word = |text: &str| globals.word(text, escape).map_err(|m| fail(at(m)));
            let image = word(&stage.base)?;
            if image.is_empty() {
                let message = format!("base name ({}) should not be blank", stage.base);
                let help =
                    "an ARG of the FROM has no value: give it one with --build-arg or a default";
                return Err(fail(at(message).help(Some(help))));
            }
            let base = match image.as_str() {
                "scratch" => Base::Scratch,
                name => match file.stage(name, index).filter(|_| name.parse::<usize>().is_err()) {
                    Some(stage) => Base::Stage(stage),
                    None => match options.named_contexts.get(name) {
                        Some(value) => match value.strip_prefix("docker-image://") {
                            Some(image) => Base::Image(image.to_owned()),
                            None => {
                                return Err(fail(at(format!(
                                    "the context {name} is files, and no image: a stage cannot begin with it"
                                ))));
                            }
                        },
                        None => Base::Image(image),
                    },
                },
            };
            let platform = match &stage.platform {
                Some(text) => Some(word(text)?).filter(|text| !text.is_empty()),
                None => options.platform.clone(),
            };
            let mut needs = BTreeSet::new();
            if let Base::Stage(base) = base {
                needs.insert(base);
            }
            for step in &stage.steps {
                let froms: Vec<&str> = match &step.instruction {
                    Instruction::Copy(copy) => copy.from.as_deref().into_iter().collect(),
                    Instruction::Run(run) => {
                        run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect()
                    }
                    _ => Vec::new(),
                };
                for from in froms {
                    let problem = |problem: Problem| Error::Dockerfile(file.diagnose(problem));
                    let origin = origin(&file, from, index, options)
                        .map_err(|m| problem(Problem::new(step.span, m)))?;
                    if let Origin::Stage(stage) = origin {
                        needs.insert(stage);
                    }
                }
            }
            needed.extend(&needs);
            stages.push(PlannedStage { index, name: name_of(index), base, platform, needs });
        }
        stages.reverse();
        Ok(Self { file, stages, target, globals })
    }

    /// Some stage needs another one neither directly nor through others, so that both may be done at once.
    pub(crate) fn is_parallel(&self) -> bool {
        // In the order of the file each must need the one before it, else it could go beside it.
        self.stages.windows(2).any(|pair| {
            let [before, stage] = pair else { return false };
            !stage.needs.contains(&before.index)
        })
    }

    /// What events call the instruction with this number in its stage; the `FROM` is the first.
    pub(crate) fn label(&self, planned: &PlannedStage, number: usize) -> String {
        let source = self.file.stages.get(planned.index);
        let total = source.map_or(0, |stage| stage.steps.len()).saturating_add(1);
        match (source.and_then(|stage| stage.name.as_ref()), self.stages.len()) {
            (Some(name), _) => format!("[{name} {number}/{total}]"),
            (None, 1) => format!("[{number}/{total}]"),
            (None, _) => format!("[stage-{} {number}/{total}]", planned.index),
        }
    }

    /// The `FROM` of a stage, with what its variables stand for.
    pub(crate) fn from(&self, planned: &PlannedStage) -> String {
        match &planned.base {
            Base::Image(image) => format!("FROM {image}"),
            _ => self.file.stages.get(planned.index).map_or(String::new(), |s| s.text.clone()),
        }
    }

    /// Every instruction of the needed stages, in the order of the file: as the title of an [`crate::Event`] begins
    /// (`[build 2/5]`), and its text. Those that change no file have no event of their own.
    pub fn instructions(&self) -> Vec<(String, String)> {
        let mut list = Vec::new();
        for planned in &self.stages {
            let Some(stage) = self.file.stages.get(planned.index) else { continue };
            list.push((self.label(planned, 1), stage.text.clone()));
            for (number, step) in (2usize..).zip(&stage.steps) {
                list.push((self.label(planned, number), step.text.clone()));
            }
        }
        list
    }
}

/// Where a `--from` takes files.
pub(crate) fn origin(
    file: &Dockerfile,
    from: &str,
    index: usize,
    options: &Options,
) -> Result<Origin, String> {
    if let Some(stage) = file.stage(from, index) {
        return Ok(Origin::Stage(stage));
    }
    if options.named_contexts.contains_key(from) {
        return Ok(Origin::Context(from.to_owned()));
    }
    if let Ok(number) = from.parse::<usize>() {
        return Err(format!(
            "invalid from flag value {number}: there is no stage {number} before this one"
        ));
    }
    if let Some(stage) = file.stage(from, file.stages.len()) {
        return Err(format!(
            "the stage {from} comes {}: only stages before this one can be used",
            if stage == index { "only now" } else { "later" }
        ));
    }
    Ok(Origin::Image(from.to_owned()))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for planned in &self.stages {
            let Some(stage) = self.file.stages.get(planned.index) else { continue };
            let base = match &planned.base {
                Base::Scratch => "nothing".to_owned(),
                Base::Image(image) => format!("image {image}"),
                Base::Stage(index) => format!("stage {index}"),
            };
            let wanted = if planned.index == self.target { ", the target" } else { "" };
            let called = match &stage.name {
                Some(name) => format!(" ({name})"),
                None => String::new(),
            };
            writeln!(f, "stage {}{called} upon {base}{wanted}", planned.index)?;
            let needs: Vec<String> = planned.needs.iter().map(usize::to_string).collect();
            if !needs.is_empty() {
                writeln!(f, "    needs stage {}", needs.join(", "))?;
            }
            for step in &stage.steps {
                let text: String = step.text.chars().take(100).collect();
                writeln!(f, "    {:>4}  {text}", step.span.first)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Context, File};

    fn plan(text: &str, target: Option<&str>) -> Result<Plan> {
        let file = Dockerfile::parse("Dockerfile", text)?;
        let source = File::InContext("Dockerfile".into());
        let mut options = Options::new(source, Context::Empty);
        options.target = target.map(str::to_owned);
        options.named_contexts.insert("other".into(), "/x".into());
        Plan::new(file, &options)
    }

    const TEXT: &str = "ARG V=12\nFROM debian:$V AS base\nFROM base AS unused\nRUN x\nFROM base AS build\nRUN y\n\
        FROM scratch\nCOPY --from=build a b\nCOPY --from=other c d\nCOPY --from=busybox e f\n";

    #[test]
    fn only_what_is_needed() {
        let all = plan(TEXT, None).unwrap();
        let indexes: Vec<usize> = all.stages.iter().map(|stage| stage.index).collect();
        assert_eq!(indexes, [0, 2, 3]);
        assert_eq!(all.stages[0].base, Base::Image("debian:12".into()));
        assert_eq!(all.stages[2].needs, BTreeSet::from([2]));
        assert!(all.to_string().contains("stage 2 (build) upon stage 0"), "{all}");
        assert_eq!(plan(TEXT, Some("base")).unwrap().stages.len(), 1);
        let error = plan(TEXT, Some("biuld")).unwrap_err().to_string();
        assert!(error.contains("did you mean build?"), "{error}");
    }

    #[test]
    fn what_cannot_be() {
        let cases = [
            ("FROM a AS b\nCOPY --from=b x y", "only now"),
            ("FROM a\nCOPY --from=c x y\nFROM d AS c\nFROM a", "later"),
            ("FROM a\nCOPY --from=3 x y", "no stage 3"),
            ("ARG A\nFROM $A", "should not be blank"),
        ];
        for (text, want) in cases {
            let target = text.contains("AS c").then_some("0");
            let error = plan(text, target).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
