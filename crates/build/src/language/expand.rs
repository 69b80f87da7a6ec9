//! Variables, quotes and escapes in the arguments of instructions, by the rules of BuildKit's word expander: what a shell does,
//! without globbing, splitting or commands.

use super::glob::{self, Piece};
use super::words::Cursor;

/// Where values come from.
pub trait Variables {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// White space of the language.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// A word with its variables replaced, quotes and escapes resolved.
///
/// # Errors
/// Quotes and braces that do not end; modifiers that are none; `${x:?}` of a variable that is not set.
pub fn word(text: &str, escape: char, variables: &dyn Variables) -> Result<String, String> {
    let mut expander = Expander::new(text, escape, variables);
    expander.until(None, false)?;
    Ok(expander.out)
}

/// As [`word`], but split at white space that is not quoted, also at what comes out of variables.
///
/// # Errors
/// As [`word`].
pub fn words(text: &str, escape: char, variables: &dyn Variables) -> Result<Vec<String>, String> {
    let mut expander = Expander::new(text, escape, variables);
    expander.words = Some(Words::default());
    expander.until(None, false)?;
    let words = expander.words.take().unwrap_or_default();
    Ok(words.finish())
}

/// The names of the variables that a word reads, also within modifiers, whether they are set or not.
///
/// # Errors
/// As [`word`].
pub fn names(text: &str, escape: char) -> Result<Vec<String>, String> {
    let seen = std::cell::RefCell::new(Vec::new());
    let note = |name: &str| {
        seen.borrow_mut().push(name.to_owned());
        Some("x".to_owned())
    };
    word(text, escape, &note)?;
    Ok(seen.into_inner())
}

/// Words with their quotes and escapes as they are: for finding here-documents.
pub(crate) fn raw_words(text: &str, escape: char) -> Vec<String> {
    super::words::split(text, escape)
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    open: Option<String>,
}

impl Words {
    fn push(&mut self, c: char, quoted: bool) {
        if !quoted && is_space(c) {
            self.done.extend(self.open.take());
        } else {
            self.open.get_or_insert_default().push(c);
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.done.extend(self.open.take());
        self.done
    }
}

struct Expander<'a> {
    cursor: Cursor,
    escape: char,
    variables: &'a dyn Variables,
    out: String,
    words: Option<Words>,
    depth: usize,
}

/// How deep `${a:-${b:-…}}` may be.
const DEEPEST: usize = 64;

impl<'a> Expander<'a> {
    fn new(text: &str, escape: char, variables: &'a dyn Variables) -> Self {
        let cursor = Cursor::new(text);
        Self { cursor, escape, variables, out: String::new(), words: None, depth: 0 }
    }

    fn put(&mut self, c: char, quoted: bool) {
        self.out.push(c);
        if self.depth == 0
            && let Some(words) = &mut self.words
        {
            words.push(c, quoted);
        }
    }

    fn put_all(&mut self, text: &str, quoted: bool) {
        for c in text.chars() {
            self.put(c, quoted);
        }
    }

    /// An empty pair of quotes is a word.
    fn begin_word(&mut self) {
        if self.depth == 0
            && let Some(words) = &mut self.words
        {
            words.open.get_or_insert_default();
        }
    }

    /// Up to `stop`, which is taken, or to the end. With `raw` escapes and quotes stay for whom reads on.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<(), String> {
        while let Some(c) = self.cursor.next() {
            if Some(c) == stop {
                return Ok(());
            }
            match c {
                '\'' => self.single(raw)?,
                '"' => self.double(raw)?,
                '$' => {
                    let value = self.dollar()?;
                    self.put_all(&value, false);
                }
                c if c == self.escape => {
                    if raw {
                        self.put(c, true);
                    }
                    // At the very end there is nothing to escape.
                    if let Some(next) = self.cursor.next() {
                        self.put(next, true);
                    }
                }
                c => self.put(c, false),
            }
        }
        match stop {
            Some(stop) => {
                Err(format!("unexpected end of statement while looking for matching {stop}"))
            }
            None => Ok(()),
        }
    }

