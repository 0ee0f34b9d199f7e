//! Client connections: how they come in, which protocol they speak, how they are driven, and how they end.

mod connection;
mod listeners;
mod opening;
mod parting;

pub(crate) use connection::serve;
pub(crate) use listeners::{accept, bind, keep_ports};
