//! `-e`, `--env-file`, `-l`, `--label-file`: lists of `name=value`.

use std::collections::BTreeMap;

/// The value of a variable in the caller's environment.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Lines of a file: comments and empty lines left out.
fn lines(path: &str, what: &str) -> Result<Vec<String>, String> {
    let bytes = std::fs::read(path).map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => e.to_string(),
        };
        format!("open {path}: {why}")
    })?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{what} {path} is not valid UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut kept = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}' of {path}"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' of {path} contains whitespaces"));
        }
        kept.push(line.to_owned());
    }
    Ok(kept)
}

/// The environment of a container: files first, then `-e`, later ones last.
pub(crate) fn environment(
    files: &[String],
    given: &[String],
    lookup: Lookup<'_>,
) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file, "environment file")? {
            match line.contains('=') {
                true => all.push(line),
                false => {
                    if let Some(value) = lookup(line.trim_end()) {
                        all.push(format!("{}={value}", line.trim_end()));
                    }
                }
            }
        }
    }
    for entry in given {
        match entry.contains('=') {
            true => all.push(entry.clone()),
            // A name the caller has not either takes the image's variable away.
            false => match lookup(entry) {
                Some(value) => all.push(format!("{entry}={value}")),
                None => all.push(entry.clone()),
            },
        }
    }
    Ok(all)
}

/// One `-e`.
pub(crate) fn check_env(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    if text.contains('\0') {
        return Err("an environment variable can't hold a NUL character".to_owned());
    }
    Ok(text.to_owned())
}

/// Labels: files first, then `-l`.
pub(crate) fn labels(
    files: &[String],
    given: &[String],
) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for file in files {
        for line in lines(file, "label file")? {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    all.extend(pairs(given));
    Ok(all)
}

/// `name=value` entries as a map; without `=` the value is empty.
pub(crate) fn pairs(given: &[String]) -> BTreeMap<String, String> {
    given
        .iter()
        .map(|entry| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// One `-l`.
pub(crate) fn check_label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_take_the_callers_value() {
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let given = ["A=1".to_owned(), "HOME".to_owned(), "GONE".to_owned()];
        assert_eq!(
            environment(&[], &given, &lookup),
            Ok(vec!["A=1".to_owned(), "HOME=/root".to_owned(), "GONE".to_owned()])
        );
    }

    #[test]
    fn files_are_read_before_options() {
        let dir = std::env::temp_dir().join(format!("wherry-env-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("env");
        std::fs::write(&file, "# comment\n\nA=from file\n  B=2\nHOME\nGONE\n").unwrap();
        let bad = dir.join("bad");
        std::fs::write(&bad, "A B=1\n").unwrap();
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let path = file.to_string_lossy().into_owned();
        let got = environment(std::slice::from_ref(&path), &["A=2".to_owned()], &lookup).unwrap();
        assert_eq!(got, ["A=from file", "B=2", "HOME=/root", "A=2"]);
        assert!(environment(&[bad.to_string_lossy().into_owned()], &[], &lookup).is_err());
        let labels = labels(&[path], &["B=3".to_owned()]).unwrap();
        assert_eq!(labels.get("B").map(String::as_str), Some("3"));
        assert_eq!(labels.get("HOME").map(String::as_str), Some(""));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        assert_eq!(
            environment(&["/nonexist".to_owned()], &[], &|_| None),
            Err("open /nonexist: no such file or directory".to_owned())
        );
    }

    #[test]
    fn names_must_not_be_empty() {
        assert!(check_env("=x").is_err());
        assert!(check_env("A").is_ok());
        assert!(check_label("").is_err());
    }
}
