//! Kubernetes quantities as exact numbers.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Longest accepted text. Kubernetes never writes more than about thirty characters.
const LONGEST: usize = 128;
/// Nano-units in one unit.
const NANOS: i128 = 1_000_000_000;
/// The largest magnitude, as in Kubernetes: 2^63-1 units.
const LARGEST: i128 = i64::MAX as i128 * NANOS;

/// A number as Kubernetes writes quantities: `0`, `500m`, `1.5`, `10Ki`, `2e3`.
///
/// Held as a whole number of nano-units, with the rules of `k8s.io/apimachinery`: what is smaller than a nano-unit is
/// rounded up (away from zero), and nothing is larger than 2^63-1. Equality and order are those of the values:
/// `1000m == 1`, `1Ki > 1000`. Arithmetic is that of integers, saturates at the largest quantity, and says which way it rounds.
///
/// (The crate `kube_quantity` reads numbers through `f64` and takes a bare `Ki` for zero, so it is not used.)
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(into = "String")]
pub struct Quantity {
    nanos: i128,
    /// How it was written: decides about the suffix only.
    format: Format,
}

/// The three ways to write a quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    /// `500m`, `12M`.
    #[default]
    DecimalSi,
    /// `12Mi`.
    BinarySi,
    /// `12e6`.
    DecimalExponent,
}

/// From a text or a number, which manifests have where a quantity needs no suffix, as Kubernetes reads it.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextOrNumber)
    }
}

struct TextOrNumber;

impl Visitor<'_> for TextOrNumber {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity such as 2, \"500m\" or \"1.5Gi\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// There is nothing.
    #[error("a quantity is a number such as 0, 500m, 1.5, 10Ki or 2e3, but it is empty")]
    Empty,
    /// More characters than any quantity needs.
    #[error("a quantity has at most {LONGEST} characters, this has {0}")]
    TooLong(usize),
    /// It does not begin with a number.
    #[error("{0:?} does not begin with a number")]
    NotANumber(String),
    /// What follows the number is not a suffix that Kubernetes knows.
    #[error(
        "{text:?} ends in {suffix:?}; known are n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei and exponents such as e3"
    )]
    UnknownSuffix {
        /// The whole text.
        text: String,
        /// The part that is not known.
        suffix: String,
    },
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self::from_nanos(0);

    /// So many nano-units, at most the largest quantity.
    pub const fn from_nanos(nanos: i128) -> Self {
        let nanos = if nanos > LARGEST {
            LARGEST
        } else if nanos < -LARGEST {
            -LARGEST
        } else {
            nanos
        };
        Self {
            nanos,
            format: Format::DecimalSi,
        }
    }

    /// So many milli-units, the unit in which HorizontalPodAutoscalers calculate.
    pub const fn from_millis(millis: i64) -> Self {
        Self::from_nanos(millis as i128 * (NANOS / 1000))
    }

    /// In nano-units, exactly.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// In milli-units, rounded up (away from zero) as `Quantity.MilliValue` does. None where it does not fit into 64 bits.
    pub fn millis(self) -> Option<i64> {
        i64::try_from(away_from_zero(self.nanos, NANOS / 1000)).ok()
    }

    /// In milli-units like [`Self::millis`], and the largest or smallest number of 64 bits where it does not fit.
    pub fn saturating_millis(self) -> i64 {
        let limit = if self.is_negative() { i64::MIN } else { i64::MAX };
        self.millis().unwrap_or(limit)
    }

    /// The nearest float, made as `Quantity.AsApproximateFloat64` makes it from the canonical form: the whole number times
    /// the power of its suffix.
    pub fn approximate(self) -> f64 {
        const POWERS: [f64; 10] = [1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9, 1e12, 1e15, 1e18];
        if self.format == Format::BinarySi && self.nanos % NANOS == 0 {
            return (self.nanos / NANOS) as f64;
        }
        let (number, power) = whole(self.nanos, 1000, POWERS.len() - 1);
        number as f64 * POWERS[power]
    }

    /// In units, rounded up (away from zero) as `Quantity.Value` does.
    pub fn units(self) -> i64 {
        // Fits: the largest quantity is the largest i64.
        i64::try_from(away_from_zero(self.nanos, NANOS)).unwrap_or(i64::MAX)
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below zero.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// This times `numerator / denominator`, rounded up to the next nano-unit. None for a denominator of zero.
    ///
    /// The product is not cut off in between: the magnitude of a quantity is below 2^93, that of a factor below 2^33.
    pub fn mul_div(self, numerator: u32, denominator: u32) -> Option<Self> {
        let product = self.nanos.checked_mul(i128::from(numerator))?;
        (denominator > 0).then(|| self.with(away_from_zero(product, i128::from(denominator))))
    }

    /// How many times `other` fits into this, rounded up: 5 into 11 is 3. None if `other` is zero or both are not of one sign.
    pub fn div_ceil(self, other: Self) -> Option<u64> {
        if other.is_zero() || self.nanos.signum() * other.nanos.signum() < 0 {
            return None;
        }
        u64::try_from(away_from_zero(self.nanos, other.nanos)).ok()
    }

    fn with(self, nanos: i128) -> Self {
        Self {
            format: self.format,
            ..Self::from_nanos(nanos)
        }
    }
}

