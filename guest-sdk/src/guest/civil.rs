//! Dates and times of day.

use jiff::civil::DateTime;

use crate::guest::bindings::scaler::dormouse::plugin::time as wit;
use crate::zone::Error;

impl From<wit::TimeError> for Error {
    fn from(error: wit::TimeError) -> Self {
        match error {
            wit::TimeError::UnknownZone(name) => Self::UnknownZone(name),
            wit::TimeError::OutOfRange(why) => Self::OutOfRange(why),
            wit::TimeError::Other(why) => Self::Other(why),
        }
    }
}

pub(crate) fn civil_time(shown: DateTime) -> wit::CivilTime {
    wit::CivilTime {
        year: shown.year().into(),
        month: shown.month().unsigned_abs(),
        day: shown.day().unsigned_abs(),
        hour: shown.hour().unsigned_abs(),
        minute: shown.minute().unsigned_abs(),
        second: shown.second().unsigned_abs(),
        weekday: shown.weekday().to_monday_one_offset().unsigned_abs(),
        offset: 0,
    }
}

pub(crate) fn date_time(shown: &wit::CivilTime) -> Result<DateTime, Error> {
    let year = i16::try_from(shown.year).unwrap_or(i16::MAX);
    let [month, day, hour, minute, second] = [shown.month, shown.day, shown.hour, shown.minute, shown.second]
        .map(|part| i8::try_from(part).unwrap_or(i8::MAX));
    DateTime::new(year, month, day, hour, minute, second, 0)
        .map_err(|error| Error::OutOfRange(error.to_string()))
}
