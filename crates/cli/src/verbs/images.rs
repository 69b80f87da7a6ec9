//! `images`: the list of images.

use engine::types::ImageSummary;

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::output::human;
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;

/// Options of `images`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those without a name that others are built on too
    #[arg(long, short = 'a')]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only what matches (name=value)
    #[arg(long, short = 'f', value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show everything in full length
    #[arg(long)]
    no_trunc: bool,
    /// Show only ids
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Refused: an image here has one platform
    #[arg(long)]
    tree: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// What an image has in the list.
pub(crate) const COLUMNS: Columns = Columns {
    all: &[
        ("Containers", "CONTAINERS"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", "CREATED"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("SharedSize", "SHARED SIZE"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("VirtualSize", "VIRTUAL SIZE"),
    ],
};

const DEFAULT: &[&str] = &["Repository", "Tag", "ID", "CreatedSince", "Size"];
const DIGESTS: &[&str] = &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "ls"], &["image", "list"], &["images"]],
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
    )
    .args(0, 1);

    fn run(self, context: &Context) -> Outcome {
        if self.tree {
            return Err(Failure::new(
                1,
                "images --tree: an image here has one platform, so there is no tree to show",
            )
            .into());
        }
        let mut filters = super::filters(&self.filter);
        if let Some(name) = self.args.first() {
            filters.entry("reference".to_owned()).or_default().push(name.clone());
        }
        let found = context.engine()?.images(self.all, &filters)?;
        if self.quiet && self.format.is_none() {
            let ids: String = found
                .iter()
                .map(|i| {
                    format!("{}\n", if self.no_trunc { &i.id } else { human::short_id(&i.id) })
                })
                .collect();
            context::print(&ids)?;
            return Ok(0);
        }
        let now = jiff::Timestamp::now().as_second();
        let with_digest =
            self.digests || self.format.as_deref().is_some_and(|f| f.contains(".Digest"));
        let rows: Vec<Row> =
            found.iter().flat_map(|i| rows(i, !self.no_trunc, with_digest, now)).collect();
        let default = if self.digests { DIGESTS } else { DEFAULT };
        listing::print(&COLUMNS, default, self.format.as_deref(), &rows)?;
        Ok(0)
    }
}

/// `registry:5000/name:tag` as name and tag.
pub(crate) fn name_and_tag(text: &str) -> (&str, &str) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (text, "<none>"),
    }
}

const NONE: &str = "<none>";

/// An image as rows: one for each name.
pub(crate) fn rows(image: &ImageSummary, short: bool, digests: bool, now: i64) -> Vec<Row> {
    let digest_of = |name: &str| {
        image
            .repo_digests
            .iter()
            .filter_map(|d| d.split_once('@'))
            .find(|(repository, _)| *repository == name)
            .map_or(NONE, |(_, digest)| digest)
    };
    let mut names: Vec<(&str, &str, &str)> = image
        .repo_tags
        .iter()
        .filter(|t| *t != "<none>:<none>")
        .map(|text| {
            let (name, tag) = name_and_tag(text);
            (name, tag, if digests { digest_of(name) } else { NONE })
        })
        .collect();
    if names.is_empty() {
        names = image
            .repo_digests
            .iter()
            .filter_map(|d| d.split_once('@'))
            .map(|(name, digest)| (name, NONE, if digests { digest } else { NONE }))
            .collect();
    }
    if names.is_empty() {
        names.push((NONE, NONE, NONE));
    }
    let id = if short { human::short_id(&image.id) } else { &image.id };
    let maybe = |n: i64| if n < 0 { "N/A".to_owned() } else { human::size3(n) };
    let unique = match image.shared_size {
        n if n < 0 => "N/A".to_owned(),
        n => human::size3(image.size.saturating_sub(n)),
    };
    let containers =
        if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() };
    names
        .into_iter()
        .map(|(name, tag, digest)| {
            Row::from([
                ("Containers", cell(containers.as_str())),
                ("CreatedAt", cell(human::stamp(image.created))),
                ("CreatedSince", cell(human::ago(image.created, now))),
                ("Digest", cell(digest)),
                ("ID", cell(id)),
                ("Repository", cell(name)),
                ("SharedSize", cell(maybe(image.shared_size))),
                ("Size", cell(human::size3(image.size))),
                ("Tag", cell(tag)),
                ("UniqueSize", cell(unique.as_str())),
                ("VirtualSize", cell(human::size3(image.size))),
            ])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_dockers() {
        let image = ImageSummary {
            id: "sha256:0123456789abcdef0123456789abcdef".into(),
            created: 1_735_824_217,
            repo_tags: vec!["debian:13".into(), "reg.example:5000/a/b:latest".into()],
            repo_digests: vec!["debian@sha256:aaaa".into()],
            size: 123_456_789,
            shared_size: -1,
            containers: -1,
            ..Default::default()
        };
        let bare = ImageSummary {
            id: "sha256:fedcba98765432100".into(),
            repo_tags: vec![],
            ..image.clone()
        };
        let bare = ImageSummary { repo_digests: vec![], ..bare };
        let now = 1_735_824_217 + 7200;
        let all: Vec<Row> = [&image, &bare].iter().flat_map(|i| rows(i, true, true, now)).collect();
        insta::assert_snapshot!(listing::format(&COLUMNS, DEFAULT, None, &all).unwrap());
        insta::assert_snapshot!(listing::format(&COLUMNS, DIGESTS, None, &all).unwrap());
        assert_eq!(name_and_tag("reg:5000/x"), ("reg:5000/x", "<none>"));
    }
}
