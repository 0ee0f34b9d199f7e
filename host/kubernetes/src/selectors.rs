//! Which selectors select an object, without a look at all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use crate::cache::IndexKey;
use crate::services::selects;

type Labels = BTreeMap<String, String>;

/// Label selectors as Services have them, each with the `T` that it belongs to. A selector is found by one of its labels, so a pod that
/// changes costs what its own labels lead to.
pub struct SelectorIndex<T> {
    by_label: HashMap<IndexKey, BTreeSet<T>>,
    /// Namespaces and selectors of each.
    selectors: HashMap<T, Vec<(String, Labels)>>,
}

impl<T> Default for SelectorIndex<T> {
    fn default() -> Self {
        Self {
            by_label: HashMap::new(),
            selectors: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash + Ord> SelectorIndex<T> {
    /// Takes the selectors of one in, in place of those that it had. An empty selector selects nothing.
    pub fn set(&mut self, owner: &T, selectors: Vec<(String, Labels)>) {
        if self.selectors.get(owner).is_some_and(|known| *known == selectors) {
            return;
        }
        for key in self.selectors.remove(owner).iter().flatten().filter_map(place) {
            if let Some(owners) = self.by_label.get_mut(&key) {
                owners.remove(owner);
                if owners.is_empty() {
                    self.by_label.remove(&key);
                }
            }
        }
        for key in selectors.iter().filter_map(place) {
            self.by_label.entry(key).or_default().insert(owner.clone());
        }
        if !selectors.is_empty() {
            self.selectors.insert(owner.clone(), selectors);
        }
    }

    /// Those with a selector that selects an object with these labels.
    pub fn selecting(&self, namespace: &str, labels: &Labels) -> BTreeSet<T> {
        let mut found = BTreeSet::new();
        for (key, value) in labels {
            let owners = self.by_label.get(&IndexKey::label(namespace, key, value));
            for owner in owners.into_iter().flatten() {
                let mut selectors = self.selectors.get(owner).into_iter().flatten();
                if selectors.any(|(at, selector)| at == namespace && selects(selector, labels)) {
                    found.insert(owner.clone());
                }
            }
        }
        found
    }
}

/// Where a selector is found: by its last label. Names of applications come late in the alphabet more often than parts of them.
fn place((namespace, selector): &(String, Labels)) -> Option<IndexKey> {
    let (key, value) = selector.last_key_value()?;
    Some(IndexKey::label(namespace, key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn an_object_finds_the_selectors_that_select_it() {
        let mut index = SelectorIndex::default();
        let web = labels(&[("app", "web")]);
        let front = labels(&[("app", "web"), ("tier", "front")]);
        index.set(&"web", vec![("a".to_owned(), web.clone())]);
        index.set(
            &"front",
            vec![
                ("a".to_owned(), front.clone()),
                ("a".to_owned(), labels(&[("x", "y")])),
            ],
        );
        index.set(&"none", vec![("a".to_owned(), Labels::new())]);
        let found = |index: &SelectorIndex<&'static str>, namespace, of: &Labels| {
            index.selecting(namespace, of).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(found(&index, "a", &front), ["front", "web"]);
        assert_eq!(found(&index, "a", &web), ["web"]);
        assert!(found(&index, "b", &front).is_empty());
        assert!(found(&index, "a", &Labels::new()).is_empty());
        assert_eq!(found(&index, "a", &labels(&[("x", "y")])), ["front"]);
        index.set(&"web", vec![("a".to_owned(), labels(&[("app", "other")]))]);
        index.set(&"front", Vec::new());
        assert!(found(&index, "a", &front).is_empty());
        assert!(
            index.by_label.len() == 1 && index.selectors.len() == 2,
            "nothing is left of those that went"
        );
    }
}
