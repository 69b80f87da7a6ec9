//! Write images as a tar archive.

use engine::ArchiveFormat;

use super::archive_to;
use crate::context::Context;
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Form of the archive: docker or oci
    #[arg(long, value_name = "string", default_value = "docker")]
    format: String,
    /// Write to this file in place of STDOUT
    #[arg(long, short = 'o', value_name = "string")]
    output: Option<String>,
    /// Refused: images here have one platform each
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "save"], &["save"]],
        "[OPTIONS] IMAGE [IMAGE...]",
        "Write images as a tar archive",
    )
    .at_least(1);

    fn run(self, context: &Context) -> Outcome {
        super::no_platform("save", self.platform.as_deref())?;
        let format = match self.format.as_str() {
            "docker" | "docker-archive" => ArchiveFormat::Docker,
            "oci" | "oci-archive" => ArchiveFormat::OciLayout,
            other => {
                return Err(Failure::new(
                    1,
                    format!("--format {other:?}: archives are written as docker or oci"),
                )
                .into());
            }
        };
        let engine = context.engine()?;
        archive_to(context, self.output.as_deref(), &mut |out| {
            Ok(engine.save(&self.args, format, out)?)
        })
    }
}
