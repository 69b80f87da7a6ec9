//! `pull`: images from registries; also what `run` and `create` do about an image that is not here.

use engine::PullOptions;
use engine::types::{CreateRequest, Created};

use super::container_flags::ContainerFlags;
use super::create::failed;
use super::transfer_flags::TransferFlags;
use crate::context::{self, Context};
use crate::door::Door;
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::transfer::Show;
use crate::registry::Verb;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fetch the images of all platforms and keep them together
    #[arg(long)]
    all_platforms: bool,
    /// Fetch all tags of the repository
    #[arg(long, short = 'a')]
    all_tags: bool,
    /// Accepted for Docker's scripts: signatures are not checked
    #[arg(long, default_value = "true")]
    disable_content_trust: bool,
    #[command(flatten)]
    transfer: TransferFlags,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "pull"], &["pull"]],
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        super::no_trust("pull", self.disable_content_trust)?;
        let name = super::one(&self.args)?;
        let mut show = self.transfer.show()?;
        let reference: oci::Reference = name.parse()?;
        if reference.tag().is_none()
            && reference.digest().is_none()
            && !self.all_tags
            && !self.transfer.quiet
            && !show.is_json()
        {
            context::println("Using default tag: latest")?;
        }
        let options = PullOptions {
            reference: name.to_owned(),
            all_tags: self.all_tags,
            platform: self.transfer.platform(),
            all_platforms: self.all_platforms,
        };
        let pulled = context.engine()?.pull(context, &options, &mut show)?;
        if show.is_json() {
            return Ok(0);
        }
        if self.all_tags {
            context::println(&reference.repository())?;
        } else {
            for one in pulled {
                context::println(&one.to_string())?;
            }
        }
        Ok(0)
    }
}

/// What `--pull`, `--platform` and `--quiet` say.
pub(crate) struct Policy {
    pull: String,
    platform: Option<String>,
    quiet: bool,
    rootfs: bool,
}

impl Policy {
    /// Of the options of a container.
    pub(crate) fn of(flags: &ContainerFlags) -> Self {
        Self {
            pull: flags.pull.clone(),
            platform: flags.platform.clone().filter(|p| !p.is_empty()),
            quiet: flags.quiet,
            rootfs: flags.rootfs.is_some(),
        }
    }
}

/// Makes a container, and fetches its image first where `--pull` says so.
pub(crate) fn create(
    context: &Context,
    engine: &Door,
    policy: &Policy,
    request: CreateRequest,
) -> anyhow::Result<Created> {
    let image = request.config.image.clone();
    let platform = &policy.platform;
    let fetched = !policy.rootfs && !image.is_empty();
    let fetch = || -> anyhow::Result<()> {
        let options = PullOptions {
            reference: image.clone(),
            platform: platform.clone(),
            ..PullOptions::default()
        };
        let mut show = Show::stderr(policy.quiet);
        match engine.pull(context, &options, &mut show) {
            Ok(_) => Ok(()),
            Err(e) => Err(match e.downcast::<engine::Error>() {
                Ok(own) => failed(context, own).into(),
                Err(other) => other,
            }),
        }
    };
    if fetched && policy.pull == "always" {
        fetch()?;
        return Ok(engine.create(request).map_err(|e| failed(context, e))?);
    }
    // Looked for only after it was not found: a start must not pay for it.
    let again = (fetched && policy.pull != "never").then(|| request.clone());
    let error = match engine.create(request) {
        Ok(created) => return Ok(created),
        Err(error) => error,
    };
    let missing = |name: &str| {
        error.kind == engine::ErrorKind::NotFound
            && engine.has_image(name, platform.as_deref()).is_ok_and(|has| !has)
    };
    let reference = image.parse::<oci::Reference>().ok().map(oci::Reference::or_latest);
    match (again, reference) {
        (Some(request), Some(reference)) if missing(&image) => {
            if !policy.quiet {
                context::note(&format!("Unable to find image '{}' locally", reference.familiar()));
            }
            fetch().map_err(|fetching| {
                // It is here for another platform: that is what there is to say.
                if engine.has_image(&image, None).is_ok_and(|has| has) {
                    let fetching = fetching.to_string();
                    let said = format!("{}: ", context.program);
                    let fetching = fetching.strip_prefix(&said).unwrap_or(&fetching);
                    let error = engine::Error::new(
                        error.kind,
                        format!("{error}; it could not be fetched for that one: {fetching}"),
                    );
                    return failed(context, error).into();
                }
                fetching
            })?;
            Ok(engine.create(request).map_err(|e| failed(context, e))?)
        }
        _ => Err(failed(context, error).into()),
    }
}
