//! Conversions that stop at the ends of the narrower type, where Go wraps around or depends on the processor.

/// The next whole number, at most and at least what 32 bits hold; not a number is 0.
pub(crate) fn ceil(number: f64) -> i32 {
    number.ceil() as i32
}

/// In 64 bits.
pub(crate) fn to_i64(number: i128) -> i64 {
    number.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// In 32 bits.
pub(crate) fn to_i32(number: i128) -> i32 {
    number.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32
}
