//! What the DLX knows of demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dormouse_lifecycle::Demand;
use futures::StreamExt;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::api::Sleeper;

/// How many DLX replicas are asked at once.
const CONCURRENCY: usize = 16;

/// Answer of a DLX replica to `GET /demand` on its admin port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DemandReport {
    /// Sleepers that the replica has or had demand for. One that is missing has none.
    pub sleepers: Vec<DemandEntry>,
}

/// Demand for one Sleeper at one DLX replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DemandEntry {
    /// Namespace of the Sleeper.
    pub namespace: String,
    /// Object name of the Sleeper.
    pub sleeper: String,
    /// Requests that wait for it.
    pub held: u64,
    /// Requests that are being answered.
    pub in_flight: u64,
    /// Open upgraded connections (WebSocket) and those that are not HTTP, on which bytes have moved not long ago.
    pub upgraded: u64,
    /// Requests and connections since the replica began to count.
    pub total: u64,
    /// Milliseconds since the last request or connection ended, or 0 while there is one. None: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_millis: Option<u64>,
}

impl DemandEntry {
    /// Demand right now.
    pub fn current(&self) -> u64 {
        self.held
            .saturating_add(self.in_flight)
            .saturating_add(self.upgraded)
    }

    fn add(&mut self, other: &Self) {
        self.held = self.held.saturating_add(other.held);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.upgraded = self.upgraded.saturating_add(other.upgraded);
        self.total = self.total.saturating_add(other.total);
        // The most recent end counts.
        self.idle_millis = match (self.idle_millis, other.idle_millis) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }
}

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
