//! What an operator meets: signals, pipes that close, and a configuration that is wrong. The real binary, as a process.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests may stop at the first surprise, as tests do; they wait for processes, outside of any runtime"
)]

mod compiling;
mod configuration;
mod ending;
mod running;
mod simulating;
mod support;
