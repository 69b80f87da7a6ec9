//! `create`: a container that is not started.

use super::container_flags::{ContainerFlags, IdFile};
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of `create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "create"], &["create"]],
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a container without starting it",
    )
    .options_first();

    fn run(self, context: &Context) -> Outcome {
        need_image(context, &self.flags, &self.args, &Self::SPEC)?;
        let mut file = IdFile::reserve(self.flags.cidfile.as_deref())?;
        let policy = super::pull::Policy::of(&self.flags);
        let request = self
            .flags
            .request(&self.args, &|name| std::env::var(name).ok())
            .map_err(|f| see_help(context, f))?;
        let engine = context.engine()?;
        let created = super::pull::create(context, &engine, &policy, request)?;
        for warning in &created.warnings {
            context::note(&format!("WARNING: {warning}"));
        }
        file.write(&created.id)?;
        context::println(&created.id)?;
        Ok(0)
    }
}

/// An image must be named unless a directory takes its place.
pub(crate) fn need_image(
    context: &Context,
    flags: &ContainerFlags,
    args: &[String],
    spec: &Spec,
) -> Result<(), Failure> {
    if flags.rootfs.is_some() || !args.is_empty() {
        return Ok(());
    }
    let (program, spelled) = (&context.program, &context.spelled);
    Err(Failure::new(1, format!("'{program} {spelled}' requires at least 1 argument")).hint(
        format!(
            "{}\nSee '{program} {spelled} --help' for more information",
            crate::flags::usage_line(program, spelled, spec)
        ),
    ))
}

/// Points to the help, as Docker does when it could not start a container.
pub(crate) fn see_help(context: &Context, failure: Failure) -> Failure {
    let (program, spelled) = (&context.program, &context.spelled);
    failure.hint(format!("Run '{program} {spelled} --help' for more information"))
}

/// An engine's error where 125, 126 and 127 tell what failed.
pub(crate) fn failed(context: &Context, error: engine::Error) -> Failure {
    let code = error.run_exit_code();
    let line = context.error_line(&error.into());
    if matches!(context.spelled.as_str(), "create" | "container create") {
        // Nothing was to be started, so the code is that of any other verb.
        return Failure::new(1, line).bare();
    }
    see_help(context, Failure::new(code, line).bare())
}
