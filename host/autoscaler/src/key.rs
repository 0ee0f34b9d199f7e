//! A target and its Sleeper have one identity; each side has its own type for it.

use dormouse_model::TargetKey;
use dormouse_sleepers::SleeperKey;

/// The key of a target's Sleeper.
pub fn sleeper_key(key: &TargetKey) -> SleeperKey {
    SleeperKey::new(key.owner.clone(), &key.namespace, &key.name)
}

/// The key of a Sleeper's target.
pub fn target_key(key: SleeperKey) -> TargetKey {
    TargetKey {
        owner: key.owner,
        namespace: key.namespace,
        name: key.resource,
    }
}
