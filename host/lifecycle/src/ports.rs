//! Which DLX port stands in for which Service port.

use std::collections::BTreeSet;

use jiff::Timestamp;
use thiserror::Error;

use crate::DivertedPort;

/// The ports that the DLX may listen on for Services, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl Default for PortRange {
    /// Below the ephemeral range of Linux (32768-60999) and below node ports (30000-32767).
    fn default() -> Self {
        Self {
            first: 20000,
            last: 29999,
        }
    }
}

/// A port that some Sleeper holds already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Namespace and name of the Sleeper.
    pub sleeper: (String, String),
    /// When the Sleeper was created: of two claims to one port, the older wins.
    pub created: Option<Timestamp>,
    /// The port.
    pub dlx_port: u16,
}

/// What an allocation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// All ports of the Sleeper, old ones that are still its own included.
    pub ports: Vec<DivertedPort>,
    /// Ports that it held but that belong to an older claim.
    pub lost: Vec<u16>,
}

/// Every port of the range is taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("all DLX ports from {} to {} are taken; widen the range (--dlx-ports)", range.first, range.last)]
pub struct PortsExhausted {
    /// The range.
    pub range: PortRange,
}

/// Gives every wanted Service port (service, port name, port) a DLX port, keeping those that `held` has unless an older claim of
/// another Sleeper exists. Ports are handed out from the lowest free one, starting at a place that `seed` chooses, so
/// that allocations made from a stale view rarely collide. `claim` tells the oldest claim of another Sleeper to a port.
///
/// # Errors
/// [`PortsExhausted`] when the range has no free port left.
pub fn allocate(
    range: PortRange,
    me: (&(String, String), Option<Timestamp>),
    held: &[DivertedPort],
    wanted: &[(String, String, u16)],
    claim: impl Fn(u16) -> Option<Claim>,
    seed: u64,
) -> Result<Allocation, PortsExhausted> {
    let (name, created) = me;
    let older = |claim: &Claim| (claim.created, &claim.sleeper) < (created, name);
    let lost_to_older = |port: u16| claim(port).is_some_and(|claim| older(&claim));
    let mut taken = BTreeSet::new();
    let mut ports = Vec::with_capacity(wanted.len());
    let mut lost = Vec::new();
    let mut missing = Vec::new();
    for (service, port_name, port) in wanted {
        let kept = held
            .iter()
            .find(|h| h.service == *service && h.name == *port_name && h.port == *port);
        match kept {
            Some(kept)
                if lost_to_older(kept.dlx_port)
                    || kept.dlx_port == 0
                    || ports
                        .iter()
                        .any(|port: &DivertedPort| port.dlx_port == kept.dlx_port) =>
            {
                lost.push(kept.dlx_port);
                missing.push((service, port_name, *port));
            }
            Some(kept) => {
                taken.insert(kept.dlx_port);
                ports.push(kept.clone());
            }
            None => missing.push((service, port_name, *port)),
        }
    }
    let size = u64::from(range.last.saturating_sub(range.first)) + 1;
    for (service, port_name, port) in missing {
        let free = (0..size)
            .map(|offset| range.first + u16::try_from((seed % size + offset) % size).unwrap_or(0))
            .find(|candidate| !taken.contains(candidate) && claim(*candidate).is_none())
            .ok_or(PortsExhausted { range })?;
        taken.insert(free);
        ports.push(DivertedPort {
            service: service.clone(),
            name: port_name.clone(),
            port,
            dlx_port: free,
        });
    }
    Ok(Allocation { ports, lost })
}
