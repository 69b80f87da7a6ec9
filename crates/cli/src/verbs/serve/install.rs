//! `serve --install`: systemd's units.

use std::io;
use std::path::Path;

use anyhow::Context as _;

use super::Args;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};

/// Names of the units.
const UNITS: [&str; 3] = ["wherry.socket", "wherry.service", "wherry-boot.service"];

/// Where systemd reads units that a person has written.
const OF_SYSTEMD: &str = "/etc/systemd/system";

/// What differs from one installation to another.
struct Parts {
    /// This program with its global options.
    program: String,
    /// Options of `serve`.
    serve: String,
    /// Paths that systemd listens on.
    sockets: Vec<String>,
    group: String,
    /// The server runs from the host's start on: at a port nobody listens for it.
    always: bool,
}

impl Parts {
    /// The units that are enabled.
    fn enabled(&self) -> impl Iterator<Item = &'static str> {
        UNITS.into_iter().filter(|name| self.always || *name != "wherry.service")
    }
}

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

/// What a unit says.
fn unit(name: &str, parts: &Parts) -> String {
    let Parts { program, serve, sockets, group, always } = parts;
    match name {
        "wherry.socket" => {
            let listen: String =
                sockets.iter().map(|path| format!("ListenStream={path}\n")).collect();
            format!(
                "[Unit]\nDescription=Docker Engine API of Wherry (socket)\n\n\
                 [Socket]\n{listen}SocketMode=0660\nSocketUser=root\nSocketGroup={group}\n\
                 RemoveOnStop=yes\n\n\
                 [Install]\nWantedBy=sockets.target\n"
            )
        }
        "wherry.service" => format!(
            "[Unit]\nDescription=Docker Engine API of Wherry\nRequires=wherry.socket\n\
             After=wherry.socket network.target\n\
             # Being killed now and then is no reason to give up; not to start at all, over and over, is.\n\
             StartLimitIntervalSec=60\nStartLimitBurst=200\n\n\
             [Service]\nExecStart={program} serve -H fd://{serve}\nRestart=on-failure\nLimitNOFILE=1048576\n\
             TasksMax=infinity\nDelegate=yes\n\
             # Containers are not the server's: they live on when it ends.\nKillMode=process\n{}",
            if *always { "\n[Install]\nWantedBy=multi-user.target\n" } else { "" }
        ),
        _ => format!(
            "[Unit]\nDescription=Containers of Wherry that run whenever the host does\n\
             After=network.target local-fs.target\nWants=network.target\n\n\
             [Service]\nType=oneshot\nExecStart={program} system boot\n\
             # With the host, while there is a network; it takes as long as containers may take.\n\
             ExecStop={program} system boot --stop\nTimeoutStopSec=10min\nRemainAfterExit=yes\nDelegate=yes\n\
             TasksMax=infinity\nKillMode=process\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        ),
    }
}

/// Whether systemd runs here, and reads the units of this directory.
fn is_systemds(directory: &Path) -> bool {
    Path::new("/run/systemd/system").is_dir() && directory == Path::new(OF_SYSTEMD)
}

/// Tells systemd, where it runs here; units of another directory than its own are not its business.
fn tell(directory: &Path, args: &[&str]) -> anyhow::Result<()> {
    if !is_systemds(directory) {
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

/// What is to be said of a file that could not be changed.
fn failed(path: &Path, error: io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root, or name another place with --units",
        _ => "",
    };
    Failure::new(1, format!("{}: {error}{remedy}", path.display())).into()
}

/// A path as a unit can have it, whatever directory it is read from.
fn settled(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().and_then(crate::values::mount::absolute);
    let path = path.filter(|path| !path.contains(char::is_control));
    path.ok_or_else(|| Failure::new(1, "a unit can't have this path: it is no line of text").into())
}

impl Args {
    /// Writes the units, or takes them back.
    pub(super) fn write_units(&self, context: &Context) -> Outcome {
        if self.install && self.uninstall {
            return Err(Failure::new(1, "--install and --uninstall exclude each other").into());
        }
        if is_systemds(&self.units) && !rustix::process::geteuid().is_root() {
            return Err(failed(&self.units, io::ErrorKind::PermissionDenied.into()));
        }
        if self.uninstall { self.take_back() } else { self.put(context) }
    }

    /// The units that are there.
    fn there(&self) -> Vec<&'static str> {
        UNITS.into_iter().filter(|name| self.units.join(name).exists()).collect()
    }

    fn take_back(&self) -> Outcome {
        let there = self.there();
        if is_systemds(&self.units) && !there.is_empty() {
            // The containers run on: only the host's end is theirs.
            let boot = self.units.join("wherry-boot.service");
            if let Ok(text) = std::fs::read_to_string(&boot) {
                let kept = text.lines().filter(|line| !line.starts_with("ExecStop="));
                let kept: String = kept.map(|line| format!("{line}\n")).collect();
                std::fs::write(&boot, kept).map_err(|e| failed(&boot, e))?;
            }
            tell(&self.units, &["daemon-reload"])?;
            tell(&self.units, &[&["disable", "--now"][..], &there].concat())?;
        }
        for name in UNITS {
            let path = self.units.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => context::println(&format!("removed {}", path.display()))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
        tell(&self.units, &["daemon-reload"])?;
        Ok(0)
    }

    fn put(&self, context: &Context) -> Outcome {
        let parts = self.parts(context)?;
        std::fs::create_dir_all(&self.units).map_err(|e| failed(&self.units, e))?;
        let texts = UNITS.map(|name| (self.units.join(name), unit(name, &parts)));
        let changed = texts
            .iter()
            .any(|(path, text)| std::fs::read_to_string(path).is_ok_and(|old| old != *text));
        if changed {
            // While systemd knows which sockets these were. The server goes with them, the containers don't.
            let mut there = self.there();
            there.retain(|name| *name != "wherry-boot.service");
            if !there.is_empty() {
                tell(&self.units, &[&["stop"][..], &there].concat())?;
                tell(&self.units, &[&["disable", "--quiet"][..], &there].concat())?;
            }
        }
        for (path, text) in texts {
            let mut new = path.clone().into_os_string();
            new.push(".new");
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, &path))
                .map_err(|e| failed(&path, e))?;
            context::println(&format!("wrote {}", path.display()))?;
        }
        tell(&self.units, &["daemon-reload"])?;
        let names: Vec<&str> = parts.enabled().collect();
        tell(&self.units, &[&["enable", "--now"][..], &names].concat())?;
        if is_systemds(&self.units) {
            for path in &parts.sockets {
                context::note(&format!("listening on unix://{}", path.replace("%%", "%")));
            }
        } else if !Path::new("/run/systemd/system").is_dir() {
            context::note(
                "systemd does not run here: the units are for where it does; without it, run \
                 `wherry serve` and, when the host starts, `wherry system boot`",
            );
        }
        Ok(0)
    }

    /// What the command line says, checked: a unit that can't start would tell it to nobody.
    fn parts(&self, context: &Context) -> anyhow::Result<Parts> {
        let here = is_systemds(&self.units);
        // A configuration that the server could not read is told now.
        let run_root = context.engine_options()?.run_root;
        let mut sockets = Vec::new();
        let mut serve = String::new();
        for host in &self.host {
            match super::Address::parse(host)? {
                super::Address::Unix(path) => sockets.push(settled(&path)?.replace('%', "%%")),
                super::Address::Tcp(address) => {
                    if here || !(self.tls || self.tlsverify) {
                        self.tls(host)?;
                    }
                    serve.push_str(&format!(" -H {}", word(&format!("tcp://{address}"))));
                }
                super::Address::HandedOver => {}
            }
        }
        let always = !serve.is_empty();
        if self.tls || self.tlsverify {
            serve.push_str(" --tlsverify");
            // The server has no home to find them in.
            let names = ["--tlscacert", "--tlscert", "--tlskey"];
            for (name, path) in names.into_iter().zip(self.certificates()) {
                serve.push_str(&format!(" {name} {}", word(&settled(&path)?)));
            }
        }
        if let Some(seconds) = self.idle {
            if always {
                return Err(Failure::new(
                    1,
                    "--idle: nobody would listen at the port when the server has left; leave out --idle or tcp://",
                )
                .into());
            }
            serve.push_str(&format!(" --idle {seconds}"));
        }
        if sockets.is_empty() {
            sockets.push(settled(&run_root.join("wherry.sock"))?.replace('%', "%%"));
        }
        let group = match &self.group {
            Some(name) => {
                if here {
                    super::known_group(name)?;
                }
                name.clone()
            }
            None => ["docker", "wherry"]
                .into_iter()
                .find(|name| super::group_id(name).is_some())
                .unwrap_or("root")
                .to_owned(),
        };
        if group.is_empty() || group.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(
                Failure::new(1, format!("--group {group:?}: this is no group's name")).into()
            );
        }
        Ok(Parts {
            program: program(context)?,
            serve,
            sockets,
            group: group.replace('%', "%%"),
            always,
        })
    }
}

