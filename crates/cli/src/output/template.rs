//! `--format`: Go templates with the functions Docker adds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gotmpl::{MissingKey, Template, Value};

use super::json::{Json, Zero};
use crate::failure::Failure;

/// Lists and maps keep their identity when a template hands them to a function; by it
/// `json` finds the original, with its fields in their order.
type Originals = Arc<Mutex<BTreeMap<usize, Json>>>;

/// A template, and what its functions need.
pub(crate) struct Format {
    template: Template,
    originals: Originals,
}

impl Format {
    /// Parses a template.
    pub(crate) fn parse(source: &str) -> Result<Self, Failure> {
        Self::build(source, false, MissingKey::Error)
    }

    /// Parses a template for things that differ in their fields, as events do: one that is
    /// not there prints `<no value>`, as Go has it.
    pub(crate) fn parse_lenient(source: &str) -> Result<Self, Failure> {
        Self::build(source, false, MissingKey::Invalid)
    }

    /// Parses a template that will be given names of columns instead of values.
    pub(crate) fn parse_header(source: &str) -> Result<Self, Failure> {
        Self::build(source, true, MissingKey::Error)
    }

    fn build(source: &str, header: bool, missing: MissingKey) -> Result<Self, Failure> {
        let originals = Originals::default();
        let template = functions(Template::new(""), &originals, header)
            .missing_key(missing)
            .parse(&unescape(&methods(source)))
            .map_err(|e| Failure::new(64, format!("template parsing error: {e}")).bare())?;
        Ok(Self { template, originals })
    }

    /// Fills the template.
    pub(crate) fn fill(&self, data: &Json) -> Result<String, Failure> {
        let mut map = match self.originals.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        };
        map.clear();
        let value = to_value(data, &mut map);
        drop(map);
        self.template
            .execute_to_string(&value)
            .map_err(|e| Failure::new(1, format!("template parsing error: {e}")).bare())
    }
}

/// `\t` and `\n` typed in a shell's quotes mean tab and newline.
fn unescape(source: &str) -> String {
    source.replace("\\t", "\t").replace("\\n", "\n")
}

/// `.Label "x"` is a method in Docker's templates; here it is a lookup.
fn methods(source: &str) -> String {
    source.replace(".Label ", "label $ ")
}

fn to_value(data: &Json, originals: &mut BTreeMap<usize, Json>) -> Value {
    match data {
        Json::Null | Json::Absent(Zero::Nil) => Value::Nil,
        Json::Absent(Zero::Text) => Value::String("".into()),
        Json::Absent(Zero::Flag) => Value::Bool(false),
        Json::Absent(Zero::List) => Value::List(Arc::new([])),
        Json::Absent(Zero::Map) => Value::Map(Arc::default()),
        Json::Bool(v) => Value::Bool(*v),
        Json::Int(v) => Value::Int(*v),
        Json::Uint(v) => Value::Uint(*v),
        Json::Float(v) => Value::Float(*v),
        Json::Text(v) => Value::String(v.as_str().into()),
        Json::List(items) => {
            let list: Arc<[Value]> = items.iter().map(|i| to_value(i, originals)).collect();
            if !items.is_empty() {
                originals.insert(list.as_ptr().addr(), data.clone());
            }
            Value::List(list)
        }
        Json::Map(fields) => {
            let map: BTreeMap<Arc<str>, Value> = fields
                .iter()
                .map(|(name, value)| (name.as_str().into(), to_value(value, originals)))
                .collect();
            let map = Arc::new(map);
            originals.insert(Arc::as_ptr(&map).addr(), data.clone());
            Value::Map(map)
        }
    }
}

fn from_value(value: &Value, originals: &BTreeMap<usize, Json>) -> Json {
    match value {
        Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(v) => Json::Bool(*v),
        Value::Int(v) => Json::Int(*v),
        Value::Uint(v) => Json::Uint(*v),
        Value::Float(v) => Json::Float(*v),
        Value::String(v) => Json::Text(v.to_string()),
        Value::List(items) => match originals.get(&items.as_ptr().addr()) {
            Some(original @ Json::List(list)) if list.len() == items.len() => original.clone(),
            _ => Json::List(items.iter().map(|i| from_value(i, originals)).collect()),
        },
        Value::Map(map) => match originals.get(&Arc::as_ptr(map).addr()) {
            Some(original @ Json::Map(_)) => original.clone(),
            _ => Json::Map(
                map.iter().map(|(k, v)| (k.to_string(), from_value(v, originals))).collect(),
            ),
        },
    }
}

