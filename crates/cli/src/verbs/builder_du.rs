//! What the build cache holds.

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["builder", "du"]], "[OPTIONS]", "Show what the build cache holds").args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let engine = context.local()?;
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut text =
            format!("{:<14}{:<8}{:<12}{:<6}{}\n", "ID", "SHARED", "SIZE", "USED", "STEP");
        let mut total = 0u64;
        for step in engine.cached_steps()? {
            let id: String = step.key.chars().take(12).collect();
            let shared = if step.shared { "yes" } else { "no" };
            let size = human::size(signed(step.size));
            let line: String = step.description.replace('\n', " ").chars().take(80).collect();
            text.push_str(&format!("{id:<14}{shared:<8}{size:<12}{:<6}{line}\n", step.uses));
            if !step.shared {
                total = total.saturating_add(step.size);
            }
        }
        for mount in build::cache::mounts(&engine)? {
            let size = human::size(signed(mount.size));
            let id: String = mount.name.chars().take(12).collect();
            text.push_str(&format!("{id:<14}{:<8}{size:<12}{:<6}mount {}\n", "no", "-", mount.id));
            total = total.saturating_add(mount.size);
        }
        text.push_str(&format!("Only in the cache: {}\n", human::size(signed(total))));
        context::print(&text)?;
        Ok(0)
    }
}
