//! A node, which leads connections to where it believes a Service to lead.
//!
//! It follows at once, except after an outage of the API server: then it catches up at some time, in pieces, in any order.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::cluster::{Cluster, timings};

/// Where a Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// To its pods.
    pub pods: bool,
    /// To these DLX.
    pub dlx: BTreeSet<u8>,
}

impl Ends {
    pub fn is_nobody(&self) -> bool {
        !self.pods && self.dlx.is_empty()
    }
}

/// What a node last heard of each Service, as long as it is behind.
#[derive(Clone, Debug, Default)]
pub struct Node {
    behind: Option<Vec<Ends>>,
    /// It costs connections whatever Dormouse does: every DLX that it knew of for some Service has gone, or it heard of pods
    /// that were on their way out already, because somebody had put a selector back.
    excused: bool,
    last_outage: Option<Timestamp>,
}

impl Cluster {
    pub fn outage(&mut self) {
        self.node.last_outage = Some(self.now);
        // Late slices of a Sleeper that has gone are nothing to watch over.
        if self.sleeper.is_some() {
            let known: Vec<_> = (0..self.services.len()).map(|index| self.ends(index)).collect();
            self.node.excused |=
                (0..known.len()).any(|index| known[index].pods && self.pods_are_leaving(index));
            self.node.behind.get_or_insert(known);
            self.node_loses_dlx();
        }
    }

    /// DLX may have gone.
    pub fn node_loses_dlx(&mut self) {
        let gone = |ends: &Ends| !ends.dlx.is_empty() && !ends.dlx.iter().any(|last| self.dlx.contains(last));
        self.node.excused |= self.node.behind.iter().flatten().any(gone);
    }

    fn pods_are_leaving(&self, index: usize) -> bool {
        self.workloads[self.services[index].workload].replicas == 0
    }

    pub fn last_outage(&self) -> Option<Timestamp> {
        self.node.last_outage
    }

    /// It hears of the pods of a Service, or of its DLX. Two slices, and two pieces of news.
    pub fn node_hears(&mut self, index: usize, of_pods: bool) {
        let (now, leaving) = (self.ends(index), self.pods_are_leaving(index));
        let Some(known) = self.node.behind.as_mut().map(|known| &mut known[index]) else {
            return;
        };
        if of_pods {
            known.pods = now.pods;
            self.node.excused |= now.pods && leaving;
        } else if self.sleeper.is_some() {
            known.dlx = now.dlx;
        }
    }

    /// In the time that the protocol allows for, it hears of everything.
    pub fn node_catches_up(&mut self) {
        let grace = SignedDuration::try_from(timings().outage_grace).unwrap_or_default();
        if self.node.last_outage.is_some_and(|last| self.now >= last + grace) {
            self.node.behind = None;
            self.node.excused = false;
        }
    }

    /// What is wrong with where the node leads, if anything.
    pub fn led_astray(&self, index: usize) -> Option<&'static str> {
        let Some(known) = &self.node.behind else {
            return self.ends(index).is_nobody().then_some("leads to nobody");
        };
        if self.node.excused {
            return None;
        }
        let (leads, workload) = (&known[index], self.services[index].workload);
        let forgotten = |last| self.sleeper.is_none() && self.dlx.contains(last);
        if leads.is_nobody() {
            return Some("leads to nobody, on a node that is behind");
        }
        if leads.pods && !self.pods.iter().any(|pod| pod.workload == workload && pod.ready) {
            return Some("leads to pods that are gone, on a node that is behind");
        }
        leads
            .dlx
            .iter()
            .any(forgotten)
            .then_some("leads to a DLX that knows it no more, on a node that is behind")
    }

    fn ends(&self, index: usize) -> Ends {
        let service = &self.services[index];
        Ends {
            pods: service.listed,
            dlx: self.named(service).collect(),
        }
    }
}
