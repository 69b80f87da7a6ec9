//! `/networks`.

use engine::types::{EndpointSettings, NetworkCreate};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::answer::{Failure, Outcome, empty, json, json_with};
use crate::request::Request;
use crate::server::Server;

pub(crate) async fn list(request: Request, server: &Server) -> Outcome {
    let filters = request.query().filters()?;
    Ok(json(&server.work.ask(move |engine| engine.networks(&filters)).await?))
}

pub(crate) async fn inspect(request: &Request, server: &Server, name: &str) -> Outcome {
    match request.query().text("scope") {
        None | Some("local") => {}
        // There are none of other scopes.
        Some(_) => {
            return Err(Failure::new(StatusCode::NOT_FOUND, format!("network {name} not found")));
        }
    }
    let name = name.to_owned();
    Ok(json(&server.work.ask(move |engine| engine.inspect_network(&name)).await?))
}

pub(crate) async fn create(mut request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
        warning: String,
    }
    let wanted: NetworkCreate = request.required().await?;
    let (id, warnings) = server.work.ask(move |engine| engine.create_network(&wanted)).await?;
    Ok(json_with(StatusCode::CREATED, &Created { id, warning: warnings.join("\n") }))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Connect {
    container: String,
    endpoint_config: Option<EndpointSettings>,
}

pub(crate) async fn connect(mut request: Request, server: &Server, name: &str) -> Outcome {
    let wanted: Connect = request.required().await?;
    let name = name.to_owned();
    server
        .work
        .ask(move |engine| {
            let settings = wanted.endpoint_config.unwrap_or_default();
            engine.connect_network(&name, &wanted.container, &settings)
        })
        .await?;
    Ok(empty(StatusCode::OK))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Disconnect {
    container: String,
    force: bool,
}

pub(crate) async fn disconnect(mut request: Request, server: &Server, name: &str) -> Outcome {
    let wanted: Disconnect = request.required().await?;
    let name = name.to_owned();
    server
        .work
        .ask(move |engine| engine.disconnect_network(&name, &wanted.container, wanted.force))
        .await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn remove(server: &Server, name: &str) -> Outcome {
    let name = name.to_owned();
    server.work.ask(move |engine| engine.remove_network(&name)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn prune(request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pruned {
        networks_deleted: Option<Vec<String>>,
    }
    let filters = request.query().filters()?;
    let pruned = server.work.ask(move |engine| engine.prune_networks(&filters)).await?;
    let deleted = Some(pruned.deleted).filter(|list| !list.is_empty());
    Ok(json(&Pruned { networks_deleted: deleted }))
}
