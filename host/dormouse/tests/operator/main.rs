//! What an operator meets: signals, pipes that close, and a configuration that is wrong. The real binary, as a process.

mod configuration;
mod ending;
mod support;
