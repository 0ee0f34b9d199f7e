//! A number for a name that is the same in every process and every version, and so never changes.

/// The 64-bit FNV-1a hash of a text, byte by byte. It spreads names; it keeps nothing secret.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    // The vectors that the authors of the hash publish.
    #[rstest]
    #[case("", 0xcbf2_9ce4_8422_2325)]
    #[case("a", 0xaf63_dc4c_8601_ec8c)]
    #[case("foobar", 0x8594_4171_f739_67e8)]
    fn it_is_the_hash_that_everybody_knows(#[case] text: &str, #[case] hash: u64) {
        assert_eq!(fnv1a(text), hash);
    }
}
