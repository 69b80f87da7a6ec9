//! From a method and a path to the function that answers.

use hyper::{Method, StatusCode};

use crate::answer::{Failure, Outcome};
use crate::request::Request;
use crate::resource::{
    buildkit, builds, containers, events, exec, images, networks, streams, swarm, system, volumes,
};
use crate::server::Server;

/// Answers a request.
pub(crate) async fn answer(request: Request, server: &Server) -> Outcome {
    let path: Vec<String> = request.path.clone();
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let method = request.method().clone();
    let (get, post) = (method == Method::GET, method == Method::POST);
    let (delete, put, head) =
        (method == Method::DELETE, method == Method::PUT, method == Method::HEAD);
    match parts.as_slice() {
        ["_ping"] if get || head => system::ping(head),
        ["version"] if get => system::version(),
        ["info"] if get => system::info(&request, server).await,
        ["auth"] if post => system::auth(request, server).await,
        ["events"] if get => events::stream(request, server).await,
        ["system", "df"] if get => system::disk_usage(request, server).await,

        ["containers", "json"] if get => containers::list(request, server).await,
        ["containers", "create"] if post => containers::create(request, server).await,
        ["containers", "prune"] if post => containers::prune(request, server).await,
        ["containers", id] if delete => containers::remove(request, server, id).await,
        // The name of a link: the container's, and the one it knows the other by.
        ["containers", id, alias] if delete => {
            containers::remove_link(request, server, id, alias).await
        }
        ["containers", id, "json"] if get => containers::inspect(request, server, id).await,
        ["containers", id, "top"] if get => containers::top(request, server, id).await,
        ["containers", id, "logs"] if get => streams::logs(request, server, id).await,
        ["containers", id, "changes"] if get => containers::changes(server, id).await,
        ["containers", id, "export"] if get => containers::export(server, id).await,
        ["containers", id, "stats"] if get => streams::stats(request, server, id).await,
        ["containers", id, "resize"] if post => containers::resize(request, server, id).await,
        ["containers", id, "start"] if post => containers::start(request, server, id).await,
        ["containers", id, "stop"] if post => containers::stop(request, server, id).await,
        ["containers", id, "restart"] if post => containers::restart(request, server, id).await,
        ["containers", id, "kill"] if post => containers::kill(request, server, id).await,
        ["containers", id, "update"] if post => containers::update(request, server, id).await,
        ["containers", id, "rename"] if post => containers::rename(request, server, id).await,
        ["containers", id, "pause"] if post => containers::pause(server, id).await,
        ["containers", id, "unpause"] if post => containers::unpause(server, id).await,
        ["containers", id, "attach"] if post => streams::attach(request, server, id).await,
        ["containers", id, "attach", "ws"] if get => {
            streams::attach_socket(request, server, id).await
        }
        ["containers", id, "wait"] if post => streams::wait(request, server, id).await,
        ["containers", id, "archive"] if head => {
            containers::archive_stat(request, server, id).await
        }
        ["containers", id, "archive"] if get => containers::archive_get(request, server, id).await,
        ["containers", id, "archive"] if put => containers::archive_put(request, server, id).await,
        ["containers", id, "exec"] if post => exec::create(request, server, id).await,
        ["exec", id, "start"] if post => exec::start(request, server, id).await,
        ["exec", id, "resize"] if post => exec::resize(&request, server, id).await,
        ["exec", id, "json"] if get => exec::inspect(server, id).await,

        ["commit"] if post => images::commit(request, server).await,
        ["images", "json"] if get => images::list(request, server).await,
        ["images", "create"] if post => images::create(request, server).await,
        ["images", "search"] if get => images::search(request, server).await,
        ["images", "load"] if post => images::load(request, server).await,
        ["images", "get"] if get => {
            let names = request.query().all("names");
            images::save(server, names).await
        }
        ["images", "prune"] if post => images::prune(request, server).await,
        // A name may have slashes.
        ["images", name @ .., "json"] if get => {
            images::inspect(&request, server, &name.join("/")).await
        }
        ["images", name @ .., "history"] if get => images::history(server, &name.join("/")).await,
        ["images", name @ .., "get"] if get => images::save(server, vec![name.join("/")]).await,
        ["images", name @ .., "push"] if post => {
            images::push(request, server, &name.join("/")).await
        }
        ["images", name @ .., "tag"] if post => {
            images::tag(&request, server, &name.join("/")).await
        }
        ["images", name @ ..] if delete => images::remove(&request, server, &name.join("/")).await,
        ["distribution", name @ .., "json"] if get => {
            images::distribution(request, server, &name.join("/")).await
        }

        ["volumes"] if get => volumes::list(request, server).await,
        ["volumes", "create"] if post => volumes::create(request, server).await,
        ["volumes", "prune"] if post => volumes::prune(request, server).await,
        ["volumes", name] if get => volumes::inspect(server, name).await,
        ["volumes", name] if delete => volumes::remove(&request, server, name).await,

        ["networks"] if get => networks::list(request, server).await,
        ["networks", "create"] if post => networks::create(request, server).await,
        ["networks", "prune"] if post => networks::prune(request, server).await,
        ["networks", name] if get => networks::inspect(&request, server, name).await,
        ["networks", name] if delete => networks::remove(server, name).await,
        ["networks", name, "connect"] if post => networks::connect(request, server, name).await,
        ["networks", name, "disconnect"] if post => {
            networks::disconnect(request, server, name).await
        }

        ["plugins"] if get => Ok(crate::answer::json(&[(); 0])),
        ["plugins", "pull" | "create"] if post => Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            "this engine has no plugins; name a driver that is built in",
        )),
        ["plugins", ..] => swarm::no_plugins(),
        ["volumes", _] if put => swarm::no_manager(&method, &parts),
        ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..] => {
            swarm::no_manager(&method, &parts)
        }
        ["build"] if post => builds::build(request, server).await,
        ["build", "prune"] if post => builds::prune(request, server).await,
        ["grpc"] if post => buildkit::calls(request, server),
        ["session"] if post => buildkit::none(),
        _ => Err(Failure::no_page()),
    }
}
