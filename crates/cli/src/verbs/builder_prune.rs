//! Forget results of builds.

use super::confirm;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::output::human;
use crate::registry::Verb;
use crate::values::size::parse_size;
use crate::values::time::parse_time;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also what images have, and the directories of cache mounts
    #[arg(long, short = 'a')]
    all: bool,
    /// What to remove: until=24h is what was made before, unused-for=24h what was used last before
    #[arg(long, value_name = "filter")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(long, short = 'f')]
    force: bool,
    /// Keep so much, what was used last first
    #[arg(long, value_name = "bytes", value_parser = parse_size)]
    keep_storage: Option<i64>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["builder", "prune"]], "[OPTIONS]", "Remove the build cache").args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let what = if self.all { "all" } else { "all dangling" };
        confirm(self.force, &format!("WARNING! This will remove {what} build cache."))?;
        let now = crate::values::time::now();
        let mut bounds = Vec::new();
        for text in &self.filter {
            let bad = |why: String| Failure::new(1, format!("invalid filter '{text}': {why}"));
            let (made, value) = match text.split_once('=') {
                Some(("until", value)) => (true, value),
                Some(("unused-for", value)) => (false, value),
                _ => return Err(bad("known are until=TIME and unused-for=TIME".into()).into()),
            };
            bounds.push((made, parse_time(value, now).map_err(bad)?));
        }
        let keep = |step: &store::CachedStep| {
            bounds.iter().any(|(made, bound)| {
                let at = if *made { step.created_ns } else { step.used_ns };
                at >= *bound
            })
        };
        let engine = context.local()?;
        let (gone, mut freed) = match self.keep_storage {
            Some(bytes) => build::cache::trim_all(&engine, u64::try_from(bytes).unwrap_or(0))?,
            None => (build::cache::prune(&engine, self.all, &keep)?, 0),
        };
        let bytes: u64 = gone
            .iter()
            .filter(|step| !step.shared)
            .fold(0, |sum, step| sum.saturating_add(step.size));
        if self.all && self.keep_storage.is_none() {
            let keep = |mount: &build::cache::MountCache| {
                bounds.iter().any(|(_, bound)| mount.used_ns >= *bound)
            };
            freed = build::cache::remove_mounts(&engine, &keep)?;
        }
        let bytes = bytes.saturating_add(freed);
        let size = human::size(i64::try_from(bytes).unwrap_or(i64::MAX));
        context::println(&format!("Total reclaimed space: {size}"))?;
        Ok(0)
    }
}
