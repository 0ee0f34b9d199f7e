//! Prometheus and pods that answer well, badly, slowly and not at all.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise, its helpers too"
)]

mod authority;
mod cache;
mod pods;
mod server;
mod servers;
