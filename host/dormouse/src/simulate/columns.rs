//! In which column of the recording a number is.

use std::time::Duration;

use anyhow::{Result, bail};
use dormouse_model::{Metric, MetricSpec, Query, QuerySource, Trigger, metric_name};

use super::recording::Recording;
use super::target::column;

/// What the memory of pods is called.
pub(super) const MEMORY: &str = "memory";

/// A column, and how it answers what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub index: usize,
    /// It holds what there was at a moment, and is asked about a window.
    pub over_window: bool,
}

impl Column {
    /// One that answers with what it holds at the moment.
    pub fn now(name: String, index: usize) -> Self {
        Self {
            name,
            index,
            over_window: false,
        }
    }
}

/// Names that a column may have.
struct Candidate {
    name: String,
    over_window: bool,
}

impl Candidate {
    fn now(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            over_window: false,
        }
    }

    fn over_window(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            over_window: true,
        }
    }
}

/// The column of an idle rule. `needed` is the one of requests.
pub(super) fn of_rule(rule: &Trigger, recording: &Recording, needed: &str) -> Result<Column> {
    match &rule.query {
        Ok(query) => find(recording, &of_query(query, Some(rule.window), needed)?),
        Err(why) => bail!("{}: {why}", rule.name),
    }
}

/// The column of a metric that decides about a number of replicas.
pub(super) fn of_metric(metric: &Metric, recording: &Recording, needed: &str) -> Result<Column> {
    let query = match &metric.query {
        Ok(query) => query,
        Err(why) => bail!("{}: {why}", metric.spec),
    };
    let mut candidates = of_query(query, None, needed)?;
    // A metric over a window may also be recorded under its plain name.
    if let MetricSpec::Object { .. } = metric.spec {
        candidates.push(Candidate::now(column(&metric.spec)));
    }
    find(recording, &candidates)
}

fn of_query(query: &Query, window: Option<Duration>, needed: &str) -> Result<Vec<Candidate>> {
    Ok(match query {
        Query::Traffic { .. } => vec![Candidate::over_window(needed)],
        Query::Concurrency { .. } => vec![Candidate::now(needed)],
        Query::ArrivalRate { .. } => vec![Candidate::now(QuerySource::DlxRate.as_str())],
        Query::Custom { metric, .. } => {
            let suffix = window.map(|window| metric_name("", window));
            let plain = suffix.and_then(|suffix| metric.strip_suffix(&suffix));
            let plain = plain.map(Candidate::over_window);
            std::iter::once(Candidate::now(metric)).chain(plain).collect()
        }
        Query::External { metric, .. } => vec![Candidate::now(metric)],
        Query::Usage { resource, .. } => vec![Candidate::now(resource)],
        Query::Prometheus { query, .. } => {
            let words: Vec<_> = query.split_whitespace().collect();
            vec![Candidate::now(words.join(" "))]
        }
        Query::PrometheusPods { .. } => vec![Candidate::now(MEMORY)],
        Query::Pods { scrape, .. } => vec![Candidate::now(&scrape.metric)],
        Query::Given(value) => bail!("a reading that its plugin has taken ({value}) is not recorded"),
    })
}

/// The first that there is.
fn find(recording: &Recording, candidates: &[Candidate]) -> Result<Column> {
    let names: Vec<_> = candidates.iter().map(|candidate| &*candidate.name).collect();
    let (position, index) = recording.first_column(&names)?;
    let over_window = candidates.get(position).is_some_and(|found| found.over_window);
    let name = names.get(position).copied().unwrap_or_default().to_owned();
    Ok(Column {
        name,
        index,
        over_window,
    })
}
