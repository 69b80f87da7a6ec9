//! Words with variables, quotes, escapes and patterns.
#![no_main]

use build::language::expand;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let variables = |name: &str| match name {
        "A" => Some("/a/b.c.d".to_owned()),
        "E" => Some(String::new()),
        "S" => Some("one two".to_owned()),
        _ => None,
    };
    for escape in ['\\', '`'] {
        let word = expand::word(text, escape, &variables);
        let words = expand::words(text, escape, &variables);
        assert_eq!(word.is_ok(), words.is_ok(), "{text:?}");
        let _ = expand::names(text, escape);
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/.:_-=".contains(c));
        if plain {
            assert_eq!(word.as_deref(), Ok(text));
        }
    }
});
