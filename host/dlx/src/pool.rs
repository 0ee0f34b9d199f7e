//! Connections to endpoints, kept for the next request.
//!
//! Each target has its own pool, and each endpoint its own lock, held for a push or a pop. A connection serves one target
//! only and does not outlive an epoch: whatever answers on that address after a wake is another pod.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hyper::client::conn::{http1, http2};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::endpoints::EndpointsView;
use crate::upload::Upload;
use crate::{Limits, lock};

pub(crate) type Endpoints = Arc<[Arc<Endpoint>]>;

/// Addresses that are remembered for having answered. Beyond it no new endpoint counts as young.
const MOST_SERVED: usize = 4096;

/// The endpoints of the view that was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    current: ArcSwapOption<Current>,
    /// A request has seen the target at zero: pods that appear now are new.
    at_zero: AtomicBool,
    rebuild: Mutex<()>,
}

#[derive(Debug)]
struct Current {
    view: Arc<EndpointsView>,
    endpoints: Endpoints,
    /// What answered in this epoch and is gone: should it come back, it is not young.
    served: HashSet<SocketAddr>,
}

impl Pool {
    /// Notes what a request that waits has seen.
    pub(crate) fn seen(&self, view: &EndpointsView) {
        if view.asleep {
            self.at_zero.store(view.ready.is_empty(), Ordering::Relaxed);
        }
    }

    /// The endpoints of this view. Those that were known before keep their load and their connections.
    pub(crate) fn endpoints(
        &self,
        view: &Arc<EndpointsView>,
        limits: &Limits,
        upstreams: &Arc<Semaphore>,
    ) -> Endpoints {
        let current = self.current.load();
        if let Some(current) = current.as_ref()
            && Arc::ptr_eq(&current.view, view)
        {
            return Arc::clone(&current.endpoints);
        }
        drop(current);
        let _one_at_a_time = lock(&self.rebuild);
        let current = self.current.load_full();
        if let Some(current) = current.as_ref()
            && Arc::ptr_eq(&current.view, view)
        {
            return Arc::clone(&current.endpoints);
        }
        let known = current
            .as_ref()
            .filter(|current| current.view.epoch == view.epoch);
        let mut served = known.map_or_else(HashSet::new, |current| current.served.clone());
        let answered = known.iter().flat_map(|current| current.endpoints.iter());
        served.extend(
            answered
                .filter(|endpoint| !endpoint.silent.load(Ordering::Relaxed))
                .map(|endpoint| endpoint.address)
                .take(MOST_SERVED.saturating_sub(served.len())),
        );
        self.seen(view);
        let new = (view.fresh || self.at_zero.load(Ordering::Relaxed)) && served.len() < MOST_SERVED;
        let endpoints: Endpoints = view
            .ready
            .iter()
            .map(|&address| {
                known
                    .and_then(|current| {
                        current
                            .endpoints
                            .iter()
                            .find(|endpoint| endpoint.address == address)
                    })
                    .map_or_else(
                        || Endpoint::new(address, limits, new && !served.contains(&address), upstreams),
                        Arc::clone,
                    )
            })
            .collect();
        let next = Current {
            view: Arc::clone(view),
            endpoints: Arc::clone(&endpoints),
            served,
        };
        self.current.store(Some(Arc::new(next)));
        endpoints
    }
}

/// An HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<Upload>,
    heard: Arc<AtomicBool>,
}

impl Http1 {
    /// `heard` is set by whoever reads from the connection.
    pub(crate) fn new(sender: http1::SendRequest<Upload>, heard: Arc<AtomicBool>) -> Self {
        Self { sender, heard }
    }

    /// Something is about to be asked: what was heard before does not count.
    pub(crate) fn ask(&self) -> Arc<AtomicBool> {
        self.heard.store(false, Ordering::Release);
        Arc::clone(&self.heard)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// One address of a pod.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    load: AtomicUsize,
    /// It came up with the last wake and has answered nothing yet.
    silent: AtomicBool,
    since: Instant,
    idle: Mutex<Idle>,
    most_idle: usize,
    idle_timeout: Duration,
    h2: Mutex<Option<http2::SendRequest<Upload>>>,
    /// Held while an HTTP/2 connection is dialled: one is enough for all.
    pub(crate) h2_dial: tokio::sync::Mutex<()>,
    /// Connections to pods, of all targets, that may be opened.
    pub(crate) upstreams: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The youngest last: it is the one that is used next.
    connections: Vec<(Http1, Instant)>,
    /// Whether somebody will come to close what nobody used.
    swept: bool,
}

impl Endpoint {
    fn new(address: SocketAddr, limits: &Limits, silent: bool, upstreams: &Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self {
            address,
            load: AtomicUsize::new(0),
            silent: AtomicBool::new(silent),
            since: Instant::now(),
            idle: Mutex::default(),
            most_idle: limits.idle_upstream,
            idle_timeout: limits.idle_upstream_timeout,
            h2: Mutex::default(),
            h2_dial: tokio::sync::Mutex::default(),
            upstreams: Arc::clone(upstreams),
        })
    }

