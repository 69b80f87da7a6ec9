//! `config show`: every setting, its value and where it came from.

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::output::json::Json;
use crate::output::table;
use crate::registry::Verb;

/// Options of `config show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json"
    #[arg(long, value_name = "string")]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["config", "show"]],
        "[OPTIONS]",
        "Show every setting and where its value came from",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let shown = context.settings()?.show();
        match self.format.as_deref() {
            None | Some("" | "table") => {
                // The values last, for they may be long.
                let heading = ["KEY", "ORIGIN", "VALUE"].map(ToOwned::to_owned).to_vec();
                let rows: Vec<Vec<String>> = std::iter::once(heading)
                    .chain(
                        shown
                            .into_iter()
                            .map(|s| vec![s.name.to_owned(), s.origin.to_string(), s.value]),
                    )
                    .collect();
                context::print(&table::render(&rows))?;
            }
            Some("json") => {
                let text = |s: &str| Json::Text(s.to_owned());
                for s in shown {
                    let row = Json::Map(vec![
                        ("Key".to_owned(), text(s.name)),
                        ("Value".to_owned(), text(&s.value)),
                        ("Origin".to_owned(), text(&s.origin.to_string())),
                    ]);
                    context::println(&serde_json::to_string(&row)?)?;
                }
            }
            Some(other) => {
                return Err(Failure::new(
                    1,
                    format!("--format {other:?}: known are table and json"),
                )
                .into());
            }
        }
        Ok(0)
    }
}
