//! Names from outside may hold terminal escapes; these never reach a terminal.

use std::borrow::Cow;

fn is_harmful(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// The text with every control character but newline and tab made visible.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_become_visible() {
        assert_eq!(super::text("a\x1b[2Jb\u{9b}c\td\n"), "a\\u{1b}[2Jb\\u{9b}c\td\n");
        assert_eq!(super::text("grüß dich"), "grüß dich");
    }
}
