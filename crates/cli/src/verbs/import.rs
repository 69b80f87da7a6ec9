//! Make an image of a root filesystem's tar archive.

use engine::ImportOptions;

use super::{one, open};
use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::progress::Bar;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Dockerfile instruction for the image
    #[arg(long, short = 'c', value_name = "list")]
    change: Vec<String>,
    /// Message of the import
    #[arg(long, short = 'm', value_name = "string", default_value = "")]
    message: String,
    /// Platform of the image (os/arch[/variant])
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "import"], &["import"]],
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Make an image of a root filesystem's tar archive",
    )
    .args(1, 2);

    fn run(self, context: &Context) -> Outcome {
        let source = one(&self.args)?;
        let options = ImportOptions {
            reference: self.args.get(1).cloned(),
            message: self.message,
            platform: self.platform,
            changes: self.change,
        };
        let mut bar = Bar::new(false);
        let engine = context.engine()?;
        let id = match source {
            "-" => engine.import(&mut std::io::stdin().lock(), options, &mut bar)?,
            url if url.starts_with("http://") || url.starts_with("https://") => {
                engine.import_url(context, url, options, &mut bar)?
            }
            path => engine.import_file(&open(path)?, options, &mut bar)?,
        };
        bar.finish();
        context::println(&id)?;
        Ok(0)
    }
}
