//! A stage under way: its layers, and the configuration that its instructions have made so far.

use std::os::fd::AsFd;

use oci::DiffId;
use oci::config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig};
use oci::manifest::Platform;
use store::ImageRecord;

use crate::error::{Error, Result};
use crate::job::{Job, seconds, time};
use crate::key::Key;
use crate::language::dockerignore::clean;
use crate::language::instruction::{Command, Health, Instruction, Step, trigger};
use crate::place::{Placing, Target};
use crate::scope::Scope;

/// Where programs are looked for if the image does not say.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage under way.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) index: usize,
    pub(crate) layers: Vec<DiffId>,
    pub(crate) image: ImageConfig,
    pub(crate) scope: Scope,
    /// The newest time among all that was read so far.
    pub(crate) epoch: i64,
    /// How many of the layers are those of the image it begins with, and how many entries of its history.
    pub(crate) base: (usize, usize),
    /// Results may be taken from the cache.
    pub(crate) cached: bool,
    /// A `CMD` of this stage is not the base's, which an `ENTRYPOINT` drops.
    own_command: bool,
}

impl Stage {
    fn new(image: ImageConfig, layers: Vec<DiffId>) -> Self {
        let epoch = seconds(image.created.as_deref());
        let mut scope = Scope::new(image.config.env.clone());
        if scope.environment("PATH").is_none() {
            scope.set("PATH", PATH);
        }
        let base = (layers.len(), image.history.len());
        Self { index: 0, base, layers, image, scope, epoch, cached: true, own_command: false }
    }

    pub(crate) fn scratch(platform: &Platform) -> Self {
        let image = ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone().unwrap_or_default(),
            os: platform.os.clone(),
            config: ContainerConfig { working_dir: "/".into(), ..ContainerConfig::default() },
            ..ImageConfig::default()
        };
        Self::new(image, Vec::new())
    }

    pub(crate) fn of_image(record: &ImageRecord) -> Self {
        Self::new(record.config.clone(), record.layers.clone())
    }

    /// A stage that begins with this one. Arguments are not inherited.
    pub(crate) fn next(&self) -> Self {
        let scope = Scope::new(self.scope.environment.clone());
        Self { scope, own_command: false, ..self.clone() }
    }

    /// The instructions that the base wants to be followed first.
    pub(crate) fn take_triggers(&mut self) -> Result<Vec<Step>> {
        let triggers = std::mem::take(&mut self.image.config.on_build);
        triggers
            .iter()
            .map(|text| {
                trigger(text).map_err(|problem| {
                    Error::Invalid(format!("ONBUILD {text}, from the image: {}", problem.message))
                })
            })
            .collect()
    }

    pub(crate) fn add(&mut self, layer: DiffId, epoch: i64) {
        self.layers.push(layer);
        self.epoch = self.epoch.max(epoch);
    }

    pub(crate) fn history(&mut self, created_by: String, epoch: i64, empty_layer: bool) {
        self.image.history.push(History {
            created: Some(time(epoch)),
            created_by,
            author: String::new(),
            comment: "wherry build".into(),
            empty_layer,
        });
    }

    /// A path, from the working directory if it is not absolute.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let working_dir = &self.image.config.working_dir;
        if path.starts_with('/') { clean(path) } else { clean(&format!("/{working_dir}/{path}")) }
    }

    pub(crate) fn shell(&self) -> Vec<String> {
        match self.image.config.shell.as_slice() {
            [] => vec!["/bin/sh".into(), "-c".into()],
            shell => shell.to_vec(),
        }
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Shell(text) => {
                let mut argv = self.shell();
                argv.push(text.clone());
                argv
            }
            Command::Exec(argv) => argv.clone(),
        }
    }
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn pairs(list: &[(String, String)]) -> String {
    let list: Vec<String> = list.iter().map(|(name, value)| format!("{name}={value}")).collect();
    list.join(" ")
}

