//! The protocol in a small cluster: two executors with stale views, crashes between any two steps, new desired states at any time.
//!
//! The cluster offers what Kubernetes offers, no more: compare-and-set on one object at a time, controllers that lag, pods
//! that take their time. What must hold is checked after every single event.
#![expect(clippy::expect_used, reason = "a test may stop at the first surprise")]

mod cases;
mod cluster;
mod executor;
mod node;
mod properties;
mod regressions;
mod sharing;
mod world;
