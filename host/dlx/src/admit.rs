//! Places in the queue: bounded for each resource and in all, in requests and in bytes of what was already received.
//!
//! A place is given back by dropping it, so a client that leaves gives up its place whatever it was waiting for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::request::Parts;

use crate::demand::ResourceState;
use crate::rescue::Rescue;
use crate::{Limits, Metrics};

/// Requests and bytes in a queue.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl Usage {
    /// Takes a place, or takes nothing. Two that race for the last place may both be refused; never both let in.
    fn enter(&self, bytes: usize, most_requests: usize, most_bytes: usize) -> bool {
        if self.requests.fetch_add(1, Ordering::Relaxed) >= most_requests {
            self.requests.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if self
            .bytes
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes)
            > most_bytes
        {
            self.leave(bytes);
            return false;
        }
        true
    }

    /// Takes a place whatever the limits say.
    fn take(&self, bytes: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn leave(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn now(&self) -> (usize, usize) {
        (
            self.requests.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

/// Who lets requests into the queue.
#[derive(Debug)]
pub(crate) struct Admission {
    all: Arc<Usage>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Admission {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        metrics
            .held_limit
            .set(i64::try_from(limits.held).unwrap_or(i64::MAX));
        metrics
            .held_bytes_limit
            .set(i64::try_from(limits.held_bytes).unwrap_or(i64::MAX));
        Self {
            all: Arc::default(),
            limits,
            metrics,
        }
    }

    /// A place for a request that had one before: it is sent again, and is not refused for those who came after it.
    pub(crate) fn readmit(&self, resource: &Arc<ResourceState>, bytes: usize) -> Place {
        resource.queue.take(bytes);
        self.all.take(bytes);
        self.place(resource, bytes)
    }

    /// A place for a request whose head has `bytes` bytes.
    ///
    /// # Errors
    /// [`Rescue::QueueFull`] when the resource has no place, [`Rescue::Overloaded`] when nobody has.
    pub(crate) fn admit(&self, resource: &Arc<ResourceState>, bytes: usize) -> Result<Place, Rescue> {
        let limits = &self.limits;
        if !resource
            .queue
            .enter(bytes, limits.held_per_resource, limits.held_bytes_per_resource)
        {
            return Err(Rescue::QueueFull);
        }
        if !self.all.enter(bytes, limits.held, limits.held_bytes) {
            resource.queue.leave(bytes);
            return Err(Rescue::Overloaded);
        }
        Ok(self.place(resource, bytes))
    }

    fn place(&self, resource: &Arc<ResourceState>, bytes: usize) -> Place {
        self.metrics.held.inc();
        self.metrics.held_bytes.inc_by(signed(bytes));
        Place {
            all: Arc::clone(&self.all),
            resource: Arc::clone(resource),
            bytes,
            since: Instant::now(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<Usage>,
    resource: Arc<ResourceState>,
    bytes: usize,
    since: Instant,
    metrics: Arc<Metrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.leave(self.bytes);
        self.resource.queue.leave(self.bytes);
        self.metrics.held.dec();
        self.metrics.held_bytes.dec_by(signed(self.bytes));
        self.metrics
            .hold_seconds
            .observe(self.since.elapsed().as_secs_f64());
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes of a received request head, about as they were on the wire.
pub(crate) fn head_bytes(head: &Parts) -> usize {
    let line = head.method.as_str().len()
        + head.uri.path().len()
        + head.uri.query().map_or(0, |query| query.len() + 1)
        + head
            .uri
            .authority()
            .map_or(0, |authority| authority.as_str().len());
    head.headers.iter().fold(line + 12, |sum, (name, value)| {
        sum + name.as_str().len() + value.len() + 4
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;

    fn limits() -> Limits {
        Limits {
            held_per_resource: 2,
            held_bytes_per_resource: 100,
            held: 3,
            held_bytes: 1000,
            ..Limits::default()
        }
    }

    #[test]
    fn a_full_resource_is_429_and_a_full_house_is_503() {
        let admission = Admission::new(limits(), Arc::default());
        let ledger = Ledger::default();
        let (one, two) = (ledger.state("ns", "one"), ledger.state("ns", "two"));
        let first = admission.admit(&one, 10).unwrap();
        let _second = admission.admit(&one, 10).unwrap();
        assert_eq!(admission.admit(&one, 10).unwrap_err(), Rescue::QueueFull);
        let _third = admission.admit(&two, 10).unwrap();
        assert_eq!(admission.admit(&two, 10).unwrap_err(), Rescue::Overloaded);
        assert_eq!(
            two.queue.now(),
            (1, 10),
            "a refused request leaves nothing behind"
        );
        drop(first);
        let _again = admission.admit(&two, 10).unwrap();
    }

    #[test]
    fn bytes_are_bounded_as_well() {
        let admission = Admission::new(limits(), Arc::default());
        let resource = Ledger::default().state("ns", "one");
        let place = admission.admit(&resource, 60).unwrap();
        assert_eq!(admission.admit(&resource, 41).unwrap_err(), Rescue::QueueFull);
        assert_eq!(resource.queue.now(), (1, 60));
        drop(place);
        assert_eq!(resource.queue.now(), (0, 0));
        assert_eq!(admission.metrics.held.get(), 0);
        assert_eq!(admission.metrics.held_bytes.get(), 0);
    }

    #[test]
    fn a_head_counts_its_lines_and_fields() {
        let request = http::Request::get("http://host/path?q=1")
            .header("name", "value")
            .body(())
            .unwrap();
        assert_eq!(
            head_bytes(&request.into_parts().0),
            3 + 5 + 4 + 4 + 12 + 4 + 5 + 4
        );
    }
}
