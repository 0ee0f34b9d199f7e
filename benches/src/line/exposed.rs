//! What the line says about itself in its metrics.

use std::collections::BTreeMap;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The samples of a registry at a moment, by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Exposed(BTreeMap<String, f64>);

impl Exposed {
    pub fn by(registry: &Registry) -> anyhow::Result<Self> {
        let mut text = String::new();
        encode(&mut text, registry)?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// What a metric has risen by, over all its labels.
    fn rise(&self, before: &Self, name: &str) -> f64 {
        let total = |samples: &Self| -> f64 {
            let of_name = |series: &str| series.split('{').next() == Some(name);
            let found = samples.0.iter().filter(|(series, _)| of_name(series));
            found.map(|(_, value)| value).sum()
        };
        total(self) - total(before)
    }

    /// The mean of what a histogram has observed since `before`, if that is anything.
    pub fn mean(&self, before: &Self, histogram: &str) -> Option<f64> {
        let rise = |part: &str| self.rise(before, &format!("{histogram}_{part}"));
        let count = rise("count");
        (count > 0.0).then(|| rise("sum") / count)
    }

    /// The end of the bucket that a quantile of what a histogram without labels has observed since `before` is in. None: nothing was
    /// observed, or it is in the last one, which has no end.
    pub fn quantile(&self, before: &Self, histogram: &str, share: f64) -> Option<f64> {
        let prefix = format!("{histogram}_bucket{{le=\"");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (series, count) in &self.0 {
            let end = series
                .strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix("\"}"));
            // The last one is called +Inf, which is a number, too.
            if let Some(end) = end.and_then(|end| end.parse().ok()) {
                buckets.push((end, count - before.0.get(series).unwrap_or(&0.0)));
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all = buckets.last().map_or(0.0, |(_, count)| *count);
        let found = buckets
            .iter()
            .find(|(_, count)| all > 0.0 && *count >= all * share)?;
        Some(found.0).filter(|end| end.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"# TYPE late_seconds histogram
late_seconds_sum 1.0
late_seconds_count 10
late_seconds_bucket{le="0.001"} 10
late_seconds_bucket{le="2.0"} 10
late_seconds_bucket{le="+Inf"} 10
"#;
    const AFTER: &str = r#"late_seconds_sum 5.0
late_seconds_count 110
late_seconds_bucket{le="0.001"} 60
late_seconds_bucket{le="2.0"} 109
late_seconds_bucket{le="+Inf"} 110
# EOF
"#;

    #[test]
    fn a_histogram_tells_what_came_since() {
        let (before, after) = (Exposed::parse(BEFORE), Exposed::parse(AFTER));
        let quantile = |share| after.quantile(&before, "late_seconds", share);
        assert_eq!(
            (quantile(0.5), quantile(0.99), quantile(1.0)),
            (Some(0.001), Some(2.0), None)
        );
        assert_eq!(after.mean(&before, "late_seconds"), Some(0.04));
        assert_eq!(after.quantile(&after, "late_seconds", 0.5), None, "nothing came");
        assert_eq!(after.mean(&after, "late_seconds"), None);
    }

    #[test]
    fn all_labels_of_a_metric_count_and_no_other_metric_does() {
        let text = "runs_total{a=\"1\"} 1\nruns_total{a=\"2\"} 2\nruns_total_more 7\n";
        assert_eq!(Exposed::parse(text).rise(&Exposed::default(), "runs_total"), 3.0);
    }
}
