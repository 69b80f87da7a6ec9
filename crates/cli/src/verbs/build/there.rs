//! A build by an engine elsewhere: the context is sent, and what the builder prints is shown.

use std::io::Read;
use std::path::Path;

use build::{Base, Context as Files, File, Options};
use remote::Remote;

use super::Args;
use crate::context;
use crate::failure::{Failure, Outcome};
use crate::output::clean;

fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::new(1, e.to_string()))
}

impl Args {
    /// What the API of another engine has no words for.
    fn only_here(&self) -> Option<&'static str> {
        let given = [
            (!self.secret.is_empty(), "--secret"),
            (!self.ssh.is_empty(), "--ssh"),
            (!self.cache_from.is_empty(), "--cache-from"),
            (!self.cache_to.is_empty(), "--cache-to"),
            (!self.build_context.is_empty(), "--build-context"),
            (!self.allow.is_empty(), "--allow"),
            (!self.no_cache_filter.is_empty(), "--no-cache-filter"),
            (!self.output.is_empty(), "--output"),
            (!self.service.is_empty(), "--service"),
            (self.lock.is_some(), "--lock"),
            (self.metadata_file.is_some(), "--metadata-file"),
            (self.debug_on_failure, "--debug-on-failure"),
            (self.verify, "--verify"),
        ];
        given.into_iter().find_map(|(given, name)| given.then_some(name))
    }

    /// The parameters of `POST /build`.
    fn parameters(&self, options: &Options) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut list: Vec<(&str, String)> = vec![("rm", "1".into()), ("forcerm", "1".into())];
        let mut flag = |name, on: bool| {
            if on {
                list.push((name, "1".into()));
            }
        };
        flag("nocache", self.no_cache);
        flag("pull", self.pull);
        flag("squash", self.squash);
        for tag in &self.tag {
            list.push(("t", tag.clone()));
        }
        for host in &self.add_host {
            list.push(("extrahosts", host.clone()));
        }
        let mut text = |name, value: &str| {
            if !value.is_empty() {
                list.push((name, value.to_owned()));
            }
        };
        text("dockerfile", &build::upload::file_name(options));
        text("target", self.target.as_deref().unwrap_or_default());
        text("platform", self.platform.as_deref().unwrap_or_default());
        text("networkmode", self.network.as_deref().unwrap_or_default());
        text("cpusetcpus", &self.cpuset_cpus);
        text("cpusetmems", &self.cpuset_mems);
        text("cgroupparent", &self.cgroup_parent);
        let numbers = [
            ("shmsize", self.shm_size),
            ("memory", self.memory),
            ("memswap", self.memory_swap),
            ("cpushares", self.cpu_shares),
            ("cpuperiod", self.cpu_period),
            ("cpuquota", self.cpu_quota),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                list.push((name, value.to_string()));
            }
        }
        let mut arguments = options.build_args.clone();
        if let Some(epoch) = options.source_date_epoch {
            arguments.insert("SOURCE_DATE_EPOCH".into(), epoch.to_string());
        }
        list.push(("buildargs", json(&arguments)?));
        list.push(("labels", json(&options.labels)?));
        if !self.ulimit.is_empty() {
            list.push(("ulimits", json(&self.ulimit)?));
        }
        if !self.security_opt.is_empty() {
            list.push(("securityopt", json(&self.security_opt)?));
        }
        Ok(list)
    }

    /// Sends the context to an engine elsewhere, which builds it.
    pub(super) fn there(&self, remote: &Remote) -> Outcome {
        if let Some(option) = self.only_here() {
            let why = "the API of an engine elsewhere has no such thing: run the build there";
            return Err(Failure::new(1, format!("{option}: {why}")).into());
        }
        let path = super::super::one(&self.args)?;
        let mut start = Vec::new();
        let mut options = None;
        let mut address = None;
        if build::remote::is_remote(path) && !Path::new(path).exists() {
            address = Some(path);
        } else if path == "-" {
            std::io::stdin().lock().take(512).read_to_end(&mut start)?;
            if !build::upload::is_archive(&start) {
                if self.file.is_some() {
                    let message = "-f needs a context: standard input is a Dockerfile itself";
                    return Err(Failure::new(1, message).into());
                }
                const MOST: u64 = 8 << 20;
                std::io::stdin().lock().take(MOST).read_to_end(&mut start)?;
                let text = String::from_utf8(std::mem::take(&mut start)).map_err(|_| {
                    Failure::new(1, "standard input is neither a Dockerfile nor an archive")
                })?;
                let file = File::Text { name: "Dockerfile".into(), text, ignore: None };
                options = Some(Options::new(file, Files::Empty));
            }
        } else {
            let (file, files) = self.directory(path)?;
            options = Some(Options::new(file, files));
        }
        let sends = options.is_some();
        let name = self.file.clone().unwrap_or_else(|| "Dockerfile".into());
        let mut options =
            options.unwrap_or_else(|| Options::new(File::InContext(name), Files::Empty));
        self.fill(&mut options)?;
        let mut auths = Vec::new();
        if sends {
            // What is wrong with the file is said before anything is sent.
            let plan = build::plan(&options).map_err(super::shown)?;
            if self.check {
                return super::check(&plan.file);
            }
            if self.print_graph {
                context::print(&plan.to_string())?;
                return Ok(0);
            }
            for stage in &plan.stages {
                if let Base::Image(image) = &stage.base
                    && let Ok(Some(auth)) = crate::door::auth_for(image)
                {
                    auths.push(auth);
                }
            }
        } else if self.check || self.print_graph {
            let why = "the Dockerfile is read by the engine elsewhere; give a directory";
            return Err(Failure::new(1, format!("--check, --print-graph: {why}")).into());
        }
        let mut parameters = self.parameters(&options)?;
        if let Some(address) = &address {
            parameters.push(("remote", (*address).to_owned()));
        }
        let quiet = self.quiet || self.progress == "quiet";
        let mut open = String::new();
        let mut say = |text: &str| {
            open.push_str(text);
            while let Some((line, rest)) = open.split_once('\n') {
                if !quiet {
                    context::note(&clean::text(line.trim_end_matches('\r')));
                }
                open = rest.to_owned();
            }
        };
        let built = if address.is_some() {
            remote.build(&parameters, &auths, None, &mut say)
        } else if sends {
            let (mut reader, mut writer) = std::io::pipe()?;
            std::thread::scope(|scope| {
                let options = &options;
                let packer = scope.spawn(move || build::upload::pack(options, &mut writer));
                let built = remote.build(&parameters, &auths, Some(&mut reader), &mut say);
                drop(reader);
                match packer.join() {
                    Ok(Ok(())) => Ok(built),
                    // An answer that came before all was sent is the reason.
                    Ok(Err(_)) if built.is_err() => Ok(built),
                    Ok(Err(error)) => Err(super::shown(error)),
                    Err(_) => Err(Failure::new(1, "sending the context: a thread failed").into()),
                }
            })?
        } else {
            let mut whole = std::io::Cursor::new(start).chain(std::io::stdin());
            remote.build(&parameters, &auths, Some(&mut whole), &mut say)
        };
        let id = built?.ok_or_else(|| Failure::new(1, "the engine did not say what it built"))?;
        if let Some(path) = &self.iidfile {
            super::write_file(path, &id)?;
        }
        if quiet || self.tag.is_empty() {
            context::println(&id)?;
        }
        Ok(0)
    }
}
