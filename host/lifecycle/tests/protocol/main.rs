//! The protocol, phase by phase: what is seen, and what is to be done about it.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod desired_state;
mod finalize;
mod fixture;
mod lost;
mod ownership;
mod phases;
mod ports;
mod resize;
mod sleeping;
mod table;
mod traffic_check;
mod waking;