fn text(value: Option<&Value>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn functions(template: Template, originals: &Originals, header: bool) -> Template {
    let keep = Arc::clone(originals);
    let template = template
        .func("json", move |args| {
            if header {
                return Ok(Value::String(text(args.first()).into()));
            }
            let map = match keep.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            };
            let json = from_value(args.first().unwrap_or(&Value::Nil), &map);
            Ok(Value::String(serde_json::to_string(&json).unwrap_or_default().into()))
        })
        .func("label", |args| {
            let labels = args.first().and_then(|row| row.field("Labels"));
            let name = text(args.get(1));
            let found = match labels {
                Some(Value::Map(map)) => map.get(name.as_str()).map(ToString::to_string),
                Some(Value::String(list)) => list.split(',').find_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    (key == name).then(|| value.to_owned())
                }),
                _ => None,
            };
            Ok(Value::String(found.unwrap_or_default().into()))
        })
        .func("split", |args| {
            let (whole, by) = (text(args.first()), text(args.get(1)));
            let parts: Vec<Value> = if by.is_empty() {
                whole.chars().map(|c| Value::String(c.to_string().into())).collect()
            } else {
                whole.split(by.as_str()).map(|p| Value::String(p.into())).collect()
            };
            Ok(Value::List(parts.into()))
        })
        .func("join", |args| {
            let parts = match args.first() {
                Some(Value::List(items)) => {
                    items.iter().map(ToString::to_string).collect::<Vec<_>>()
                }
                other => vec![text(other)],
            };
            Ok(Value::String(parts.join(&text(args.get(1))).into()))
        });
    let plain = move |f: fn(&[Value]) -> String| {
        move |args: &[Value]| {
            let out = if header { text(args.first()) } else { f(args) };
            Ok(Value::String(out.into()))
        }
    };
    template
        .func("lower", |args| Ok(Value::String(text(args.first()).to_lowercase().into())))
        .func("upper", |args| Ok(Value::String(text(args.first()).to_uppercase().into())))
        .func("title", plain(|args| title(&text(args.first()))))
        .func("pad", plain(pad))
        .func("truncate", plain(truncate))
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let first = std::mem::replace(&mut start, !c.is_alphanumeric() && c != '\'');
            if first { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn number(value: Option<&Value>) -> usize {
    // Bounded, so that a template can't ask for more memory than there is.
    value.and_then(Value::as_int).and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(1 << 16)
}

fn pad(args: &[Value]) -> String {
    let whole = text(args.first());
    if whole.is_empty() {
        return whole;
    }
    format!("{}{whole}{}", " ".repeat(number(args.get(1))), " ".repeat(number(args.get(2))))
}

fn truncate(args: &[Value]) -> String {
    text(args.first()).chars().take(number(args.get(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, data: serde_json::Value) -> String {
        Format::parse(template).unwrap().fill(&Json::of(&data).unwrap()).unwrap()
    }

    #[test]
    fn dockers_functions_work() {
        let data = serde_json::json!({
            "Name": "/ab cd", "N": 3, "On": true, "List": ["x", "y"],
            "Config": {"Labels": {"a.b": "c"}}, "Labels": "k=v,l=w",
        });
        for (template, want) in [
            ("{{.Name}} {{.N}} {{.On}}", "/ab cd 3 true"),
            ("{{upper .Name}}|{{title .Name}}|{{lower \"AB\"}}", "/AB CD|/Ab Cd|ab"),
            ("{{join .List \",\"}}", "x,y"),
            ("{{range split .Name \" \"}}<{{.}}>{{end}}", "</ab><cd>"),
            ("{{pad .Name 1 2}}|{{truncate .Name 3}}", " /ab cd  |/ab"),
            (
                "{{json .Config}} {{json .List}} {{json .On}}",
                "{\"Labels\":{\"a.b\":\"c\"}} [\"x\",\"y\"] true",
            ),
            ("{{index .Config.Labels \"a.b\"}}", "c"),
            ("{{.Label \"l\"}}", "w"),
            ("{{println .N}}", "3\n"),
            ("{{.N}}\\t{{.On}}", "3\ttrue"),
            ("{{if .On}}yes{{else}}no{{end}}", "yes"),
        ] {
            assert_eq!(fill(template, data.clone()), want, "{template}");
        }
    }

    #[test]
    fn json_keeps_the_order_of_fields() {
        let data: Json = serde_json::from_str(r#"{"Z":{"b":1,"a":[{"d":1,"c":2}]}}"#).unwrap();
        let out = Format::parse("{{json .Z}}").unwrap().fill(&data).unwrap();
        assert_eq!(out, r#"{"b":1,"a":[{"d":1,"c":2}]}"#);
    }

    #[test]
    fn mistakes_are_failures() {
        assert!(Format::parse("{{.Name").is_err());
        assert!(
            Format::parse("{{nope .}}").is_err()
                || Format::parse("{{nope .}}").unwrap().fill(&Json::Null).is_err()
        );
        let format = Format::parse("{{.Nope}}").unwrap();
        assert!(format.fill(&Json::Map(vec![])).is_err());
        let lenient = Format::parse_lenient("{{.Nope}}").unwrap();
        assert_eq!(lenient.fill(&Json::Map(vec![])).unwrap(), "<no value>");
    }
}
