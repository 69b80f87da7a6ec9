//! Keep layers in another form.

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::output::progress::Bar;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Form to change to ("erofs"|"directories")
    #[arg(long, value_name = "string", required = true)]
    to: String,
    /// Show no progress
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["storage", "migrate"]],
        "--to FORM",
        "Keep layers in another form",
    )
    .long(
        "With erofs an image is mounted from its layers' archives; with directories each layer is\n\
                 unpacked. Containers may run meanwhile. If it is interrupted, run it again.",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let mut bar = Bar::new(self.quiet);
        let done = context.local()?.migrate_storage(&self.to, &mut bar)?;
        bar.finish();
        let mut text = format!(
            "{} verified, {} made, {} given back\n",
            layers(done.layers),
            done.made,
            human::size(i64::try_from(done.freed).unwrap_or(i64::MAX))
        );
        if done.in_use > 0 {
            text.push_str(&format!(
                "{} still used by running containers: run this again when they have ended\n",
                layers(done.in_use)
            ));
        }
        context::print(&text)?;
        Ok(0)
    }
}

fn layers(number: usize) -> String {
    format!("{number} {}", if number == 1 { "layer" } else { "layers" })
}
