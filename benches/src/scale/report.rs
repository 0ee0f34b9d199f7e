//! What was measured: a table for people, and a line of JSON.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use super::Args;
use super::audit::{Requests, beyond_watches};
use crate::usage::mebibytes;

/// Everything of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    targets: u32,
    namespaces: u32,
    interval_seconds: u64,
    shards: u32,
    cores: usize,
    /// The folder that the binary is in, which is called as its profile.
    binary: String,
    stages: Vec<Stage>,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
}

/// One stage.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stage {
    pub name: &'static str,
    pub seconds: f64,
    /// How many targets it is about, and how many came through.
    pub wanted: u32,
    pub done: u32,
    pub processes: BTreeMap<&'static str, Cost>,
    /// What else was measured: seconds, counts.
    pub numbers: BTreeMap<&'static str, f64>,
    /// Requests and wakes that failed, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

/// What a process used in a stage.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    pub cpu_seconds: f64,
    /// Ready to run while others had the processors.
    pub waited_seconds: f64,
    pub resident_bytes: u64,
    pub peak_bytes: u64,
    pub requests: Requests,
}

/// What the project wants of 10,000 targets.
struct Aim {
    what: &'static str,
    unit: &'static str,
    aim: f64,
    /// Stage, and how the number is found in it.
    stage: &'static str,
    value: fn(&Stage) -> Option<f64>,
}

const AIMS: &[Aim] = &[
    Aim {
        what: "DLX: all ports open after a restart",
        unit: "s",
        aim: 5.0,
        stage: REPLACE,
        value: |stage| stage.numbers.get("ports open").copied(),
    },
    Aim {
        what: "DLX: routes at rest after a restart",
        unit: "s",
        aim: 5.0,
        stage: REPLACE,
        value: |stage| stage.numbers.get("at rest dlx-2").copied(),
    },
    Aim {
        what: "decisions: lateness, p99",
        unit: "s",
        aim: 2.0,
        stage: SLEEP,
        value: |stage| stage.numbers.get("decision p99").copied(),
    },
    Aim {
        what: "autoscaler, idle: CPU",
        unit: "% of a core",
        aim: 5.0,
        stage: IDLE_AWAKE,
        value: |stage| percent(stage, "autoscaler"),
    },
    Aim {
        what: "DLX, idle: CPU",
        unit: "% of a core",
        aim: 2.0,
        stage: IDLE_AWAKE,
        value: |stage| percent(stage, "dlx-1"),
    },
    Aim {
        what: "autoscaler: most memory",
        unit: "MiB",
        aim: 200.0,
        stage: REPLACE,
        value: |stage| Some(mebibytes(stage.processes.get("autoscaler")?.peak_bytes)),
    },
    Aim {
        what: "DLX: most memory",
        unit: "MiB",
        aim: 150.0,
        stage: REPLACE,
        value: |stage| Some(mebibytes(stage.processes.get("dlx-1")?.peak_bytes)),
    },
    Aim {
        what: "requests per idle target and minute, all awake",
        unit: "",
        aim: 0.0,
        stage: IDLE_AWAKE,
        value: per_target_and_minute,
    },
    Aim {
        what: "requests per idle target and minute, some asleep",
        unit: "",
        aim: 0.0,
        stage: IDLE_ASLEEP,
        value: per_target_and_minute,
    },
];

pub const DECLARE: &str = "declare";
pub const LOOK: &str = "look";
pub const IDLE_AWAKE: &str = "idle, awake";
pub const SLEEP: &str = "sleep";
pub const IDLE_ASLEEP: &str = "idle, asleep";
pub const WAKE: &str = "wake";
pub const REPLACE: &str = "replace a DLX";
pub const LOSE: &str = "lose an autoscaler";

impl Report {
    pub fn new(args: &Args) -> Self {
        let folder = args.dormouse.parent().and_then(Path::file_name);
        Self {
            targets: args.targets,
            namespaces: args.namespaces,
            interval_seconds: args.interval,
            shards: args.shards,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            binary: folder.unwrap_or_default().to_string_lossy().into_owned(),
            stages: Vec::new(),
            ended: None,
        }
    }