/// The smallest whole number that is `number` when multiplied by a power of `step`, and that power, at most `last`.
fn whole(mut number: i128, step: i128, last: usize) -> (i128, usize) {
    let mut power = 0;
    while number % step == 0 && power < last {
        number /= step;
        power += 1;
    }
    (number, power)
}

/// A quotient, rounded away from zero.
fn away_from_zero(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    quotient + rest.signum() * divisor.signum()
}

impl std::ops::Add for Quantity {
    type Output = Self;

    /// Shown in the format of the first, if that is not zero.
    fn add(self, other: Self) -> Self {
        let shown_as = if self.is_zero() { other } else { self };
        shown_as.with(self.nanos + other.nanos)
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl std::ops::Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        self.with(-self.nanos)
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, |sum, part| sum + part)
    }
}

impl From<u64> for Quantity {
    fn from(number: u64) -> Self {
        Self::from_nanos(i128::from(number) * NANOS)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        if text.len() > LONGEST {
            return Err(QuantityError::TooLong(text.chars().count()));
        }
        let (negative, unsigned) = match text.strip_prefix(['+', '-']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let (integer, rest) = split_digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
        if integer.is_empty() && fraction.is_empty() {
            return Err(QuantityError::NotANumber(text.to_owned()));
        }
        let scale = Scale::parse(suffix).ok_or_else(|| QuantityError::UnknownSuffix {
            text: text.to_owned(),
            suffix: suffix.to_owned(),
        })?;
        let magnitude = scale.nanos(integer, fraction);
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
            format: scale.format,
        })
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// What a suffix means: a power of ten times a whole factor.
struct Scale {
    ten: i32,
    factor: i128,
    format: Format,
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        let decimal = |ten| Self {
            ten,
            factor: 1,
            format: Format::DecimalSi,
        };
        let binary = |bits: u32| Self {
            ten: 0,
            factor: 1 << bits,
            format: Format::BinarySi,
        };
        Some(match suffix {
            "" => decimal(0),
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => binary(10),
            "Mi" => binary(20),
            "Gi" => binary(30),
            "Ti" => binary(40),
            "Pi" => binary(50),
            "Ei" => binary(60),
            // `parse` takes the sign too, as Kubernetes does: 1e3, 1E3, 1e+3, 1e-3.
            exponent => Self {
                ten: exponent.strip_prefix(['e', 'E'])?.parse().ok()?,
                factor: 1,
                format: Format::DecimalExponent,
            },
        })
    }

    /// The number of nano-units in `integer.fraction` of this scale, rounded up, at most [`LARGEST`].
    fn nanos(&self, integer: &str, fraction: &str) -> i128 {
        let digits = integer.bytes().chain(fraction.bytes());
        let mut mantissa = Wide(digits.map(|digit| digit - b'0').collect());
        if mantissa.0.iter().all(|digit| *digit == 0) {
            return 0;
        }
        mantissa.times(self.factor);
        // The last digit counts this power of ten of a nano-unit. A text has at most LONGEST digits.
        let decimals = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        mantissa.shifted(i64::from(self.ten) + 9 - decimals)
    }
}

/// A natural number of any size, in digits: only for reading a text, which may hold more digits than a quantity can.
struct Wide(Vec<u8>);

impl Wide {
    fn times(&mut self, factor: i128) {
        let mut carry = 0_i128;
        for digit in self.0.iter_mut().rev() {
            let product = i128::from(*digit) * factor + carry;
            *digit = u8::try_from(product % 10).unwrap_or(0);
            carry = product / 10;
        }
        while carry > 0 {
            self.0.insert(0, u8::try_from(carry % 10).unwrap_or(0));
            carry /= 10;
        }
    }

    /// This times ten to the power of `ten`, rounded up, at most [`LARGEST`].
    fn shifted(&self, ten: i64) -> i128 {
        let length = i64::try_from(self.0.len()).unwrap_or(i64::MAX);
        // How many digits stand before the point.
        let whole = usize::try_from(length.saturating_add(ten)).unwrap_or(0);
        let (before, after) = self.0.split_at(whole.min(self.0.len()));
        let mut value = 0_i128;
        for digit in before {
            value = (value * 10 + i128::from(*digit)).min(LARGEST);
        }
        for _ in before.len()..whole {
            if value == 0 || value >= LARGEST {
                break;
            }
            value = (value * 10).min(LARGEST);
        }
        let rounded = value + i128::from(after.iter().any(|digit| *digit > 0));
        rounded.min(LARGEST)
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl fmt::Display for Quantity {
    /// The canonical form of Kubernetes: a whole number with the largest suffix that keeps it whole, so `1500m` and not `1.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if self.is_zero() {
            return f.pad("0");
        }
        // Below 1Ki, and where there is a fraction, a binary suffix would round.
        let binary =
            self.format == Format::BinarySi && self.nanos % NANOS == 0 && self.nanos.abs() >= 1024 * NANOS;
        let (number, power) = if binary {
            whole(self.nanos / NANOS, 1024, BINARY.len() - 1)
        } else {
            whole(self.nanos, 1000, DECIMAL.len() - 1)
        };
        match self.format {
            _ if binary => f.pad(&format!("{number}{}", BINARY[power])),
            // 10^-9 is the first power.
            Format::DecimalExponent if power != 3 => {
                f.pad(&format!("{number}e{}", 3 * power.cast_signed() - 9))
            }
            _ => f.pad(&format!("{number}{}", DECIMAL[power])),
        }
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}
