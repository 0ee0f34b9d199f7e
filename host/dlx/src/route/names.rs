//! The target-name and target-path headers of v3io's scaler.

use std::collections::HashMap;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

use super::Choice;
use super::normal::climbs;
use crate::RouteTarget;
use crate::rescue::Rescue;

#[derive(Debug, Default)]
pub(super) struct Names {
    /// By namespace and name.
    full: HashMap<(String, String), Entry>,
    /// By name alone.
    bare: HashMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    RouteTarget(Arc<RouteTarget>),
    /// More than one goes by that name.
    Ambiguous,
}

impl Names {
    pub(super) fn add(&mut self, namespace: &str, name: &str, target: Arc<RouteTarget>) {
        let put = |entry: &mut Entry, target: &Arc<RouteTarget>| {
            if !matches!(entry, Entry::RouteTarget(known) if Arc::ptr_eq(known, target)) {
                *entry = Entry::Ambiguous;
            }
        };
        self.full
            .entry((namespace.to_owned(), name.to_owned()))
            .and_modify(|entry| put(entry, &target))
            .or_insert_with(|| Entry::RouteTarget(Arc::clone(&target)));
        self.bare
            .entry(name.to_owned())
            .and_modify(|entry| put(entry, &target))
            .or_insert_with(|| Entry::RouteTarget(target));
    }

    /// Reads `one`, `one,two`, `ns/one,ns/two`.
    pub(super) fn find(&self, header: &HeaderValue) -> Result<Choice, Rescue> {
        let text = header
            .to_str()
            .map_err(|_| Rescue::Malformed("the target name is not plain text"))?;
        let mut names = text.split(',').map(str::trim);
        let (first, second) = (names.next().unwrap_or_default(), names.next());
        if names.next().is_some() {
            return Err(Rescue::Malformed("more than two targets were named"));
        }
        let second = second.map(|second| self.one(second)).transpose()?;
        Ok(Choice {
            first: self.one(first)?,
            second,
        })
    }

    fn one(&self, name: &str) -> Result<Arc<RouteTarget>, Rescue> {
        if name.is_empty() {
            return Err(Rescue::Malformed("a target name is empty"));
        }
        let entry = match name.split_once('/') {
            Some((namespace, name)) => self.full.get(&(namespace.to_owned(), name.to_owned())),
            None => self.bare.get(name),
        };
        match entry {
            Some(Entry::RouteTarget(target)) => Ok(Arc::clone(target)),
            Some(Entry::Ambiguous) => Err(Rescue::Malformed(
                "the target name is ambiguous; name it as namespace/name",
            )),
            None => Err(Rescue::NoRoute),
        }
    }
}

/// The path that the header asks for with the request's own path behind it, one slash in between: as Go's single-host
/// reverse proxy joins them, which is what users of v3io's scaler see today.
pub(super) fn join(prefix: &HeaderValue, uri: &Uri) -> Result<PathAndQuery, Rescue> {
    const WRONG: Rescue = Rescue::Malformed("the target path is no path");
    let prefix = prefix.to_str().map_err(|_| WRONG)?;
    if prefix.contains(['?', '#']) || climbs(prefix) {
        return Err(WRONG);
    }
    let (path, query) = (uri.path(), uri.query());
    let mut joined = String::with_capacity(prefix.len() + path.len() + query.map_or(0, str::len) + 3);
    let prefix = prefix.trim_matches('/');
    if !prefix.is_empty() {
        joined.push('/');
        joined.push_str(prefix);
    }
    if !path.starts_with('/') {
        joined.push('/');
    }
    joined.push_str(path);
    if let Some(query) = query {
        joined.push('?');
        joined.push_str(query);
    }
    PathAndQuery::from_maybe_shared(joined).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::target;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn a_name_that_two_namespaces_know_must_be_spelled_out() {
        let mut names = Names::default();
        names.add("a", "same", target("a"));
        names.add("b", "same", target("b"));
        names.add("b", "single", target("single"));
        let find = |text: &str| {
            names
                .find(&value(text))
                .map(|choice| choice.first.resource.clone())
        };
        assert_eq!(find("a/same"), Ok("a".into()));
        assert_eq!(find("b/same"), Ok("b".into()));
        assert_eq!(find("single"), Ok("single".into()));
        assert!(matches!(find("same"), Err(Rescue::Malformed(text)) if text.contains("namespace/name")));
        assert_eq!(find("nobody"), Err(Rescue::NoRoute));
        assert_eq!(find("*/single"), Err(Rescue::NoRoute));
    }

    #[test]
    fn a_wrong_list_is_a_bad_request() {
        let mut names = Names::default();
        names.add("a", "x", target("x"));
        for text in ["", ",x", "x,", "x,x,x", "x,,x"] {
            assert!(
                matches!(names.find(&value(text)), Err(Rescue::Malformed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn paths_are_joined_with_one_slash() {
        let table = [
            ("/a", "/b", "/a/b"),
            ("/a/", "/b", "/a/b"),
            ("a", "/b?c", "/a/b?c"),
            ("", "/b", "/b"),
            ("/", "/", "/"),
            ("/a", "/", "/a/"),
        ];
        for (prefix, uri, expected) in table {
            assert_eq!(
                join(&value(prefix), &uri.parse().unwrap()).unwrap(),
                expected,
                "{prefix} {uri}"
            );
        }
        assert!(join(&value("/a?b=c"), &"/".parse().unwrap()).is_err());
        for climbs in ["/..", "/a/../b", "a/%2e%2E/b"] {
            assert!(join(&value(climbs), &"/".parse().unwrap()).is_err(), "{climbs}");
        }
        assert!(join(&value("/a b"), &"/".parse().unwrap()).is_err());
    }
}
