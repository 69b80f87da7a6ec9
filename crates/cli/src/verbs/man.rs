//! `man`: writes the manual pages; for whoever packages this program.

use std::path::Path;

use clap::Command;

use crate::complete;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::flags::Spec;
use crate::registry::Verb;

/// Options of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Verb for Args {
    const SPEC: Spec =
        Spec::new(&[&["man"]], "DIR", "Write the manual pages to a directory").args(1, 1).hidden();

    fn run(self, _context: &Context) -> Outcome {
        let dir = Path::new(super::one(&self.args)?);
        let count =
            write_all(dir).map_err(|e| Failure::new(1, format!("man {}: {e}", dir.display())))?;
        context::println(&format!("{count} pages written to {}", dir.display()))?;
        Ok(0)
    }
}

/// Writes a page for the program, each group and each verb; how many that was.
pub(crate) fn write_all(dir: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    page(dir, "wherry", complete::whole("wherry"))
}

fn page(dir: &Path, name: &str, command: Command) -> std::io::Result<usize> {
    let mut count = 1usize;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let full = format!("{name}-{}", sub.get_name());
        count = count.saturating_add(page(dir, &full, sub.clone())?);
    }
    let mut out = Vec::new();
    let title = name.to_owned();
    clap_mangen::Man::new(command.name(title)).render(&mut out)?;
    std::fs::write(dir.join(format!("{name}.1")), out)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    #[test]
    fn pages_are_written() {
        let dir = std::env::temp_dir().join(format!("wherry-man-{}", std::process::id()));
        let count = super::write_all(&dir).unwrap();
        assert!(count > 60, "{count}");
        let run = std::fs::read_to_string(dir.join("wherry-container-run.1")).unwrap();
        assert!(run.contains("memory"));
        assert!(dir.join("wherry-ps.1").exists());
        assert!(!dir.join("wherry-man.1").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
