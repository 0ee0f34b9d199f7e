//! What the tests of several crates share.
//!
//! - [`World`]: an embedded cluster with one workload behind one Service, and a Sleeper for it.
//! - [`Dlx`]: a DLX of a few lines, for the protocol's own tests.
//! - [`traffic`]: clients that open a connection for each request, and a server for them.
//! - [`eventually`], [`found`]: what must become true soon.
//!
//! Tests panic where something is not as it must be, and so does everything here.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test ends where its fixture cannot be made"
)]

mod dlx;
pub mod traffic;
mod wait;
mod world;

pub use dlx::{Dlx, dlx_service};
pub use wait::{PATIENCE, eventually, found, soon};
pub use world::{PORT, Setup, World, config, phase, run_controller, workload};