/// This program and its global options, or what the environment says in their place: a service has another one.
fn program(context: &Context) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let mut words = vec![word(&settled(&program)?)];
    let globals = &context.globals;
    let environment = context::environment();
    for (name, variable, given) in [
        ("--data-root", "WHERRY_DATA_ROOT", &globals.data_root),
        ("--run-root", "WHERRY_RUN_ROOT", &globals.run_root),
        ("--config", "WHERRY_CONFIG", &globals.config),
    ] {
        let named = environment.get(variable).filter(|value| !value.is_empty());
        if let Some(value) = given.clone().or_else(|| named.map(Into::into)) {
            words.push(name.to_owned());
            words.push(word(&settled(&value)?));
        }
    }
    Ok(words.join(" "))
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
        for always in [false, true] {
            let parts = Parts {
                program: "\"/bin/wherry\"".into(),
                serve: " --tlsverify".into(),
                sockets: vec!["/run/w.sock".into(), "/run/docker.sock".into()],
                group: "docker".into(),
                always,
            };
            let enabled: Vec<&str> = parts.enabled().collect();
            for name in UNITS {
                let text = unit(name, &parts);
                assert!(text.starts_with("[Unit]\nDescription="), "{text}");
                assert_eq!(text.contains("[Install]"), enabled.contains(&name), "{text}");
                assert!(!text.contains("{"), "{text}");
                let listens = text.matches("\nListenStream=").count();
                assert_eq!(listens, if name == "wherry.socket" { 2 } else { 0 }, "{text}");
            }
        }
    }
}
