//! Hosts and paths of Ingresses.
//!
//! An exact host beats a wildcard (which stands for exactly one label), and that beats a rule without host; where the
//! better host has no such path, the next one is asked. Within a host the longest path wins, and `Exact` beats `Prefix`.
//! Prefixes match whole path elements, as the Ingress API defines it: `/foo` matches `/foo/bar` but not `/foobar`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Choice;

/// How a path of an Ingress matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The very path.
    Exact,
    /// The path and everything below it. `ImplementationSpecific` is treated like this.
    Prefix,
}

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

    pub(super) fn find(&self, host: &str, path: &str) -> Option<&Choice> {
        let host = host.trim_end_matches('.');
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let exact = || self.exact.get(host.as_ref())?.find(path);
        let wildcard = || self.wildcard.get(host.split_once('.')?.1)?.find(path);
        exact().or_else(wildcard).or_else(|| self.any.find(path))
    }
}

impl Paths {
    fn add(&mut self, path: String, kind: PathMatch, choice: Choice) -> bool {
        let (map, path) = match kind {
            PathMatch::Exact => (&mut self.exact, path),
            PathMatch::Prefix => {
                let path = path.trim_end_matches('/').to_owned();
                self.longest = self.longest.max(path.len());
                (&mut self.prefix, path)
            }
        };
        let vacant = !map.contains_key(&path);
        map.entry(path).or_insert(choice);
        vacant
    }

    fn find(&self, path: &str) -> Option<&Choice> {
        if let Some(choice) = self.exact.get(path) {
            return Some(choice);
        }
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
                return Some(choice);
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
