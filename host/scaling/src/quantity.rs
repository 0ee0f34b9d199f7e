//! Kubernetes quantities, compared exactly.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

mod sum;

/// Longest accepted text. Kubernetes never writes more than about thirty characters.
const LONGEST: usize = 128;

/// A number as Kubernetes writes quantities: `0`, `500m`, `1.5`, `10Ki`, `2e3`.
///
/// Equality and order are those of the exact values: `1000m == 1`, `1Ki > 1000`, `0.1 + 0.2` never comes into it. The
/// value is held as decimal digits and an exponent, so nothing is rounded or capped. Kubernetes itself
/// rounds up to nano-units and caps at 2^63-1 when it *stores* a quantity; what it sends has been through that
/// already, so the order of what it sends is the same here.
///
/// (The crate `kube_quantity` reads numbers through `f64` and takes a bare `Ki` for zero, so it is not used.)
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    /// As it was written.
    text: String,
    value: Decimal,
}

/// `0.d1d2d3… × 10^exponent`, without leading or trailing zeros, so that equal values look the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
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
    /// A sum of quantities needs more digits than any quantity has.
    #[error("the sum would need more than {LONGEST} digits")]
    TooFarApart,
}

impl Quantity {
    /// Zero.
    pub fn zero() -> Self {
        Self {
            text: "0".to_owned(),
            value: Decimal::default(),
        }
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.value.digits.is_empty()
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.value.negative
    }
}

impl From<u64> for Quantity {
    fn from(number: u64) -> Self {
        let text = number.to_string();
        let value = Decimal::new(
            false,
            text.bytes().map(|digit| digit - b'0').collect(),
            text.len(),
        );
        Self { text, value }
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
        let whole = unsigned.bytes().take_while(u8::is_ascii_digit).count();
        let (integer, rest) = unsigned.split_at(whole);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", rest),
        };
        if integer.is_empty() && fraction.is_empty() {
            return Err(QuantityError::NotANumber(text.to_owned()));
        }
        let scale = Scale::parse(suffix).ok_or_else(|| QuantityError::UnknownSuffix {
            text: text.to_owned(),
            suffix: suffix.to_owned(),
        })?;
        let digits = integer
            .bytes()
            .chain(fraction.bytes())
            .map(|digit| digit - b'0')
            .collect();
        let mut value = Decimal::new(negative, digits, integer.len());
        match scale {
            Scale::Ten(power) if !value.digits.is_empty() => value.exponent += i64::from(power),
            Scale::Ten(_) => {}
            Scale::Kibi(times) => (0..times).for_each(|_| value.times_1024()),
        }
        Ok(Self {
            text: text.to_owned(),
            value,
        })
    }
}

enum Scale {
    /// A power of ten.
    Ten(i32),
    /// A power of 1024.
    Kibi(u8),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "" => Self::Ten(0),
            "n" => Self::Ten(-9),
            "u" => Self::Ten(-6),
            "m" => Self::Ten(-3),
            "k" => Self::Ten(3),
            "M" => Self::Ten(6),
            "G" => Self::Ten(9),
            "T" => Self::Ten(12),
            "P" => Self::Ten(15),
            "E" => Self::Ten(18),
            "Ki" => Self::Kibi(1),
            "Mi" => Self::Kibi(2),
            "Gi" => Self::Kibi(3),
            "Ti" => Self::Kibi(4),
            "Pi" => Self::Kibi(5),
            "Ei" => Self::Kibi(6),
            // `parse` takes the sign too, as Kubernetes does: 1e3, 1E3, 1e+3, 1e-3.
            exponent => Self::Ten(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
        })
    }
}

impl Decimal {
    /// Digits, the first `whole` of which stand before the point.
    fn new(negative: bool, digits: Vec<u8>, whole: usize) -> Self {
        let mut value = Self {
            negative,
            digits,
            exponent: i64::try_from(whole).unwrap_or(i64::MAX),
        };
        value.normalise();
        value
    }

    fn normalise(&mut self) {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        let leading = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..leading);
        self.exponent -= i64::try_from(leading).unwrap_or(0);
        if self.digits.is_empty() {
            *self = Self::default();
        }
    }

    fn times_1024(&mut self) {
        let mut carry = 0_u32;
        for digit in self.digits.iter_mut().rev() {
            let product = u32::from(*digit) * 1024 + carry;
            *digit = u8::try_from(product % 10).unwrap_or(0);
            carry = product / 10;
        }
        while carry > 0 {
            self.digits.insert(0, u8::try_from(carry % 10).unwrap_or(0));
            self.exponent += 1;
            carry /= 10;
        }
        self.normalise();
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            // Without leading zeros the exponent decides; then the digits, where a prefix is the smaller number.
            (false, false) => self
                .exponent
                .cmp(&other.exponent)
                .then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.value.negative, other.value.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.value.magnitude(&other.value),
            (true, true) => other.value.magnitude(&self.value),
        }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Quantity {}

impl fmt::Display for Quantity {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl TryFrom<String> for Quantity {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.text
    }
}
