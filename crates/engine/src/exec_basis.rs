//! What a further process of a container is made from, and how the keeper tells it without the database.
//!
//! To open the database and to read what a container is takes a third of an exec's time. The start gives the keeper
//! what an exec needs to know; see `Known` in [`keeper::protocol`]. Where the keeper does not know, because the
//! container was renamed, is frozen, has a filter of its own, or was started before the keeper was, the database is
//! asked.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use keeper::protocol::Known;
use runtime::state::ProcessIdentity;
use runtime::{ExecPlan, Plan};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::spec::{self, Security};
use crate::start::terminal_size;
use crate::types::ExecConfig;
use crate::user;

/// What an exec takes from its container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Basis {
    pub(crate) id: String,
    pub(crate) name: String,
    /// As it was asked for; with the labels for the event.
    pub(crate) image: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Unless another is asked for.
    user: String,
    groups: Vec<String>,
    capabilities: Vec<String>,
    oom_score_adj: i64,
    /// The container was made with a HOME of its own, which execs keep.
    home_given: bool,
    /// The container's process and filter.
    plan: ExecPlan,
    /// It is a step of a build, of which nobody is told.
    pub(crate) step: bool,
    /// The built-in filter is meant, which is read where it is kept.
    builtin_filter: bool,
}

impl Basis {
    /// Of a container whose first process was made by `plan`.
    pub(crate) fn new(record: &Record, plan: &Plan) -> Result<Basis> {
        let (config, host) = (&record.definition.config, &record.definition.host);
        Ok(Basis {
            id: record.id.clone(),
            name: record.name.clone(),
            image: config.image.clone(),
            labels: config.labels.clone(),
            user: config.user.clone(),
            groups: host.group_add.clone().unwrap_or_default(),
            capabilities: spec::capabilities(host)?,
            oom_score_adj: host.oom_score_adj,
            home_given: config.env.iter().flatten().any(|e| e.starts_with("HOME=")),
            plan: ExecPlan::new(plan.process.clone(), plan),
            step: record.definition.builder.is_some(),
            builtin_filter: false,
        })
    }

    /// What the keeper is to tell of it; `None` if that would be too little.
    pub(crate) fn known(
        record: &Record,
        plan: &Plan,
        renames: u64,
        data_root: &Path,
    ) -> Option<Known> {
        let host = &record.definition.host;
        if record.definition.builder.is_some() {
            return None;
        }
        let security = Security::parse(host.security_opt.as_deref().unwrap_or_default()).ok()?;
        if matches!(security.seccomp, Some(Some(_))) {
            return None;
        }
        let mut basis = Basis::new(record, plan).ok()?;
        basis.builtin_filter = basis.plan.seccomp.take().is_some();
        basis.plan.process.args = Vec::new();
        Some(Known {
            name: record.name.clone(),
            data_root: std::path::absolute(data_root).ok()?,
            renames,
            facts: serde_json::to_string(&basis).ok()?,
        })
    }

    /// What the keeper told; `cache` has the filters.
    pub(crate) fn from_known(facts: &str, cache: &Path) -> Option<Basis> {
        let mut basis: Basis = serde_json::from_str(facts).ok()?;
        if basis.builtin_filter {
            let bounding = basis.plan.process.capabilities.map(|sets| sets.bounding);
            basis.plan.seccomp = Some(crate::seccomp::builtin_for(cache, bounding).ok()?);
        }
        Some(basis)
    }

    /// The plan of a process in the container whose first process is `first`.
    pub(crate) fn plan(&self, first: &ProcessIdentity, config: &ExecConfig) -> Result<ExecPlan> {
        let mut plan = self.plan.clone();
        let pidfd = first.open().map_err(|_| {
            Error::new(ErrorKind::Conflict, format!("container {} is not running", self.id))
        })?;
        let root = rustix::fs::open(
            format!("/proc/{}/root", first.pid),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Error::system("cannot open the container's root", std::io::Error::from(e)))?;
        let user = if config.user.is_empty() { &self.user } else { &config.user };
        let identity = user::identify(root.as_fd(), user, &self.groups)?;
        drop(pidfd);
        let capabilities = if config.privileged {
            runtime::capabilities::names().collect()
        } else {
            self.capabilities.clone()
        };
        let base = &plan.process;
        let mut env: Vec<String> = base.env.clone();
        env.retain(|e| !e.starts_with("HOME=") || self.home_given);
        let given = config.env.clone().unwrap_or_default();
        for entry in &given {
            let key = entry.split('=').next().unwrap_or("");
            env.retain(|e| e.split('=').next() != Some(key));
        }
        if config.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
            env.push("TERM=xterm".into());
        }
        env.extend(given.into_iter().filter(|e| e.contains('=')));
        if !env.iter().any(|e| e.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home));
        }
        let cwd = match config.working_dir.as_str() {
            "" => base.cwd.to_string_lossy().into_owned(),
            dir if dir.starts_with('/') => dir.to_owned(),
            dir => {
                return Err(Error::invalid(format!(
                    "the working directory '{dir}' is invalid, it needs to be an absolute path"
                )));
            }
        };
        let mut process = serde_json::json!({
            "terminal": config.tty,
            "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
            "args": config.cmd.as_deref().unwrap_or_default(),
            "env": env,
            "cwd": cwd,
            "capabilities": spec::capability_sets(&capabilities, identity.uid),
            "noNewPrivileges": base.no_new_privileges,
            "oomScoreAdj": self.oom_score_adj,
        });
        // Set before the program runs, which may ask for it at once.
        if let Some((height, width)) = config.console_size.and_then(terminal_size) {
            process["consoleSize"] = serde_json::json!({"height": height, "width": width});
        }
        let process = serde_json::from_value(process)
            .map_err(|e| Error::system("the process is not valid", e))?;
        let mut process = runtime::plan::Process::from_spec(&process)?;
        process.rlimits = std::mem::take(&mut plan.process.rlimits);
        process.apparmor_profile = plan.process.apparmor_profile.take();
        process.selinux_label = plan.process.selinux_label.take();
        if config.privileged {
            plan.seccomp = None;
        }
        plan.process = process;
        Ok(plan)
    }
}
