//! The flags of instructions: which there are, and their values.

use super::problem::{Problem, Span, did_you_mean, nearest};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--name=value`, once.
    Text,
    /// `--name=value`, any number of times.
    List,
    /// `--name` or `--name=true|false`.
    Switch,
}

/// The flags of one instruction, read.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: Vec<(&'static str, String)>,
}

impl Flags {
    pub(crate) fn read(
        given: &[String],
        known: &[(&'static str, Kind)],
        keyword: &str,
        span: Span,
    ) -> Result<Self, Problem> {
        let mut values: Vec<(&'static str, String)> = Vec::new();
        for flag in given {
            let body = flag.trim_start_matches("--");
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let Some((name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let names = || known.iter().map(|(name, _)| *name);
                let help = nearest(name, names()).map(|near| format!("did you mean --{near}?"));
                let help = help.or_else(|| match known.len() {
                    0 => Some(format!("{} has no flags", keyword.to_uppercase())),
                    _ => {
                        let list: Vec<String> = names().map(|name| format!("--{name}")).collect();
                        Some(format!("{} knows {}", keyword.to_uppercase(), list.join(", ")))
                    }
                });
                let message = format!("unknown flag: --{name} of {}", keyword.to_uppercase());
                return Err(Problem::new(span, message).help(help));
            };
            let value = match (kind, value) {
                (Kind::Switch, None) => "true",
                (Kind::Switch, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    "true" | "1" | "t" => "true",
                    "false" | "0" | "f" => "false",
                    other => {
                        let message = format!("--{name}={other}: expected true or false");
                        return Err(Problem::new(span, message));
                    }
                },
                (_, Some(value)) => value,
                (_, None) => {
                    return Err(Problem::new(span, format!("missing a value on flag: --{name}"))
                        .help(Some(format!("write --{name}=…"))));
                }
            };
            if *kind != Kind::List && values.iter().any(|(seen, _)| seen == name) {
                return Err(Problem::new(span, format!("duplicate flag specified: --{name}")));
            }
            values.push((name, value.to_owned()));
        }
        Ok(Self { values })
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone())
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(n, _)| *n == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value == "true")
    }
}

/// A mount of one `RUN`. Values may hold variables; they are replaced when it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// `bind`, `cache`, `tmpfs`, `secret` or `ssh`.
    pub kind: MountKind,
    /// Stage, image or named context.
    pub from: Option<String>,
    /// Path in it.
    pub source: Option<String>,
    /// Path in the step.
    pub target: Option<String>,
    /// Name of a cache, a secret or an agent.
    pub id: Option<String>,
    /// Must not be written; the default of each kind if absent.
    pub read_only: Option<bool>,
    /// The build fails where a secret or an agent is missing.
    pub required: bool,
    /// Who may use a cache at the same time.
    pub sharing: Sharing,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
    /// Permissions, octal.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// The variable that holds a secret, instead of a file or beside it.
    pub env: Option<String>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context or of another stage; what is written to them is dropped.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file that is in no layer.
    Secret,
    /// The socket of an agent.
    Ssh,
}

/// Who may use a cache at the same time; what is stricter comes later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Everybody has one of their own.
    Private,
    /// One after the other.
    Locked,
}

const MOUNT_KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
];

/// Reads the value of `--mount`.
pub(crate) fn mount(text: &str, span: Span) -> Result<Mount, Problem> {
    let bad = |message: String| Problem::new(span, format!("--mount={text}: {message}"));
    let mut mount = Mount::default();
    for field in fields(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let switch = || match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(bad(format!("{key}={other}: expected true or false"))),
        };
        match key.as_str() {
            "readonly" | "ro" => {
                mount.read_only = Some(switch()?);
                continue;
            }
            "readwrite" | "rw" => {
                mount.read_only = Some(!switch()?);
                continue;
            }
            "required" => {
                mount.required = switch()?;
                continue;
            }
            _ => {}
        }
        let Some(value) = value else {
            let help = did_you_mean(&key, MOUNT_KEYS);
            return Err(bad(format!("{key} is no key=value pair")).help(help));
        };
        let number = |radix| {
            u32::from_str_radix(value, radix)
                .map_err(|_| bad(format!("{key}={value}: expected a number")))
        };
        let owned = || Some(value.to_owned());
        match key.as_str() {
            "type" => {
                mount.kind = match value.to_ascii_lowercase().as_str() {
                    "bind" => MountKind::Bind,
                    "cache" => MountKind::Cache,
                    "tmpfs" => MountKind::Tmpfs,
                    "secret" => MountKind::Secret,
                    "ssh" => MountKind::Ssh,
                    other => {
                        let kinds = ["bind", "cache", "tmpfs", "secret", "ssh"];
                        return Err(bad(format!("unsupported mount type {other:?}")).help(
                            did_you_mean(other, kinds)
                                .or(Some(format!("there are {}", kinds.join(", ")))),
                        ));
                    }
                }
            }
            "from" => mount.from = owned(),
            "source" | "src" => mount.source = owned(),
            "target" | "dst" | "destination" => mount.target = owned(),
            "id" => mount.id = owned(),
            "env" => mount.env = owned(),
            "sharing" => {
                mount.sharing = match value.to_ascii_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => {
                        return Err(bad(format!("unsupported sharing value {other:?}"))
                            .help(Some("it is shared, private or locked")));
                    }
                }
            }
            "size" => {
                mount.size = Some(
                    bytes(value).ok_or_else(|| bad(format!("size={value}: expected a size")))?,
                );
            }
            "mode" => mount.mode = Some(number(8)?),
            "uid" => mount.uid = Some(number(10)?),
            "gid" => mount.gid = Some(number(10)?),
            other => {
                return Err(
                    bad(format!("unexpected key '{other}'")).help(did_you_mean(other, MOUNT_KEYS))
                );
            }
        }
    }
    let needs_target = matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
    if needs_target && mount.target.as_deref().unwrap_or_default().is_empty() {
        return Err(bad("invalid mount: no target".into()).help(Some("add target=/path")));
    }
    if mount.from.is_some() && !matches!(mount.kind, MountKind::Bind | MountKind::Cache) {
        return Err(bad("from is for bind and cache mounts".into()));
    }
    Ok(mount)
}

/// Fields between commas, as CSV: a field in double quotes may hold commas.
fn fields(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    out.push(field);
    out.retain(|field| !field.is_empty());
    out
}

/// `64m` and the like.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at_checked(digits)?;
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1u64.checked_shl(shift)?)
}