impl Job<'_> {
    /// Follows one instruction.
    pub(crate) fn follow(&mut self, stage: &mut Stage, step: &Step, title: String) -> Result<()> {
        self.instruction(stage, step, title).map_err(|error| {
            self.failed();
            self.locate(step.span, error)
        })
    }

    fn instruction(&mut self, stage: &mut Stage, step: &Step, title: String) -> Result<()> {
        let plan = self.plan;
        let escape = plan.file.directives.escape;
        let globals = &plan.globals;
        let word = |stage: &Stage, text: &str| {
            stage.scope.word(globals, text, escape).map_err(Error::Invalid)
        };
        let said = match &step.instruction {
            Instruction::Run(run) => return self.run(stage, run, step, title),
            Instruction::Copy(copy) => return self.copy(stage, copy, step, title),
            Instruction::Workdir(path) => {
                let path = word(stage, path)?;
                return self.workdir(stage, &path, title);
            }
            Instruction::Arg(list) => {
                let mut said = Vec::new();
                for (name, default) in list {
                    let name = word(stage, name)?;
                    stage
                        .scope
                        .declare(globals, &name, default.as_deref(), escape)
                        .map_err(Error::Invalid)?;
                    said.push(match default {
                        Some(default) => format!("{name}={default}"),
                        None => name,
                    });
                }
                format!("ARG {}", said.join(" "))
            }
            Instruction::Env(list) => {
                // All values are of before this line.
                let mut set = Vec::new();
                for (name, value) in list {
                    set.push((word(stage, name)?, word(stage, value)?));
                }
                for (name, value) in &set {
                    stage.scope.set(name, value);
                }
                format!("ENV {}", pairs(&set))
            }
            Instruction::Label(list) => {
                let mut set = Vec::new();
                for (name, value) in list {
                    set.push((word(stage, name)?, word(stage, value)?));
                }
                stage.image.config.labels.extend(set.iter().cloned());
                format!("LABEL {}", pairs(&set))
            }
            Instruction::Maintainer(name) => {
                stage.image.author.clone_from(name);
                format!("MAINTAINER {name}")
            }
            Instruction::User(user) => {
                stage.image.config.user = word(stage, user)?;
                format!("USER {}", stage.image.config.user)
            }
            Instruction::Stopsignal(signal) => {
                let signal = word(stage, signal)?;
                engine::signals::parse(&signal)?;
                stage.image.config.stop_signal.clone_from(&signal);
                format!("STOPSIGNAL {signal}")
            }
            Instruction::Shell(shell) => {
                stage.image.config.shell.clone_from(shell);
                format!("SHELL {}", json(shell).replace("\",\"", " ").replace(['"'], ""))
            }
            Instruction::Cmd(command) => {
                let argv = stage.command(command);
                let said = format!("CMD {}", json(&argv));
                stage.image.config.cmd = Some(argv);
                stage.own_command = true;
                said
            }
            Instruction::Entrypoint(command) => {
                let argv = stage.command(command);
                let said = format!("ENTRYPOINT {}", json(&argv));
                stage.image.config.entrypoint = Some(argv);
                if !stage.own_command {
                    stage.image.config.cmd = None;
                }
                said
            }
            Instruction::Expose(list) => {
                let mut shown = Vec::new();
                for text in list {
                    let words = stage.scope.words(globals, text, escape).map_err(Error::Invalid)?;
                    for word in words {
                        shown.extend(ports(&word).map_err(Error::Invalid)?);
                    }
                }
                shown.sort();
                shown.dedup();
                let ports = &mut stage.image.config.exposed_ports;
                ports.extend(shown.iter().map(|port| (port.clone(), Empty {})));
                let shown: Vec<String> = shown.iter().map(|port| format!("{port}:{{}}")).collect();
                format!("EXPOSE map[{}]", shown.join(" "))
            }
            Instruction::Volume(list) => {
                let mut shown = Vec::new();
                for path in list {
                    let path = word(stage, path)?;
                    if path.is_empty() {
                        return Err(Error::Invalid(
                            "VOLUME specified can not be an empty string".into(),
                        ));
                    }
                    stage.image.config.volumes.insert(path.clone(), Empty {});
                    shown.push(path);
                }
                format!("VOLUME [{}]", shown.join(" "))
            }
            Instruction::Healthcheck(health) => {
                stage.image.config.healthcheck = Some(healthcheck(health));
                step.text.clone()
            }
            Instruction::Onbuild(text) => {
                stage.image.config.on_build.push(text.clone());
                format!("ONBUILD {text}")
            }
            Instruction::From { .. } => return Ok(()),
        };
        let epoch = self.epoch(stage, 0);
        stage.history(said, epoch, true);
        Ok(())
    }

    /// Makes one layer of all that are above the base.
    pub(crate) fn squash(&mut self, mut stage: Stage) -> Result<Stage> {
        let (count, told) = stage.base;
        let above = stage.layers.split_off(count.min(stage.layers.len()));
        if above.len() < 2 {
            stage.layers.extend(above);
            return Ok(stage);
        }
        self.begin(format!("squash {} layers", above.len()));
        let mut key = Key::new("squash");
        key.layers(&stage.layers).layers(&above);
        let epoch = self.epoch(&stage, 0);
        let done = self.layer(&mut stage, key, "squash", epoch, |job, stage| {
            job.files(&stage.layers, epoch, |root, engine| {
                above.iter().try_for_each(|layer| Ok(engine.apply_layer(root.as_fd(), layer)?))
            })
        });
        if done.is_err() {
            self.failed();
        }
        done?;
        for entry in stage.image.history.iter_mut().skip(told) {
            entry.empty_layer = true;
        }
        stage.history(format!("squash {} layers", above.len()), epoch, false);
        Ok(stage)
    }

    fn workdir(&mut self, stage: &mut Stage, path: &str, title: String) -> Result<()> {
        if path.is_empty() {
            return Err(Error::Invalid("WORKDIR needs a path: a variable in it is empty".into()));
        }
        let path = stage.absolute(path);
        stage.image.config.working_dir.clone_from(&path);
        let said = format!("WORKDIR {path}");
        let epoch = self.epoch(stage, 0);
        if path == "/" {
            stage.history(said, epoch, true);
            return Ok(());
        }
        self.begin(title);
        let mut key = Key::new("workdir");
        key.layers(&stage.layers).put(&path);
        self.layer(stage, key, &said, epoch, |job, stage| {
            job.files(&stage.layers, epoch, |root, _| {
                let target = Target::new(root, Placing::default());
                target.directory(path.trim_matches('/').as_bytes(), None).map(drop)
            })
        })?;
        stage.history(said, epoch, false);
        Ok(())
    }

    /// Makes a layer by changing files upon layers, without running anything.
    pub(crate) fn files(
        &mut self,
        layers: &[DiffId],
        epoch: i64,
        change: impl FnOnce(std::os::fd::OwnedFd, &engine::Engine) -> Result<()>,
    ) -> Result<(DiffId, u64)> {
        // No program of it will run, but every container has one.
        let config = engine::types::Config {
            cmd: Some(vec!["none".into()]),
            ..engine::types::Config::default()
        };
        let host = engine::types::HostConfig {
            network_mode: "none".into(),
            ..engine::types::HostConfig::default()
        };
        let id = self.engine.create_step(layers, config, host, false)?;
        let made = (|| -> Result<_> {
            change(self.engine.mount_step(&id)?, self.engine)?;
            self.commit(&id, epoch)
        })();
        let removed = self.engine.remove_step(&id);
        let made = made?;
        removed?;
        Ok(made)
    }
}

/// `80`, `80/udp`, `8000-8010`, also with an address and a host port in front, which are ignored.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let bad = || format!("invalid port {text:?}: write port[-port][/tcp|udp|sctp]");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    if first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(health: &Health) -> Healthcheck {
    let test = match &health.command {
        None => vec!["NONE".to_owned()],
        Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Some(Command::Exec(argv)) => [vec!["CMD".to_owned()], argv.clone()].concat(),
    };
    Healthcheck {
        test,
        interval: health.interval,
        timeout: health.timeout,
        start_period: health.start_period,
        start_interval: health.start_interval,
        retries: health.retries,
    }
}
