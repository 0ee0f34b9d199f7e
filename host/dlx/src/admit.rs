//! Places in the queue: bounded for each resource and in all, in requests and in bytes of what was already received.
//!
//! A place is given back by dropping it, so a client that leaves gives up its place whatever it was waiting for. One that may
//! have left, because it has closed its sending side, is the first to give up its place when there is none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use http::request::Parts;
use tokio::sync::Notify;

use crate::rescue::Rescue;
use crate::{Limits, Metrics, lock};

/// Requests and bytes in a queue.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Who gives up its place first, the oldest in front.
    yielding: Mutex<VecDeque<Weak<Yielding>>>,
}

impl Usage {
    /// Enters, if need be in the place of somebody who may have left.
    fn enter_or_replace(&self, bytes: usize, most_requests: usize, most_bytes: usize) -> bool {
        while !self.enter(bytes, most_requests, most_bytes) {
            if !self.evict() {
                return false;
            }
        }
        true
    }

    /// Takes the place of whoever has been waiting longest among those that may have left.
    fn evict(&self) -> bool {
        loop {
            let Some(oldest) = lock(&self.yielding).pop_front() else {
                return false;
            };
            if oldest.upgrade().is_some_and(|oldest| oldest.give_up()) {
                return true;
            }
        }
    }

    fn offer(&self, yielding: &Arc<Yielding>) {
        let mut queue = lock(&self.yielding);
        while queue.front().is_some_and(|oldest| oldest.strong_count() == 0) {
            queue.pop_front();
        }
        queue.push_back(Arc::downgrade(yielding));
    }

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
    pub(crate) fn readmit(&self, resource: &Arc<Usage>, bytes: usize) -> AdmissionPermit {
        resource.take(bytes);
        self.all.take(bytes);
        self.place(resource, bytes)
    }

    /// A place for a request whose head has `bytes` bytes.
    ///
    /// # Errors
    /// [`Rescue::QueueFull`] when the resource has no place, [`Rescue::Overloaded`] when nobody has.
    pub(crate) fn admit(&self, resource: &Arc<Usage>, bytes: usize) -> Result<AdmissionPermit, Rescue> {
        let limits = &self.limits;
        if !resource.enter_or_replace(bytes, limits.held_per_resource, limits.held_bytes_per_resource) {
            return Err(Rescue::QueueFull);
        }
        if !self.all.enter_or_replace(bytes, limits.held, limits.held_bytes) {
            resource.leave(bytes);
            return Err(Rescue::Overloaded);
        }
        Ok(self.place(resource, bytes))
    }

    fn place(&self, resource: &Arc<Usage>, bytes: usize) -> AdmissionPermit {
        self.metrics.held.inc();
        self.metrics.held_bytes.inc_by(signed(bytes));
        AdmissionPermit {
            taken: Some(Taken {
                all: Arc::clone(&self.all),
                resource: Arc::clone(resource),
                bytes,
                metrics: Arc::clone(&self.metrics),
            }),
            yielding: None,
            since: Instant::now(),
        }
    }
}

/// What a place takes up; given back when dropped.
#[derive(Debug)]
struct Taken {
    all: Arc<Usage>,
    resource: Arc<Usage>,
    bytes: usize,
    metrics: Arc<Metrics>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.all.leave(self.bytes);
        self.resource.leave(self.bytes);
        self.metrics.held.dec();
        self.metrics.held_bytes.dec_by(signed(self.bytes));
    }
}

/// The place of somebody who may have left.
#[derive(Debug)]
struct Yielding {
    taken: Mutex<Option<Taken>>,
    given_up: AtomicBool,
    notify: Notify,
    metrics: Arc<Metrics>,
}

impl Yielding {
    /// Whether it had a place to give up.
    fn give_up(&self) -> bool {
        let taken = lock(&self.taken).take();
        let had = taken.is_some();
        drop(taken);
        if had {
            self.given_up.store(true, Ordering::Release);
            self.notify.notify_one();
        }
        had
    }
}

