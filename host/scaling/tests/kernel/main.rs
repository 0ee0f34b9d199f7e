//! The kernel from zero to many, beside the recorded vectors: what KEDA's activation means, what a decision says, and what holds for
//! every input.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod activation;
mod anything;
mod autoscaler;
mod fixture;
mod memory;
mod properties;
mod recommend;
mod remembered;
mod requests;
