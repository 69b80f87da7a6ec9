//! The specification of a container, written down, and the plan made of it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use oci_spec::runtime::Spec;
use runtime::Plan;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::create::is_systemd;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::network::start::Attached;
use crate::record::{self, PlannedMount, Record};
use crate::spec::{self, Facts, Security};
use crate::user;

impl Engine {
    /// The specification, written down, and the plan made of it.
    /// With it come the mounts that the keeper can't make from a path.
    pub(crate) fn plan(
        &self,
        record: &Record,
        rootfs: &OwnedFd,
        attached: Option<&Attached>,
        foreign: bool,
    ) -> Result<(Plan, Vec<(usize, OwnedFd)>)> {
        let definition = &record.definition;
        let host = &definition.host;
        let security = Security::parse(host.security_opt.as_deref().unwrap_or_default())?;
        let identity = user::identify(
            rootfs.as_fd(),
            &definition.config.user,
            host.group_add.as_deref().unwrap_or_default(),
        )?;
        make_working_dir(rootfs, &definition.config.working_dir)?;
        let directory = self.store().container_directory(&record.id);
        self.write_files(record, &directory, attached)?;
        // Another runtime finds the namespace by its path; it runs while we hold it.
        let network = attached.filter(|_| foreign).map(|attached| {
            let me = rustix::process::getpid().as_raw_nonzero();
            format!("/proc/{me}/fd/{}", attached.namespace.as_raw_fd())
        });
        let files = match host.network_mode.strip_prefix("container:") {
            // Who shares a network shares its names.
            Some(peer) => self.store().container_directory(&record::find(self.db(), peer)?.id),
            None => directory.clone(),
        };
        let volumes = self.prepare_sources(record)?;
        let cgroup = format!("/{}", self.cgroup_path(record));
        let links = match attached {
            Some(attached) => self.link_variables(record, &attached.joined)?,
            None => Vec::new(),
        };
        let mut built = spec::build(
            record,
            &Facts {
                identity: &identity,
                security: &security,
                directory: &directory,
                files: &files,
                network: network.as_deref(),
                cgroup: &cgroup,
                program: self.settings().init_path.as_deref().unwrap_or(self.program()),
                systemd: is_systemd(&definition.argv),
                volumes: &volumes,
                default_ulimits: &self.settings().default_ulimits,
                links: &links,
            },
        )?;
        let filtered =
            security.seccomp != Some(None) && !(host.privileged && security.seccomp.is_none());
        let part_of_volume = |m: &PlannedMount| {
            m.mount.volume_options.as_ref().is_some_and(|v| !v.subpath.is_empty())
        };
        if foreign && definition.mounts.iter().any(part_of_volume) {
            return Err(Error::invalid(
                "volume-subpath is not possible with another runtime: mount the whole volume",
            ));
        }
        if filtered && foreign {
            // Ours gets the compiled filter beside the specification.
            let profile = security.seccomp.as_ref().and_then(Option::as_deref);
            let bounding = spec::capabilities(host)?;
            built.json["linux"]["seccomp"] = crate::seccomp::for_spec(profile, &bounding)?;
        }
        let text = serde_json::to_vec_pretty(&built.json)
            .map_err(|e| Error::system("cannot write the specification", e))?;
        let path = directory.join("config.json");
        std::fs::write(&path, &text)
            .map_err(|e| Error::system(format!("cannot write {}", path.display()), e))?;
        let spec: Spec = serde_json::from_value(built.json)
            .map_err(|e| Error::system("the specification is not valid", e))?;
        let mut plan = Plan::from_spec(&spec, &directory)?;
        plan.id.clone_from(&record.id);
        plan.trace = self.trace().is_on();
        relax_rlimits(&mut plan.process, record);
        plan.seccomp = self.seccomp_filter(record, &security, &spec)?;
        let mut given = Vec::new();
        if let Some(index) = built.shared_shm {
            given.push((index, self.shm_of_peer(&host.ipc_mode)?));
        }
        for (n, planned) in definition.mounts.iter().enumerate() {
            if planned.mount.r#type == "volume"
                && let Some(fd) = self.special_volume(planned)?
            {
                given.push((built.first_asked + n, fd));
            }
        }
        Ok((plan, given))
    }

    /// The plan that a running container was started with, as far as further processes are concerned.
    pub(crate) fn plan_of(&self, record: &Record) -> Result<Plan> {
        let directory = self.store().container_directory(&record.id);
        let path = directory.join("config.json");
        let failed =
            |e: std::io::Error| Error::system(format!("cannot read {}", path.display()), e);
        let bytes = std::fs::read(&path).map_err(failed)?;
        let spec: Spec = serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))?;
        let mut plan = Plan::from_spec(&spec, &directory)?;
        plan.id.clone_from(&record.id);
        let options = record.definition.host.security_opt.as_deref().unwrap_or_default();
        plan.seccomp = self.seccomp_filter(record, &Security::parse(options)?, &spec)?;
        relax_rlimits(&mut plan.process, record);
        Ok(plan)
    }

    /// The compiled filter, from the cache where the same profile was compiled before.
    fn seccomp_filter(
        &self,
        record: &Record,
        security: &Security,
        spec: &Spec,
    ) -> Result<Option<runtime::seccomp::Filter>> {
        if record.definition.host.privileged && security.seccomp.is_none() {
            return Ok(None);
        }
        let profile = match &security.seccomp {
            Some(None) => return Ok(None),
            Some(Some(json)) => Some(json.as_str()),
            None => None,
        };
        crate::seccomp::filter(profile, spec, &self.data_root().join("cache"))
    }
}

/// A limit that was asked for must hold; one that is only this engine's default stays as inherited
/// where raising it is not allowed.
fn relax_rlimits(process: &mut runtime::plan::Process, record: &Record) {
    let asked = record.definition.host.ulimits.as_deref().unwrap_or_default();
    for limit in &mut process.rlimits {
        let name = limit.name.trim_start_matches("RLIMIT_");
        limit.required = asked.iter().any(|ulimit| ulimit.name.eq_ignore_ascii_case(name));
    }
}

/// Makes the working directory where the image does not have it, as Docker does. Every
/// step is inside the root, whatever links it has.
fn make_working_dir(rootfs: &OwnedFd, path: &str) -> Result<()> {
    let open = |path: &str| {
        rustix::fs::openat2(
            rootfs,
            if path.is_empty() { "." } else { path },
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )
    };
    let path = crate::mounts::clean(path);
    let path = path.to_string_lossy();
    let relative = path.trim_start_matches('/');
    if relative.is_empty() || open(relative).is_ok() {
        return Ok(());
    }
    let mut done = String::new();
    for name in relative.split('/') {
        let parent = open(&done);
        if !done.is_empty() {
            done.push('/');
        }
        done.push_str(name);
        if open(&done).is_ok() {
            continue;
        }
        // What fails here (a file in the way, a read-only root) fails again, with its
        // name, when the process enters the directory.
        let Ok(parent) = parent else { return Ok(()) };
        if rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
