//! `--check`: what is allowed but probably not meant. The names of the checks are BuildKit's.

use std::collections::BTreeSet;

use super::expand;
use super::file::{Dockerfile, Stage};
use super::instruction::{Command, Instruction, Step};
use super::problem::{Problem, Span, nearest};
use super::statement::{Arguments, Statement, parse};

/// Something that is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the check.
    pub rule: &'static str,
    /// What, and where.
    pub problem: Problem,
}

/// What the `check` directive says.
#[derive(Debug, Default)]
struct Settings {
    skip_all: bool,
    skip: Vec<String>,
}

fn settings(text: Option<&str>) -> Settings {
    let mut settings = Settings::default();
    for part in text.unwrap_or_default().split(';') {
        if let Some(("skip", list)) = part.trim().split_once('=') {
            settings.skip_all |= list.trim() == "all";
            settings.skip.extend(list.split(',').map(|name| name.trim().to_owned()));
        }
    }
    settings
}

/// Whether findings are to fail the build: `# check=error=true`.
pub fn is_error(file: &Dockerfile) -> bool {
    let text = file.directives.check.as_deref().unwrap_or_default();
    text.split(';').any(|part| part.trim().replace(' ', "").eq_ignore_ascii_case("error=true"))
}

/// Looks through a file that can be built.
pub fn check(file: &Dockerfile) -> Vec<Finding> {
    let mut checker = Checker { found: Vec::new() };
    let statements = parse(&file.text).map(|(_, statements)| statements).unwrap_or_default();
    checker.casing(file, &statements);
    checker.forms(&statements);
    let globals = globals(file);
    for (index, stage) in file.stages.iter().enumerate() {
        checker.stage(file, stage, index, &globals);
    }
    let settings = settings(file.directives.check.as_deref());
    let mut found = checker.found;
    found.retain(|finding| {
        !settings.skip_all && !settings.skip.iter().any(|name| name == finding.rule)
    });
    found.sort_by_key(|finding| finding.problem.span.first);
    found
}

/// Names of the arguments before the first stage.
fn globals(file: &Dockerfile) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for step in &file.arguments {
        if let Instruction::Arg(list) = &step.instruction {
            names.extend(list.iter().map(|(name, _)| name.clone()));
        }
    }
    names
}

/// Set without being declared, where only global arguments are known.
const AUTOMATIC: [&str; 9] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// Words in names of what should not be in an image.
const SECRETS: [&str; 8] =
    ["apikey", "auth", "credential", "key", "password", "pword", "secret", "token"];

struct Checker {
    found: Vec<Finding>,
}

impl Checker {
    fn note(&mut self, rule: &'static str, span: Span, message: String, help: Option<String>) {
        self.found.push(Finding { rule, problem: Problem::new(span, message).help(help) });
    }

    /// Instructions are written one way, and names of stages in lower case.
    fn casing(&mut self, file: &Dockerfile, statements: &[Statement]) {
        let word = |statement: &Statement| {
            statement.text.split_whitespace().next().unwrap_or_default().to_owned()
        };
        let is_lower = |word: &str| word.chars().all(|c| !c.is_uppercase());
        let is_upper = |word: &str| word.chars().all(|c| !c.is_lowercase());
        let lower = statements.iter().filter(|s| is_lower(&word(s))).count();
        let most = if lower > statements.len() / 2 { "lowercase" } else { "uppercase" };
        for statement in statements {
            let word = word(statement);
            let good = if most == "lowercase" { is_lower(&word) } else { is_upper(&word) };
            if !good {
                let message = format!(
                    "command '{word}' should match the case of the command majority ({most})"
                );
                self.note("ConsistentInstructionCasing", statement.span, message, None);
            }
        }
        for stage in &file.stages {
            let words: Vec<&str> = stage.text.split_whitespace().collect();
            let at = words.iter().position(|word| word.eq_ignore_ascii_case("as"));
            let Some((as_, name)) =
                at.and_then(|at| Some((words.get(at)?, words.get(at.checked_add(1)?)?)))
            else {
                continue;
            };
            let from = words.first().copied().unwrap_or_default();
            if is_lower(from) != is_lower(as_) {
                let message = format!("'{as_}' and '{from}' keywords' casing do not match");
                self.note("FromAsCasing", stage.span, message, None);
            }
            if !is_lower(name) {
                let message = format!("stage name '{name}' should be lowercase");
                self.note("StageNameCasing", stage.span, message, None);
            }
        }
    }

