//! The registry client, made of what the settings, the environment and Docker's files say.

use std::path::PathBuf;

use ::registry::{Client, Config, Credentials, DockerConfig, Options, Proxies, Roots};
use anyhow::Context as _;
use engine::settings::Settings;

use crate::app::VERSION;
use crate::context::Context;

/// Docker's file with credentials: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
pub(crate) fn docker_config_path() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let directory = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")));
    Ok(directory.context("neither HOME nor DOCKER_CONFIG is set")?.join("config.json"))
}

/// Docker's file with credentials, empty where there is none.
pub(crate) fn docker_config() -> anyhow::Result<DockerConfig> {
    // Without a home there are no credentials to be had.
    let path = docker_config_path().unwrap_or_else(|_| "/nonexistent/config.json".into());
    Ok(DockerConfig::load(&path)?)
}

fn proxies() -> Proxies {
    let either = |upper: &str, lower: &str| {
        std::env::var(upper).or_else(|_| std::env::var(lower)).ok().filter(|v| !v.is_empty())
    };
    let all = either("ALL_PROXY", "all_proxy");
    Proxies {
        https: either("HTTPS_PROXY", "https_proxy").or_else(|| all.clone()),
        http: either("HTTP_PROXY", "http_proxy").or(all),
        no_proxy: either("NO_PROXY", "no_proxy").unwrap_or_default(),
    }
}

/// The client; `insecure` takes any certificate and plain HTTP of any registry.
pub(crate) fn client(context: &Context, insecure: bool) -> anyhow::Result<Client> {
    client_of(context.settings()?, insecure, Box::new(docker_config()?))
}

/// The client of an engine with these settings.
pub(crate) fn client_of(
    settings: &Settings,
    insecure: bool,
    credentials: Box<dyn Credentials>,
) -> anyhow::Result<Client> {
    let (path, named) = if settings.registries.as_os_str().is_empty() {
        (PathBuf::from(engine::settings::DEFAULT_REGISTRIES), false)
    } else {
        (settings.registries.clone(), true)
    };
    Ok(Client::new(Options {
        config: Config::load(&path, named)?,
        credentials,
        proxies: proxies(),
        roots: Roots {
            file: std::env::var_os("SSL_CERT_FILE").map(PathBuf::from),
            directory: std::env::var_os("SSL_CERT_DIR").map(PathBuf::from),
        },
        user_agent: format!("wherry/{VERSION}"),
        insecure,
    }))
}