    #[cfg(test)]
    pub(crate) fn for_test(address: SocketAddr) -> Arc<Self> {
        Self::new(address, &Limits::default(), false, &Arc::new(Semaphore::new(10)))
    }

    /// Whether it has answered nothing since its wake, and the wake is not longer ago than anybody waits for one.
    pub(crate) fn is_young(&self, patience: Duration) -> bool {
        self.silent.load(Ordering::Relaxed) && self.since.elapsed() < patience
    }

    /// It has begun an answer.
    pub(crate) fn answered(&self) {
        if self.silent.load(Ordering::Relaxed) {
            self.silent.store(false, Ordering::Relaxed);
        }
    }

    /// Requests that it is answering.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Load {
        self.load.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(self))
    }

    /// An idle HTTP/1 connection that is still open. One whose own task has not noticed yet that its response has ended
    /// is left where it is: it will be ready in a moment.
    pub(crate) fn idle(&self) -> Option<Http1> {
        let mut idle = lock(&self.idle);
        let mut index = idle.connections.len();
        while index > 0 {
            index -= 1;
            let (sender, _since) = &idle.connections[index];
            if sender.is_ready() {
                return Some(idle.connections.remove(index).0);
            }
            if sender.is_closed() {
                idle.connections.remove(index);
            }
        }
        None
    }

    /// Keeps a connection whose response has ended.
    pub(crate) fn keep(self: &Arc<Self>, sender: Http1) {
        if sender.is_closed() {
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.connections.len() >= self.most_idle {
            return;
        }
        idle.connections.push((sender, Instant::now()));
        if !idle.swept {
            idle.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
    }

    /// Closes what was not used for long. Answers when to come again; None: there is nothing left.
    fn expire(&self) -> Option<Instant> {
        let mut idle = lock(&self.idle);
        let now = Instant::now();
        idle.connections
            .retain(|(sender, since)| !sender.is_closed() && now - *since < self.idle_timeout);
        let next = idle
            .connections
            .first()
            .map(|(_, since)| *since + self.idle_timeout);
        idle.swept = next.is_some();
        next
    }

    /// The HTTP/2 connection, shared by all requests.
    pub(crate) fn h2(&self) -> Option<http2::SendRequest<Upload>> {
        lock(&self.h2).clone().filter(|sender| !sender.is_closed())
    }

    pub(crate) fn keep_h2(&self, sender: http2::SendRequest<Upload>) {
        *lock(&self.h2) = Some(sender);
    }
}

/// Closes an endpoint's idle connections when their time has come, and ends when there are none.
async fn sweep(endpoint: std::sync::Weak<Endpoint>, after: Duration) {
    let mut next = Instant::now() + after;
    loop {
        tokio::time::sleep_until(next).await;
        match endpoint.upgrade().and_then(|endpoint| endpoint.expire()) {
            Some(again) => next = again,
            None => return,
        }
    }
}

/// A request that an endpoint is answering.
#[derive(Debug)]
pub(crate) struct Load(pub(crate) Arc<Endpoint>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(ready: &[&str], epoch: i64) -> Arc<EndpointsView> {
        let ready = ready.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(EndpointsView {
            ready,
            epoch,
            ..EndpointsView::default()
        })
    }

    #[test]
    fn endpoints_stay_the_same_over_a_change_but_not_over_a_wake() {
        let (pool, limits) = (Pool::default(), Limits::default());
        let upstreams = Arc::new(Semaphore::new(10));
        let first = pool.endpoints(&view(&["127.0.0.1:1", "127.0.0.2:1"], 1), &limits, &upstreams);
        let second = pool.endpoints(&view(&["127.0.0.2:1"], 1), &limits, &upstreams);
        assert!(Arc::ptr_eq(&first[1], &second[0]));
        let third = pool.endpoints(&view(&["127.0.0.2:1"], 2), &limits, &upstreams);
        assert!(!Arc::ptr_eq(&second[0], &third[0]));
    }

    #[test]
    fn the_same_view_builds_nothing() {
        let (pool, limits) = (Pool::default(), Limits::default());
        let upstreams = Arc::new(Semaphore::new(10));
        let view = view(&["127.0.0.1:1"], 1);
        assert!(Arc::ptr_eq(
            &pool.endpoints(&view, &limits, &upstreams),
            &pool.endpoints(&view, &limits, &upstreams)
        ));
    }
}