impl Drop for Yielding {
    fn drop(&mut self) {
        self.metrics.half_closed.dec();
    }
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct AdmissionPermit {
    taken: Option<Taken>,
    yielding: Option<Arc<Yielding>>,
    since: Instant,
}

impl AdmissionPermit {
    /// Offers the place to whoever finds none; returns when it was taken.
    pub(crate) async fn offered(&mut self) {
        let yielding = match (&self.yielding, self.taken.take()) {
            (Some(yielding), _) => Arc::clone(yielding),
            (None, None) => return,
            (None, Some(taken)) => {
                let (all, resource) = (Arc::clone(&taken.all), Arc::clone(&taken.resource));
                let metrics = Arc::clone(&taken.metrics);
                metrics.half_closed.inc();
                let yielding = Arc::new(Yielding {
                    taken: Mutex::new(Some(taken)),
                    given_up: AtomicBool::new(false),
                    notify: Notify::new(),
                    metrics,
                });
                all.offer(&yielding);
                resource.offer(&yielding);
                self.yielding = Some(Arc::clone(&yielding));
                yielding
            }
        };
        while !yielding.given_up.load(Ordering::Acquire) {
            yielding.notify.notified().await;
        }
    }

    fn metrics(&self) -> Option<&Metrics> {
        let yielding = self.yielding.as_ref().map(|yielding| &*yielding.metrics);
        self.taken.as_ref().map(|taken| &*taken.metrics).or(yielding)
    }
}

impl Drop for AdmissionPermit {
    fn drop(&mut self) {
        if let Some(metrics) = self.metrics() {
            metrics.hold_seconds.observe(self.since.elapsed().as_secs_f64());
        }
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
        let (one, two) = (Arc::<Usage>::default(), Arc::<Usage>::default());
        let first = admission.admit(&one, 10).unwrap();
        let _second = admission.admit(&one, 10).unwrap();
        assert_eq!(admission.admit(&one, 10).unwrap_err(), Rescue::QueueFull);
        let _third = admission.admit(&two, 10).unwrap();
        assert_eq!(admission.admit(&two, 10).unwrap_err(), Rescue::Overloaded);
        assert_eq!(two.now(), (1, 10), "a refused request leaves nothing behind");
        drop(first);
        let _again = admission.admit(&two, 10).unwrap();
    }

    #[test]
    fn bytes_are_bounded_as_well() {
        let admission = Admission::new(limits(), Arc::default());
        let resource = Arc::<Usage>::default();
        let place = admission.admit(&resource, 60).unwrap();
        assert_eq!(admission.admit(&resource, 41).unwrap_err(), Rescue::QueueFull);
        assert_eq!(resource.now(), (1, 60));
        drop(place);
        assert_eq!(resource.now(), (0, 0));
        assert_eq!(admission.metrics.held.get(), 0);
        assert_eq!(admission.metrics.held_bytes.get(), 0);
    }

    #[tokio::test]
    async fn f10_who_may_have_left_gives_up_its_place_first() {
        let admission = Admission::new(limits(), Arc::default());
        let (one, two) = (Arc::<Usage>::default(), Arc::<Usage>::default());
        let mut ghosts = [
            admission.admit(&one, 10).unwrap(),
            admission.admit(&one, 10).unwrap(),
        ];
        let [first, second] = &mut ghosts;
        let (mut first, mut second) = (Box::pin(first.offered()), Box::pin(second.offered()));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(admission.metrics.half_closed.get(), 2);
        let _honest = admission.admit(&one, 10).unwrap();
        assert!(futures::poll!(&mut first).is_ready(), "the oldest goes first");
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(one.now(), (2, 20));
        let _third = admission.admit(&two, 10).unwrap();
        let _fourth = admission.admit(&two, 10).unwrap();
        assert!(futures::poll!(&mut second).is_ready(), "the house was full");
        assert_eq!(admission.admit(&two, 10).unwrap_err(), Rescue::QueueFull);
        drop((first, second));
        drop(ghosts);
        assert_eq!(one.now(), (1, 10), "nothing is given back twice");
        assert_eq!(admission.metrics.held.get(), 3);
        assert_eq!(admission.metrics.half_closed.get(), 0);
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
