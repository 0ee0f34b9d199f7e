//! Queries with places for the resource that they are about.

use std::time::Duration;

use thiserror::Error;

/// Longest query, filled in.
pub const LONGEST: usize = 8 * 1024;

/// A query that cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The name could mean something else within the query language.
    #[error(
        "the name {0:?} has characters that could change the query; only letters, digits, `-`, `_`, `.` and `:` are filled in"
    )]
    Name(String),
    /// Too long.
    #[error("the query has {0} bytes, at most {LONGEST} are sent")]
    TooLong(usize),
}

/// Fills in `{namespace}`, `{name}` and `{window}`; with doubled braces they stand for themselves. Every other brace is
/// left alone: PromQL is full of them.
///
/// # Errors
/// [`TemplateError`]. Names are never escaped: one that would need it is refused, so that the query means what its author wrote.
pub fn expand(query: &str, namespace: &str, name: &str, window: Duration) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(query.len() + 64);
    let mut rest = query;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled.push_str(before);
        let literal = ["{{namespace}}", "{{name}}", "{{window}}"]
            .into_iter()
            .find(|literal| from.starts_with(literal));
        if let Some(literal) = literal {
            filled.push_str(&literal[1..literal.len() - 1]);
            rest = &from[literal.len()..];
        } else if let Some(after) = from.strip_prefix("{namespace}") {
            filled.push_str(harmless(namespace)?);
            rest = after;
        } else if let Some(after) = from.strip_prefix("{name}") {
            filled.push_str(harmless(name)?);
            rest = after;
        } else if let Some(after) = from.strip_prefix("{window}") {
            filled.push_str(&span(window));
            rest = after;
        } else {
            filled.push('{');
            rest = &from[1..];
        }
    }
    filled.push_str(rest);
    if filled.len() > LONGEST {
        return Err(TemplateError::TooLong(filled.len()));
    }
    Ok(filled)
}

fn harmless(text: &str) -> Result<&str, TemplateError> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !text.is_empty() && text.chars().all(harmless) {
        Ok(text)
    } else {
        Err(TemplateError::Name(text.chars().take(100).collect()))
    }
}

/// A duration of PromQL: a whole number and a unit.
fn span(window: Duration) -> String {
    if window.subsec_millis() == 0 {
        format!("{}s", window.as_secs())
    } else {
        format!("{}ms", window.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(query: &str) -> String {
        expand(query, "shop", "web", Duration::from_secs(600)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn places_are_filled_in_and_other_braces_are_left_alone() {
        for (query, expected) in [
            (
                r#"sum(rate(http_requests_total{namespace="{namespace}",service="{name}"}[{window}]))"#,
                r#"sum(rate(http_requests_total{namespace="shop",service="web"}[600s]))"#,
            ),
            (r#"up{pod=~"{name}-[a-z]{5}"}"#, r#"up{pod=~"web-[a-z]{5}"}"#),
            (r#"hits{route="/users/{id}"}"#, r#"hits{route="/users/{id}"}"#),
            (
                r#"hits{route="/users/{{name}}"}"#,
                r#"hits{route="/users/{name}"}"#,
            ),
            ("{", "{"),
            ("{{", "{{"),
            ("{{x}}", "{{x}}"),
            ("{name", "{name"),
            ("{name}{name}", "webweb"),
        ] {
            assert_eq!(filled(query), expected);
        }
        assert_eq!(
            expand("{window}", "a", "b", Duration::from_millis(1500)).as_deref(),
            Ok("1500ms")
        );
    }

    #[test]
    fn what_is_filled_in_is_not_filled_in_again() {
        let error = expand("{namespace}", "{name}", "web", Duration::from_secs(1));
        assert_eq!(error, Err(TemplateError::Name("{name}".to_owned())));
    }

    #[test]
    fn a_name_cannot_break_out() {
        for name in [
            r#"a"} or vector(0) or x{a=""#,
            "a\\",
            "a'",
            "a`",
            "a b",
            "a\n",
            "",
            "ä",
        ] {
            let error = expand(r#"up{a="{name}"}"#, "shop", name, Duration::from_secs(1));
            assert!(
                matches!(error, Err(TemplateError::Name(_))),
                "{name:?}: {error:?}"
            );
        }
        // Where it is not asked for, it does no harm.
        assert!(expand("up", "shop", "\"", Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn long_queries_are_refused() {
        let error = expand(&"{".repeat(LONGEST + 1), "a", "b", Duration::from_secs(1));
        assert_eq!(error, Err(TemplateError::TooLong(LONGEST + 1)));
    }

    proptest! {
        #[test]
        fn what_has_no_place_is_left_as_it_is(query in "[^{]{0,40}") {
            prop_assert_eq!(filled(&query), query);
        }

        #[test]
        fn no_query_breaks_it(query in "([{}a-z\"]|\\{name\\}|\\{\\{name\\}\\}){0,30}") {
            let _ = expand(&query, "shop", "web", Duration::from_secs(1));
        }
    }
}
