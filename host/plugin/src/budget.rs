//! What all guests together may have of memory, so that their calls fit into the container whatever each of them may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes for all calls together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: Option<usize>,
    used: AtomicUsize,
}

impl Budget {
    /// None: without a limit.
    pub(crate) fn new(limit: Option<usize>) -> Budget {
        Budget {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }
}

/// What one call has of it. Gives it back when it is dropped.
#[derive(Debug)]
pub(crate) struct Portion {
    of: Arc<Budget>,
    bytes: usize,
}

impl Portion {
    pub(crate) fn new(of: &Arc<Budget>) -> Portion {
        Portion {
            of: Arc::clone(of),
            bytes: 0,
        }
    }

    /// Takes `bytes` more, if there are as many.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let limit = self.of.limit();
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let taken = self.of.used.fetch_update(Relaxed, Relaxed, more).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    pub(crate) fn limit(&self) -> usize {
        self.of.limit()
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_never_exceed_the_budget_and_come_back() {
        let budget = Arc::new(Budget::new(Some(100)));
        let mut one = Portion::new(&budget);
        assert!(one.grow(60));
        let mut other = Portion::new(&budget);
        assert!(!other.grow(60) && other.grow(40));
        drop(one);
        assert!(other.grow(60) && !other.grow(1));
        drop(other);
        assert_eq!(budget.used.load(Relaxed), 0);
    }
}
