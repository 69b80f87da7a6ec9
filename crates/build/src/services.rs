//! Services that a `RUN` may reach: `--service NAME=IMAGE`, and `# service:` lines of a Dockerfile.
//!
//! Each step that has a network gets containers of its own, on that network, and knows their addresses by name. They run from before
//! its command, when they are ready, until it has ended.

use std::time::{Duration, Instant};

use engine::types::{Config, Healthcheck, HostConfig};
use engine::{Engine, LogOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use store::ImageRecord;

use crate::error::{Error, Result};
use crate::job::Job;
use crate::key::Key;
use crate::language::instruction::Step;
use crate::language::problem::{Problem, Span};
use crate::progress::Event;

/// How long a service may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often its health is asked for until then, ns.
const EVERY: i64 = 200_000_000;
/// Lines of a failed service that are shown.
const TAIL: u64 = 20;

/// A container that runs beside a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The name by which steps reach it.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// A command for the image's shell that succeeds when it is ready; the image's own health check if absent.
    pub health: Option<String>,
    /// Its arguments instead of the image's.
    pub command: Option<String>,
}

impl Service {
    /// Reads `NAME=IMAGE[,env=NAME=value…][,health=COMMAND][,command=COMMAND]`; a field with a comma stands in quotes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = fields(text)?.into_iter();
        let first = fields.next().unwrap_or_default();
        let (name, image) = first
            .split_once('=')
            .filter(|(name, image)| !name.is_empty() && !image.is_empty())
            .ok_or_else(|| format!("service {text}: expected NAME=IMAGE"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !name.chars().all(fits) {
            return Err(format!("service {text}: {name:?} is no name of a host"));
        }
        let (name, image) = (name.to_owned(), image.to_owned());
        let mut service = Self { name, image, env: Vec::new(), health: None, command: None };
        for field in fields {
            match field.split_once('=') {
                Some(("env", value)) if value.contains('=') => service.env.push(value.to_owned()),
                Some(("health", command)) => service.health = Some(command.to_owned()),
                Some(("command", command)) => service.command = Some(command.to_owned()),
                _ => {
                    return Err(format!(
                        "service {text}: {field:?} is none of env=NAME=value, health=COMMAND, command=COMMAND"
                    ));
                }
            }
        }
        Ok(service)
    }
}

/// The fields between commas; those in double quotes may have some.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut list = vec![String::new()];
    let mut quoted = false;
    for c in text.trim().chars() {
        match (c, list.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => list.push(String::new()),
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    if quoted { Err(format!("service {text}: a quote is not closed")) } else { Ok(list) }
}

/// A service whose image is here.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    service: Service,
    image: ImageRecord,
}

/// Services that run; they end when it is dropped.
pub(crate) struct Running<'a> {
    engine: &'a Engine,
    containers: Vec<(String, Service)>,
    /// `name:address`
    pub(crate) hosts: Vec<String>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for (id, _) in &self.containers {
            // What is left the next build removes.
            let _ = self.engine.remove_step(id);
        }
    }
}

impl Running<'_> {
    /// What those that do not run any more said last: a step that fails may have missed them.
    pub(crate) fn ended(&self) -> Vec<String> {
        let ended = |(id, service): &(String, Service)| {
            let state = self.engine.inspect(id, false).ok()?.state;
            let why = format!("ended with exit code {}", state.exit_code);
            (!state.running).then(|| happened(self.engine, service, id, &why))
        };
        self.containers.iter().filter_map(ended).collect()
    }
}

/// What became of a service, and its last output.
fn happened(engine: &Engine, service: &Service, id: &str, why: &str) -> String {
    let mut message = format!("the service {} ({}) {why}", service.name, service.image);
    let options =
        LogOptions { stdout: true, stderr: true, tail: Some(TAIL), ..LogOptions::default() };
    let mut lines = String::new();
    let heard = engine.logs(id, options, &mut |line| {
        lines.push_str("\n  ");
        lines.push_str(String::from_utf8_lossy(&line.bytes).trim_end());
        true
    });
    if heard.is_ok() && !lines.is_empty() {
        message.push_str("\nits last output:");
        message.push_str(&lines);
    }
    message
}

impl<'a> Job<'a> {
    /// The services of a step, which become part of its key.
    pub(crate) fn services(&mut self, step: &Step, key: &mut Key) -> Result<Vec<Prepared>> {
        let mut wanted: Vec<Service> = self.options.services.clone();
        for (line, text) in self.plan.file.services(step) {
            let problem = |message| {
                let span = Span { first: line, last: line };
                Error::Dockerfile(self.plan.file.diagnose(Problem::new(span, message)))
            };
            let service = Service::parse(&text).map_err(problem)?;
            // What is nearer to the step counts.
            wanted.retain(|other| other.name != service.name);
            wanted.push(service);
        }
        let mut prepared = Vec::new();
        for service in wanted {
            let platform = self.options.platform.clone();
            let image = self.image_named(&service.image, platform.as_deref())?;
            key.put("service")
                .put(&service.name)
                .put(image.id.to_string())
                .list(&service.env)
                .put(service.health.as_deref().unwrap_or_default())
                .put(service.command.as_deref().unwrap_or_default());
            prepared.push(Prepared { service, image });
        }
        Ok(prepared)
    }