    /// Old forms.
    fn forms(&mut self, statements: &[Statement]) {
        for statement in statements {
            if statement.keyword == "maintainer" {
                let message =
                    "MAINTAINER instruction is deprecated in favor of using label".to_owned();
                let help = Some("write LABEL org.opencontainers.image.authors=…".to_owned());
                self.note("MaintainerDeprecated", statement.span, message, help);
            }
            if let Arguments::Pairs(pairs) = &statement.arguments
                && pairs.iter().any(|pair| !pair.equals)
            {
                let upper = statement.keyword.to_uppercase();
                let message = format!(
                    "\"{upper} key=value\" should be used instead of legacy \"{upper} key value\" format"
                );
                self.note("LegacyKeyValueFormat", statement.span, message, None);
            }
        }
    }

    fn stage(
        &mut self,
        file: &Dockerfile,
        stage: &Stage,
        index: usize,
        globals: &BTreeSet<String>,
    ) {
        let escape = file.directives.escape;
        for text in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
            for name in expand::names(text, escape).unwrap_or_default() {
                if globals.contains(&name) || AUTOMATIC.contains(&name.as_str()) {
                    continue;
                }
                let near = nearest(&name, globals.iter().map(String::as_str));
                let help = near.map(|near| format!("did you mean {near}?"));
                let message = format!("FROM argument '{name}' is not declared");
                self.note("UndefinedArgInFrom", stage.span, message, help);
            }
        }
        if stage
            .platform
            .as_deref()
            .is_some_and(|p| matches!(p, "$TARGETPLATFORM" | "${TARGETPLATFORM}"))
        {
            let message = "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
            self.note("RedundantTargetPlatform", stage.span, message.to_owned(), None);
        }
        let from_stage = file.stage(&stage.base, index).is_some();
        let mut declared: BTreeSet<String> = BTreeSet::new();
        let (mut command, mut entrypoint, mut health) = (None, None, None);
        let (mut absolute, mut shell) = (from_stage, false);
        for step in &stage.steps {
            // Of a base image nothing is known; so only what is near to something declared is told.
            self.variables(step, escape, &declared);
            match &step.instruction {
                Instruction::Arg(list) => {
                    for (name, _) in list {
                        self.secret("ARG", name, step.span);
                        declared.insert(name.clone());
                    }
                }
                Instruction::Env(list) => {
                    for (name, _) in list {
                        self.secret("ENV", name, step.span);
                        declared.insert(name.clone());
                    }
                }
                Instruction::Workdir(path) => {
                    if !path.starts_with('/') && !path.starts_with('$') && !absolute {
                        let message = format!(
                            "Relative workdir \"{path}\" can have unexpected results if the base image changes"
                        );
                        self.note("WorkdirRelativePath", step.span, message, None);
                    }
                    absolute |= path.starts_with('/');
                }
                Instruction::Shell(_) => shell = true,
                Instruction::Cmd(form) => {
                    self.json_form("CMD", form, shell, step.span);
                    self.again("CMD", &mut command, step.span);
                }
                Instruction::Entrypoint(form) => {
                    self.json_form("ENTRYPOINT", form, shell, step.span);
                    self.again("ENTRYPOINT", &mut entrypoint, step.span);
                }
                Instruction::Healthcheck(_) => self.again("HEALTHCHECK", &mut health, step.span),
                _ => {}
            }
        }
    }

    fn again(&mut self, name: &str, seen: &mut Option<Span>, span: Span) {
        if let Some(before) = seen.replace(span) {
            let message = format!(
                "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
            );
            self.note("MultipleInstructionsDisallowed", before, message, None);
        }
    }

    fn json_form(&mut self, name: &str, form: &Command, shell: bool, span: Span) {
        if matches!(form, Command::Shell(_)) && !shell {
            let message = format!(
                "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
            );
            self.note("JSONArgsRecommended", span, message, None);
        }
    }

    fn secret(&mut self, keyword: &str, name: &str, span: Span) {
        let lower = name.to_lowercase();
        let mut words = lower.split(['_', '-']);
        let public = lower.contains("public");
        if !public && words.any(|word| SECRETS.contains(&word)) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({keyword} \"{name}\")"
            );
            let help = Some("use RUN --mount=type=secret".to_owned());
            self.note("SecretsUsedInArgOrEnv", span, message, help);
        }
    }

    /// Variables that nothing sets, but whose names are near to one that is.
    fn variables(&mut self, step: &Step, escape: char, declared: &BTreeSet<String>) {
        let texts: Vec<&String> = match &step.instruction {
            Instruction::Env(list) | Instruction::Label(list) => {
                list.iter().map(|(_, v)| v).collect()
            }
            Instruction::Workdir(text)
            | Instruction::User(text)
            | Instruction::Stopsignal(text) => vec![text],
            Instruction::Expose(list) | Instruction::Volume(list) => list.iter().collect(),
            Instruction::Copy(copy) => vec![&copy.destination],
            _ => return,
        };
        for text in texts {
            for name in expand::names(text, escape).unwrap_or_default() {
                if declared.contains(&name) || AUTOMATIC.contains(&name.as_str()) {
                    continue;
                }
                if let Some(near) = nearest(&name, declared.iter().map(String::as_str)) {
                    let message = format!("Usage of undefined variable '${name}'");
                    let help = Some(format!("did you mean ${near}?"));
                    self.note("UndefinedVar", step.span, message, help);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<&'static str> {
        let file = Dockerfile::parse("Dockerfile", text).unwrap();
        check(&file).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn what_is_probably_not_meant() {
        let cases: &[(&str, &[&str])] = &[
            ("FROM a\nRUN x\nCMD [\"y\"]\n", &[]),
            ("FROM a\nrun x\nRUN y\n", &["ConsistentInstructionCasing"]),
            ("from a\nrun x\n", &[]),
            ("FROM a as b\n", &["FromAsCasing"]),
            ("FROM a AS Bee\n", &["StageNameCasing"]),
            ("FROM a\nMAINTAINER x\n", &["MaintainerDeprecated"]),
            ("FROM a\nENV a b\n", &["LegacyKeyValueFormat"]),
            ("ARG VERSION=1\nFROM a:$VERSOIN\n", &["UndefinedArgInFrom"]),
            ("FROM --platform=$TARGETPLATFORM a\n", &["RedundantTargetPlatform"]),
            ("FROM --platform=$BUILDPLATFORM a\n", &[]),
            ("FROM a\nWORKDIR x\n", &["WorkdirRelativePath"]),
            ("FROM a\nWORKDIR /x\nWORKDIR y\n", &[]),
            ("FROM a\nCMD x\n", &["JSONArgsRecommended"]),
            ("FROM a\nSHELL [\"sh\"]\nCMD x\n", &[]),
            ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n", &["MultipleInstructionsDisallowed"]),
            ("FROM a\nARG API_TOKEN\nENV PUBLIC_KEY=x\n", &["SecretsUsedInArgOrEnv"]),
            ("FROM a\nENV FOO=1\nENV BAR=$FOOO\n", &["UndefinedVar"]),
            ("# check=skip=JSONArgsRecommended,StageNameCasing\nFROM a AS B\nCMD x\n", &[]),
            ("# check=skip=all\nFROM a AS B\nCMD x\n", &[]),
        ];
        for (text, want) in cases {
            assert_eq!(rules(text), *want, "{text}");
        }
        let file = Dockerfile::parse("f", "# check=skip=all;error=true\nFROM a").unwrap();
        assert!(is_error(&file));
    }
}
