//! A logical line as keyword, flags and arguments, without knowing what they mean.

use super::expand::{self, is_space};
use super::lines::{Directives, Heredoc, Line, read};
use super::problem::{Problem, Span};
use super::words::{self, Json, Pair};

/// The arguments of an instruction in the form it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// None.
    None,
    /// The rest of the line: the shell form, or one value.
    Text(String),
    /// A JSON list of strings: the exec form.
    Json(Vec<String>),
    /// Words between white space.
    Words(Vec<String>),
    /// `name=value` pairs.
    Pairs(Vec<Pair>),
    /// A word and what follows it: `HEALTHCHECK CMD …`.
    Typed(String, Box<Arguments>),
    /// `ONBUILD` another instruction.
    Statement(Box<Statement>),
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its first word in lower case.
    pub keyword: String,
    /// `--flag[=value]`, quotes resolved.
    pub flags: Vec<String>,
    /// The rest.
    pub arguments: Arguments,
    /// The logical line, as it was written.
    pub text: String,
    /// Here-documents.
    pub heredocs: Vec<Heredoc>,
    /// Where it is.
    pub span: Span,
    /// Comments directly above it.
    pub comments: Vec<String>,
}

/// Splits a file into statements.
///
/// # Errors
/// What [`read`] finds; pairs without `=`; JSON lists of something else than strings.
pub fn parse(text: &str) -> Result<(Directives, Vec<Statement>), Problem> {
    let (directives, lines) = read(text)?;
    let mut statements = Vec::new();
    for line in lines {
        statements.push(statement(line, directives.escape, 0)?);
    }
    Ok((directives, statements))
}

fn keyword_of(text: &str) -> (String, &str) {
    let text = text.trim_matches(is_space);
    let (keyword, rest) = text.split_once(is_space).unwrap_or((text, ""));
    (keyword.to_lowercase(), rest.trim_matches(is_space))
}

/// One line of a file, or an instruction that an image brings along.
///
/// # Errors
/// As [`parse`].
pub fn statement(line: Line, escape: char, depth: usize) -> Result<Statement, Problem> {
    let Line { text, heredocs, span, comments } = line;
    let (keyword, rest) = keyword_of(&text);
    let (flags, rest) = words::flags(rest);
    let bad = |message: String| Problem::new(span, message);
    let list_of_strings = || {
        bad(format!("{}: when using JSON, all values must be strings", keyword.to_uppercase()))
            .help(Some("write [\"program\", \"argument\"], with double quotes"))
    };
    let text_of = |text: &str| match text {
        "" => Arguments::None,
        text => Arguments::Text(text.to_owned()),
    };
    let words_of = |text: &str| match text {
        "" => Arguments::None,
        text => Arguments::Words(
            text.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        ),
    };
    let command = |text: &str| match words::json(text) {
        Json::List(list) => Ok(Arguments::Json(list)),
        Json::NotStrings => Err(list_of_strings()),
        Json::No => Ok(text_of(text.trim_matches(is_space))),
    };
    let list = |text: &str| match words::json(text) {
        Json::List(list) => Ok(Arguments::Json(list)),
        Json::NotStrings => Err(list_of_strings()),
        Json::No => Ok(words_of(text)),
    };
    let arguments = match keyword.as_str() {
        "add" | "copy" | "volume" => list(&rest)?,
        "cmd" | "entrypoint" | "run" | "shell" => command(&rest)?,
        "arg" => match words::split(&rest, escape) {
            words if words.is_empty() => Arguments::None,
            words => Arguments::Words(words),
        },
        "env" | "label" => {
            let help = "write name=value, with quotes around a value that has spaces";
            let pairs = words::pairs(&rest, &keyword, escape)
                .map_err(|message| bad(message).help(Some(help)))?;
            if pairs.is_empty() { Arguments::None } else { Arguments::Pairs(pairs) }
        }
        "expose" | "from" => words_of(&rest),
        "healthcheck" => match rest.split_once(is_space) {
            None if rest.is_empty() => Arguments::None,
            None => Arguments::Typed(rest, Box::new(Arguments::None)),
            Some((kind, rest)) => Arguments::Typed(kind.to_owned(), Box::new(command(rest)?)),
        },
        "onbuild" if rest.is_empty() || depth > 0 => text_of(&rest),
        "onbuild" => {
            let comments = Vec::new();
            let inner = Line { text: rest, heredocs: heredocs.clone(), span, comments };
            Arguments::Statement(Box::new(statement(inner, escape, 1)?))
        }
        _ => text_of(&rest),
    };
    Ok(Statement { keyword, flags, arguments, text, heredocs, span, comments })
}

