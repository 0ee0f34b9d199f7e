//! Kinds of other systems as sources: each is a module that translates its objects into targets, and what became of those into their
//! status. What happens in between is the line's ([`dormouse_autoscaler`]).
//!
//! * [`memhpa`]: `MemHpa` of `xinhuang.com/v1`.

pub mod memhpa;
