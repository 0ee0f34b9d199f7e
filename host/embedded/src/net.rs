//! Addresses, and the forwarder behind each Service.

pub(crate) mod addresses;
pub(crate) mod forward;
