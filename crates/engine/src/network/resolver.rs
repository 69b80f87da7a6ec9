//! The host's own resolver: what is put into its files so that it asks our name server too, and
//! taken out again.
//!
//! What we write into `/etc/resolv.conf` stands between two marks, and everything else stays as it
//! is, so taking it out gives back what was there, and what others have changed meanwhile stays.
//! Where systemd-resolved runs, it gets a file of its own.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The file every resolver reads.
pub(super) const FILE: &str = "/etc/resolv.conf";
/// systemd-resolved's own server.
pub(super) const STUB: &str = "127.0.0.53";
/// There while systemd-resolved runs; what it asks itself.
pub(super) const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
const DROP_INS: &str = "/etc/systemd/resolved.conf.d";
/// Every mark begins with this, whichever engine's it is.
const MARK: &str = "# wherry-";
const BEGIN: &str = ": begin";
const END: &str = ": end";
/// The text before the block had no end of line.
const JOINED: &str = ", after a line without end";

/// Who asks name servers for the host's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolver {
    /// The C library, as `/etc/resolv.conf` says.
    File,
    /// systemd-resolved.
    Resolved,
}

/// What the host is to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// Tells engines on one host apart.
    pub(super) tag: &'a str,
    pub(super) address: Ipv4Addr,
    pub(super) domain: &'a str,
}

/// The servers a `resolv.conf` names.
pub(super) fn nameservers(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The host's resolver, as its files show it.
pub(super) fn detect() -> Resolver {
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    let servers = nameservers(&without(&text, None));
    match !servers.is_empty() && servers.iter().all(|server| server == STUB) {
        true if Path::new(UPSTREAM).exists() => Resolver::Resolved,
        _ => Resolver::File,
    }
}

fn is_begin(line: &str, tag: Option<&str>) -> bool {
    let Some(rest) = line.strip_prefix(MARK) else { return false };
    let Some((whose, rest)) = rest.split_once(':') else { return false };
    rest.starts_with(" begin") && tag.is_none_or(|tag| tag == whose)
}

/// A text without our blocks: those of one engine, or of all. A block whose end is gone is its first
/// line only: what follows may be somebody else's.
pub(super) fn without(text: &str, tag: Option<&str>) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut kept = String::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        if !is_begin(line, tag) {
            kept.push_str(line);
            continue;
        }
        let joined = line.trim_end().ends_with(JOINED);
        let whose = line.trim_start_matches(MARK).split(':').next().unwrap_or_default();
        let end = format!("{MARK}{whose}{END}");
        let rest = lines.get(at..).unwrap_or_default();
        if let Some(length) = rest.iter().position(|line| line.trim_end() == end) {
            at += length + 1;
            // Nobody has written behind it.
            if joined && at == lines.len() {
                kept.pop();
            }
        }
    }
    kept
}

/// A text with our block: our server before the others', our domain before those that are searched.
pub(super) fn with(text: &str, block: &Block<'_>) -> String {
    let rest = without(text, Some(block.tag));
    let mark = format!("{MARK}{}", block.tag);
    let searched = rest.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then(|| words.collect::<Vec<_>>())
    });
    let mut domains = vec![block.domain];
    domains.extend(searched.unwrap_or_default().into_iter().filter(|domain| *domain != "."));
    let joined = if rest.is_empty() || rest.ends_with('\n') { "" } else { JOINED };
    let newline = if joined.is_empty() { "" } else { "\n" };
    format!(
        "{mark}{BEGIN} (`wherry dns disable` takes it out)\nnameserver {}\n{mark}{END}\n\
         {rest}{newline}{mark}{BEGIN}{joined}\nsearch {}\n{mark}{END}\n",
        block.address,
        domains.join(" "),
    )
}

fn failed<'a>(verb: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |e| Error::system(format!("cannot {verb} {}", path.display()), e)
}

/// Puts a text in a file's place, all of it or nothing where the file's folder allows that.
fn replace(path: &Path, text: &str) -> Result<()> {
    // Where a link leads is what is read, and what others keep.
    let path = &std::fs::canonicalize(path).map_err(failed("find", path))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".wherry-new");
    let new = path.with_file_name(name);
    let old = std::fs::metadata(path).map_err(failed("read", path))?;
    let whole = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(old.permissions())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    if whole().is_ok() {
        return Ok(());
    }
    let _ = std::fs::remove_file(&new);
    // It is a mount of its own, or its folder can't be written.
    std::fs::write(path, text).map_err(failed("write", path))
}

fn drop_in(tag: &str) -> PathBuf {
    Path::new(DROP_INS).join(format!("wherry-{tag}.conf"))
}

