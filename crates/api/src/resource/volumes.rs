//! `/volumes`.

use std::collections::BTreeMap;

use engine::types::Volume;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::answer::{Outcome, empty, json, json_with};
use crate::request::Request;
use crate::server::Server;

pub(crate) async fn list(request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct List {
        volumes: Vec<Volume>,
        warnings: Option<Vec<String>>,
    }
    let filters = request.query().filters()?;
    let volumes = server.work.ask(move |engine| engine.volumes(&filters)).await?;
    Ok(json(&List { volumes, warnings: None }))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Create {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

pub(crate) async fn create(mut request: Request, server: &Server) -> Outcome {
    let wanted: Create = request.json().await?.unwrap_or_default();
    let volume = server
        .work
        .ask(move |engine| {
            let driver = wanted.driver.filter(|d| !d.is_empty()).unwrap_or("local".into());
            engine.create_volume(
                wanted.name.as_deref(),
                &driver,
                wanted.driver_opts.unwrap_or_default(),
                wanted.labels.unwrap_or_default(),
            )
        })
        .await?;
    Ok(json_with(StatusCode::CREATED, &volume))
}

pub(crate) async fn inspect(server: &Server, name: &str) -> Outcome {
    let name = name.to_owned();
    Ok(json(&server.work.ask(move |engine| engine.inspect_volume(&name)).await?))
}

pub(crate) async fn remove(request: &Request, server: &Server, name: &str) -> Outcome {
    let (name, force) = (name.to_owned(), request.query().flag("force"));
    server.work.ask(move |engine| engine.remove_volume(&name, force)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn prune(request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pruned {
        volumes_deleted: Vec<String>,
        space_reclaimed: u64,
    }
    let filters = request.query().filters()?;
    // Before 1.42 volumes with names went, too.
    let all = request.version < 42;
    let pruned = server.work.ask(move |engine| engine.prune_volumes(all, &filters)).await?;
    Ok(json(&Pruned { volumes_deleted: pruned.deleted, space_reclaimed: pruned.space_reclaimed }))
}