    /// Starts them one after the other, each when those before it are ready and known to it by name.
    pub(crate) fn start_services(
        &mut self,
        prepared: &[Prepared],
        network: &str,
    ) -> Result<Running<'a>> {
        let mut running =
            Running { engine: self.engine, containers: Vec::new(), hosts: Vec::new() };
        for Prepared { service, image } in prepared {
            let began = Instant::now();
            let mut health = image.config.config.healthcheck.as_ref().map(|check| Healthcheck {
                test: Some(check.test.clone()),
                interval: check.interval,
                timeout: check.timeout,
                retries: check.retries,
                ..Healthcheck::default()
            });
            if let Some(command) = &service.health {
                let test = Some(vec!["CMD-SHELL".to_owned(), command.clone()]);
                health = Some(Healthcheck { test, ..Healthcheck::default() });
            }
            if let Some(health) = &mut health {
                // Asked for often at first, and a failure then means only that it is not ready yet.
                health.start_period = i64::try_from(PATIENCE.as_nanos()).unwrap_or(i64::MAX);
                health.start_interval = EVERY;
            }
            let asks = health
                .as_ref()
                .and_then(|health| health.test.as_ref())
                .is_some_and(|test| test.first().is_some_and(|kind| kind != "NONE"));
            let command = service.command.as_ref();
            let config = Config {
                hostname: service.name.clone(),
                env: Some(service.env.clone()),
                cmd: command.map(|text| vec!["/bin/sh".into(), "-c".into(), text.clone()]),
                entrypoint: command.map(|_| Vec::new()),
                healthcheck: health,
                ..Config::default()
            };
            let options = self.options;
            let host = HostConfig {
                network_mode: network.to_owned(),
                extra_hosts: Some([options.add_hosts.as_slice(), &running.hosts].concat()),
                shm_size: options.shm_size,
                ..HostConfig::default()
            };
            let id = self.engine.create_service(image, config, host)?;
            running.containers.push((id.clone(), service.clone()));
            self.engine.start(&id, None)?;
            let seen = self.engine.inspect(&id, false)?;
            if !seen.state.running {
                let why = format!("ended with exit code {}", seen.state.exit_code);
                return Err(self.service_failed(service, &id, &why));
            }
            let address = match network {
                "host" => "127.0.0.1".to_owned(),
                _ => {
                    let mut networks = seen.network_settings.networks.values();
                    let address = networks.find(|one| !one.ip_address.is_empty());
                    address.map(|one| one.ip_address.clone()).unwrap_or_default()
                }
            };
            if address.is_empty() {
                let name = &service.name;
                return Err(Error::Invalid(format!("the service {name} has no address")));
            }
            running.hosts.push(format!("{}:{address}", service.name));
            self.wait_for_service(service, &id, asks)?;
            let (step, at) = (self.step, began.elapsed());
            let bytes = format!("the service {} is ready at {address}\n", service.name);
            self.progress.event(Event::Output { step, error: false, bytes: bytes.into(), at });
        }
        Ok(running)
    }

    fn wait_for_service(&mut self, service: &Service, id: &str, asks: bool) -> Result<()> {
        let watch = self.progress.begin_command();
        let until = Instant::now().checked_add(PATIENCE);
        loop {
            let state = self.engine.inspect(id, false)?.state;
            let health = state.health.as_ref().map_or("", |health| health.status.as_str());
            if !state.running {
                let code = state.exit_code;
                return Err(self.service_failed(
                    service,
                    id,
                    &format!("ended with exit code {code}"),
                ));
            }
            match health {
                _ if !asks => return Ok(()),
                "healthy" => return Ok(()),
                "unhealthy" => return Err(self.service_failed(service, id, "is not healthy")),
                _ => {}
            }
            if until.is_some_and(|until| Instant::now() > until) {
                let why = format!("was not ready after {} s", PATIENCE.as_secs());
                return Err(self.service_failed(service, id, &why));
            }
            let mut fds: Vec<PollFd<'_>> =
                watch.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut fds, Some(&pause)).is_ok_and(|n| n > 0) {
                return Err(Error::GivenUp);
            }
        }
    }

    fn service_failed(&self, service: &Service, id: &str, why: &str) -> Error {
        Error::Invalid(happened(self.engine, service, id, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read() {
        let service =
            Service::parse("db=postgres:16,env=A=b=c,\"health=pg_isready -h a,b\"").unwrap();
        assert_eq!((service.name.as_str(), service.image.as_str()), ("db", "postgres:16"));
        assert_eq!(service.env, ["A=b=c"]);
        assert_eq!(service.health.as_deref(), Some("pg_isready -h a,b"));
        for bad in ["", "db", "=x", "db=", "d b=x", "db=x,env=A", "db=x,what=y", "db=x,\"env=A=b"] {
            assert!(Service::parse(bad).is_err(), "{bad}");
        }
    }
}
