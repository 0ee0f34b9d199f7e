//! Paths of Ingresses that are patterns.

use regex::bytes::{Regex, RegexBuilder};

use super::Choice;

/// Memory of a compiled pattern and of its search, in bytes each. Patterns come from whoever may write an Ingress.
const SIZE: usize = 128 << 10;
/// Patterns of one host. Each is tried for each request, so that many cost about as much as a hash of the path.
const MOST: usize = 256;
/// Longest path that is compared with patterns, in bytes.
const LONGEST_PATH: usize = 8 << 10;

/// Where and how a pattern has to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// A regular expression that matches from the start, whatever the case: ingress-nginx.
    StartAnyCase,
    /// A regular expression that matches from the start.
    Start,
    /// A regular expression that matches anywhere: Traefik's `PathRegexp`.
    Anywhere,
    /// A regular expression that matches the whole path: Contour.
    Whole,
    /// `*` stands for anything, `?` for one character: the AWS load balancer controller.
    Wildcard,
}

/// How a path of an Ingress matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The very path.
    Exact,
    /// The path and everything below it.
    Prefix,
    /// Whatever a pattern matches.
    Pattern(Syntax),
    /// It looks like a pattern, and its controller is not known. What it would match is refused: as a literal prefix it would
    /// leave such requests to a shorter path, and that may belong to another workload.
    Unclear,
}

/// The pattern, if it can be compiled within the limits.
pub(crate) fn compile(kind: PathMatch, path: &str) -> Option<Regex> {
    let (source, any_case) = match kind {
        PathMatch::Pattern(Syntax::StartAnyCase) => (format!("^(?:{path})"), true),
        PathMatch::Pattern(Syntax::Start) | PathMatch::Unclear => (format!("^(?:{path})"), false),
        PathMatch::Pattern(Syntax::Anywhere) => (path.to_owned(), false),
        PathMatch::Pattern(Syntax::Whole) => (format!("^(?:{path})$"), false),
        PathMatch::Pattern(Syntax::Wildcard) => {
            let escaped = regex::escape(path).replace(r"\*", ".*").replace(r"\?", ".");
            (format!("^(?:{escaped})$"), false)
        }
        PathMatch::Exact | PathMatch::Prefix => return None,
    };
    RegexBuilder::new(&source)
        .case_insensitive(any_case)
        // Controllers compare bytes.
        .unicode(false)
        .size_limit(SIZE)
        .dfa_size_limit(SIZE)
        .nest_limit(50)
        .build()
        .ok()
}

/// The patterns of a host, the longest first.
#[derive(Debug, Default)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    source: String,
    kind: PathMatch,
    regex: Regex,
    /// None: it is not known whether it is a pattern, so nobody is woken by it.
    choice: Option<Choice>,
}

/// What was found by a pattern.
pub(super) struct Matched<'a> {
    /// Length of the pattern.
    pub(super) length: usize,
    pub(super) choice: Option<&'a Choice>,
}

impl Patterns {
    pub(super) fn add(&mut self, source: String, kind: PathMatch, choice: Choice) -> bool {
        let known = self
            .0
            .iter()
            .any(|known| known.source == source && known.kind == kind);
        if known || self.0.len() >= MOST {
            return false;
        }
        let Some(regex) = compile(kind, &source) else {
            return false;
        };
        let choice = (kind != PathMatch::Unclear).then_some(choice);
        let at = self.0.partition_point(|known| known.source.len() >= source.len());
        self.0.insert(
            at,
            Pattern {
                source,
                kind,
                regex,
                choice,
            },
        );
        true
    }

    pub(super) fn find(&self, path: &str) -> Option<Matched<'_>> {
        if path.len() > LONGEST_PATH {
            return None;
        }
        let pattern = self
            .0
            .iter()
            .find(|pattern| pattern.regex.is_match(path.as_bytes()))?;
        Some(Matched {
            length: pattern.source.len(),
            choice: pattern.choice.as_ref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_17_patterns_match_as_their_controllers_do() {
        use Syntax::{Anywhere, Start, StartAnyCase, Whole, Wildcard};
        for (syntax, pattern, path, expected) in [
            (StartAnyCase, "/api/v[0-9]+", "/API/v12/x", true),
            (StartAnyCase, "/api/v[0-9]+", "/x/api/v1", false),
            (StartAnyCase, "/a|/b", "/x/b", false),
            (StartAnyCase, "/something(/|$)(.*)", "/something", true),
            (StartAnyCase, "/something(/|$)(.*)", "/somethingelse", false),
            (Start, "/api", "/API", false),
            (Anywhere, "/b$", "/a/b", true),
            (Anywhere, "^/b", "/a/b", false),
            (Whole, "/a/[^/]+", "/a/b", true),
            (Whole, "/a/[^/]+", "/a/b/c", false),
            (Wildcard, "/img/*.png", "/img/a/b.png", true),
            (Wildcard, "/img/?.png", "/img/ab.png", false),
            (Wildcard, "/a(b", "/a(b", true),
        ] {
            let regex = compile(PathMatch::Pattern(syntax), pattern).unwrap();
            assert_eq!(
                regex.is_match(path.as_bytes()),
                expected,
                "{syntax:?} {pattern} {path}"
            );
        }
    }

    #[test]
    fn field_17_a_pattern_that_is_too_much_is_none() {
        let start = PathMatch::Pattern(Syntax::Start);
        for pattern in ["/(a", "/a(?=b)", r"/(a)\1", "/(([a-z]{100}){100}){100}"] {
            assert!(compile(start, pattern).is_none(), "{pattern}");
        }
        let deep = format!("/{}{}", "(".repeat(100), ")".repeat(100));
        assert!(compile(start, &deep).is_none());
    }
}
