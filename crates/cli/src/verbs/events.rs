//! `events`: what happened, and what happens from now on.

use engine::EventOptions;
use engine::types::Event;

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::output::human;
use crate::output::json::Json;
use crate::output::template::Format;
use crate::registry::Verb;
use crate::values::time::{now, parse_time};

/// Options of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what matches (name=value)
    #[arg(long, short = 'f', value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Show as "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// From this time on (2025-01-02T13:23:37Z, or 42m for 42 minutes ago)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Up to this time, then end (as --since)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["system", "events"], &["events"]],
        "[OPTIONS]",
        "Show what happens to containers, images and volumes",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let now = now();
        let time = |flag: &str, text: &Option<String>| {
            text.as_deref()
                .filter(|t| !t.is_empty())
                .map(|t| parse_time(t, now))
                .transpose()
                .map_err(|why| Failure::new(1, format!("invalid value for \"{flag}\": {why}")))
        };
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(text) => Some(Format::parse_lenient(text)?),
        };
        let json = self.format.as_deref() == Some("json");
        let options = EventOptions {
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            filters: super::filters(&self.filter),
        };
        let mut failure: Option<anyhow::Error> = None;
        context.engine()?.events(options, &mut |event| {
            let printed = (|| {
                let text = match (&template, json) {
                    (Some(template), _) => template.fill(&Json::of(&event)?)?,
                    (None, true) => serde_json::to_string(&event)?,
                    (None, false) => line(&event),
                };
                context::println(&text)?;
                anyhow::Ok(())
            })();
            match printed {
                Ok(()) => true,
                Err(e) => {
                    failure = Some(e);
                    false
                }
            }
        })?;
        match failure {
            Some(e) => Err(e),
            None => Ok(0),
        }
    }
}

/// `TIME TYPE ACTION ID (name=value, …)`
fn line(event: &Event) -> String {
    let mut text = if event.time_nano != 0 {
        human::nano_local(event.time_nano)
    } else {
        human::rfc3339(event.time)
    };
    text.push_str(&format!(" {} {} {}", event.kind, event.action, event.actor.id));
    if !event.actor.attributes.is_empty() {
        let all: Vec<String> =
            event.actor.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        text.push_str(&format!(" ({})", all.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_dockers() {
        let mut event = Event {
            kind: "container".into(),
            action: "die".into(),
            time_nano: 1_735_824_217_000_000_001,
            ..Event::default()
        };
        event.actor.id = "abc".into();
        event.actor.attributes =
            [("exitCode".to_owned(), "0".to_owned()), ("image".to_owned(), "debian".to_owned())]
                .into();
        let text = line(&event);
        assert!(text.ends_with(" container die abc (exitCode=0, image=debian)"), "{text}");
        assert!(text.contains(".000000001"), "{text}");
    }
}
