//! What this engine has not: swarm and plugins, said in Docker's words and with its status codes.

use hyper::{Method, StatusCode};

use crate::answer::{Failure, Outcome};

/// This is no manager of a swarm.
pub(crate) fn no_manager(method: &Method, parts: &[&str]) -> Outcome {
    let post = method == Method::POST;
    match parts {
        ["swarm", "init" | "join" | "unlock"] if post => Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            "this engine has no swarm; `docker stack` files run as Compose projects",
        )),
        ["swarm", "leave"] if post => {
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm"))
        }
        _ => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
             to connect this node to swarm and try again.",
        )),
    }
}

/// No plugin is ever found.
pub(crate) fn no_plugins() -> Outcome {
    Err(Failure::new(StatusCode::NOT_FOUND, "plugin not found: this engine has no plugins"))
}
