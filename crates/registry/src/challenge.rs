//! The `WWW-Authenticate` header: what a registry wants to be asked with.
//!
//! RFC 9110, sections 11.2 to 11.6.1. A header holds one or more challenges, and commas separate both
//! challenges and parameters.

use std::collections::BTreeMap;

/// One challenge: a scheme and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic`, …, in lower case.
    pub scheme: String,
    /// Parameters by their name in lower case.
    pub parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// More than this is no challenge.
const MOST: usize = 16 << 10;

struct Reader<'a> {
    rest: &'a str,
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

impl<'a> Reader<'a> {
    fn skip(&mut self, what: &[char]) {
        self.rest = self.rest.trim_start_matches(what);
    }

    fn while_of(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// A value: a token, or a quoted string with its escapes undone.
    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            // Registries leave quotes out around addresses; so everything up to a separator counts.
            return Some(self.while_of(|c| c != ',' && c != ' ' && c != '\t').to_owned());
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.rest = quoted.get(at + 1..).unwrap_or_default();
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

/// Reads one header. What cannot be understood ends the list; what came before it counts.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    const SPACE: &[char] = &[' ', '\t'];
    const BETWEEN: &[char] = &[' ', '\t', ','];
    let mut challenges: Vec<Challenge> = Vec::new();
    if header.len() > MOST {
        return challenges;
    }
    let mut reader = Reader { rest: header };
    loop {
        reader.skip(BETWEEN);
        let word = reader.while_of(is_token);
        if word.is_empty() {
            return challenges;
        }
        let before = reader.rest;
        reader.skip(SPACE);
        if let Some(rest) = reader.rest.strip_prefix('=')
            && let Some(challenge) = challenges.last_mut()
        {
            reader.rest = rest;
            reader.skip(SPACE);
            let Some(value) = reader.value() else { return challenges };
            challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
            continue;
        }
        // A scheme is followed by a space, by a comma, or by the end.
        if !(before.is_empty() || before.starts_with([' ', '\t', ','])) {
            return challenges;
        }
        let scheme = word.to_ascii_lowercase();
        challenges.push(Challenge { scheme, parameters: BTreeMap::new() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(header: &str) -> Vec<(String, Vec<(String, String)>)> {
        parse_challenges(header)
            .into_iter()
            .map(|c| (c.scheme, c.parameters.into_iter().collect()))
            .collect()
    }

    #[test]
    fn what_registries_send() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let challenge = parse_challenges(hub).remove(0);
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameter("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(challenge.parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(
            shown(r#"Basic realm="a \"b\" c", BEARER Realm=https://x/t?a=b , service = y"#),
            [
                ("basic".into(), vec![("realm".into(), "a \"b\" c".into())]),
                (
                    "bearer".into(),
                    vec![
                        ("realm".into(), "https://x/t?a=b".into()),
                        ("service".into(), "y".into())
                    ]
                ),
            ]
        );
        assert_eq!(
            shown("Negotiate, Basic"),
            [("negotiate".into(), vec![]), ("basic".into(), vec![])]
        );
        assert!(shown("").is_empty());
        assert_eq!(shown("Basic realm=\"open"), [("basic".into(), vec![])]);
        assert!(shown("realm=\"x\"").is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(header in "\\PC{0,80}|([a-zA-Z]{1,6}[ =,\"\\\\]{0,3}){0,12}") {
            for challenge in parse_challenges(&header) {
                prop_assert!(!challenge.scheme.is_empty());
            }
        }

        #[test]
        fn what_is_quoted_is_read_back(
            parameters in proptest::collection::btree_map("[a-z]{1,8}", "[ -~é]{0,20}", 0..5)
        ) {
            let list: Vec<String> = parameters
                .iter()
                .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let parsed = parse_challenges(&format!("Bearer {}", list.join(",")));
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!(&parsed[0].parameters, &parameters);
        }
    }
}