    fn single(&mut self, _raw: bool) -> Result<(), String> {
        self.begin_word();
        loop {
            match self.cursor.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote"
                            .into(),
                    );
                }
                Some('\'') => return Ok(()),
                Some(c) => self.put(c, true),
            }
        }
    }

    fn double(&mut self, raw: bool) -> Result<(), String> {
        let open =
            || "unexpected end of statement while looking for matching double-quote".to_owned();
        self.begin_word();
        loop {
            match self.cursor.next().ok_or_else(open)? {
                '"' => return Ok(()),
                '$' => {
                    let value = self.dollar()?;
                    self.put_all(&value, true);
                }
                c if c == self.escape => {
                    let next = self.cursor.next().ok_or_else(open)?;
                    // It takes the meaning of these only; before others it is itself.
                    if raw || !(next == '"' || next == '$' || next == self.escape) {
                        self.put(c, true);
                    }
                    self.put(next, true);
                }
                c => self.put(c, true),
            }
        }
    }

    /// The text of a part, expanded, without putting it anywhere.
    fn part(&mut self, stop: char, raw: bool) -> Result<String, String> {
        if self.depth >= DEEPEST {
            return Err("substitutions are nested too deeply".into());
        }
        self.depth = self.depth.saturating_add(1);
        let outer = std::mem::take(&mut self.out);
        let result = self.until(Some(stop), raw);
        let text = std::mem::replace(&mut self.out, outer);
        self.depth = self.depth.saturating_sub(1);
        result.map(|()| text)
    }

    fn dollar(&mut self) -> Result<String, String> {
        if self.cursor.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                self.variables.get(&name).unwrap_or_default()
            });
        }
        self.cursor.next();
        match self.cursor.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        let mut modifier = self.cursor.next().ok_or("syntax error: missing '}'")?;
        let mut shown = modifier.to_string();
        let mut or_empty = false;
        if modifier == '}' {
            if name.is_empty() {
                return Err("syntax error: bad substitution".into());
            }
            return Ok(self.variables.get(&name).unwrap_or_default());
        }
        if modifier == ':' {
            or_empty = true;
            modifier = self.cursor.next().ok_or("syntax error: missing '}'")?;
            shown.push(modifier);
        }
        let unsupported = || format!("unsupported modifier ({shown}) in substitution");
        if name.is_empty() {
            return Err(unsupported());
        }
        let value = self.variables.get(&name);
        let missing = value.is_none() || or_empty && value.as_deref() == Some("");
        match modifier {
            '-' | '+' | '?' => {
                let word = self.part('}', false)?;
                match modifier {
                    '-' if missing => Ok(word),
                    '-' => Ok(value.unwrap_or_default()),
                    '+' if missing => Ok(String::new()),
                    '+' => Ok(word),
                    _ if !missing => Ok(value.unwrap_or_default()),
                    _ if !word.is_empty() => Err(format!("{name}: {word}")),
                    _ if value.is_none() => Err(format!("{name}: is not allowed to be unset")),
                    _ => Err(format!("{name}: is not allowed to be empty")),
                }
            }
            '#' | '%' if !or_empty => {
                let word = self.part('}', true)?;
                let (longest, pattern) = match word.strip_prefix(modifier) {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                let pattern = shell_pattern(pattern)?;
                let value = value.unwrap_or_default();
                Ok(if modifier == '#' {
                    without_prefix(&pattern, &value, longest)
                } else {
                    without_suffix(&pattern, &value, longest)
                })
            }
            '/' if !or_empty => {
                let all = self.cursor.peek() == Some('/');
                if all {
                    self.cursor.next();
                }
                let pattern = shell_pattern(&self.part('/', true)?)?;
                let replacement = self.part('}', true)?;
                Ok(replace(&pattern, &value.unwrap_or_default(), &replacement, all))
            }
            _ => Err(unsupported()),
        }
    }

    /// The name of a variable; digits only, or one special character, which are never set.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.cursor.peek() {
            if name.is_empty() && c.is_ascii_digit() {
                while let Some(c) = self.cursor.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.cursor.next();
                }
                return name;
            }
            if name.is_empty() && matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                self.cursor.next();
                return c.to_string();
            }
            if !(c.is_alphanumeric() || c == '_') {
                break;
            }
            name.push(c);
            self.cursor.next();
        }
        name
    }
}

