//! `ps`: the list of containers.

use engine::ListOptions;
use engine::types::ContainerSummary;

use crate::context::{self, Context};
use crate::failure::Outcome;
use crate::flags::Spec;
use crate::output::human;
use crate::output::listing::{self, Columns, Row, cell};
use crate::registry::Verb;
use crate::values::number::parse_int;

/// Options of `ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those that do not run too
    #[arg(long, short = 'a')]
    all: bool,
    /// Only what matches (name=value)
    #[arg(long, short = 'f', value_name = "filter", value_parser = super::parse_filter)]
    filter: Vec<(String, String)>,
    /// Show as "table", "table TEMPLATE", "json" or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// The n that were made last, running or not
    #[arg(long, short = 'n', value_name = "int", default_value = "-1", value_parser = parse_int)]
    last: i64,
    /// The one that was made last, running or not
    #[arg(long, short = 'l')]
    latest: bool,
    /// Show everything in full length
    #[arg(long)]
    no_trunc: bool,
    /// Show only ids
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Show sizes
    #[arg(long, short = 's')]
    size: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

/// What a container has in the list.
pub(crate) const COLUMNS: Columns = Columns {
    all: &[
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Labels", "LABELS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Mounts", "MOUNTS"),
        ("Names", "NAMES"),
        ("Networks", "NETWORKS"),
        ("Ports", "PORTS"),
        ("RunningFor", "CREATED"),
        ("Size", "SIZE"),
        ("State", "STATE"),
        ("Status", "STATUS"),
    ],
};

const DEFAULT: &[&str] = &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
const DEFAULT_SIZE: &[&str] =
    &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", "Size"];

impl Verb for Args {
    const SPEC: Spec = Spec::new(
        &[&["container", "ls"], &["container", "list"], &["container", "ps"], &["ps"]],
        "[OPTIONS]",
        "List containers",
    )
    .args(0, 0);

    fn run(self, context: &Context) -> Outcome {
        let _ = &self.args;
        let limit = match (self.latest, self.last) {
            (true, _) => Some(1),
            (false, n) => usize::try_from(n).ok().filter(|n| *n > 0),
        };
        let wants_size =
            self.size || self.format.as_deref().is_some_and(|f| f.contains(".Size") || f == "json");
        let found = context.engine()?.list(ListOptions {
            all: self.all || limit.is_some(),
            limit,
            size: wants_size,
            filters: super::filters(&self.filter),
        })?;
        if self.quiet && self.format.is_none() {
            let ids: String =
                found.iter().map(|c| format!("{}\n", id(c, !self.no_trunc))).collect();
            context::print(&ids)?;
            return Ok(0);
        }
        let now = jiff::Timestamp::now().as_second();
        let rows: Vec<Row> = found.iter().map(|c| row(c, !self.no_trunc, now)).collect();
        let default = if self.size { DEFAULT_SIZE } else { DEFAULT };
        listing::print(&COLUMNS, default, self.format.as_deref(), &rows)?;
        Ok(0)
    }
}

fn id(c: &ContainerSummary, short: bool) -> &str {
    if short { human::short_id(&c.id) } else { &c.id }
}

