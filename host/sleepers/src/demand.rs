//! The demand for Sleepers, as the DLX reports it.

use std::collections::BTreeMap;
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

    /// Demand for a Sleeper at all replicas. Unknown when one of them does not answer, or when there is none.
    pub async fn of(&self, sleeper: &Sleeper) -> Demand {
        let (namespace, name) = (sleeper.namespace().unwrap_or_default(), sleeper.name_any());
        let query = format!("?namespace={namespace}&sleeper={name}");
        let Ok(reports) = self.reports(&query).await else {
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

    /// Demand for all Sleepers, summed over all replicas, by namespace and object name: one request to each replica instead of one for
    /// each Sleeper. A Sleeper that is missing has none.
    ///
    /// # Errors
    /// Says which replica did not answer: demand is then unknown.
    pub async fn of_all(&self) -> Result<BTreeMap<(String, String), DemandEntry>, String> {
        let mut sum: BTreeMap<(String, String), DemandEntry> = BTreeMap::new();
        let reports = self.reports("").await?;
        for entry in reports.into_iter().flat_map(|report| report.sleepers) {
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

    async fn reports(&self, query: &str) -> Result<Vec<DemandReport>, String> {
        let dlx = self.replicas.endpoints();
        if dlx.ready.is_empty() {
            return Err("no DLX is ready".to_owned());
        }
        let Some(port) = dlx.admin_port else {
            return Err("the Service of the DLX has no port named admin".to_owned());
        };
        let answers = self.ask(dlx.ready, port, query).await;
        let mut reports = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        // A replica that is ending may hold requests to the last. If it is gone already, it holds none.
        let ending = self.ask(dlx.draining, port, query).await;
        reports.extend(ending.into_iter().flatten());
        Ok(reports)
    }

    async fn ask(&self, replicas: Vec<IpAddr>, port: u16, query: &str) -> Vec<Result<DemandReport, String>> {
        futures::stream::iter(replicas)
            .map(|ip| self.client.demand(SocketAddr::new(ip, port), query))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }
}
