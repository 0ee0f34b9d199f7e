//! The host functions, as guests see them.
//!
//! Each is counted, refused when it is not granted, and ends before the guest's own deadline, so that a slow API
//! server is a typed error in the guest and not the end of its call.

mod base;
mod kubernetes;
mod lifecycle;
mod time;

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use crate::state::{CallState, Shared};

/// A host function, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Import {
    Log,
    ConfigGet,
    ConfigAll,
    TimeNow,
    TimeZone,
    TimeToCivil,
    TimeFromCivil,
    Caller,
    TimeLeft,
    Get,
    List,
    Create,
    Patch,
    Apply,
    Delete,
    Event,
    Sleep,
    Wake,
    State,
}

impl Import {
    pub(crate) const COUNT: usize = 19;

    pub(crate) const ALL: [Import; Import::COUNT] = [
        Import::Log,
        Import::ConfigGet,
        Import::ConfigAll,
        Import::TimeNow,
        Import::TimeZone,
        Import::TimeToCivil,
        Import::TimeFromCivil,
        Import::Caller,
        Import::TimeLeft,
        Import::Get,
        Import::List,
        Import::Create,
        Import::Patch,
        Import::Apply,
        Import::Delete,
        Import::Event,
        Import::Sleep,
        Import::Wake,
        Import::State,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Import::Log => "logging.log",
            Import::ConfigGet => "config.get",
            Import::ConfigAll => "config.all",
            Import::TimeNow => "time.now",
            Import::TimeZone => "time.zone",
            Import::TimeToCivil => "time.to-civil",
            Import::TimeFromCivil => "time.from-civil",
            Import::Caller => "call-context.caller",
            Import::TimeLeft => "call-context.time-left",
            Import::Get => "kubernetes.get",
            Import::List => "kubernetes.list",
            Import::Create => "kubernetes.create",
            Import::Patch => "kubernetes.patch",
            Import::Apply => "kubernetes.apply",
            Import::Delete => "kubernetes.delete",
            Import::Event => "kubernetes.event",
            Import::Sleep => "lifecycle.sleep",
            Import::Wake => "lifecycle.wake",
            Import::State => "lifecycle.state",
        }
    }
}

/// Ends a call that asks for ever.
#[derive(Debug, thiserror::Error)]
#[error("too many host calls")]
pub(crate) struct TooManyHostCalls;

/// An error type that can say that time is up.
trait TimedOut {
    fn timed_out() -> Self;
}

const TIMED_OUT: &str = "no answer before the deadline of the call";

/// One host call that was let in: all that it may use while the guest waits.
struct HostCall {
    shared: Arc<Shared>,
    deadline: Instant,
}

impl CallState {
    /// Counts a host call and lets it in.
    ///
    /// # Errors
    ///
    /// Traps the guest when it made too many.
    fn enter(&mut self, import: Import) -> wasmtime::Result<HostCall> {
        self.count(import)?;
        Ok(HostCall {
            shared: Arc::clone(&self.shared),
            deadline: self.deadline,
        })
    }

    /// Counts a host call that ends at once.
    fn count(&mut self, import: Import) -> wasmtime::Result<()> {
        self.host_calls += 1;
        self.shared.metrics.host_call(import);
        if self.host_calls > self.shared.limits.host_calls {
            return Err(TooManyHostCalls.into());
        }
        Ok(())
    }
}

impl HostCall {
    /// Waits for `answer` for as long as the guest's call still has.
    async fn in_time<T, E: TimedOut>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::time::timeout_at(self.deadline, answer)
            .await
            .unwrap_or_else(|_| Err(E::timed_out()))
    }
}

/// At most `max` bytes of `text`, cut between characters.
pub(crate) fn clip(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push_str(" [cut]");
    }
    text
}

/// Control characters could forge other lines of a log, or drive a terminal: they are shown as in source code.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_import_has_its_place() {
        for (index, import) in Import::ALL.into_iter().enumerate() {
            assert_eq!(import as usize, index);
        }
    }

    #[test]
    fn author_evil_a_text_of_a_guest_stays_one_line() {
        let forged = "a\n2026-11-26 ERROR forged\u{1b}[31m\tä";
        assert_eq!(one_line(forged), r"a\n2026-11-26 ERROR forged\u{1b}[31m\tä");
    }

    #[test]
    fn clipping_never_splits_a_character() {
        assert_eq!(clip("short".into(), 5), "short");
        assert_eq!(clip("ääää".into(), 3), "ä [cut]");
    }
}
