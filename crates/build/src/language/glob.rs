//! Shell patterns, matched without backtracking: the time is the product of the two lengths.

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// This character.
    Literal(char),
    /// Any one character; not `/` if `within` a path's component.
    One { within: bool },
    /// Any number of characters; no `/` if `within` a path's component.
    Many { within: bool },
    /// Nothing, or anything that ends with `/`.
    Directories,
    /// One of these ranges, or none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// For each end of a beginning of `text`, in characters, whether the pattern matches just that much.
pub(crate) fn ends(pattern: &[Piece], text: &[char]) -> Vec<bool> {
    // `now[i]`: the pieces before `i` match what was read.
    let size = pattern.len().saturating_add(1);
    let mut now = vec![false; size];
    if let Some(first) = now.first_mut() {
        *first = true;
    }
    skip_empty(pattern, &mut now);
    let mut found = vec![now.last().copied().unwrap_or(false)];
    let mut inside = vec![false; size];
    for c in text {
        let mut next = vec![false; size];
        let mut next_inside = vec![false; size];
        for (i, piece) in pattern.iter().enumerate() {
            let here = now.get(i).copied().unwrap_or(false);
            let mut advance = false;
            let mut stay = false;
            match piece {
                Piece::Literal(want) => advance = here && want == c,
                Piece::One { within } => advance = here && !(*within && *c == '/'),
                Piece::Many { within } => stay = here && !(*within && *c == '/'),
                Piece::Class { negated, ranges } => {
                    let among = ranges.iter().any(|(from, to)| from <= c && c <= to);
                    advance = here && among != *negated;
                }
                Piece::Directories => {
                    // Within something that must still end with a slash.
                    let within = here || inside.get(i).copied().unwrap_or(false);
                    if let Some(slot) = next_inside.get_mut(i) {
                        *slot |= within;
                    }
                    advance = within && *c == '/';
                }
            }
            if advance && let Some(slot) = next.get_mut(i.saturating_add(1)) {
                *slot = true;
            }
            if stay && let Some(slot) = next.get_mut(i) {
                *slot = true;
            }
        }
        skip_empty(pattern, &mut next);
        found.push(next.last().copied().unwrap_or(false));
        (now, inside) = (next, next_inside);
    }
    found
}

/// Pieces that match nothing at all are stepped over.
fn skip_empty(pattern: &[Piece], states: &mut [bool]) {
    for (i, piece) in pattern.iter().enumerate() {
        let empty = matches!(piece, Piece::Many { .. } | Piece::Directories);
        if empty
            && states.get(i).copied().unwrap_or(false)
            && let Some(slot) = states.get_mut(i.saturating_add(1))
        {
            *slot = true;
        }
    }
}

/// Whether the pattern matches all of it.
pub(crate) fn matches(pattern: &[Piece], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    ends(pattern, &text).last().copied().unwrap_or(false)
}

/// The `[…]` after its opening bracket; None if it does not end. Returns how many characters it has.
pub(crate) fn class(rest: &[char]) -> Option<(Piece, usize)> {
    let mut at = 0usize;
    let negated = matches!(rest.first(), Some('^'));
    if negated {
        at = 1;
    }
    let mut ranges = Vec::new();
    loop {
        let take = |at: &mut usize| -> Option<char> {
            let mut c = *rest.get(*at)?;
            *at = at.saturating_add(1);
            if c == '\\' {
                c = *rest.get(*at)?;
                *at = at.saturating_add(1);
            }
            Some(c)
        };
        if rest.get(at) == Some(&']') && !ranges.is_empty() {
            return Some((Piece::Class { negated, ranges }, at.saturating_add(1)));
        }
        if matches!(rest.get(at), Some(']' | '-')) {
            return None;
        }
        let from = take(&mut at)?;
        let mut to = from;
        if rest.get(at) == Some(&'-') {
            at = at.saturating_add(1);
            if rest.get(at) == Some(&']') {
                return None;
            }
            to = take(&mut at)?;
        }
        ranges.push((from, to));
    }
}

/// A pattern for one path, as Go's `filepath.Match` has them: `*` and `?` stop at `/`.
///
/// # Errors
/// A bracket without its end, an escape at the end.
pub(crate) fn path_pattern(text: &str) -> Result<Vec<Piece>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    let mut at = 0usize;
    let bad = || format!("syntax error in the pattern {text:?}");
    while let Some(c) = chars.get(at) {
        at = at.saturating_add(1);
        match c {
            '*' => pieces.push(Piece::Many { within: true }),
            '?' => pieces.push(Piece::One { within: true }),
            '[' => {
                let (piece, used) = class(chars.get(at..).unwrap_or_default()).ok_or_else(bad)?;
                pieces.push(piece);
                at = at.saturating_add(used);
            }
            '\\' => {
                pieces.push(Piece::Literal(*chars.get(at).ok_or_else(bad)?));
                at = at.saturating_add(1);
            }
            c => pieces.push(Piece::Literal(*c)),
        }
    }
    Ok(pieces)
}

/// Whether a text has characters that make it a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_patterns() {
        let cases = [
            ("*.c", "a.c", true),
            ("*.c", "d/a.c", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(matches(&path_pattern(pattern).unwrap(), text), want, "{pattern} {text}");
        }
        for bad in ["[", "[a", "[]a]", "[a-]", "\\"] {
            assert!(path_pattern(bad).is_err(), "{bad}");
        }
    }
}
