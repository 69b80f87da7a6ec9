//! From physical to logical lines: parser directives, comments, continuations, here-documents.

use super::problem::{Problem, Span, did_you_mean};
use super::statement::heredocs_of;

/// The directives at the top of a file: `# name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// What continues a line and takes a character's meaning away: `\` or a back quote.
    pub escape: char,
    /// The image of a frontend. Wherry has the language built in and fetches none.
    pub syntax: Option<String>,
    /// Which checks are skipped, and whether the rest are errors.
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { escape: '\\', syntax: None, check: None }
    }
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Variables in it are replaced: its name was not quoted.
    pub expand: bool,
    /// Tabs at the beginnings of lines are removed: `<<-`.
    pub chomp: bool,
    /// File descriptor in front of the `<<`; 0 if there is none.
    pub fd: u32,
    /// Its lines.
    pub content: String,
}

impl Heredoc {
    /// The lines, without the tabs that `<<-` removes.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// A logical line: an instruction with its continuations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is left when continuations are joined and comments taken out.
    pub text: String,
    /// Here-documents that follow it.
    pub heredocs: Vec<Heredoc>,
    /// Where it is.
    pub span: Span,
    /// Comments directly above it.
    pub comments: Vec<String>,
}

/// Splits a file.
///
/// # Errors
/// A directive that is wrong or comes twice; a here-document that does not end.
pub fn read(text: &str) -> Result<(Directives, Vec<Line>), Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut directives = Directives::default();
    let mut physical = text.lines().zip(1usize..).peekable();
    let mut seen: Vec<String> = Vec::new();
    while let Some((line, number)) = physical.peek() {
        let here = Span { first: *number, last: *number };
        let Some((name, value)) = directive(line) else { break };
        if seen.contains(&name) {
            return Err(Problem::new(
                here,
                format!("only one {name} parser directive can be used"),
            ));
        }
        match name.as_str() {
            "escape" => {
                directives.escape = match value.as_str() {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message = format!("invalid escape directive {other:?}: it is ` or \\");
                        return Err(Problem::new(here, message));
                    }
                }
            }
            "syntax" => directives.syntax = Some(value),
            "check" => directives.check = Some(value),
            // Something else is a comment, and ends the directives.
            _ => break,
        }
        seen.push(name);
        physical.next();
    }
    let mut lines = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    while let Some((line, first)) = physical.next() {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix('#') {
            comments.push(comment.trim().to_owned());
            continue;
        }
        let (mut joined, mut more) = continuation(trimmed, directives.escape);
        let mut last = first;
        if !more && joined.trim().is_empty() {
            comments.clear();
            continue;
        }
        while more {
            let Some((line, number)) = physical.next() else { break };
            last = number;
            let trimmed = line.trim_start();
            // Both are dropped within a continuation.
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let (part, again) = continuation(line, directives.escape);
            joined.push_str(&part);
            more = again;
        }
        let mut heredocs = heredocs_of(&joined, directives.escape);
        for heredoc in &mut heredocs {
            let mut ended = false;
            for (line, number) in physical.by_ref() {
                last = number;
                let candidate = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
                if candidate == heredoc.name {
                    ended = true;
                    break;
                }
                heredoc.content.push_str(line);
                heredoc.content.push('\n');
            }
            if !ended {
                let span = Span { first, last: first };
                let name = &heredoc.name;
                return Err(Problem::new(
                    span,
                    format!("unterminated heredoc: no line says {name}"),
                )
                .help(Some(format!("end it with a line that is {name} and nothing else"))));
            }
        }
        let span = Span { first, last };
        let comments = std::mem::take(&mut comments);
        lines.push(Line { text: joined, heredocs, span, comments });
    }
    if lines.is_empty() {
        return Err(Problem::new(Span { first: 1, last: 1 }, "the file has no instructions")
            .help(Some("begin it with FROM")));
    }
    Ok((directives, lines))
}

/// The text without the escape character at its end, and whether there was one. Two of them are a character, not a
/// continuation.
fn continuation(line: &str, escape: char) -> (String, bool) {
    let end = line.trim_end_matches([' ', '\t']);
    match end.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

/// `# name=value`, if the line looks like one.
fn directive(line: &str) -> Option<(String, String)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    (good && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value.to_owned()))
}

/// A word in place of an instruction that is none: what to say.
pub(crate) fn unknown(word: &str, known: &[&'static str], span: Span) -> Problem {
    Problem::new(span, format!("unknown instruction: {}", word.to_uppercase()))
        .help(did_you_mean(word, known.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heredocs_belong_to_their_line() {
        let text = "FROM x\nRUN <<A cat <<-'B'\none\n$x\nA\n\ttwo\n\tB\nCMD y\n";
        let (_, lines) = read(text).unwrap();
        let run = &lines[1];
        assert_eq!(run.span, Span { first: 2, last: 7 });
        assert_eq!(run.heredocs[0].content, "one\n$x\n");
        assert!(run.heredocs[0].expand && !run.heredocs[1].expand);
        assert_eq!(run.heredocs[1].text(), "two\n");
        assert_eq!(lines[2].text, "CMD y");
    }

    #[test]
    fn what_is_quoted_or_no_file_instruction_has_none() {
        for text in ["RUN echo '<<A'", "ENV a=<<A", "RUN [\"x\", \"<<A\"]", "RUN x$((1<<2))"] {
            let (_, lines) = read(text).unwrap();
            assert!(lines[0].heredocs.is_empty(), "{text}");
        }
        let problem = read("FROM x\nRUN <<A\nfoo").unwrap_err();
        assert!(problem.message.contains("unterminated"), "{problem:?}");
        assert_eq!(problem.span.first, 2);
    }

    #[test]
    fn directives_come_first_and_once() {
        let (directives, _) = read("#syntax=a/b:1\n# escape = `\nFROM x").unwrap();
        assert_eq!((directives.escape, directives.syntax.as_deref()), ('`', Some("a/b:1")));
        assert!(read("# escape=`\n# escape=`\nFROM x").is_err());
        assert!(read("# escape=x\nFROM x").is_err());
        assert_eq!(read("# hello\n# escape=`\nFROM x").unwrap().0.escape, '\\');
    }
}
