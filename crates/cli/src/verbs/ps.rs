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

/// Published and exposed ports: `443/tcp, 0.0.0.0:8080->80/tcp`. As in Docker, neighbours are put together
/// (`0.0.0.0:7000-7002->7000-7002/tcp`) where the port is the same on both sides, or exposed only; these
/// come first.
fn ports(c: &ContainerSummary) -> String {
    let text = |p: &serde_json::Value, key: &str| {
        p.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
    };
    let number = |p: &serde_json::Value, key: &str| {
        p.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0)
    };
    let mut all: Vec<_> = c
        .ports
        .iter()
        .map(|p| {
            (number(p, "PrivatePort"), text(p, "IP"), number(p, "PublicPort"), text(p, "Type"))
        })
        .collect();
    all.sort();
    let mut ranges: Vec<(String, String, u64, u64)> = Vec::new();
    let mut mapped = Vec::new();
    for (private, ip, public, kind) in all {
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
        if public != 0 && public != private {
            mapped.push(format!("{ip}:{public}->{private}/{kind}"));
            continue;
        }
        let ip = if public == 0 { String::new() } else { ip };
        let last = ranges.iter_mut().rfind(|(i, k, ..)| *i == ip && *k == kind);
        match last {
            Some((.., end)) if end.saturating_add(1) == private => *end = private,
            _ => ranges.push((ip, kind, private, private)),
        }
    }
    let mut shown: Vec<String> = ranges
        .into_iter()
        .map(|(ip, kind, first, last)| {
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            if ip.is_empty() {
                format!("{range}/{kind}")
            } else {
                format!("{ip}:{range}->{range}/{kind}")
            }
        })
        .collect();
    shown.extend(mapped);
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
    fn ports_next_to_each_other_are_put_together() {
        let port = |ip: &str, public: u64, private: u64, kind: &str| match public {
            0 => serde_json::json!({"PrivatePort": private, "Type": kind}),
            _ => serde_json::json!(
                {"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": kind}
            ),
        };
        let shown = ports(&ContainerSummary {
            ports: vec![
                port("0.0.0.0", 8080, 80, "tcp"),
                port("0.0.0.0", 7001, 7001, "tcp"),
                port("::", 7000, 7000, "tcp"),
                port("0.0.0.0", 7000, 7000, "tcp"),
                port("0.0.0.0", 7003, 7003, "tcp"),
                port("", 0, 443, "tcp"),
                port("", 0, 444, "tcp"),
                port("", 0, 444, "udp"),
            ],
            ..Default::default()
        });
        assert_eq!(
            shown,
            "443-444/tcp, 444/udp, 0.0.0.0:7000-7001->7000-7001/tcp, [::]:7000->7000/tcp, \
             0.0.0.0:7003->7003/tcp, 0.0.0.0:8080->80/tcp"
        );
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
