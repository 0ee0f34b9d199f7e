//! Since when something has been so.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// Remembers the beginning of what is so without a break, by key.
pub(crate) struct Since<K>(Mutex<HashMap<K, Timestamp>>);

impl<K> Default for Since<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Since<K> {
    /// Notes whether it is so now. Returns since when it has been.
    pub(crate) fn update(&self, key: K, is_so: bool, now: Timestamp) -> Option<Timestamp> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_so {
            return Some(*known.entry(key).or_insert(now));
        }
        known.remove(&key);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_from_its_beginning() {
        let since = Since::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(since.update("a", true, at(1)), Some(at(1)));
        assert_eq!(since.update("a", true, at(5)), Some(at(1)));
        assert_eq!(since.update("b", true, at(5)), Some(at(5)));
        assert_eq!(since.update("a", false, at(6)), None);
        assert_eq!(since.update("a", true, at(7)), Some(at(7)));
    }
}
