//! Lists of things: a table, a template per thing, or JSON per line.

use std::collections::BTreeMap;

use super::json::Json;
use super::table;
use super::template::Format;
use crate::context;

/// One thing, its values by key.
pub(crate) type Row = BTreeMap<&'static str, Json>;

/// Text as a value.
pub(crate) fn cell(text: impl Into<String>) -> Json {
    Json::Text(text.into())
}

/// What a kind of thing has: key and heading of every column.
pub(crate) struct Columns {
    /// Key and heading.
    pub(crate) all: &'static [(&'static str, &'static str)],
}

/// Formats rows; `default` names the columns of the plain table.
pub(crate) fn format(
    columns: &Columns,
    default: &[&str],
    format: Option<&str>,
    rows: &[Row],
) -> anyhow::Result<String> {
    let format = format.unwrap_or("table").trim();
    if format.is_empty() || format == "table" {
        return Ok(plain(columns, default, rows));
    }
    let mut out = String::new();
    if format == "json" {
        for row in rows {
            out.push_str(&serde_json::to_string(row)?);
            out.push('\n');
        }
        return Ok(out);
    }
    let (source, with_table) = match format.strip_prefix("table") {
        Some(rest) if rest.starts_with([' ', '\t']) => (rest.trim_start(), true),
        _ => (format, false),
    };
    let template = Format::parse(source)?;
    let mut lines = Vec::with_capacity(rows.len().saturating_add(1));
    if with_table {
        let names = columns.all.iter().map(|(k, h)| ((*k).to_owned(), cell(*h))).collect();
        lines.push(Format::parse_header(&headings(source))?.fill(&Json::Map(names))?);
    }
    for row in rows {
        let data = row.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        lines.push(template.fill(&Json::Map(data))?);
    }
    if !with_table {
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
        return Ok(out);
    }
    let cells: Vec<Vec<String>> = lines
        .iter()
        .flat_map(|l| l.split('\n'))
        .map(|l| l.split('\t').map(ToOwned::to_owned).collect())
        .collect();
    Ok(table::render(&cells))
}

/// `.Label "x"` has the label's name for a heading.
fn headings(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once(".Label ") {
        out.push_str(before);
        let after = after.trim_start();
        let end = after.get(1..).and_then(|a| a.find('"')).map(|i| i.saturating_add(2));
        let (name, tail) = after.split_at_checked(end.unwrap_or(0)).unwrap_or(("", after));
        out.push_str(name);
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn plain(columns: &Columns, default: &[&str], rows: &[Row]) -> String {
    let heading =
        |key: &str| columns.all.iter().find(|(k, _)| *k == key).map_or(key, |(_, h)| *h).to_owned();
    let mut cells = vec![default.iter().map(|key| heading(key)).collect::<Vec<_>>()];
    for row in rows {
        cells.push(default.iter().map(|key| shown(row.get(key))).collect());
    }
    table::render(&cells)
}

fn shown(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::Text(text)) => text.clone(),
        Some(other) => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// `format`, printed.
pub(crate) fn print(
    columns: &Columns,
    default: &[&str],
    template: Option<&str>,
    rows: &[Row],
) -> anyhow::Result<()> {
    let text = format(columns, default, template, rows)?;
    Ok(context::print(&text)?)
}
