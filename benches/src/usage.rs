//! What a process has used, as Linux counts it.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// CPU seconds of a process, from the text of its `/proc/<pid>/stat`.
pub fn cpu_seconds(stat: &str) -> anyhow::Result<f64> {
    // The second field is a name that may hold spaces; user and system time are the 14th and 15th.
    let rest = stat.rsplit_once(')').context("an odd stat")?.1;
    let ticks: Vec<f64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// Bytes of memory, from a line of the text of its `/proc/<pid>/status`, such as `VmRSS`.
pub fn memory(status: &str, line: &str) -> anyhow::Result<u64> {
    let found = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let size = found.with_context(|| format!("no {line}"))?;
    let kilobytes: u64 = size.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

/// Seconds that the threads of a process ran, and for which they were ready to run while others had the processors. Those that have ended
/// are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scheduled {
    pub ran: f64,
    pub waited: f64,
}

impl Scheduled {
    /// Of a process, by its folder in `/proc`.
    pub fn of(process: &Path) -> anyhow::Result<Self> {
        let tasks = process.join("task");
        let mut all = Self::default();
        let listed = fs::read_dir(&tasks).with_context(|| format!("cannot read {}", tasks.display()))?;
        for task in listed.flatten() {
            // A thread that has ended meanwhile has nothing to say.
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let one = Self::parse(&text);
            all.ran += one.ran;
            all.waited += one.waited;
        }
        Ok(all)
    }

    fn parse(schedstat: &str) -> Self {
        let mut seconds = schedstat
            .split_whitespace()
            .map(|nanos| nanos.parse::<f64>().unwrap_or(0.0) / 1e9);
        Self {
            ran: seconds.next().unwrap_or(0.0),
            waited: seconds.next().unwrap_or(0.0),
        }
    }
}

/// Bytes in the unit in which people read memory.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_counts_nanoseconds() {
        let scheduled = Scheduled::parse("1500000000 250000000 77\n");
        assert_eq!(
            scheduled,
            Scheduled {
                ran: 1.5,
                waited: 0.25
            }
        );
        assert_eq!(Scheduled::parse(""), Scheduled::default());
    }
}
