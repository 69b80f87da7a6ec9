//! BuildKit's own cases for its parser and its word expander. They are read from where reference data is kept; where
//! they are not, the tests say so and pass.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::path::PathBuf;

use build::language::{expand, statement};

fn data() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/dockerfile");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no reference data at {}", path.display());
    None
}

#[test]
fn every_file_is_read_as_buildkit_reads_it() {
    let Some(data) = data() else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(data.join("testfiles")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(path.join("Dockerfile")).unwrap();
        let want = std::fs::read_to_string(path.join("result")).unwrap();
        let (_, statements) = statement::parse(&text).unwrap_or_else(|p| panic!("{path:?}: {p:?}"));
        let got: Vec<String> = statements.iter().map(|s| s.dump()).collect();
        assert_eq!(got.join("\n"), want.trim_end(), "{}", path.display());
        count += 1;
    }
    assert!(count >= 33, "only {count} cases");
}

#[test]
fn what_buildkit_refuses_is_refused() {
    let Some(data) = data() else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(data.join("testfiles-negative")).unwrap() {
        let path = entry.unwrap().path();
        let path = if path.is_dir() { path.join("Dockerfile") } else { path };
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(statement::parse(&text).is_err(), "{}", path.display());
        count += 1;
    }
    assert!(count >= 4, "only {count} cases");
}

#[test]
fn words_are_expanded_as_buildkit_expands_them() {
    let Some(data) = data() else { return };
    let variables = |name: &str| match name {
        "PWD" => Some("/home".to_owned()),
        "SHELL" => Some("bash".to_owned()),
        "KOREAN" => Some("한국어".to_owned()),
        "NULL" => Some(String::new()),
        _ => None,
    };
    let mut count = 0;
    for line in std::fs::read_to_string(data.join("envVarTest")).unwrap().lines() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.split('|');
        let (platform, input, want) = (
            parts.next().unwrap(),
            parts.next().unwrap().trim(),
            parts.next().unwrap_or("").trim(),
        );
        if platform == "W" {
            continue;
        }
        let got = expand::word(input, '\\', &variables);
        match want {
            "error" => assert!(got.is_err(), "{line}: {got:?}"),
            want => assert_eq!(got.as_deref(), Ok(want), "{line}"),
        }
        count += 1;
    }
    assert!(count > 180, "only {count} cases");
}
