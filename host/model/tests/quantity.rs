//! Quantities compare as Kubernetes quantities, exactly.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::cmp::Ordering;

use dormouse_model::{Quantity, QuantityError};
use proptest::prelude::*;
use rstest::rstest;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[rstest]
#[case("500m", Ordering::Less, "1")]
#[case("1000m", Ordering::Equal, "1")]
#[case("1001m", Ordering::Greater, "1")]
#[case("1", Ordering::Greater, "0.001")] // v3io compares milli-units with a plain integer: 1 meant 0.001
#[case("1Ki", Ordering::Greater, "1000")]
#[case("1Ki", Ordering::Equal, "1024")]
#[case("1k", Ordering::Less, "1Ki")]
#[case("1.5Ki", Ordering::Equal, "1536")]
#[case("0.1Ki", Ordering::Equal, "102.4")]
#[case("1Ei", Ordering::Equal, "1152921504606846976")]
#[case("1Ei", Ordering::Less, "1152921504606846977")] // f64 cannot tell these two apart
#[case("1E", Ordering::Equal, "1e18")]
#[case("1E3", Ordering::Equal, "1k")]
#[case("1e3", Ordering::Equal, "1000")]
#[case("1e+3", Ordering::Equal, "1000")]
#[case("1e-3", Ordering::Equal, "1m")]
#[case("12e6", Ordering::Equal, "12M")]
#[case("100000u", Ordering::Equal, "100m")]
#[case("1n", Ordering::Greater, "0")]
#[case("1n", Ordering::Less, "1u")]
#[case("0", Ordering::Equal, "-0")]
#[case("0", Ordering::Equal, "0e2147483647")]
#[case("0.000", Ordering::Equal, "0Ki")]
#[case("-1", Ordering::Less, "0")]
#[case("-1", Ordering::Greater, "-2")]
#[case("-1Ki", Ordering::Less, "-1000")]
#[case("+5", Ordering::Equal, "5")]
#[case(".5", Ordering::Equal, "500m")]
#[case("5.", Ordering::Equal, "5")]
#[case("007", Ordering::Equal, "7")]
#[case("9", Ordering::Less, "10")]
#[case("99", Ordering::Less, "100")]
#[case("0.9", Ordering::Less, "0.91")]
#[case("0.1", Ordering::Less, "0.10000000000000000000000000001")]
// As Kubernetes does: rounded up to a nano-unit, and nothing above 2^63-1.
#[case("1e2147483647", Ordering::Equal, "9223372036854775807")]
#[case("1e2147483647", Ordering::Equal, "1e2147483646")]
#[case("9223372036854775806.999999999", Ordering::Less, "9223372036854775807")]
#[case("8Ei", Ordering::Equal, "9223372036854775807")]
#[case("-9Ei", Ordering::Equal, "-9223372036854775807")]
#[case("0.0000000001", Ordering::Equal, "1n")]
#[case("-1.0000000001n", Ordering::Equal, "-2n")]
#[case("1e-2147483648", Ordering::Equal, "1n")]
fn order(#[case] left: &str, #[case] expected: Ordering, #[case] right: &str) {
    assert_eq!(quantity(left).cmp(&quantity(right)), expected);
    assert_eq!(quantity(right).cmp(&quantity(left)), expected.reverse());
    assert_eq!(quantity(left) == quantity(right), expected == Ordering::Equal);
}

#[rstest]
#[case("", QuantityError::Empty)]
#[case("Ki", QuantityError::NotANumber("Ki".into()))]
#[case("m", QuantityError::NotANumber("m".into()))]
#[case(".", QuantityError::NotANumber(".".into()))]
#[case("-", QuantityError::NotANumber("-".into()))]
#[case("--1", QuantityError::NotANumber("--1".into()))]
#[case("abc", QuantityError::NotANumber("abc".into()))]
#[case(" 1", QuantityError::NotANumber(" 1".into()))]
#[case("1 ", suffix("1 ", " "))]
#[case("1K", suffix("1K", "K"))]
#[case("1ki", suffix("1ki", "ki"))]
#[case("1Mii", suffix("1Mii", "Mii"))]
#[case("1e", suffix("1e", "e"))]
#[case("1e3m", suffix("1e3m", "e3m"))]
#[case("1e1.5", suffix("1e1.5", "e1.5"))]
#[case("1e99999999999", suffix("1e99999999999", "e99999999999"))]
#[case("1.2.3", suffix("1.2.3", ".3"))]
#[case("1,5", suffix("1,5", ",5"))]
#[case("٣", QuantityError::NotANumber("٣".into()))]
#[case("NaN", QuantityError::NotANumber("NaN".into()))]
#[case("inf", QuantityError::NotANumber("inf".into()))]
fn refused(#[case] text: &str, #[case] error: QuantityError) {
    assert_eq!(text.parse::<Quantity>(), Err(error));
}

