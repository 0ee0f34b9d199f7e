//! Ctrl-C and SIGTERM (CI ends jobs with it) bring down what this process has brought up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::cleanup;
use super::layout::Layout;

/// Clusters that end with this process.
static OURS: Mutex<Vec<Layout>> = Mutex::new(Vec::new());
/// Held while something is made that must be cleaned up, and for good by the one who cleans up after a signal.
static CHANGES: Mutex<()> = Mutex::new(());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static HANDLER: Once = Once::new();

/// From now on a signal brings this cluster down before the process ends.
pub fn guard(layout: &Layout) {
    HANDLER.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            std::thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    interrupted(signal);
                }
            });
        }
        Err(error) => {
            eprintln!("warning: Ctrl-C will not clean up ({error}); run `cargo xtask cluster down`")
        }
    });
    ours().push(layout.clone());
}

/// The cluster outlives this process.
pub fn release(layout: &Layout) {
    ours().retain(|other| other.name() != layout.name());
}

/// Does something that has to be cleaned up, unless the cleaning has begun.
pub fn unless_interrupted<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _changes = lock(&CHANGES);
    if is_interrupted() {
        bail!("interrupted");
    }
    work()
}

/// Whether a signal has come.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Keeps a clean-up after a signal from running beside another one. Once a signal has come it does not return: the
/// process ends when everything is cleaned up, with the code that the signal asks for.
pub fn changes() -> MutexGuard<'static, ()> {
    let changes = lock(&CHANGES);
    if is_interrupted() {
        drop(changes);
        loop {
            std::thread::park();
        }
    }
    changes
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ours() -> MutexGuard<'static, Vec<Layout>> {
    lock(&OURS)
}

fn interrupted(signal: i32) {
    INTERRUPTED.store(true, Ordering::SeqCst);
    let _changes = lock(&CHANGES);
    for layout in ours().iter() {
        eprintln!("\ninterrupted: bringing cluster {} down", layout.name());
        if let Err(error) = cleanup::remove(layout) {
            eprintln!("error: {error:#}");
        }
    }
    // What shells report for a process that a signal ended.
    std::process::exit(128 + signal);
}
