//! `/_ping`, `/version`, `/info`, `/auth`, `/system/df`.

use hyper::StatusCode;
use serde::Serialize;

use crate::answer::{self, Failure, Outcome, empty, header, json, text};
use crate::credentials::AuthConfig;
use crate::request::Request;
use crate::server::Server;
use crate::versions;

/// `/_ping`: is anybody there, and what does it speak.
pub(crate) fn ping(head: bool) -> Outcome {
    let mut answer = if head { empty(StatusCode::OK) } else { text("OK") };
    for (name, value) in [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ] {
        answer = header(answer, name, value);
    }
    Ok(answer)
}

pub(crate) fn version() -> Outcome {
    Ok(json(&engine::info::version()))
}

pub(crate) async fn info(request: &Request, server: &Server) -> Outcome {
    let info = server.work.ask(|engine| engine.info()).await?;
    Ok(answer::json_of(&info, request.version, versions::info))
}

/// `/auth`: tries a login; nothing is kept here.
pub(crate) async fn auth(mut request: Request, server: &Server) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Said {
        status: &'static str,
        identity_token: String,
    }
    let auth: AuthConfig = request.required().await?;
    let Some(credential) = auth.credential() else {
        return Err(Failure::invalid("no username and password were given"));
    };
    let make = server.client.clone();
    let token = tokio::task::spawn_blocking(move || -> Result<String, Failure> {
        let client = make(None)?;
        let login = client.login(&auth.serveraddress, &credential).map_err(|e| {
            let failure = Failure::from(e);
            Failure::new(
                match failure.status {
                    StatusCode::FORBIDDEN => StatusCode::UNAUTHORIZED,
                    other => other,
                },
                failure.message,
            )
        })?;
        Ok(match login.keep {
            registry::Credential::Identity(token) => token,
            registry::Credential::Password { .. } => String::new(),
        })
    })
    .await
    .map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
    Ok(json(&Said { status: "Login Succeeded", identity_token: token }))
}

/// `/system/df`; `type` may name what is wanted.
pub(crate) async fn disk_usage(request: Request, server: &Server) -> Outcome {
    let types = request.query().all("type");
    if let Some(other) = types
        .iter()
        .find(|t| !matches!(t.as_str(), "container" | "image" | "volume" | "build-cache"))
    {
        return Err(Failure::invalid(format!("unknown object type: {other}")));
    }
    let mut usage = server.work.ask(|engine| engine.disk_usage()).await?;
    let wanted = |name: &str| types.is_empty() || types.iter().any(|t| t == name);
    if !wanted("image") {
        usage.images.clear();
        usage.layers_size = 0;
    }
    if !wanted("container") {
        usage.containers.clear();
    }
    if !wanted("volume") {
        usage.volumes.clear();
    }
    Ok(answer::json_of(&usage, request.version, versions::disk_usage))
}
