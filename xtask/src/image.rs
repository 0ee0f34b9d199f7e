//! `cargo xtask image`: the container image, without a container engine.

pub mod oci;
