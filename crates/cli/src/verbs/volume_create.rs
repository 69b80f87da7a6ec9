//! Make a volume.

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::registry::Verb;
use crate::values::env::{check_label, pairs};

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Refused: for cluster volumes
    #[arg(long, value_name = "string")]
    availability: Option<String>,
    /// Driver of the volume
    #[arg(long, short = 'd', value_name = "string", default_value = "local")]
    driver: String,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "string")]
    group: Option<String>,
    /// Set a label (name=value)
    #[arg(long, value_name = "list", value_parser = check_label)]
    label: Vec<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "bytes")]
    limit_bytes: Option<String>,
    /// Name of the volume; the argument is the same
    #[arg(long, value_name = "string", hide = true)]
    name: Option<String>,
    /// Option of the driver (name=value)
    #[arg(long, short = 'o', value_name = "map")]
    opt: Vec<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "bytes")]
    required_bytes: Option<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "string")]
    scope: Option<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "map")]
    secret: Vec<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "string")]
    sharing: Option<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "list")]
    topology_preferred: Vec<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "list")]
    topology_required: Vec<String>,
    /// Refused: for cluster volumes
    #[arg(long, value_name = "string")]
    r#type: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["volume", "create"]], "[OPTIONS] [VOLUME]", "Make a volume").args(0, 1);

    fn run(self, context: &Context) -> Outcome {
        let cluster = [
            ("--availability", self.availability.is_some()),
            ("--group", self.group.is_some()),
            ("--limit-bytes", self.limit_bytes.is_some()),
            ("--required-bytes", self.required_bytes.is_some()),
            ("--scope", self.scope.is_some()),
            ("--secret", !self.secret.is_empty()),
            ("--sharing", self.sharing.is_some()),
            ("--topology-preferred", !self.topology_preferred.is_empty()),
            ("--topology-required", !self.topology_required.is_empty()),
            ("--type", self.r#type.is_some()),
        ];
        if let Some((flag, _)) = cluster.iter().find(|(_, given)| *given) {
            return Err(Failure::new(1, format!("{flag} is for volumes of a cluster, which this engine is not part of; leave it out")).into());
        }
        if self.name.is_some() && !self.args.is_empty() {
            return Err(Failure::new(1, "conflicting options: cannot specify a volume-name through both --name and as a positional arg").into());
        }
        let name = self.args.first().or(self.name.as_ref());
        let volume = context.engine()?.create_volume(
            name.map(String::as_str),
            &self.driver,
            pairs(&self.opt),
            pairs(&self.label),
        )?;
        context::println(&volume.name)?;
        Ok(0)
    }
}
