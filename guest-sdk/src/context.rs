//! About the call that runs.

use std::time::Duration;

use crate::host;

/// Who calls: `autoscaler`, `dlx`, or `cli` for the tools of authors. There may be others later.
pub fn caller() -> String {
    host::caller()
}

/// How long the call may still take, waiting included. It is ended then.
pub fn time_left() -> Duration {
    host::time_left()
}
