//! From the arguments to one verb.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use engine::trace::Recorder;

use crate::context::{self, Context, Globals};
use crate::failure::{Failure, Outcome};
use crate::registry::{self, COMMON, Entry, GROUPS, OCI, VERBS};
use crate::{flags, globals};

/// Version of this build.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the command the arguments name.
pub(crate) fn main(args: Vec<OsString>) -> u8 {
    let program = match args.first().map(|a| Path::new(a).file_name().unwrap_or_default()) {
        Some(name) if name == "docker" => "docker",
        _ => "wherry",
    };
    let mut context = Context::new(program.to_owned(), Globals::default());
    let result = dispatch(&mut context, args.get(1..).unwrap_or_default());
    let code = finish(&context, result);
    let traced = write_trace(&context);
    if code == 0 { finish(&context, traced) } else { code }
}

/// Has the phases of the command noted, if that was asked for; where they are to be written is tried now.
fn begin_trace(context: &mut Context) -> Result<(), Failure> {
    let Some(path) = &context.globals.trace else { return Ok(()) };
    if let Err(e) = std::fs::File::create(path) {
        let message = format!("cannot write the trace to {}: {e}", path.display());
        return Err(global_failure(context, message));
    }
    context.trace = Recorder::on("caller");
    Ok(())
}

fn write_trace(context: &Context) -> Outcome {
    if let Some(path) = context.globals.trace.as_ref().filter(|_| context.trace.is_on()) {
        let text = engine::trace::chrome(context.trace.take());
        std::fs::write(path, text)
            .with_context(|| format!("cannot write the trace to {}", path.display()))?;
    }
    Ok(0)
}

/// Prints a failure and gives the exit code.
fn finish(context: &Context, result: Outcome) -> u8 {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // The reader of our output has gone: there is nobody left to tell.
    if let Some(io) = error.downcast_ref::<std::io::Error>()
        && io.kind() == std::io::ErrorKind::BrokenPipe
    {
        return 141;
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        if !failure.message.is_empty() {
            let name = if failure.bare { String::new() } else { format!("{}: ", context.program) };
            context::note(&format!("{name}{}", failure.message));
        }
        if !failure.hint.is_empty() {
            context::note(&format!("\n{}", failure.hint));
        }
        return failure.code;
    }
    context.complain(&error);
    1
}

fn dispatch(context: &mut Context, args: &[OsString]) -> Outcome {
    let rest = match globals(context, args)? {
        Next::Verb(rest) => rest,
        Next::Version => return version(context),
        Next::Help => return root_help(context),
    };
    let words: Vec<&str> = rest.iter().take(2).map_while(|a| a.to_str()).collect();
    match words.first().copied() {
        None => return root_help(context),
        Some("help") => return help_for(context, rest.get(1..).unwrap_or_default()),
        Some(_) => {}
    }
    let Some((entry, used)) = registry::find(&words) else {
        return group_or_unknown(context, &words);
    };
    begin_trace(context)?;
    let trace = context.trace.clone();
    let _phase = trace.phase("the whole command");
    context.spelled = words.get(..used).unwrap_or_default().join(" ");
    let mut cmd = entry.command();
    let args = rest.get(used..).unwrap_or_default();
    let mut matches =
        flags::parse(&context.program, &context.spelled, &mut cmd, &entry.spec, args)?;
    if matches.get_flag("help") {
        return verb_help(context, entry);
    }
    entry.run(context, &mut matches)
}

enum Next<'a> {
    Verb(&'a [OsString]),
    Version,
    Help,
}

/// Reads the options before the verb.
fn globals<'a>(context: &mut Context, args: &'a [OsString]) -> anyhow::Result<Next<'a>> {
    let mut at = 0usize;
    while let Some(arg) = args.get(at) {
        let text = arg.to_string_lossy().into_owned();
        if !text.starts_with('-') || text == "-" {
            break;
        }
        at = at.saturating_add(1);
        if text == "--" {
            break;
        }
        let (name, mut value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.clone(), None),
        };
        match name.as_str() {
            "-v" | "--version" => return Ok(Next::Version),
            "-h" | "--help" => return Ok(Next::Help),
            _ => {}
        }
        let Some(option) = globals::find(&name) else {
            return Err(global_failure(context, flags::unknown(&text)).into());
        };
        if option.value.is_none() {
            let text = value.as_deref().unwrap_or("true");
            let on = crate::values::number::parse_bool(text).map_err(|e| {
                let spelled = option.spelled();
                global_failure(
                    context,
                    format!("invalid argument {text:?} for \"{spelled}\" flag: {e}"),
                )
            })?;
            match option.long {
                "debug" => context.globals.debug = on,
                "tls" => context.globals.tls = on,
                _ => context.globals.tlsverify = Some(on),
            }
            continue;
        }
        if value.is_none() {
            let Some(next) = args.get(at) else {
                let message = if name.starts_with("--") {
                    format!("flag needs an argument: {name}")
                } else {
                    let short = name.trim_start_matches('-');
                    format!("flag needs an argument: '{short}' in {name}")
                };
                return Err(global_failure(context, message).into());
            };
            at = at.saturating_add(1);
            value = Some(next.to_string_lossy().into_owned());
        }
        let value = value.unwrap_or_default();
        let globals = &mut context.globals;
        match option.long {
            "data-root" => globals.data_root = Some(value.into()),
            "run-root" => globals.run_root = Some(value.into()),
            "config" => globals.config = Some(value.into()),
            "log-level" => globals.log_level = Some(value),
            "context" => globals.context = Some(value),
            "tlscacert" => globals.tlscacert = Some(value.into()),
            "tlscert" => globals.tlscert = Some(value.into()),
            "tlskey" => globals.tlskey = Some(value.into()),
            "trace" => globals.trace = Some(value.into()),
            _ => globals.host = Some(value),
        }
    }
    Ok(Next::Verb(args.get(at..).unwrap_or_default()))
}

