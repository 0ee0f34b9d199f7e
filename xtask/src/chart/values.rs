//! values.yaml: the table of the README, and whether flags, values and schema agree.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::reference::COMMAND_LINE;
use crate::workspace::Workspace;

/// The chart's README, whose table of values is generated.
pub const README: &str = "chart/README.md";
/// The definition of MemHpa that the chart installs: the same as the reference.
pub const MEMHPA_CRD: &str = "chart/files/memhpa-crd.yaml";
/// The definition that the chart installs: the same as the reference.
pub const CRD: &str = "chart/files/sleeper-crd.yaml";
const VALUES: &str = "chart/values.yaml";
const SCHEMA: &str = "chart/values.schema.json";
const BEGIN: &str = "<!-- values: written by `cargo xtask generate` from values.yaml. Do not edit. -->";
const END: &str = "<!-- end of values -->";
/// Objects of the schema whose keys are not the chart's.
const OPEN: &[&str] = &["/properties/global"];

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    key: String,
    default: String,
    what: String,
}

/// The README with the table as values.yaml has it now.
pub fn readme(workspace: &Workspace) -> Result<String> {
    let text =
        fs::read_to_string(workspace.path(README)).with_context(|| format!("{README} cannot be read"))?;
    let values = fs::read_to_string(workspace.path(VALUES))?;
    replaced(&text, &table(&rows(&values)?))
}

fn replaced(text: &str, table: &str) -> Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("{README} has no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{README} has no line {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

fn table(rows: &[Row]) -> String {
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for Row { key, default, what } in rows {
        // A bar would end the cell, in code as well.
        let (default, what) = (default.replace('|', "\\|"), what.replace('|', "\\|"));
        table.push_str(&format!("| `{key}` | `{default}` | {what} |\n"));
    }
    table
}

/// Every key with a comment that begins with two dashes. Keys below it belong to its default.
fn rows(yaml: &str) -> Result<Vec<Row>> {
    let values: Value = serde_yaml::from_str(yaml).context("values.yaml is not YAML")?;
    let (mut rows, mut path, mut comment) = (Vec::new(), Vec::<(usize, String)>::new(), None);
    for (number, line) in yaml.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if let Some(text) = line.strip_prefix("# -- ") {
            comment = Some(text.to_owned());
            continue;
        }
        let key = line.split_once(':').map(|(key, _)| key);
        let Some(key) = key.filter(|key| !key.starts_with(['#', '-', '{']) && !key.contains(' ')) else {
            continue;
        };
        path.retain(|(depth, _)| *depth < indent);
        path.push((indent, key.to_owned()));
        let Some(what) = comment.take() else { continue };
        let names: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
        let value = values
            .pointer(&format!("/{}", names.join("/")))
            .with_context(|| format!("{VALUES}:{}: no key is described here", number + 1))?;
        rows.push(Row {
            key: names.join("."),
            default: shown(value),
            what,
        });
    }
    Ok(rows)
}

/// A default in one line.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        _ if text.len() <= 60 => text,
        _ => "see values.yaml".to_owned(),
    }
}

/// What does not agree: flags without a value, values without a description, an open schema, an old version.
pub fn wrong(workspace: &Workspace) -> Result<Vec<String>> {
    let read = |file: &str| {
        fs::read_to_string(workspace.path(file)).with_context(|| format!("{file} cannot be read"))
    };
    let yaml = read(VALUES)?;
    let values: Value = serde_yaml::from_str(&yaml)?;
    let schema: Value =
        serde_json::from_str(&read(SCHEMA)?).with_context(|| format!("{SCHEMA} is not JSON"))?;
    let mut wrong = without_value(&read(COMMAND_LINE)?, &values)?;
    wrong.extend(undescribed(&rows(&yaml)?, &values));
    wrong.extend(open(&schema));
    let chart: Value = serde_yaml::from_str(&read("chart/Chart.yaml")?)?;
    for key in ["version", "appVersion"] {
        let version = env!("CARGO_PKG_VERSION");
        if chart[key] != version {
            wrong.push(format!(
                "chart/Chart.yaml: {key} is {} and the workspace is {version}",
                chart[key]
            ));
        }
    }
    Ok(wrong)
}

/// Flags of both processes that no value sets. They are sections of the configuration file, in camel case.
fn without_value(reference: &str, values: &Value) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for process in ["autoscaler", "dlx"] {
        let flags = flags(reference, process);
        if flags.len() < 10 {
            bail!(
                "{COMMAND_LINE} names only {} flags of `dormouse {process}`",
                flags.len()
            );
        }
        for flag in flags {
            let key = camel(&flag);
            let known = ["common", process]
                .iter()
                .any(|section| values["config"][section].get(&key).is_some());
            if !known {
                wrong.push(format!("--{flag} of `dormouse {process}` has no value config.common.{key} or config.{process}.{key}"));
            }
        }
    }
    Ok(wrong)
}

