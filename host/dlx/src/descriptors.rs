//! Descriptors of this process: each client costs one, and perhaps a second one for its pod.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than this is never asked for: some systems have limits so high that they mean none.
const MOST: u64 = 1 << 20;

/// Raises the soft limit of descriptors to the hard one, and answers with what it is then. Container runtimes leave the soft limit
/// at 1024 for programs that use `select`; this one does not.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let now = current.unwrap_or(MOST).min(MOST);
    let wanted = maximum.unwrap_or(MOST).min(MOST);
    if wanted <= now {
        return now;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            tracing::info!(from = now, to = wanted, "raised the limit of descriptors");
            wanted
        }
        Err(error) => {
            tracing::warn!(%error, limit = now, wanted, "the limit of descriptors cannot be raised");
            now
        }
    }
}