fn suffix(text: &str, suffix: &str) -> QuantityError {
    QuantityError::UnknownSuffix {
        text: text.into(),
        suffix: suffix.into(),
    }
}

#[test]
fn a_text_without_end_is_refused() {
    assert_eq!(
        "1".repeat(129).parse::<Quantity>(),
        Err(QuantityError::TooLong(129))
    );
    assert!("1".repeat(128).parse::<Quantity>().is_ok());
}

#[rstest]
#[case("0500m", "500m")]
#[case("0.5", "500m")]
#[case("1.0", "1")]
#[case("1.5", "1500m")]
#[case("10000", "10k")]
#[case("1024", "1024")]
#[case("1234567", "1234567")]
#[case("1024Ki", "1Mi")]
#[case("1000Ki", "1000Ki")]
#[case("1.5Gi", "1536Mi")]
#[case("0.5Ki", "512")]
#[case("1.3Ki", "1331200m")]
#[case("12e6", "12e6")]
#[case("1200e3", "1200e3")]
#[case("5e0", "5")]
#[case("15e-4", "1500e-6")]
#[case("-0.25", "-250m")]
#[case("0Ki", "0")]
fn it_is_shown_and_stored_in_the_canonical_form(#[case] written: &str, #[case] shown: &str) {
    let quantity = quantity(written);
    assert_eq!(quantity.to_string(), shown);
    assert_eq!(serde_json::to_string(&quantity).unwrap(), format!("\"{shown}\""));
    assert_eq!(
        serde_json::from_str::<Quantity>(&format!("\"{written}\"")).unwrap(),
        quantity
    );
    assert!(serde_json::from_str::<Quantity>("\"half\"").is_err());
}

#[rstest]
#[case("0", true, false)]
#[case("-0.0", true, false)]
#[case("1n", false, false)]
#[case("-1n", false, true)]
fn zero_and_sign(#[case] text: &str, #[case] zero: bool, #[case] negative: bool) {
    assert_eq!(
        (quantity(text).is_zero(), quantity(text).is_negative()),
        (zero, negative)
    );
}

/// A number of nano-units between plus and minus 10^27, and some way to write it.
fn written() -> impl Strategy<Value = (i128, String)> {
    let suffixes = prop::sample::select(vec![
        ("n", 1_i128),
        ("u", 1_000),
        ("m", 1_000_000),
        ("", 1_000_000_000),
        ("k", 1_000_000_000_000),
        ("e3", 1_000_000_000_000),
        ("E-6", 1_000),
        ("M", 1_000_000_000_000_000),
        ("Ki", 1_024_000_000_000),
        ("Mi", 1_048_576_000_000_000),
        ("Gi", 1_073_741_824_000_000_000),
    ]);
    (-1_000_000_i64..1_000_000, 0_usize..3, suffixes).prop_map(|(mantissa, decimals, (suffix, nanos))| {
        // A mantissa with decimals, of which the nano-units stay whole: nanos is then a multiple of 10^decimals.
        let decimals = if nanos == 1 { 0 } else { decimals };
        let scale = 10_i64.pow(u32::try_from(decimals).unwrap());
        let sign = if mantissa < 0 { "-" } else { "" };
        let (whole, fraction) = (mantissa.abs() / scale, mantissa.abs() % scale);
        let text = if decimals == 0 {
            format!("{mantissa}{suffix}")
        } else {
            format!("{sign}{whole}.{fraction:0decimals$}{suffix}")
        };
        (i128::from(mantissa) * nanos / i128::from(scale), text)
    })
}

proptest! {
    #[test]
    fn the_order_is_that_of_the_exact_values((left, left_text) in written(), (right, right_text) in written()) {
        prop_assert_eq!(quantity(&left_text).cmp(&quantity(&right_text)), left.cmp(&right), "{} {}", left_text, right_text);
    }

    #[test]
    fn equal_values_are_equal_however_written((nanos, text) in written()) {
        prop_assert_eq!(quantity(&text), quantity(&format!("{nanos}n")));
    }

    #[test]
    fn a_count_is_its_number(left: u64, right: u64) {
        let order = left.min(i64::MAX as u64).cmp(&right.min(i64::MAX as u64));
        prop_assert_eq!(Quantity::from(left).cmp(&Quantity::from(right)), order);
        prop_assert_eq!(Quantity::from(left), quantity(&left.to_string()));
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,40}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn nothing_like_a_quantity_breaks_the_parser(text in "[+-]?[0-9.]{0,8}[eEinumkKMGTP+-]{0,3}[0-9]{0,12}") {
        if let Ok(read) = text.parse::<Quantity>() {
            // What is shown is what is meant, and shown so once more.
            let again = quantity(&read.to_string());
            prop_assert_eq!(again, read);
            prop_assert_eq!(again.to_string(), read.to_string());
        }
    }
}

