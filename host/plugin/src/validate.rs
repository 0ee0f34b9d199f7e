//! What names and texts from guests may look like.
//!
//! They become object names, labels, header names and log fields, so each is checked against what it will become.

/// A check of a text: what is wrong with it, or nothing.
pub(crate) type Check = fn(&str) -> Result<(), &'static str>;

/// A namespace, or the name of a Service: RFC 1123 label.
pub(crate) fn dns_label(text: &str) -> Result<(), &'static str> {
    if dormouse_model::is_dns_label(text) {
        Ok(())
    } else {
        Err("not a DNS label (a-z, 0-9 and `-`, at most 63)")
    }
}

/// The name of a resource: RFC 1123 subdomain.
pub(crate) fn dns_subdomain(text: &str) -> Result<(), &'static str> {
    if dormouse_model::is_dns_subdomain(text) {
        Ok(())
    } else {
        Err("not a DNS subdomain (labels of a-z, 0-9 and `-`, separated by dots, at most 253)")
    }
}

/// The name of any object: what fits into one segment of a URL path.
pub(crate) fn path_segment(text: &str) -> Result<(), &'static str> {
    let bad = |c: char| matches!(c, '/' | '%' | '?' | '#') || c.is_control() || c.is_whitespace();
    if matches!(text, "" | "." | "..") || text.len() > 253 || text.contains(bad) {
        Err("not a name that fits into a URL path")
    } else {
        Ok(())
    }
}

/// A kind, such as `Deployment`.
pub(crate) fn kind(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    if bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(u8::is_ascii_alphanumeric)
    {
        Ok(())
    } else {
        Err("not a kind such as Deployment")
    }
}

/// An API group; the core group is empty.
pub(crate) fn group(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || dns_subdomain(text).is_ok() {
        Ok(())
    } else {
        Err("not an API group such as apps")
    }
}

/// A group and version, such as `v1` or `apps/v1`.
pub(crate) fn api_version(text: &str) -> Result<(), &'static str> {
    let (group, version) = text
        .rsplit_once('/')
        .map_or((None, text), |(group, version)| (Some(group), version));
    if dns_label(version).is_ok() && group.is_none_or(|group| dns_subdomain(group).is_ok()) {
        Ok(())
    } else {
        Err("not an apiVersion such as v1 or apps/v1")
    }
}

/// A header name: an RFC 9110 token.
pub(crate) fn header_name(text: &str) -> Result<(), &'static str> {
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if (1..=128).contains(&text.len()) && text.bytes().all(token) {
        Ok(())
    } else {
        Err("not a header name")
    }
}

/// A dotted path to a field.
pub(crate) fn field_path(text: &str) -> Result<(), &'static str> {
    if (1..=512).contains(&text.len())
        && !text.contains(char::is_control)
        && !text.split('.').any(str::is_empty)
    {
        Ok(())
    } else {
        Err("not a dotted path such as status.state")
    }
}

/// The name of a plugin: it becomes a label value and part of a field manager.
pub(crate) fn plugin_name(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let ends = |end: Option<&u8>| end.is_some_and(u8::is_ascii_alphanumeric);
    if bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
    {
        Ok(())
    } else {
        Err("letters, digits, `-`, `_` and `.`, at most 63, beginning and ending with a letter or digit")
    }
}

/// Bounds the length and refuses control characters.
pub(crate) fn text(text: &str, max: usize) -> Result<(), &'static str> {
    if text.len() > max {
        Err("too long")
    } else if text.contains(char::is_control) {
        Err("has control characters")
    } else {
        Ok(())
    }
}

/// A text that says something, on one line.
pub(crate) fn some_text(text: &str, max: usize) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("empty");
    }
    self::text(text, max)
}

/// The name of a metric or of one of its labels in the Prometheus text format.
pub(crate) fn metric_name(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let letter = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_' || *c == b':';
    if bytes.len() <= 253 && bytes.first().is_some_and(|c| !c.is_ascii_digit()) && bytes.iter().all(letter) {
        Ok(())
    } else {
        Err("not a name of Prometheus (letters, digits, `_` and `:`, not beginning with a digit)")
    }
}

/// A resource that pods use, such as `cpu` or `nvidia.com/gpu`.
pub(crate) fn resource_to_measure(text: &str) -> Result<(), &'static str> {
    let letter = |c: u8| c.is_ascii_alphanumeric() || b"-_./".contains(&c);
    if (1..=317).contains(&text.len()) && text.bytes().all(letter) {
        Ok(())
    } else {
        Err("not a resource such as cpu or memory")
    }
}

/// The path of a URL, with a query perhaps.
pub(crate) fn url_path(text: &str) -> Result<(), &'static str> {
    let bad = |c: char| !c.is_ascii_graphic() || c == '#';
    if text.starts_with('/') && text.len() <= 512 && !text.contains(bad) {
        Ok(())
    } else {
        Err("not a path such as /metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(check: Check, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(check(text).is_ok(), "{text:?} should be good");
        }
        for text in bad {
            assert!(check(text).is_err(), "{text:?} should be bad");
        }
    }

    #[test]
    fn names_are_what_they_become() {
        let long = "a".repeat(64);
        table(
            dns_label,
            &["a", "a-1", "0"],
            &["", "-a", "a-", "A", "a.b", "a/b", "ä", &long],
        );
        table(
            dns_subdomain,
            &["a", "a.b-c"],
            &["", "a..b", ".a", "a.", "A.b", "a\nb"],
        );
        table(
            path_segment,
            &["system:node", "a.b", "A"],
            &["", ".", "..", "a/b", "a%2f", "a b", "a\n"],
        );
        table(kind, &["Deployment", "HTTPRoute"], &["", "9a", "a/b", "a b"]);
        table(
            api_version,
            &["v1", "apps/v1", "a.b/v1beta1"],
            &["", "/v1", "a/b/c", "apps/", "v1\n"],
        );
        table(header_name, &["X-Function-Name"], &["", "a b", "a:b", "a\r\nb"]);
        table(field_path, &["status.state", "a"], &["", ".", "a..b", "a.\n"]);
        table(metric_name, &["a", "_a:b9"], &["", "9a", "a-b", "a b", "ä"]);
        table(
            resource_to_measure,
            &["cpu", "nvidia.com/gpu"],
            &["", "c p", "cpu\n"],
        );
        table(
            url_path,
            &["/", "/metrics?a=b"],
            &["", "metrics", "/a b", "/a#b", "/\r\n", "/ä"],
        );
        table(
            plugin_name,
            &["workloads", "status_driven", "a.b-1"],
            &["", "..data", "a b", "a/b", &long],
        );
    }
}
