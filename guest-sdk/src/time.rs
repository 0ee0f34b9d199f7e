//! The host's clock, and time as a clock on the wall shows it. A component has no database of time zones; the host has.
//!
//! ```
//! use dormouse_sdk::time;
//! # let host = dormouse_sdk::testing::Host::new();
//! # host.time_zone("Europe/Vienna").clock("2026-11-28T07:30:00Z".parse()?);
//! let shown = time::civil(time::now(), None)?;
//! assert_eq!((shown.hour(), shown.minute()), (8, 30));
//! let opens = time::moment(shown.date().at(9, 0, 0, 0), None)?;
//! assert_eq!(opens.to_string(), "2026-11-28T08:00:00Z");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use jiff::Timestamp;
use jiff::civil::DateTime;

use crate::host;
pub use crate::zone::Error;

/// Now.
pub fn now() -> Timestamp {
    host::now()
}

/// The time zone that the operator configured for the plugin (`timeZone`); else `UTC`.
pub fn zone() -> String {
    host::zone()
}

/// What calendar and clock show at a moment. No zone: that of the plugin.
///
/// # Errors
/// There is no such zone.
pub fn civil(at: Timestamp, zone: Option<&str>) -> Result<DateTime, Error> {
    host::to_civil(at, zone)
}

/// The moment at which calendar and clock show this. Where clocks are set forward and never show it, the moment that is as long after
/// the change; where they are set back and show it twice, the first. No zone: that of the plugin.
///
/// # Errors
/// There is no such zone, or the moment is before 1970.
pub fn moment(shown: DateTime, zone: Option<&str>) -> Result<Timestamp, Error> {
    host::from_civil(shown, zone)
}
