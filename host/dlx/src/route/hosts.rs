//! Hosts and paths of Ingresses.
//!
//! An exact host beats a wildcard (which stands for exactly one label), and that beats a rule without host; where the
//! better host has no such path, the next one is asked. Within a host the longest path wins, and `Exact` beats `Prefix`.
//! Prefixes match whole path elements, as the Ingress API defines it: `/foo` matches `/foo/bar` but not `/foobar`. Patterns
//! take part with the length of their text. Paths are compared in their normal form ([`normal`]).

use std::borrow::Cow;
use std::collections::HashMap;

use super::Choice;
use super::normal::normal;
use super::patterns::{PathMatch, Patterns};
use crate::rescue::Rescue;

/// A host and path of an Ingress rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPath {
    /// `shop.example.com`, `*.example.com`, or empty for every host.
    pub host: String,
    /// Begins with `/`.
    pub path: String,
    /// How it matches.
    pub kind: PathMatch,
}

#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<String, Paths>,
    /// By what follows the asterisk's dot.
    wildcard: HashMap<String, Paths>,
    any: Paths,
}

#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<String, Choice>,
    /// Without trailing slash, so the root is empty.
    prefix: HashMap<String, Choice>,
    longest: usize,
    patterns: Patterns,
}

impl Hosts {
    pub(super) fn add(&mut self, at: HostPath, choice: Choice) -> bool {
        let host = at.host.trim_end_matches('.').to_ascii_lowercase();
        let paths = match host.strip_prefix("*.") {
            Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_default(),
            None if host.is_empty() || host == "*" => &mut self.any,
            None => self.exact.entry(host).or_default(),
        };
        paths.add(at.path, at.kind, choice)
    }

    /// # Errors
    /// [`Rescue::UnclearPath`] where it is not known what a path of an Ingress means.
    pub(super) fn find(&self, host: &str, path: &str) -> Result<Option<&Choice>, Rescue> {
        let path = normal(path);
        let path = path.as_ref();
        let host = host.trim_end_matches('.');
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let exact = || self.exact.get(host.as_ref())?.find(path);
        let wildcard = || self.wildcard.get(host.split_once('.')?.1)?.find(path);
        match exact().or_else(wildcard).or_else(|| self.any.find(path)) {
            Some(Found::Choice(choice)) => Ok(Some(choice)),
            Some(Found::Unclear) => Err(Rescue::UnclearPath),
            None => Ok(None),
        }
    }
}

enum Found<'a> {
    Choice(&'a Choice),
    Unclear,
}

impl Paths {
    fn add(&mut self, path: String, kind: PathMatch, choice: Choice) -> bool {
        let (map, path) = match kind {
            PathMatch::Pattern(_) | PathMatch::Unclear => return self.patterns.add(path, kind, choice),
            PathMatch::Exact => (&mut self.exact, normal(&path).into_owned()),
            PathMatch::Prefix => {
                let path = normal(&path).trim_end_matches('/').to_owned();
                self.longest = self.longest.max(path.len());
                (&mut self.prefix, path)
            }
        };
        let vacant = !map.contains_key(&path);
        map.entry(path).or_insert(choice);
        vacant
    }

