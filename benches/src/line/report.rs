//! What was measured: a table with a column for each size, and a line of JSON for each.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::population::Class;
use super::sleepers::Requests;
use super::sources::Queries;
use crate::quantile::quantile;
use crate::usage::{Scheduled, mebibytes};

/// One size. Spans are seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub targets: u32,
    pub namespaces: u32,
    /// How many there are of each class.
    pub classes: BTreeMap<Class, u32>,
    pub interval_seconds: u64,
    pub ticks: u32,
    pub delay_millis: u64,
    pub together: bool,
    pub optimised: bool,
    /// From the start until each target was declared and decided once.
    pub declared: Cost,
    pub decisions: u64,
    /// From the moment that a target is due until its report arrives at its source.
    pub lateness: Spread,
    /// What the autoscaler's own histogram says of the wait alone: the end of the bucket.
    pub exposed_lateness_p99: Option<f64>,
    /// What is taken off the intervals of targets.
    pub jitter: Spread,
    /// Of all ticks.
    pub line: Cost,
    /// CPU time of the line in which sources of metrics made up their answers.
    pub sources_seconds: f64,
    /// One listing.
    pub listing_seconds: Option<f64>,
    /// One tick of the baseline.
    pub bare: Cost,
    /// Memory before the line starts, after the last tick, and at most.
    pub before_bytes: u64,
    pub resident_bytes: u64,
    pub peak_bytes: u64,
    /// Of all ticks.
    pub requests: Requests,
    pub queries: Queries,
    /// What was wrong, which nothing should be.
    pub troubles: BTreeMap<String, u64>,
}

/// What the process used in a span of time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Ready to run while others had the processors.
    pub waited_seconds: f64,
}

impl Cost {
    pub fn between(from: Scheduled, to: Scheduled, span: Duration) -> Self {
        Self {
            seconds: span.as_secs_f64(),
            cpu_seconds: to.ran - from.ran,
            waited_seconds: to.waited - from.waited,
        }
    }

    fn percent(&self) -> f64 {
        self.cpu_seconds / self.seconds * 100.0
    }
}

/// How values are spread.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub p50: f64,
    pub p99: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: &mut [f64]) -> Self {
        Self {
            p50: quantile(values, 0.5),
            p99: quantile(values, 0.99),
            most: quantile(values, 1.0),
        }
    }
}

/// What was counted since.
pub fn since(now: &BTreeMap<String, u64>, before: Option<&BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let known = |what| before.and_then(|before| before.get(what)).unwrap_or(&0);
    let risen = now
        .iter()
        .map(|(what, count)| (what.clone(), count - known(what)));
    risen.filter(|(_, count)| *count > 0).collect()
}

impl Figures {
    /// CPU of the line for each target and tick, in microseconds.
    fn each(&self) -> f64 {
        self.line.cpu_seconds * 1e6 / self.runs()
    }

    /// The same of the baseline.
    fn each_bare(&self) -> f64 {
        self.bare.cpu_seconds * 1e6 / f64::from(self.targets)
    }

    fn runs(&self) -> f64 {
        f64::from(self.targets) * f64::from(self.ticks)
    }

    /// What it takes more than before it began, for each target.
    fn kibibytes_each(&self) -> f64 {
        let more = self.peak_bytes.saturating_sub(self.before_bytes);
        more as f64 / 1024.0 / f64::from(self.targets)
    }

    /// Requests for each target of a class and minute.
    fn requests_each(&self, class: Class) -> f64 {
        let requests: u64 = self
            .requests
            .get(&class)
            .into_iter()
            .flat_map(|all| all.values())
            .sum();
        let targets = self.classes.get(&class).copied().unwrap_or(0);
        requests as f64 / f64::from(targets) / (self.line.seconds / 60.0)
    }

    fn queries_a_tick(&self, source: &str) -> f64 {
        self.queries.get(source).copied().unwrap_or(0) as f64 / f64::from(self.ticks)
    }
}

/// A line of the table.
struct Row {
    what: &'static str,
    digits: usize,
    /// What the project wants of 10,000 targets.
    aim: &'static str,
    value: fn(&Figures) -> f64,
}

const fn row(what: &'static str, digits: usize, value: fn(&Figures) -> f64) -> Row {
    Row {
        what,
        digits,
        aim: "",
        value,
    }
}

const fn aim(what: &'static str, digits: usize, aim: &'static str, value: fn(&Figures) -> f64) -> Row {
    Row {
        what,
        digits,
        aim,
        value,
    }
}

