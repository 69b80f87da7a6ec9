//! Images.

use std::io::{Read, Write};

use base64::Engine as _;
use engine::types::{HistoryEntry, ImageDelete, ImageInspect, ImageSummary, ImagesPruned};
use engine::{
    ArchiveFormat, Detail, Error, ErrorKind, Filters, ImportOptions, Message, PullOptions,
    PushOptions, Result, Transfer,
};
use serde::{Deserialize, Serialize};

use crate::http::{Body, Payload};
use crate::remote::{Query, Remote, part};

/// Who one is to a registry; what the engine is sent so that it can log in.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Auth {
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// A token instead of both.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// For which registry.
    pub serveraddress: String,
}

/// One line of progress.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Line {
    status: String,
    id: Option<String>,
    stream: String,
    error: String,
    progress_detail: Progress,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Progress {
    current: Option<i64>,
    total: Option<i64>,
}

/// Name and tag (or digest) of a reference.
pub(crate) fn split_tag(reference: &str) -> (&str, Option<&str>) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (name, Some(digest));
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (reference, None),
    }
}

fn image(name: &str, rest: &str) -> String {
    format!("/images/{}{rest}", part(name))
}

impl Auth {
    fn header(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        base64::engine::general_purpose::URL_SAFE.encode(json)
    }
}

impl Remote {
    /// See [`engine::Engine::images`].
    pub fn images(&self, all: bool, filters: &Filters) -> Result<Vec<ImageSummary>> {
        self.get("/images/json", Query::new().flag("all", all).filters(filters))
    }

    /// See [`engine::Engine::inspect_image`].
    pub fn inspect_image(&self, name: &str) -> Result<ImageInspect> {
        self.get(&image(name, "/json"), Query::new())
    }

    /// See [`engine::Engine::has_image`].
    pub fn has_image(&self, name: &str, platform: Option<&str>) -> Result<bool> {
        match self.inspect_image(name) {
            Ok(found) => {
                let own = format!("{}/{}/{}", found.os, found.architecture, found.variant);
                Ok(platform.is_none_or(|wanted| own.starts_with(wanted)))
            }
            Err(e) if e.kind == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// See [`engine::Engine::history`].
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        self.get(&image(name, "/history"), Query::new())
    }

    /// See [`engine::Engine::tag`].
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let (repo, tag) = split_tag(target);
        let query = Query::new().text("repo", repo).option("tag", tag);
        self.done("POST", &image(source, "/tag"), query)
    }

