//! `RUN`: a command in a container upon the stage's layers.

use std::collections::VecDeque;
use std::time::Instant;

use engine::types::{Config, HostConfig};
use engine::{AttachOptions, Frame, WaitCondition};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::{Error, Result, io};
use crate::job::Job;
use crate::key::Key;
use crate::language::flags::Mount;
use crate::language::instruction::{Command, Run, Step};
use crate::language::problem::Problem;
use crate::language::statement::heredoc;
use crate::mounting::SCRIPTS;
use crate::options::{Debug, Options};
use crate::progress::Event;
use crate::services::Prepared;
use crate::stage::Stage;

/// Lines of a failed command that are shown again.
const TAIL: usize = 20;

impl Job<'_> {
    pub(crate) fn run(
        &mut self,
        stage: &mut Stage,
        run: &Run,
        step: &Step,
        title: String,
    ) -> Result<()> {
        self.begin(title);
        let plan = self.plan;
        allowed(run, self.options)?;
        let (argv, script) = command(stage, run)?;
        let arguments = stage.scope.for_run();
        let said = match (&run.command, arguments.len()) {
            (Command::Exec(argv), 0) => format!("RUN {}", argv.join(" ")),
            (_, 0) => format!("RUN {}", argv.join(" ")),
            (_, n) => format!("RUN |{n} {} {}", arguments.join(" "), argv.join(" ")),
        };
        let mut environment = stage.scope.environment.clone();
        environment.extend(arguments);
        let network = match run.network.as_deref() {
            Some("none") => "none".to_owned(),
            Some("host") => "host".to_owned(),
            _ => match self.options.network.as_deref() {
                None | Some("") => "default".to_owned(),
                Some(network) => network.to_owned(),
            },
        };
        let insecure = run.security.as_deref() == Some("insecure");
        let mut key = Key::new("run");
        key.layers(&stage.layers)
            .list(&argv)
            .list(&environment)
            .put(&stage.image.config.user)
            .put(&stage.image.config.working_dir)
            .put(&network)
            .put([u8::from(insecure)])
            .list(&self.options.add_hosts)
            .put(script.as_deref().unwrap_or_default());
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            mounts.push(self.resolve(stage, mount, &mut key)?);
        }
        // A step without a network is alone.
        let services = match run.network.as_deref() {
            Some("none") => Vec::new(),
            _ => self.services(step, &mut key)?,
        };
        if network == "none" && !services.is_empty() {
            return Err(Error::Invalid(
                "a service is reached by the network, and this build has --network none".into(),
            ));
        }
        let epoch = self.epoch(stage, 0);
        environment.extend(stage.scope.proxies(&plan.globals));
        let what = What { argv, script, environment, network, insecure, mounts, services };
        self.layer(stage, key, &step.text, epoch, |job, stage| {
            job.execute(stage, &what, step, epoch)
        })?;
        let epoch = self.epoch(stage, 0);
        stage.history(said, epoch, false);
        Ok(())
    }

    /// Runs the command and makes a layer of what it changed.
    fn execute(
        &mut self,
        stage: &Stage,
        what: &What,
        step: &Step,
        epoch: i64,
    ) -> Result<(oci::DiffId, u64)> {
        let extras = self.extras(stage, what)?;
        let services = match self.start_services(&what.services, &what.network) {
            Ok(services) => services,
            Err(error) => {
                self.progress.end_command();
                return Err(error);
            }
        };
        let list = |words: &[String]| Some(words.to_vec());
        let environment = [what.environment.as_slice(), extras.environment.as_slice()].concat();
        let options = self.options;
        let config = Config {
            hostname: "build".into(),
            user: stage.image.config.user.clone(),
            env: Some(environment),
            entrypoint: list(&what.argv),
            cmd: Some(Vec::new()),
            working_dir: stage.image.config.working_dir.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..Config::default()
        };
        let mut host = HostConfig {
            network_mode: what.network.clone(),
            privileged: what.insecure,
            mounts: Some(extras.mounts.clone()),
            extra_hosts: Some([options.add_hosts.as_slice(), &services.hosts].concat()),
            shm_size: options.shm_size,
            memory: options.memory,
            memory_swap: options.memory_swap,
            cpu_shares: options.cpu_shares,
            cpu_period: options.cpu_period,
            cpu_quota: options.cpu_quota,
            cpuset_cpus: options.cpuset_cpus.clone(),
            cpuset_mems: options.cpuset_mems.clone(),
            security_opt: list(&options.security_opt),
            cgroup_parent: options.cgroup_parent.clone(),
            ulimits: Some(options.ulimits.clone()),
            ..HostConfig::default()
        };
        host.log_config.r#type = "none".into();
        let debug = options.debug.map(|debug| (debug, config.clone(), host.clone()));
        let id = self.engine.create_step(&stage.layers, config, host, true)?;
        let made = (|| {
            let places = self.missing_places(&id, &extras.places)?;
            let (code, tail) = self.attend(&id, &stage.image.architecture)?;
            if code != 0 {
                let error = self.command_failed(step, &what.argv, code, &tail, &services.ended());
                if let Some((debug, config, host)) = debug {
                    self.enter(stage, &id, debug, config, host, &error)?;
                }
                return Err(error);
            }
            self.remove_places(&id, &places)?;
            self.commit(&id, epoch)
        })();
        let removed = self.engine.remove_step(&id);
        drop(services);
        self.progress.end_command();
        let made = made?;
        removed?;
        Ok(made)
    }

    /// Makes a layer of what a step changed, unless the build is given up meanwhile.
    pub(crate) fn commit(&self, id: &str, epoch: i64) -> Result<(oci::DiffId, u64)> {
        let committed = self.engine.commit_step(id, epoch, &|| !self.stop.is_set());
        committed.map_err(|error| self.stop.or(error.into()))
    }

    /// Gives somebody a shell upon what a failed step has left.
    fn enter(
        &mut self,
        stage: &Stage,
        id: &str,
        debug: Debug,
        config: Config,
        host: HostConfig,
        failure: &Error,
    ) -> Result<()> {
        self.failed();
        self.progress.end_command();
        let (left, _) = self.commit(id, 0)?;
        let layers = [stage.layers.as_slice(), &[left]].concat();
        let shell = stage.shell().into_iter().next().unwrap_or_else(|| "/bin/sh".into());
        let config = Config {
            entrypoint: Some(vec![shell]),
            tty: debug.terminal,
            open_stdin: true,
            stdin_once: true,
            attach_stdin: true,
            ..config
        };
        let shell = self.engine.create_step(&layers, config, host, true)?;
        self.progress.enter(self.engine, &shell, failure);
        Ok(self.engine.remove_step(&shell)?)
    }

    /// Starts a step's container and hears it to its end: the exit code, and its last lines.
    fn attend(&mut self, id: &str, architecture: &str) -> Result<(i32, VecDeque<String>)> {
        let began = Instant::now();
        let wanted = AttachOptions { stdout: true, stderr: true, ..AttachOptions::default() };
        let started = self.engine.start(id, Some(wanted));
        let mut attachment = match started {
            Ok(Some(attachment)) => attachment,
            Ok(None) => return Err(Error::Invalid("a step has no output to hear".into())),
            Err(error) => {
                let code = i32::from(error.run_exit_code());
                if code == 125 {
                    return Err(error.into());
                }
                if let Some(reason) = crate::foreign::reason(architecture) {
                    return Err(Error::Invalid(format!("{}: {reason}", error.message)));
                }
                return Ok((code, VecDeque::from([error.message])));
            }
        };
        let watch = self.progress.begin_command();
        let mut tail = Tail::default();
        loop {
            match attachment.read()? {
                None => {
                    let mut fds = vec![PollFd::from_borrowed_fd(attachment.fd(), PollFlags::IN)];
                    fds.extend(watch.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
                    match poll(&mut fds, None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(io(|| "waiting for output".to_owned())(error)),
                    }
                    if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                        return Err(Error::GivenUp);
                    }
                }
                Some(Frame::Exit(code)) => return Ok((code, tail.finish())),
                Some(Frame::Closed) => {
                    let code = self.engine.wait(id, WaitCondition::NotRunning)?;
                    return Ok((code, tail.finish()));
                }
                Some(frame @ (Frame::Stdout(_) | Frame::Stderr(_))) => {
                    let (error, bytes) = match frame {
                        Frame::Stderr(bytes) => (true, bytes),
                        Frame::Stdout(bytes) => (false, bytes),
                        Frame::Exit(_) | Frame::Closed => (false, Vec::new()),
                    };
                    tail.push(&bytes);
                    let (step, at) = (self.step, began.elapsed());
                    self.progress.event(Event::Output { step, error, bytes, at });
                }
            }
        }
    }

    fn command_failed(
        &self,
        step: &Step,
        argv: &[String],
        code: i32,
        tail: &VecDeque<String>,
        ended: &[String],
    ) -> Error {
        let command = argv.join(" ");
        let mut message =
            format!("process {command:?} did not complete successfully: exit code: {code}");
        if !tail.is_empty() {
            message.push_str("\nits last output:");
            for line in tail {
                message.push_str("\n  ");
                message.push_str(line);
            }
        }
        for service in ended {
            message.push('\n');
            message.push_str(service);
        }
        let diagnostic = self.plan.file.diagnose(Problem::new(step.span, message));
        Error::Failed { diagnostic, command, code }
    }
}

