//! The demand for Sleepers, as the DLX reports it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};

use dormouse_lifecycle::Demand;
use futures::StreamExt;
use kube::ResourceExt;

use crate::api::Sleeper;
use crate::dlx::DlxReplicas;
use crate::dlx_client::DlxClient;
use crate::wire::{DemandEntry, DemandReport};

/// How many replicas are asked at once.
const CONCURRENCY: usize = 16;

/// Asks all replicas of the DLX for demand. Cheap to clone.
#[derive(Clone)]
pub struct DemandClient {
    replicas: DlxReplicas,
    client: DlxClient,
}

impl DemandClient {
    pub(crate) fn new(replicas: DlxReplicas, client: DlxClient) -> Self {
        Self { replicas, client }
    }

    /// Demand for a Sleeper at all replicas. Unknown when no replica tells of any and one does not answer, or when there is none.
    pub async fn of(&self, sleeper: &Sleeper) -> Demand {
        let (namespace, name) = (sleeper.namespace().unwrap_or_default(), sleeper.name_any());
        let query = format!("?namespace={namespace}&sleeper={name}");
        let Ok(total) = self.total(&query).await else {
            return Demand::Unknown;
        };
        let current = total.of(&namespace, &name).map_or(0, DemandEntry::current);
        match (current, total.unanswered) {
            (0, None) => Demand::None,
            (0, Some(_)) => Demand::Unknown,
            (current, _) => Demand::Some(current),
        }
    }

    /// Demand for all Sleepers, summed over all replicas: one request to each replica instead of one for each Sleeper.
    ///
    /// # Errors
    /// Says why there is nobody to ask.
    pub async fn of_all(&self) -> Result<TotalDemand, String> {
        self.total("").await
    }

    async fn total(&self, query: &str) -> Result<TotalDemand, String> {
        let dlx = self.replicas.endpoints();
        if dlx.ready.is_empty() {
            return Err("no DLX is ready".to_owned());
        }
        let Some(port) = dlx.admin_port else {
            return Err("the Service of the DLX has no port named admin".to_owned());
        };
        let (answers, ending) = futures::join!(
            self.ask(dlx.ready, port, query),
            self.ask(dlx.draining, port, query)
        );
        // A replica that is ending may hold requests to the last. If it is gone already, it holds none.
        let ending = ending.into_iter().filter(Result::is_ok);
        Ok(answers.into_iter().chain(ending).collect())
    }

    async fn ask(&self, replicas: Vec<IpAddr>, port: u16, query: &str) -> Vec<Result<DemandReport, String>> {
        futures::stream::iter(replicas)
            .map(|ip| self.client.demand(SocketAddr::new(ip, port), query))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }
}

/// Demand for Sleepers, summed over all replicas of the DLX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TotalDemand {
    /// By namespace and object name of the Sleeper. One that is missing has none.
    pub sleepers: BTreeMap<(String, String), DemandEntry>,
    /// Why a replica did not answer: there may be more demand than is known.
    pub unanswered: Option<String>,
}

impl TotalDemand {
    /// Demand for a Sleeper, as far as it is known.
    #[must_use]
    pub fn of(&self, namespace: &str, sleeper: &str) -> Option<&DemandEntry> {
        self.sleepers.get(&(namespace.to_owned(), sleeper.to_owned()))
    }

    fn add(&mut self, report: DemandReport) {
        for entry in report.sleepers {
            let key = (entry.namespace.clone(), entry.sleeper.clone());
            match self.sleepers.entry(key) {
                Entry::Vacant(empty) => {
                    empty.insert(entry);
                }
                Entry::Occupied(mut known) => known.get_mut().add(&entry),
            }
        }
    }
}

impl FromIterator<Result<DemandReport, String>> for TotalDemand {
    fn from_iter<T: IntoIterator<Item = Result<DemandReport, String>>>(answers: T) -> Self {
        let mut total = Self::default();
        for answer in answers {
            match answer {
                Ok(report) => total.add(report),
                Err(why) => total.unanswered = Some(why),
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(held: u64) -> Result<DemandReport, String> {
        let entry = DemandEntry {
            namespace: "shop".to_owned(),
            sleeper: "web".to_owned(),
            held,
            ..DemandEntry::default()
        };
        Ok(DemandReport {
            sleepers: vec![entry],
        })
    }

    #[test]
    fn what_all_replicas_hold_is_added_up_and_a_silent_one_is_named() {
        let total: TotalDemand = [report(2), Err("127.0.9.2 does not answer".to_owned()), report(3)]
            .into_iter()
            .collect();
        assert_eq!(total.of("shop", "web").map(|entry| entry.held), Some(5));
        assert_eq!(total.of("shop", "api"), None);
        assert_eq!(total.unanswered.as_deref(), Some("127.0.9.2 does not answer"));
    }
}