    pub fn add(&mut self, stage: Stage) {
        println!("{}", line(&stage));
        self.stages.push(stage);
    }

    pub fn ended_by(&mut self, why: String) {
        self.ended = Some(why);
    }

    /// Appends it to a file.
    pub fn append(&self, file: &Path) -> anyhow::Result<()> {
        let mut opened = std::fs::File::options().create(true).append(true).open(file)?;
        writeln!(opened, "{}", serde_json::to_string(self)?)?;
        Ok(())
    }

    pub fn print(&self) {
        println!(
            "\n{} targets in {} namespaces, decided every {} s; {} cores; {} binary",
            self.targets, self.namespaces, self.interval_seconds, self.cores, self.binary
        );
        for stage in &self.stages {
            print_stage(stage);
        }
        println!(
            "\n{:<50} {:>10} {:>10}",
            "aim (for 10,000 targets)", "at most", "measured"
        );
        for aim in AIMS {
            let stage = self.stages.iter().find(|stage| stage.name == aim.stage);
            let value = stage.and_then(aim.value);
            let value = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            println!("{:<50} {:>10} {value:>10} {}", aim.what, aim.aim, aim.unit);
        }
        if let Some(why) = &self.ended {
            println!("\nended early: {why}");
        }
    }
}

fn line(stage: &Stage) -> String {
    let cpu: Vec<String> = stage
        .processes
        .iter()
        .map(|(name, cost)| format!("{name} {:.1} s", cost.cpu_seconds))
        .collect();
    format!(
        "{:<14} {:>7.1} s  {} of {}  CPU: {}",
        stage.name,
        stage.seconds,
        stage.done,
        stage.wanted,
        cpu.join(", ")
    )
}

fn print_stage(stage: &Stage) {
    println!(
        "\n{}: {:.1} s, {} of {}",
        stage.name, stage.seconds, stage.done, stage.wanted
    );
    println!(
        "  {:<12} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "CPU s", "core %", "waited s", "MiB", "most MiB", "requests", "each"
    );
    for (name, cost) in &stage.processes {
        let requests = beyond_watches(&cost.requests);
        println!(
            "  {name:<12} {:>9.2} {:>7.1} {:>9.2} {:>9.1} {:>9.1} {requests:>9} {:>9.2}",
            cost.cpu_seconds,
            cost.cpu_seconds / stage.seconds * 100.0,
            cost.waited_seconds,
            mebibytes(cost.resident_bytes),
            mebibytes(cost.peak_bytes),
            requests as f64 / f64::from(stage.wanted.max(1)),
        );
    }
    for (what, number) in &stage.numbers {
        println!("  {what}: {number:.3}");
    }
    for (name, cost) in &stage.processes {
        let mut requests: Vec<_> = cost.requests.iter().collect();
        requests.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown: Vec<String> = requests
            .iter()
            .take(12)
            .map(|(asked, count)| format!("{asked} {count}"))
            .collect();
        if !shown.is_empty() {
            println!("  {name}: {}", shown.join(", "));
        }
    }
    for failure in stage.failures.iter().take(5) {
        println!("  failed: {failure}");
    }
}

fn percent(stage: &Stage, process: &str) -> Option<f64> {
    Some(stage.processes.get(process)?.cpu_seconds / stage.seconds * 100.0)
}

fn per_target_and_minute(stage: &Stage) -> Option<f64> {
    let requests: u64 = stage
        .processes
        .values()
        .map(|cost| beyond_watches(&cost.requests) - of_leases(&cost.requests))
        .sum();
    Some(requests as f64 / f64::from(stage.wanted.max(1)) / (stage.seconds / 60.0))
}

/// The Lease is the process' own, however many targets there are.
fn of_leases(requests: &Requests) -> u64 {
    let asked = requests.iter().filter(|(asked, _)| asked.ends_with(" leases"));
    asked.map(|(_, count)| count).sum()
}