/// The here-documents that a logical line begins; their contents are not there yet.
pub(crate) fn heredocs_of(line: &str, escape: char) -> Vec<Heredoc> {
    let (mut keyword, mut rest) = keyword_of(line);
    if keyword == "onbuild" {
        (keyword, rest) = keyword_of(rest);
    }
    if !matches!(keyword.as_str(), "add" | "copy" | "run") || !rest.contains("<<") {
        return Vec::new();
    }
    let (_, rest) = words::flags(rest);
    if words::json(&rest) != Json::No {
        return Vec::new();
    }
    expand::raw_words(&rest, escape).iter().filter_map(|word| heredoc(word, escape)).collect()
}

/// `[fd]<<[-]name`.
pub fn heredoc(word: &str, escape: char) -> Option<Heredoc> {
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (fd, rest) = word.split_at_checked(digits)?;
    let rest = rest.strip_prefix("<<")?;
    let (chomp, raw) = match rest.strip_prefix('-') {
        Some(raw) => (true, raw),
        None => (false, rest),
    };
    if raw.is_empty() || raw.contains('<') {
        return None;
    }
    let name = unquote(raw, escape)?;
    if name.is_empty() {
        return None;
    }
    let fd = if fd.is_empty() { 0 } else { fd.parse().ok()? };
    Some(Heredoc { expand: name == raw, name, chomp, fd, content: String::new() })
}

/// Takes quotes and escapes off; variables are no variables here.
fn unquote(raw: &str, escape: char) -> Option<String> {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None | Some('"'), c) if c == escape => out.extend(chars.next()),
            // More words follow: it is the shell's.
            (None, c) if c.is_whitespace() => return None,
            (_, c) => out.push(c),
        }
    }
    quote.is_none().then_some(out)
}

impl Statement {
    /// The statement as BuildKit's parser prints it, for comparing with its test cases.
    pub fn dump(&self) -> String {
        let mut out = format!("({}", self.keyword);
        if !self.flags.is_empty() {
            let flags: Vec<String> = self.flags.iter().map(|flag| quoted(flag)).collect();
            out.push_str(&format!(" [{}]", flags.join(" ")));
        }
        dump_arguments(&self.arguments, &mut out);
        out.push(')');
        out
    }
}

fn dump_arguments(arguments: &Arguments, out: &mut String) {
    match arguments {
        Arguments::None => {}
        Arguments::Text(text) => out.push_str(&format!(" {}", quoted(text))),
        Arguments::Json(list) | Arguments::Words(list) => {
            for word in list {
                out.push_str(&format!(" {}", quoted(word)));
            }
        }
        Arguments::Pairs(pairs) => {
            for Pair { name, value, equals } in pairs {
                let sign = if *equals { "=" } else { "" };
                out.push_str(&format!(" {} {} {}", quoted(name), quoted(value), quoted(sign)));
            }
        }
        Arguments::Typed(kind, rest) => {
            out.push_str(&format!(" {}", quoted(kind)));
            dump_arguments(rest, out);
        }
        Arguments::Statement(inner) => out.push_str(&format!(" {}", inner.dump())),
    }
}

/// As Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
