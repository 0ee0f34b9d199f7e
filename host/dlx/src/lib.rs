//! The dead-letter exchange: holds a request for a sleeping workload, wakes it, forwards.
//!
//! A request passes one module after the other, in this order:
//!
//! | phase | module | what it decides |
//! |---|---|---|
//! | accept | [`accept`] | connection limit, protocol, header and idle timeouts, drain |
//! | route | [`route`] | which workload is meant: by DLX port, by host and path, by the target-name header |
//! | negotiate | [`negotiate`] | how a client is kept waiting; only `hold` exists today |
//! | admit | [`admit`] | whether there is a place in the queue, in requests and in bytes |
//! | wake | [`waker`] | one wake for all that wait; nobody waits: no wake |
//! | gate | [`gate`] | opens when the workload has an endpoint; closes the wait at its deadline |
//! | pick | [`pick`] | the less loaded of two endpoints; the ramp that releases a burst in order |
//! | connect | [`connect`] | dials pod addresses only, again and again until the deadline |
//! | forward | [`forward`] | streams both bodies, trailers and upgrades |
//! | splice | `splice` | what is not HTTP: the same hold, then bytes both ways |
//! | rescue | [`rescue`] | the one place where an error becomes a response |
//! | observe | [`observe`] | metrics and the access log |
//!
//! Below the phases stands what several of them use: `client` (a connection and its place), `endpoints`, `pool` and `upload` (the
//! pods' side), `demand_counters`, `arrivals` and `wakes` (what is counted, and what became of wakes), `copy` (bytes both ways), [`DlxConfig`]. Above them,
//! `serve` leads a request through them, and [`Server`] listens.
//!
//! What the data plane needs to know of the cluster arrives through two seams: [`RouteTable`] (an immutable snapshot,
//! published by whoever watches the cluster) and [`Waker`].
//!
//! # Expect: 100-continue
//!
//! A client that sends `Expect: 100-continue` hears nothing while its request is held. `100 Continue` goes out when the
//! request is forwarded and its body is first asked for, so a client never uploads to a workload that is not there. The
//! expectation is answered here and is not passed on.

pub mod accept;
pub mod admit;
mod arrivals;
mod backoff;
mod client;
pub mod cluster;
mod config;
pub mod connect;
mod copy;
mod demand_counters;
pub mod descriptors;
mod endpoints;
pub mod forward;
mod forwarded;
pub mod gate;
mod hop;
mod log_limit;
pub mod negotiate;
pub mod observe;
pub mod pick;
mod pool;
pub mod rescue;
mod retry;
pub mod route;
mod serve;
mod server;
mod splice;
mod target;
mod upload;
pub mod waker;
mod wakes;

pub use config::{
    DlxConfig, Limits, NameHeaders, Preferences, ReleaseRamp, Strategy, TcpLimits, listen_address,
};
pub use demand_counters::DemandCounters;
pub use endpoints::{EndpointsView, FailedWake};
pub use forwarded::{ForwardedHeaders, Forwarding, TrustedProxies};
pub use observe::Metrics;
pub use route::{HostPath, PathMatch, PortRoute, RouteTable, Routes, Syntax};
pub use server::{Dlx, ServeError, Server};
pub use target::{AppProtocol, RouteTarget, RouteTargetKey, RouteTargetSpec};
pub use waker::Waker;
pub use wakes::WakeError;

/// Locks a mutex whose data stays sound when a holder panics.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
