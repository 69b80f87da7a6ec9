//! Splitting the arguments of an instruction: flags, words, pairs, JSON lists.

use super::expand::is_space;

/// Walks over characters.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    chars: Vec<char>,
    at: usize,
}

impl Cursor {
    pub(crate) fn new(text: &str) -> Self {
        Self { chars: text.chars().collect(), at: 0 }
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at = self.at.saturating_add(1);
        Some(c)
    }

    pub(crate) fn rest(&self) -> String {
        self.chars.get(self.at..).unwrap_or_default().iter().collect()
    }
}

/// Takes the `--flags` off the front of an instruction's arguments.
///
/// Quotes and escapes in them are resolved. A `--` alone ends them.
pub fn flags(args: &str) -> (Vec<String>, String) {
    let mut flags = Vec::new();
    let mut cursor = Cursor::new(args);
    loop {
        while cursor.peek().is_some_and(is_space) {
            cursor.next();
        }
        let rest = cursor.rest();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(c) = cursor.next() {
            match (quote, c) {
                (None, c) if is_space(c) => break,
                (None, '\'' | '"') => quote = Some(c),
                (Some(q), c) if c == q => quote = None,
                (_, '\\') => word.extend(cursor.next()),
                (_, c) => word.push(c),
            }
        }
        if word == "--" {
            return (flags, cursor.rest().trim_start_matches(is_space).to_owned());
        }
        flags.push(word);
    }
}

/// Splits at white space that is not quoted or escaped; quotes and escapes stay in the words.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut cursor = Cursor::new(text);
    while let Some(c) = cursor.next() {
        match quote {
            None if is_space(c) => {
                words.extend(word.take());
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape && quote != Some('\'') => {
                // One at the very end escapes nothing.
                if let Some(next) = cursor.next() {
                    word.get_or_insert_default().extend([c, next]);
                }
                continue;
            }
            _ => {}
        }
        word.get_or_insert_default().push(c);
    }
    words.extend(word);
    words
}

/// One pair of `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name, with its quotes.
    pub name: String,
    /// The value, with its quotes.
    pub value: String,
    /// It was written `name=value`, not `name value`.
    pub equals: bool,
}

/// `name=value …`, or the old form `name value` whose value is the rest of the line.
///
/// # Errors
/// A name alone; a word without `=` among pairs.
pub fn pairs(text: &str, keyword: &str, escape: char) -> Result<Vec<Pair>, String> {
    let words = split(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (name, value) = text
            .split_once(is_space)
            .ok_or_else(|| format!("{} must have two arguments", keyword.to_uppercase()))?;
        let value = value.trim_start_matches(is_space).to_owned();
        return Ok(vec![Pair { name: name.to_owned(), value, equals: false }]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => {
                Ok(Pair { name: name.to_owned(), value: value.to_owned(), equals: true })
            }
            None => Err(format!("can't find = in {word:?}: write name=value")),
        })
        .collect()
}

/// What a JSON list turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// A list of strings.
    List(Vec<String>),
    /// A list with something else in it.
    NotStrings,
    /// No JSON: the shell form.
    No,
}

/// Reads the JSON form of an instruction's arguments. What follows the list is ignored, as it always was.
pub fn json(text: &str) -> Json {
    let text = text.trim_start_matches(is_space);
    if !text.starts_with('[') {
        return Json::No;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    let Some(Ok(serde_json::Value::Array(list))) = values.next() else { return Json::No };
    let mut words = Vec::new();
    for value in list {
        match value {
            serde_json::Value::String(word) => words.push(word),
            _ => return Json::NotStrings,
        }
    }
    Json::List(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_where_the_words_begin() {
        let cases: [(&str, &[&str], &str); 6] = [
            ("--a=b --c x y", &["--a=b", "--c"], "x y"),
            ("-- x", &[], "x"),
            ("--a -- --b", &["--a"], "--b"),
            ("--a='x y' z", &["--a=x y"], "z"),
            ("--a=x\\ y z", &["--a=x y"], "z"),
            ("-x --y", &[], "-x --y"),
        ];
        for (text, want, rest) in cases {
            assert_eq!(
                flags(text),
                (want.iter().map(|s| (*s).to_owned()).collect(), rest.to_owned())
            );
        }
    }

    #[test]
    fn json_lists() {
        assert_eq!(json(" [\"a\"] x"), Json::List(vec!["a".into()]));
        assert_eq!(json("[1]"), Json::NotStrings);
        assert_eq!(json("['a']"), Json::No);
        assert_eq!(json("[[\"a\"]]"), Json::NotStrings);
    }
}
