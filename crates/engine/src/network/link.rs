//! `--link`: what one container of the default network is told of another, as variables.

use store::network;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::network::start::Joined;
use crate::record::{self, Record};

/// The two names of a link: the other container's, and the one it is known by.
fn parts(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    // As `inspect` shows it: `/name:/own/alias`.
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

/// Ports as a container says it listens on, in order: number and protocol.
fn ports(record: &Record) -> Vec<(u16, String)> {
    let exposed = record.definition.config.exposed_ports.iter().flat_map(|ports| ports.keys());
    let published = record.definition.host.port_bindings.keys();
    let mut all: Vec<(u16, String)> = exposed
        .chain(published)
        .filter_map(|text| {
            let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            Some((port.parse().ok()?, protocol.to_owned()))
        })
        .collect();
    // TCP before UDP, the lowest first: the first is the one without a number in its name.
    all.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
    all.dedup();
    all
}

/// The variables for one other container.
fn variables(record: &Record, other: &Record, alias: &str, address: &str) -> Vec<String> {
    let name = alias.replace('-', "_").to_uppercase();
    let mut all = Vec::new();
    for (index, (port, protocol)) in ports(other).into_iter().enumerate() {
        let url = format!("{protocol}://{address}:{port}");
        if index == 0 {
            all.push(format!("{name}_PORT={url}"));
        }
        let head = format!("{name}_PORT_{port}_{}", protocol.to_uppercase());
        all.push(format!("{head}={url}"));
        all.push(format!("{head}_ADDR={address}"));
        all.push(format!("{head}_PORT={port}"));
        all.push(format!("{head}_PROTO={protocol}"));
    }
    all.push(format!("{name}_NAME=/{}/{alias}", record.name));
    for entry in other.definition.config.env.iter().flatten() {
        if let Some((key, value)) = entry.split_once('=')
            && !matches!(key, "HOME" | "PATH")
        {
            all.push(format!("{name}_ENV_{key}={value}"));
        }
    }
    all
}

impl Engine {
    /// Variables about the containers that this one is linked to in the default network.
    pub(crate) fn link_variables(&self, record: &Record, joined: &[Joined]) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for joined in joined.iter().filter(|j| !j.has_names()) {
            for link in joined.wanted.links.iter().flatten() {
                let (name, alias) = parts(link);
                let other = record::find(self.db(), name)?;
                let held = network::held_by(self.db(), &other.id)?;
                if let Some((_, address)) = held.iter().find(|(n, _)| *n == joined.network.id) {
                    all.extend(variables(record, &other, alias, &address.address.to_string()));
                }
            }
        }
        Ok(all)
    }

    /// Takes a link away: the container's name and the name it knows the other one by.
    ///
    /// # Errors
    /// `NotFound` if there is no such container or no such link.
    pub fn remove_link(&self, name: &str, alias: &str) -> Result<()> {
        let found = record::find(self.db(), name)?;
        self.store().db().transaction(|tx| {
            let missing = || {
                Error::new(
                    ErrorKind::NotFound,
                    format!("Could not get parent: no link {name}/{alias}"),
                )
            };
            let mut record = record::by_id(tx, &found.id)?.ok_or_else(missing)?;
            let links = record.definition.host.links.get_or_insert_default();
            let before = links.len();
            links.retain(|link| parts(link).1 != alias);
            if links.len() == before {
                return Err(missing());
            }
            record::update_definition(tx, &record)?;
            for mut endpoint in network::endpoints_of(tx, &record.id)? {
                let mut wanted: crate::types::EndpointSettings =
                    serde_json::from_str(&endpoint.wanted).unwrap_or_default();
                if let Some(links) = &mut wanted.links {
                    links.retain(|link| parts(link).1 != alias);
                    endpoint.wanted = serde_json::to_string(&wanted)
                        .map_err(|e| Error::system("cannot write the endpoint", e))?;
                    network::put_endpoint(tx, &endpoint)?;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_dockers() {
        let record = record::tests_record("web");
        let mut other = record::tests_record("db");
        let config = &mut other.definition.config;
        config.exposed_ports =
            Some(["5432/tcp", "53/udp"].map(|p| (p.to_owned(), crate::types::Empty {})).into());
        config.env = Some(vec!["PATH=/bin".into(), "MODE=fast".into()]);
        assert_eq!(
            variables(&record, &other, "my-db", "172.17.0.2"),
            [
                "MY_DB_PORT=tcp://172.17.0.2:5432",
                "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
                "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_MODE=fast",
            ]
        );
    }
}
