//! `.dockerignore`: which files of a context are left out, by the rules of moby's pattern matcher.

use super::glob::{self, Piece};

/// One pattern.
#[derive(Debug, Clone)]
struct Pattern {
    pieces: Vec<Piece>,
    /// `!`: what it matches is taken in again.
    negated: bool,
    text: String,
}

/// The patterns of a file, in order.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// Which patterns matched a directory; for what is in it.
#[derive(Debug, Clone, Default)]
pub struct Matched(Vec<bool>);

/// The patterns that are written in a file, cleaned.
pub fn read(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (sign, pattern) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if line.is_empty() {
            continue;
        }
        let cleaned = if pattern.is_empty() { String::new() } else { clean(pattern) };
        let cleaned = match cleaned.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &cleaned,
        };
        patterns.push(format!("{sign}{cleaned}"));
    }
    patterns
}

/// Takes `.`, `..` and doubled slashes out, as Go's `filepath.Clean`.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

impl Ignore {
    /// Reads a `.dockerignore`.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::new(read(text).iter().map(String::as_str))
    }

    /// From patterns.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut out = Vec::new();
        for text in patterns {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let cleaned = clean(text);
            let (negated, pattern) = match cleaned.strip_prefix('!') {
                Some("") => return Err("illegal exclusion pattern: \"!\"".into()),
                Some(rest) => (true, rest),
                None => (false, cleaned.as_str()),
            };
            out.push(Pattern { pieces: pieces(pattern)?, negated, text: cleaned.clone() });
        }
        Ok(Self { patterns: out })
    }

    /// No pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns, for a cache key.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text.as_str())
    }

    /// Whether something below a directory that is left out may be taken in again, so that the
    /// directory must be walked through.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// Whether a file is left out; `parent` is what this said of its directory, None for those at
    /// the top.
    pub fn matches(&self, path: &str, parent: Option<&Matched>) -> (bool, Matched) {
        let mut out = false;
        let mut hits = vec![false; self.patterns.len()];
        for ((index, pattern), slot) in self.patterns.iter().enumerate().zip(&mut hits) {
            let mut hit = parent.is_some_and(|p| p.0.get(index).copied().unwrap_or(false));
            if !hit {
                // It could not change anything.
                if pattern.negated != out {
                    continue;
                }
                hit = glob::matches(&pattern.pieces, path);
            }
            *slot = hit;
            if hit {
                out = !pattern.negated;
            }
        }
        (out, Matched(hits))
    }

    /// As [`Ignore::matches`], without knowing what was said of the directories above.
    pub fn matches_alone(&self, path: &str) -> bool {
        let mut parent: Option<Matched> = None;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut out = false;
        for end in ends {
            let (hit, matched) = self.matches(path.get(..end).unwrap_or(path), parent.as_ref());
            out = hit;
            parent = Some(matched);
        }
        out
    }
}

fn pieces(pattern: &str) -> Result<Vec<Piece>, String> {
    // Its own check of what is a pattern is that of paths.
    glob::path_pattern(pattern)?;
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = Vec::new();
    let mut at = 0usize;
    let rest = |at: &mut usize| {
        let c = chars.get(*at).copied();
        *at = at.saturating_add(1);
        c
    };
    while let Some(c) = rest(&mut at) {
        match c {
            '*' if chars.get(at) == Some(&'*') => {
                at = at.saturating_add(1);
                if chars.get(at) == Some(&'/') {
                    at = at.saturating_add(1);
                }
                out.push(match chars.get(at) {
                    None => Piece::Many { within: false },
                    Some(_) => Piece::Directories,
                });
            }
            '*' => out.push(Piece::Many { within: true }),
            '?' => out.push(Piece::One { within: true }),
            '\\' => out.push(Piece::Literal(rest(&mut at).unwrap_or('\\'))),
            '[' => match glob::class(chars.get(at..).unwrap_or_default()) {
                Some((piece, used)) => {
                    out.push(piece);
                    at = at.saturating_add(used);
                }
                None => return Err(format!("syntax error in the pattern {pattern:?}")),
            },
            c => out.push(Piece::Literal(c)),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pattern, path, left out: the cases that the format's documents and moby's rules give.
    #[test]
    fn the_rules() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["**"], "file", true),
            (&["**"], "dir/file", true),
            (&["**/"], "file", true),
            (&["**/**"], "dir/file", true),
            (&["dir/**"], "dir/file", true),
            (&["dir/**"], "dir/dir2/file", true),
            (&["dir/**"], "dir", false),
            (&["**/dir"], "a/dir/file", true),
            (&["**/dir"], "dir/file", true),
            (&["**/dir2/*"], "dir/dir2/file", true),
            (&["**/dir2/**"], "dir/dir2/dir2/file", true),
            (&["**file"], "file", true),
            (&["**file"], "dir/file", true),
            (&["**/file"], "dir/dir/file", true),
            (&["**/file*"], "dir/dir/file.txt", true),
            (&["**/file*txt"], "dir/dir/file.txt", true),
            (&["**/*.txt"], "file.txt", true),
            (&["a**/*.txt"], "a/file.txt", true),
            (&["a**/*.txt"], "a/dir/dir/file.txt", true),
            (&["a/*.txt"], "a/dir/file.txt", false),
            (&["a[b-d]e"], "ace", true),
            (&["a[b-d]e"], "aae", false),
            (&["a\\*b"], "a*b", true),
            (&["a?b"], "a/b", false),
            (&["*"], "a/b", true),
            (&["*", "!a"], "a/b", false),
            (&["a", "!a/b"], "a/b", false),
            (&["a", "!a/b"], "a/c", true),
            (&["a", "!a/b", "a/b/c"], "a/b/c", true),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
            (&["*.md", "!README*.md", "README-secret.md"], "README.md", false),
            (&["abc.def"], "abcdef", false),
            (&["a.+(x)|{y}$"], "a.+(x)|{y}$", true),
            (&[".*"], ".foo", true),
            (&[".*"], "foo", false),
            (&["./bin/"], "bin/x", true),
        ];
        for (patterns, path, want) in cases {
            let ignore = Ignore::new(patterns.iter().copied()).unwrap();
            assert_eq!(ignore.matches_alone(path), *want, "{patterns:?} {path}");
        }
        for bad in ["!", "[", "a[", "\\"] {
            assert!(Ignore::new([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_cleaned() {
        let text = "\u{feff}# no\n a \n\n/b/c/\n! d\n/\n ./e/../f\n #g\n!";
        assert_eq!(read(text), ["a", "b/c", "!d", "/", "f", "#g", "!"]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a/*?!\\[\\]\\\\^ .\n-]{0,30}", path in "[a/.*]{0,12}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                let _ = ignore.matches_alone(&path);
            }
        }
    }
}
