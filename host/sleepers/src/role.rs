//! Which process reconciles which Sleepers.

/// Which Sleepers a controller reconciles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// All of them: the leader of the autoscalers.
    Leader,
    /// Those that are to be awake: every DLX.
    Waker,
}
