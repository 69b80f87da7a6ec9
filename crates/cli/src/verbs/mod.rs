//! The verbs, a file each.
//!
//! Each file has `Args`, the verb's options, and `run`, which calls the engine and prints.

use std::io::{BufRead, IsTerminal, Write};

use engine::Filters;
use engine::types::ImageDelete;

use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::output::human;

pub(crate) mod attach;
pub(crate) mod build;
pub(crate) mod builder_du;
pub(crate) mod builder_prune;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod config_show;
mod container_flags;
pub(crate) mod container_inspect;
pub(crate) mod container_prune;
pub(crate) mod context_create;
pub(crate) mod context_export;
pub(crate) mod context_import;
pub(crate) mod context_inspect;
pub(crate) mod context_ls;
pub(crate) mod context_rm;
pub(crate) mod context_show;
pub(crate) mod context_update;
pub(crate) mod context_use;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod dns_disable;
pub(crate) mod dns_enable;
pub(crate) mod dns_status;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod history;
pub(crate) mod image_copy;
pub(crate) mod image_inspect;
pub(crate) mod image_prune;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod manifest_inspect;
pub(crate) mod network_connect;
pub(crate) mod network_create;
pub(crate) mod network_disconnect;
pub(crate) mod network_inspect;
pub(crate) mod network_ls;
pub(crate) mod network_prune;
pub(crate) mod network_repair;
pub(crate) mod network_rm;
pub(crate) mod pause;
pub(crate) mod port;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod storage_migrate;
pub(crate) mod system_boot;
pub(crate) mod system_df;
pub(crate) mod system_dial_stdio;
pub(crate) mod system_prune;
pub(crate) mod tag;
pub(crate) mod top;
mod transfer_flags;
pub(crate) mod unpause;
pub(crate) mod update;
pub(crate) mod version;
pub(crate) mod volume_create;
pub(crate) mod volume_inspect;
pub(crate) mod volume_ls;
pub(crate) mod volume_prune;
pub(crate) mod volume_rm;
pub(crate) mod wait;

/// The first argument.
fn one(args: &[String]) -> Result<&str, Failure> {
    args.first().map(String::as_str).ok_or_else(|| Failure::new(1, "an argument is missing"))
}

/// The first two arguments.
fn two(args: &[String]) -> Result<[&str; 2], Failure> {
    match args {
        [a, b, ..] => Ok([a, b]),
        _ => Err(Failure::new(1, "two arguments are needed")),
    }
}

/// Opens an archive to read.
fn open(path: &str) -> Result<std::fs::File, Failure> {
    let failure = |why: String| Failure::new(1, format!("open {path}: {why}")).bare();
    let file = std::fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => failure("no such file or directory".to_owned()),
        _ => failure(e.to_string()),
    })?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        let how = format!("is a directory: pack it first, with tar -C {path} -c . | wherry …");
        return Err(failure(how));
    }
    Ok(file)
}

/// Refuses `--platform` where it makes no sense here.
fn no_platform(verb: &str, given: Option<&str>) -> Result<(), Failure> {
    match given {
        Some(platform) if !platform.is_empty() => Err(Failure::new(
            1,
            format!(
                "{verb} --platform {platform}: an image here has one platform; leave the option out"
            ),
        )),
        _ => Ok(()),
    }
}

/// Refuses the checking of signatures, which Docker has removed, too.
fn no_trust(verb: &str, disabled: bool) -> Result<(), Failure> {
    if disabled {
        return Ok(());
    }
    let why = "signatures are not checked by this engine; leave the option out";
    Err(Failure::new(1, format!("{verb} --disable-content-trust=false: {why}")))
}

/// Writes an archive to a file, whole or not at all, or to standard output.
fn archive_to(
    _context: &Context,
    path: Option<&str>,
    write: &mut dyn FnMut(&mut dyn Write) -> anyhow::Result<()>,
) -> Outcome {
    let Some(path) = path.filter(|p| !p.is_empty()) else {
        if std::io::stdout().is_terminal() {
            return Err(Failure::new(
                1,
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            )
            .bare()
            .into());
        }
        let mut out = context::out();
        write(&mut out)?;
        out.flush()?;
        return Ok(0);
    };
    let target = std::path::Path::new(path);
    if target.exists() && !target.is_file() {
        // A device or a pipe is written to as it is.
        let mut out = std::fs::OpenOptions::new()
            .write(true)
            .open(target)
            .map_err(|e| Failure::new(1, format!("{path}: {e}")))?;
        write(&mut out)?;
        return Ok(0);
    }
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".part-{}", std::process::id()));
    let part = target.with_file_name(name);
    let result = (|| {
        let file = std::fs::File::create(&part)
            .map_err(|e| Failure::new(1, format!("invalid output path {path}: {e}")))?;
        let mut out = std::io::BufWriter::with_capacity(256 * 1024, file);
        write(&mut out)?;
        out.flush()?;
        std::fs::rename(&part, target)
            .map_err(|e| Failure::new(1, format!("invalid output path {path}: {e}")))?;
        anyhow::Ok(())
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result.map(|()| 0)
}

/// One `--filter`.
fn parse_filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_lowercase(), value.trim().to_owned()))
        }
        _ => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

/// All `--filter` as the engine takes them.
fn filters(given: &[(String, String)]) -> Filters {
    let mut all = Filters::new();
    for (name, value) in given {
        all.entry(name.clone()).or_default().push(value.clone());
    }
    all
}

/// Asks whether to go on; anything but yes ends the command.
fn confirm(force: bool, warning: &str) -> anyhow::Result<()> {
    if force {
        return Ok(());
    }
    context::print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    if answer.is_empty() {
        context::println("")?;
    }
    Err(Failure::silent(0).into())
}

/// A heading and what was deleted.
fn section(heading: &str, deleted: &[String]) -> std::io::Result<()> {
    if deleted.is_empty() {
        return Ok(());
    }
    context::print(&format!("{heading}\n{}\n\n", deleted.join("\n")))
}

/// What was deleted and what that gave back.
fn report(heading: &str, deleted: &[String], space: u64) -> Outcome {
    section(heading, deleted)?;
    let space = human::size(i64::try_from(space).unwrap_or(i64::MAX));
    context::println(&format!("Total reclaimed space: {space}"))?;
    Ok(0)
}

/// What removing an image did, a line per step.
fn steps(steps: &[ImageDelete]) -> String {
    steps
        .iter()
        .map(|step| match step {
            ImageDelete::Untagged(name) => format!("Untagged: {name}\n"),
            ImageDelete::Deleted(id) => format!("Deleted: {id}\n"),
        })
        .collect()
}

/// `image prune` begins its lines in lower case.
trait Head {
    fn to_lowercase_head(&self) -> String;
}

impl Head for str {
    fn to_lowercase_head(&self) -> String {
        let mut letters = self.chars();
        letters.next().map(|c| c.to_lowercase().chain(letters).collect()).unwrap_or_default()
    }
}
