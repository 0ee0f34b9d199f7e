//! What a process has used, as Linux counts it.

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