#[rstest]
#[case(&[], "0")]
#[case(&["250m"], "250m")]
#[case(&["100m", "0.9"], "1")]
#[case(&["10Ki", "20Ki"], "30Ki")]
#[case(&["0", "20Ki"], "20Ki")]
#[case(&["0.1", "0.2"], "300m")]
#[case(&["1n", "1"], "1000000001n")]
#[case(&["-1", "0.25"], "-750m")]
#[case(&["-1", "1"], "0")]
#[case(&["5", "-17", "4"], "-8")]
// 2^63-1 has no fewer digits in either way to write it.
#[case(&["7Ei", "7Ei"], "9223372036854775807")]
fn sums_are_exact(#[case] parts: &[&str], #[case] sum: &str) {
    let total: Quantity = parts.iter().map(|part| quantity(part)).sum();
    assert_eq!(total.to_string(), sum);
}

#[rstest]
#[case("1", Some(1000), 1)]
#[case("1n", Some(1), 1)]
#[case("1500m", Some(1500), 2)]
#[case("-1500m", Some(-1500), -2)]
#[case("1000000001n", Some(1001), 2)]
#[case("8Ei", None, i64::MAX)]
fn smaller_units_round_up(#[case] text: &str, #[case] millis: Option<i64>, #[case] units: i64) {
    assert_eq!((quantity(text).millis(), quantity(text).units()), (millis, units));
}

#[rstest]
#[case("0", 0.0)]
#[case("50m", 0.05)]
#[case("0.35", 0.350_000_000_000_000_03)] // and 350 by a thousandth
#[case("-1500m", -1.5)]
#[case("1845234u", 1.845_233_999_999_999_8)] // it multiplies 1845234 by a millionth
#[case("1Ki", 1024.0)]
#[case("70e-3", 0.07)]
#[case("1E", 1e18)]
fn a_float_is_that_of_kubernetes(#[case] text: &str, #[case] float: f64) {
    assert_eq!(quantity(text).approximate().to_bits(), float.to_bits());
}

#[test]
fn milli_units_that_do_not_fit_are_the_largest() {
    assert_eq!(quantity("9e18").saturating_millis(), i64::MAX);
    assert_eq!(quantity("-9e18").saturating_millis(), i64::MIN);
    assert_eq!(quantity("1500u").saturating_millis(), 2);
}

#[rstest]
#[case("100m", 3, 2, Some("150m"))]
#[case("1", 1, 3, Some("333333334n"))]
#[case("-1", 1, 3, Some("-333333334n"))]
#[case("1Gi", 1, 2, Some("512Mi"))]
#[case("7Ei", u32::MAX, 1, Some("9223372036854775807"))]
#[case("7Ei", u32::MAX, u32::MAX, Some("7Ei"))]
#[case("1", 1, 0, None)]
fn parts_are_exact(
    #[case] of: &str,
    #[case] numerator: u32,
    #[case] denominator: u32,
    #[case] part: Option<&str>,
) {
    let found = quantity(of).mul_div(numerator, denominator);
    assert_eq!(found.map(|found| found.to_string()).as_deref(), part);
}

#[rstest]
#[case("11", "5", Some(3))]
#[case("10", "5", Some(2))]
#[case("0", "5", Some(0))]
#[case("1n", "8Ei", Some(1))]
#[case("8Ei", "1n", None)]
#[case("-11", "-5", Some(3))]
#[case("-11", "5", None)]
#[case("1", "0", None)]
fn quotients_round_up(#[case] all: &str, #[case] each: &str, #[case] times: Option<u64>) {
    assert_eq!(quantity(all).div_ceil(quantity(each)), times);
}

proptest! {
    #[test]
    fn a_sum_is_that_of_the_exact_values(parts in prop::collection::vec(written(), 0..6)) {
        let nanos: i128 = parts.iter().map(|(nanos, _)| nanos).sum();
        let sum: Quantity = parts.iter().map(|(_, text)| quantity(text)).sum();
        prop_assert_eq!(sum, quantity(&format!("{nanos}n")));
        prop_assert_eq!(sum.nanos(), nanos);
        // What is shown is what is meant.
        prop_assert_eq!(quantity(&sum.to_string()), sum);
    }
}

#[test]
fn json_has_texts_and_numbers() {
    let read = |json: &str| serde_json::from_str::<Quantity>(json).map_err(|error| error.to_string());
    for (json, text) in [
        ("\"500m\"", "500m"),
        ("10", "10"),
        ("-3", "-3"),
        ("0.5", "500m"),
        ("1e3", "1k"),
    ] {
        assert_eq!(
            read(json).map(|quantity| quantity.to_string()),
            Ok(text.to_owned()),
            "{json}"
        );
    }
    for json in ["\"much\"", "true", "null", "[1]", "1e300"] {
        assert!(read(json).is_err(), "{json}: {:?}", read(json));
    }
}
