//! The number of a wake.

/// How often a resource was woken. Never falls; a sleep step that started from an older epoch must not be carried out.
pub type Epoch = i64;
