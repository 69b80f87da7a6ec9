//! Instructions with their types. Words that may hold variables are as they were written.

use super::flags::{Flags, Kind, Mount, mount};
use super::lines::{Heredoc, Line, unknown};
use super::problem::{Problem, Span, did_you_mean};
use super::statement::{Arguments, Statement, heredoc, statement};

/// Every instruction's name.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub span: Span,
    /// The logical line.
    pub text: String,
    /// What is to be done.
    pub instruction: Instruction,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Given to the shell.
    Shell(String),
    /// Executed as it is.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub command: Command,
    /// Here-documents.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`.
    pub mounts: Vec<Mount>,
    /// `--network`: `default`, `none` or `host`.
    pub network: Option<String>,
    /// `--security`: `sandbox` or `insecure`.
    pub security: Option<String>,
}

/// Something `COPY` or `ADD` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern, or for `ADD` an address.
    Path(String),
    /// A here-document, which becomes a file of its name.
    Inline(Heredoc),
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// It is `ADD`: archives are unpacked, addresses fetched.
    pub add: bool,
    /// What.
    pub sources: Vec<CopySource>,
    /// To where.
    pub destination: String,
    /// `--from`: a stage, an image or a named context.
    pub from: Option<String>,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`: the layer does not depend on what is below it.
    pub link: bool,
    /// `--parents`: the directories of sources are kept.
    pub parents: bool,
    /// `--exclude`
    pub exclude: Vec<String>,
    /// `--keep-git-dir`
    pub keep_git_dir: bool,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--unpack`
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`. Durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// None turns an inherited check off.
    pub command: Option<Command>,
    /// Time between two checks.
    pub interval: i64,
    /// Time one may take.
    pub timeout: i64,
    /// Time in which failures do not count.
    pub start_period: i64,
    /// Time between two checks during it.
    pub start_interval: i64,
    /// Failures in a row.
    pub retries: i64,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ARG name[=default] …`
    Arg(Vec<(String, Option<String>)>),
    /// `CMD`
    Cmd(Command),
    /// `COPY` and `ADD`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Vec<(String, String)>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `FROM`
    From {
        /// The base: an image, a stage, `scratch`.
        image: String,
        /// `AS name`, in lower case.
        name: Option<String>,
        /// `--platform`
        platform: Option<String>,
    },
    /// `HEALTHCHECK`
    Healthcheck(Health),
    /// `LABEL`
    Label(Vec<(String, String)>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the instruction as text, as images keep it.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// An instruction from a line that an image brought along (`ONBUILD`).
///
/// # Errors
/// As [`instruction`].
pub fn trigger(text: &str) -> Result<Step, Problem> {
    let (_, lines) = super::lines::read(text)?;
    let span = Span { first: 1, last: 1 };
    match <[Line; 1]>::try_from(lines) {
        Ok([line]) => instruction(statement(line, '\\', 1)?),
        Err(_) => Err(Problem::new(span, format!("{text:?} is not one instruction"))),
    }
}

/// Gives a statement its type.
///
/// # Errors
/// A word that is no instruction; flags it does not have; too few or too many arguments.
pub fn instruction(statement: Statement) -> Result<Step, Problem> {
    let Statement { keyword, flags, arguments, text, heredocs, span, .. } = statement;
    let upper = keyword.to_uppercase();
    let bad = |message: String| Problem::new(span, message);
    if !KEYWORDS.contains(&upper.as_str()) {
        return Err(unknown(&keyword, &KEYWORDS, span));
    }
    let read = |known: &[(&'static str, Kind)]| Flags::read(&flags, known, &keyword, span);
    let at_least_one = || bad(format!("{upper} requires at least one argument"));
    let exactly_one = || bad(format!("{upper} requires exactly one argument"));
    let none_of_these: &[(&'static str, Kind)] = &[];
    if !matches!(upper.as_str(), "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK") {
        read(none_of_these)?;
    }
    let instruction = match upper.as_str() {
        "FROM" => {
            let platform = read(&[("platform", Kind::Text)])?.text("platform");
            from(words(arguments), platform, span)?
        }
        "ARG" => {
            let mut list = Vec::new();
            for word in words(arguments) {
                let (name, value) = match word.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (word.as_str(), None),
                };
                if name.is_empty() {
                    return Err(bad("ARG names can not be blank".into()));
                }
                list.push((name.to_owned(), value));
            }
            if list.is_empty() {
                return Err(at_least_one());
            }
            Instruction::Arg(list)
        }
        "ENV" | "LABEL" => {
            let Arguments::Pairs(pairs) = arguments else { return Err(at_least_one()) };
            let mut list = Vec::new();
            for pair in pairs {
                if pair.name.is_empty() {
                    return Err(bad(format!("{upper} names can not be blank")));
                }
                list.push((pair.name, pair.value));
            }
            if upper == "ENV" { Instruction::Env(list) } else { Instruction::Label(list) }
        }
        "COPY" | "ADD" => copy(&upper, &flags, arguments, heredocs, span)?,
        "RUN" => run(&flags, arguments, heredocs, span)?,
        "CMD" => Instruction::Cmd(command(arguments)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(arguments)),
        "EXPOSE" | "VOLUME" => {
            let list = words(arguments);
            if list.is_empty() {
                return Err(at_least_one());
            }
            if list.iter().any(|word| word.trim().is_empty()) {
                return Err(bad(format!("{upper} specified can not be an empty string")));
            }
            if upper == "EXPOSE" { Instruction::Expose(list) } else { Instruction::Volume(list) }
        }
        "SHELL" => match arguments {
            Arguments::Json(list) if !list.is_empty() => Instruction::Shell(list),
            Arguments::Json(_) | Arguments::None => return Err(at_least_one()),
            _ => {
                return Err(bad("SHELL requires the arguments to be in JSON form".into())
                    .help(Some("write SHELL [\"/bin/bash\", \"-c\"]")));
            }
        },
        "HEALTHCHECK" => health(&flags, arguments, span)?,
        "ONBUILD" => {
            let Arguments::Statement(inner) = arguments else { return Err(at_least_one()) };
            let kind = inner.keyword.to_uppercase();
            match kind.as_str() {
                "ONBUILD" => {
                    return Err(bad("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()));
                }
                "FROM" | "MAINTAINER" => {
                    return Err(bad(format!("{kind} isn't allowed as an ONBUILD trigger")));
                }
                _ => {}
            }
            let mut text = inner.text.clone();
            for heredoc in &inner.heredocs {
                text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
            // What is wrong with it is wrong now, not when somebody builds upon the image.
            self::instruction(*inner)?;
            Instruction::Onbuild(text)
        }
        other => {
            let Arguments::Text(text) = arguments else { return Err(exactly_one()) };
            match other {
                "USER" => Instruction::User(text),
                "WORKDIR" => Instruction::Workdir(text),
                "STOPSIGNAL" => Instruction::Stopsignal(text),
                _ => Instruction::Maintainer(text),
            }
        }
    };
    Ok(Step { span, text, instruction })
}

fn words(arguments: Arguments) -> Vec<String> {
    match arguments {
        Arguments::Json(list) | Arguments::Words(list) => list,
        Arguments::Text(text) => vec![text],
        _ => Vec::new(),
    }
}

fn command(arguments: Arguments) -> Command {
    match arguments {
        Arguments::Text(text) => Command::Shell(text),
        other => Command::Exec(words(other)),
    }
}

fn from(words: Vec<String>, platform: Option<String>, span: Span) -> Result<Instruction, Problem> {
    let bad = |message: String| Problem::new(span, message);
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, as_, name] if as_.eq_ignore_ascii_case("as") => (image, Some(name)),
        [_, word, _] => {
            return Err(bad(format!("second argument to FROM should be AS, not {word:?}"))
                .help(did_you_mean(word, ["AS"])));
        }
        _ => {
            return Err(bad(
                "FROM requires either one argument, or three: FROM <source> [AS <name>]".into(),
            ));
        }
    };
    let name = match name {
        None => None,
        Some(name) => {
            let lower = name.to_lowercase();
            let good = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if !good {
                return Err(bad(format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                )));
            }
            if lower == "scratch" || lower == "context" {
                return Err(bad(format!("{lower} is a reserved name, a stage cannot have it")));
            }
            Some(lower)
        }
    };
    Ok(Instruction::From { image: image.clone(), name, platform })
}

fn copy(
    upper: &str,
    flags: &[String],
    arguments: Arguments,
    heredocs: Vec<Heredoc>,
    span: Span,
) -> Result<Instruction, Problem> {
    let add = upper == "ADD";
    let mut known = vec![
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Switch),
        ("exclude", Kind::List),
    ];
    if add {
        known.extend([
            ("keep-git-dir", Kind::Switch),
            ("checksum", Kind::Text),
            ("unpack", Kind::Switch),
        ]);
    } else {
        known.extend([("from", Kind::Text), ("parents", Kind::Switch)]);
    }
    let flags = Flags::read(flags, &known, upper, span)?;
    let mut words = words(arguments);
    let bad = |message: String| Problem::new(span, message);
    let Some(destination) = words.pop() else {
        return Err(bad(format!(
            "{upper} requires at least two arguments, but there are none: {upper} <source>... <destination>"
        )));
    };
    if words.is_empty() {
        return Err(bad(format!(
            "{upper} requires at least two arguments, but only one was provided. Destination could not be determined"
        ))
        .help(Some(format!("write {upper} {destination} ."))));
    }
    let mut sources = Vec::new();
    let mut heredocs = heredocs.into_iter().peekable();
    for word in words {
        let inline =
            heredoc(&word, '\\').filter(|h| heredocs.peek().is_some_and(|n| n.name == h.name));
        match inline.and_then(|_| heredocs.next()) {
            Some(heredoc) => sources.push(CopySource::Inline(heredoc)),
            None => sources.push(CopySource::Path(word)),
        }
    }
    if heredocs.next().is_some() {
        return Err(bad(format!("{upper} cannot accept a heredoc as a destination")));
    }
    Ok(Instruction::Copy(Copy {
        add,
        sources,
        destination,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link"),
        parents: flags.switch("parents"),
        exclude: flags.list("exclude"),
        keep_git_dir: flags.switch("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.text("unpack").map(|value| value == "true"),
    }))
}

fn run(
    flags: &[String],
    arguments: Arguments,
    heredocs: Vec<Heredoc>,
    span: Span,
) -> Result<Instruction, Problem> {
    let known = [("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text)];
    let flags = Flags::read(flags, &known, "RUN", span)?;
    let bad = |message: String| Problem::new(span, message);
    let choice = |name: &str, choices: &[&'static str]| match flags.text(name) {
        Some(value) if !choices.contains(&value.as_str()) => {
            Err(bad(format!("invalid value {value:?} of --{name}: it is {}", choices.join(", ")))
                .help(did_you_mean(&value, choices.iter().copied())))
        }
        value => Ok(value),
    };
    let network = choice("network", &["default", "none", "host"])?;
    let security = choice("security", &["sandbox", "insecure"])?;
    let mounts = flags.list("mount").iter().map(|m| mount(m, span)).collect::<Result<_, _>>()?;
    let command = command(arguments);
    if matches!(&command, Command::Exec(list) if list.is_empty()) {
        return Err(bad("RUN requires at least one argument".into()));
    }
    Ok(Instruction::Run(Run { command, heredocs, mounts, network, security }))
}

fn health(flags: &[String], arguments: Arguments, span: Span) -> Result<Instruction, Problem> {
    let known = [
        ("interval", Kind::Text),
        ("timeout", Kind::Text),
        ("start-period", Kind::Text),
        ("start-interval", Kind::Text),
        ("retries", Kind::Text),
    ];
    let given = Flags::read(flags, &known, "HEALTHCHECK", span)?;
    let bad = |message: String| Problem::new(span, message);
    let Arguments::Typed(kind, rest) = arguments else {
        return Err(bad("HEALTHCHECK requires at least one argument".into())
            .help(Some("write HEALTHCHECK CMD … or HEALTHCHECK NONE")));
    };
    let mut check = Health::default();
    match kind.to_uppercase().as_str() {
        "NONE" => {
            if *rest != Arguments::None || !flags.is_empty() {
                return Err(bad("HEALTHCHECK NONE takes no arguments".into()));
            }
            return Ok(Instruction::Healthcheck(check));
        }
        "CMD" => {}
        other => {
            return Err(bad(format!("unknown type {other:?} in HEALTHCHECK"))
                .help(did_you_mean(other, ["CMD", "NONE"]).or(Some("it is CMD or NONE".into()))));
        }
    }
    let command = command(*rest);
    if matches!(&command, Command::Exec(list) if list.is_empty()) {
        return Err(bad("missing command after HEALTHCHECK CMD".into()));
    }
    check.command = Some(command);
    let duration = |name: &str| match given.text(name) {
        None => Ok(0),
        Some(value) => match oci::instruction::duration(&value) {
            Ok(0) => Ok(0),
            Ok(ns) if ns >= 1_000_000 => Ok(ns),
            Ok(_) => Err(bad(format!("--{name}={value} cannot be less than 1ms"))),
            Err(reason) => Err(bad(format!("--{name}: {reason}"))),
        },
    };
    check.interval = duration("interval")?;
    check.timeout = duration("timeout")?;
    check.start_period = duration("start-period")?;
    check.start_interval = duration("start-interval")?;
    if let Some(value) = given.text("retries") {
        check.retries =
            value.parse().ok().filter(|n| *n >= 0).ok_or_else(|| {
                bad(format!("--retries={value}: expected a number of at least 0"))
            })?;
    }
    Ok(Instruction::Healthcheck(check))
}
