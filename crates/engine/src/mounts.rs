//! Mounts: from what was asked for (`-v`, `--mount`, `--tmpfs`, `--volumes-from`, the
//! image's volumes) to one list, each destination once, parents before children.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::record::{PlannedMount, Record};
use crate::types::{
    BindOptions, Config, DriverConfig, HostConfig, Mount, MountPoint, VolumeOptions,
};

/// Options of `-v` that say something about propagation.
const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Makes an absolute path plain: no `.`, no `..`, no double or trailing slash.
pub(crate) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A name a volume may have.
pub(crate) fn is_volume_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Reads `source:destination[:options]` or `destination`.
pub(crate) fn parse_bind(bind: &str, driver: &str) -> Result<PlannedMount> {
    let invalid =
        |why: &str| Error::invalid(format!("invalid volume specification: '{bind}': {why}"));
    let parts: Vec<&str> = bind.split(':').collect();
    let (source, destination, options) = match *parts.as_slice() {
        [destination] => ("", destination, ""),
        [source, destination] if destination.starts_with('/') => (source, destination, ""),
        [destination, options] if destination.starts_with('/') => ("", destination, options),
        [source, destination, options] => (source, destination, options),
        _ => return Err(invalid("expected source:destination[:options]")),
    };
    if !destination.starts_with('/') {
        return Err(invalid(&format!("mount path must be absolute: '{destination}'")));
    }
    let destination = clean(destination);
    if destination == Path::new("/") {
        return Err(invalid("destination can't be '/'"));
    }
    let is_path = source.starts_with('/');
    if parts.len() > 1 && source.is_empty() {
        return Err(invalid("empty section between colons"));
    }
    if !is_path && !source.is_empty() && !is_volume_name(source) {
        return Err(Error::invalid(format!(
            "\"{source}\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, \
             use absolute path"
        )));
    }
    let mut mount = Mount {
        r#type: if is_path { "bind" } else { "volume" }.into(),
        source: if is_path { text(&clean(source)) } else { source.into() },
        target: text(&destination),
        ..Mount::default()
    };
    let mut propagation = "";
    let mut no_copy = false;
    let mut kept = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" | "readonly" => mount.read_only = true,
            "rw" => mount.read_only = false,
            // Labels for SELinux; nothing to do where it is not active.
            "z" | "Z" => {}
            "nocopy" if !is_path => no_copy = true,
            "copy" if !is_path => {}
            "consistent" | "cached" | "delegated" => {}
            p if is_path && PROPAGATION.contains(&p) => propagation = p,
            _ => return Err(invalid(&format!("invalid mode: {options}"))),
        }
        kept.push(option.to_owned());
    }
    if is_path {
        mount.bind_options = Some(BindOptions {
            propagation: propagation.into(),
            create_mountpoint: true,
            ..BindOptions::default()
        });
    } else {
        let driver_config = (!driver.is_empty())
            .then(|| DriverConfig { name: driver.into(), options: BTreeMap::new() });
        mount.volume_options =
            Some(VolumeOptions { no_copy, driver_config, ..VolumeOptions::default() });
    }
    Ok(plan(mount, kept))
}

/// Completes a mount with what `inspect` shows of it.
fn plan(mount: Mount, options: Vec<String>) -> PlannedMount {
    let propagation = match &mount.bind_options {
        Some(bind) if !bind.propagation.is_empty() => bind.propagation.clone(),
        Some(_) => "rprivate".into(),
        None if mount.r#type == "bind" => "rprivate".into(),
        None => String::new(),
    };
    let point = MountPoint {
        r#type: mount.r#type.clone(),
        name: if mount.r#type == "volume" { mount.source.clone() } else { String::new() },
        source: if mount.r#type == "bind" { mount.source.clone() } else { String::new() },
        destination: mount.target.clone(),
        driver: if mount.r#type == "volume" { "local".into() } else { String::new() },
        mode: options.join(","),
        rw: !mount.read_only,
        propagation,
    };
    let anonymous = mount.r#type == "volume" && mount.source.is_empty();
    PlannedMount { mount, point, options, anonymous }
}

/// Checks and completes a `--mount`.
fn long_form(mount: &Mount) -> Result<PlannedMount> {
    let invalid = |why: String| {
        Error::invalid(format!("invalid mount config for type \"{}\": {why}", mount.r#type))
    };
    let mut mount = mount.clone();
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty".into()));
    }
    if !mount.target.starts_with('/') {
        return Err(invalid(format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.target
        )));
    }
    let target = clean(&mount.target);
    if target == Path::new("/") {
        return Err(invalid("invalid specification: destination can't be '/'".into()));
    }
    mount.target = text(&target);
    match mount.r#type.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(invalid("field Source must not be empty".into()));
            }
            if !mount.source.starts_with('/') {
                return Err(invalid(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            if mount.volume_options.is_some() {
                return Err(invalid("field VolumeOptions must not be specified".into()));
            }
            mount.source = text(&clean(&mount.source));
            let creates = mount.bind_options.as_ref().is_some_and(|b| b.create_mountpoint);
            if let Some(p) = mount.bind_options.as_ref().map(|b| b.propagation.as_str())
                && !p.is_empty()
                && !PROPAGATION.contains(&p)
            {
                return Err(invalid(format!("invalid propagation mode: {p}")));
            }
            if !creates && !Path::new(&mount.source).exists() {
                return Err(invalid(format!("bind source path does not exist: {}", mount.source)));
            }
        }
        "volume" => {
            if mount.bind_options.is_some() {
                return Err(invalid("field BindOptions must not be specified".into()));
            }
            let part = mount.volume_options.as_ref().map_or("", |v| v.subpath.as_str());
            let leads_out = |c| !matches!(c, Component::Normal(_) | Component::CurDir);
            if Path::new(part).components().any(leads_out) {
                return Err(invalid(format!(
                    "subpath {part:?} must be a relative path within the volume"
                )));
            }
            if !mount.source.is_empty() && !is_volume_name(&mount.source) {
                return Err(invalid(format!(
                    "\"{}\" includes invalid characters for a local volume name, only \
                     \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed",
                    mount.source
                )));
            }
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(invalid("field Source must not be specified".into()));
            }
        }
        "" => return Err(Error::invalid("mount type is missing: give type=bind, volume or tmpfs")),
        other => {
            return Err(Error::invalid(format!(
                "mount type {other} is not supported: use bind, volume or tmpfs"
            )));
        }
    }
    Ok(plan(mount, Vec::new()))
}

