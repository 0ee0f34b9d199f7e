//! How a process ends: when it was asked to, within a time, whatever does not answer.
//!
//! Signals are heard by a thread of their own, from before the configuration is read. It tells the work, and if the work has
//! not ended when its time is up, because an API server, a disk or a pipe does not answer, it ends the process. A second
//! signal ends it at once.

use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::output;

/// Until a process is up, nothing is worth waiting for.
const STARTING: Duration = Duration::from_secs(2);
/// What blocking calls that hang may still take once the work has ended.
const LEFTOVERS: Duration = Duration::from_millis(200);

static LIMIT: AtomicU64 = AtomicU64::new(STARTING.as_millis() as u64);

/// How long this process may take from a signal to its end, from now on. Before anybody says so it is two seconds.
pub fn may_take(limit: Duration) {
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    LIMIT.store(millis, Ordering::Relaxed);
}

/// Runs the work of a subcommand to its end. The token is cancelled by SIGTERM and SIGINT.
pub fn run<F: Future<Output = Result<()>>>(work: impl FnOnce(CancellationToken) -> F) -> ExitCode {
    let shutdown = CancellationToken::new();
    let outcome = listen(shutdown.clone()).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the async runtime cannot be started")?;
        let outcome = runtime.block_on(work(shutdown));
        // A thread that reads from a disk that hangs cannot be ended, and is not waited for.
        runtime.shutdown_timeout(LEFTOVERS);
        outcome
    });
    ExitCode::from(code(outcome))
}

/// Everything was said; this is the status to end with.
#[derive(Debug)]
pub struct Exit(pub u8);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}", self.0)
    }
}

impl std::error::Error for Exit {}

fn code(outcome: Result<()>) -> u8 {
    let code = match outcome {
        Ok(()) => 0,
        Err(error) if output::closed(&error) => output::CLOSED,
        Err(error) if error.is::<Exit>() => error.downcast_ref::<Exit>().map_or(1, |exit| exit.0),
        Err(error) => {
            // The whole chain on one line: what failed, and why.
            output::complain(&format!("error: {error:#}"));
            1
        }
    };
    output::flush();
    code
}

/// Does the work until it is done or a signal comes. For what has nothing to put in order.
///
/// # Errors
/// Those of the work.
pub async fn unless_asked_to_end<T>(
    shutdown: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(None),
        outcome = work => outcome.map(Some),
    }
}

/// Starts the thread that hears signals, and waits until it does.
fn listen(shutdown: CancellationToken) -> Result<()> {
    let (ready, heard) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let started = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .and_then(|runtime| {
                    let entered = runtime.enter();
                    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
                    drop(entered);
                    Ok((runtime, signals))
                });
            match started {
                Ok((runtime, (terminate, interrupt))) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(end(shutdown, terminate, interrupt));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })
        .context("no thread for signals can be started")?;
    heard
        .recv()
        .context("the thread for signals has ended")?
        .context("no handler for SIGTERM and SIGINT")
}

/// The first signal tells the work; its limit, or a second signal, ends the process.
async fn end(shutdown: CancellationToken, mut terminate: Signal, mut interrupt: Signal) {
    let (name, _) = next(&mut terminate, &mut interrupt).await;
    let limit = Duration::from_millis(LIMIT.load(Ordering::Relaxed));
    tracing::info!("{name}: ending, within {limit:?}");
    shutdown.cancel();
    let code = tokio::select! {
        (name, code) = next(&mut terminate, &mut interrupt) => {
            output::complain(&format!("{name} again: ending at once"));
            code
        }
        () = tokio::time::sleep(limit) => {
            output::complain(&format!("not ended within {limit:?} after {name}: something does not answer; ending now"));
            1
        }
    };
    output::flush();
    std::process::exit(code);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 128 + 15),
        _ = interrupt.recv() => ("SIGINT", 128 + 2),
    }
}
