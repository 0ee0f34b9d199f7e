//! Clock, calendar and the call itself: what every plugin may ask.

use dormouse_model::time_zone;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tokio::time::Instant;

use super::{Import, clip, one_line};
use crate::bindings::dormouse::plugin::{call_context, readings, time};
use crate::state::CallState;

/// Bytes of a name that is repeated in an error.
const NAME: usize = 100;

impl readings::Host for CallState {}

impl time::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.count(Import::TimeNow)?;
        Ok(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default())
    }

    fn zone(&mut self) -> wasmtime::Result<String> {
        self.count(Import::TimeZone)?;
        Ok(name(&self.shared.zone))
    }

    fn to_civil(
        &mut self,
        at: u64,
        zone: Option<String>,
    ) -> wasmtime::Result<Result<time::CivilTime, time::TimeError>> {
        self.count(Import::TimeToCivil)?;
        Ok(zone_of(&self.shared.zone, zone).and_then(|zone| to_civil(at, zone)))
    }

    fn from_civil(
        &mut self,
        civil: time::CivilTime,
        zone: Option<String>,
    ) -> wasmtime::Result<Result<u64, time::TimeError>> {
        self.count(Import::TimeFromCivil)?;
        Ok(zone_of(&self.shared.zone, zone).and_then(|zone| from_civil(civil, &zone)))
    }
}

impl call_context::Host for CallState {
    fn caller(&mut self) -> wasmtime::Result<String> {
        self.count(Import::Caller)?;
        Ok(self.shared.caller.to_owned())
    }

    fn time_left(&mut self) -> wasmtime::Result<u64> {
        self.count(Import::TimeLeft)?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ok(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The name of a zone of the database.
fn name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("UTC").to_owned()
}

/// The zone that a guest means.
fn zone_of(own: &TimeZone, wanted: Option<String>) -> Result<TimeZone, time::TimeError> {
    let Some(wanted) = wanted else {
        return Ok(own.clone());
    };
    time_zone(&wanted).ok_or_else(|| time::TimeError::UnknownZone(one_line(&clip(wanted, NAME))))
}

fn out_of_range(why: impl std::fmt::Display) -> time::TimeError {
    time::TimeError::OutOfRange(why.to_string())
}

fn to_civil(at: u64, zone: TimeZone) -> Result<time::CivilTime, time::TimeError> {
    let millis = i64::try_from(at).map_err(out_of_range)?;
    let at = Timestamp::from_millisecond(millis).map_err(out_of_range)?;
    let shown: Zoned = at.to_zoned(zone);
    Ok(time::CivilTime {
        year: shown.year().into(),
        month: shown.month().unsigned_abs(),
        day: shown.day().unsigned_abs(),
        hour: shown.hour().unsigned_abs(),
        minute: shown.minute().unsigned_abs(),
        second: shown.second().unsigned_abs(),
        weekday: shown.weekday().to_monday_one_offset().unsigned_abs(),
        offset: shown.offset().seconds(),
    })
}

fn from_civil(civil: time::CivilTime, zone: &TimeZone) -> Result<u64, time::TimeError> {
    let year = i16::try_from(civil.year).map_err(out_of_range)?;
    let [month, day, hour, minute, second] = [civil.month, civil.day, civil.hour, civil.minute, civil.second]
        .map(|part| i8::try_from(part).unwrap_or(i8::MAX));
    let shown = DateTime::new(year, month, day, hour, minute, second, 0).map_err(out_of_range)?;
    // As RFC 5545 has it: the first of two, and in a gap as far after it as the clock would have been.
    let at = zone
        .to_ambiguous_zoned(shown)
        .compatible()
        .map_err(out_of_range)?;
    let millis = at.timestamp().as_millisecond();
    u64::try_from(millis).map_err(|_| out_of_range("it is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn vienna() -> TimeZone {
        time_zone("Europe/Vienna").unwrap()
    }

    fn civil(text: &str) -> time::CivilTime {
        let at: DateTime = text.parse().unwrap();
        time::CivilTime {
            year: at.year().into(),
            month: at.month().unsigned_abs(),
            day: at.day().unsigned_abs(),
            hour: at.hour().unsigned_abs(),
            minute: at.minute().unsigned_abs(),
            second: at.second().unsigned_abs(),
            weekday: 0,
            offset: 0,
        }
    }

    #[rstest]
    #[case::winter("2026-11-28T08:00:00", "2026-11-28T07:00:00Z")]
    #[case::summer("2026-07-28T08:00:00", "2026-07-28T06:00:00Z")]
    #[case::never_shown("2026-03-29T02:30:00", "2026-03-29T01:30:00Z")]
    #[case::shown_twice("2026-10-25T02:30:00", "2026-10-25T00:30:00Z")]
    fn a_time_on_the_wall_is_one_moment(#[case] shown: &str, #[case] at: &str) {
        let at: Timestamp = at.parse().unwrap();
        let millis = from_civil(civil(shown), &vienna()).unwrap();
        assert_eq!(i64::try_from(millis).unwrap(), at.as_millisecond());
    }

    #[test]
    fn a_moment_is_shown_with_its_weekday_and_offset() {
        let at: Timestamp = "2026-11-28T23:30:15Z".parse().unwrap();
        let shown = to_civil(u64::try_from(at.as_millisecond()).unwrap(), vienna()).unwrap();
        let seen = (
            shown.day,
            shown.hour,
            shown.minute,
            shown.second,
            shown.weekday,
            shown.offset,
        );
        assert_eq!(seen, (29, 0, 30, 15, 7, 3600), "a Sunday");
    }

    #[rstest]
    #[case::no_such_day(2026, 2, 30)]
    #[case::no_such_month(2026, 200, 1)]
    #[case::no_such_year(100_000, 1, 1)]
    #[case::before_1970(1969, 12, 31)]
    fn what_no_calendar_has_is_refused(#[case] year: i32, #[case] month: u8, #[case] day: u8) {
        let wrong = time::CivilTime {
            year,
            month,
            day,
            ..civil("2026-01-01T00:00:00")
        };
        assert!(matches!(
            from_civil(wrong, &TimeZone::UTC),
            Err(time::TimeError::OutOfRange(_))
        ));
        assert!(to_civil(u64::MAX, TimeZone::UTC).is_err());
    }

    #[test]
    fn a_zone_that_nobody_knows_is_named() {
        let found = zone_of(&TimeZone::UTC, Some("Mars/Olympus".to_owned()));
        assert!(matches!(found, Err(time::TimeError::UnknownZone(name)) if name == "Mars/Olympus"));
        assert_eq!(
            zone_of(&vienna(), None).map(|zone| name(&zone)).ok().as_deref(),
            Some("Europe/Vienna")
        );
        assert_eq!(name(&TimeZone::UTC), "UTC");
    }
}
