//! The binary's parts: configuration, telemetry, the admin endpoint, and one module for each subcommand. Logic lives
//! in the libraries; this crate only puts them together.

pub mod admin;
mod autoscaler;
mod check;
pub mod cli;
pub mod config;
pub mod demo;
mod dlx;
mod explain;
mod host;
mod inspect;
pub mod local;
mod memhpa;
mod memory;
pub mod output;
pub mod process;
mod reference;
pub mod requests;
mod restore;
mod simulate;
mod telemetry;