/// `*` and `?`; a backslash takes their meaning.
fn shell_pattern(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '*' => Piece::Many { within: false },
            '?' => Piece::One { within: false },
            '\\' => Piece::Literal(
                chars.next().ok_or_else(|| format!("the pattern {text:?} ends with an escape"))?,
            ),
            c => Piece::Literal(c),
        });
    }
    Ok(pieces)
}

fn cut(pattern: &[Piece], text: &[char], longest: bool) -> Option<usize> {
    let ends = glob::ends(pattern, text);
    let mut found = ends.iter().enumerate().filter(|(_, hit)| **hit).map(|(at, _)| at);
    if longest { found.next_back() } else { found.next() }
}

fn without_prefix(pattern: &[Piece], value: &str, longest: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let at = cut(pattern, &chars, longest).unwrap_or(0);
    chars.get(at..).unwrap_or_default().iter().collect()
}

fn without_suffix(pattern: &[Piece], value: &str, longest: bool) -> String {
    // Read backwards it is a prefix.
    let chars: Vec<char> = value.chars().rev().collect();
    let pattern: Vec<Piece> = pattern.iter().rev().cloned().collect();
    let at = cut(&pattern, &chars, longest).unwrap_or(0);
    chars.get(at..).unwrap_or_default().iter().rev().collect()
}

fn replace(pattern: &[Piece], value: &str, replacement: &str, all: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let mut out = String::new();
    let mut at = 0usize;
    let mut replaced = false;
    while at < chars.len() {
        let rest = chars.get(at..).unwrap_or_default();
        let hit = (all || !replaced).then(|| cut(pattern, rest, true)).flatten().filter(|n| *n > 0);
        match hit {
            Some(length) => {
                out.push_str(replacement);
                at = at.saturating_add(length);
                replaced = true;
            }
            None => {
                out.extend(rest.first());
                at = at.saturating_add(1);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "A" => Some("one two".into()),
            "P" => Some("/usr/lib/libx.so.1.2".into()),
            "E" => Some(String::new()),
            "S" => Some("a*b".into()),
            _ => None,
        }
    }

    #[test]
    fn patterns_cut_and_replace() {
        let cases = [
            ("${P#*/}", "usr/lib/libx.so.1.2"),
            ("${P##*/}", "libx.so.1.2"),
            ("${P%.*}", "/usr/lib/libx.so.1"),
            ("${P%%.*}", "/usr/lib/libx"),
            ("${P/lib/LIB}", "/usr/LIB/libx.so.1.2"),
            ("${P//lib/L}", "/usr/L/Lx.so.1.2"),
            ("${P//\\//-}", "-usr-lib-libx.so.1.2"),
            ("${P#x}", "/usr/lib/libx.so.1.2"),
            ("${S#a\\*}", "b"),
            ("${S/\\*/${E:-x}}", "axb"),
            ("${E#x}${N%y}", ""),
        ];
        for (text, want) in cases {
            assert_eq!(word(text, '\\', &variables).unwrap(), want, "{text}");
        }
        assert!(word("${P:#x}", '\\', &variables).is_err());
    }

    #[test]
    fn words_split_where_nothing_is_quoted() {
        let cases: [(&str, &[&str]); 6] = [
            ("a b", &["a", "b"]),
            ("$A \"$A\"", &["one", "two", "one two"]),
            ("'' x", &["", "x"]),
            ("a\\ b", &["a b"]),
            ("x$A", &["xone", "two"]),
            ("  ", &[]),
        ];
        for (text, want) in cases {
            assert_eq!(words(text, '\\', &variables).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn messages_of_ones_own() {
        assert_eq!(word("${N:?set me}", '\\', &variables).unwrap_err(), "N: set me");
        assert_eq!(names("${N:-$A}x$P", '\\').unwrap(), ["N", "A", "P"]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[$a{}:+?#%/*'\"\\\\ -]{0,40}|\\PC{0,40}") {
            let _ = word(&text, '\\', &variables);
            let _ = words(&text, '`', &variables);
        }

        #[test]
        fn plain_text_is_itself(text in "[a-zA-Z0-9./:_-]{0,40}") {
            prop_assert_eq!(word(&text, '\\', &variables).unwrap(), text);
        }
    }
}
