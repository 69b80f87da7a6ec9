//! A whole Dockerfile: what comes before the first stage, and the stages.

use super::instruction::{Instruction, Step, instruction};
use super::lines::Directives;
use super::problem::{Diagnostic, Problem, Span};
use super::statement::parse;

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Parser directives.
    pub directives: Directives,
    /// `ARG`s before the first `FROM`.
    pub arguments: Vec<Step>,
    /// The stages; at least one.
    pub stages: Vec<Stage>,
}

/// From one `FROM` to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Name, if it has one.
    pub name: Option<String>,
    /// What it begins with; variables are not replaced yet.
    pub base: String,
    /// `--platform`; variables are not replaced yet.
    pub platform: Option<String>,
    /// The `FROM` itself.
    pub span: Span,
    /// Its text.
    pub text: String,
    /// What follows.
    pub steps: Vec<Step>,
}

impl Dockerfile {
    /// Reads a Dockerfile; `name` is for messages.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, Box<Diagnostic>> {
        Self::read(name, text).map_err(|problem| Box::new(problem.within(name, text)))
    }

    /// A problem with this file as people see it.
    pub fn diagnose(&self, problem: Problem) -> Box<Diagnostic> {
        Box::new(problem.within(&self.name, &self.text))
    }

    fn read(name: &str, text: &str) -> Result<Self, Problem> {
        let (directives, statements) = parse(text)?;
        let mut arguments = Vec::new();
        let mut stages: Vec<Stage> = Vec::new();
        for statement in statements {
            let step = instruction(statement)?;
            match (step.instruction, stages.last_mut()) {
                (Instruction::From { image, name, platform }, _) => {
                    let taken = |stage: &Stage| name.is_some() && stage.name == name;
                    if stages.iter().any(taken) {
                        let name = name.unwrap_or_default();
                        let message = format!("duplicate name {name:?}: a stage before has it");
                        return Err(Problem::new(step.span, message));
                    }
                    let (span, text) = (step.span, step.text);
                    stages.push(Stage { name, base: image, platform, span, text, steps: vec![] });
                }
                (instruction, Some(stage)) => {
                    stage.steps.push(Step { span: step.span, text: step.text, instruction });
                }
                (instruction @ Instruction::Arg(_), None) => {
                    arguments.push(Step { span: step.span, text: step.text, instruction });
                }
                (_, None) => {
                    let message =
                        "no build stage in current context: only ARG may come before FROM";
                    return Err(
                        Problem::new(step.span, message).help(Some("begin the file with FROM"))
                    );
                }
            }
        }
        if stages.is_empty() {
            let last = text.lines().count().max(1);
            let span = Span { first: last, last };
            return Err(Problem::new(span, "the file has no stage").help(Some("add FROM <image>")));
        }
        let (name, text) = (name.to_owned(), text.to_owned());
        Ok(Self { name, text, directives, arguments, stages })
    }

    /// The services of a step with their lines: what follows `# service:` before the first instruction, or right above this one.
    pub fn services(&self, step: &Step) -> Vec<(usize, String)> {
        let first = self.arguments.first().map(|step| step.span.first);
        let first = first.or_else(|| self.stages.first().map(|stage| stage.span.first));
        let service = |line: &str| {
            let text = line.trim_start().strip_prefix('#')?.trim_start();
            Some(text.strip_prefix("service:")?.trim().to_owned())
        };
        let numbered = (1usize..).zip(self.text.lines());
        let head = numbered.clone().take_while(|(number, _)| Some(*number) < first);
        let mut list: Vec<_> =
            head.filter_map(|(number, line)| Some((number, service(line)?))).collect();
        // Within another instruction a comment is that instruction's.
        let ends = |other: &Step| other.span.last < step.span.first;
        let before = self.stages.iter().flat_map(|stage| {
            let steps = stage.steps.iter().filter(|other| ends(other)).map(|other| other.span.last);
            steps.chain([stage.span.last].into_iter().filter(|last| *last < step.span.first))
        });
        let after = before.max().unwrap_or(0);
        let above: Vec<(usize, &str)> =
            numbered.skip(after).take_while(|(number, _)| *number < step.span.first).collect();
        let adjacent = above.iter().rev().map_while(|(number, line)| {
            line.trim_start().starts_with('#').then_some((*number, *line))
        });
        let mut near: Vec<_> =
            adjacent.filter_map(|(number, line)| Some((number, service(line)?))).collect();
        near.reverse();
        list.extend(near);
        list
    }

    /// The stage with this name or number; a name stands for the last stage before `before` that has it.
    pub fn stage(&self, name: &str, before: usize) -> Option<usize> {
        let lower = name.to_lowercase();
        let stages = self.stages.get(..before).unwrap_or(&self.stages);
        let by_name = stages.iter().rposition(|stage| stage.name.as_deref() == Some(&lower));
        by_name.or_else(|| lower.parse().ok().filter(|index| *index < stages.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn services_of_steps() {
        let text = "# syntax=docker/dockerfile:1\n# service: all=a:1\n\nFROM x\n# service: no=n\n\nRUN one\n\
            # a comment\n# service: b=b:1\n# service: c=c:1\nRUN two \\\n# service: in=side\n three\nRUN <<E\n# service: here=h\nE\nRUN four\n";
        let file = Dockerfile::parse("Dockerfile", text).unwrap();
        let of = |index: usize| {
            let list = file.services(&file.stages[0].steps[index]);
            list.into_iter().map(|(line, text)| format!("{line} {text}")).collect::<Vec<_>>()
        };
        assert_eq!(of(0), ["2 all=a:1"]);
        assert_eq!(of(1), ["2 all=a:1", "9 b=b:1", "10 c=c:1"]);
        assert_eq!((of(2), of(3)), (vec!["2 all=a:1".to_owned()], vec!["2 all=a:1".to_owned()]));
    }

    fn wrong(text: &str) -> String {
        Dockerfile::parse("Dockerfile", text).unwrap_err().to_string()
    }

    #[test]
    fn stages() {
        let text = "ARG V=1\nFROM a:$V AS One\nRUN x\nFROM one\nCOPY --from=0 a b\n";
        let file = Dockerfile::parse("f", text).unwrap();
        assert_eq!(file.arguments.len(), 1);
        assert_eq!(file.stages[0].name.as_deref(), Some("one"));
        assert_eq!(file.stage("ONE", 1), Some(0));
        assert_eq!(file.stage("0", 1), Some(0));
        assert_eq!(file.stage("1", 1), None);
    }

    #[test]
    fn every_mistake_has_its_line_and_a_suggestion() {
        let cases = [
            ("FROM a\nRNU b", "Dockerfile:2: unknown instruction: RNU", "did you mean RUN?"),
            ("FROM a\nCOPY --form=b c d", "unknown flag: --form", "did you mean --from?"),
            ("FROM a\nRUN --mount=type=cahce,target=/x y", "cahce", "did you mean cache?"),
            ("FROM a\nRUN --mount=type=cache,traget=/x y", "traget", "did you mean target?"),
            ("FROM a\nCOPY x", "Destination could not be determined", "COPY x ."),
            ("FROM a\nHEALTHCHECK CDM x", "CDM", "did you mean CMD?"),
            ("FROM a\nSHELL bash", "JSON form", "/bin/bash"),
            ("RUN a\nFROM b", "Dockerfile:1: no build stage", "begin the file with FROM"),
            ("FROM a sa b", "should be AS", "did you mean AS?"),
            ("FROM a\nENV x y=1 \nENV a=1 b", "Dockerfile:3: can't find = in \"b\"", "name=value"),
            ("FROM a\nRUN --network=non x", "--network", "did you mean none?"),
            ("FROM a\nCMD [\"x\", 1]", "all values must be strings", "double quotes"),
            ("FROM a\nRUN <<E\nx", "unterminated heredoc", "a line that is E"),
        ];
        for (text, message, help) in cases {
            let shown = wrong(text);
            assert!(shown.contains(message) && shown.contains(help), "{text}\n{shown}");
            assert!(shown.contains(" > "), "{shown}");
        }
        for text in [
            "FROM",
            "FROM a b",
            "FROM a AS 1x",
            "FROM a AS b\nFROM c AS b",
            "FROM a\nRUN",
            "FROM a\nUSER",
            "FROM a\nONBUILD FROM x",
            "FROM a\nONBUILD ONBUILD RUN x",
            "FROM a\nONBUILD RNU x",
            "FROM a\nENV =x",
            "FROM a\nARG",
            "FROM a\nARG =1",
            "FROM a\nHEALTHCHECK",
            "ARG a",
            "FROM a\nHEALTHCHECK --interval=1us CMD x",
            "FROM a\nCMD --x y",
            "FROM a\nVOLUME [\"\"]",
            "FROM a\nCOPY --from=a --from=b c d",
            "FROM a\nCOPY --link=maybe a b",
            "FROM a AS scratch",
            "FROM a\nCOPY a <<E\nE",
            "FROM a\nCOPY --chown a b",
            "FROM a\nRUN --mount=type=bind x",
        ] {
            wrong(text);
        }
    }

    #[test]
    fn heredocs_are_sources() {
        use super::super::instruction::CopySource;
        let text = "FROM a\nCOPY <<one f <<\"two\" /d/\n1\none\n$2\ntwo\n";
        let file = Dockerfile::parse("f", text).unwrap();
        let Instruction::Copy(copy) = &file.stages[0].steps[0].instruction else { panic!() };
        assert_eq!(copy.destination, "/d/");
        let kinds: Vec<_> =
            copy.sources.iter().map(|s| matches!(s, CopySource::Inline(_))).collect();
        assert_eq!(kinds, [true, false, true]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "(FROM|RUN|COPY|ENV|ARG|ONBUILD|HEALTHCHECK|#|--|<<|E|\\\\|\\[|\"|=|,| |\n|x|\\$|\\PC){0,40}") {
            let _ = Dockerfile::parse("f", &text);
            let _ = Dockerfile::parse("f", &format!("FROM a\n{text}"));
        }
    }
}
