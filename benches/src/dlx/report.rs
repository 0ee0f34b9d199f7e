//! What was measured, each beside its baseline.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// One measure of us and of the baseline, taken in turns.
#[derive(Debug)]
pub struct Row {
    what: String,
    unit: &'static str,
    baseline: &'static str,
    aim: Option<f64>,
    /// Of us and of the baseline, one for each pass.
    passes: Vec<(f64, f64)>,
}

impl Row {
    /// Nothing was measured yet.
    pub fn new(what: impl Into<String>, unit: &'static str, baseline: &'static str) -> Self {
        Self {
            what: what.into(),
            unit,
            baseline,
            aim: None,
            passes: Vec::new(),
        }
    }

    /// We should not have more than this.
    pub fn aim(mut self, most: f64) -> Self {
        self.aim = Some(most);
        self
    }

    /// One more pass.
    pub fn pass(&mut self, ours: f64, baseline: f64) {
        self.passes.push((ours, baseline));
    }

    fn line(&self) -> Line<'_> {
        let mut ratios: Vec<f64> = self
            .passes
            .iter()
            .map(|(ours, baseline)| ours / baseline)
            .collect();
        ratios.sort_by(f64::total_cmp);
        Line {
            what: &self.what,
            unit: self.unit,
            ours: median(self.passes.iter().map(|(ours, _)| *ours).collect()),
            baseline: self.baseline,
            theirs: median(self.passes.iter().map(|(_, baseline)| *baseline).collect()),
            ratio: median(ratios.clone()),
            lowest: ratios.first().copied().unwrap_or(f64::NAN),
            highest: ratios.last().copied().unwrap_or(f64::NAN),
            passes: self.passes.len(),
            aim: self.aim,
        }
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Medians over the passes, and of their ratios the median and both ends.
#[derive(Serialize)]
struct Line<'a> {
    what: &'a str,
    unit: &'a str,
    ours: f64,
    baseline: &'a str,
    theirs: f64,
    ratio: f64,
    lowest: f64,
    highest: f64,
    passes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<f64>,
}

/// Prints all rows, and writes them to a file.
///
/// # Errors
/// A file that cannot be written.
pub fn report(rows: &[Row], skipped: &[String], json: Option<&Path>) -> anyhow::Result<()> {
    let lines: Vec<Line<'_>> = rows.iter().map(Row::line).collect();
    println!(
        "\n{:<44} {:>10} {:>10} {:<6} {:<18} {:>6}  ratios of passes",
        "medians", "ours", "theirs", "", "baseline", "ratio"
    );
    for line in &lines {
        let aim = line
            .aim
            .map_or_else(String::new, |aim| format!("   aim: at most {aim} {}", line.unit));
        println!(
            "{:<44} {:>10.2} {:>10.2} {:<6} {:<18} {:>6.2}  {:.2} to {:.2}, {}{aim}",
            line.what,
            line.ours,
            line.theirs,
            line.unit,
            line.baseline,
            line.ratio,
            line.lowest,
            line.highest,
            line.passes,
        );
    }
    for skipped in skipped {
        println!("skipped: {skipped}");
    }
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "rows": lines, "skipped": skipped }))?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
