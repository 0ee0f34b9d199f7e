//! The line from source to status, with scripted fakes and a paused clock.
#![expect(clippy::expect_used, reason = "a test may stop at the first surprise")]

mod deadlines;
mod declared;
mod fakes;
mod harness;
mod idle;
mod isolation;
mod leadership;
mod many;
mod memory;
mod platform;
mod readings;
mod scaling;
mod settings;
mod shards;
mod sleepers;
mod traffic;