/// One container as a row.
pub(crate) fn row(c: &ContainerSummary, short: bool, now: i64) -> Row {
    let cut = |text: &str, max| if short { human::ellipsis(text, max) } else { text.to_owned() };
    let names: Vec<&str> = c
        .names
        .iter()
        .map(|n| n.strip_prefix('/').unwrap_or(n))
        .filter(|n| !short || !n.contains('/'))
        .collect();
    let mounts: Vec<String> = c
        .mounts
        .iter()
        .map(|m| cut(if m.name.is_empty() { &m.source } else { &m.name }, 15))
        .collect();
    let local = c.mounts.iter().filter(|m| m.driver == "local").count();
    let labels: Vec<String> = c.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let networks: Vec<&str> = c.network_settings.networks.keys().map(String::as_str).collect();
    let written = human::size3(c.size_rw.unwrap_or(0));
    let size = match c.size_root_fs {
        Some(all) if all > 0 => format!("{written} (virtual {})", human::size3(all)),
        _ => written,
    };
    let image = match c.image.as_str() {
        "" => "<no image>",
        image if short && image.starts_with("sha256:") => human::short_id(image),
        image => image,
    };
    Row::from([
        ("Command", cell(quote(&cut(&c.command, 20)))),
        ("CreatedAt", cell(human::stamp(c.created))),
        ("ID", cell(id(c, short))),
        ("Image", cell(image)),
        ("Labels", cell(labels.join(","))),
        ("LocalVolumes", cell(local.to_string())),
        ("Mounts", cell(mounts.join(","))),
        ("Names", cell(names.join(","))),
        ("Networks", cell(networks.join(","))),
        ("Ports", cell(ports(c))),
        ("RunningFor", cell(human::ago(c.created, now))),
        ("Size", cell(size)),
        ("State", cell(c.state.as_str())),
        ("Status", cell(c.status.as_str())),
    ])
}

/// Published and exposed ports: `0.0.0.0:8080->80/tcp, 443/tcp`.
fn ports(c: &ContainerSummary) -> String {
    let mut shown: Vec<String> = c
        .ports
        .iter()
        .map(|p| {
            let text = |key: &str| p.get(key).and_then(|v| v.as_str()).unwrap_or_default();
            let number = |key: &str| p.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
            let inner = format!("{}/{}", number("PrivatePort"), text("Type"));
            match number("PublicPort") {
                0 => inner,
                public => {
                    let ip = text("IP");
                    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                    format!("{ip}:{public}->{inner}")
                }
            }
        })
        .collect();
    shown.sort();
    shown.join(", ")
}

/// A text in quotes as Go writes it.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) < 0x20 || c == '\x7f' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::types::MountPoint;

    fn sample() -> Vec<Row> {
        let one = ContainerSummary {
            id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into(),
            names: vec!["/brave_boat".into()],
            image: "debian:13".into(),
            command: "sleep \"1000\" and then some".into(),
            created: 1_735_824_217,
            state: "running".into(),
            status: "Up 3 seconds (healthy)".into(),
            size_rw: Some(1234),
            size_root_fs: Some(123_456_789),
            labels: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
            ports: vec![
                serde_json::json!({"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}),
            ],
            mounts: vec![MountPoint {
                name: "a-very-long-volume-name".into(),
                driver: "local".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let two = ContainerSummary {
            id: "fedcba9876543210".into(),
            names: vec!["/x".into()],
            created: 1_735_824_217 - 86_400 * 5,
            state: "exited".into(),
            status: "Exited (0) 2 days ago".into(),
            command: "sh".into(),
            ..Default::default()
        };
        let now = 1_735_824_217 + 90;
        vec![row(&one, true, now), row(&two, true, now)]
    }

    #[test]
    fn the_table_is_dockers() {
        insta::assert_snapshot!(listing::format(&COLUMNS, DEFAULT, None, &sample()).unwrap());
        insta::assert_snapshot!(listing::format(&COLUMNS, DEFAULT_SIZE, None, &sample()).unwrap());
    }

    #[test]
    fn templates_and_json() {
        let rows = sample();
        let t = |f: &str| listing::format(&COLUMNS, DEFAULT, Some(f), &rows).unwrap();
        insta::assert_snapshot!(t(
            "table {{.ID}}\\t{{.Label \"b\"}}\\t{{upper .Names}}\\t{{.Mounts}}"
        ));
        insta::assert_snapshot!(t("{{.Names}}: {{.State}} {{json .Labels}}"));
        // CreatedAt depends on the zone of the machine.
        let json: Vec<serde_json::Value> =
            t("json").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(json.len(), 2);
        for (key, _) in COLUMNS.all {
            assert!(json.iter().all(|j| j.get(key).is_some()), "{key}");
        }
    }
}