/// Flags in the help of a process, without those that the chart itself gives.
fn flags(reference: &str, process: &str) -> BTreeSet<String> {
    reference
        .lines()
        .skip_while(|line| *line != format!("## dormouse {process}"))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|flag| !["config", "help"].contains(flag))
        .map(str::to_owned)
        .collect()
}

fn camel(flag: &str) -> String {
    let mut words = flag.split('-');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// Values at which the table ends without a word.
fn undescribed(rows: &[Row], values: &Value) -> Vec<String> {
    let described: BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let mut wrong = Vec::new();
    let mut open = vec![(String::new(), values)];
    while let Some((path, value)) = open.pop() {
        if described.contains(path.as_str()) {
            continue;
        }
        match value.as_object().filter(|object| !object.is_empty()) {
            Some(object) => open.extend(object.iter().map(|(key, value)| {
                let longer = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                (longer, value)
            })),
            None => wrong.push(format!("{VALUES}: {path} has no comment `# -- …`")),
        }
    }
    wrong.sort();
    wrong
}

/// Objects that would accept a misspelt key, and properties without a description.
fn open(schema: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    walk(schema, "", &mut wrong);
    wrong
}

fn walk(schema: &Value, path: &str, wrong: &mut Vec<String>) {
    if schema.get("properties").is_some() && schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        wrong.push(format!("{SCHEMA}: {path} accepts any key"));
    }
    let is_object = schema.get("type").is_some_and(|kind| kind == "object");
    let said = |key: &str| schema.get(key).is_some();
    let of_kubernetes = schema["description"]
        .as_str()
        .is_some_and(|text| text.contains("as in the Kubernetes API"));
    if is_object
        && !said("properties")
        && !said("additionalProperties")
        && !of_kubernetes
        && !OPEN.contains(&path)
    {
        wrong.push(format!("{SCHEMA}: {path} accepts anything"));
    }
    for (group, named) in [("properties", true), ("definitions", false)] {
        for (key, below) in schema.get(group).and_then(Value::as_object).into_iter().flatten() {
            let below_path = format!("{path}/{group}/{key}");
            if named && below.get("$ref").is_none() && below.get("description").is_none() {
                wrong.push(format!("{SCHEMA}: {below_path} has no description"));
            }
            walk(below, &below_path, wrong);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(key).filter(|below| below.is_object()) {
            walk(below, &format!("{path}/{key}"), wrong);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const YAML: &str = "# About the file.\na:\n  # -- First | thing\n  b: \"\"\n  # -- Second\n  c:\n    d: 1\n  # Not for the table.\n  e: {}\n# -- Last\nf: text\n";

    #[test]
    fn the_table_has_what_is_described() {
        let table = table(&rows(YAML).unwrap());
        assert_eq!(
            table.lines().skip(2).collect::<Vec<_>>(),
            [
                "| `a.b` | `\"\"` | First \\| thing |",
                "| `a.c` | `{\"d\":1}` | Second |",
                "| `f` | `text` | Last |",
            ]
        );
    }

    #[test]
    fn what_is_not_described_is_named() {
        let values: Value = serde_yaml::from_str(YAML).unwrap();
        assert_eq!(
            undescribed(&rows(YAML).unwrap(), &values),
            ["chart/values.yaml: a.e has no comment `# -- …`"]
        );
    }

    #[test]
    fn only_the_table_is_replaced() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert!(replaced("nothing", "x").is_err());
    }

    #[test]
    fn a_flag_without_a_value_is_named() {
        let flag = |name: &str| format!("      --{name} <X>\n");
        let names: Vec<String> = (0..10)
            .map(|n| format!("flag-{}", char::from(b'a' + n)))
            .collect();
        let help: String = names.iter().map(|name| flag(name)).collect();
        let reference = format!(
            "## dormouse autoscaler\n{help}{}## dormouse dlx\n{help}      --help\n",
            flag("only-here")
        );
        let common: serde_json::Map<_, _> = names.iter().map(|name| (camel(name), Value::Null)).collect();
        let values = json!({"config": {"common": common, "autoscaler": {}, "dlx": {"onlyHere": null}}});
        let wrong = without_value(&reference, &values).unwrap();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(
            wrong[0].contains("--only-here of `dormouse autoscaler`"),
            "{wrong:?}"
        );
        assert!(without_value("nothing", &values).is_err());
    }

    #[test]
    fn an_open_schema_is_named() {
        let closed = json!({"type": "object", "additionalProperties": false, "properties": {
            "a": {"description": "x", "type": "string"},
        }});
        assert!(open(&closed).is_empty());
        let mut loose = closed;
        loose["additionalProperties"] = json!(true);
        assert!(open(&loose)[0].contains("accepts any key"));
        let inner = json!({"additionalProperties": false, "properties": {
            "a": {"type": "array", "description": "x", "items": {"type": "object"}},
            "b": {"type": "string"},
        }});
        let wrong = open(&inner).join("; ");
        assert!(wrong.contains("/properties/a/items accepts anything"), "{wrong}");
        assert!(wrong.contains("/properties/b has no description"), "{wrong}");
    }
}
