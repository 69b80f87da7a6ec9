//! `exec`

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use runtime::cgroup::{Cgroup, CgroupRoot};
use runtime::plan::Process;
use runtime::state::Status;
use runtime::{Descriptors, ExecPlan, capabilities};

use super::store::{Container, write_atomically};
use super::{Global, console, container};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File with the process in JSON, in place of a command
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Environment variable, NAME=VALUE
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// User, UID or UID:GID
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Additional group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// File to write the process number to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Return when the program runs
    #[arg(short, long)]
    detach: bool,
    /// Unix socket that receives the terminal's master
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Add a capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Forbid gaining privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Pass this many descriptors, from number 3 on
    #[arg(long, default_value_t = 0, value_name = "N")]
    preserve_fds: u32,
    /// A cgroup below the container's
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// The container's ID
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn run(global: &Global, args: Args) -> Result<u8> {
    let container = Container::load(global, &args.id)?;
    match container.status() {
        Status::Running => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => bail!("cannot exec in a paused container (use --ignore-paused)"),
        Status::Created => bail!("cannot exec in a container that is not started"),
        _ => bail!("cannot exec in a stopped container: container not running"),
    }
    let process = process(&args, &container)?;
    console::check(process.terminal, args.detach, args.console_socket.as_deref())?;
    let plan = ExecPlan::new(process, &container.record.plan);
    let target = container.process()?;
    let path = match &args.cgroup {
        // runc's form for version 1 names controllers first.
        Some(sub) => {
            let sub = sub.rsplit(':').next().unwrap_or(sub);
            format!("{}/{sub}", container.record.cgroup)
        }
        None => container.record.cgroup.clone(),
    };
    let cgroup = Cgroup::open(&CgroupRoot::detect()?, &path)?;
    if args.cgroup.is_some() && !cgroup.exists() {
        bail!("the container has no cgroup {path}");
    }
    let mut launching =
        runtime::exec(&plan, target.as_fd(), Some(&cgroup), Descriptors::default())?;
    let mut console = launching.wait_ready()?;
    if let (Some(path), Some(master)) = (&args.console_socket, console.take_if(|_| args.detach)) {
        console::hand_over(path, &master)?;
    }
    if let Some(path) = &args.pid_file {
        write_atomically(path, launching.pid.to_string().as_bytes())?;
    }
    if args.detach { Ok(0) } else { container::attend(&launching, console) }
}

fn process(args: &Args, container: &Container) -> Result<Process> {
    let base = &container.record.plan.process;
    let mut process = if let Some(path) = &args.process {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let spec: oci_spec::runtime::Process = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a process in JSON", path.display()))?;
        let mut process = Process::from_spec(&spec)?;
        process.terminal |= args.tty;
        process
    } else {
        if args.command.is_empty() {
            bail!("give a command to run, or --process FILE");
        }
        let mut process = base.clone();
        process.args = args.command.clone();
        process.terminal = args.tty;
        process.console_size = None;
        process.scheduler = None;
        process
    };
    if let Some(cwd) = &args.cwd {
        process.cwd = cwd.clone();
    }
    if !process.cwd.is_absolute() {
        bail!("the working directory {} is not an absolute path", process.cwd.display());
    }
    process.env.extend(args.env.iter().cloned());
    if let Some(user) = &args.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        let number = |text: &str| {
            text.parse::<u32>().with_context(|| format!("\"{text}\" is not a numeric ID"))
        };
        process.uid = number(uid)?;
        if let Some(gid) = gid {
            process.gid = number(gid)?;
        }
    }
    process.additional_gids.extend(&args.additional_gids);
    process.no_new_privileges |= args.no_new_privs;
    process.preserve_fds = args.preserve_fds;
    process.new_keyring = false;
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile = Some(profile.clone());
    }
    if let Some(label) = &args.process_label {
        process.selinux_label = Some(label.clone());
    }
    for name in &args.cap {
        let Some(bit) = capabilities::number(name) else { bail!("unknown capability \"{name}\"") };
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.0 |= 1 << bit;
        }
    }
    Ok(process)
}
