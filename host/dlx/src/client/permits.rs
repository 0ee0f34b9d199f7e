//! Permits for client connections: in all, for each listener, and for each address.
//!
//! A place is taken once a client is there, so a listener that nobody uses holds none. When there is none left, connections
//! without a request give theirs up, those that have been idle longest first, then those whose clients may have gone. If none
//! can, the newcomer waits, and whoever comes behind it at that listener waits in the kernel. Only so many may wait; beyond that a
//! newcomer is reset, because the descriptors that it would wait with belong to others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Connections, ListenerKind};
use crate::{Limits, lock};

/// Newcomers that wait for a place, over all listeners.
const WAITING: usize = 32;
/// How often it is looked for somebody who could give up its place, while a newcomer waits.
const RELIEF: Duration = Duration::from_millis(100);

/// A place among the open connections.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    _permits: [OwnedSemaphorePermit; 2],
    _address: Option<AtAddress>,
    open: Gauge,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Why somebody got no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its address has as many as an address may have.
    Address,
    /// Too many wait for one.
    All,
}

/// Permits for client connections.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    all: Arc<Semaphore>,
    waiting: Semaphore,
    per_listener: usize,
    addresses: Addresses,
    open: Gauge,
}

impl ConnectionPermits {
    pub(crate) fn new(limits: &Limits, open: &Gauge) -> Self {
        let all = limits.connections.min(Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(all)),
            waiting: Semaphore::new(WAITING),
            // One listener cannot use up what the others need.
            per_listener: all - all / 4,
            addresses: Addresses::new(limits.connections_per_client),
            open: open.clone(),
        }
    }

    /// The share of one listener.
    pub(crate) fn share(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.per_listener))
    }

    /// A place for a client that has come in.
    ///
    /// # Errors
    /// Says who is full.
    pub(crate) async fn take(
        &self,
        listener: ListenerKind,
        share: &Arc<Semaphore>,
        peer: IpAddr,
        connections: &Connections,
    ) -> Result<Arc<ConnectionPermit>, Full> {
        let address = self.addresses.enter(peer).map_err(|()| Full::Address)?;
        let at_listener = Arc::clone(share).try_acquire_owned();
        let in_all = Arc::clone(&self.all).try_acquire_owned();
        if let (Ok(at_listener), Ok(in_all)) = (at_listener, in_all) {
            return Ok(self.place([at_listener, in_all], address));
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| Full::All)?;
        let permits = async {
            let at_listener = Arc::clone(share).acquire_owned().await;
            let in_all = Arc::clone(&self.all).acquire_owned().await;
            at_listener.and_then(|at_listener| Ok([at_listener, in_all?]))
        };
        let mut permits = std::pin::pin!(permits);
        loop {
            let of_listener = share.available_permits() == 0;
            connections.relieve(|candidate| !of_listener || candidate == listener);
            if let Ok(permits) = tokio::time::timeout(RELIEF, &mut permits).await {
                return permits
                    .map(|permits| self.place(permits, address))
                    .map_err(|_closed| Full::All);
            }
        }
    }

    fn place(&self, permits: [OwnedSemaphorePermit; 2], address: Option<AtAddress>) -> Arc<ConnectionPermit> {
        self.open.inc();
        Arc::new(ConnectionPermit {
            _permits: permits,
            _address: address,
            open: self.open.clone(),
        })
    }
}

/// How many each address has of something.
#[derive(Debug)]
pub(crate) struct Addresses {
    most: Option<usize>,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    pub(crate) fn new(most: Option<usize>) -> Self {
        Self {
            most,
            counts: Arc::default(),
        }
    }

    /// Counts one more until the guard is dropped. None: nobody counts.
    pub(crate) fn enter(&self, peer: IpAddr) -> Result<Option<AtAddress>, ()> {
        let Some(most) = self.most else { return Ok(None) };
        let peer = network(peer);
        let mut counts = lock(&self.counts);
        let count = counts.entry(peer).or_default();
        if *count >= most {
            return Err(());
        }
        *count += 1;
        Ok(Some(AtAddress {
            counts: Arc::clone(&self.counts),
            peer,
        }))
    }
}

/// What one client can choose its address from: an IPv6 client has a /64 network.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// One of those that an address has.
#[derive(Debug)]
pub(crate) struct AtAddress {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    peer: IpAddr,
}

impl Drop for AtAddress {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f04_an_address_has_its_share_and_leaves_nothing_behind() {
        let addresses = Addresses::new(Some(2));
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let first = addresses.enter(one).unwrap();
        let _second = addresses.enter(mapped).unwrap();
        assert!(addresses.enter(one).is_err());
        assert!(addresses.enter("10.0.0.2".parse().unwrap()).is_ok());
        drop(first);
        assert!(addresses.enter(one).is_ok());
        assert_eq!(lock(&addresses.counts).len(), 1, "who has none is forgotten");
        assert_eq!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8::2".parse().unwrap())
        );
        assert_ne!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8:0:1::1".parse().unwrap())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn f16_a_place_is_taken_by_who_has_come_and_who_finds_none_waits_for_it() {
        let limits = Limits {
            connections: 4,
            ..Limits::default()
        };
        let open = Gauge::default();
        let (places, connections) = (ConnectionPermits::new(&limits, &open), Connections::default());
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let (one, two) = (places.share(), places.share());
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(
                places
                    .take(ListenerKind::Port(1), &one, peer, &connections)
                    .await
                    .unwrap(),
            );
        }
        let more = places.take(ListenerKind::Port(1), &one, peer, &connections);
        let more = tokio::time::timeout(Duration::from_secs(1), more).await;
        assert!(more.is_err(), "a listener has three quarters");
        taken.push(
            places
                .take(ListenerKind::Port(2), &two, peer, &connections)
                .await
                .unwrap(),
        );
        assert_eq!(open.get(), 4);
        let next = places.take(ListenerKind::Port(2), &two, peer, &connections);
        let mut next = Box::pin(next);
        assert!(futures::poll!(&mut next).is_pending());
        taken.remove(0);
        assert!(next.await.is_ok());
    }
}
