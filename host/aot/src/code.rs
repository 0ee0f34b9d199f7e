//! The one unsafe call of the whole project.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes that [`crate::Cache`] wrote itself: read from a file that only we can write, and found to be what was written.
///
/// Only `cache.rs` makes one.
pub(crate) struct OwnCode(pub(crate) Vec<u8>);

/// A component from compiled code.
///
/// # Errors
///
/// When the code is for another version or configuration of wasmtime, or for another processor.
#[expect(
    unsafe_code,
    reason = "wasmtime cannot know who wrote compiled code; OwnCode is the proof that we did"
)]
pub(crate) fn component(engine: &Engine, code: &OwnCode) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` asks that the bytes come from `Component::serialize` of wasmtime and are unmodified. An
    // `OwnCode` is made only of a file that lies in a directory of mode 0700 of our user, belongs to our user, can be written by
    // nobody else and has no second name; whose content begins with the key of this engine and this component; and whose SHA-256
    // is the one that was written with it. The bytes are in our memory since before they were checked, so nobody can exchange
    // them after the check. Whoever can forge that is our own user, who could replace the program just as well.
    unsafe { Component::deserialize(engine, &code.0) }
}
