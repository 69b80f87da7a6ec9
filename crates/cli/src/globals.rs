//! The options before the verb: one list for the parser, the help, the manual page and completion.

/// An option before the verb.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    /// What its value is called; `None`: it is on or off.
    pub(crate) value: Option<&'static str>,
    pub(crate) about: &'static str,
}

const fn option(
    long: &'static str,
    short: Option<char>,
    value: Option<&'static str>,
    about: &'static str,
) -> Global {
    Global { long, short, value, about }
}

/// All of them, by name.
pub(crate) const ALL: &[Global] = &[
    option("config", None, Some("file"), "Settings file (default \"/etc/wherry/config.toml\")"),
    option("context", Some('c'), Some("string"), "The engine of this context (see context ls)"),
    option("data-root", None, Some("dir"), "Where images, containers and volumes are kept"),
    option("debug", Some('D'), None, "Say more about what is done"),
    option("host", Some('H'), Some("string"), "An engine elsewhere: unix://, tcp:// or ssh://"),
    option(
        "log-level",
        Some('l'),
        Some("string"),
        "How much to say: debug, info, warn, error, fatal",
    ),
    option("run-root", None, Some("dir"), "Where sockets and state of this boot are kept"),
    option("tls", None, None, "Use TLS, with any certificate of the server"),
    option("tlscacert", None, Some("string"), "Certificates that sign the server's"),
    option("tlscert", None, Some("string"), "Certificate of this client"),
    option("tlskey", None, Some("string"), "Key of that certificate"),
    option("tlsverify", None, None, "Use TLS, and check the server's certificate"),
    option("trace", None, Some("file"), "Write down how long each step takes, as a Chrome trace"),
    option("version", Some('v'), None, "Print version information and quit"),
];

/// The option that is spelled like this, with its dashes.
pub(crate) fn find(spelled: &str) -> Option<&'static Global> {
    let named = |option: &&Global| match spelled.strip_prefix("--") {
        Some(long) => option.long == long,
        None => {
            let mut letters = spelled.chars().skip(1);
            letters.next().is_some_and(|c| option.short == Some(c)) && letters.next().is_none()
        }
    };
    ALL.iter().find(named)
}

impl Global {
    /// As it stands in the help, without what it is about.
    pub(crate) fn head(&self) -> String {
        let short = self.short.map_or_else(|| "    ".to_owned(), |c| format!("-{c}, "));
        let value = self.value.map_or_else(String::new, |value| format!(" {value}"));
        format!("  {short}--{}{value}", self.long)
    }

    /// As errors call it.
    pub(crate) fn spelled(&self) -> String {
        match self.short {
            Some(c) => format!("-{c}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_by_both_names() {
        let long = |spelled: &str| find(spelled).map(|option| option.long);
        assert_eq!(long("--trace"), Some("trace"));
        assert_eq!(long("-H"), Some("host"));
        for wrong in ["-", "--", "-HH", "-trace", "---trace", "-x", "--tr"] {
            assert_eq!(long(wrong), None, "{wrong}");
        }
    }
}
