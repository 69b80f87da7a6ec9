//! Networks and volumes.

use std::collections::BTreeMap;

use engine::types::{EndpointSettings, Network, NetworkCreate, Pruned, Volume};
use engine::{Filters, Result};
use serde::Deserialize;

use crate::http::Payload;
use crate::remote::{Query, Remote, part, payload};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Gone {
    networks_deleted: Vec<String>,
    volumes_deleted: Vec<String>,
    space_reclaimed: u64,
}

impl Remote {
    /// See [`engine::Engine::create_network`].
    pub fn create_network(&self, request: &NetworkCreate) -> Result<(String, Vec<String>)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Made {
            id: String,
            #[serde(default)]
            warning: String,
        }
        let made: Made = self.post("/networks/create", Query::new(), request)?;
        let warnings = made.warning.lines().filter(|l| !l.is_empty()).map(str::to_owned);
        Ok((made.id, warnings.collect()))
    }

    /// See [`engine::Engine::networks`].
    pub fn networks(&self, filters: &Filters) -> Result<Vec<Network>> {
        self.get("/networks", Query::new().filters(filters))
    }

    /// See [`engine::Engine::inspect_network`].
    pub fn inspect_network(&self, name: &str) -> Result<Network> {
        self.get(&format!("/networks/{}", part(name)), Query::new())
    }

    /// See [`engine::Engine::remove_network`].
    pub fn remove_network(&self, name: &str) -> Result<()> {
        self.done("DELETE", &format!("/networks/{}", part(name)), Query::new())
    }

    /// See [`engine::Engine::connect_network`].
    pub fn connect_network(
        &self,
        network: &str,
        container: &str,
        settings: &EndpointSettings,
    ) -> Result<()> {
        let body = serde_json::json!({"Container": container, "EndpointConfig": settings});
        self.networked(network, "connect", &body)
    }

    /// See [`engine::Engine::disconnect_network`].
    pub fn disconnect_network(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let body = serde_json::json!({"Container": container, "Force": force});
        self.networked(network, "disconnect", &body)
    }

    fn networked(&self, network: &str, verb: &str, body: &serde_json::Value) -> Result<()> {
        let path = format!("/networks/{}/{verb}", part(network));
        let (_, body) = self.ask("POST", &path, Query::new(), &[], payload(body)?)?;
        self.keep(body);
        Ok(())
    }

    /// See [`engine::Engine::prune_networks`].
    pub fn prune_networks(&self, filters: &Filters) -> Result<Pruned> {
        let query = Query::new().filters(filters);
        let gone: Gone = self.json("POST", "/networks/prune", query, Payload::Nothing)?;
        Ok(Pruned { deleted: gone.networks_deleted, space_reclaimed: 0 })
    }

    /// See [`engine::Engine::create_volume`].
    pub fn create_volume(
        &self,
        name: Option<&str>,
        driver: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume> {
        let body = serde_json::json!({
            "Name": name.unwrap_or_default(),
            "Driver": driver,
            "DriverOpts": options,
            "Labels": labels,
        });
        self.post("/volumes/create", Query::new(), &body)
    }

    /// See [`engine::Engine::volumes`].
    pub fn volumes(&self, filters: &Filters) -> Result<Vec<Volume>> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct All {
            volumes: Vec<Volume>,
        }
        let all: All = self.get("/volumes", Query::new().filters(filters))?;
        Ok(all.volumes)
    }

    /// See [`engine::Engine::inspect_volume`].
    pub fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.get(&format!("/volumes/{}", part(name)), Query::new())
    }

    /// See [`engine::Engine::remove_volume`].
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let query = Query::new().flag("force", force);
        self.done("DELETE", &format!("/volumes/{}", part(name)), query)
    }

    /// See [`engine::Engine::prune_volumes`].
    pub fn prune_volumes(&self, all: bool, filters: &Filters) -> Result<Pruned> {
        let mut filters = filters.clone();
        if all {
            filters.insert("all".into(), vec!["true".into()]);
        }
        let query = Query::new().filters(&filters);
        let gone: Gone = self.json("POST", "/volumes/prune", query, Payload::Nothing)?;
        Ok(Pruned { deleted: gone.volumes_deleted, space_reclaimed: gone.space_reclaimed })
    }
}
