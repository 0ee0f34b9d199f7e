//! What the DLX knows of demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dormouse_lifecycle::Demand;
use futures::StreamExt;
use kube::ResourceExt;

use crate::Cluster;
use crate::api::Sleeper;
use crate::wire::{DemandEntry, DemandReport};

/// How many DLX replicas are asked at once.
const CONCURRENCY: usize = 16;

impl Cluster {
    /// Demand for a Sleeper at all DLX replicas. Unknown when one of them does not answer, or when there is none.
    pub async fn demand(&self, sleeper: &Sleeper) -> Demand {
        let (namespace, name) = (sleeper.namespace().unwrap_or_default(), sleeper.name_any());
        let query = format!("?namespace={namespace}&sleeper={name}");
        let Ok(reports) = self.ask_demand(&query).await else {
            return Demand::Unknown;
        };
        let current: u64 = reports
            .iter()
            .flat_map(|report| &report.sleepers)
            .filter(|entry| entry.namespace == namespace && entry.sleeper == name)
            .map(DemandEntry::current)
            .fold(0, u64::saturating_add);
        if current == 0 {
            Demand::None
        } else {
            Demand::Some(current)
        }
    }

    /// Demand for all Sleepers, summed over all DLX replicas, by namespace and object name: one question for each replica
    /// instead of one for each Sleeper. A Sleeper that is missing has none.
    ///
    /// # Errors
    /// Says which replica did not answer: demand is then unknown.
    pub async fn demand_of_all(&self) -> Result<BTreeMap<(String, String), DemandEntry>, String> {
        let mut sum: BTreeMap<(String, String), DemandEntry> = BTreeMap::new();
        for entry in self
            .ask_demand("")
            .await?
            .into_iter()
            .flat_map(|report| report.sleepers)
        {
            let key = (entry.namespace.clone(), entry.sleeper.clone());
            match sum.entry(key) {
                std::collections::btree_map::Entry::Vacant(empty) => {
                    empty.insert(entry);
                }
                std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().add(&entry),
            }
        }
        Ok(sum)
    }

    async fn ask_demand(&self, query: &str) -> Result<Vec<DemandReport>, String> {
        let dlx = self.dlx_endpoints();
        if dlx.ready.is_empty() {
            return Err("no DLX is ready".to_owned());
        }
        let Some(port) = dlx.admin_port else {
            return Err("the Service of the DLX has no port named admin".to_owned());
        };
        let answers: Vec<_> = futures::stream::iter(dlx.ready)
            .map(|ip| self.inner.dlx.demand(SocketAddr::new(ip, port), query))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut reports = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        // A replica that is ending may hold requests to the last. It may also be gone already, which is no news.
        let leaving: Vec<_> = futures::stream::iter(dlx.draining)
            .map(|ip| self.inner.dlx.demand(SocketAddr::new(ip, port), query))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        reports.extend(leaving.into_iter().flatten());
        Ok(reports)
    }
}
