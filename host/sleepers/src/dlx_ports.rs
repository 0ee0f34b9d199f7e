//! Which DLX ports belong to which Sleeper, as all Sleepers record them.

use std::sync::Arc;

use dormouse_kubernetes::services::ports;
use dormouse_lifecycle::{Allocation, Claim, PortRange, PortsExhausted, allocate};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::Sleeper;
use crate::caches::{Caches, claiming_port};
use crate::key::seed;
use crate::observed::Observed;

/// Allocates DLX ports. It reads the caches and makes no request. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PortAllocator {
    caches: Arc<Caches>,
    range: PortRange,
}

impl PortAllocator {
    pub(crate) fn new(caches: Arc<Caches>, range: PortRange) -> Self {
        Self { caches, range }
    }

    /// DLX ports for all Service ports of a Sleeper.
    pub(crate) fn allocate(&self, observed: &Observed) -> Result<Allocation, PortsExhausted> {
        let sleeper = &observed.sleeper;
        let name = (observed.namespace(), sleeper.name_any());
        let mut wanted = Vec::new();
        for service in &sleeper.spec.services {
            let ports = observed.service(service).map(ports).unwrap_or_default();
            wanted.extend(
                ports
                    .into_iter()
                    .map(|(name, port)| (service.clone(), name, port)),
            );
        }
        allocate(
            self.range,
            (&name, created(sleeper)),
            &observed.observation.state.ports,
            &wanted,
            |port| self.oldest_claim_of_another(&name, port),
            seed(&name.0, &name.1),
        )
    }

    /// Why a Service port that has no DLX port cannot get one.
    pub(crate) fn why_exhausted(&self, observed: &Observed) -> Option<String> {
        if !observed.observation.lacks_ports() {
            return None;
        }
        let exhausted = self.allocate(observed).err()?;
        Some(exhausted.to_string())
    }

    /// Ports that a Sleeper records although they are not its own: of an older claim, recorded twice, or none at all.
    pub(crate) fn lost(&self, sleeper: &Sleeper) -> Vec<u16> {
        let held: Vec<u16> = recorded(sleeper).collect();
        let mut lost: Vec<u16> = held
            .iter()
            .copied()
            .filter(|port| self.is_claimed_earlier(sleeper, *port))
            .collect();
        let is_twice = |port: &u16| *port == 0 || held.iter().filter(|other| *other == port).count() > 1;
        lost.extend(held.iter().copied().filter(is_twice));
        lost
    }

    fn is_claimed_earlier(&self, sleeper: &Sleeper, port: u16) -> bool {
        let others = self.caches.sleepers.with(claiming_port(port));
        others
            .iter()
            .any(|other| recorded(other).any(|claimed| claimed == port) && age(other) < age(sleeper))
    }

    fn oldest_claim_of_another(&self, name: &(String, String), port: u16) -> Option<Claim> {
        let others = self.caches.sleepers.with(claiming_port(port));
        others
            .iter()
            .filter(|sleeper| recorded(sleeper).any(|claimed| claimed == port))
            .map(|sleeper| Claim {
                sleeper: (sleeper.namespace().unwrap_or_default(), sleeper.name_any()),
                created: created(sleeper),
                dlx_port: port,
            })
            .filter(|claim| claim.sleeper != *name)
            .min_by(|one, other| (one.created, &one.sleeper).cmp(&(other.created, &other.sleeper)))
    }
}

/// The DLX ports that a Sleeper records.
fn recorded(sleeper: &Sleeper) -> impl Iterator<Item = u16> {
    let ports = sleeper.status.iter().flat_map(|status| &status.state.ports);
    ports.map(|port| port.dlx_port)
}

fn created(sleeper: &Sleeper) -> Option<Timestamp> {
    sleeper.creation_timestamp().map(|time| time.0)
}

/// The older of two Sleepers is the lesser one.
fn age(sleeper: &Sleeper) -> (Option<Timestamp>, String, String) {
    let namespace = sleeper.namespace().unwrap_or_default();
    (created(sleeper), namespace, sleeper.name_any())
}