/// Says no to what gives a command power over the host, unless whoever builds has allowed it.
pub(crate) fn allowed(run: &Run, options: &Options) -> Result<()> {
    let refused = |what: &str, flag: &str| {
        Err(Error::Invalid(format!(
            "{what} is not allowed: RUN --{flag} gives the step power over this machine; allow it with --allow {what}"
        )))
    };
    let host = options.network.as_deref() == Some("host") || options.allow.network_host;
    match (run.network.as_deref(), run.security.as_deref()) {
        (Some("host"), _) if !host => refused("network.host", "network=host"),
        (_, Some("insecure")) if !options.allow.security_insecure => {
            refused("security.insecure", "security=insecure")
        }
        _ => Ok(()),
    }
}

/// A command of which all is known.
pub(crate) struct What {
    argv: Vec<String>,
    pub(crate) script: Option<String>,
    environment: Vec<String>,
    network: String,
    insecure: bool,
    pub(crate) mounts: Vec<Mount>,
    services: Vec<Prepared>,
}

/// The command line of a `RUN`, and a script if a here-document is a program of its own.
fn command(stage: &Stage, run: &Run) -> Result<(Vec<String>, Option<String>)> {
    let text = match &run.command {
        Command::Exec(argv) => return Ok((argv.clone(), None)),
        Command::Shell(text) => text,
    };
    let shell = |text: String| {
        let mut argv = stage.shell();
        argv.push(text);
        argv
    };
    let Some(first) = run.heredocs.first() else { return Ok((shell(text.clone()), None)) };
    if heredoc(text, '\\').is_none() {
        // The shell gets them as they are.
        let mut full = text.clone();
        for document in &run.heredocs {
            full.push_str(&format!("\n{}{}", document.content, document.name));
        }
        return Ok((shell(full), None));
    }
    let content = first.text();
    if content.starts_with("#!") {
        return Ok((vec![format!("{SCRIPTS}/script")], Some(content)));
    }
    Ok((shell(content), None))
}

/// The last lines of a command's output.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if self.open.len() < 4096 {
                self.open.extend_from_slice(piece.get(..piece.len().min(4096)).unwrap_or(piece));
            }
            if piece.ends_with(b"\n") {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.open)).trim_end().to_owned();
        if self.lines.len() >= TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn finish(mut self) -> VecDeque<String> {
        if !self.open.is_empty() {
            self.close();
        }
        self.lines
    }
}
