//! Kinds of other systems as sources: each is a module that translates its objects into targets, and what became of those into their
//! status. What happens in between is the line's ([`dormouse_autoscaler`]).
//!
//! * [`memhpa`]: `MemHpa` of `xinhuang.com/v1`.
//! * `sight`, `sleep`: what any of them needs whose workloads may sleep by annotations on its objects.

pub mod memhpa;

mod sight;
mod sleep;