/// The one list of a new container's mounts. `others` finds containers for
/// `--volumes-from`; `image_volumes` are the destinations the image declares.
pub(crate) fn collect<'a>(
    config: &'a Config,
    host: &HostConfig,
    image_volumes: impl Iterator<Item = &'a str>,
    others: impl Fn(&str) -> Result<Record>,
) -> Result<Vec<PlannedMount>> {
    let mut list: BTreeMap<String, PlannedMount> = BTreeMap::new();
    for spec in host.volumes_from.iter().flatten() {
        let (name, mode) = spec.split_once(':').unwrap_or((spec, ""));
        if !matches!(mode, "" | "ro" | "rw" | "z" | "Z") {
            return Err(Error::invalid(format!(
                "invalid mode in --volumes-from {spec}: use ro or rw"
            )));
        }
        for mount in others(name)?.definition.mounts {
            if mount.mount.r#type == "tmpfs" {
                continue;
            }
            let mut mount = mount;
            if mode == "ro" {
                mount.mount.read_only = true;
                mount.point.rw = false;
            }
            mount.anonymous = false;
            list.insert(mount.mount.target.clone(), mount);
        }
    }
    let mut asked: BTreeMap<String, PlannedMount> = BTreeMap::new();
    let mut ask = |mount: PlannedMount| -> Result<()> {
        let target = mount.mount.target.clone();
        match asked.insert(target.clone(), mount) {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("Duplicate mount point: {target}"))),
        }
    };
    for bind in host.binds.iter().flatten() {
        ask(parse_bind(bind, &host.volume_driver)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        ask(long_form(mount)?)?;
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        if !target.starts_with('/') {
            return Err(Error::invalid(format!(
                "invalid mount path: '{target}' mount path must be absolute"
            )));
        }
        let mount =
            Mount { r#type: "tmpfs".into(), target: text(&clean(target)), ..Mount::default() };
        let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
        ask(plan(mount, options))?;
    }
    list.extend(asked);
    let declared = config.volumes.iter().flatten().map(|(path, _)| path.as_str());
    for target in image_volumes.chain(declared) {
        if !target.starts_with('/') {
            return Err(Error::invalid(format!(
                "invalid volume path: '{target}' must be absolute"
            )));
        }
        let target = text(&clean(target));
        list.entry(target.clone()).or_insert_with(|| {
            plan(Mount { r#type: "volume".into(), target, ..Mount::default() }, Vec::new())
        });
    }
    // A BTreeMap of paths has parents before their children.
    Ok(list.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn short_forms() {
        let m = parse_bind("/a/../b:/c/:ro,rslave", "").unwrap();
        assert_eq!((m.mount.source.as_str(), m.mount.target.as_str()), ("/b", "/c"));
        assert!(m.mount.read_only && m.mount.r#type == "bind");
        assert_eq!(m.point.propagation, "rslave");
        let m = parse_bind("data:/d:nocopy", "").unwrap();
        assert!(m.mount.volume_options.unwrap().no_copy);
        assert!(parse_bind("/d", "").unwrap().anonymous);
        for bad in
            ["a:b", ":/x", "/a:/", "a b:/x", "/a:/b:bogus", "data:/x:rshared", "/a:/b:ro:x", ""]
        {
            assert_eq!(parse_bind(bad, "").unwrap_err().kind, ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_destination_given_twice_is_refused() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".into(), "/b:/x/".into()]),
            ..HostConfig::default()
        };
        let e = collect(&Config::default(), &host, std::iter::empty(), |_| unreachable!());
        assert_eq!(e.unwrap_err().message, "Duplicate mount point: /x");
    }

    #[test]
    fn what_was_asked_for_hides_what_the_image_declares() {
        let host = HostConfig { binds: Some(vec!["/a:/v".into()]), ..HostConfig::default() };
        let image = ["/v", "/w"];
        let list =
            collect(&Config::default(), &host, image.into_iter(), |_| unreachable!()).unwrap();
        let kinds: Vec<_> =
            list.iter().map(|m| (m.mount.target.as_str(), m.mount.r#type.as_str())).collect();
        assert_eq!(kinds, [("/v", "bind"), ("/w", "volume")]);
    }
}
