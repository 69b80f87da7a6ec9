//! `.dockerignore`: the first line is a path, the rest are patterns.
#![no_main]

use build::language::dockerignore::Ignore;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (path, patterns) = text.split_once('\n').unwrap_or(("a/b", text));
    let Ok(ignore) = Ignore::parse(patterns) else { return };
    let out = ignore.matches_alone(path);
    // Without patterns nothing is left out; and what an exception names alone is never left out.
    if ignore.is_empty() {
        assert!(!out);
    }
    if ignore.texts().all(|text| text.starts_with('!')) {
        assert!(!out, "{patterns:?} {path:?}");
    }
    // What is left out stays out, if nothing is taken in again.
    if out && !ignore.has_exceptions() && !path.is_empty() {
        assert!(ignore.matches_alone(&format!("{path}/below")), "{patterns:?} {path:?}");
    }
});