fn drop_in_text(block: &Block<'_>) -> String {
    format!(
        "# `wherry dns disable` removes this file.\n[Resolve]\nDNS={}\nDomains={}\n",
        block.address, block.domain
    )
}

/// Has systemd-resolved read its files.
fn reload() -> Result<()> {
    let status = std::process::Command::new("systemctl")
        .args(["try-restart", "systemd-resolved.service"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::system(
            "systemd-resolved was not restarted, so it does not know yet",
            "run `systemctl restart systemd-resolved`",
        )),
    }
}

/// Whether the host's resolver asks our server.
pub(super) fn is_set(resolver: Resolver, block: &Block<'_>) -> bool {
    match resolver {
        Resolver::File => {
            std::fs::read_to_string(FILE).is_ok_and(|text| with(&text, block) == text)
        }
        Resolver::Resolved => std::fs::read_to_string(drop_in(block.tag))
            .is_ok_and(|text| text == drop_in_text(block)),
    }
}

/// Has the host's resolver ask our server; whether that changed anything.
pub(super) fn set(resolver: Resolver, block: &Block<'_>) -> Result<bool> {
    if is_set(resolver, block) {
        return Ok(false);
    }
    match resolver {
        Resolver::File => {
            let path = Path::new(FILE);
            let text = std::fs::read_to_string(path).map_err(failed("read", path))?;
            replace(path, &with(&text, block))?;
        }
        Resolver::Resolved => {
            let path = drop_in(block.tag);
            std::fs::create_dir_all(DROP_INS).map_err(failed("make", Path::new(DROP_INS)))?;
            std::fs::write(&path, drop_in_text(block)).map_err(failed("write", &path))?;
            reload()?;
        }
    }
    Ok(true)
}

/// Gives the host's resolver back what was there, whichever it was; whether that changed anything.
pub(super) fn unset(tag: &str) -> Result<bool> {
    let path = Path::new(FILE);
    let mut changed = false;
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let rest = without(&text, Some(tag));
            if rest != text {
                replace(path, &rest)?;
                changed = true;
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("read", path)(e)),
    }
    let path = drop_in(tag);
    match std::fs::remove_file(&path) {
        Ok(()) => {
            // The folder may have been made for this; others' files keep it.
            let _ = std::fs::remove_dir(DROP_INS);
            reload()?;
            changed = true;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("remove", &path)(e)),
    }
    Ok(changed)
}

/// The host's servers without ours.
pub(super) fn upstreams(resolver: Resolver) -> Vec<IpAddr> {
    match resolver {
        // It asks them itself, and us only for our own.
        Resolver::Resolved => Vec::new(),
        Resolver::File => {
            let text = std::fs::read_to_string(FILE).unwrap_or_default();
            let servers = nameservers(&without(&text, None));
            servers.iter().filter_map(|server| server.parse().ok()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: Block<'_> =
        Block { tag: "abc", address: Ipv4Addr::new(127, 0, 0, 11), domain: "wherry.internal" };

    #[test]
    fn our_server_first_and_all_else_as_it_was() {
        let text = "# mine\nsearch lan example.org\nnameserver 192.0.2.1\noptions edns0";
        let set = with(text, &BLOCK);
        assert_eq!(nameservers(&set), ["127.0.0.11", "192.0.2.1"]);
        assert!(set.contains("\nsearch wherry.internal lan example.org\n"), "{set}");
        assert_eq!(with(&set, &BLOCK), set);
        assert_eq!(without(&set, Some("abc")), text);
        // Another engine's block in between, and what somebody added.
        let other = Block { tag: "def", address: Ipv4Addr::new(127, 0, 0, 12), domain: "x" };
        let both = with(&format!("{set}options rotate\n"), &other);
        assert_eq!(nameservers(&without(&both, None)), ["192.0.2.1"]);
        let left = without(&both, Some("abc"));
        assert_eq!(nameservers(&left), ["127.0.0.12", "192.0.2.1"]);
        assert!(without(&both, None).ends_with("options edns0\noptions rotate\n"));
        // A block without its end takes nothing along.
        let broken = "# wherry-abc: begin\nnameserver 192.0.2.7\n";
        assert_eq!(without(broken, Some("abc")), "nameserver 192.0.2.7\n");
    }

    proptest! {
        #[test]
        fn taking_out_gives_back(text in "(nameserver 1\\.2\\.3\\.4|search a|# wherry|[a-z #:]{0,9}|\n){0,9}") {
            let set = with(&text, &BLOCK);
            prop_assert_eq!(without(&set, Some("abc")), text);
            prop_assert_eq!(with(&set, &BLOCK), set);
        }
    }
}
