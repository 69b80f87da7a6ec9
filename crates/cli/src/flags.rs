//! From a verb's definition to Docker's way of parsing, its messages and its help.
//!
//! The definitions are clap's. Docker's client reads them by other rules: a flag may be
//! repeated and the last one counts, an option's value may begin with a dash, switches
//! take `=false`, and every mistake has its own sentence. Those rules are laid over the
//! definitions here, once, so that no verb has to repeat them.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::Failure;
use crate::values::number::parse_bool;

/// Id of the arguments that are no options.
pub(crate) const POSITIONAL: &str = "args";

/// What a verb's help and its messages say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    /// All spellings, the one shown first: `container ls`, `ps`.
    pub(crate) paths: &'static [&'static [&'static str]],
    /// What follows the verb in the usage line.
    pub(crate) usage: &'static str,
    /// One line of help.
    pub(crate) about: &'static str,
    /// More lines of help.
    pub(crate) long: &'static str,
    /// Fewest arguments that are no options.
    pub(crate) min: usize,
    /// Most of them.
    pub(crate) max: Option<usize>,
    /// Options may follow arguments.
    pub(crate) interspersed: bool,
    /// Not shown in lists of verbs.
    pub(crate) hidden: bool,
}

impl Spec {
    /// A verb with these spellings.
    pub(crate) const fn new(
        paths: &'static [&'static [&'static str]],
        usage: &'static str,
        about: &'static str,
    ) -> Self {
        Self { paths, usage, about, long: "", min: 0, max: None, interspersed: true, hidden: false }
    }

    /// With this many arguments, no fewer and no more.
    pub(crate) const fn args(mut self, min: usize, max: usize) -> Self {
        self.min = min;
        self.max = Some(max);
        self
    }

    /// With at least this many arguments.
    pub(crate) const fn at_least(mut self, min: usize) -> Self {
        self.min = min;
        self
    }

    /// Options end at the first argument.
    pub(crate) const fn options_first(mut self) -> Self {
        self.interspersed = false;
        self
    }

    /// With more lines of help.
    pub(crate) const fn long(mut self, text: &'static str) -> Self {
        self.long = text;
        self
    }

    /// Not shown in lists of verbs.
    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// Lays Docker's rules over a verb's definition.
pub(crate) fn prepare(cmd: Command, spec: &Spec) -> Command {
    let takes_h = cmd.get_arguments().any(|a| a.get_short() == Some('h'));
    let mut help = Arg::new("help").long("help").action(ArgAction::SetTrue).help("Print usage");
    if !takes_h {
        help = help.short('h');
    }
    let cmd = cmd.disable_help_flag(true).disable_version_flag(true).args_override_self(true);
    let cmd = cmd.arg(help).mut_args(prepare_arg);
    if cmd.get_arguments().any(|a| a.get_id() == POSITIONAL) && !spec.interspersed {
        cmd.mut_arg(POSITIONAL, |a| a.trailing_var_arg(true))
    } else {
        cmd
    }
}

fn prepare_arg(arg: Arg) -> Arg {
    if arg.is_positional() {
        return arg.num_args(0..).required(false);
    }
    match arg.get_action() {
        ArgAction::SetTrue => {
            let has_default = !arg.get_default_values().is_empty();
            let arg = arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(parse_bool);
            if has_default { arg } else { arg.default_value("false") }
        }
        _ => arg.allow_hyphen_values(true),
    }
}

/// True for a switch: an option without a value of its own.
pub(crate) fn is_switch(arg: &Arg) -> bool {
    arg.is_require_equals_set() && arg.get_num_args().is_some_and(|n| n.min_values() == 0)
}

/// Parses one verb's arguments; mistakes come back in Docker's words.
pub(crate) fn parse(
    program: &str,
    spelled: &str,
    cmd: &mut Command,
    spec: &Spec,
    args: &[OsString],
) -> Result<ArgMatches, Failure> {
    let mut with_name = Vec::with_capacity(args.len().saturating_add(1));
    with_name.push(OsString::from(spelled));
    with_name.extend_from_slice(args);
    let matches = cmd.try_get_matches_from_mut(with_name).map_err(|e| {
        Failure::new(125, message(cmd, args, &e)).bare().hint(format!(
            "{}\nRun '{program} {spelled} --help' for more information",
            usage_line(program, spelled, spec)
        ))
    })?;
    if !matches.get_flag("help") {
        check_count(program, spelled, spec, &matches)?;
    }
    Ok(matches)
}

fn check_count(
    program: &str,
    spelled: &str,
    spec: &Spec,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    let count = match matches.try_get_raw(POSITIONAL) {
        Ok(Some(values)) => values.len(),
        _ => 0,
    };
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let (what, see) = match spec.max {
        Some(0) if count > 0 => ("accepts no arguments".to_owned(), "Run"),
        Some(max) if max == spec.min && count != max => {
            (format!("requires {max} argument{}", plural(max)), "Run")
        }
        Some(max) if count > max => (
            if spec.min == 0 {
                format!("requires at most {max} argument{}", plural(max))
            } else {
                format!("requires at least {} and at most {max} arguments", spec.min)
            },
            "Run",
        ),
        _ if count < spec.min => {
            (format!("requires at least {} argument{}", spec.min, plural(spec.min)), "See")
        }
        _ => return Ok(()),
    };
    let mut failure = Failure::new(1, format!("'{program} {spelled}' {what}"));
    failure.hint = format!(
        "{}\n{see} '{program} {spelled} --help' for more information",
        usage_line(program, spelled, spec)
    );
    Err(failure)
}

/// `Usage:  docker run …` and an empty line.
pub(crate) fn usage_line(program: &str, spelled: &str, spec: &Spec) -> String {
    let usage = spec.usage.replace("{program}", program);
    let space = if usage.is_empty() { "" } else { " " };
    format!("Usage:  {program} {spelled}{space}{usage}\n")
}

fn message(cmd: &Command, args: &[OsString], error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(s)) => s.clone(),
        Some(ContextValue::Strings(s)) => s.join(" "),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(&text(ContextKind::InvalidArg)),
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            let last = args.last().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
            match last.strip_prefix("--") {
                Some(_) => format!("flag needs an argument: {last}"),
                None => {
                    let short = last.chars().last().unwrap_or('?');
                    format!("flag needs an argument: '{short}' in -{short}")
                }
            }
        }
        ErrorKind::ValueValidation => {
            let shown = text(ContextKind::InvalidArg);
            let value = text(ContextKind::InvalidValue);
            let arg = cmd.get_arguments().find(|a| a.to_string() == shown);
            let name = arg.map(flag_name).unwrap_or(shown);
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("invalid argument {value:?} for {name:?} flag: {why}")
        }
        ErrorKind::InvalidUtf8 => {
            "an argument is not valid UTF-8: names, commands and paths must be".to_owned()
        }
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

/// Docker's sentence for an option that nobody knows.
pub(crate) fn unknown(arg: &str) -> String {
    let name = arg.split('=').next().unwrap_or(arg);
    if name.starts_with("--") {
        format!("unknown flag: {name}")
    } else {
        let short = name.trim_start_matches('-').chars().next().unwrap_or('-');
        format!("unknown shorthand flag: '{short}' in {name}")
    }
}

fn flag_name(arg: &Arg) -> String {
    match (arg.get_short(), arg.get_long()) {
        (Some(s), Some(l)) => format!("-{s}, --{l}"),
        (Some(s), None) => format!("-{s}"),
        (None, Some(l)) => format!("--{l}"),
        (None, None) => arg.get_id().to_string(),
    }
}

/// The help of one verb, wrapped to `width` columns.
pub(crate) fn help(
    program: &str,
    spelled: &str,
    cmd: &Command,
    spec: &Spec,
    width: usize,
) -> String {
    let mut out = usage_line(program, spelled, spec);
    out.push('\n');
    out.push_str(spec.about);
    out.push('\n');
    if !spec.long.is_empty() {
        out.push('\n');
        out.push_str(spec.long);
        out.push('\n');
    }
    if spec.paths.len() > 1 {
        let all: Vec<String> =
            spec.paths.iter().map(|p| format!("{program} {}", p.join(" "))).collect();
        out.push_str(&format!("\nAliases:\n  {}\n", all.join(", ")));
    }
    let options = options(cmd, width);
    if !options.is_empty() {
        out.push_str("\nOptions:\n");
        out.push_str(&options);
    }
    out
}

/// The block of options, sorted by name, descriptions in one column.
pub(crate) fn options(cmd: &Command, width: usize) -> String {
    let mut args: Vec<&Arg> = cmd
        .get_arguments()
        .filter(|a| !a.is_positional() && !a.is_hide_set())
        .filter(|a| a.get_id() != "help")
        .collect();
    args.sort_by_key(|a| a.get_long().unwrap_or_default());
    let heads: Vec<(String, String)> = args.iter().map(|a| (head(a), description(a))).collect();
    let column = heads.iter().map(|(h, _)| h.chars().count()).max().unwrap_or(0).saturating_add(3);
    let mut out = String::new();
    for (head, text) in &heads {
        out.push_str(&format!("{head:<column$}"));
        let room = width.saturating_sub(column).max(24);
        for (i, line) in wrap(text, room).iter().enumerate() {
            if i > 0 {
                out.push_str(&" ".repeat(column));
            }
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn head(arg: &Arg) -> String {
    let mut head = match arg.get_short() {
        Some(s) => format!("  -{s}, "),
        None => "      ".to_owned(),
    };
    head.push_str(&format!("--{}", arg.get_long().unwrap_or_default()));
    if !is_switch(arg)
        && let Some(kind) = arg.get_value_names().and_then(|n| n.first())
    {
        head.push_str(&format!(" {kind}"));
    }
    head
}

fn description(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if let Some(default) = arg.get_default_values().first().and_then(|d| d.to_str()) {
        let quoted = arg.get_value_names().and_then(|n| n.first()).is_some_and(|n| n == "string");
        if !(default.is_empty() || is_switch(arg) && default == "false") {
            text.push_str(&if quoted {
                format!(" (default {default:?})")
            } else {
                format!(" (default {default})")
            });
        }
    }
    text
}

/// Breaks at spaces; a newline in the text stays one.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let wanted =
                line.chars().count().saturating_add(word.chars().count()).saturating_add(1);
            if !line.is_empty() && wanted > width {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}
