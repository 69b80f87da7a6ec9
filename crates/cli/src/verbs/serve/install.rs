//! `serve --install`: systemd's units.

use std::io;
use std::path::Path;

use anyhow::Context as _;

use super::Args;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};

/// Names of the units, and which of them are enabled.
const UNITS: [(&str, bool); 3] =
    [("wherry.socket", true), ("wherry.service", false), ("wherry-boot.service", true)];

/// A word of a command line in a unit: quoted, and without meaning to systemd.
fn word(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            '$' => out.push_str("$$"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What a unit says; `program` has its global options behind it.
fn unit(name: &str, program: &str, serve: &str, socket: &str, group: &str) -> String {
    match name {
        "wherry.socket" => format!(
            "[Unit]\nDescription=Docker Engine API of Wherry (socket)\n\n\
             [Socket]\nListenStream={socket}\nSocketMode=0660\nSocketUser=root\nSocketGroup={group}\n\n\
             [Install]\nWantedBy=sockets.target\n"
        ),
        "wherry.service" => format!(
            "[Unit]\nDescription=Docker Engine API of Wherry\nRequires=wherry.socket\nAfter=wherry.socket\n\n\
             [Service]\nExecStart={program} serve -H fd://{serve}\nRestart=on-failure\nLimitNOFILE=1048576\n\
             TasksMax=infinity\nDelegate=yes\n\
             # Containers are not the server's: they live on when it ends.\nKillMode=process\n"
        ),
        _ => format!(
            "[Unit]\nDescription=Containers of Wherry that run whenever the host does\n\
             After=network.target local-fs.target\nWants=network.target\n\n\
             [Service]\nType=oneshot\nExecStart={program} system boot\nRemainAfterExit=yes\nDelegate=yes\n\
             TasksMax=infinity\nKillMode=process\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        ),
    }
}

/// Tells systemd, where it runs here; units of another directory than its own are not its business.
fn tell(directory: &Path, args: &[&str]) -> anyhow::Result<()> {
    let runs = Path::new("/run/systemd/system").is_dir();
    if !runs || directory != Path::new("/etc/systemd/system") {
        return Ok(());
    }
    let status = std::process::Command::new("systemctl")
        .args(args)
        .status()
        .context("systemctl can't be run")?;
    if !status.success() {
        return Err(Failure::new(1, format!("systemctl {}: {status}", args.join(" "))).into());
    }
    Ok(())
}

impl Args {
    /// Writes the units, or takes them back.
    pub(super) fn write_units(&self, context: &Context) -> Outcome {
        if self.install && self.uninstall {
            return Err(Failure::new(1, "--install and --uninstall exclude each other").into());
        }
        let enabled = UNITS.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
        if self.uninstall {
            let mut there = enabled.clone().filter(|name| self.units.join(name).exists());
            if there.next().is_some() {
                let names: Vec<&str> = UNITS.iter().map(|(name, _)| *name).collect();
                tell(&self.units, &[&["disable", "--now"][..], &names].concat())?;
            }
            for (name, _) in UNITS {
                let path = self.units.join(name);
                match std::fs::remove_file(&path) {
                    Ok(()) => context::println(&format!("removed {}", path.display()))?,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e).context(path.display().to_string()),
                }
            }
            tell(&self.units, &["daemon-reload"])?;
            return Ok(0);
        }
        let (program, serve) = (self.program(context)?, self.further());
        let socket = self.socket()?;
        let group = match &self.group {
            Some(name) => name.clone(),
            None => ["docker", "wherry"]
                .into_iter()
                .find(|name| super::group_id(name).is_some())
                .unwrap_or("root")
                .to_owned(),
        };
        std::fs::create_dir_all(&self.units).with_context(|| self.units.display().to_string())?;
        for (name, _) in UNITS {
            let path = self.units.join(name);
            let new = self.units.join(format!(".{name}.new"));
            let text = unit(name, &program, &serve, &socket, &group);
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, &path))
                .with_context(|| path.display().to_string())?;
            context::println(&format!("wrote {}", path.display()))?;
        }
        tell(&self.units, &["daemon-reload"])?;
        let names: Vec<&str> = enabled.collect();
        tell(&self.units, &[&["enable", "--now"][..], &names].concat())?;
        if !Path::new("/run/systemd/system").is_dir() {
            context::note(
                "systemd does not run here: the units are for where it does; without it, run \
                 `wherry serve` and, when the host starts, `wherry system boot`",
            );
        }
        Ok(0)
    }

    /// This program and its global options.
    fn program(&self, context: &Context) -> anyhow::Result<String> {
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let mut words = vec![word(&program.to_string_lossy())];
        let globals = &context.globals;
        for (name, value) in [
            ("--data-root", &globals.data_root),
            ("--run-root", &globals.run_root),
            ("--config", &globals.config),
        ] {
            if let Some(value) = value {
                words.push(name.to_owned());
                words.push(word(&value.to_string_lossy()));
            }
        }
        Ok(words.join(" "))
    }

    /// What of this command line the server gets, too.
    fn further(&self) -> String {
        let mut words = String::new();
        for host in self.host.iter().filter(|host| host.starts_with("tcp://")) {
            words.push_str(&format!(" -H {}", word(host)));
        }
        if self.tlsverify || self.tls {
            words.push_str(" --tlsverify");
        }
        for (name, value) in [
            ("--tlscacert", &self.tlscacert),
            ("--tlscert", &self.tlscert),
            ("--tlskey", &self.tlskey),
        ] {
            if let Some(value) = value {
                words.push_str(&format!(" {name} {}", word(&value.to_string_lossy())));
            }
        }
        words
    }

    /// Where systemd listens.
    fn socket(&self) -> anyhow::Result<String> {
        let mut found = None;
        for host in &self.host {
            if let super::Address::Unix(path) = super::Address::parse(host)? {
                found.get_or_insert(path);
            }
        }
        let path = found.unwrap_or_else(|| "/run/wherry/wherry.sock".into());
        Ok(path.to_string_lossy().replace('%', "%%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_word_means_anything() {
        assert_eq!(word("/a b/%c$d\"e\\"), r#""/a b/%%c$$d\"e\\""#);
    }

    #[test]
    fn every_unit_is_whole() {
        for (name, enabled) in UNITS {
            let text = unit(name, "\"/bin/wherry\"", " --tlsverify", "/run/w.sock", "docker");
            assert!(text.starts_with("[Unit]\nDescription="), "{text}");
            assert_eq!(text.contains("[Install]"), enabled, "{text}");
            assert!(!text.contains("{"), "{text}");
        }
    }
}
