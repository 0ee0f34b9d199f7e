//! The data plane from outside: real sockets on loopback, workloads and wakers that do what a test tells them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may stop at the first surprise, as tests do"
)]

#[path = "dlx/support.rs"]
mod support;

#[path = "dlx/clients.rs"]
mod clients;
#[path = "dlx/cluster.rs"]
mod cluster;
#[path = "dlx/corpus.rs"]
mod corpus;
#[path = "dlx/crowd.rs"]
mod crowd;
#[path = "dlx/drain.rs"]
mod drain;
#[path = "dlx/forwarding.rs"]
mod forwarding;
#[path = "dlx/h2spec.rs"]
mod h2spec;
#[path = "dlx/holding.rs"]
mod holding;
#[path = "dlx/http.rs"]
mod http_rules;
#[path = "dlx/leaving.rs"]
mod leaving;
#[path = "dlx/manners.rs"]
mod manners;
#[path = "dlx/ports.rs"]
mod ports;
#[path = "dlx/programs.rs"]
mod programs;
#[path = "dlx/protocols.rs"]
mod protocols;
#[path = "dlx/retries.rs"]
mod retries;
#[path = "dlx/routing.rs"]
mod routing;
#[path = "dlx/tcp.rs"]
mod tcp;