const ROWS: &[Row] = &[
    row("decisions", 0, |size| size.decisions as f64),
    row("lateness of decisions, p50, ms", 1, |size| {
        size.lateness.p50 * 1e3
    }),
    aim("  p99, ms", 1, "2000", |size| size.lateness.p99 * 1e3),
    row("  most, ms", 1, |size| size.lateness.most * 1e3),
    row("  p99 in its own metric, ms, at most", 0, |size| {
        size.exposed_lateness_p99.unwrap_or(f64::NAN) * 1e3
    }),
    row("taken off an interval, s, p50", 2, |size| size.jitter.p50),
    row("  most", 2, |size| size.jitter.most),
    aim("CPU, % of a core", 2, "100", |size| size.line.percent()),
    row("CPU, s a minute", 2, |size| size.line.percent() * 0.6),
    row("CPU for a target and tick, us", 1, Figures::each),
    row("  answers of metrics among it, us", 1, |size| {
        size.sources_seconds * 1e6 / size.runs()
    }),
    row("  bare timers and decisions, us", 1, Figures::each_bare),
    row("  ratio", 1, |size| size.each() / size.each_bare()),
    row("waited for a processor, % of the time", 2, |size| {
        size.line.waited_seconds / size.line.seconds * 100.0
    }),
    row("a listing, ms", 1, |size| {
        size.listing_seconds.unwrap_or(f64::NAN) * 1e3
    }),
    row("memory before, MiB", 1, |size| mebibytes(size.before_bytes)),
    row("memory, MiB", 1, |size| mebibytes(size.resident_bytes)),
    aim("  most, MiB", 1, "200", |size| mebibytes(size.peak_bytes)),
    row(
        "  more than before, for a target, KiB",
        1,
        Figures::kibibytes_each,
    ),
    aim("API requests for a target a minute: asleep", 2, "0", |size| {
        size.requests_each(Class::Asleep)
    }),
    aim("  idle rules only", 2, "0", |size| {
        size.requests_each(Class::Ruled)
    }),
    row("  scaled by a metric", 2, |size| {
        size.requests_each(Class::Scaled)
    }),
    row("source queries a tick: resource usage", 1, |size| {
        size.queries_a_tick("resource")
    }),
    row("  pod lists", 1, |size| size.queries_a_tick("pod-list")),
    row("  selectors", 1, |size| size.queries_a_tick("selector")),
    row("  custom metrics", 1, |size| size.queries_a_tick("custom")),
    row("  external metrics", 1, |size| size.queries_a_tick("external")),
    row("  Prometheus", 1, |size| size.queries_a_tick("prometheus")),
    row("all declared and decided once, s", 1, |size| {
        size.declared.seconds
    }),
    row("  CPU, s", 2, |size| size.declared.cpu_seconds),
];

/// Prints a column for each size.
pub fn print(sizes: &[Figures]) {
    let Some(first) = sizes.first() else { return };
    println!(
        "\nhalf asleep, {} namespaces, decided every {} s, {} ticks, answers after {} ms{}{}",
        first.namespaces,
        first.interval_seconds,
        first.ticks,
        first.delay_millis,
        if first.together {
            ", all began together"
        } else {
            ""
        },
        if first.optimised { "" } else { "; a debug build" },
    );
    let columns: String = sizes.iter().map(|size| format!("{:>10}", size.targets)).collect();
    println!("{:<44}{columns}{:>14}", "targets", "aim at 10,000");
    for row in ROWS {
        let values: String = sizes
            .iter()
            .map(|size| format!("{:>10.*}", row.digits, (row.value)(size)))
            .collect();
        println!("{:<44}{values}{:>14}", row.what, row.aim);
    }
    for size in sizes {
        for (class, requests) in &size.requests {
            for (what, count) in requests {
                println!("{} targets, {class:?}: {what} {count}", size.targets);
            }
        }
        for (what, count) in &size.troubles {
            println!("{} targets, WRONG: {what} ({count} x)", size.targets);
        }
    }
}

impl Figures {
    /// Appends it to a file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append(&self, file: &Path) -> anyhow::Result<()> {
        let mut opened = std::fs::File::options().create(true).append(true).open(file)?;
        writeln!(opened, "{}", serde_json::to_string(self)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_rise_is_not_counted() {
        let counts = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
            pairs
                .iter()
                .map(|(what, count)| ((*what).to_owned(), *count))
                .collect()
        };
        let (before, now) = (
            counts(&[("read", 2), ("write", 1)]),
            counts(&[("read", 5), ("write", 1), ("event", 1)]),
        );
        assert_eq!(since(&now, Some(&before)), counts(&[("event", 1), ("read", 3)]));
        assert_eq!(since(&before, None), before);
    }

    #[test]
    fn a_spread_is_of_all_values() {
        let mut values: Vec<f64> = (1..=200).map(f64::from).collect();
        let spread = Spread::of(&mut values);
        assert_eq!((spread.p50, spread.p99, spread.most), (100.0, 198.0, 200.0));
    }
}
