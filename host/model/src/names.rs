//! Names that Kubernetes accepts.

/// Longest DNS label.
const LABEL: usize = 63;
/// Longest DNS subdomain.
const SUBDOMAIN: usize = 253;

/// Whether it is a DNS label of RFC 1123 in lower case: a namespace, the name of a Service.
pub fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    text.len() <= LABEL
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

/// Whether it is a DNS subdomain of RFC 1123 in lower case: the name of most objects, an API group.
///
/// Kubernetes bounds the whole, not each label of it.
pub fn is_dns_subdomain(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
    };
    text.len() <= SUBDOMAIN && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("web", true, true)]
    #[case("0", true, true)]
    #[case("a-b", true, true)]
    #[case("a.b", false, true)]
    #[case("", false, false)]
    #[case("a..b", false, false)]
    #[case("-a", false, false)]
    #[case("a-.b", false, false)]
    #[case("Web", false, false)]
    #[case("we_b", false, false)]
    fn names(#[case] text: &str, #[case] label: bool, #[case] subdomain: bool) {
        assert_eq!((is_dns_label(text), is_dns_subdomain(text)), (label, subdomain));
    }

    #[test]
    fn lengths() {
        assert!(is_dns_label(&"a".repeat(63)) && !is_dns_label(&"a".repeat(64)));
        assert!(is_dns_subdomain(&"a".repeat(253)) && !is_dns_subdomain(&"a".repeat(254)));
    }
}
