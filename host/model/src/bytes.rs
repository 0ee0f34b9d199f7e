//! Sizes as Kubernetes users write them: `1048576`, `64Ki`, `1Mi`, `1G`.

/// The units, and how many bytes each is.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
];

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size such as 1048576, 64Ki, 1Mi or 1G")]
pub struct BytesError(String);

/// Reads a size in bytes. Whole numbers only: a part of a byte is a slip.
///
/// # Errors
/// [`BytesError`] when it is not a whole number with a unit that Kubernetes knows, or too large.
pub fn parse_bytes(text: &str) -> Result<u64, BytesError> {
    let wrong = || BytesError(text.to_owned());
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_kubernetes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("1Mi", 1 << 20),
            ("2k", 2000),
            ("3Gi", 3 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "Mi", "1MB", "1.5Mi", "-1", "1 Mi", "99999999999999Ti"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
