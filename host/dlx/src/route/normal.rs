//! Paths as Ingress controllers compare them: escapes of letters that need none are read, slashes are merged, `.` and `..` are
//! resolved. Only for choosing a route: what is forwarded stays as it came.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The path that is compared. Borrowed where nothing is to be done.
pub(super) fn normal(path: &str) -> Cow<'_, str> {
    let plain = path.starts_with('/') && !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if plain || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let text = unescaped(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in text.split('/') {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(text.len());
    for segment in segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if directory || normal.is_empty() {
        normal.push('/');
    }
    Cow::Owned(normal)
}

/// Whether a path leads out of where it began.
pub(super) fn climbs(path: &str) -> bool {
    unescaped(path).split(['/', '\\']).any(|segment| segment == "..")
}

/// Escapes of unreserved characters (RFC 3986 2.3) are read; the others get their one spelling.
fn unescaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let code = rest
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                text.push(char::from(byte));
                rest = &rest[2..];
            }
            Some(byte) if rest.as_bytes()[0] != b'+' => {
                let _ = write!(text, "%{byte:02X}");
                rest = &rest[2..];
            }
            _ => text.push('%'),
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_17_paths_are_compared_as_ingress_controllers_do() {
        for (path, expected) in [
            ("/cart", "/cart"),
            ("/%63art", "/cart"),
            ("/%63%61%72%74/1", "/cart/1"),
            ("//cart", "/cart"),
            ("///cart//x", "/cart/x"),
            ("/a/../cart", "/cart"),
            ("/a/%2e%2E/cart", "/cart"),
            ("/./cart/.", "/cart/"),
            ("/cart/", "/cart/"),
            ("/cart//", "/cart/"),
            ("/../../cart", "/cart"),
            ("/cart/..", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/.hidden", "/.hidden"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/%+1", "/%+1"),
            ("/%é", "/%é"),
            ("*", "*"),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_climb_are_known() {
        for path in ["..", "/..", "/a/../b", "/%2e%2e/b", "a/.%2E", "\\..\\b"] {
            assert!(climbs(path), "{path}");
        }
        for path in ["/a..b", "/...", "/.", ""] {
            assert!(!climbs(path), "{path}");
        }
    }
}
