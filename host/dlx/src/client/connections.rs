//! Every open connection, and how one is told to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use super::{Idleness, ListenerKind};
use crate::lock;

const GRACEFUL: u8 = 1;
const CUT: u8 = 2;
const REPLACED: u8 = 4;
/// Which part of the connections is ended at once when places are short.
const RELIEF: usize = 64;

/// How a connection is told to end.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    flags: AtomicU8,
    waker: AtomicWaker,
}

impl Signal {
    /// Finish what is under way and take nothing new.
    pub(crate) fn drain(&self) {
        self.raise(GRACEFUL);
    }

    /// End at once: others need the place.
    fn replace(&self) {
        self.raise(CUT | REPLACED);
    }

    /// Waits until it is told to end.
    pub(crate) async fn ended(&self) {
        self.raised(GRACEFUL | CUT).await;
    }

    /// Waits until it is told to end at once.
    pub(crate) async fn cut(&self) {
        self.raised(CUT).await;
    }

    /// Waits until one of these flags is raised.
    async fn raised(&self, flags: u8) {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.flags.load(Ordering::Acquire) & flags == 0 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    /// For one task, which is woken when it is told anything.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Whether it is told to finish what is under way.
    pub(crate) fn drains(&self) -> bool {
        self.has(GRACEFUL)
    }

    /// Whether it is told to end at once.
    pub(crate) fn cuts(&self) -> bool {
        self.has(CUT)
    }

    /// Whether it is told to end because others need the place.
    pub(crate) fn replaces(&self) -> bool {
        self.has(REPLACED)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    fn raise(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// Every open connection, so that it can be told to end.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    listener: ListenerKind,
    signal: Arc<Signal>,
    idleness: Arc<Idleness>,
}

impl Connections {
    pub(crate) fn enter(self: &Arc<Self>, listener: ListenerKind, idleness: &Arc<Idleness>) -> Entry {
        let (id, signal) = (
            self.next.fetch_add(1, Ordering::Relaxed),
            Arc::new(Signal::default()),
        );
        let open = Open {
            listener,
            signal: Arc::clone(&signal),
            idleness: Arc::clone(idleness),
        };
        lock(&self.open).insert(id, open);
        Entry {
            connections: Arc::clone(self),
            id,
            signal,
        }
    }

    pub(crate) fn drain(&self, which: impl Fn(ListenerKind) -> bool) {
        lock(&self.open)
            .values()
            .filter(|open| which(open.listener))
            .for_each(|open| open.signal.drain());
    }

    /// Ends some that are not needed, because places are short: those that have been without a request for longest, else some
    /// whose clients may have gone. A part at a time, so that looking for them is cheap for each of those that need a place.
    pub(crate) fn relieve(&self, which: impl Fn(ListenerKind) -> bool) {
        let open = lock(&self.open);
        let most = open.len() / RELIEF + 1;
        let candidates = || open.values().filter(|open| which(open.listener));
        let mut idle: Vec<_> = candidates()
            .filter_map(|open| Some((open.idleness.resting()?, &open.signal)))
            .collect();
        if idle.is_empty() {
            candidates()
                .filter(|open| open.idleness.is_half_closed())
                .take(most)
                .for_each(|open| open.signal.replace());
            return;
        }
        if idle.len() > most {
            idle.select_nth_unstable_by_key(most, |(since, _)| *since);
            idle.truncate(most);
        }
        for (_, signal) in idle {
            signal.replace();
        }
    }

    pub(crate) fn cut(&self) {
        lock(&self.open).values().for_each(|open| open.signal.raise(CUT));
    }
}

/// One of them, until it is dropped.
pub(crate) struct Entry {
    connections: Arc<Connections>,
    id: u64,
    pub(crate) signal: Arc<Signal>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.connections.open).remove(&self.id);
    }
}