    /// See [`engine::Engine::remove_image`].
    pub fn remove_image(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<ImageDelete>> {
        let query = Query::new().flag("force", force).flag("noprune", no_prune);
        self.json("DELETE", &image(name, ""), query, Payload::Nothing)
    }

    /// See [`engine::Engine::prune_images`].
    pub fn prune_images(
        &self,
        all: bool,
        filters: &Filters,
        keep_storage: Option<u64>,
    ) -> Result<ImagesPruned> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct Gone {
            images_deleted: Vec<ImageDelete>,
            space_reclaimed: u64,
        }
        if keep_storage.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "--keep-storage is not part of the Docker API: an engine elsewhere can't be told",
            ));
        }
        let mut filters = filters.clone();
        if all {
            filters.insert("dangling".into(), vec!["false".into()]);
        }
        let query = Query::new().filters(&filters);
        let gone: Gone = self.json("POST", "/images/prune", query, Payload::Nothing)?;
        Ok(ImagesPruned { deleted: gone.images_deleted, space_reclaimed: gone.space_reclaimed })
    }

    /// See [`engine::Engine::save`].
    pub fn save(&self, names: &[String], format: ArchiveFormat, out: &mut dyn Write) -> Result<()> {
        if format != ArchiveFormat::Docker {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the Docker API has one form of archive: leave --format out for an engine elsewhere",
            ));
        }
        let query = names.iter().fold(Query::new(), |query, name| query.text("names", name));
        let (_, body) = self.ask("GET", "/images/get", query, &[], Payload::Nothing)?;
        self.copy_body(body, out)
    }

    /// Passes lines of progress on; a line that is an error is one. The last text that is no progress.
    fn progress(&self, body: Body, progress: &mut dyn Transfer) -> Result<Vec<String>> {
        let mut said = Vec::new();
        self.lines(body, &mut |line: Line| {
            if !line.error.is_empty() {
                return Err(Error::new(ErrorKind::System, line.error));
            }
            if !line.stream.is_empty() {
                said.push(line.stream);
            }
            if line.status.is_empty() {
                return Ok(true);
            }
            let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
            let detail = number(line.progress_detail.current)
                .zip(number(line.progress_detail.total))
                .filter(|(_, total)| *total > 0)
                .map(|(current, total)| Detail { current, total });
            if line.id.is_none() {
                said.push(line.status.clone());
            }
            progress.report(Message { status: line.status, progress_detail: detail, id: line.id });
            Ok(true)
        })?;
        Ok(said)
    }

    /// As [`engine::Engine::load`]: ids that have no name, and names.
    pub fn load(&self, archive: &mut dyn Read) -> Result<Vec<(String, Vec<String>)>> {
        let query = Query::new().text("quiet", "1");
        let (_, body) = self.ask("POST", "/images/load", query, &[], Payload::Tar(archive))?;
        let said = self.progress(body, &mut ())?;
        let mut loaded = Vec::new();
        for line in said.iter().flat_map(|text| text.lines()) {
            if let Some(id) = line.strip_prefix("Loaded image ID: ") {
                loaded.push((id.to_owned(), Vec::new()));
            } else if let Some(name) = line.strip_prefix("Loaded image: ") {
                loaded.push((String::new(), vec![name.to_owned()]));
            }
        }
        Ok(loaded)
    }

    /// Has an image built of the archive of a context, or of what the parameter `remote` names; its ID. `parameters` are those of
    /// `POST /build`, `auths` what is known for the registries of base images. `say` hears what the builder prints.
    ///
    /// # Errors
    /// A build that failed, with the exit code of the command that did; those of the connection.
    pub fn build(
        &self,
        parameters: &[(&str, String)],
        auths: &[Auth],
        archive: Option<&mut dyn Read>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<String>> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Said {
            status: String,
            id: Option<String>,
            stream: String,
            error: String,
            aux: Aux,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Aux {
            #[serde(rename = "ID")]
            id: Option<String>,
        }
        let mut query = Query::new();
        for (name, value) in parameters {
            query = query.text(name, value);
        }
        let known: std::collections::BTreeMap<&str, &Auth> =
            auths.iter().map(|auth| (auth.serveraddress.as_str(), auth)).collect();
        let json = serde_json::to_vec(&known).unwrap_or_default();
        let header = base64::engine::general_purpose::URL_SAFE.encode(json);
        let headers = [("X-Registry-Config", header.as_str())];
        let payload = archive.map_or(Payload::Nothing, Payload::Tar);
        let (_, body) = self.ask("POST", "/build", query, &headers, payload)?;
        let mut id = None;
        let mut told = std::collections::BTreeSet::new();
        self.lines(body, &mut |said: Said| {
            if !said.error.is_empty() {
                return Err(Error::new(ErrorKind::System, said.error));
            }
            if let Some(found) = said.aux.id {
                id = Some(found);
            } else if let Some(found) = said.stream.strip_prefix("Successfully built ") {
                id.get_or_insert_with(|| found.trim().to_owned());
            }
            if !said.stream.is_empty() {
                say(&said.stream);
            }
            // What a pull says of a layer again and again is said once.
            let status = format!("{} {}", said.id.unwrap_or_default(), said.status);
            if !said.status.is_empty() && told.insert(status.clone()) {
                say(&format!("{}\n", status.trim()));
            }
            Ok(true)
        })?;
        Ok(id)
    }

    /// See [`engine::Engine::import`].
    pub fn import(&self, tar: &mut dyn Read, options: ImportOptions) -> Result<String> {
        self.import_from("-", &options, Payload::Tar(tar))
    }

    /// See [`engine::Engine::import_url`].
    pub fn import_url(&self, url: &str, options: &ImportOptions) -> Result<String> {
        self.import_from(url, options, Payload::Nothing)
    }

    fn import_from(
        &self,
        source: &str,
        options: &ImportOptions,
        payload: Payload<'_>,
    ) -> Result<String> {
        let (repo, tag) = split_tag(options.reference.as_deref().unwrap_or_default());
        let mut query = Query::new()
            .text("fromSrc", source)
            .option("repo", Some(repo))
            .option("tag", tag)
            .option("message", Some(&options.message))
            .option("platform", options.platform.as_deref());
        for change in &options.changes {
            query = query.text("changes", change);
        }
        let (_, body) = self.ask("POST", "/images/create", query, &[], payload)?;
        let said = self.progress(body, &mut ())?;
        said.into_iter()
            .next_back()
            .ok_or_else(|| Error::system("import", "the engine did not say which image it made"))
    }

    /// See [`engine::Engine::pull`].
    pub fn pull(
        &self,
        auth: Option<&Auth>,
        options: &PullOptions,
        progress: &mut dyn Transfer,
    ) -> Result<()> {
        if options.all_platforms {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "--all-platforms is not part of the Docker API: an engine elsewhere can't be told",
            ));
        }
        let (name, tag) = split_tag(&options.reference);
        let tag = if options.all_tags { None } else { Some(tag.unwrap_or("latest")) };
        let query = Query::new()
            .text("fromImage", name)
            .option("tag", tag)
            .option("platform", options.platform.as_deref());
        let header = auth.map(Auth::header);
        let headers: Vec<_> =
            header.as_deref().map(|value| ("X-Registry-Auth", value)).into_iter().collect();
        let (_, body) = self.ask("POST", "/images/create", query, &headers, Payload::Nothing)?;
        self.progress(body, progress).map(drop)
    }

    /// See [`engine::Engine::push`].
    pub fn push(
        &self,
        auth: Option<&Auth>,
        options: &PushOptions,
        progress: &mut dyn Transfer,
    ) -> Result<()> {
        let (name, tag) = split_tag(&options.reference);
        let tag = if options.all_tags { None } else { Some(tag.unwrap_or("latest")) };
        let query = Query::new().option("tag", tag).option("platform", options.platform.as_deref());
        // The API wants the header even where there is nothing to say.
        let header = auth.cloned().unwrap_or_default().header();
        let headers = [("X-Registry-Auth", header.as_str())];
        let (_, body) =
            self.ask("POST", &image(name, "/push"), query, &headers, Payload::Nothing)?;
        self.progress(body, progress).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags() {
        assert_eq!(split_tag("a"), ("a", None));
        assert_eq!(split_tag("h:5000/a"), ("h:5000/a", None));
        assert_eq!(split_tag("h:5000/a:b"), ("h:5000/a", Some("b")));
        assert_eq!(split_tag("a@sha256:0"), ("a", Some("sha256:0")));
    }
}
