//! Which namespaces a process looks after.
//!
//! Namespaces are dealt out to a fixed number of shards, and each process holds some of them. The shard of a namespace is the
//! 64-bit FNV-1a hash of its name, in bytes, modulo the number of shards. That is part of what processes of different
//! versions agree on, so it never changes.

use std::collections::BTreeSet;

use crate::fnv1a;

/// The shards that a process holds, of all that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    count: u32,
    held: BTreeSet<u32>,
}

impl Shards {
    /// None: the process looks after nothing.
    pub fn none() -> Self {
        Self {
            count: 1,
            held: BTreeSet::new(),
        }
    }

    /// All of `count` shards. There is at least one.
    pub fn all(count: u32) -> Self {
        let count = count.max(1);
        Self {
            count,
            held: (0..count).collect(),
        }
    }

    /// These of `count` shards, numbered from 0. There is at least one, and those that do not exist are left out.
    pub fn of(count: u32, held: impl IntoIterator<Item = u32>) -> Self {
        let count = count.max(1);
        Self {
            count,
            held: held.into_iter().filter(|shard| *shard < count).collect(),
        }
    }

    /// How many shards there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Those that are held.
    pub fn held(&self) -> &BTreeSet<u32> {
        &self.held
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The shard that a namespace belongs to.
    pub fn of_namespace(&self, namespace: &str) -> u32 {
        // Less than a u32, because the divisor is one.
        u32::try_from(fnv1a(namespace) % u64::from(self.count)).unwrap_or(0)
    }

    /// Whether a namespace is looked after.
    pub fn holds(&self, namespace: &str) -> bool {
        self.held.contains(&self.of_namespace(namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    // Computed apart from this code. They must never change: processes of two versions would both look after a namespace.
    #[rstest]
    #[case("", 1, 0)]
    #[case("default", 1, 0)]
    fn one_shard_has_every_namespace(#[case] namespace: &str, #[case] count: u32, #[case] shard: u32) {
        assert_eq!(Shards::all(count).of_namespace(namespace), shard);
        assert!(Shards::all(count).holds(namespace));
    }

    #[rstest]
    #[case("default", 2, 0)]
    #[case("default", 3, 0)]
    #[case("default", 16, 14)]
    #[case("kube-system", 2, 0)]
    #[case("kube-system", 3, 0)]
    #[case("kube-system", 16, 14)]
    #[case("shop", 2, 1)]
    #[case("shop", 3, 2)]
    #[case("shop", 16, 9)]
    #[case("team-a", 2, 0)]
    #[case("team-a", 3, 1)]
    #[case("team-a", 16, 6)]
    fn a_namespace_stays_where_it_is(#[case] namespace: &str, #[case] count: u32, #[case] shard: u32) {
        assert_eq!(Shards::all(count).of_namespace(namespace), shard);
        assert!(Shards::of(count, [shard]).holds(namespace));
        assert!(!Shards::of(count, (0..count).filter(|other| *other != shard)).holds(namespace));
    }

    #[test]
    fn every_namespace_has_one_holder() {
        let (one, two) = (Shards::of(3, [0, 2]), Shards::of(3, [1]));
        for number in 0..1000 {
            let namespace = format!("team-{number}");
            assert!(one.holds(&namespace) != two.holds(&namespace), "{namespace}");
        }
    }

    #[test]
    fn namespaces_spread() {
        let shards = Shards::all(4);
        let mut sizes = [0_u32; 4];
        for number in 0..1000 {
            sizes[shards.of_namespace(&format!("team-{number}")) as usize] += 1;
        }
        assert!(sizes.iter().all(|size| (200..300).contains(size)), "{sizes:?}");
    }

    #[test]
    fn none_holds_nothing_and_what_does_not_exist_is_not_held() {
        assert!(!Shards::none().holds("default") && Shards::none().is_empty());
        assert_eq!(Shards::of(2, [1, 2, 9]).held().len(), 1);
        assert_eq!(Shards::all(0).count(), 1);
    }
}
