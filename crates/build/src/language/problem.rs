//! What is wrong with a Dockerfile, where, and what was probably meant.

use std::fmt;

/// Lines of a file, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// The first line.
    pub first: usize,
    /// The last line.
    pub last: usize,
}

/// What is wrong, before it is known in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// What.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem at these lines.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    /// With a suggestion.
    #[must_use]
    pub fn help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help = help.map(Into::into).or(self.help);
        self
    }

    /// With the file's name and an excerpt of its text.
    pub fn within(self, file: &str, text: &str) -> Diagnostic {
        let Problem { span, message, help } = self;
        let first = span.first.saturating_sub(1).max(1);
        let excerpt = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index.saturating_add(1), line))
            .skip_while(|(number, _)| *number < first)
            .take_while(|(number, _)| *number <= span.last.saturating_add(1))
            .map(|(number, line)| (number, shorten(line)))
            .collect();
        Diagnostic { file: file.to_owned(), span, message, help, excerpt }
    }
}

/// A line of a file may be a whole program; what is shown of it is not.
fn shorten(line: &str) -> String {
    const MOST: usize = 160;
    let clean: String = line
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    if line.chars().nth(MOST).is_some() { format!("{clean}…") } else { clean }
}

/// A problem as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The lines around it, with their numbers.
    pub excerpt: Vec<(usize, String)>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.span.first, self.message)?;
        const MOST: usize = 12;
        for (number, line) in self.excerpt.iter().take(MOST) {
            let here = self.span.first <= *number && *number <= self.span.last;
            write!(f, "\n{number:>5} {} {line}", if here { '>' } else { '|' })?;
        }
        if self.excerpt.len() > MOST {
            write!(f, "\n      …")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

/// How many characters must be put in, taken out, exchanged or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best = at(&row, j).saturating_add(usize::from(ca != cb));
            best = best.min(at(&row, j.saturating_add(1)).saturating_add(1));
            best = best.min(at(&next, j).saturating_add(1));
            let swapped = i > 0
                && j > 0
                && a.get(i.wrapping_sub(1)) == Some(cb)
                && b.get(j.wrapping_sub(1)) == Some(ca);
            if swapped {
                best = best.min(at(&before, j.wrapping_sub(1)).saturating_add(1));
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

/// The known word that was probably meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let most = match word.chars().count() {
        0..=2 => 1,
        3..=6 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(far, _)| *far <= most)
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// "did you mean …?", if there is something near.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let known = ["FROM", "RUN", "COPY", "ENTRYPOINT"];
        assert_eq!(nearest("FORM", known), Some("FROM"));
        assert_eq!(nearest("rnu", known), Some("RUN"));
        assert_eq!(nearest("ENTRYPIONT", known), Some("ENTRYPOINT"));
        assert_eq!(nearest("XYZZY", known), None);
    }

    #[test]
    fn a_diagnostic_shows_the_lines() {
        let text = "FROM a\nRNU b\nRUN c\n";
        let problem = Problem::new(Span { first: 2, last: 2 }, "unknown instruction: RNU")
            .help(did_you_mean("RNU", ["RUN"]));
        assert_eq!(
            problem.within("Dockerfile", text).to_string(),
            "Dockerfile:2: unknown instruction: RNU\n    1 | FROM a\n    2 > RNU b\n    3 | RUN c\nhelp: did you mean RUN?"
        );
    }
}