    fn find(&self, path: &str) -> Option<Found<'_>> {
        if let Some(choice) = self.exact.get(path) {
            return Some(Found::Choice(choice));
        }
        let prefix = self.longest_prefix(path);
        let pattern = self.patterns.find(path);
        let length = prefix.map(|(length, _)| length);
        match pattern.filter(|pattern| length.is_none_or(|length| length <= pattern.length)) {
            Some(pattern) => Some(pattern.choice.map_or(Found::Unclear, Found::Choice)),
            None => prefix.map(|(_, choice)| Found::Choice(choice)),
        }
    }

    /// The longest prefix and its length.
    fn longest_prefix(&self, path: &str) -> Option<(usize, &Choice)> {
        if self.prefix.is_empty() {
            return None;
        }
        // Only as far as a prefix may reach, so that a long path of slashes costs nothing.
        let mut reach = self.longest.min(path.len());
        while !path.is_char_boundary(reach) {
            reach -= 1;
        }
        let whole = reach == path.len() || path.as_bytes()[reach] == b'/';
        let mut candidate = if whole {
            &path[..reach]
        } else {
            path[..reach].rsplit_once('/').map_or("", |(up, _)| up)
        };
        loop {
            if let Some(choice) = self.prefix.get(candidate) {
                return Some((candidate.len(), choice));
            }
            if candidate.is_empty() {
                return None;
            }
            candidate = candidate.rsplit_once('/').map_or("", |(up, _)| up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Syntax;
    use crate::route::tests::target;

    fn hosts(rules: &[(&str, &str, PathMatch, &str)]) -> Hosts {
        let mut hosts = Hosts::default();
        for (host, path, kind, name) in rules {
            let at = HostPath {
                host: (*host).into(),
                path: (*path).into(),
                kind: *kind,
            };
            assert!(hosts.add(
                at,
                Choice {
                    first: target(name),
                    second: None
                }
            ));
        }
        hosts
    }

    fn find<'a>(hosts: &'a Hosts, host: &str, path: &str) -> Option<&'a str> {
        hosts
            .find(host, path)
            .unwrap()
            .map(|choice| choice.first.resource.as_str())
    }

    #[test]
    fn an_exact_host_beats_a_wildcard_and_that_beats_a_rule_without_host() {
        use PathMatch::Prefix;
        let hosts = hosts(&[
            ("", "/", Prefix, "any"),
            ("*.example.com", "/", Prefix, "wildcard"),
            ("shop.example.com", "/cart", Prefix, "exact"),
        ]);
        assert_eq!(find(&hosts, "shop.example.com", "/cart/1"), Some("exact"));
        assert_eq!(find(&hosts, "SHOP.example.com.", "/cart"), Some("exact"));
        assert_eq!(
            find(&hosts, "shop.example.com", "/other"),
            Some("wildcard"),
            "the next host is asked"
        );
        assert_eq!(
            find(&hosts, "a.b.example.com", "/"),
            Some("any"),
            "a wildcard is one label"
        );
        assert_eq!(find(&hosts, "example.com", "/"), Some("any"));
        assert_eq!(find(&hosts, "", "/"), Some("any"));
    }

    #[test]
    fn the_longest_path_wins_and_exact_beats_prefix() {
        use PathMatch::{Exact, Prefix};
        let hosts = hosts(&[
            ("h", "/", Prefix, "root"),
            ("h", "/foo", Prefix, "foo"),
            ("h", "/foo/bar/", Prefix, "bar"),
            ("h", "/foo/bar", Exact, "exactly"),
        ]);
        let table = [
            ("/", "root"),
            ("/foobar", "root"),
            ("/foo", "foo"),
            ("/foo/", "foo"),
            ("/foo/baz", "foo"),
            ("/foo/barn", "foo"),
            ("/foo/bar", "exactly"),
            ("/foo/bar/", "bar"),
            ("/foo/bar/baz/qux", "bar"),
            ("*", "root"),
            ("/föö/bar", "root"),
        ];
        for (path, expected) in table {
            assert_eq!(find(&hosts, "h", path), Some(expected), "{path}");
        }
    }

    #[test]
    fn field_17_other_spellings_of_a_path_find_its_workload() {
        let hosts = hosts(&[
            ("h", "/", PathMatch::Prefix, "root"),
            ("h", "/cart", PathMatch::Prefix, "cart"),
            ("h", "/caf%c3%a9", PathMatch::Exact, "cafe"),
        ]);
        for path in ["/cart", "/%63art", "//cart", "/a/../cart/1", "/./cart"] {
            assert_eq!(find(&hosts, "h", path), Some("cart"), "{path}");
        }
        assert_eq!(find(&hosts, "h", "/cart/../x"), Some("root"));
        assert_eq!(find(&hosts, "h", "/caf%C3%A9"), Some("cafe"));
    }

    #[test]
    fn field_17_the_longest_of_patterns_and_prefixes_wins() {
        let pattern = PathMatch::Pattern(Syntax::StartAnyCase);
        let hosts = hosts(&[
            ("h", "/", PathMatch::Prefix, "root"),
            ("h", "/api/v[0-9]+", pattern, "versioned"),
            ("h", "/api/v[0-9]+/admin", pattern, "admin"),
            ("h", "/api/v1/longer/prefix", PathMatch::Prefix, "prefix"),
        ]);
        for (path, expected) in [
            ("/api/v1", "versioned"),
            ("/api/v22/x", "versioned"),
            ("/api/v1/admin", "admin"),
            ("/api/v1/longer/prefix/x", "prefix"),
            ("/api/vx", "root"),
        ] {
            assert_eq!(find(&hosts, "h", path), Some(expected), "{path}");
        }
    }

    #[test]
    fn field_17_what_may_be_a_pattern_wakes_nobody_else() {
        let hosts = hosts(&[
            ("h", "/", PathMatch::Prefix, "root"),
            ("h", "/api/v[0-9]+", PathMatch::Unclear, "api"),
        ]);
        assert_eq!(hosts.find("h", "/api/v1").unwrap_err(), Rescue::UnclearPath);
        assert_eq!(find(&hosts, "h", "/api/docs"), Some("root"));
    }

    #[test]
    fn the_older_rule_stays() {
        let mut hosts = hosts(&[("h", "/a", PathMatch::Prefix, "old")]);
        let at = HostPath {
            host: "H".into(),
            path: "/a/".into(),
            kind: PathMatch::Prefix,
        };
        assert!(!hosts.add(
            at,
            Choice {
                first: target("new"),
                second: None
            }
        ));
        assert_eq!(find(&hosts, "h", "/a"), Some("old"));
        assert_eq!(find(&hosts, "h", "/b"), None);
    }

    #[test]
    fn an_exact_path_alone_matches_nothing_below_it() {
        let hosts = hosts(&[("h", "/a", PathMatch::Exact, "a")]);
        assert_eq!(find(&hosts, "h", "/a"), Some("a"));
        assert_eq!(find(&hosts, "h", "/a/"), None);
    }
}
