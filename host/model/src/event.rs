//! What last happened to a resource.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Kinds of scale events, under v3io's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScaleEventKind {
    /// The resource was created or changed.
    ResourceUpdated,
    /// A wake began.
    ScaleFromZeroStarted,
    /// A wake ended with a ready pod.
    ScaleFromZeroCompleted,
    /// It was sent to sleep.
    ScaleToZeroStarted,
    /// It sleeps.
    ScaleToZeroCompleted,
}

impl ScaleEventKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::ResourceUpdated,
        Self::ScaleFromZeroStarted,
        Self::ScaleFromZeroCompleted,
        Self::ScaleToZeroStarted,
        Self::ScaleToZeroCompleted,
    ];

    /// The name, as v3io writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResourceUpdated => "resourceUpdated",
            Self::ScaleFromZeroStarted => "scaleFromZeroStarted",
            Self::ScaleFromZeroCompleted => "scaleFromZeroCompleted",
            Self::ScaleToZeroStarted => "scaleToZeroStarted",
            Self::ScaleToZeroCompleted => "scaleToZeroCompleted",
        }
    }

    /// Whether a resource is left alone for a while after such an event: after an update and after a wake, because
    /// its metrics then speak of a time in which it was not there.
    pub fn debounces(self) -> bool {
        match self {
            Self::ResourceUpdated | Self::ScaleFromZeroStarted | Self::ScaleFromZeroCompleted => true,
            Self::ScaleToZeroStarted | Self::ScaleToZeroCompleted => false,
        }
    }
}

impl fmt::Display for ScaleEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no scale event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not a scale event; known are resourceUpdated, scaleFromZeroStarted, scaleFromZeroCompleted, scaleToZeroStarted and scaleToZeroCompleted"
)]
pub struct UnknownScaleEvent(pub String);

impl FromStr for ScaleEventKind {
    type Err = UnknownScaleEvent;

    fn from_str(name: &str) -> Result<Self, UnknownScaleEvent> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| UnknownScaleEvent(name.to_owned()))
    }
}

/// Something that happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScaleEvent {
    /// What.
    pub kind: ScaleEventKind,
    /// When. None if nobody recorded it: such an event keeps the resource awake if its kind debounces, because it may
    /// have happened just now. (v3io's scaler crashes here.) It stays so until the time is recorded, and the
    /// reason says it.
    pub at: Option<Timestamp>,
}
