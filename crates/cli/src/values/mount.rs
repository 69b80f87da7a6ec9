//! `--mount` in its CSV form, `-v` in its colon form, `--tmpfs`.

use engine::types::{BindOptions, DriverConfig, Mount, TmpfsOptions, VolumeOptions};

use super::number::parse_bool;
use super::size::parse_size;

/// Splits one record of CSV; fields may be quoted.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        let mut field = String::new();
        if letters.peek() == Some(&'"') {
            letters.next();
            loop {
                match letters.next() {
                    Some('"') if letters.peek() == Some(&'"') => {
                        letters.next();
                        field.push('"');
                    }
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err(format!("a quote is not closed in {text:?}")),
                }
            }
            if !matches!(letters.peek(), None | Some(',')) {
                return Err(format!("extraneous or missing \" in quoted field of {text:?}"));
            }
        } else {
            while let Some(c) = letters.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err(format!("bare \" in non-quoted field of {text:?}"));
                }
                field.push(c);
            }
        }
        fields.push(field);
        if letters.next().is_none() {
            return Ok(fields);
        }
    }
}

fn switch(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None => Ok(true),
        Some(value) => parse_bool(value).map_err(|_| format!("invalid value for {key}: {value}")),
    }
}

/// One `--mount`.
pub(crate) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { r#type: "volume".to_owned(), ..Mount::default() };
    let mut recursive = "";
    let fields = csv(text)?;
    for field in &fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match key.as_str() {
            "readonly" | "ro" => {
                mount.read_only = switch(&key, value)?;
                continue;
            }
            "volume-nocopy" => {
                let on = switch(&key, value)?;
                volume(&mut mount).no_copy = on;
                continue;
            }
            "bind-nonrecursive" => {
                return Err("bind-nonrecursive is deprecated, use bind-recursive=disabled instead"
                    .to_owned());
            }
            _ => {}
        }
        let Some(value) = value else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        match key.as_str() {
            "type" => mount.r#type = value.to_lowercase(),
            "source" | "src" => {
                mount.source = value.to_owned();
                if value.starts_with('.')
                    && let Some(path) = absolute(value)
                {
                    mount.source = path;
                }
            }
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "consistency" => mount.consistency = value.to_lowercase(),
            "bind-propagation" => bind(&mut mount).propagation = value.to_lowercase(),
            "bind-recursive" => {
                recursive = match value {
                    "enabled" => "enabled",
                    "disabled" => "disabled",
                    "writable" => "writable",
                    "readonly" => "readonly",
                    _ => {
                        return Err(format!(
                            "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                        ));
                    }
                };
            }
            "volume-subpath" => volume(&mut mount).subpath = value.to_owned(),
            "image-subpath" => {
                return Err("image-subpath: mounts of type image are not known to this engine yet; use a volume".to_owned());
            }
            "volume-label" => {
                let (name, text) = value.split_once('=').unwrap_or((value, ""));
                volume(&mut mount).labels.insert(name.to_owned(), text.to_owned());
            }
            "volume-driver" => driver(&mut mount).name = value.to_owned(),
            "volume-opt" => {
                let (name, text) = value.split_once('=').unwrap_or((value, ""));
                driver(&mut mount).options.insert(name.to_owned(), text.to_owned());
            }
            "tmpfs-size" => {
                let size =
                    parse_size(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs(&mut mount).size_bytes = size;
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs(&mut mount).mode = mode;
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    check(&mut mount, recursive)?;
    Ok(mount)
}

fn check(mount: &mut Mount, recursive: &str) -> Result<(), String> {
    let kind = mount.r#type.clone();
    if mount.r#type.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    if mount.volume_options.is_some() && kind != "volume" {
        return Err(format!("cannot mix 'volume-*' options with mount type '{kind}'"));
    }
    if mount.bind_options.is_some() && kind != "bind" {
        return Err(format!("cannot mix 'bind-*' options with mount type '{kind}'"));
    }
    if mount.tmpfs_options.is_some() && kind != "tmpfs" {
        return Err(format!("cannot mix 'tmpfs-*' options with mount type '{kind}'"));
    }
    if !recursive.is_empty() && kind != "bind" {
        return Err(format!("cannot mix 'bind-*' options with mount type '{kind}'"));
    }
    match recursive {
        "" | "enabled" => {}
        "disabled" => bind(mount).non_recursive = true,
        _ if !mount.read_only => {
            return Err(format!(
                "option 'bind-recursive={recursive}' requires 'readonly' to be specified in conjunction"
            ));
        }
        "writable" => bind(mount).read_only_non_recursive = true,
        _ => {
            if bind(mount).propagation != "rprivate" {
                return Err("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction".to_owned());
            }
            bind(mount).read_only_force_recursive = true;
        }
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

/// A path relative to the working directory, made absolute and clean.
pub(crate) fn absolute(path: &str) -> Option<String> {
    let joined = std::env::current_dir().ok()?.join(path);
    let mut clean = std::path::PathBuf::from("/");
    for part in joined.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean.into_os_string().into_string().ok()
}

/// One `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Volume {
    /// Only a path in the container: an anonymous volume.
    Anonymous(String),
    /// With a source: a path on the host or the name of a volume.
    Bind(String),
}

const MODES: &[&str] = &[
    "ro",
    "rw",
    "z",
    "Z",
    "nocopy",
    "volume-nocopy",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "consistent",
    "cached",
    "delegated",
];

/// One `-v`: `[source:]target[:options]`.
pub(crate) fn parse_volume(text: &str) -> Result<Volume, String> {
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return Err(format!("invalid spec: {text}: too many colons"));
    }
    if parts.iter().any(|p| p.is_empty()) {
        return Err(format!("invalid spec: {text}: empty section between colons"));
    }
    let (source, target, modes) = match parts.as_slice() {
        [target] => {
            if !target.starts_with('/') {
                return Err(format!(
                    "invalid volume specification: '{text}': invalid mount config for type \"volume\": invalid mount path: '{target}' mount path must be absolute"
                ));
            }
            return Ok(Volume::Anonymous((*target).to_owned()));
        }
        [first, second]
            if !second.starts_with('/') && second.split(',').all(|m| MODES.contains(&m)) =>
        {
            // `target:ro`, an anonymous volume with options.
            return Ok(Volume::Bind(format!("{first}:{second}")));
        }
        [source, target] => (*source, *target, None),
        [source, target, modes] => (*source, *target, Some(*modes)),
        _ => return Err(format!("invalid volume specification: '{text}'")),
    };
    if !target.starts_with('/') {
        return Err(format!(
            "invalid volume specification: '{text}': invalid mount config: invalid mount path: '{target}' mount path must be absolute"
        ));
    }
    if let Some(bad) = modes.and_then(|m| m.split(',').find(|m| !MODES.contains(m))) {
        return Err(format!("invalid volume specification: '{text}': invalid mode: {bad}"));
    }
    let source = if source.starts_with('.') || source.starts_with('~') {
        let home = std::env::var("HOME").unwrap_or_default();
        let path = match source.strip_prefix('~') {
            Some(rest) => format!("{home}{rest}"),
            None => source.to_owned(),
        };
        absolute(&path).unwrap_or(path)
    } else {
        source.to_owned()
    };
    let modes = modes.map(|m| format!(":{m}")).unwrap_or_default();
    Ok(Volume::Bind(format!("{source}:{target}{modes}")))
}

/// One `--tmpfs`: `target[:options]`.
pub(crate) fn parse_tmpfs(text: &str) -> Result<(String, String), String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(format!("invalid mount path: '{target}' mount path must be absolute"));
    }
    Ok((target.to_owned(), options.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_every_type() {
        let m =
            parse_mount("type=bind,source=/a,target=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((m.r#type.as_str(), m.source.as_str(), m.target.as_str()), ("bind", "/a", "/b"));
        assert!(m.read_only);
        assert_eq!(m.bind_options.unwrap().propagation, "rslave");
        let m = parse_mount("src=v,dst=/b,volume-nocopy,volume-label=a=b,volume-opt=\"o=x,y\"");
        // A quote must open the field.
        assert!(m.is_err());
        let m = parse_mount("src=v,dst=/b,volume-nocopy=false,volume-label=a=b,\"volume-opt=o=x,y\",volume-driver=local,volume-subpath=c").unwrap();
        assert_eq!(m.r#type, "volume");
        let v = m.volume_options.unwrap();
        assert!(!v.no_copy);
        assert_eq!(v.subpath, "c");
        assert_eq!(v.driver_config.unwrap().options.get("o").map(String::as_str), Some("x,y"));
        let m = parse_mount("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770").unwrap();
        let t = m.tmpfs_options.unwrap();
        assert_eq!((t.size_bytes, t.mode), (67_108_864, 0o1770));
        let m = parse_mount("type=bind,src=/a,dst=/b,bind-recursive=disabled").unwrap();
        assert!(m.bind_options.unwrap().non_recursive);
    }

    #[test]
    fn wrong_mounts_are_named() {
        for (text, why) in [
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("type=bind,foo=1,target=/x", "unexpected key 'foo' in 'foo=1'"),
            ("type=volume", "target is required"),
            (
                "type=bind,src=/a,dst=/b,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            ("type=tmpfs,dst=/b,tmpfs-size=x", "invalid value for tmpfs-size: x"),
            ("type=bind,src=/a,dst=/b,readonly=x", "invalid value for readonly: x"),
        ] {
            assert_eq!(parse_mount(text), Err(why.to_owned()), "{text}");
        }
        assert!(parse_mount("type=bind,src=/a,dst=/b,bind-recursive=writable").is_err());
    }

    #[test]
    fn volumes() {
        assert_eq!(parse_volume("/a"), Ok(Volume::Anonymous("/a".into())));
        assert_eq!(parse_volume("v:/a:ro"), Ok(Volume::Bind("v:/a:ro".into())));
        assert_eq!(parse_volume("/x:/a"), Ok(Volume::Bind("/x:/a".into())));
        assert_eq!(
            parse_volume("/a:/b:/c:/d"),
            Err("invalid spec: /a:/b:/c:/d: too many colons".to_owned())
        );
        assert!(parse_volume("a:").is_err());
        assert!(parse_volume("/a:b").is_err());
        assert!(parse_volume("/a:/b:foo").is_err());
        assert!(parse_volume("").is_err());
        match parse_volume("./x/../y:/a") {
            Ok(Volume::Bind(text)) => assert!(text.starts_with('/') && text.ends_with("/y:/a")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tmpfs_mounts() {
        assert_eq!(parse_tmpfs("/run:size=1m,exec"), Ok(("/run".into(), "size=1m,exec".into())));
        assert!(parse_tmpfs("run").is_err());
    }
}
