//! `history`: the steps an image was made in.

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;

/// Options of `history`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Sizes and times for people
    #[arg(long, short = 'H', default_value = "true")]
    human: bool,
    /// Show everything in full length
    #[arg(long)]
    no_trunc: bool,
    /// Refused: an image here has one platform
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Show only ids
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

const COLUMNS: Columns = Columns {
    all: &[
        ("Comment", "COMMENT"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE"),
        ("Size", "SIZE"),
    ],
};
const DEFAULT: &[&str] = &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"];
const MACHINE: &[&str] = &["ID", "CreatedAt", "CreatedBy", "Size", "Comment"];

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["image", "history"], &["history"]],
        "[OPTIONS] IMAGE",
        "Show the steps an image was made in",
    )
    .args(1, 1);

    fn run(self, context: &Context) -> Outcome {
        super::no_platform("history", self.platform.as_deref())?;
        let steps = context.engine()?.history(super::one(&self.args)?)?;
        let id = |id: &str| {
            if self.no_trunc { id.to_owned() } else { human::short_id(id).to_owned() }
        };
        if self.quiet && self.format.is_none() {
            let ids: String = steps.iter().map(|s| format!("{}\n", id(&s.id))).collect();
            context::print(&ids)?;
            return Ok(0);
        }
        let now = jiff::Timestamp::now().as_second();
        let rows: Vec<Row> = steps
            .iter()
            .map(|s| {
                let by = s.created_by.replace('\t', " ");
                let by = if self.no_trunc { by } else { human::ellipsis(&by, 45) };
                let size = if self.human { human::size3(s.size) } else { s.size.to_string() };
                Row::from([
                    ("Comment", cell(s.comment.as_str())),
                    ("CreatedAt", cell(human::rfc3339(s.created))),
                    ("CreatedBy", cell(by)),
                    (
                        "CreatedSince",
                        cell(if self.human {
                            human::ago(s.created, now)
                        } else {
                            human::rfc3339(s.created)
                        }),
                    ),
                    ("ID", cell(id(&s.id))),
                    ("Size", cell(size)),
                ])
            })
            .collect();
        let default = if self.human { DEFAULT } else { MACHINE };
        listing::print(&COLUMNS, default, self.format.as_deref(), &rows)?;
        Ok(0)
    }
}
