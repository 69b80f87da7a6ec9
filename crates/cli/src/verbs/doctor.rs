//! `doctor`: what this host offers, what is missing, what that costs, what to do.

use std::io::IsTerminal;

use engine::doctor::{Finding, State, examine};

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::{self, Spec};
use crate::output::table;
use crate::registry::Verb;

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show as "json", a line per finding
    #[arg(long, value_name = "string")]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["doctor"]], "[OPTIONS]", "Look at what this host offers to containers")
            .long("Exit code 1 says that something is missing without which no container starts.")
            .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let findings = examine(context.settings()?);
        match self.format.as_deref() {
            None | Some("" | "table") => {
                context::print(&text(&findings, std::io::stdout().is_terminal()))?;
            }
            Some("json") => {
                for finding in &findings {
                    context::println(&serde_json::to_string(finding)?)?;
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
        Ok(u8::from(findings.iter().any(|f| f.state == State::Missing)))
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Note => "note",
        State::Weak => "weak",
        State::Missing => "MISSING",
    }
}

/// A table of all, then what is not as it should be.
fn text(findings: &[Finding], terminal: bool) -> String {
    let heading = ["AREA", "CHECK", "STATE", "FOUND"].map(ToOwned::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(heading)
        .chain(findings.iter().map(|f| {
            vec![f.area.to_owned(), f.name.clone(), word(f.state).to_owned(), f.found.clone()]
        }))
        .collect();
    let mut out = table::render(&rows);
    let mut worst: Vec<&Finding> = findings.iter().filter(|f| f.state != State::Good).collect();
    worst.sort_by_key(|f| std::cmp::Reverse(f.state));
    if worst.is_empty() {
        out.push_str("\nThis host offers everything.\n");
        return out;
    }
    out.push_str("\nWhat could be better:\n");
    let width = if terminal { crate::app::width() } else { 80 };
    for f in worst {
        out.push_str(&format!("\n  {} ({}: {})\n", f.name, word(f.state), f.found));
        for (label, text) in [("costs", f.cost), ("do", f.remedy)] {
            for (i, line) in flags::wrap(text, width.saturating_sub(12)).iter().enumerate() {
                let label = if i == 0 { format!("{label}:") } else { String::new() };
                out.push_str(&format!("    {label:<7} {line}\n"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_weak_is_explained() {
        let finding = |name: &str, state, cost, remedy| Finding {
            area: "storage",
            name: name.to_owned(),
            state,
            found: "no".to_owned(),
            cost,
            remedy,
        };
        let all = [
            finding("one", State::Good, "", ""),
            finding("two", State::Note, "it is slower", "a newer kernel"),
            finding(
                "three",
                State::Missing,
                "no container starts, whatever one does about it, on this host or any other that is like it",
                "load a module",
            ),
        ];
        insta::assert_snapshot!(text(&all, false));
    }
}
