//! Quantities compare as Kubernetes quantities, exactly.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::cmp::Ordering;

use dormouse_scaling::{Quantity, QuantityError};
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
#[case("1e2147483647", Ordering::Greater, "1e2147483646")]
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

#[test]
fn it_is_shown_and_stored_as_it_was_written() {
    let written = quantity("0500m");
    assert_eq!(written.to_string(), "0500m");
    assert_eq!(serde_json::to_string(&written).unwrap(), "\"0500m\"");
    assert_eq!(serde_json::from_str::<Quantity>("\"0.5\"").unwrap(), written);
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
        prop_assert_eq!(Quantity::from(left).cmp(&Quantity::from(right)), left.cmp(&right));
        prop_assert_eq!(Quantity::from(left), quantity(&left.to_string()));
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,40}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn nothing_like_a_quantity_breaks_the_parser(text in "[+-]?[0-9.]{0,8}[eEinumkKMGTP+-]{0,3}[0-9]{0,12}") {
        if let Ok(read) = text.parse::<Quantity>() {
            prop_assert_eq!(read.to_string(), text);
        }
    }
}

#[rstest]
#[case(&[], "0")]
#[case(&["250m"], "250m")]
#[case(&["100m", "0.9"], "1")]
#[case(&["10Ki", "20Ki"], "30720")]
#[case(&["0.1", "0.2"], "0.3")]
#[case(&["1n", "1"], "1.000000001")]
#[case(&["-1", "0.25"], "-0.75")]
#[case(&["-1", "1"], "0")]
#[case(&["5", "-17", "4"], "-8")]
#[case(&["0", "1e100"], "1e100")]
#[case(&["1e-20", "2e-20"], "3e-20")]
#[case(&["9Ei", "9Ei"], "20752587082923245568")]
fn sums_are_exact(#[case] parts: &[&str], #[case] sum: &str) {
    let parts: Vec<_> = parts.iter().map(|part| quantity(part)).collect();
    assert_eq!(Quantity::sum(&parts).unwrap().to_string(), sum);
}

#[test]
fn a_sum_that_nobody_could_write_is_refused() {
    let parts = [quantity("1e2000000000"), quantity("1e-2000000000")];
    assert_eq!(Quantity::sum(&parts), Err(QuantityError::TooFarApart));
    let ok = [quantity("1e2000000000"), quantity("1e2000000000")];
    assert_eq!(Quantity::sum(&ok).unwrap(), quantity("2e2000000000"));
}

proptest! {
    #[test]
    fn a_sum_is_that_of_the_exact_values(parts in prop::collection::vec(written(), 0..6)) {
        let nanos: i128 = parts.iter().map(|(nanos, _)| nanos).sum();
        let quantities: Vec<_> = parts.iter().map(|(_, text)| quantity(text)).collect();
        let sum = Quantity::sum(&quantities).unwrap();
        prop_assert_eq!(&sum, &quantity(&format!("{nanos}n")));
        // What is shown is what is meant.
        prop_assert_eq!(&quantity(&sum.to_string()), &sum);
    }
}
