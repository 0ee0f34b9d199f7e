//! What a sleep notes on the workload that it scales to zero.

use std::collections::BTreeMap;

use dormouse_lifecycle::Epoch;
use serde::{Deserialize, Serialize};

use crate::api::ASLEEP;

/// The value of the annotation [`ASLEEP`]. With it the workload can be restored even if its Sleeper is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SleepNote {
    /// Name of the Sleeper.
    pub(crate) sleeper: String,
    /// Its uid.
    pub(crate) uid: String,
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// Replicas from before.
    pub(crate) replicas: i32,
}

impl SleepNote {
    /// The note among these annotations. One that cannot be read still tells that a sleep scaled the workload to zero.
    pub(crate) fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = annotations.get(ASLEEP)?;
        Some(serde_json::from_str(text).unwrap_or(Self {
            sleeper: String::new(),
            uid: String::new(),
            epoch: 0,
            replicas: 1,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_cannot_be_read_is_a_note() {
        let noted = |text: &str| SleepNote::of(&BTreeMap::from([(ASLEEP.to_owned(), text.to_owned())]));
        assert_eq!(noted("odd").map(|note| note.replicas), Some(1));
        assert_eq!(noted("").map(|note| note.sleeper), Some(String::new()));
        let note = SleepNote {
            sleeper: "web.workloads".into(),
            uid: "u".into(),
            epoch: 4,
            replicas: 3,
        };
        assert_eq!(noted(&serde_json::to_string(&note).unwrap()), Some(note));
        assert_eq!(SleepNote::of(&BTreeMap::new()), None);
    }
}
