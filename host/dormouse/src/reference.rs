//! `dormouse metrics`: what the processes serve at `/metrics`, from the very registrations that they use.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::output;

/// Registers what both processes have before they differ.
fn common(registry: &mut Registry) {
    output::register(registry);
    dormouse_sleepers::Metrics::default().register(registry);
    dormouse_kubernetes::Metrics::default().register(registry);
    dormouse_plugin::Metrics::register(registry);
}

/// Everything of the autoscaler.
pub(crate) fn autoscaler() -> Registry {
    let mut registry = Registry::default();
    common(&mut registry);
    dormouse_autoscaler::Metrics::register(&mut registry);
    dormouse_readings::Metrics::register(&mut registry);
    registry
}

/// Everything of the DLX.
pub(crate) fn dlx() -> Registry {
    let mut registry = Registry::default();
    common(&mut registry);
    dormouse_dlx::Metrics::default().register(&mut registry);
    registry
}

/// A metric, as its description says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Described {
    kind: &'static str,
    help: String,
}

/// Gauges with labels. A family that has no series yet does not tell its type.
const GAUGES: &[&str] = &[
    "dormouse_autoscaler_targets",
    "dormouse_plugin_breaker_state",
    "dormouse_plugin_instances_in_use",
    "dormouse_plugin_instances_limit",
    "dormouse_plugin_ready",
    "dormouse_sleepers",
];

/// Everything that is registered. What is encoded leaves out families without series, so the names come from the registry itself.
fn described(registry: &Registry) -> Result<BTreeMap<String, Described>> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    let told: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let mut found = BTreeMap::new();
    for (name, help) in descriptors(&format!("{registry:?}")) {
        let kind = match told.get(name.as_str()) {
            Some(&"counter") => "counter",
            Some(&"gauge") => "gauge",
            Some(&"histogram") => "histogram",
            Some(_) => "unknown",
            None if GAUGES.contains(&name.as_str()) => "gauge",
            None if name.ends_with("_duration_seconds") => "histogram",
            None => "counter",
        };
        found.insert(name, Described { kind, help });
    }
    Ok(found)
}

/// Names and descriptions in the debug text of a registry, in which a prefix holds until the next one.
fn descriptors(text: &str) -> Vec<(String, String)> {
    const PREFIX: &str = "Registry { prefix: ";
    const DESCRIPTOR: &str = "Descriptor { name: \"";
    let mut marks: Vec<(usize, &str)> = text
        .match_indices(PREFIX)
        .chain(text.match_indices(DESCRIPTOR))
        .collect();
    marks.sort_unstable();
    let (mut prefix, mut found) = (String::new(), Vec::new());
    for (place, mark) in marks {
        let rest = &text[place + mark.len()..];
        if mark == PREFIX {
            let given = rest
                .strip_prefix("Some(Prefix(\"")
                .and_then(|rest| rest.split('"').next());
            prefix = given.map_or_else(String::new, |given| format!("{given}_"));
            continue;
        }
        let name = rest.split('"').next().unwrap_or_default();
        let help = rest
            .split("help: \"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let seconds = rest
            .split(" }")
            .next()
            .is_some_and(|descriptor| descriptor.contains("unit: Some(Seconds)"));
        let unit = if seconds { "_seconds" } else { "" };
        let help = help.unwrap_or_default().trim_end_matches('.').to_owned();
        found.push((format!("{prefix}{name}{unit}"), help));
    }
    found
}

/// The page of the reference.
///
/// # Errors
/// None in practice: what is registered can be encoded.
pub fn metrics() -> Result<String> {
    let (autoscaler, dlx) = (described(&autoscaler())?, described(&dlx())?);
    let mut all: BTreeMap<&String, (&Described, &str)> = BTreeMap::new();
    for (name, metric) in &autoscaler {
        let process = if dlx.contains_key(name) {
            "both"
        } else {
            "autoscaler"
        };
        all.insert(name, (metric, process));
    }
    for (name, metric) in &dlx {
        all.entry(name).or_insert((metric, "DLX"));
    }
    let mut page = "# Metrics\n\n<!-- Written by `cargo xtask generate` from what the binary registers. Do not edit. -->\n\n\
        What `/metrics` of the admin endpoint serves, as OpenMetrics. The samples of a counter end in `_total`, those of a histogram in\n\
        `_bucket`, `_count` and `_sum`. [Operations](../operations.md#metrics) tells which of them to watch.\n\n\
        | metric | type | process | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for (name, (metric, process)) in all {
        let help = metric.help.replace('|', "\\|");
        writeln!(page, "| `{name}` | {} | {process} | {help} |", metric.kind)?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f06_every_metric_carries_the_prefix() {
        for registry in [autoscaler(), dlx()] {
            let metrics = described(&registry).unwrap();
            assert!(metrics.len() > 20, "{metrics:?}");
            // What is served is in it.
            let mut served = String::new();
            encode(&mut served, &registry).unwrap();
            for name in served.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
                let name = name.split(' ').next().unwrap();
                assert!(metrics.contains_key(name), "{name}");
            }
            for (name, metric) in metrics {
                assert!(name.starts_with("dormouse_"), "{name}");
                assert!(!metric.help.is_empty() && !metric.kind.is_empty(), "{name}");
                for family in ["dlx", "autoscaler", "plugin"] {
                    assert!(
                        !name.starts_with(&format!("dormouse_dormouse_{family}")),
                        "{name}"
                    );
                }
            }
        }
    }

    #[test]
    fn f06_the_page_has_what_each_process_serves() {
        let page = metrics().unwrap();
        for row in [
            "| `dormouse_dlx_held_requests` | gauge | DLX | ",
            "| `dormouse_autoscaler_rounds` | counter | autoscaler | ",
            "| `dormouse_plugin_calls` | counter | both | ",
            "| `dormouse_dlx_hold_seconds` | histogram | DLX | ",
            "| `dormouse_log_lines_dropped` | counter | both | ",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
    }
}
