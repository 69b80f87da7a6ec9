//! What `create`, `run` and `exec` share: from a bundle to a launched process.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxResources, Spec};
use runtime::cgroup::{Cgroup, CgroupRoot, path_from_spec};
use runtime::hooks::Hook;
use runtime::state::{ProcessIdentity, Status};
use runtime::{Descriptors, Launching, Plan};

use super::Global;
use super::console;
use super::store::{Container, Record, write_atomically};

/// Options of `create` and `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The bundle directory
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(super) bundle: PathBuf,
    /// Unix socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File to write the process number to
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Change the root with chroot, as on an initial ramdisk
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Keep the session keyring of the caller
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Pass this many descriptors, from number 3 on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) preserve_fds: u32,
}

/// A created container, its process on the way.
pub(super) struct Created {
    pub(super) container: Container,
    pub(super) launching: Launching,
    pub(super) console: Option<OwnedFd>,
}

pub(super) fn load_spec(bundle: &Path) -> Result<(Spec, PathBuf)> {
    let bundle =
        std::fs::canonicalize(bundle).with_context(|| format!("bundle {}", bundle.display()))?;
    let path = bundle.join("config.json");
    let text = std::fs::read(&path)
        .with_context(|| format!("read {} (is it a bundle?)", path.display()))?;
    let spec = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not an OCI runtime specification", path.display()))?;
    Ok((spec, bundle))
}

/// Makes a container whose process waits at the gate. On failure nothing is left behind.
pub(super) fn create(
    global: &Global,
    id: &str,
    options: &Options,
    detached: bool,
) -> Result<Created> {
    Container::check_free(global, id)?;
    let (spec, bundle) = load_spec(&options.bundle)?;
    let mut plan = Plan::from_spec(&spec, &bundle)?;
    plan.id = id.to_owned();
    plan.no_pivot = options.no_pivot;
    plan.process.preserve_fds = options.preserve_fds.saturating_add(listen_fds());
    plan.process.new_keyring = !options.no_new_keyring;
    console::check(plan.process.terminal, detached, options.console_socket.as_deref())?;
    let linux = spec.linux().clone().unwrap_or_default();
    let cgroup = path_from_spec(
        linux.cgroups_path().as_ref().and_then(|path| path.to_str()),
        global.systemd_cgroup,
        &format!("/wherry/{id}"),
    );
    let mut resources = linux.resources().clone().unwrap_or_default();
    if let Some(rules) = resources.devices() {
        let rules = runtime::devices::with_defaults(rules);
        resources.set_devices(Some(rules));
    }
    let (mut poststart, mut poststop) = (Vec::new(), Vec::new());
    if let Some(hooks) = spec.hooks() {
        poststart = Hook::list(hooks.poststart(), "poststart")?;
        poststop = Hook::list(hooks.poststop(), "poststop")?;
    }
    let record = Record {
        id: id.to_owned(),
        created: jiff::Timestamp::now().to_string(),
        owner: rustix::process::getuid().as_raw(),
        process: None,
        cgroup,
        plan,
        resources: Some(resources.clone()),
        poststart,
        poststop,
    };
    // Before anything is ours to remove: what fails from here on kills what is in the group.
    let root = CgroupRoot::detect()?;
    let existing = Cgroup::open(&root, &record.cgroup)?;
    if existing.exists() && !existing.pids()?.is_empty() {
        bail!(
            "the cgroup /{} already has processes; choose another linux.cgroupsPath \
             (or the container \"{id}\" already exists)",
            record.cgroup
        );
    }
    let mut container = Container::reserve(global, record)?;
    match start_process(global, &mut container, &root, options, &resources) {
        Ok((launching, console)) => Ok(Created { container, launching, console }),
        Err(error) => {
            if let Err(more) = container.destroy(global) {
                global.log("warning", &format!("{more:#}"));
            }
            Err(error)
        }
    }
}

fn start_process(
    global: &Global,
    container: &mut Container,
    root: &CgroupRoot,
    options: &Options,
    resources: &LinuxResources,
) -> Result<(Launching, Option<OwnedFd>)> {
    let cgroup = Cgroup::create(root, &container.record.cgroup, resources)?;
    let descriptors = Descriptors { gate: Some(container.make_gate()?), ..Descriptors::default() };
    let mut launching = runtime::launch(&container.record.plan, Some(&cgroup), descriptors)?;
    // Known before the hooks see the container, and for a later delete if we are killed here.
    container.record.process = ProcessIdentity::of(launching.pid).ok();
    container.save()?;
    let console = launching.wait_ready()?;
    for note in &launching.notes {
        global.log("debug", note);
    }
    let console = match (&options.console_socket, console) {
        (Some(path), Some(master)) => {
            console::hand_over(path, &master)?;
            None
        }
        (_, console) => console,
    };
    if let Some(path) = &options.pid_file {
        write_atomically(path, launching.pid.to_string().as_bytes())?;
    }
    Ok((launching, console))
}

/// Opens the gate and runs the hooks after it.
pub(super) fn start(global: &Global, container: &Container) -> Result<()> {
    match container.status() {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        status => bail!("cannot start an already running container ({})", status.as_str()),
    }
    if !container.open_gate()? {
        bail!("cannot start the container \"{}\": its process has ended", container.record.id);
    }
    let state = container.state(Status::Running);
    if let Err(error) = runtime::hooks::run("poststart", &container.record.poststart, &state) {
        // The specification: log and go on.
        global.log("warning", &error.to_string());
    }
    Ok(())
}

/// Descriptors of socket activation are passed on.
fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Waits for a process in the foreground: signals are passed to it, a console is connected.
pub(super) fn attend(launching: &Launching, console: Option<OwnedFd>) -> Result<u8> {
    use rustix::event::{PollFd, PollFlags, poll};
    // All but those that mean us: SIGCHLD, SIGURG, the terminal's stops.
    let passed: Vec<i32> =
        (1..32).filter(|n| ![9, 17, 19, 20, 21, 22, 23, 11, 7, 4, 8, 5].contains(n)).collect();
    let signals = sys::signal::block_and_watch(&passed).context("watch for signals")?;
    let mut relay = console.map(console::Relay::start).transpose()?;
    let mut ended = false;
    while !ended {
        let mut fds = vec![
            PollFd::new(&launching.pidfd, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        if let Some(relay) = &relay {
            fds.extend(relay.interests());
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(sys::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        ended = ready.first().is_some_and(|flags| !flags.is_empty());
        while let Some(signal) = sys::signal::next(signals.as_fd()).context("read a signal")? {
            const SIGWINCH: i32 = 28;
            match &relay {
                Some(relay) if signal == SIGWINCH => relay.resize(),
                _ => {
                    let _ = sys::pidfd::send_signal(launching.pidfd.as_fd(), signal);
                }
            }
        }
        if let Some(relay) = &mut relay {
            relay.step(ready.get(2..).unwrap_or_default());
        }
    }
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    drop(relay);
    let exit = sys::pidfd::wait(launching.pidfd.as_fd(), true).context("wait for the process")?;
    Ok(exit.map_or(255, sys::pidfd::Exit::shell_code))
}
