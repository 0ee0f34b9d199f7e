//! Durations in Go's syntax, and metric names.

use std::time::Duration;

use dormouse_model::{DurationError, GoDuration, format_duration, metric_name, parse_duration, window_name};
use proptest::prelude::*;
use rstest::rstest;

const SECOND: u64 = 1_000_000_000;

#[rstest]
#[case("0", 0)]
#[case("+0", 0)]
#[case("-0", 0)]
#[case("0s", 0)]
#[case("15m", 15 * 60 * SECOND)]
#[case("1h30m", 90 * 60 * SECOND)]
#[case("1.5h", 90 * 60 * SECOND)]
#[case("500ms", SECOND / 2)]
#[case("1h15m30.918273645s", 4_530 * SECOND + 918_273_645)]
#[case("5.s", 5 * SECOND)]
#[case(".5s", SECOND / 2)]
#[case("1m1m", 120 * SECOND)] // Go adds up, in any order
#[case("30s1h", 3_630 * SECOND)]
#[case("52763797000ns", 52_763_797_000)]
#[case("7us", 7_000)]
#[case("7\u{b5}s", 7_000)]
#[case("7\u{3bc}s", 7_000)]
#[case("0.3333333333333333333h", 20 * 60 * SECOND - 1)]
#[case("9223372036854775807ns", i64::MAX as u64)]
#[case("00000000000000000000000001s", SECOND)]
#[case("+5s", 5 * SECOND)]
fn parse(#[case] text: &str, #[case] nanos: u64) {
    assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)));
}

#[rstest]
#[case("", DurationError::Malformed(String::new()))]
#[case("-", DurationError::Malformed("-".into()))]
#[case("s", DurationError::Malformed("s".into()))]
#[case(".", DurationError::Malformed(".".into()))]
#[case(".s", DurationError::Malformed(".s".into()))]
#[case("fifteen", DurationError::Malformed("fifteen".into()))]
#[case(" 15m", DurationError::Malformed(" 15m".into()))]
#[case("15", DurationError::NoUnit("15".into()))]
#[case("1h30", DurationError::NoUnit("1h30".into()))]
#[case("1d", unit("1d", "d"))]
#[case("1H", unit("1H", "H"))]
#[case("15 m", unit("15 m", " m"))]
#[case("15m ", unit("15m ", "m "))]
#[case("1h-3m", unit("1h-3m", "h-"))]
#[case("-15m", DurationError::Negative("-15m".into()))]
#[case("9223372036854775808ns", DurationError::TooLong("9223372036854775808ns".into()))]
#[case("2562048h", DurationError::TooLong("2562048h".into()))]
#[case("99999999999999999999h", DurationError::TooLong("99999999999999999999h".into()))]
fn refused(#[case] text: &str, #[case] error: DurationError) {
    assert_eq!(parse_duration(text), Err(error));
}

fn unit(text: &str, unit: &str) -> DurationError {
    DurationError::UnknownUnit {
        text: text.into(),
        unit: unit.into(),
    }
}

#[rstest]
#[case(0, "0s", "0s")]
#[case(1, "1ns", "1ns")]
#[case(1_100, "1.1\u{b5}s", "1.1\u{b5}s")]
#[case(2_200_000, "2.2ms", "2.2ms")]
#[case(SECOND / 2, "500ms", "500ms")]
#[case(3_300_000_000, "3.3s", "3.3s")]
#[case(10 * SECOND, "10s", "10s")]
#[case(60 * SECOND, "1m0s", "1m")]
#[case(90 * SECOND, "1m30s", "1m30s")]
#[case(600 * SECOND, "10m0s", "10m")]
#[case(3_600 * SECOND, "1h0m0s", "1h")]
#[case(3_660 * SECOND, "1h1m0s", "1h1m")]
#[case(5_400 * SECOND, "1h30m0s", "1h30m")]
#[case(3_601 * SECOND, "1h0m1s", "1h0m1s")]
#[case(36_000 * SECOND, "10h0m0s", "10h")]
#[case(245 * SECOND + 1_000_000, "4m5.001s", "4m5.001s")]
#[case(i64::MAX as u64, "2562047h47m16.854775807s", "2562047h47m16.854775807s")]
fn format(#[case] nanos: u64, #[case] go: &str, #[case] window: &str) {
    assert_eq!(format_duration(Duration::from_nanos(nanos)), go);
    assert_eq!(window_name(Duration::from_nanos(nanos)), window);
}

#[rstest]
#[case("requests", "10m", "requests_per_10m")]
#[case("requests", "1h", "requests_per_1h")]
#[case("cpu_usage", "90s", "cpu_usage_per_1m30s")]
#[case("queue", "30s", "queue_per_30s")]
fn metric_names_are_those_of_v3io(#[case] metric: &str, #[case] window: &str, #[case] name: &str) {
    assert_eq!(metric_name(metric, parse_duration(window).unwrap()), name);
}

#[test]
fn as_text_or_nanoseconds_in_configuration() {
    let hour = GoDuration(Duration::from_secs(3_600));
    assert_eq!(serde_json::from_str::<GoDuration>("\"1h\"").unwrap(), hour);
    assert_eq!(serde_json::from_str::<GoDuration>("3600000000000").unwrap(), hour);
    assert_eq!(serde_json::to_string(&hour).unwrap(), "\"1h0m0s\"");
    for wrong in ["\"1 hour\"", "-1", "1.5", "9223372036854775808", "null"] {
        assert!(serde_json::from_str::<GoDuration>(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(nanos in 0..=i64::MAX as u64) {
        let span = Duration::from_nanos(nanos);
        prop_assert_eq!(parse_duration(&format_duration(span)), Ok(span));
        prop_assert_eq!(parse_duration(&window_name(span)), Ok(span));
    }

    #[test]
    fn whole_seconds_too(seconds in 0..1_000_000_u64) {
        let span = Duration::from_secs(seconds);
        prop_assert_eq!(parse_duration(&window_name(span)), Ok(span));
    }

    #[test]
    fn different_windows_have_different_names(left in 0..100_000_u64, right in 0..100_000_u64) {
        let (left, right) = (Duration::from_secs(left), Duration::from_secs(right));
        prop_assert_eq!(metric_name("m", left) == metric_name("m", right), left == right);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,40}") {
        let _ = parse_duration(&text);
    }

    #[test]
    fn nothing_like_a_duration_breaks_the_parser(text in "[+-]?([0-9]{0,22}\\.?[0-9]{0,25}(ns|us|µs|ms|s|m|h|d)?){0,3}") {
        let _ = parse_duration(&text);
    }
}
