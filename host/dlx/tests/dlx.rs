//! The data plane from outside: real sockets on loopback, workloads and wakers that do what a test tells them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may stop at the first surprise, as tests do"
)]

#[path = "dlx/support.rs"]
mod support;

#[path = "dlx/cluster.rs"]
mod cluster;
#[path = "dlx/drain.rs"]
mod drain;
#[path = "dlx/forwarding.rs"]
mod forwarding;
#[path = "dlx/holding.rs"]
mod holding;
#[path = "dlx/leaving.rs"]
mod leaving;
#[path = "dlx/ports.rs"]
mod ports;
#[path = "dlx/protocols.rs"]
mod protocols;
#[path = "dlx/routing.rs"]
mod routing;
#[path = "dlx/tcp.rs"]
mod tcp;
