//! Exact sums of quantities.

use super::{Decimal, LONGEST, Quantity, QuantityError};

/// Longest sum that is written out in full; longer ones are written with an exponent.
const PLAIN: usize = 40;

impl Quantity {
    /// The exact sum: `100m + 0.9` is `1`. Of nothing it is zero, and of a single quantity it is that quantity as written.
    ///
    /// # Errors
    /// [`QuantityError::TooFarApart`] when the sum would need more digits than any quantity has (`1e90 + 1e-90`).
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Result<Self, QuantityError> {
        let parts: Vec<&Self> = parts.into_iter().collect();
        if let [only] = parts[..] {
            return Ok(only.clone());
        }
        let values: Vec<&Decimal> = parts
            .iter()
            .map(|part| &part.value)
            .filter(|value| !value.digits.is_empty())
            .collect();
        let length = |value: &Decimal| i64::try_from(value.digits.len()).unwrap_or(i64::MAX);
        let Some(high) = values.iter().map(|value| value.exponent).max() else {
            return Ok(Self::zero());
        };
        let low = values
            .iter()
            .map(|value| value.exponent.saturating_sub(length(value)))
            .min()
            .unwrap_or(high);
        let width = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        if width > LONGEST {
            return Err(QuantityError::TooFarApart);
        }
        let mut columns = vec![0_i64; width];
        for value in values {
            let sign = if value.negative { -1 } else { 1 };
            // Between 0 and the width, which was just bounded.
            let offset = usize::try_from(high - value.exponent).unwrap_or(0);
            for (column, digit) in columns[offset..].iter_mut().zip(&value.digits) {
                *column += sign * i64::from(*digit);
            }
        }
        let value = carried(columns, high);
        Ok(Self {
            text: value.to_text(),
            value,
        })
    }
}

/// Columns of any size and sign, the first of which stands right behind the point shifted by `exponent`, as a decimal.
fn carried(mut columns: Vec<i64>, mut exponent: i64) -> Decimal {
    let mut carry = 0;
    for column in columns.iter_mut().rev() {
        let total = *column + carry;
        (*column, carry) = (total.rem_euclid(10), total.div_euclid(10));
    }
    let negative = carry < 0;
    if negative {
        // What was borrowed at the top is given back: the columns hold 10^n - |sum|.
        let whole = carry;
        carry = 0;
        for column in columns.iter_mut().rev() {
            let total = carry - *column;
            (*column, carry) = (total.rem_euclid(10), total.div_euclid(10));
        }
        carry -= whole;
    }
    while carry > 0 {
        columns.insert(0, carry % 10);
        exponent += 1;
        carry /= 10;
    }
    let digits = columns
        .into_iter()
        .map(|digit| u8::try_from(digit).unwrap_or(0))
        .collect();
    let mut value = Decimal {
        negative,
        digits,
        exponent,
    };
    value.normalise();
    value
}

impl Decimal {
    /// `0.25`, `30720`; with an exponent where that would be long.
    fn to_text(&self) -> String {
        if self.digits.is_empty() {
            return "0".to_owned();
        }
        let sign = if self.negative { "-" } else { "" };
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
        match self.exponent {
            exponent if exponent > i64::try_from(PLAIN).unwrap_or(0) || exponent < -8 => {
                format!("{sign}{digits}e{}", exponent - length)
            }
            exponent if exponent <= 0 => format!("{sign}0.{}{digits}", zeros(-exponent)),
            exponent if exponent >= length => format!("{sign}{digits}{}", zeros(exponent - length)),
            exponent => {
                let (whole, fraction) = digits.split_at(usize::try_from(exponent).unwrap_or(0));
                format!("{sign}{whole}.{fraction}")
            }
        }
    }
}
