//! How many cases are tried, and where those that failed are kept.

use proptest::test_runner::{Config, FileFailurePersistence};

/// Says how many cases each property is tried with, in place of its usual number.
const COUNT: &str = "PROPTEST_CASES";

/// A property is tried with its usual number of cases, or with as many as `PROPTEST_CASES` says.
///
/// One that fails is written to the file `failed` as a seed, with the shrunk events behind it, and is tried first in every run
/// from then on: commit the file. A seed means other events once a strategy has changed, so what must never come back is copied
/// into `regressions`.
pub fn cases(usual: u32, failed: &'static str) -> Config {
    let config = Config::default();
    Config {
        cases: if std::env::var_os(COUNT).is_some() {
            config.cases
        } else {
            usual
        },
        max_shrink_iters: 200_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(failed))),
        ..config
    }
}
