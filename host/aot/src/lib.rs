//! Compiled components on disk, so that a plugin with a JavaScript or Python runtime is compiled once and not at each start.
//!
//! Compiled code is run as it is: whoever can write it can do what the process can do. So the cache believes nothing that it
//! did not write itself: see [`Cache::open`] for the directory and [`Cache::load`] for a file.

mod cache;
mod code;

pub use cache::{Cache, CacheError};
