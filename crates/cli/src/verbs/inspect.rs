//! `inspect`: everything known of containers, images and volumes.

use engine::ErrorKind;

use crate::context::{self, Context};
use crate::door::Door;
use crate::failure::{Failure, Outcome, all_or_one};
use crate::flags::Spec;
use crate::output::json::{Json, pretty};
use crate::output::template::Format;
use crate::registry::Verb;

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json" or a Go template
    #[arg(long, short = 'f', value_name = "string")]
    format: Option<String>,
    /// Sizes too, of containers
    #[arg(long, short = 's')]
    size: bool,
    /// Only this kind: container, image or volume
    #[arg(long, value_name = "string")]
    r#type: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// Kinds of things that can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["inspect"]],
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Show everything known of containers, images and volumes",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        let kinds: &[Kind] = match self.r#type.as_deref() {
            None | Some("") => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
            Some("container") => &[Kind::Container],
            Some("image") => &[Kind::Image],
            Some("network") => &[Kind::Network],
            Some("volume") => &[Kind::Volume],
            Some(other @ ("config" | "node" | "plugin" | "secret" | "service" | "task")) => {
                return Err(Failure::new(1, format!("inspect --type {other}: this engine has none of these yet; known are container, image and volume")).into());
            }
            Some(other) => {
                return Err(Failure::new(1, format!("{other:?} is not a valid value for --type; known are container, image and volume")).into());
            }
        };
        show(context, &self.args, self.format.as_deref(), self.size, kinds, self.r#type.is_none())
    }
}

/// Not being there is no failure while other kinds are left to look at.
fn missing<T>(e: engine::Error) -> Result<Option<T>, engine::Error> {
    if e.kind == ErrorKind::NotFound { Ok(None) } else { Err(e) }
}

fn look(engine: &Door, kind: Kind, name: &str, size: bool) -> anyhow::Result<Option<Json>> {
    Ok(match kind {
        Kind::Container => {
            let found = engine.inspect(name, size).map(Some).or_else(missing)?;
            found.map(|f| Json::of(&f)).transpose()?
        }
        Kind::Image => {
            let found = engine.inspect_image(name).map(Some).or_else(missing)?;
            found.map(|f| Json::of(&f)).transpose()?
        }
        Kind::Network => {
            let found = engine.inspect_network(name).map(Some).or_else(missing)?;
            found.map(|f| Json::of(&f)).transpose()?
        }
        Kind::Volume => {
            let found = engine.inspect_volume(name).map(Some).or_else(missing)?;
            found.map(|f| Json::of(&f)).transpose()?
        }
    })
}

/// Prints what is known of each name; a name that nothing has is an error at the end.
pub(crate) fn show(
    context: &Context,
    names: &[String],
    format: Option<&str>,
    size: bool,
    kinds: &[Kind],
    any: bool,
) -> Outcome {
    let template = match format {
        None | Some("" | "json") => None,
        Some(text) => Some(Format::parse(text)?),
    };
    let engine = context.engine()?;
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        let mut hit = None;
        for kind in kinds {
            match look(&engine, *kind, name, size) {
                Ok(None) => {}
                Ok(Some(json)) => {
                    hit = Some(json);
                    break;
                }
                Err(error) => {
                    problems.push(context.error_line(&error));
                    break;
                }
            }
        }
        match hit {
            Some(json) => found.push(json),
            None if problems.is_empty() || any => problems.push(no_such(context, name, kinds, any)),
            None => {}
        }
    }
    print_found(context, template.as_ref(), format, found, &problems)
}

/// The same for things that are found in another way; the first that is not ends it.
pub(crate) fn show_with(
    context: &Context,
    names: &[String],
    format: Option<&str>,
    look: impl Fn(&str) -> anyhow::Result<Json>,
) -> Outcome {
    let template = match format {
        None | Some("" | "json") => None,
        Some(text) => Some(Format::parse(text)?),
    };
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        match look(name) {
            Ok(json) => found.push(json),
            Err(error) => problems.push(context.error_line(&error)),
        }
    }
    print_found(context, template.as_ref(), format, found, &problems)
}

fn print_found(
    _context: &Context,
    template: Option<&Format>,
    format: Option<&str>,
    found: Vec<Json>,
    problems: &[String],
) -> Outcome {
    let mut text = String::new();
    match (template, format) {
        (Some(template), _) => {
            for json in &found {
                match template.fill(json) {
                    Ok(line) => {
                        text.push_str(&line);
                        text.push('\n');
                    }
                    Err(failure) => {
                        context::print(&text)?;
                        return Err(failure.into());
                    }
                }
            }
            if found.is_empty() {
                text.push('\n');
            }
        }
        (None, Some("json")) => {
            text.push_str(&serde_json::to_string(&Json::List(found))?);
            text.push('\n');
        }
        (None, _) => {
            text.push_str(&pretty(&Json::List(found))?);
            text.push('\n');
        }
    }
    context::print(&text)?;
    for problem in problems {
        context::note(problem);
    }
    all_or_one(!problems.is_empty())
}

fn no_such(context: &Context, name: &str, kinds: &[Kind], any: bool) -> String {
    let kind = match kinds {
        _ if any => return format!("Error: No such object: {name}"),
        [Kind::Container] => "container",
        [Kind::Image] => "image",
        [Kind::Network] => return not_found(context, &format!("network {name} not found")),
        [Kind::Volume] => return not_found(context, &format!("get {name}: no such volume")),
        _ => "object",
    };
    not_found(context, &format!("No such {kind}: {name}"))
}

fn not_found(context: &Context, what: &str) -> String {
    if context.is_docker() {
        format!("Error response from daemon: {what}")
    } else {
        format!("{}: {what}", context.program)
    }
}