fn global_failure(context: &Context, message: String) -> Failure {
    let program = &context.program;
    Failure::new(125, message).bare().hint(format!(
        "Usage:  {program} [OPTIONS] COMMAND [ARG...]\n\nRun '{program} --help' for more information"
    ))
}

fn version(context: &Context) -> Outcome {
    let name = if context.is_docker() { "Docker" } else { "Wherry" };
    context::println(&format!("{name} version {VERSION}"))?;
    Ok(0)
}

fn help_for(context: &mut Context, words: &[OsString]) -> Outcome {
    let words: Vec<&str> = words.iter().take(2).map_while(|a| a.to_str()).collect();
    match registry::find(&words) {
        Some((entry, used)) => {
            context.spelled = words.get(..used).unwrap_or_default().join(" ");
            verb_help(context, entry)
        }
        None if words.is_empty() => root_help(context),
        None => group_or_unknown(context, &words),
    }
}

/// Width to wrap help to: the terminal's, else 80.
pub(crate) fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|w| usize::from(w.ws_col))
        .filter(|w| *w > 0)
        .unwrap_or(80)
}

fn verb_help(context: &Context, entry: &Entry) -> Outcome {
    let text =
        flags::help(&context.program, &context.spelled, &entry.command(), &entry.spec, width());
    emit(&text)
}

fn emit(text: &str) -> Outcome {
    let mut out = context::out();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}

fn group_or_unknown(context: &Context, words: &[&str]) -> Outcome {
    let program = &context.program;
    let first = words.first().copied().unwrap_or_default();
    if let Some(why) = not_here(first, words.get(1).copied()) {
        return Err(Failure::new(1, format!("{program} {}: {why}", words.join(" "))).bare().into());
    }
    let Some((group, about)) = GROUPS.iter().find(|(name, _)| *name == first) else {
        return Err(Failure::new(1, format!("unknown command: {program} {first}"))
            .hint(format!("Run '{program} --help' for more information"))
            .into());
    };
    match words.get(1) {
        None | Some(&"--help" | &"-h") => emit(&group_help(program, group, about)),
        Some(word) if word.starts_with('-') => Err(Failure::new(125, flags::unknown(word))
            .bare()
            .hint(format!(
                "Usage:  {program} {group}\n\nRun '{program} {group} --help' for more information"
            ))
            .into()),
        Some(word) => Err(Failure::new(1, format!("unknown command: {program} {group} {word}"))
            .hint(format!(
                "Usage:  {program} {group}\n\nRun '{program} {group} --help' for more information"
            ))
            .into()),
    }
}

/// Why a verb of Docker's is not here; `None` for what is no verb of Docker's.
fn not_here(first: &str, second: Option<&str>) -> Option<&'static str> {
    match (first, second) {
        ("manifest", Some("create" | "annotate" | "push" | "rm")) => {
            Some("manifest lists are not made by this version; manifest inspect shows them")
        }
        ("buildx", _) => Some("builders are not managed by this version; build builds here"),
        ("compose", _) => Some("stacks of services are not known to this version"),
        ("swarm" | "node" | "service" | "stack" | "secret", _) | ("volume", Some("update")) => {
            Some("this engine is not part of a cluster")
        }
        ("checkpoint", _) => Some("this engine makes no checkpoints"),
        ("plugin", _) => Some("this engine has no plugins"),
        ("trust", _) => Some("signatures are not checked by this engine"),
        _ => None,
    }
}

/// Help of a group of verbs.
pub(crate) fn group_help(program: &str, group: &str, about: &str) -> String {
    let mut rows: Vec<(&str, &str)> = VERBS
        .iter()
        .filter(|e| !e.spec.hidden)
        .filter_map(|e| {
            let path = e.spec.paths.iter().find(|p| p.len() == 2 && p.first() == Some(&group))?;
            Some((*path.get(1)?, e.spec.about))
        })
        .collect();
    rows.sort_unstable();
    format!(
        "Usage:  {program} {group} COMMAND\n\n{about}\n\nCommands:\n{}\nRun '{program} {group} COMMAND --help' for more information on a command.\n",
        rows_text(&rows)
    )
}

fn rows_text(rows: &[(&str, &str)]) -> String {
    rows.iter().map(|(name, about)| format!("  {name:<11} {about}\n")).collect()
}

fn root_help(context: &Context) -> Outcome {
    emit(&root_help_text(&context.program))
}

/// Help of the program itself.
pub(crate) fn root_help_text(program: &str) -> String {
    let mut verbs: Vec<(&str, &str)> = VERBS
        .iter()
        .filter(|e| !e.spec.hidden)
        .filter_map(|e| {
            let path = e.spec.paths.iter().find(|p| p.len() == 1)?;
            Some((*path.first()?, e.spec.about))
        })
        .collect();
    verbs.push(OCI);
    verbs.sort_unstable();
    let common: Vec<_> = COMMON
        .iter()
        .filter_map(|name| verbs.iter().find(|(verb, _)| verb == name).copied())
        .collect();
    let others: Vec<_> = verbs.iter().filter(|(name, _)| !COMMON.contains(name)).copied().collect();
    let options: String = globals::ALL
        .iter()
        .map(|option| format!("{:<27}{}\n", option.head(), option.about))
        .collect();
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nContainers without a daemon\n\n\
         Common Commands:\n{}\nManagement Commands:\n{}\nCommands:\n{}\nGlobal Options:\n{options}\n\
         Run '{program} COMMAND --help' for more information on a command.\n",
        rows_text(&common),
        rows_text(GROUPS),
        rows_text(&others),
    )
}
