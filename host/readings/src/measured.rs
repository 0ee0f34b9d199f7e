//! What a source that works has to say.

use dormouse_model::Quantity;
use dormouse_scaling::Sample;

/// What a source that works has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A value.
    Value(Quantity),
    /// It knows nothing; the text says what is missing.
    NoData(String),
}

impl From<Measured> for Sample {
    fn from(measured: Measured) -> Self {
        match measured {
            Measured::Value(value) => Self::Value(value),
            Measured::NoData(why) => Self::NoData(why.into()),
        }
    }
}
